"""
The protocol with one thing wrong in each: what its rules are for is the history that goes wrong without them.

Those that `SAME` names are not wrong; it says why.
"""

from collections.abc import Collection
from typing import Any

from tests.support.protocol.calls import (
    ANYTHING,
    BUSY,
    DONE,
    DONE_AT_LAST,
    EMPTY,
    LAPSED,
    NO_ANSWER,
    NOT_DONE,
    UNREADABLE,
    AskClock,
    Put,
    ReadRecord,
    Record,
    Settle,
    Swap,
    Version,
)
from tests.support.protocol.invocation import (
    DUPLICATE,
    IN_DOUBT,
    NOBODY,
    PUBLISHED,
    PUTS,
    ROUNDS,
    UNKNOWN,
    UNPUBLISHED,
    Claim,
    Invocation,
    Judgement,
    Steps,
)


class NoSecondLook(Invocation):
    """A settled bundle is believed to hold a member whose claim was read before."""

    def look_again(self, member: str, found: Record) -> Steps[Judgement]:
        yield from ()
        return DUPLICATE


class SettledAskedTooLate(Invocation):
    """What another thread has learnt is asked when a record is judged; it was read a little earlier."""

    def judge(self, member: str, found: Record | None, settled: Collection[str]) -> Steps[Judgement]:
        yield AskClock(self.bundle)  # time passes between an answer and what is made of it
        return (yield from super().judge(member, found, self.settled))


class OverChangedClaim(Invocation):
    """A record that has changed at the second look is claimed over, also where it is another's claim."""

    def look_again(self, member: str, found: Record) -> Steps[Judgement]:
        judged = yield from super().look_again(member, found)
        if judged is None:
            judged = yield ReadRecord(member)
        return judged


class ReleaseDeletes(Invocation):
    """A release deletes the record."""

    def __init__(self, bundle: str, members: tuple[str, ...]) -> None:
        super().__init__(bundle, members)
        self.given_back: Record | None = None  # type: ignore[assignment]


class ReleaseUnconditional(Invocation):
    """A release overwrites whatever is there."""

    def release_one(self, claim: Claim) -> Steps[bool]:
        return (yield from self.release_owned(claim.member))

    def release_owned(self, member: str) -> Steps[bool]:
        found = yield from self.swap(member, ANYTHING, self.given_back)
        return bool(found == DONE)


class ReleaseAfterPut(Invocation):
    """What is not packed is released after the put."""

    claims: tuple[Claim, ...] = ()

    def release(self, claims: Collection[Claim], packed: Collection[str]) -> Steps[bool]:
        yield from ()
        self.claims = tuple(claims)
        return True

    def put(self, packed: tuple[str, ...]) -> Steps[str]:
        outcome = yield from super().put(packed)
        yield from super().release(self.claims, packed)
        return outcome


class ReleaseUncertain(Invocation):
    """The bundle is put although it is not certain that all else was released."""

    def release(self, claims: Collection[Claim], packed: Collection[str]) -> Steps[bool]:
        yield from super().release(claims, packed)
        return True


class DoubtIgnored(Invocation):
    """Claims in doubt are not released."""

    def release(self, claims: Collection[Claim], packed: Collection[str]) -> Steps[bool]:
        known = tuple(claim for claim in claims if claim.verdict != IN_DOUBT)
        return (yield from super().release(known, packed))


class RetryNotInDoubt(Invocation):
    """What a second attempt was refused is not in doubt, although the first one may yet land."""

    in_doubt = frozenset({NO_ANSWER})


class FadingIgnored(Invocation):
    """A record that the TTL is about to delete is believed to keep out a claim in doubt."""

    def keeps_out(self, claim: Claim, found: Record | None) -> bool:
        return found is not None or super().keeps_out(claim, found)


class VanishedIgnored(Invocation):
    """A release that was refused, and then finds no record, is believed to have nothing left to release."""

    def keeps_out(self, claim: Claim, found: Record | None) -> bool:
        return found is None or super().keeps_out(claim, found)


class TakeOverUnresolved(Invocation):
    """A lapsed claim is taken over without a question."""

    def take_over(self, member: str, found: Record) -> Steps[Judgement]:
        yield from ()
        return found


class TakeOverUnconditional(Invocation):
    """A lapsed claim that is resolved is taken over whatever the record says by then."""

    def take_over(self, member: str, found: Record) -> Steps[Judgement]:
        judged = yield from super().take_over(member, found)
        return ANYTHING if judged == found else judged


class NewestOnly(Invocation):
    """Who looks sees the newest version only, as HEAD does."""

    def members_among(self, versions: tuple[Version, ...]) -> tuple[str, ...] | None:
        return super().members_among(versions[-1:])


class FenceBelieved(Invocation):
    """After a fence, whatever it is answered, nobody looks again."""

    def resolve(self, bundle: str) -> Steps[tuple[str, ...] | str]:
        found = yield from self.look(bundle)
        if found is None:
            answer = yield Put(bundle, EMPTY)
            found = UNREADABLE if answer == NO_ANSWER else NOBODY
        return found


class FenceDoneBelieved(Invocation):
    """After a fence that was put nobody looks again; only where it was refused."""

    def resolve(self, bundle: str) -> Steps[tuple[str, ...] | str]:
        for _ in range(ROUNDS):
            found = yield from self.look(bundle)
            if found is not None:
                return found
            answer = yield Put(bundle, EMPTY)
            if answer != "refused":
                return NOBODY if answer == DONE else UNREADABLE
        return UNREADABLE


class GivenUpBlindly(Invocation):
    """A put of which nobody knows is given up when there is nothing to be seen of it."""

    def found_out(self, found: tuple[str, ...] | str | None) -> str:
        return UNPUBLISHED if found is None else super().found_out(found)


class AcknowledgedBlindly(Invocation):
    """A put of which nobody knows is believed to have been done."""

    def found_out(self, found: tuple[str, ...] | str | None) -> str:
        return PUBLISHED if found is None else super().found_out(found)


class PutAgainBlindly(Invocation):
    """After a 503 it is put again without a look."""

    def put(self, packed: tuple[str, ...]) -> Steps[str]:
        for _ in range(PUTS):
            answer = yield Put(self.bundle, packed)
            if answer != BUSY:
                break
        if answer in (NOT_DONE, LAPSED):
            return UNPUBLISHED
        return PUBLISHED if answer == DONE else UNKNOWN


class PutUnconditional(Invocation):
    """The bundle is put whatever lies under its name."""

    def put(self, packed: tuple[str, ...]) -> Steps[str]:
        answer = yield Put(self.bundle, packed, if_none=False)
        if answer in (NOT_DONE, LAPSED):
            return UNPUBLISHED
        return PUBLISHED if answer == DONE else UNKNOWN


class SettledFirst(Invocation):
    """The bundle is settled before it is put."""

    def publish(self, packed: tuple[str, ...]) -> Steps[tuple[str, ...]]:
        yield Settle(self.bundle)
        return (yield from super().publish(packed))


class OwnUnrecognised(Invocation):
    """A second attempt that was refused is not told from another's by what it finds."""

    def swap(self, member: str, seen: Record | None, new: Record | None) -> Steps[Any]:
        answer = yield Swap(member, seen, new)
        if answer in (DONE, DONE_AT_LAST, NOT_DONE):
            return NOT_DONE if answer == NOT_DONE else DONE
        if answer in self.in_doubt:
            return NO_ANSWER
        found = yield ReadRecord(member)
        return NOT_DONE if found == UNREADABLE else found


class MembersLookedForOnly(Invocation):
    """After a fence it is only looked for members; if there are none, the name is believed to be fenced."""

    def resolve(self, bundle: str) -> Steps[tuple[str, ...] | str]:
        found = yield from self.look(bundle)
        if found is None:
            answer = yield Put(bundle, EMPTY)
            found = UNREADABLE if answer == NO_ANSWER else (yield from self.look(bundle))
        return NOBODY if found is None else found


class EmptyAnywhere(Invocation):
    """An empty bundle is a fence even where a consumer has deleted it."""

    def members_among(self, versions: tuple[Version, ...]) -> tuple[str, ...] | None:
        found = super().members_among(versions)
        return NOBODY if EMPTY in versions and found is None else found


class Forgetful(Invocation):
    """Which bundles are settled is asked each time."""

    def judge(self, member: str, found: Record | None, settled: Collection[str]) -> Steps[Judgement]:
        return (yield from super().judge(member, found, frozenset()))


SAME = {
    OwnUnrecognised: "What is in doubt is released, so it is safe; to recognise it spares a repeat.",
    MembersLookedForOnly: "Only what lies there refuses a fence. Where consumers delete it before the look, they may as"
    " well do so after the look, and no look helps.",
    EmptyAnywhere: "The same: who deletes a fence opens the name, whether before or after somebody has looked.",
    Forgetful: "To remember spares a look.",
}
"""Mutants that are not wrong, and why."""
