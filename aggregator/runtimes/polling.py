"""
Hand SQS messages to the handler as Lambda's event source mapping does.

    gather (gathering.py) ▸ invoke ▸ delete, and all the while keep invisible what is in hand (visibility.py)

A batch is gathered over several receives, because one receive returns ten messages at most, until the batch size, the
window (which the first message opens) or another limit is reached. What the handler does not name in its answer is
deleted; what it names, or everything if it raises or answers nonsense, stays and comes back when its visibility
time-out ends, until the queue's redrive policy takes it away. (Lambda developer guide, "Using Lambda with Amazon SQS".)
"""

import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import batches, error_code
from aggregator.runtimes.gathering import LAMBDA, Gatherer, Limits, Record
from aggregator.runtimes.visibility import MOST_IN_A_CALL, InFlight

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

LOG_EVENTS = {
    "messages.undeleted": "SQS would not delete messages that were handled: they come back and count as duplicates",
    "messages.unreceived": "a later receive failed: the messages in hand are handled without it",
    "messages.visible": "messages in hand could not be kept invisible: another process may get them, and leaves them",
}
"""What is said here beside the log events of `telemetry.py`."""

log = structlog.get_logger()


class LocalContext:
    """The part of Lambda's context object that a handler sees; also what Powertools' logger asks it for."""

    def __init__(self, *, function: str, seconds: float, memory: int = 1024, arn: str = "") -> None:
        """`seconds` from now it should have ended, `memory` is in MB; `arn` tells where it runs, if not in Lambda."""
        self.function_name = function
        self.function_version = "$LATEST"
        self.memory_limit_in_mb = memory
        self.invoked_function_arn = arn or f"arn:aws:lambda:us-east-1:123456789012:function:{function}"
        self.aws_request_id = str(uuid.uuid4())
        self._ends = time.monotonic() + seconds

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation should have ended."""
        return max(0, int((self._ends - time.monotonic()) * 1000))


class Polled(NamedTuple):
    """One batch: the bodies of the messages that were deleted, and how many stay on the queue."""

    deleted: list[str]
    kept: int


class EventSourceMapping:
    """
    Polls one queue for one handler.

    `limits` say what makes a batch. After `retry_after` seconds a failed message comes back; by default that takes the
    queue's visibility time-out, as in Lambda. With `visibility`, messages are invisible for so many seconds, again and
    again while they are in hand. Up to `threads` calls of a kind are made to SQS at the same time. `going` is asked
    before each receive; when it says no, nothing more is received, and what is in hand is a batch. `deleting` is called
    after each call that deletes.
    """

    def __init__(
        self,
        sqs: "SQSClient",
        queue_url: str,
        invoke: Callable[[dict[str, Any]], Any],
        *,
        limits: Limits = LAMBDA,
        retry_after: int | None = None,
        visibility: int | None = None,
        threads: int = 1,
        going: Callable[[], bool] = lambda: True,
        deleting: Callable[[], object] = lambda: None,
    ) -> None:
        self._sqs, self._queue_url, self._invoke = sqs, queue_url, invoke
        self._retry_after, self._visibility, self._threads = retry_after, visibility, threads
        self._deleting = deleting
        answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
        self._queue_arn = answer["QueueArn"]
        self._in_flight = InFlight(self._change_visibility, visibility=visibility, threads=threads)
        self._gatherer = Gatherer(self._receive, limits, threads=threads, going=going)
        self.answered = 0.0
        """When SQS last answered a receive, by the monotonic clock; 0 is never."""

    @property
    def in_hand(self) -> int:
        """Messages that were received, and neither deleted nor left to come back."""
        return len(self._in_flight)

    def poll(self) -> Polled:
        """Gather one batch, invoke the handler, and delete what it took; nothing, if no message came."""
        try:
            with self._in_flight.kept_invisible():
                batch = self._gatherer.gather()
                failed = self._failed(batch) if batch else set()
                done = [record for record in batch if record["messageId"] not in failed]
                kept = [record for record in batch if record["messageId"] in failed]
                self._in_flight.remove(_handles(kept))
                if self._retry_after is not None:
                    for some in batches(kept, MOST_IN_A_CALL):
                        self._change_visibility(_handles(some), self._retry_after)
                self._delete(done)
        finally:
            self._in_flight.keep_only(_handles(self._gatherer.left))
        return Polled([record["body"] for record in done], len(kept))

    def _receive(self, most: int, wait: int) -> list[Record]:
        visibility: Any = {} if self._visibility is None else {"VisibilityTimeout": self._visibility}
        answer = self._sqs.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=most,
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["ApproximateReceiveCount", "AWSTraceHeader"],
            MessageAttributeNames=["traceparent", "tracestate"],
            **visibility,
        )
        self.answered = time.monotonic()
        received = [_record(message, self._queue_arn) for message in answer.get("Messages", [])]
        self._in_flight.add(_handles(received))
        return received

    def _failed(self, batch: Sequence[Record]) -> set[str]:
        """Ids of the messages that stay on the queue: all, if the handler raises or names one that is not there."""
        ids = {record["messageId"] for record in batch}
        try:
            answer = self._invoke({"Records": batch}) or {}
            failed = {failure["itemIdentifier"] for failure in answer.get("batchItemFailures") or []}
        except Exception:
            log.exception("invocation.failed")
            return ids
        return failed if failed.issubset(ids) else ids

    def _delete(self, records: Sequence[Record]) -> None:
        """Delete messages; where SQS fails at as many calls as there are threads, it is not called any more."""
        refused: list[tuple[int, str]] = []
        failures: list[str] = []

        def delete(some: Sequence[Record]) -> None:
            handles = _handles(some)
            self._in_flight.remove(handles)
            try:
                if len(failures) < self._threads:
                    answer = self._sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=_entries(handles))
                    refused.extend((1, failed["Code"]) for failed in answer.get("Failed", []))
                    return
            except (ClientError, BotoCoreError) as error:
                failures.append(error_code(error))
            refused.append((len(handles), failures[0]))

        with ThreadPoolExecutor(self._threads, thread_name_prefix="delete") as threads:
            for _ in threads.map(delete, batches(records, MOST_IN_A_CALL)):
                self._deleting()
        if refused:
            log.warning("messages.undeleted", messages=sum(count for count, _ in refused), fault=refused[0][1])

    def _change_visibility(self, handles: Sequence[str], seconds: int) -> None:
        entries: list[Any] = [{**entry, "VisibilityTimeout": seconds} for entry in _entries(handles)]
        answer = self._sqs.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)
        if refused := answer.get("Failed"):
            log.warning("messages.visible", messages=len(refused), fault=refused[0]["Code"])


def _record(message: "MessageTypeDef", queue_arn: str) -> Record:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {
            name: {"stringValue": one.get("StringValue", ""), "dataType": one["DataType"]}
            for name, one in message.get("MessageAttributes", {}).items()
        },
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def _handles(records: Sequence[Record]) -> list[str]:
    return [record["receiptHandle"] for record in records]


def _entries(handles: Sequence[str]) -> list[Any]:
    return [{"Id": str(at), "ReceiptHandle": handle} for at, handle in enumerate(handles)]
