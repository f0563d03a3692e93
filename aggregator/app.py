"""
The Lambda handler: a batch of SQS messages in, the ids of those that stay on the queue out.

    parse ▸ bundle (bundling.py: claim ▸ read ▸ pack ▸ release ▸ put ▸ settle) ▸ record rejections ▸ report

Nothing survives an invocation: clients, threads and spools are made here and gone at the end.
"""

import gc

gc.disable()  # all that is imported stays: the collector would spend a fifth of a cold start to find that out

from aws_lambda_powertools.utilities.batch import (  # isort: skip - before pydantic: 54 ms
    BatchProcessor,
    EventType,
    process_partial_response,
)

import ctypes
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cached_property
from os import cpu_count
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from aws_lambda_powertools import Metrics
from aws_lambda_powertools.utilities.parser import parse

from aggregator.events import FOLDER_MARKER
from aggregator.exceptions import (
    ForeignSourceError,
    InvalidNotificationError,
    LedgerUnavailableError,
    LoopError,
    UnknownEventError,
    WrongTriggerError,
)
from aggregator.pipeline.arbiter import Arbiter
from aggregator.pipeline.bundling import Attempt, aggregate
from aggregator.pipeline.clients import Clients
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.distribution import DistributionBucket
from aggregator.pipeline.ledger import Ledger
from aggregator.pipeline.planning import Envelope, Plan, Wanted
from aggregator.pipeline.readahead import cores
from aggregator.pipeline.records import Records
from aggregator.pipeline.rejections import Rejection, Rejections
from aggregator.pipeline.report import Parsed, Report, tell
from aggregator.pipeline.settings import MEGABYTE, Settings, switched_off
from aggregator.pipeline.sources import Sources
from aggregator.pipeline.swaps import Unwritten, choose_way
from aggregator.pipeline.telemetry import instrument
from aggregator.schemas import BODY, Body, ObjectRef, SqsRecord, invalid_fields, unknown_events

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.typing import LambdaContext

gc.freeze()  # nor does it look through it later
gc.enable()

log = structlog.get_logger()

_UNKNOWN_EVENT = (
    "event may create an object and is not known: send only object-created events to the queue, "
    "or announce its objects with `aggregator backfill`"
)


class Processed(NamedTuple):
    """What an invocation answers to Lambda, and what it reports to who called it in the same process."""

    response: "PartialItemFailureResponse"
    report: Report


def handler(event: dict[str, Any], context: "LambdaContext") -> "PartialItemFailureResponse":
    """
    Bundle the objects that a batch of SQS messages announces.

    The answer names the messages that stay on the queue: those whose objects are not, all of them, in a published
    bundle. It is a bad event, never a bad message, that raises.

    Raises:
        WrongTriggerError: the event is not a batch of SQS messages.
        ConfigurationError: the environment is not complete, or the ledger's store is not safe.
        LedgerUnavailableError: whether the ledger's store is safe cannot be found out.
    """
    return process(event, context).response


@instrument
def process(event: dict[str, Any], context: "LambdaContext", *, settings: Settings, metrics: Metrics) -> Processed:
    """Do what `handler` does, and hand out the report as well."""
    began = time.monotonic()
    records = _records(event)
    _warn(settings)
    remaining = context.get_remaining_time_in_millis() / 1000
    deadlines = Deadlines.of(began, remaining, settings.max_bundle_input, wall=time.time())
    parsed = [_parsed(record, settings) for record in records]
    with ExitStack() as stack:
        invocation = _Invocation(settings, context.aws_request_id, deadlines, stack)
        result = aggregate(
            (wanted for one in parsed for wanted in one.envelope.wanted),
            begin=invocation.begin,
            request_id=context.aws_request_id,
            limit=settings.max_bundle_input,
        )
        report = Report(parsed, result)
        invocation.record(report.rejections())
    tell(report, settings, metrics, began)
    _give_memory_back()
    return Processed(_response(event, context, report), report)


def _records(event: object) -> list[dict[str, Any]]:
    """
    The messages of a batch.

    Raises:
        WrongTriggerError: this is something else.
    """
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list):
        raise WrongTriggerError("the event is not a batch of SQS messages: it has no list of Records")
    for record in records:
        if not isinstance(record, dict) or not isinstance(record.get("messageId"), str) or not record["messageId"]:
            raise WrongTriggerError("the event is not a batch of SQS messages: a record has no messageId")
    sources = {str(record.get("eventSource")) for record in records}
    if records and "aws:sqs" not in sources:
        raise WrongTriggerError("the event is not a batch of SQS messages", event_source=min(sources))
    return records


def _parsed(record: dict[str, Any], settings: Settings) -> Parsed:
    """One SQS message, as it is understood; an unexpected error in it fails this message alone."""
    try:
        body = _body(record)
        announced = body.objects()
        wanted = tuple(Wanted.of(ref, settings.idempotency_scope) for ref in _bundled(announced, settings))
    except Exception as error:
        return Parsed(Envelope(record["messageId"], ()), error)
    markers = sum(ref.is_folder_marker for ref in announced)
    return Parsed(Envelope(record["messageId"], wanted), skipped=(*body.skipped(), *[FOLDER_MARKER] * markers))


def _body(record: dict[str, Any]) -> Body:
    """
    The notification that a message is.

    Raises:
        InvalidNotificationError: it is not a notification that we accept.
        UnknownEventError: it announces an event of which nobody knows whether it creates an object.
    """
    try:
        text = parse(event=record, model=SqsRecord).body
        body: Body = parse(event=text, model=BODY)  # type: ignore[call-overload]  # it takes a str
    except ValueError as error:
        faults = invalid_fields(error)
        if events := unknown_events(error):
            raise UnknownEventError(_UNKNOWN_EVENT, events=events, faults=faults) from error
        raise InvalidNotificationError("message is rejected", faults=faults) from error
    return body


def _bundled(announced: Sequence[ObjectRef], settings: Settings) -> Iterator[ObjectRef]:
    """
    The objects that are to be bundled, of those that a message announces.

    Raises:
        LoopError: it announces an object in a bucket that we write to.
        ForeignSourceError: it announces an object that SOURCE_BUCKETS does not name.
    """
    for ref in announced:
        if ref.is_folder_marker:
            continue
        if ref.bucket in {settings.distribution_bucket_name, settings.archive_bucket_name}:
            raise LoopError("the object is in a bucket that bundles are put into", bucket=ref.bucket)
        if not settings.is_source(ref.bucket, ref.key):
            raise ForeignSourceError("the object is not where SOURCE_BUCKETS lets objects come from", bucket=ref.bucket)
        yield ref


def _response(event: dict[str, Any], context: "LambdaContext", report: Report) -> "PartialItemFailureResponse":
    """Name the messages that stay on the queue, by Powertools' account of those that raise what was found out."""
    if not report.parsed:  # Powertools takes no empty batch
        return {"batchItemFailures": []}
    failures = {envelope.message_id: failure for envelope, failure in report.failed}

    def raise_if_failed(record: "SQSRecord") -> None:
        if failure := failures.get(record.message_id):
            raise failure

    processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
    return process_partial_response(event, raise_if_failed, processor, context)


class _Invocation:
    """What one invocation works with: built when it is needed, taken down at its end."""

    def __init__(self, settings: Settings, request_id: str, deadlines: Deadlines, stack: ExitStack) -> None:
        self._settings, self._request_id, self._deadlines = settings, request_id, deadlines
        self._enabled = not switched_off(os.environ, "POWERTOOLS_IDEMPOTENCY_DISABLED")
        self._clients = Clients.build(deadlines)
        stack.callback(self._clients.close)
        self._sources = Sources(
            self._clients,
            scope=settings.idempotency_scope,
            decoding=settings.source_decoding,
            limit=settings.max_bundle_input,
            window=settings.read_window,
            concurrency=settings.read_concurrency,
            cores=cores(os.environ),
            deadlines=deadlines,
        )
        stack.callback(self._sources.close)
        self._compressors = stack.enter_context(ThreadPoolExecutor(cpu_count() or 1, thread_name_prefix="compress"))
        self._distribution = DistributionBucket(self._clients.s3, settings.distribution_bucket_name)
        self._records = Records(
            self._clients.dynamodb,
            table=settings.idempotency_table_name,
            prefix=settings.distribution_bucket_name,  # keeps apart what shares a table: docs/decisions/0006
            ttl=settings.ttl,
            clock=time.time,
        )
        self._settle = self._records.settle if self._enabled else _forget
        self._arbiter = Arbiter(
            self._distribution,
            settle=self._settle,
            scope=settings.idempotency_scope,
            request_id=request_id,
            clock=time.time,
            has_time=lambda: time.monotonic() <= deadlines.read_until,
        )

    def begin(self, plan: Plan) -> Attempt:
        """Begin a bundle."""
        return Attempt(
            plan,
            settings=self._settings,
            deadlines=self._deadlines,
            sources=self._sources,
            ledger=self._ledger,
            distribution=self._distribution,
            arbiter=self._arbiter,
            compressors=self._compressors,
        )

    def record(self, rejections: Sequence[Rejection]) -> None:
        """A dead-letter queue does not keep why a message is there: the ledger does, if it has the time."""
        if not rejections or not self._enabled:
            return
        try:
            Rejections(self._records, request_id=self._request_id, clock=time.time).record(rejections)
        except LedgerUnavailableError as error:
            log.warning("rejections.unrecorded", **error.facts)

    @cached_property
    def _ledger(self) -> Ledger:
        """The ledger; its store is probed before anything is written into it."""
        way = choose_way(self._records, self._settings.ledger_writes) if self._enabled else Unwritten()
        lapses = self._deadlines.lapses
        return Ledger(self._records, way, self._arbiter, settle=self._settle, lapses=lapses, clock=time.time)


def _forget(bundle: str, receipt: Mapping[str, object]) -> None:
    """Settle nothing: the ledger is switched off."""


def _give_memory_back() -> None:
    """
    Hand the memory that is free back to the system (malloc_trim(3)).

    glibc keeps it, in an arena for a thread or two. With MALLOC_ARENA_MAX=2, as the template has it, and this call, a
    process that has bundled 200 objects of 1 MiB six times over is left with 95 MiB; with neither, with some 190.
    """
    with suppress(AttributeError, TypeError):  # another libc; on Windows None names no library
        ctypes.CDLL(None).malloc_trim(0)


def _warn(settings: Settings) -> None:
    """Say so if two bundles that do not compress, one being put and one being gathered, would not fit on the disk."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 2 * settings.max_bundle_input:
        facts = {"MAX_BUNDLE_INPUT_MB": settings.max_bundle_input_mb, "free_MB": free // MEGABYTE}
        log.warning("spool.short", setting="MAX_BUNDLE_INPUT_MB", **facts)
