"""
All schedules of a small scenario: who goes on at each call, what else happens there, and what becomes of one call.

A schedule is a list of choices. The first takes the first option everywhere: each invocation runs to its end, nothing
fails. The next differs in the last choice that has options left, and so on, until all schedules were seen in which an
invocation that could go on is interrupted at most so many times, and so many calls fail (Musuvathi and Qadeer,
"Iterative context bounding", 2007: few interruptions suffice for most faults). To be interrupted is that another goes
on, a late write lands, a consumer deletes a bundle, a record expires, or that time passes. Where nobody is interrupted,
all of that costs nothing. In the end what is left on the queue is delivered again, and nothing fails any more.

A schedule that comes to a state that was seen before ends there: what follows was, or will be, seen as well.

    python -m tests.support.sim_schedules                      # lists the scenarios
    python -m tests.support.sim_schedules "one stray" 2 1      # how many schedules there are, or a wrong one's story
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

from aggregator.exceptions import AggregatorError, StoreUnavailableError
from aggregator.pipeline.planning import Wanted
from aggregator.schemas import ObjectRef
from tests.support.sim_aws import Content
from tests.support.sim_calls import Call, Ending, Fate, Landing, fates, short
from tests.support.sim_threads import Strand, on_one_processor
from tests.support.sim_world import START, TTL, Invocation, Late, Message, World, ledger_records, prepare
from tests.support.simulation import LATE, SOON, VISIBILITY

REMEMBERED = 4
"""Seconds after which the TTL may delete a record of long ago."""

MOST_DELIVERIES = 6
"""Times that what is left on the queue is delivered again; a message that is then still there is stuck."""

Way = Literal["statements", "transactions"]
WAYS: tuple[Way, ...] = ("statements", "transactions")
Option = Callable[[], object]


class Scenario(NamedTuple):
    """
    What all schedules of a scenario have in common.

    `messages` are the keys that each message announces, `deliveries` the messages that each invocation gets. `strays`
    are the keys that the first invocation cannot read. `remembered` are those of which there is a record of long ago,
    which names a bundle in whose place lies something else. Where `consumers` delete bundles and what is late lands
    `SOON`, they delete fences, too. Where invocations are `slow`, time passes while they run. Where the last one has
    `threads`, its requests for claims, for `most` objects each, are under way at once.
    """

    messages: Sequence[str]
    deliveries: Sequence[Sequence[int]]
    strays: str = ""
    remembered: str = ""
    consumers: bool = False
    patience: float = LATE
    slow: bool = False
    threads: bool = False
    most: int = 2


class Budget(NamedTuple):
    """How often somebody is interrupted, and how many calls fail, in a schedule."""

    interruptions: int
    faults: int


class Tape:
    """The choices of a schedule: those that are given, and then always the first."""

    def __init__(self, given: Sequence[int] = ()) -> None:
        self._given = given
        self._taken: list[tuple[int, int]] = []

    @property
    def is_new(self) -> bool:
        """Whether all choices that were given have been taken."""
        return len(self._taken) >= len(self._given)

    def choose(self, options: int) -> int:
        """The next choice."""
        choice = 0 if self.is_new else self._given[len(self._taken)]
        self._taken.append((choice, options))
        return choice

    def next(self) -> "Tape | None":
        """The schedule after this one; None, if this was the last."""
        while self._taken:
            choice, options = self._taken.pop()
            if choice + 1 < options:
                return Tape([*(choice for choice, _ in self._taken), choice + 1])
        return None


class Schedule(World):
    """One schedule of a scenario."""

    def __init__(self, scenario: Scenario, way: Way, budget: Budget, tape: Tape, seen: set[int]) -> None:
        super().__init__()
        self.way, self.most = way, scenario.most
        self._scenario, self._tape, self._seen = scenario, tape, seen
        self._interruptions, self._faults = budget
        self._last: Strand | None = None
        self._tokens = self._deliveries = 0
        self._time_may_pass = True
        messages = [self.announce(f"m{at}", *map(self._written, keys)) for at, keys in enumerate(scenario.messages)]
        self._to_come = [[messages[at] for at in delivery] for delivery in scenario.deliveries]
        self._threaded = self._to_come[-1] if scenario.threads else None
        for key in scenario.remembered:
            self._remember(key)

    def run(self) -> list[str]:
        """Let it happen; what is wrong in the end."""
        while not self.wrong and (options := self._options()):
            if self._tape.is_new and self._was_here():
                self.close()
                return []
            options[self._tape.choose(len(options))]()
        self.close()
        if self.waiting and not self.wrong:
            self.wrong.append("it does not end")
        return self.judge()

    def fate(self, invocation: Invocation, call: Call) -> Fate | None:
        del invocation
        if not self._faults:
            return None
        options = [None, *(fate for fate in _faults(call) if self._may_be(fate))]
        fate = options[self._tape.choose(len(options))]
        self._faults -= fate is not None
        return fate

    def stray(self, invocation: Invocation, wanted: Wanted) -> AggregatorError | None:
        if invocation.name == "request-1" and wanted.ref.key in self._scenario.strays:
            return StoreUnavailableError("not this time", key=wanted.ref.key)
        return None

    def delayed(self, what: str, fate: Fate, effect: Callable[[], Any]) -> Late:
        del fate
        return Late(self.now + self._scenario.patience, what, effect)

    def token(self) -> str:
        self._tokens += 1
        return f"{self._tokens:08x}"

    def sleep(self, seconds: float) -> None:
        self._pass_time(self.now + seconds)

    def lets_sleep(self, invocation: Invocation, call: Call) -> None:
        """Who sleeps does so as an event."""

    def interrupts(self) -> None:
        """A request is one step."""

    def _may_be(self, fate: Fate) -> bool:
        """As in a history: a put that is answered with SlowDown lands late only where no consumer deletes it."""
        return not self._scenario.consumers or fate.ending is not Ending.BUSY or Landing.LATE not in fate.attempts[-1]

    def _options(self) -> list[Option]:
        """What may happen next; nothing, if all is done. The first is what happens if nobody is interrupted."""
        strands = self.strands()
        going_on = [strand for strand in strands if self._last and strand.process is self._last.process]
        if self._last in going_on:
            going_on = [self._last]
        others: list[Option] = [partial(self._move, strand) for strand in strands if strand not in going_on]
        others += [partial(self._begin, batch) for batch in self._to_come]
        if going_on:
            interruptions: list[Option] = [*others, *self._events()] if self._interruptions else []
            return [
                *(partial(self._move, strand) for strand in going_on),
                *(partial(self._interrupt, by) for by in interruptions),
            ]
        if others:
            return [*others, *self._events()]
        if self.waiting and self._deliveries < MOST_DELIVERIES:
            return [self._deliver_again, *self._events()]
        return list(self._events()) if self.late else []

    def _events(self) -> Iterator[Option]:
        """What may happen but that an invocation begins or goes on."""
        yield from (partial(self.land, late) for late in self.late)
        if self._scenario.consumers:
            keys = self.bucket.consumable(fences=self._scenario.patience == SOON)
            yield from (partial(self._consume, key) for key in keys)
        if any(int(item["expiration"]["N"]) < START + REMEMBERED for item in self.table.items.values()):
            yield self._expire
        if self._time_may_pass and self._lapses() > self.now:
            yield self._sleep
            if self._scenario.slow:
                yield self._linger

    def _move(self, strand: Strand) -> None:
        self._last = strand
        self.let(strand)

    def _begin(self, batch: list[Message]) -> None:
        self._to_come.remove(batch)
        self.begin(batch, threads=batch is self._threaded)
        self._move(self.running[-1].strands[0])

    def _interrupt(self, by: Option) -> None:
        self._interruptions -= 1
        self._last = None
        by()

    def _deliver_again(self) -> None:
        """What is left on the queue becomes visible, when all claims have lapsed; now nothing fails any more."""
        self._deliveries += 1
        self._faults = 0
        self._pass_time(self.now + VISIBILITY)
        self._to_come.append(list(self.waiting))

    def _consume(self, key: str) -> None:
        self.bucket.delete(key)
        self.tell(f"a consumer deletes {short(key)}")

    def _expire(self) -> None:
        self._pass_time(START + REMEMBERED)
        for id_ in self.table.expire(self.now):
            self.tell(f"the TTL deletes the record of {self.names[id_.removeprefix('distribution#')]}")

    def _sleep(self) -> None:
        """The machines of all that run are suspended, until every claim has lapsed."""
        self._time_may_pass = False
        begun = self.now
        self._pass_time(self._lapses() + 1)
        self.tell("everyone wakes up, and all claims have lapsed")
        for invocation in self.running:
            invocation.slept += self.now - begun

    def _linger(self) -> None:
        """Time passes, until a second before the claims lapse."""
        self._pass_time(self._lapses() - 1)
        self.tell("the claims are about to lapse")

    def _lapses(self) -> float:
        """When the last claim lapses."""
        claims = (item for item in self.table.items.values() if '"bundle"' in item["data"]["S"])
        return max((int(claim.get("in_progress_expiration", {"N": "0"})["N"]) / 1000 for claim in claims), default=0)

    def _pass_time(self, until: float) -> None:
        """The clock moves on; what is late lands by its time."""
        for late in [late for late in self.late if late.by <= until]:
            self.land(late)
        self.now = max(self.now, until)

    def _written(self, key: str) -> ObjectRef:
        self.store.put(key, Content(key.encode(), "a", None))
        return ObjectRef("source", key, 1, "a")

    def _remember(self, key: str) -> None:
        old = ledger_records(SimpleNamespace(meta=None), lambda: START - TTL)
        said = {"bundle": f"old-{key}", "etag": "a"}
        record = old.record(said, int((START - TTL) * 1000))._replace(expiration=int(START) + REMEMBERED - 1)
        self.table.put(old.item(Wanted.of(ObjectRef("source", key), "key").id, record))
        self.bucket.overwrite(f"old-{key}", b"somebody else's object")

    def _was_here(self) -> bool:
        """Whether all is as it was before: what AWS holds, what is on its way, and what each invocation knows."""
        state = hash(
            (
                tuple(
                    sorted((id_, *(str(value) for value in item.values())) for id_, item in self.table.items.items())
                ),
                tuple((key, tuple(versions)) for key, versions in sorted(self.bucket.versions.items())),
                tuple((late.by, late.what) for late in self.late),
                tuple((one.name, one.slept, one.heard, *self._positions(one)) for one in self.running),
                tuple(message.id for message in self.waiting),
                (len(self._to_come), *(message.id for batch in self._to_come for message in batch)),
                (self.now, self._time_may_pass, self._tokens, self._deliveries, self._interruptions, self._faults),
            )
        )
        if state in self._seen:
            return True
        self._seen.add(state)
        return False

    def _positions(self, invocation: Invocation) -> Iterator[tuple[int, bool]]:
        return ((strand.moves, strand is self._last) for strand in invocation.strands)


class Explored(NamedTuple):
    """How many schedules were seen, and the first one that is wrong."""

    schedules: int
    wrong: Schedule | None


def explore(scenario: Scenario, way: Way, budget: Budget) -> Explored:
    """Run all schedules, up to the first that is wrong."""
    tape: Tape | None = Tape()
    seen: set[int] = set()
    schedules = 0
    with on_one_processor():
        while tape:
            schedule = Schedule(scenario, way, budget, tape, seen)
            schedules += 1
            if schedule.run():
                return Explored(schedules, schedule)
            tape = tape.next()
    return Explored(schedules, None)


def _faults(call: Call) -> list[Fate]:
    """What may become of a call but that it is answered; what looks the same to its sender is left out."""
    troubles = fates(call.kind, len(call.effects), call.parts)
    if not call.writes:
        return troubles["unheard"]
    kinds = ("unheard", "dead", "attempted again", "throttled again", "busy", "refused")
    marred = [fate for fate in troubles.get("marred", ()) if set(fate.mars) <= {None, _MARRED}]
    return [*(fate for kind in kinds for fate in troubles.get(kind, ())), *marred]


_MARRED = ("InternalServerError", Landing.LATE)

SCENARIOS = {
    "one stray": Scenario(("x", "y"), ((0, 1), (0,)), strays="x"),
    "delivered twice": Scenario(("x",), ((0,), (0,))),
    "two delivered twice": Scenario(("x", "y"), ((0, 1), (1, 0))),
    "two in one message": Scenario(("xy", "x"), ((0,), (1,))),
    "an old record": Scenario(("x", "y"), ((0, 1), (0,)), remembered="x", most=1),
    "consumers": Scenario(("x",), ((0,), (0,)), consumers=True),
    "hasty consumers": Scenario(("x",), ((0,), (0,)), consumers=True, patience=SOON),
    "slow": Scenario(("x",), ((0,), (0,)), consumers=True, patience=SOON, slow=True),
    "delivered three times": Scenario(("x", "y"), ((0, 1), (0,), (0,)), strays="x"),
    "threads": Scenario(("x", "y", "z", "w"), ((0, 1), (1, 2, 0, 3)), strays="x", threads=True),
}


def _main(name: str = "", interruptions: str = "1", faults: str = "0") -> None:
    prepare(setattr)
    for way in WAYS if name else ():
        found = explore(SCENARIOS[name], way, Budget(int(interruptions), int(faults)))
        told = [*found.wrong.story, *found.wrong.wrong] if found.wrong else ["none of them is wrong"]
        sys.stdout.write("\n".join([f"{name}, {way}: {found.schedules} schedules", *told, ""]))
    if not name:
        sys.stdout.write("\n".join([*SCENARIOS, ""]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
