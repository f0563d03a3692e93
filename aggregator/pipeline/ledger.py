"""
Who is working on an object, and which bundles are published.

A claim names the bundle its object is meant for; one settle record per bundle decides all its claims.

    absent ──claim──▶ claimed ──settle──▶ settled
                       │   ▲
                 release   claim          a lapsed claim is decided by its bundle (arbiter.py)
                       ▼   │
                      released

The put of the bundle is the commit: a crash before it costs a repeat, a crash after it costs nothing. DynamoDB only
remembers. What holds it together (docs/decisions/0001, 0018):

- A record only changes from what was seen to what is wanted (swaps.py). A claim's bundle is unique to one attempt, so
  it is also the token of ownership.
- A claim in doubt may yet land. So a release never deletes, it overwrites what the claim would have replaced: the late
  claim then finds its place taken. A bundle is only put when each claim that is not in it has provably been released.
- Evidence is judged by what is read after it. Release comes before put, and put before settle: so a record that names a
  settled bundle proves a duplicate only if it was read after the settle record.
- A lapsed claim is taken over only after its bundle was resolved: found published, or its name fenced for good.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from aggregator.exceptions import AggregatorError, InFlightError, LedgerUnavailableError
from aggregator.pipeline.arbiter import Arbiter, Settle
from aggregator.pipeline.outcomes import Outcome, repeated
from aggregator.pipeline.planning import Wanted
from aggregator.pipeline.records import Record, Records
from aggregator.pipeline.settings import SECONDS_PER_DAY
from aggregator.pipeline.swaps import Swap, Swapped, Way, swap_all

_ROUNDS = 4


class Claim(NamedTuple):
    """A claim of ours on an object: what we write, and what that is to replace."""

    wanted: Wanted
    mine: Record
    replaces: Record | None

    @property
    def id(self) -> str:
        """The id of the object."""
        return self.wanted.id


class Claims(NamedTuple):
    """
    What became of an attempt to claim some objects.

    `owned` are ours; those `in_doubt` may be ours, because an answer was lost; `outcomes` says of all but ours why not.
    """

    owned: list[Claim]
    in_doubt: list[Claim]
    outcomes: dict[str, Outcome | AggregatorError]


Seen = dict[str, tuple[Wanted, Record | None]]
"""Objects by their id, each with the record that its claim is to replace."""


class Ledger:
    """The ledger of one invocation."""

    def __init__(
        self,
        records: Records,
        way: Way,
        arbiter: Arbiter,
        *,
        settle: Settle,
        lapses: float,
        clock: Callable[[], float],
    ) -> None:
        """`settle` writes a settle record; claims lapse at `lapses`, `clock` tells the same seconds since the epoch."""
        self._records, self._way, self._arbiter, self._settle, self._clock = records, way, arbiter, settle, clock
        self._deadline = int(lapses * 1000)
        self._settled: set[str] = set()  # a bundle that is settled stays settled

    @property
    def most_claims(self) -> int:
        """Objects that are claimed in one request."""
        return self._way.most

    @property
    def lapsed(self) -> bool:
        """Whether our own claims have lapsed: the process, or its whole machine, has been asleep."""
        return self._clock() * 1000 > self._deadline

    def claim(self, wanted: Iterable[Wanted], bundle: str) -> Claims:
        """Claim objects for `bundle`; says of each what became of it, and never raises."""
        claims = Claims([], [], {})
        seen: Seen = {one.id: (one, None) for one in wanted}
        for _ in range(_ROUNDS):
            settled = frozenset(self._settled)  # known before any record is read that this round meets
            drafts = {id_: self._draft(one, record, bundle) for id_, (one, record) in seen.items()}
            swapped = swap_all(self._way, [Swap(id_, claim.replaces, claim.mine) for id_, claim in drafts.items()])
            claims.owned.extend(drafts[id_] for id_ in swapped.applied)
            claims.in_doubt.extend(drafts[id_] for id_ in swapped.in_doubt)
            claims.outcomes.update(_unconfirmed(drafts, swapped))
            met = {drafts[id_].wanted: found for id_, found in swapped.refused.items()}
            seen = self._judged(met, settled, claims)
            if not seen:
                return claims
        for one, _ in seen.values():
            claims.outcomes[one.id] = InFlightError(
                "the object changes hands faster than we can follow", key=one.ref.key
            )
        return claims

    def release(self, owned: Sequence[Claim], in_doubt: Sequence[Claim] = ()) -> None:
        """
        Give back claims whose object is in no bundle, those in doubt included, which may never have been written.

        Raises:
            LedgerUnavailableError: it is not certain that all of them are given back.
        """
        claims = {claim.id: claim for claim in (*owned, *in_doubt)}
        late = frozenset(claim.id for claim in in_doubt)
        seen = {id_: claim.replaces if id_ in late else claim.mine for id_, claim in claims.items()}
        for _ in range(_ROUNDS):
            swaps = [Swap(id_, record, self._released(claims[id_])) for id_, record in seen.items()]
            swapped = swap_all(self._way, swaps)
            fading = [id_ for id_, found in swapped.refused.items() if id_ in late and self._fades(claims[id_], found)]
            if left := [*swapped.failed, *swapped.in_doubt, *fading]:
                raise LedgerUnavailableError("claims could not be released", members=len(left))
            seen = {
                id_: found
                for id_, found in swapped.refused.items()
                if _is(claims[id_].mine, found) or (id_ in late and found is claims[id_].replaces is None)
            }
            if not seen:
                return
        raise LedgerUnavailableError("claims could not be released", members=len(seen))

    def settle(self, bundle: str, receipt: Mapping[str, object]) -> None:
        """
        Record that `bundle` is published, and with it all its members.

        Raises:
            LedgerUnavailableError: it may not have been recorded; the arbiter will find out when it matters.
        """
        self._settle(bundle, receipt)

    def _judged(self, met: Mapping[Wanted, Record | None], settled: frozenset[str], claims: Claims) -> Seen:
        """Judge objects by the records that their claims met; what is to be claimed again, and over which record."""
        again: Seen = {}
        others: dict[str, dict[Wanted, Record]] = {}
        for wanted, record in met.items():
            if record is None or self._is_free(record):
                again[wanted.id] = (wanted, record)
                continue
            bundle = record.content["bundle"]
            if bundle in settled:
                claims.outcomes[wanted.id] = repeated(wanted.ref, record.content.get("etag"))
            else:
                others.setdefault(bundle, {})[wanted] = record
        if others:
            again |= self._judged_by_bundle(others, claims)
        return again

    def _judged_by_bundle(self, others: Mapping[str, Mapping[Wanted, Record]], claims: Claims) -> Seen:
        """
        Judge objects that are claimed for other bundles, of which it is to be found out whether they are settled.

        Where one is, its objects' records are read again: what they said before proves nothing (docs/decisions/0018).
        """
        again: Seen = {}
        try:
            settled = frozenset(self._records.look_up(others))
            named = {one: seen for bundle in settled for one, seen in others[bundle].items()}
            now = self._records.look_up(one.id for one in named) if named else {}
        except LedgerUnavailableError as error:
            claims.outcomes.update((one.id, error) for taken in others.values() for one in taken)
            return again
        self._settled.update(settled)
        for one, seen in named.items():
            record = now.get(one.id)
            if record == seen:
                claims.outcomes[one.id] = repeated(one.ref, seen.content.get("etag"))
            else:
                again[one.id] = (one, record if record and self._is_free(record) else None)
        for bundle, taken in others.items():
            if bundle not in settled:
                again |= self._judged_unsettled(bundle, taken, claims)
        return again

    def _judged_unsettled(self, bundle: str, taken: Mapping[Wanted, Record], claims: Claims) -> Seen:
        """Judge objects that are claimed for a bundle without a settle record: in flight, or lapsed."""
        again: Seen = {}
        for one, record in taken.items():
            if self._clock() * 1000 <= record.deadline:
                claims.outcomes[one.id] = InFlightError(
                    "the object is being bundled by another invocation", bundle=bundle
                )
                continue
            try:
                members = self._arbiter.resolve(bundle)
            except AggregatorError as error:
                claims.outcomes[one.id] = error
                continue
            if one.id in members:
                claims.outcomes[one.id] = repeated(one.ref, record.content.get("etag"))
            else:
                again[one.id] = (one, record)
        return again

    def _draft(self, wanted: Wanted, replaces: Record | None, bundle: str) -> Claim:
        content = {"bundle": bundle, "etag": wanted.ref.etag}
        return Claim(wanted, self._records.record(content, self._deadline), replaces)

    def _released(self, claim: Claim) -> Record:
        return self._records.record({"released": claim.mine.content["bundle"]}, int(self._clock() * 1000))

    def _is_free(self, record: Record) -> bool:
        """Whether a record holds nobody back: it was released, or counts as gone."""
        return record.expiration < self._clock() or "released" in record.content

    def _fades(self, claim: Claim, found: Record | None) -> bool:
        """Whether DynamoDB may delete the record that keeps out a claim in doubt, so that it lands after all."""
        if claim.replaces is not None or found is None or _is(claim.mine, found):
            return False
        return found.expiration < self._clock() + SECONDS_PER_DAY


def _is(mine: Record, found: Record | None) -> bool:
    return found is not None and found.data == mine.data


def _unconfirmed(drafts: Mapping[str, Claim], swapped: Swapped) -> Iterator[tuple[str, AggregatorError]]:
    for id_, fault in (swapped.failed | swapped.in_doubt).items():
        yield id_, LedgerUnavailableError("claim was not confirmed", key=drafts[id_].wanted.ref.key, fault=fault)
