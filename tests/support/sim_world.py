"""
A world of several invocations on a fake AWS and a fake clock, in one process.

Each invocation runs the product's own `aggregate`, in threads that move only when they are let (sim_threads.py). Who
goes on, what becomes of a call (sim_calls.py), and what else happens in between is left to those who make a world: a
seed (simulation.py), or one choice after the other (sim_schedules.py).

A message is acknowledged by the product's own report. At that moment, each of its objects must lie in a published
bundle, or have been replaced; in the end, each must lie in one, among all versions ever put.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, cast

from botocore.exceptions import BotoCoreError, ClientError

from aggregator.bundles.index import Member
from aggregator.exceptions import AggregatorError, SupersededError
from aggregator.pipeline import arbiter, bundling, clients, records, swaps
from aggregator.pipeline.arbiter import Arbiter
from aggregator.pipeline.bundling import Attempt, aggregate
from aggregator.pipeline.core import FetchedObject, Reading
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.distribution import DistributionBucket
from aggregator.pipeline.ledger import Ledger
from aggregator.pipeline.outcomes import Outcome, Result
from aggregator.pipeline.planning import Envelope, Wanted, identity
from aggregator.pipeline.readahead import Arrival, NotStarted
from aggregator.pipeline.records import Records
from aggregator.pipeline.report import Parsed, Report
from aggregator.pipeline.swaps import Statements, Transactions
from aggregator.schemas import ObjectRef
from tests.support.sim_aws import Bucket, Store, Table
from tests.support.sim_calls import S3, Call, DynamoDB, Ending, Fate, Landing
from tests.support.sim_threads import Inline, Lock, Process, Strand, Strands

START = 1_795_000_000.0
FUNCTION_SECONDS = 60.0
KILLED_LATE = 0.7
"""Seconds by which Lambda has been seen to kill late."""

TTL = 30 * 86_400
MOST_BYTES = 100
"""Bytes of members in a bundle."""


class Message(NamedTuple):
    """A message on the queue, with the objects it announces."""

    id: str
    wanted: tuple[Wanted, ...]


class Late(NamedTuple):
    """A write on its way, which lands by that moment at the latest: what it is, and what it does."""

    by: float
    what: str
    land: Callable[[], object]


class Invocation(Process):
    """An invocation of the handler: its wall clock is wrong by `skew`, its other clock stands still while it sleeps."""

    def __init__(self, world: "World", name: str, batch: Sequence[Message], *, skew: float, threads: bool) -> None:
        super().__init__()
        self.world, self.name, self.batch = world, name, batch
        self.slept = 0.0
        self.heard = 0
        self.executor: type[Inline | Strands] = Strands if threads else Inline
        self._skew = skew
        self._ends = self.monotonic() + FUNCTION_SECONDS
        self._deadlines = Deadlines.of(self.monotonic(), FUNCTION_SECONDS, 1, wall=self.time())
        self._begin_bundle = self._equipped()
        self.begin(self._live)

    def monotonic(self) -> float:
        return self.world.now - self.slept

    def time(self) -> float:
        return self.world.now + self._skew

    def tell(self, what: str) -> None:
        self.world.tell(f"{self.name} {what}")

    def call(self, call: Call) -> Any:
        """Make a call to AWS, and remember what came of it: what an invocation does follows from what it heard."""
        try:
            answer = self._call(call)
        except Exception as error:
            self.heard = hash((self.heard, self.world.now, call.what, repr(error), repr(vars(error).get("response"))))
            raise
        self.heard = hash((self.heard, self.world.now, call.what, repr(answer)))
        return answer

    def _call(self, call: Call) -> Any:
        """Who goes on first, and what becomes of the call, is the world's choice."""
        self._begin_attempt(call)
        fate = self.world.fate(self, call)
        if fate is None:
            return self._answered(call, Fate(((Landing.NOW,) * len(call.effects),), Ending.ANSWERED))
        self.tell(f"{call.what}: {fate}")
        for attempt in fate.attempts[:-1]:
            self._attempt(call, attempt, fate)
            self._begin_attempt(call)
        if fate.ending is Ending.ANSWERED:
            return self._answered(call, fate)
        self._attempt(call, fate.attempts[-1], fate)
        if fate.ending is Ending.DEAD:
            self.die()
        raise fate.error()

    def _begin_attempt(self, call: Call) -> None:
        """Wait for its turn; by then its machine may sleep, Lambda have killed it, or botocore refuse."""
        Strand.moving.stop()
        self.world.lets_sleep(self, call)
        if self.monotonic() > self._ends + KILLED_LATE:
            self.tell(f"is killed by its time-out before it {call.what}")
            self.die()
        try:
            call.ask()
        except BotoCoreError as error:
            self.tell(f"does not begin ({type(error).__name__}): {call.what}")
            raise

    def _answered(self, call: Call, fate: Fate) -> Any:
        """Let the last attempt take place, and hand on its answer."""
        retries = {"RetryAttempts": len(fate.attempts) - 1}
        try:
            answer = call.answer(fate.mars, partial(self._land, call, fate))
        except ClientError as error:
            error.response["ResponseMetadata"]["RetryAttempts"] = retries["RetryAttempts"]
            self.tell(f"{call.what}: {reasons(error)}")
            raise
        self.tell(f"{call.what}{_refusals(answer)}")
        return {**answer, "ResponseMetadata": retries}

    def _attempt(self, call: Call, attempt: Sequence[Landing], fate: Fate) -> None:
        """Let an attempt take place of which nobody will hear."""
        for effect, landing in zip(call.effects, attempt, strict=True):
            try:
                self._land(call, fate, effect, landing)
            except ClientError as error:
                self.tell(f"is not told: {reasons(error)}")

    def _land(self, call: Call, fate: Fate, effect: Callable[[], Any], landing: Landing) -> Any:
        if landing is Landing.NOW:
            self.world.interrupts()
            return effect()
        if landing is Landing.LATE:
            self.world.late.append(self.world.delayed(f"{self.name} {call.what}", fate, effect))
        return None

    def _live(self) -> None:
        wanted = (one for message in self.batch for one in message.wanted)
        result = aggregate(wanted, begin=self._begin_bundle, request_id=self.name, limit=MOST_BYTES)
        said = (f"{self.world.names[id_]} {_said(outcome)}" for id_, outcome in result.outcomes.items())
        self.tell(f"ends: {', '.join(said)}")
        if self.world.loses_its_answer(self):
            self.die()
        parsed = [Parsed(Envelope(message.id, message.wanted)) for message in self.batch]
        left = {envelope.message_id for envelope, _ in Report(parsed, result).failed}
        for message in self.batch:
            if message.id not in left:
                self.world.acknowledge(self, message, result)

    def _equipped(self) -> Callable[..., Attempt]:
        """What `app.py` builds for an invocation, on this AWS."""
        world, deadlines = self.world, self._deadlines
        client = DynamoDB(self, world.table, deadlines, world.names)
        distribution = DistributionBucket(cast("Any", S3(self, world.bucket, deadlines)), "distribution")
        records = ledger_records(client, self.time)
        arbiter = Arbiter(
            distribution,
            settle=records.settle,
            scope=world.scope,
            request_id=self.name,
            clock=self.time,
            has_time=lambda: self.monotonic() <= deadlines.read_until,
        )
        way = Statements(records) if world.way == "statements" else Transactions(records)
        way.most = world.most
        settings = SimpleNamespace(
            max_bundle_input=MOST_BYTES,
            compression_level=1,
            bundle_framing="lines",
            idempotency_scope=world.scope,
            binary_members="keep",
        )
        return partial(
            Attempt,
            settings=cast("Any", settings),
            deadlines=deadlines,
            sources=cast("Any", _Sources(self)),
            ledger=Ledger(records, way, arbiter, settle=records.settle, lapses=deadlines.lapses, clock=self.time),
            distribution=distribution,
            arbiter=arbiter,
            compressors=Inline(),
        )


class _Sources:
    """Reads objects one after the other, as the world arranges it."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation, self._world = invocation, invocation.world

    def read_ahead(self, wanted: Iterator[Wanted], enough: Callable[[], bool]) -> Iterator[Arrival]:
        return self._world.arranged(Arrival(one, NotStarted() if enough() else self._read(one)) for one in wanted)

    def _read(self, wanted: Wanted) -> Reading | Exception:
        self._world.interrupts()
        failure = self._world.stray(self._invocation, wanted)
        if failure is not None:
            self._invocation.tell(f"cannot read {self._world.names[wanted.id]}: {_said(failure)}")
            return failure
        try:
            content = self._world.store.read(wanted, pinned=self._world.scope == "version")
        except SupersededError as error:
            self._world.replaced.add(wanted.id)
            return error
        source = FetchedObject(wanted.ref, len(content.body), content.etag, content.version_id)
        self._world.name(wanted.ref._replace(etag=content.etag, version_id=content.version_id))
        return Reading(source, iter((content.body,)))


class World(ABC):
    """A queue, an AWS, a clock, and the story of what happens."""

    def __init__(self) -> None:
        self.scope: Literal["key", "version"] = "key"
        self.tells_versions = False
        """Whether notifications tell the version of an object, and not only its entity tag."""
        self.way: Literal["statements", "transactions"] = "statements"
        self.most = 2
        """Claims in one request."""
        self.now = START
        self.story: list[str] = []
        self.wrong: list[str] = []
        self.table, self.bucket, self.store = Table(), Bucket(), Store()
        self.late: list[Late] = []
        self.names: dict[str, str] = {}
        self.announced: dict[str, None] = {}
        self.waiting: dict[Message, float] = {}
        self.running: list[Invocation] = []
        self.replaced: set[str] = set()
        self._begun = 0

    @abstractmethod
    def fate(self, invocation: Invocation, call: Call) -> Fate | None:
        """What becomes of a call; None, if all is well."""

    @abstractmethod
    def stray(self, invocation: Invocation, wanted: Wanted) -> AggregatorError | None:
        """Why an object cannot be read this time."""

    @abstractmethod
    def delayed(self, what: str, fate: Fate, effect: Callable[[], Any]) -> Late:
        """An effect that lands late."""

    @abstractmethod
    def token(self) -> str:
        """What makes the name of a bundle its own."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Let a thread pause."""

    @abstractmethod
    def lets_sleep(self, invocation: Invocation, call: Call) -> None:
        """Suspend the machine of an invocation that is about to make a call."""

    @abstractmethod
    def interrupts(self) -> None:
        """Let others go on between two effects of a call, or while an object is read."""

    def loses_its_answer(self, invocation: Invocation) -> bool:
        """Whether an invocation ends without SQS's being told."""
        del invocation
        return False

    def arranged(self, arrivals: Iterator[Arrival]) -> Iterator[Arrival]:
        """Objects in the order in which they arrive."""
        return arrivals

    def tell(self, what: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{self.now - START:9.2f}  {what}")

    def announce(self, message: str, *members: ObjectRef) -> Message:
        """Put a message on the queue."""
        announced = Message(message, tuple(self.name(member) for member in members))
        self.announced.update(dict.fromkeys(one.id for one in announced.wanted))
        self.waiting[announced] = self.now
        return announced

    def name(self, member: ObjectRef) -> Wanted:
        """An object with its id, by which the story can name it from now on."""
        wanted = Wanted.of(member, self.scope)
        told = f"@{member.version_id or member.etag}" if self.scope == "version" else ""
        self.names[wanted.id] = member.key + told
        return wanted

    def begin(self, batch: Sequence[Message], *, skew: float = 0.0, threads: bool = False) -> None:
        """Deliver messages to an invocation."""
        self._begun += 1
        name = f"request-{self._begun}"
        told = (f"{message.id} ({', '.join(self.names[one.id] for one in message.wanted)})" for message in batch)
        self.tell(f"{name} begins with {', '.join(told)}")
        self.running.append(Invocation(self, name, batch, skew=skew, threads=threads))

    def strands(self) -> list[Strand]:
        """Those that can move."""
        return [strand for invocation in self.running for strand in invocation.strands if strand.can_move]

    def let(self, strand: Strand) -> None:
        """Let a strand move; its process may die of it."""
        strand.move()
        process = strand.process
        if process.dead:
            process.end()
        elif strand.ended:
            process.strands.remove(strand)
        self.running = [invocation for invocation in self.running if invocation.strands]
        if process.broken:
            raise process.broken

    def land(self, late: Late) -> None:
        """Let a write land that was on its way."""
        self.late.remove(late)
        try:
            answer = late.land()
        except ClientError as error:
            self.tell(f"late, and refused ({reasons(error)}): {late.what}")
        else:
            refused = isinstance(answer, dict) and "Error" in answer
            self.tell(f"late{', and refused' if refused else ''}: {late.what}")

    def acknowledge(self, invocation: Invocation, message: Message, result: Result) -> None:
        """Take a message from the queue, and see that its objects are safe by now."""
        self.waiting.pop(message, None)
        held = self.published()
        for one in message.wanted:
            safe = self.replaced if result.outcomes[one.id] is Outcome.SUPERSEDED else held
            if one.id not in safe:
                self.wrong.append(f"{invocation.name} acknowledges {self.names[one.id]}, which lies in no bundle")

    def judge(self) -> list[str]:
        """What is wrong in the end: each object must have been published once."""
        held = self.published()
        waiting = {one.id for message in self.waiting for one in message.wanted}
        current = {self._id(key, *contents[-1][1:]) for key, contents in self.store.contents.items()}
        excused = waiting | (self.replaced - current)
        versions = Counter(self.name(_read_as(entry)).id for entry in self._entries())
        self.wrong += [f"{self.names[id_]} is published {times} times" for id_, times in versions.items() if times > 1]
        self.wrong += [f"{self.names[id_]} is lost" for id_ in self.announced if not held[id_] and id_ not in excused]
        return self.wrong

    def published(self) -> Counter[str]:
        """How often each object was published, as it is announced."""
        return Counter(self._id(entry.key, entry.etag, entry.version_id) for entry in self._entries())

    def close(self) -> None:
        """End all threads."""
        for invocation in self.running:
            invocation.end()

    def _entries(self) -> Iterator[Member]:
        return (entry for _, entries in self.bucket.published for entry in entries)

    def _id(self, key: str, etag: str | None, version_id: str | None) -> str:
        """The id of an object that is announced as this world announces them."""
        return identity(ObjectRef("source", key, None, etag, version_id if self.tells_versions else None), self.scope)


def _read_as(entry: Member) -> ObjectRef:
    return ObjectRef("source", entry.key, None, entry.etag, entry.version_id)


def ledger_records(client: Any, clock: Callable[[], float]) -> Records:
    """The product's records in the fake table."""
    return Records(client, table="ledger", prefix="distribution", ttl=TTL, clock=clock)


def prepare(setattr_: Callable[[Any, str, Any], object]) -> None:
    """Put the fake clock and the threads that move when they are let under the product, by `setattr_`."""
    clock = SimpleNamespace(
        monotonic=lambda: _moving().monotonic(),
        time=lambda: _moving().time(),
        sleep=lambda seconds: _moving().world.sleep(seconds),  # noqa: PLW0108 - it is asked who moves each time
    )
    setattr_(bundling, "time", clock)
    setattr_(clients, "time", clock)
    setattr_(bundling, "ThreadPoolExecutor", lambda most, thread_name_prefix: _moving().executor(most))
    setattr_(arbiter, "Lock", Lock)
    setattr_(bundling, "token_hex", lambda _: _moving().world.token())
    for module in (records, swaps):
        setattr_(module, "pause", lambda _: None)
    for module in (bundling, swaps, arbiter):
        setattr_(module, "log", _Log())


class _Log:
    """What the product logs is part of the story."""

    def info(self, event: str, **_: object) -> None:
        _moving().tell(f"logs {event}")

    warning = info


def _moving() -> Invocation:
    return cast("Invocation", Strand.moving.process)


def reasons(error: ClientError) -> str:
    """Why AWS refuses a call, in a word or two."""
    told: Any = error.response.get("CancellationReasons", [])
    return ", ".join(reason["Code"] for reason in told) or error.response["Error"]["Code"]


def _refusals(answer: dict[str, Any]) -> str:
    """What single statements were answered with, if not all are done."""
    responses = answer.get("Responses")
    codes = [_code(response) for response in responses] if isinstance(responses, list) else []
    return f": {', '.join(code or 'done' for code in codes)}" if any(codes) else ""


def _code(response: dict[str, Any]) -> str | None:
    return response["Error"]["Code"] if "Error" in response else None


def _said(outcome: Outcome | Exception) -> str:
    return outcome.value if isinstance(outcome, Outcome) else getattr(outcome, "reason", type(outcome).__name__)
