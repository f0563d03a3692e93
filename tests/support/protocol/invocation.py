"""
The protocol, as what one invocation asks of AWS: read this to know it.

    claim ▸ read ▸ release ▸ put ▸ settle ▸ acknowledge

    absent ──claim──▶ claimed ──settle──▶ settled
                       │   ▲
                 release   claim          a lapsed claim is resolved by its bundle: published, or its name fenced
                       ▼   │
                      released

Each method is a step of the protocol. It yields calls (`calls.py`), and at each of them anything may happen (`aws.py`):
others go on, no answer comes, the invocation dies. It returns what it found out. Nothing here is drawn by chance.

The put of the bundle is the commit: before it nothing has happened, after it everything has. What holds it together,
and which of the mutants (`mutants.py`) shows what it is for:

- A record changes by compare-and-swap only, from exactly what was seen (ReleaseUnconditional, TakeOverUnconditional).
- A release overwrites, and never deletes: a claim that lands late finds its place taken (ReleaseDeletes).
- Whatever may yet land is in doubt, whatever a second attempt was answered (DoubtIgnored, RetryNotInDoubt).
- Before the put, each claim that carries our name, or may yet, and is of no packed member, is surely released
  (ReleaseAfterPut, ReleaseUncertain, FadingIgnored, VanishedIgnored).
- A put of which nobody knows is looked for, in all versions (GivenUpBlindly, AcknowledgedBlindly, NewestOnly).
- A settled bundle proves a member only if its record was read after the settle record (NoSecondLook).
- A lapsed claim is taken over only when its bundle is resolved: published, or its name fenced, as is seen by looking
  (TakeOverUnresolved, FenceBelieved, PutUnconditional).

A member's claim is a write of its own here, and what it met is read apart, as statements do it. A transaction of many,
which tells at once what it met, is one of the orders in which these writes and reads may come.
"""

from collections.abc import Collection, Generator
from typing import Any, Final, NamedTuple, TypeVar

from tests.support.protocol.calls import (
    BUSY,
    DELETED,
    DONE,
    DONE_AT_LAST,
    EMPTY,
    EXPIRED,
    FRESH,
    LAPSED,
    NO_ANSWER,
    NOT_DONE,
    REFUSED_AT_LAST,
    UNREADABLE,
    Acknowledge,
    AskClock,
    Look,
    Put,
    ReadObject,
    ReadRecord,
    ReadSettleRecord,
    Record,
    Settle,
    Swap,
    Version,
    claimed,
    is_bundle,
    released,
)
from tests.support.protocol.programs import Together

Found = TypeVar("Found")
Steps = Generator[Any, Any, Found]
"""What yields calls, is sent their answers, and returns what it found out."""

OWNED, IN_DOUBT, DUPLICATE, FAILED = "owned", "in doubt", "duplicate", "failed"
PUBLISHED, UNPUBLISHED, UNKNOWN = "published", "unpublished", "unknown"

ROUNDS = 4
PUTS = 3

NOBODY: Final = ()
"""The members of a bundle whose name is fenced."""

Judgement = str | Record | None
"""A duplicate; failed, for it is in flight or cannot be told; or the record to claim over, None where there is none."""


class Claim(NamedTuple):
    """What became of claiming a member; a claim in doubt may yet replace what it `replaces`."""

    member: str
    verdict: str
    replaces: Record | None = None


class Invocation:
    """One delivery of some messages, each of a member of its own, that are to become one bundle."""

    in_doubt = frozenset({NO_ANSWER, REFUSED_AT_LAST})
    """Answers to a write after which an attempt may yet land."""

    def __init__(self, bundle: str, members: tuple[str, ...]) -> None:
        self.bundle, self.members = bundle, members
        self.mine, self.given_back = claimed(bundle), released(bundle)
        self.resolved: frozenset[tuple[str, tuple[str, ...]]] = frozenset()
        self.settled: frozenset[str] = frozenset()

    def run(self) -> Steps[None]:
        """Acknowledge what is in a bundle then, in ours or in another; the rest comes back."""
        bundled = yield from self.bundled()
        if bundled:
            yield Acknowledge(tuple(sorted(bundled)))

    def bundled(self) -> Steps[tuple[str, ...]]:
        """Make a bundle; the members that are in it, or in another already."""
        packed, duplicates = yield from self.gather()
        published = (yield from self.publish(packed)) if packed else NOBODY
        return (*published, *duplicates)

    # claim ▸ read ▸ release

    def gather(self) -> Steps[tuple[tuple[str, ...], tuple[str, ...]]]:
        """The members that are packed, and the duplicates. No claim is left, or may yet land, but of what is packed."""
        claims = yield from self.claim_all()
        packed = yield from self.read(_members(claims, OWNED))
        certain = yield from self.release(claims, packed)
        if not certain:
            yield from self.release(claims, NOBODY)
            packed = NOBODY
        return packed, _members(claims, DUPLICATE)

    def claim_all(self) -> Steps[tuple[Claim, ...]]:
        """Claim all members; they are under way at once."""
        claims: tuple[Claim, ...] = yield Together(self.claim(member) for member in self.members)
        return claims

    def read(self, owned: Collection[str]) -> Steps[tuple[str, ...]]:
        """Read what is ours; some cannot be read now."""
        packed: tuple[str, ...] = ()
        for member in owned:
            answer = yield ReadObject(member)
            if answer == DONE:
                packed = (*packed, member)
        return packed

    def release(self, claims: Collection[Claim], packed: Collection[str]) -> Steps[bool]:
        """Release each claim that carries our name, or may yet, and is of no packed member; whether all surely are."""
        certain: tuple[bool, ...] = yield Together(
            [self.release_one(claim) for claim in claims if is_stray(claim, packed)]
        )
        return all(certain)

    # claim

    def claim(self, member: str) -> Steps[Claim]:
        """Claim a member, over what is found in its place if that may be."""
        seen = None
        for _ in range(ROUNDS):
            settled = self.settled
            found = yield from self.swap(member, seen, self.mine)
            if found == DONE:
                return Claim(member, OWNED)
            if found == NO_ANSWER:
                return Claim(member, IN_DOUBT, seen)
            if found == NOT_DONE:
                return Claim(member, FAILED)
            judged = yield from self.judge(member, found, settled)
            if isinstance(judged, str):
                return Claim(member, judged)
            seen = judged
        return Claim(member, FAILED)

    def judge(self, member: str, found: Record | None, settled: Collection[str]) -> Steps[Judgement]:
        """What becomes of a member whose record was found when these bundles were known to be settled already."""
        if found is None or is_free(found):
            return found
        if found.bundle in settled:
            return DUPLICATE
        answer = yield ReadSettleRecord(found.bundle)
        if answer == UNREADABLE:
            return FAILED
        if answer:
            return (yield from self.look_again(member, found))
        lapsed = yield AskClock(found.bundle)
        if not lapsed:
            return FAILED
        return (yield from self.take_over(member, found))

    def look_again(self, member: str, found: Record) -> Steps[Judgement]:
        """The bundle is settled. Its member was released before that, or is in it: the record tells, read once more."""
        again = yield ReadRecord(member)
        if again == UNREADABLE:
            return FAILED
        self.settled |= {found.bundle}
        if again == found:
            return DUPLICATE
        return again if again is not None and is_free(again) else None

    def take_over(self, member: str, found: Record) -> Steps[Judgement]:
        """The claim has lapsed: its bundle says whether the member is in it, and nobody else does."""
        members = yield from self.resolve_once(found.bundle)
        if members == UNREADABLE:
            return FAILED
        return DUPLICATE if member in members else found

    # resolve

    def resolve_once(self, bundle: str) -> Steps[tuple[str, ...] | str]:
        """The members of a bundle, for good; asked once in an invocation."""
        if bundle in dict(self.resolved):
            return dict(self.resolved)[bundle]
        found = yield from self.resolve(bundle)
        if isinstance(found, tuple):
            self.resolved |= {(bundle, found)}
        return found

    def resolve(self, bundle: str) -> Steps[tuple[str, ...] | str]:
        """Look. If nothing is there, fence the name, and look again: what the fence was answered is not believed."""
        for _ in range(ROUNDS):
            found = yield from self.look(bundle)
            if found is not None:
                return found
            answer = yield Put(bundle, EMPTY)
            if answer == NO_ANSWER:
                break
        return UNREADABLE

    def look(self, bundle: str) -> Steps[tuple[str, ...] | str | None]:
        """The members of a bundle, which is settled then; nobody, if its name is fenced; None, if it may yet be put."""
        versions = yield Look(bundle)
        if versions == UNREADABLE:
            return UNREADABLE
        found = self.members_among(versions)
        if found:
            yield Settle(bundle)
        return found

    def members_among(self, versions: tuple[Version, ...]) -> tuple[str, ...] | None:
        """What lies under a name, deleted or not: a bundle's members; nobody, if an empty one is on top of all."""
        for version in versions:
            if is_bundle(version):
                return version
        return NOBODY if EMPTY in versions and versions[-1] != DELETED else None

    # release

    def release_one(self, claim: Claim) -> Steps[bool]:
        """Release a claim; whether it surely is."""
        if claim.verdict == OWNED:
            return (yield from self.release_owned(claim.member))
        return (yield from self.release_in_doubt(claim))

    def release_owned(self, member: str) -> Steps[bool]:
        """Overwrite our claim; where that is refused, it has been taken over."""
        found = yield from self.swap(member, self.mine, self.given_back)
        return found not in (NO_ANSWER, NOT_DONE)

    def release_in_doubt(self, claim: Claim) -> Steps[bool]:
        """Overwrite what the claim would have replaced, so that it finds its place taken when it lands late."""
        seen = claim.replaces
        for _ in range(ROUNDS):
            found = yield from self.swap(claim.member, seen, self.given_back)
            if found in (DONE, NO_ANSWER, NOT_DONE):
                return bool(found == DONE)
            if found != self.mine and self.keeps_out(claim, found):
                return True
            if found not in (self.mine, None):
                return False
            seen = found
        return False

    def keeps_out(self, claim: Claim, found: Record | None) -> bool:
        """Whether what is there surely stands in the way of a late claim: not where the TTL may delete it."""
        return claim.replaces is not None or (found is not None and found.age == FRESH)

    # put ▸ settle

    def publish(self, packed: tuple[str, ...]) -> Steps[tuple[str, ...]]:
        """Put the bundle and settle it; the members that are published."""
        outcome = yield from self.put(packed)
        if outcome == PUBLISHED:
            yield Settle(self.bundle)
            return packed
        if outcome == UNPUBLISHED:
            yield Together(self.release_owned(member) for member in packed)
        return NOBODY

    def put(self, packed: tuple[str, ...]) -> Steps[str]:
        """The commit. It is made again only after a 503, and only when nothing lies under the name."""
        for attempt in range(PUTS):
            answer = yield Put(self.bundle, packed)
            if answer == DONE:
                return PUBLISHED
            if answer == NOT_DONE or (answer == LAPSED and not attempt):
                return UNPUBLISHED
            if answer != BUSY or attempt + 1 == PUTS:
                break
            versions = yield Look(self.bundle)
            if versions:
                break
        found = yield from self.look(self.bundle)
        return self.found_out(found)

    def found_out(self, found: tuple[str, ...] | str | None) -> str:
        """What a look tells of our put; if there is nothing, it may yet land."""
        if found in (UNREADABLE, None):
            return UNKNOWN
        return PUBLISHED if found else UNPUBLISHED

    # the primitive

    def swap(self, member: str, seen: Record | None, new: Record | None) -> Steps[Any]:
        """Compare and swap: done, surely not done, no answer (in doubt), or the record that was found instead."""
        answer = yield Swap(member, seen, new)
        if answer in (DONE, DONE_AT_LAST):
            return DONE
        if answer in (NOT_DONE, NO_ANSWER):
            return answer
        found = yield ReadRecord(member)
        if found == new:
            return DONE
        if answer in self.in_doubt:
            return NO_ANSWER
        return NOT_DONE if found == UNREADABLE else found


class Overlapping(Invocation):
    """An invocation whose bundle takes one member; the next is gathered while it is put (docs/decisions/0016)."""

    def __init__(self, bundle: str, members: tuple[str, ...]) -> None:
        super().__init__(bundle, members)
        self.next = Invocation(f"{bundle}2", NOBODY)
        self.left: tuple[str, ...] = NOBODY

    def bundled(self) -> Steps[tuple[str, ...]]:
        packed, duplicates = yield from self.gather()
        if not packed:
            return duplicates
        self.next.members = self.left
        published, others = yield Together([self.publish(packed), self.next.bundled()])
        return (*published, *others, *duplicates)

    def read(self, owned: Collection[str]) -> Steps[tuple[str, ...]]:
        """Read one, and leave the others."""
        for number, member in enumerate(owned, 1):
            answer = yield ReadObject(member)
            if answer == DONE:
                self.left = tuple(owned)[number:]
                return (member,)
        return NOBODY


def is_free(record: Record) -> bool:
    """Whether a record is no claim, or none any more, so that nobody has to be asked."""
    return record.says == "released" or record.age == EXPIRED


def is_stray(claim: Claim, packed: Collection[str]) -> bool:
    """Whether a claim carries our name, or may yet, and its member is not in our bundle."""
    return claim.verdict in (OWNED, IN_DOUBT) and claim.member not in packed


def _members(claims: Collection[Claim], verdict: str) -> tuple[str, ...]:
    return tuple(claim.member for claim in claims if claim.verdict == verdict)
