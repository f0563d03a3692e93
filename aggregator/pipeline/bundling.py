"""
The story of one batch: every object into one bundle, or a reason why not.

    plan ▸ claim ▸ read ▸ pack ▸ release ▸ put ▸ settle

Plan bundles by declared size. For each: claim its objects, read and pack what we own, release what did not get in, put
the bundle (the commit), record that it is published. When the power fails before the put, nothing has happened: the
claims lapse, the queue brings the messages back. When it fails after, everything has: the bundle itself says so.

While one bundle is put and settled, the next is gathered; there are never more than two (docs/decisions/0016).
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import chain
from secrets import token_hex
from tempfile import SpooledTemporaryFile

import structlog

from aggregator.exceptions import (
    AggregatorError,
    BinaryContentError,
    BundleFullError,
    LedgerUnavailableError,
    OutOfTimeError,
    SupersededError,
    UnpublishedError,
)
from aggregator.pipeline.arbiter import Arbiter
from aggregator.pipeline.claiming import CLAIMERS, Claiming
from aggregator.pipeline.content import binary_kind
from aggregator.pipeline.core import Packed, Packer, Reading
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.distribution import DistributionBucket
from aggregator.pipeline.ledger import Claim, Claims, Ledger
from aggregator.pipeline.outcomes import Outcome, Outcomes, Published, Result
from aggregator.pipeline.planning import Plan, Wanted, planned, split
from aggregator.pipeline.readahead import Arrival, NotStarted
from aggregator.pipeline.settings import Settings
from aggregator.pipeline.sources import Sources
from aggregator.pipeline.timings import Timings

SPOOL_SIZE = 16 * 1024 * 1024
"""Bytes of a bundle kept in memory; what is more goes to the function's ephemeral storage."""


log = structlog.get_logger()


def aggregate(wanted: Iterable[Wanted], *, begin: "Callable[[Plan], Attempt]", request_id: str, limit: int) -> Result:
    """
    Bundle what is wanted, each object once however often it is named; say what became of each.

    `begin` begins a bundle that is planned, `limit` is the most bytes of members in one.
    """
    attempts: list[Attempt] = []
    first = _each_once(wanted)
    waiting = deque(split(first.values(), limit))
    known = set(first)
    with ThreadPoolExecutor(1, thread_name_prefix="publish") as publisher:
        under_way: Future[None] | None = None
        while waiting:
            attempt = begin(planned(waiting.popleft(), now=time.time(), request_id=request_id, suffix=token_hex(4)))
            attempts.append(attempt)
            ready = attempt.gather()
            identified = {one.id: one for one in attempt.identified.values() if one.id not in known}
            known.update(identified)
            if deferred := (*attempt.deferred(), *identified.values()):
                waiting.append(deferred)
            last, under_way = under_way, publisher.submit(attempt.publish) if ready else None
            if last:
                last.result()
        if under_way:
            under_way.result()
    return _result(attempts)


class Attempt:
    """
    One bundle under way, with its packer and its spool: first `gather`, then `publish`, by one thread at a time.

    Every object of the plan ends with an outcome, or is left for another bundle: deferred, because this one is full, or
    identified, because S3 answered with more than was announced: it is claimed again as the version that it is.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        settings: Settings,
        deadlines: Deadlines,
        sources: Sources,
        ledger: Ledger,
        distribution: DistributionBucket,
        arbiter: Arbiter,
        compressors: Executor,
    ) -> None:
        self.plan = plan
        self.outcomes: Outcomes = {}
        self.identified: dict[str, Wanted] = {}
        self.published: Published | None = None
        self.timings = Timings(plan.bundle)
        self.spool = SpooledTemporaryFile[bytes](SPOOL_SIZE)
        self._packer: Packer
        self._packed: dict[str, Wanted] = {}
        self._binary: list[tuple[str, str]] = []
        self._claims = Claims([], [], {})
        self._full = False
        self._settings, self._compressors, self._deadlines = settings, compressors, deadlines
        self._sources, self._ledger, self._distribution, self._arbiter = sources, ledger, distribution, arbiter

    def gather(self) -> bool:
        """Claim, read and pack, then give back what did not get in; whether there is a bundle to publish."""
        ready = False
        try:
            with self.timings.phase("gather"):
                self._pack_all()
                self._ledger.release(self._claimed(packed=False), self._claims.in_doubt)
            ready = bool(self._packed)
        except Exception as error:  # nothing is put, so nothing has happened
            self.identified.clear()
            failing = [one for one in self.plan.wanted if one.id not in self.outcomes]
            self._give_up(error, failing, self._claims.owned, self._claims.in_doubt)
        finally:
            if not ready:
                self._close()
        return ready

    def deferred(self) -> tuple[Wanted, ...]:
        """What did not get into this bundle, because it is full, and so is left for another."""
        done = self.outcomes.keys() | self._packed.keys() | self.identified.keys()
        return tuple(one for one in self.plan.wanted if one.id not in done)

    def publish(self) -> None:
        """Close the bundle, put it, and record that it is published."""
        try:
            with self.timings.phase("close"):
                packed = self._packer.finish(self.plan)
            if self._ledger.lapsed or not self._deadlines.allows_put(time.monotonic()):
                raise OutOfTimeError("invocation ends before the bundle can be put", bundle=self.plan.bundle)
        except Exception as error:
            self._give_back(error)
        else:
            with self.timings.phase("put"):
                published = self._put(packed)
            if published:
                with self.timings.phase("settle"):
                    self._settle(packed)
        finally:
            self._close()

    def _pack_all(self) -> None:
        """Claim, read and pack: each object is packed then, has an outcome, or is deferred."""
        self._packer = Packer(
            self.spool,
            limit=self._settings.max_bundle_input,
            level=self._settings.compression_level,
            framing=self._settings.bundle_framing,
            executor=self._compressors,
        )
        claiming = Claiming(self.plan, self._ledger, enough=self._is_full, until=self._deadlines.read_until)
        try:
            with (
                ThreadPoolExecutor(CLAIMERS, thread_name_prefix="claim") as claimers,
                closing(claiming.owned(claimers)) as owned,
                closing(self._sources.read_ahead(owned, self._is_full)) as arrivals,
            ):
                for arrival in arrivals:
                    taken = time.monotonic()
                    self._take_in(arrival)
                    self.timings.packed(arrival.wanted.ref, began=arrival.began, read=arrival.ended, taken=taken)
        finally:
            self._claims = claiming.claims()
            self.outcomes.update(self._claims.outcomes)

    def _is_full(self) -> bool:
        return self._full

    def _take_in(self, arrival: Arrival) -> None:
        """One object into the bundle, or a reason why not."""
        reading, wanted = arrival.reading, arrival.wanted
        failure: NotStarted | Exception | None
        if not isinstance(reading, Reading):
            failure = reading
        elif identified := self._identified(wanted, reading):
            self.identified[wanted.id] = identified
            return
        else:
            failure = self._added(reading)
        if failure is None:
            self._packed[wanted.id] = wanted
        elif isinstance(failure, BundleFullError):
            self._full = True
        elif isinstance(failure, SupersededError):
            self.outcomes[wanted.id] = Outcome.SUPERSEDED
        elif not isinstance(failure, NotStarted):
            self.outcomes[wanted.id] = failure

    def _identified(self, wanted: Wanted, reading: Reading) -> Wanted | None:
        """The object as the version that S3 answered with, if its notification did not say which one it is."""
        scope, ref, source = self._settings.idempotency_scope, wanted.ref, reading.source
        if scope == "key" or ref.version_id or not (source.version_id or (source.etag and not ref.etag)):
            return None
        return Wanted.of(ref._replace(version_id=source.version_id, etag=source.etag), scope)

    def _added(self, reading: Reading) -> AggregatorError | None:
        """Why an object could not be added; any other error is not the object's, and fails the bundle."""
        try:
            if time.monotonic() > self._deadlines.gather_until:
                raise OutOfTimeError("invocation ends before the object can be packed", key=reading.source.ref.key)
            self._add(reading)
        except AggregatorError as error:
            return error
        return None

    def _add(self, reading: Reading) -> None:
        """Pack an object, text or not, as the setting says."""
        source, chunks = reading
        head = next(chunks, b"")
        kind = binary_kind(head)
        if kind and self._settings.binary_members == "reject":
            raise BinaryContentError("object is not text", bucket=source.ref.bucket, key=source.ref.key, kind=kind)
        self._packer.add(source, chain((head,), chunks))
        if kind:
            self._binary.append((kind, source.ref.key))

    def _claimed(self, *, packed: bool) -> list[Claim]:
        """Those of our claims whose object is in the bundle, or those whose object is not."""
        return [claim for claim in self._claims.owned if (claim.id in self._packed) is packed]

    def _put(self, packed: Packed) -> bool:
        """The commit: whether the bundle is published, as far as anyone can tell."""
        try:
            self._distribution.put(self.plan.bundle, self.spool, size=packed.size, sha256=packed.sha256)
        except UnpublishedError as error:
            self._give_back(error)
            return False
        except Exception as error:
            return self._found_out(error)
        return True

    def _found_out(self, error: Exception) -> bool:
        """
        After a put that may have taken effect, or may yet: look.

        If there is nothing, the claims are left to lapse, and the next that meets them resolves them: our put may still
        be on its way, and must not find its name fenced and the objects claimed again.
        """
        bundle = self.plan.bundle
        try:
            found = self._arbiter.look_up(bundle)
        except AggregatorError as undecided:
            log.warning("bundle.in_doubt", bundle=bundle, why=str(undecided))
            found = None
        if found:
            return True
        if found is None:
            log.warning("bundle.in_doubt", bundle=bundle, fault=str(error))
            self.outcomes.update(dict.fromkeys(self._packed, error))
            self.timings.fail(error)
        else:
            self._give_back(UnpublishedError("the bundle's name was fenced", bundle=bundle, fault=str(error)))
        return False

    def _settle(self, packed: Packed) -> None:
        """The bundle is published, so its members are safe, whatever becomes of the settle record."""
        self.outcomes.update(dict.fromkeys(self._packed, Outcome.BUNDLED))
        bundle, bytes_in = self.plan.bundle, sum(packed.index.members.length)
        self.published = Published(
            bundle, len(self._packed), bytes_in, packed.size, tuple(kind for kind, _ in self._binary)
        )
        facts = {
            "members": len(self._packed),
            "bytes_in": bytes_in,
            "bytes_out": packed.size,
            "sha256": packed.sha256.hex(),
        }
        log.info("bundle.written", bundle=bundle, **facts)
        if self._binary:
            kinds, example = Counter(kind for kind, _ in self._binary), self._binary[0][1]
            log.warning("binary.bundled", bundle=bundle, kinds=dict(kinds), example=example)
        try:
            self._ledger.settle(bundle, {**facts, "created": self.plan.created, "request_id": self.plan.request_id})
        except LedgerUnavailableError as error:
            log.warning("settle.failed", **error.facts)
            self.timings.fail(error)

    def _give_back(self, error: Exception) -> None:
        """The gathered bundle is surely not published: its members fail for `error`."""
        self._give_up(error, self._packed.values(), self._claimed(packed=True))

    def _give_up(
        self, error: Exception, failing: Iterable[Wanted], owned: Sequence[Claim], in_doubt: Sequence[Claim] = ()
    ) -> None:
        """The bundle is surely not published: objects fail for `error`, and claims are released if possible."""
        self.outcomes.update((one.id, error) for one in failing)
        self.timings.fail(error)
        log.warning("bundle.unpublished", bundle=self.plan.bundle, fault=str(error))
        try:
            self._ledger.release(owned, in_doubt)
        except LedgerUnavailableError as unsure:
            log.warning("ledger.in_doubt", **unsure.facts)

    def _close(self) -> None:
        with suppress(OSError):  # a full disk fails once more when the rest is flushed
            self.spool.close()


def _each_once(wanted: Iterable[Wanted]) -> dict[str, Wanted]:
    """Every object as it was announced first, by its id."""
    first: dict[str, Wanted] = {}
    for one in wanted:
        first.setdefault(one.id, one)
    return first


def _result(attempts: Sequence[Attempt]) -> Result:
    outcomes = {id_: outcome for attempt in attempts for id_, outcome in attempt.outcomes.items()}
    identified = {id_: one.id for attempt in attempts for id_, one in attempt.identified.items()}
    while twice := {id_: identified[version] for id_, version in identified.items() if version in identified}:
        identified |= twice
    outcomes |= {id_: outcomes[version] for id_, version in identified.items()}
    published = [attempt.published for attempt in attempts if attempt.published]
    return Result(outcomes, identified, published, [attempt.timings for attempt in attempts])
