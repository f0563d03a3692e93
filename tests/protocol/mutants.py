"""The protocol with one of its invariants taken away, each under a name that says which."""

from collections.abc import Collection
from typing import Any

from tests.protocol.calls import (
    ANYTHING,
    BUSY,
    DONE,
    EMPTY,
    LAPSED,
    NO_ANSWER,
    NOT_DONE,
    OLD,
    UNREADABLE,
    Put,
    ReadRecord,
    ReadSettleRecord,
    Record,
    Settle,
    Version,
)
from tests.protocol.explorer import Together
from tests.protocol.invocation import (
    DUPLICATE,
    IN_DOUBT,
    NOBODY,
    OWNED,
    PUBLISHED,
    PUTS,
    UNPUBLISHED,
    Claim,
    Invocation,
    Steps,
)


class NoSecondLook(Invocation):
    def look_again(self, member: str, found: Record) -> Steps[Any]:
        yield from ()
        return DUPLICATE


class SettledIsRememberedTooLate(Invocation):
    def judge(self, member: str, found: Record | None, known: frozenset[str]) -> Steps[Any]:
        yield ReadSettleRecord(OLD)  # others go on between the read of the record and the look at what is known
        return (yield from super().judge(member, found, self.settled))


class WhatChangedIsClaimedOver(Invocation):
    def look_again(self, member: str, found: Record) -> Steps[Any]:
        judged = yield from super().look_again(member, found)
        return judged if judged is not None else (yield ReadRecord(member))


class ReleaseDeletes(Invocation):
    def __init__(self, bundle: str, members: tuple[str, ...]) -> None:
        super().__init__(bundle, members)
        self.given_back: Any = None


class ReleaseHasNoCondition(Invocation):
    def release_one(self, claim: Claim) -> Steps[bool]:
        return (yield from self.release_owned(claim.member))

    def release_owned(self, member: str) -> Steps[bool]:
        found = yield from self.swap(member, ANYTHING, self.given_back)
        return bool(found == DONE)


class ReleaseComesAfterThePut(Invocation):
    claims: tuple[Claim, ...] = ()

    def gather(self) -> Steps[tuple[tuple[str, ...], tuple[str, ...]]]:
        self.claims = yield from self.claim_all()
        packed = yield from self.read(tuple(claim.member for claim in self.claims if claim.verdict == OWNED))
        return packed, tuple(claim.member for claim in self.claims if claim.verdict == DUPLICATE)

    def publish(self, packed: tuple[str, ...]) -> Steps[tuple[str, ...]]:
        outcome = yield from self.put(packed)
        yield from self.release(self.claims, packed)
        if outcome == PUBLISHED:
            yield Settle(self.bundle)
            return packed
        if outcome == UNPUBLISHED:
            yield Together(self.release_owned(member) for member in packed)
        return NOBODY


class ClaimsInDoubtAreForgotten(Invocation):
    def release(self, claims: Collection[Claim], packed: Collection[str]) -> Steps[bool]:
        return (yield from super().release(tuple(claim for claim in claims if claim.verdict != IN_DOUBT), packed))


class ASecondRefusalIsBelieved(Invocation):
    in_doubt = frozenset({NO_ANSWER})


class AFadingRecordIsReliedOn(Invocation):
    def stays(self, found: Record) -> bool:
        return True


class AnUncertainReleaseIsGoodEnough(Invocation):
    def release(self, claims: Collection[Claim], packed: Collection[str]) -> Steps[bool]:
        yield from super().release(claims, packed)
        return True


class ALapsedClaimIsTakenOverUnresolved(Invocation):
    def take_over(self, member: str, found: Record) -> Steps[Any]:
        yield from ()
        return found


class OnlyTheNewestVersionCounts(Invocation):
    def members_among(self, versions: tuple[Version, ...]) -> tuple[str, ...] | None:
        return super().members_among(versions[-1:])


class TakeOverHasNoCondition(Invocation):
    def take_over(self, member: str, found: Record) -> Steps[Any]:
        judged = yield from super().take_over(member, found)
        return ANYTHING if judged == found else judged


class WhatHasNoAnswerIsGivenUp(Invocation):
    def found_out(self, found: tuple[str, ...] | str | None) -> str:
        return PUBLISHED if found and found != UNREADABLE else UNPUBLISHED


class WhatHasNoAnswerIsAcknowledged(Invocation):
    def found_out(self, found: tuple[str, ...] | str | None) -> str:
        return PUBLISHED


class SettledBeforeItIsPut(Invocation):
    def publish(self, packed: tuple[str, ...]) -> Steps[tuple[str, ...]]:
        yield Settle(self.bundle)
        return (yield from super().publish(packed))


class ThePutHasNoCondition(Invocation):
    def put(self, packed: tuple[str, ...]) -> Steps[str]:
        answer = yield Put(self.bundle, packed, if_none=False)
        if answer == DONE:
            return PUBLISHED
        if answer in (NOT_DONE, LAPSED):
            return UNPUBLISHED
        return self.found_out((yield from self.look(self.bundle)))


class ABusyPutIsRepeatedBlindly(Invocation):
    def put(self, packed: tuple[str, ...]) -> Steps[str]:
        for _ in range(PUTS):
            answer = yield Put(self.bundle, packed)
            if answer == DONE:
                return PUBLISHED
            if answer in (NOT_DONE, LAPSED):
                return UNPUBLISHED
            if answer != BUSY:
                break
        return self.found_out((yield from self.look(self.bundle)))


class ARefusedFenceIsBelieved(Invocation):
    def resolve(self, bundle: str) -> Steps[Any]:
        found = yield from self.look(bundle)
        if found is not None:
            return found
        answer = yield Put(bundle, EMPTY)
        return UNREADABLE if answer == NO_ANSWER else NOBODY


class AFenceThatWasPutIsBelieved(Invocation):
    def resolve(self, bundle: str) -> Steps[Any]:
        while True:
            found = yield from self.look(bundle)
            if found is not None:
                return found
            answer = yield Put(bundle, EMPTY)
            if answer == DONE:
                return NOBODY
            if answer == NO_ANSWER:
                return UNREADABLE
