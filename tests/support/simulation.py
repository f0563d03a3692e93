"""
Seeded histories of a world (sim_world.py): a seed decides who goes on, what becomes of calls, and all that happens.

SQS delivers messages twice, at once and later. Invocations overlap, up to four; their clocks are wrong, their machines
are suspended, their calls are lost, throttled, answered at the second attempt, or land when nobody waits for them any
more. Objects cannot be read, or are overwritten; bundles are full; consumers delete what appears; the TTL deletes
records. A history that takes too many steps is calm from then on, so that it ends: what never ends is a fault, too.

    python -m tests.support.simulation 4711        # tells the story of seed 4711
"""

import random
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from aggregator.exceptions import AggregatorError, MissingObjectError, StoreUnavailableError
from aggregator.pipeline.planning import Wanted
from aggregator.pipeline.readahead import Arrival
from aggregator.schemas import ObjectRef
from tests.support.sim_aws import Content
from tests.support.sim_calls import Call, Ending, Fate, Landing, fates, short
from tests.support.sim_threads import Strand
from tests.support.sim_world import (
    FUNCTION_SECONDS,
    START,
    TTL,
    Invocation,
    Late,
    Message,
    World,
    ledger_records,
    prepare,
)

VISIBILITY = 6 * FUNCTION_SECONDS
SOON, LATE = 5.0, 900.0
"""
Seconds within which lands what was sent. Where consumers delete whatever appears, fences too, it lands soon: before any
claim of its sender lapses, and no machine is suspended for so short a time that it wakes up at about that moment. Where
they leave fences alone, it may land ever so late, and a machine may sleep for as long as it likes.
"""

SKEW = 2.0
"""Most seconds by which the clock of an invocation is wrong."""

MOST_INVOCATIONS = 4
TROUBLED_STEPS, MOST_STEPS = 1_500, 6_000


class History(World):
    """One seed: its queue, its AWS, its clock, its story."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = random.Random(seed)
        chance = self.random
        self.scope = chance.choice(["key", "key", "version"])
        self.versioned = chance.random() < 0.7
        self.tells_versions = self.versioned and chance.random() < 0.7
        self.way = chance.choice(["statements", "transactions"])
        self.most = chance.choice([1, 2, 2, 3])
        self.patience = chance.choice([SOON, LATE])
        self.consumers = chance.random() < 0.8
        self.trouble = chance.choice([0.0, 0.05, 0.15, 0.3])
        self.doubled = chance.choice([0.05, 0.3, 0.7])
        self.strays = chance.choice([0.0, 0.1, 0.3])
        self.calm = False
        self._wakes: list[float] = []
        self._tell_what_is_rolled(seed)
        self._announce_all()
        self._overwrites = chance.choice([0, 0, 1, 3])
        if chance.random() < 0.3:
            self._remember()

    def run(self) -> list[str]:
        """Let it happen, until every message is acknowledged; what is wrong in the end."""
        for step in range(MOST_STEPS):
            if not self.waiting and not self.running:
                break
            if step == TROUBLED_STEPS:
                self.calm = True
                self.tell("from here on all is calm")
            self._step()
        else:
            self.wrong.append("it does not end")
        self.close()
        for late in list(self.late):
            self.land(late)
        return self.judge()

    def fate(self, invocation: Invocation, call: Call) -> Fate | None:
        del invocation
        if not self._happens(self.trouble):
            return None
        troubles = fates(call.kind, len(call.effects), call.parts)
        fate = self.random.choice(self.random.choice(list(troubles.values())))
        return fate if self._may_be(fate) else None

    def stray(self, invocation: Invocation, wanted: Wanted) -> AggregatorError | None:
        del invocation
        if not self._happens(self.strays):
            return None
        return self.random.choice([MissingObjectError, StoreUnavailableError])("not this time", key=wanted.ref.key)

    def delayed(self, what: str, fate: Fate, effect: Callable[[], Any]) -> Late:
        del fate
        return Late(self.now + self.random.uniform(0, self.patience), what, effect)

    def token(self) -> str:
        return f"{self.random.getrandbits(32):08x}"

    def sleep(self, seconds: float) -> None:
        wakes = self.now + seconds
        self._wakes.append(wakes)
        Strand.moving.stop(lambda: self.now >= wakes)

    def lets_sleep(self, invocation: Invocation, call: Call) -> None:
        if not self._happens(self.trouble / 10):
            return
        begun, seconds = self.now, self.random.choice([80.0, 400.0, 1500.0, *[20.0] * (self.patience == LATE)])
        invocation.tell(f"sleeps for {seconds:.0f} seconds before it {call.what}")
        self.sleep(seconds)
        invocation.slept += self.now - begun

    def interrupts(self) -> None:
        if self.random.random() < 0.1:
            Strand.moving.stop()

    def loses_its_answer(self, invocation: Invocation) -> bool:
        if not self._happens(self.trouble / 3):
            return False
        invocation.tell("is not heard by SQS")
        return True

    def arranged(self, arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
        ahead, most = list[Arrival](), self.random.randint(0, 2)
        for arrival in arrivals:
            ahead.append(arrival)
            if len(ahead) > most:
                yield ahead.pop(self.random.randrange(len(ahead)))
        yield from ahead

    def _may_be(self, fate: Fate) -> bool:
        """
        Whether a fate is one that the product is made for.

        A put that is answered with SlowDown has landed by then or never will, where a consumer may delete it before it
        is put again; elsewhere it may yet land, but is not forbidden when it is put again.
        """
        if self.consumers:
            return fate.ending is not Ending.BUSY or Landing.LATE not in fate.attempts[-1]
        return fate.ending is not Ending.REFUSED

    def _happens(self, likely: float) -> bool:
        """Whether trouble of some kind happens."""
        return not self.calm and self.random.random() < likely

    def _tell_what_is_rolled(self, seed: int) -> None:
        consumers = "consumers" if self.consumers else "no consumers"
        self.tell(f"seed {seed}: scope {self.scope}, {self.way} of {self.most}, {consumers}")
        self.tell(
            f"late within {self.patience:.0f} s, trouble {self.trouble}, doubled {self.doubled}, strays {self.strays}"
        )

    def _announce_all(self) -> None:
        """Objects, and the messages that announce them: some more than once, some several in one."""
        members = [self._written(f"{at}") for at in range(self.random.randint(1, 6))]
        members += [member for member in members for _ in range(self.random.choice([0, 0, 0, 1, 2]))]
        self.random.shuffle(members)
        while members:
            some = [members.pop() for _ in range(min(len(members), self.random.choice([1, 1, 1, 2, 3])))]
            self.announce(f"m{len(self.waiting)}", *some)

    def _written(self, key: str) -> ObjectRef:
        """Write an object, as its notification announces it; it may hold again what it has held before."""
        earlier = self.store.contents.get(key, [])
        etag = self.random.choice("ab") if earlier else "a"
        body = next(
            (content.body for content in earlier if content.etag == etag), b"x" * self.random.choice([1, 20, 40])
        )
        version_id = f"v{len(earlier)}" if self.versioned else None
        self.store.put(key, Content(body, etag, version_id))
        size = self.random.choice([None, len(body)])
        return ObjectRef("source", key, size, etag, version_id if self.tells_versions else None)

    def _remember(self) -> None:
        """Of some objects there are records of long ago, which the TTL may delete in the middle of what happens."""
        old = ledger_records(SimpleNamespace(meta=None), lambda: START - TTL)
        for id_, name in self.names.items():
            said = self.random.choice([None, {"released": "old"}, {"bundle": f"old-{name}", "etag": "a"}])
            if said:
                expires = int(START) + self.random.choice([0, 1, 2, 3, 5, 20, 400])
                record = old.record(said, int((START - TTL) * 1000))._replace(expiration=expires)
                self.table.put(old.item(id_, record))
                self.tell(f"of {name} there is a record until {expires - START:.0f}: {said}")
                if self.random.random() < 0.3:
                    self.bucket.overwrite(f"old-{name}", b"somebody else's object")
                    self.tell(f"under old-{name} lies something else")

    def _step(self) -> None:
        """One thing happens: what is late lands, a consumer or the TTL deletes, a batch begins, or a call is made."""
        for late in [late for late in self.late if late.by <= self.now]:
            self.land(late)
        self._what_else_happens()
        due = [message for message, at in self.waiting.items() if at <= self.now]
        strands = self.strands()
        if due and len(self.running) < MOST_INVOCATIONS and self.random.random() < 0.3:
            self._deliver(due)
        elif strands:
            self.let(self.random.choice(strands))
            self.now += self.random.choice([0.001, 0.01, 0.1, 1.0] * 10 + [30.0])
        else:
            self._wait()

    def _wait(self) -> None:
        """Nobody can go on: the next that happens is a message, or a late write, or that somebody wakes up."""
        self._wakes = [moment for moment in self._wakes if moment > self.now]
        moments = [*self._wakes, *self.waiting.values(), *(late.by for late in self.late)]
        self.now = max(self.now + 0.01, min(moments, default=self.now)) + self.random.random()

    def _what_else_happens(self) -> None:
        if self.random.random() < 0.05:
            self._consume()
        if self.random.random() < 0.2:
            self._expire()
        if self._overwrites and self.random.random() < 0.02:
            self._overwrites -= 1
            member = self._written(self.random.choice(list(self.store.contents)))
            message = self.announce(f"m{len(self.story)}", member)
            self.tell(f"{member.key} is overwritten with {member.etag}: {message.id}")

    def _deliver(self, due: list[Message]) -> None:
        batch = self.random.sample(due, self.random.randint(1, len(due)))
        self._begin(batch)
        again = [message for message in batch if self.random.random() < self.doubled]
        if again and self.random.random() < 0.5:
            self._begin(again)
        elif again:
            self.waiting |= {message: self.now + self.random.random() * 20 for message in again}

    def _begin(self, batch: list[Message]) -> None:
        self.waiting |= dict.fromkeys(batch, self.now + VISIBILITY)
        self.begin(batch, skew=self.random.uniform(-SKEW, SKEW), threads=self.random.random() < 0.5)

    def _consume(self) -> None:
        if self.consumers and (keys := self.bucket.consumable(fences=self.patience == SOON)):
            key = self.random.choice(keys)
            self.bucket.delete(key)
            self.tell(f"a consumer deletes {short(key)}")

    def _expire(self) -> None:
        for id_ in self.table.expire(self.now):
            self.tell(f"the TTL deletes the record of {self.names.get(id_.removeprefix('distribution#'), short(id_))}")


def simulate(seed: int) -> History:
    """Let the history of `seed` happen; `wrong` says what should not have."""
    history = History(seed)
    history.run()
    return history


if __name__ == "__main__":
    prepare(setattr)
    told = simulate(int(sys.argv[1]))
    sys.stdout.write("\n".join([*told.story, *(told.wrong or ["each object is published once"]), ""]))
