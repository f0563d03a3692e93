"""
The story of one batch: every member into one bundle, or a reason why not.

    plan ▸ claim ▸ read ▸ pack ▸ release ▸ put ▸ settle

Plan bundles by declared size. For each: claim its members, read and pack what we own, release what did not get in, put
the bundle (the commit), record that it is published. When the power fails before the put, nothing has happened: the
claims lapse, the queue brings the messages back. When it fails after, everything has: the bundle itself says so.

While one bundle is put and settled, the next is gathered; there are never more than two (docs/decisions/0016).
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from secrets import token_hex
from tempfile import SpooledTemporaryFile
from typing import NamedTuple

import structlog

from aggregator.clients import Distribution
from aggregator.core import Packed, Packer
from aggregator.exceptions import (
    AggregatorError,
    BundleFullError,
    LedgerUnavailableError,
    OutOfTimeError,
    SupersededError,
    UnpublishedError,
)
from aggregator.ledger import MOST_CLAIMS, Claim, Ledger
from aggregator.planning import Outcome, Plan, Timetable, planned, runs, split
from aggregator.schemas import Member
from aggregator.settings import Settings
from aggregator.sources import Arrival, Reading, Sources

SPOOL_SIZE = 16 * 1024 * 1024
"""Bytes of a bundle kept in memory; what is more goes to the function's ephemeral storage."""

PHASES = ("gather", "close", "put", "settle")
"""What the time of a bundle goes into; to gather is to claim, read and pack."""

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
        self.left_over: list[Member] = []  # another attempt follows, whose outcome for them counts
        self.outcomes: Outcomes = {}
        self.published = False
        self.bytes_in = self.bytes_out = 0
        self.seconds: dict[str, float] = {}

    def strays(self) -> list[Claim]:
        """The claims that carry the bundle's name, or may carry it, and whose member is not in it."""
        packed = set(self.packed)
        return [claim for id_, claim in self.owned.items() if id_ not in packed] + self.unsure


class Result(NamedTuple):
    """What an invocation did: the outcome of each member, and every bundle that it tried to publish."""

    outcomes: Outcomes
    attempts: list[Attempt]

    @property
    def published(self) -> list[Attempt]:
        """The attempts that published a bundle."""
        return [attempt for attempt in self.attempts if attempt.published]


def aggregate(members: Iterable[Member], work: Work) -> Result:
    """Bundle `members`, each once however often it is named; say what became of each."""
    wanted: dict[str, Member] = {}
    for member in members:
        wanted.setdefault(work.ledger.identity(member), member)
    attempts: list[Attempt] = []
    waiting = deque(split(wanted.values(), work.settings.max_bundle_input))
    with ThreadPoolExecutor(1, thread_name_prefix="publish") as publisher:
        under_way: Future[None] | None = None
        while waiting:
            plan = planned(waiting.popleft(), now=time.time(), request_id=work.request_id, suffix=token_hex(4))
            attempts.append(Attempt(plan))
            gathered = _gathered(attempts[-1], work)
            if attempts[-1].left_over:
                waiting.append(tuple(attempts[-1].left_over))
            last, under_way = under_way, publisher.submit(_publish, gathered, work) if gathered else None
            if last:
                last.result()
        if under_way:
            under_way.result()
    return Result({id_: outcome for attempt in attempts for id_, outcome in attempt.outcomes.items()}, attempts)


class Gathered(NamedTuple):
    """A bundle ready to be put: its members are packed on the spool, and no other claim carries its name."""

    attempt: Attempt
    packer: Packer
    spool: "SpooledTemporaryFile[bytes]"


def _gathered(attempt: Attempt, work: Work) -> Gathered | None:
    """Claim, read, pack, and release what did not get in; None, if nothing is to be put."""
    spool = SpooledTemporaryFile[bytes](SPOOL_SIZE)
    try:
        with _timed(attempt, "gather"):
            packer = _packed(attempt, spool, work)
            work.ledger.release(attempt.strays())
    except BaseException as error:
        _close(spool)
        if not isinstance(error, Exception):
            raise
        _give_up(attempt, error, work)  # nothing is put, so nothing has happened
        return None
    packed = set(attempt.packed)
    attempt.owned = {id_: claim for id_, claim in attempt.owned.items() if id_ in packed}
    attempt.unsure.clear()
    if packed:
        return Gathered(attempt, packer, spool)
    _close(spool)
    return None


def _publish(gathered: Gathered, work: Work) -> None:
    """Close the bundle, put it, and record that it is published."""
    attempt, packer, spool = gathered
    try:
        with _timed(attempt, "close"):
            packed = packer.finish(attempt.plan)
        if work.ledger.lapsed or not work.timetable.allows_put(time.monotonic()):
            raise OutOfTimeError("invocation ends before the bundle can be put", bundle=attempt.plan.bundle)
    except Exception as error:
        _give_up(attempt, error, work)  # nothing is put, so nothing has happened
    else:
        with _timed(attempt, "put"):
            attempt.published = _put(attempt, packed, spool, work)
        if attempt.published:
            with _timed(attempt, "settle"):
                _settle(attempt, packed, work)
    finally:
        _close(spool)


def _packed(attempt: Attempt, spool: "SpooledTemporaryFile[bytes]", work: Work) -> Packer:
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
        for arrival in work.sources.read_ahead(_claimed(attempt, claimers, full, work), full):
            _pack(arrival, packer, attempt, full, work)
    return packer


def _claimed(attempt: Attempt, claimers: Executor, full: threading.Event, work: Work) -> Iterator[Member]:
    """The members that are ours; some transactions of claims are ahead of what is being read, and no more."""

    def claim(members: Sequence[Member]) -> list[Member]:
        if full.is_set():
            attempt.left_over.extend(members)
            return []
        if time.monotonic() > work.timetable.read_until:
            late = OutOfTimeError("invocation ends before the object can be claimed")
            attempt.outcomes.update((work.ledger.identity(member), late) for member in members)
            return []
        claims = work.ledger.claim(members, attempt.plan.bundle)
        attempt.owned.update((claim.id, claim) for claim in claims.owned)
        attempt.unsure.extend(claims.unsure)
        attempt.outcomes.update(claims.outcomes)
        return [claim.member for claim in claims.owned]

    ahead: deque[Future[list[Member]]] = deque()
    for members in runs(attempt.plan.members, MOST_CLAIMS):
        ahead.append(claimers.submit(claim, members))
        if len(ahead) > _CLAIMERS:
            yield from ahead.popleft().result()
    while ahead:
        yield from ahead.popleft().result()


def _pack(arrival: Arrival, packer: Packer, attempt: Attempt, full: threading.Event, work: Work) -> None:
    """One member into the bundle, or a reason why not."""
    id_, reading = work.ledger.identity(arrival.member), arrival.reading
    failure = reading if isinstance(reading, Exception) else _added(reading, packer, work)
    if failure is None:
        attempt.packed.append(id_)
    elif isinstance(failure, BundleFullError) or (isinstance(failure, OutOfTimeError) and full.is_set()):
        full.set()
        attempt.left_over.append(arrival.member)
    else:
        attempt.outcomes[id_] = Outcome.SUPERSEDED if isinstance(failure, SupersededError) else failure


def _added(reading: Reading, packer: Packer, work: Work) -> AggregatorError | None:
    """Why a member could not be added; any other error is not the member's, and fails the bundle."""
    try:
        if time.monotonic() > work.timetable.gather_until:
            raise OutOfTimeError("invocation ends before the object can be packed", key=reading.source.member.key)
        packer.add(*reading)
    except AggregatorError as error:
        return error
    return None


def _put(attempt: Attempt, packed: Packed, spool: "SpooledTemporaryFile[bytes]", work: Work) -> bool:
    """The commit: whether the bundle is published, as far as anyone can tell."""
    try:
        work.distribution.put(attempt.plan.bundle, spool, size=packed.size, sha256=packed.sha256)
    except UnpublishedError as error:
        _give_up(attempt, error, work)
        return False
    except Exception as error:
        return _found_out(attempt, error, work)
    return True


def _found_out(attempt: Attempt, error: Exception, work: Work) -> bool:
    """
    After a put that may have taken effect, or may yet: look.

    If there is nothing, the claims are left to lapse, and whoever meets them then decides: our put may still be on its
    way, and must not find its name closed and the members already claimed anew.
    """
    bundle = attempt.plan.bundle
    try:
        found = work.ledger.look_up(bundle)
    except AggregatorError as undecided:
        log.warning("bundle.undecided", bundle=bundle, why=str(undecided))
        found = None
    if found:
        return True
    if found is None:
        log.warning("bundle.undecided", bundle=bundle, fault=str(error))
        attempt.outcomes.update(dict.fromkeys(attempt.packed, error))
    else:
        _give_up(attempt, UnpublishedError("bundle's name was closed", bundle=bundle, fault=str(error)), work)
    return False


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
    for member in attempt.plan.members:
        attempt.outcomes.setdefault(work.ledger.identity(member), error)
    log.warning("bundle.unpublished", bundle=attempt.plan.bundle, fault=str(error))
    attempt.packed.clear()
    try:
        work.ledger.release(attempt.strays())
    except LedgerUnavailableError as unsure:
        log.warning("ledger.unsure", **unsure.facts)


@contextmanager
def _timed(attempt: Attempt, phase: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    finally:
        attempt.seconds[phase] = time.monotonic() - began


def _close(spool: "SpooledTemporaryFile[bytes]") -> None:
    with suppress(OSError):  # a full disk fails once more when the rest is flushed
        spool.close()
