"""
The Lambda handler: a batch of SQS messages in, the ids of those that stay on the queue out.

    parse ▸ bundle (bundling.py: claim ▸ read ▸ pack ▸ release ▸ put ▸ settle) ▸ report

Nothing survives an invocation: clients, threads and spools are made here and gone at the end.
"""

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType  # isort: skip - before pydantic: 54 ms

import ctypes
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from os import cpu_count
from typing import TYPE_CHECKING, Any

import structlog
from aws_lambda_powertools import Metrics
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.parser import parse

from aggregator.bundling import Result, Work, aggregate
from aggregator.clients import Clients, Distribution
from aggregator.exceptions import (
    InvalidNotificationError,
    LoopError,
    PermanentError,
    WrongTriggerError,
)
from aggregator.ledger import Ledger
from aggregator.planning import Timetable
from aggregator.report import Report, tell
from aggregator.schemas import BODY, Envelope, SqsRecord, invalid_fields
from aggregator.settings import MEGABYTE, Settings
from aggregator.sources import Sources
from aggregator.telemetry import observed

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.typing import LambdaContext

log = structlog.get_logger()


@observed
def handler(
    event: dict[str, Any], context: "LambdaContext", *, settings: Settings, metrics: Metrics
) -> "PartialItemFailureResponse":
    """
    Bundle the objects that a batch of SQS messages announces.

    The answer names the messages that stay on the queue: those whose objects are not, all of them, in a published
    bundle. It is a bad event, never a bad message, that raises.

    Raises:
        WrongTriggerError: the event is no batch of SQS messages.
        ConfigurationError: the environment is not complete.
    """
    began = time.monotonic()
    records = _records(event)
    _warn(settings)
    timetable = Timetable.of(began, context.get_remaining_time_in_millis() / 1000, settings.max_bundle_input)
    with ExitStack() as stack:
        work = _work(settings, context.aws_request_id, timetable, stack)
        batch = Batch(work)
        with batch(records, batch.envelope):
            batch.process()
        tell(batch.report(), work, metrics, began)
    _give_back()
    return batch.response()


class Batch(BatchProcessor):
    """Parses every envelope on its own, then bundles all of them at once, then reports each on its own."""

    def __init__(self, work: Work) -> None:
        super().__init__(EventType.SQS, raise_on_entire_batch_failure=False)
        self._work = work
        self._off_limits = {work.settings.distribution_bucket_name, work.settings.archive_bucket_name}
        self._parsed: list[Envelope] = []
        self._failed: list[tuple[Envelope, Exception]] = []
        self._result = Result({}, [])

    def envelope(self, record: SQSRecord) -> Envelope:
        """
        Parse one SQS message.

        Raises:
            InvalidNotificationError: it is no notification that we accept.
            LoopError: it announces an object in a bucket that we write to.
        """
        try:
            body = parse(event=record.raw_event, model=SqsRecord).body
            announced = parse(event=body, model=BODY).members()  # type: ignore[call-overload]  # it takes a str
        except ValueError as error:
            raise InvalidNotificationError("message is refused", faults=invalid_fields(error)) from error
        members = tuple(member for member in announced if not member.is_folder_marker)
        for member in members:
            if member.bucket in self._off_limits:
                raise LoopError("object lies in a bucket that bundles are put into", bucket=member.bucket)
        return Envelope(record.message_id, members)

    def process(self) -> list[tuple[Any, ...]]:
        """Parse all, bundle all; what Powertools is told of each message."""
        results: list[Any] = [self._process_record(record) for record in self.records]
        parsed = [(at, result[1]) for at, result in enumerate(results) if result[0] == "success"]
        self._parsed = [envelope for _, envelope in parsed]
        members = (member for envelope in self._parsed for member in envelope.members)
        self._result = aggregate(members, self._work)
        self.success_messages = []
        for at, envelope in parsed:
            failure = self._failure(envelope)
            if failure is None:
                self.success_messages.append(self.records[at])  # type: ignore[arg-type]  # as Powertools does
            else:
                self._failed.append((envelope, failure))
                results[at] = super().failure_handler(SQSRecord(self.records[at]), (type(failure), failure, None))
        return results

    def report(self) -> Report:
        """What became of the batch, for people."""
        return Report(len(self.records), self._parsed, self._failed, self._result)

    def failure_handler(self, record: Any, exception: Any) -> Any:
        """Keep what failed and why; called by Powertools for what could not be parsed."""
        self._failed.append((Envelope(record.message_id, ()), exception[1]))
        return super().failure_handler(record, exception)

    def _failure(self, envelope: Envelope) -> Exception | None:
        """Why an envelope is not acknowledged: any of its members failed; a rejection outweighs a retry."""
        outcomes = [self._result.outcomes[self._work.ledger.identity(member)] for member in envelope.members]
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        return min(failures, key=lambda failure: not isinstance(failure, PermanentError), default=None)


def _give_back() -> None:
    """
    Hand the memory that is free back to the system (malloc_trim(3)).

    glibc keeps it, in an arena for a thread or two. With MALLOC_ARENA_MAX=2, as the template has it, and this call, a
    process that has bundled 200 objects of 1 MiB six times over is left with 95 MiB; with neither, with some 190.
    """
    with suppress(AttributeError):  # another libc
        ctypes.CDLL(None).malloc_trim(0)


def _warn(settings: Settings) -> None:
    """Say so if two bundles that do not compress, one being put and one being gathered, would not fit on the disk."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 2 * settings.max_bundle_input:
        facts = {"MAX_BUNDLE_INPUT_MB": settings.max_bundle_input_mb, "free_MB": free // MEGABYTE}
        log.warning("spool.short", setting="MAX_BUNDLE_INPUT_MB", **facts)


def _records(event: object) -> list[dict[str, Any]]:
    """
    The messages of a batch.

    Raises:
        WrongTriggerError: this is something else.
    """
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list):
        raise WrongTriggerError("event is no batch of SQS messages: it has no list of Records")
    for record in records:
        if not isinstance(record, dict) or not isinstance(record.get("messageId"), str) or not record["messageId"]:
            raise WrongTriggerError("event is no batch of SQS messages: a record has no messageId")
    sources = {str(record.get("eventSource")) for record in records}
    if records and "aws:sqs" not in sources:
        raise WrongTriggerError("event is no batch of SQS messages", event_source=min(sources))
    return records


def _work(settings: Settings, request_id: str, timetable: Timetable, stack: ExitStack) -> Work:
    """Build what the invocation works with; `stack` takes it down again."""
    clients = Clients.build(timetable)
    stack.callback(clients.close)
    sources = Sources(
        clients,
        scope=settings.idempotency_scope,
        decoding=settings.source_decoding,
        limit=settings.max_bundle_input,
        window=settings.read_window,
        concurrency=settings.read_concurrency,
        timetable=timetable,
    )
    stack.callback(sources.close)
    distribution = Distribution(clients.s3, settings.distribution_bucket_name)
    ledger = Ledger(
        clients.dynamodb,
        distribution,
        table=settings.idempotency_table_name,
        scope=settings.idempotency_scope,
        ttl=settings.ttl,
        request_id=request_id,
        remaining=timetable.ends - time.monotonic(),
        deciding=timetable.read_until - time.monotonic(),
        clock=time.time,
    )
    compressors = stack.enter_context(ThreadPoolExecutor(cpu_count() or 1, thread_name_prefix="compress"))
    return Work(settings, request_id, timetable, sources, distribution, ledger, compressors)
