"""
AWS as far as the protocol sees it: one table, one versioned bucket, one queue, and the network between.

A `World` is all that is outside of the invocations. An invocation asks it one call at a time; `Aws.outcomes` says all
that may come of a call.

    call ──▶ meanwhile ──▶ answered, or struck at the price of a fault ──▶ answer, world
             the TTL or    not done · no answer, and the write is on the
             a consumer    wire · an attempt is on the wire, the next is
             deletes       answered · unreadable · a claim lapses

Three facts keep the number of worlds small, and leave no history out:

- A lost answer, a call that did nothing and a write that lands late are one thing: the write is *on the wire*. It lands
  at once, later, or never. One that would be refused is not tried: that is the same as never.
- What nobody looks at has not happened yet. A claim lapses when somebody asks the clock about it, the TTL deletes a
  record when somebody reads or writes it, a consumer deletes a bundle when somebody puts under its name or looks there.
- Who is dead does nothing more. So a crash is no event: the others go on, and the dead one is not heard of again.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple, TypeGuard, TypeVar

from tests.support.protocol.calls import (
    ANYTHING,
    BUSY,
    DELETED,
    DONE,
    DONE_AT_LAST,
    EMPTY,
    FOREIGN,
    FRESH,
    LAPSED,
    NO_ANSWER,
    NOT_DONE,
    OLD,
    REFUSED,
    REFUSED_AT_LAST,
    UNREADABLE,
    Acknowledge,
    AskClock,
    Call,
    Look,
    Put,
    ReadObject,
    ReadRecord,
    ReadSettleRecord,
    Record,
    Settle,
    Swap,
    Version,
    Write,
    is_bundle,
)

Value = TypeVar("Value")

MOST_DELETIONS: Final = 2
"""How often consumers delete what lies under one name; without an end, they keep it from ever being fenced."""


class World(NamedTuple):
    """All that is outside of the invocations."""

    faults: int
    """How many more there may be."""
    calm: bool = False
    """Whether no invocation is left, and all claims have lapsed."""
    records: tuple[tuple[str, Record], ...] = ()
    settled: frozenset[str] = frozenset()
    bundles: tuple[tuple[str, tuple[Version, ...]], ...] = ()
    """All versions under each bundle's name, newest last."""
    wire: tuple[Write, ...] = ()
    acknowledged: frozenset[str] = frozenset()
    lapsed: frozenset[str] = frozenset({OLD})
    """The bundles whose claims have lapsed."""

    def record(self, member: str) -> Record | None:
        """What the table says of a member."""
        return dict(self.records).get(member)

    def versions(self, bundle: str) -> tuple[Version, ...]:
        """All versions under a bundle's name, newest last."""
        return dict(self.bundles).get(bundle, ())

    def published(self, member: str) -> int:
        """How often a member lies in a bundle, those that were deleted included."""
        return sum(member in version for _, versions in self.bundles for version in versions if is_bundle(version))

    def with_record(self, member: str, record: Record | None) -> "World":
        """The same, but for what the table says of a member."""
        return self._replace(records=_with(self.records, member, record))

    def with_version(self, bundle: str, version: Version) -> "World":
        """The same, and this on top under a bundle's name."""
        return self._replace(bundles=_with(self.bundles, bundle, (*self.versions(bundle), version)))

    def with_wire(self, wire: Iterable[Write]) -> "World":
        """The same, but for what is on the wire."""
        return self._replace(wire=tuple(sorted(wire, key=repr)))


class Outcome(NamedTuple):
    """What may come of a call: its answer, the world after it, and what had happened before anyone noticed."""

    answer: Any
    world: World
    before: str = ""


@dataclass(frozen=True)
class Aws:
    """
    What AWS does, and what those who use it as well may do.

    `patient`: claims lapse only when their owner is over, and its put has landed or never will.
    `empties_deleted`: consumers delete empty bundles as well. `overwritten`: they write over what they have fetched.
    `late_503`: a put that was answered with 503 may land later.
    """

    patient: bool = False
    empties_deleted: bool = False
    overwritten: bool = False
    late_503: bool = False

    def outcomes(self, world: World, call: Call) -> Iterator[Outcome]:
        """All that may come of a call."""
        for before, now in self._meanwhile(world, call):
            for answer, after in (*self._answered(now, call), *self._struck(now, call)):
                yield Outcome(answer, after, before)

    def landings(self, world: World) -> Iterator[tuple[Write, Outcome]]:
        """The writes on the wire that would change something now, and what comes of them."""
        for write in dict.fromkeys(world.wire):
            others = list(world.wire)
            others.remove(write)
            for before, now in self._meanwhile(world.with_wire(others), write):
                answer, after = written(now, write)
                if after != now:
                    yield write, Outcome(answer, after, before)

    def calmed(self, world: World) -> World:
        """No invocation is left, all claims have lapsed, and nothing fails any more."""
        wire = [write for write in world.wire if not (self.patient and commits(write))]
        return world.with_wire(wire)._replace(calm=True, faults=0, lapsed=frozenset())

    def _meanwhile(self, world: World, call: Call) -> Iterator[tuple[str, World]]:
        """What may have happened since the last call, if this is the first one that would notice."""
        yield "", world
        if isinstance(call, Swap | ReadRecord):
            record = world.record(call.member)
            if record and record.age != FRESH:
                yield f"the TTL deletes the record of {call.member}", world.with_record(call.member, None)
        elif isinstance(call, Put | Look) and (versions := world.versions(call.bundle)):
            full, empty = is_bundle(versions[-1]), versions[-1] == EMPTY
            if (full or (empty and self.empties_deleted)) and versions.count(DELETED) < MOST_DELETIONS:
                yield f"a consumer deletes bundle {call.bundle}", world.with_version(call.bundle, DELETED)
            if (full or empty) and self.overwritten:
                yield f"a consumer writes over bundle {call.bundle}", world.with_version(call.bundle, FOREIGN)

    def _answered(self, world: World, call: Call) -> Iterator[tuple[Any, World]]:
        """What comes of a call if nothing fails."""
        if isinstance(call, Write):
            yield written(world, call)
            if commits(call) and call.bundle in world.lapsed:
                yield LAPSED, world
        elif isinstance(call, Acknowledge):
            yield DONE, world._replace(acknowledged=world.acknowledged.union(call.members))
        else:
            yield _answer(world, call), world

    def _struck(self, world: World, call: Call) -> Iterator[tuple[Any, World]]:
        """What comes of a call at the price of one fault."""
        if not world.faults:
            return
        world = world._replace(faults=world.faults - 1)
        match call:
            case Swap() | Put() | Settle():
                yield from self._write_struck(world, call)
            case AskClock(bundle) if bundle not in world.lapsed:
                yield True, self._lapsed(world, bundle)
            case ReadRecord() | ReadSettleRecord() | Look() | ReadObject():
                yield UNREADABLE, world

    def _write_struck(self, world: World, write: Write) -> Iterator[tuple[Any, World]]:
        on_the_wire = world.with_wire((*world.wire, write))
        yield NO_ANSWER, on_the_wire
        if isinstance(write, Swap):
            yield NOT_DONE, world
            answer, after = written(on_the_wire, write)
            yield DONE_AT_LAST if answer == DONE else REFUSED_AT_LAST, after
            if answer == DONE:
                yield REFUSED_AT_LAST, written(world, write)[1]
        if commits(write):
            yield NOT_DONE, world
            yield BUSY, on_the_wire if self.late_503 else world
            yield BUSY, written(world, write)[1]

    def _lapsed(self, world: World, bundle: str) -> World:
        """The claims for a bundle have lapsed; to the patient, its put has landed before, or never will."""
        wire = [write for write in world.wire if not (self.patient and commits(write) and write.bundle == bundle)]
        return world.with_wire(wire)._replace(lapsed=world.lapsed | {bundle})


def written(world: World, write: Write) -> tuple[str, World]:
    """What a write that arrives is answered, and the world after it."""
    match write:
        case Swap(member, seen, new):
            if seen not in (ANYTHING, world.record(member)):
                return REFUSED, world
            return DONE, world.with_record(member, new)
        case Put(bundle, members, if_none):
            if if_none and world.versions(bundle)[-1:] not in ((), (DELETED,)):
                return REFUSED, world
            return DONE, world.with_version(bundle, members)
        case Settle(bundle):
            return DONE, world._replace(settled=world.settled | {bundle})


def _answer(world: World, question: Call) -> Any:
    match question:
        case ReadRecord(member):
            return world.record(member)
        case ReadSettleRecord(bundle):
            return bundle in world.settled
        case Look(bundle):
            return world.versions(bundle)
        case AskClock(bundle):
            return world.calm or bundle in world.lapsed
        case ReadObject():
            return DONE
    raise AssertionError(question)


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A world, a call, an answer or any part of them, with other names for the bundles in it."""
    match value:
        case str():
            return names.get(value, value)
        case World():
            world = World(*(renamed(each, names) for each in value))
            return world.with_wire(world.wire)._replace(bundles=tuple(sorted(world.bundles)))
        case tuple():
            return tuple(renamed(each, names) for each in value)
        case frozenset():
            return frozenset(renamed(each, names) for each in value)
        case Record() | Call():
            return replace(value, **{field.name: renamed(getattr(value, field.name), names) for field in fields(value)})
    return value


def commits(write: Write) -> TypeGuard[Put]:
    """Whether a write is the put of a bundle with members, by its owner."""
    return isinstance(write, Put) and bool(write.members)


def _with(pairs: tuple[tuple[str, Value], ...], name: str, value: Value | None) -> tuple[tuple[str, Value], ...]:
    """The pairs in order, with another value for a name; None removes it."""
    others = [(key, each) for key, each in pairs if key != name]
    return tuple(sorted(others if value is None else [*others, (name, value)], key=lambda pair: pair[0]))
