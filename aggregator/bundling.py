"""
The story of one batch: every member into one bundle, or a reason why not.

    plan ▸ claim ▸ read ▸ pack ▸ release ▸ put ▸ settle

Plan bundles by declared size. For each: claim its members, read and pack what we own, release what did not get in, put
the bundle (the commit), record that it is published. When the power fails before the put, nothing has happened: the
claims lapse, the queue brings the messages back. When it fails after, everything has: the bundle itself says so.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from secrets import token_hex
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

import structlog

from aggregator.clients import Distribution
from aggregator.core import Outcome, Packed, Packer, Plan, Timetable, planned, split
from aggregator.exceptions import (
    AggregatorError,
    BundleFullError,
    LedgerUnavailableError,
    OutOfTimeError,
    SupersededError,
    UnpublishedError,
)
from aggregator.ledger import MOST_CLAIMS, Claim, Claims, Ledger
from aggregator.schemas import Member
from aggregator.settings import Settings
from aggregator.sources import Arrival, Sources

SPOOL_SIZE = 16 * 1024 * 1024
"""Bytes of a bundle kept in memory; what is more goes to the function's ephemeral storage."""

_CLAIMERS = 4
"""Transactions of claims under way at once."""

log = structlog.get_logger()

Outcomes = dict[str, Outcome | Exception]
"""What became of each member, by the id of its record: how it was acknowledged, or why it failed."""


class Work(NamedTuple):
    """What an invocation works with; all of it is gone when it ends."""

    settings: Settings
    request_id: str
    timetable: Timetable
    sources: Sources
    distribution: Distribution
    ledger: Ledger
    compressors: Executor


class Attempt:
    """One bundle on its way: the claims that carry its name, and what became of its members."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.owned: dict[str, Claim] = {}
        self.unsure: list[Claim] = []
        self.packed: list[str] = []
        self.left_over: list[Member] = []
        self.outcomes: Outcomes = {}
        self.bytes_in = self.bytes_out = 0

    def strays(self) -> list[Claim]:
        """The claims that carry the bundle's name, or may carry it, and whose member is not in it."""
        packed = set(self.packed)
        return [claim for id_, claim in self.owned.items() if id_ not in packed] + self.unsure


class Result(NamedTuple):
    """What an invocation did: the outcome of each member, and the attempts that published a bundle."""

    outcomes: Outcomes
    published: list[Attempt]


def aggregate(members: Iterable[Member], work: Work) -> Result:
    """Bundle `members`, each once however often it is named; say what became of each."""
    wanted: dict[str, Member] = {}
    for member in members:
        wanted.setdefault(work.ledger.identity(member), member)
    result = Result({}, [])
    runs = deque(split(wanted.values(), work.settings.max_bundle_input))
    while runs:
        plan = planned(runs.popleft(), now=time.time(), request_id=work.request_id, suffix=token_hex(4))
        attempt = Attempt(plan)
        with SpooledTemporaryFile(SPOOL_SIZE) as spool:
            _bundle(attempt, spool, work)
        result.outcomes.update(attempt.outcomes)
        if Outcome.BUNDLED in attempt.outcomes.values():
            result.published.append(attempt)
        if attempt.left_over:
            runs.append(tuple(attempt.left_over))
    return result


def _bundle(attempt: Attempt, spool: "SpooledTemporaryFile[bytes]", work: Work) -> None:
    """One bundle, from claim to settle."""
    try:
        packer = _gather(attempt, spool, work)
        work.ledger.release(attempt.strays())
        packed = packer.finish(attempt.plan) if attempt.packed else None
    except Exception as error:
        _give_up(attempt, error, work)  # nothing is put, so nothing has happened
        return
    if packed and _put(attempt, packed, spool, work):
        _settle(attempt, packed, work)


def _gather(attempt: Attempt, spool: "SpooledTemporaryFile[bytes]", work: Work) -> Packer:
    """Claim, read and pack; each member that does not get in has an outcome, or is left over for the next bundle."""
    packer = Packer(
        spool,
        limit=work.settings.max_bundle_input,
        level=work.settings.compression_level,
        framing=work.settings.bundle_framing,
        executor=work.compressors,
    )
    full = threading.Event()
    with ThreadPoolExecutor(_CLAIMERS, thread_name_prefix="claim") as claimers:
        for arrival in work.sources.read_ahead(_claimed(attempt, claimers, work), full):
            _pack(arrival, packer, attempt, full, work)
    return packer


def _claimed(attempt: Attempt, claimers: Executor, work: Work) -> Iterator[Member]:
    """The members that are ours, a transaction of claims after the other; they are claimed ahead of being read."""

    def claim(members: Sequence[Member]) -> list[Member]:
        if time.monotonic() > work.timetable.read_until:
            late = OutOfTimeError("invocation ends before the object can be claimed")
            claims = Claims([], [], {work.ledger.identity(member): late for member in members})
        else:
            claims = work.ledger.claim(members, attempt.plan.bundle)
        attempt.owned.update((claim.id, claim) for claim in claims.owned)
        attempt.unsure.extend(claims.unsure)
        attempt.outcomes.update(claims.outcomes)
        return [claim.member for claim in claims.owned]

    members = attempt.plan.members
    for owned in claimers.map(claim, [members[at : at + MOST_CLAIMS] for at in range(0, len(members), MOST_CLAIMS)]):
        yield from owned


def _pack(arrival: Arrival, packer: Packer, attempt: Attempt, full: threading.Event, work: Work) -> None:
    id_ = work.ledger.identity(arrival.member)
    try:
        if isinstance(arrival.reading, AggregatorError):
            raise arrival.reading
        packer.add(*arrival.reading)
        attempt.packed.append(id_)
    except BundleFullError:
        full.set()
        attempt.left_over.append(arrival.member)
    except SupersededError:
        attempt.outcomes[id_] = Outcome.SUPERSEDED
    except OutOfTimeError as error:
        if full.is_set():
            attempt.left_over.append(arrival.member)
        else:
            attempt.outcomes[id_] = error
    except AggregatorError as error:
        attempt.outcomes[id_] = error


def _put(attempt: Attempt, packed: Packed, spool: "SpooledTemporaryFile[bytes]", work: Work) -> bool:
    """The commit: whether the bundle is published. If nobody can tell, its claims are left to lapse."""
    try:
        work.distribution.put(attempt.plan.bundle, spool, size=packed.size, sha256=packed.sha256)
    except UnpublishedError as error:
        _give_up(attempt, error, work)
        return False
    except Exception as error:
        return _found_out(attempt, error, work)
    return True


def _found_out(attempt: Attempt, error: Exception, work: Work) -> bool:
    """After a put that may have taken effect: ask the arbiter, as anyone would who found one of our claims lapsed."""
    bundle = attempt.plan.bundle
    try:
        if not work.timetable.allows(time.monotonic(), 3 * work.timetable.put_timeout):
            raise OutOfTimeError("invocation ends before the bundle can be decided")
        published = work.ledger.decide(bundle)
    except Exception as undecided:
        log.exception("bundle.undecided", bundle=bundle, fault=str(undecided))
        attempt.outcomes.update(dict.fromkeys(attempt.packed, error))
        return False
    if not published:
        _give_up(attempt, UnpublishedError("bundle was not published", bundle=bundle, fault=str(error)), work)
    return bool(published)


def _settle(attempt: Attempt, packed: Packed, work: Work) -> None:
    """The bundle is published, so its members are safe, whatever becomes of the settle record."""
    attempt.outcomes.update(dict.fromkeys(attempt.packed, Outcome.BUNDLED))
    attempt.bytes_in, attempt.bytes_out = sum(packed.index.members.length), packed.size
    facts = {
        "members": len(attempt.packed),
        "bytes_in": attempt.bytes_in,
        "bytes_out": attempt.bytes_out,
        "sha256": packed.sha256.hex(),
    }
    log.info("bundle.written", bundle=attempt.plan.bundle, **facts)
    try:
        work.ledger.settle(
            attempt.plan.bundle, {**facts, "created": attempt.plan.created, "request_id": work.request_id}
        )
    except LedgerUnavailableError as error:
        log.warning("settle.failed", **error.facts)


def _give_up(attempt: Attempt, error: Exception, work: Work) -> None:
    """The bundle is surely not published: its members fail for `error`, and their claims are released if possible."""
    ids = [work.ledger.identity(member) for member in attempt.plan.members]
    attempt.outcomes.update((id_, error) for id_ in ids if id_ not in attempt.outcomes)
    attempt.left_over.clear()
    log.warning("bundle.unpublished", bundle=attempt.plan.bundle, fault=str(error))
    attempt.packed.clear()
    if work.timetable.allows(time.monotonic(), 3 * work.timetable.ledger_timeout):
        try:
            work.ledger.release(attempt.strays())
        except LedgerUnavailableError as unsure:
            log.warning("ledger.unsure", **unsure.facts)
