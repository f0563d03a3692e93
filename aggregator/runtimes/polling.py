"""
Hand SQS messages to the handler as Lambda's event source mapping does.

A batch is gathered over several receives, because one receive returns ten messages at most, until the batch size, the
window (which the first message opens) or the payload limit is reached. What the handler does not name in its answer is
deleted; what it names, or everything if it raises or answers nonsense, stays and comes back when its visibility
time-out ends, until the queue's redrive policy takes it away. (Lambda developer guide, "Using Lambda with Amazon SQS".)

Messages in hand can be kept invisible for as long as that takes: a window may be longer than the time-out.
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import batches, error_code

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

MOST_PAYLOAD = 6 * 1024 * 1024
"""Bytes of an invocation's event (Lambda quotas)."""

BEATS = 3
"""How often in a visibility time-out messages in hand are kept invisible: one beat may be missed."""

LOG_EVENTS = {
    "messages.undeleted": "SQS would not delete messages that were handled: they come back and count as duplicates",
    "messages.unreceived": "a later receive failed: the messages in hand are handled without it",
    "messages.visible": "messages in hand could not be kept invisible: another process may get them, and leaves them",
}
"""What is said here beside the log events of `telemetry.py`."""

log = structlog.get_logger()

Record = dict[str, Any]
"""One message as Lambda hands it over."""

_MOST_IN_A_CALL = 10

_PAUSE = 0.1
"""Seconds between two receives when less than a second of the window is left, for a receive waits whole seconds."""


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

    `batch_size` messages or `window` seconds after the first make a batch; the first is awaited `wait` whole seconds.
    After `retry_after` seconds a failed message comes back; by default that takes the queue's visibility time-out, as
    in Lambda. With `visibility`, messages are invisible for so many seconds, again and again while they are in hand.
    `going` is asked before each receive; when it says no, nothing more is received, and what is in hand is a batch.
    """

    def __init__(
        self,
        sqs: "SQSClient",
        queue_url: str,
        invoke: Callable[[dict[str, Any]], Any],
        *,
        batch_size: int = 1_000,
        window: float = 1.0,
        wait: int = 1,
        retry_after: int | None = None,
        visibility: int | None = None,
        going: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sqs, self._queue_url, self._invoke = sqs, queue_url, invoke
        self._batch_size, self._window, self._wait = batch_size, window, wait
        self._retry_after, self._visibility, self._going = retry_after, visibility, going
        attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
        self._queue_arn = attributes["QueueArn"]
        self._left: list[Record] = []  # received, but too much for the last batch

    def poll(self) -> Polled:
        """Gather one batch, invoke the handler, and delete what it took; nothing, if no message came."""
        hand: list[Record] = []
        with self._kept_invisible(hand):
            batch = self._gather(hand)
            failed = self._failed(batch) if batch else set()
        done = [record for record in batch if record["messageId"] not in failed]
        kept = [record for record in batch if record["messageId"] in failed]
        self._delete(done)
        if self._retry_after is not None:
            self._change_visibility(kept, self._retry_after)
        return Polled([record["body"] for record in done], len(kept))

    def _gather(self, hand: list[Record]) -> list[Record]:
        """The next batch; `hand` gets every message as soon as it is received."""
        batch = _Batch(self._batch_size, self._window)
        hand += self._left
        self._left = [record for record in self._left if not batch.take(record)]
        while not (self._left or batch.is_over()) and self._going():
            try:
                received = self._receive(batch.room(), batch.seconds_left(self._wait))
            except (ClientError, BotoCoreError) as error:
                if not batch.records:
                    raise
                log.warning("messages.unreceived", fault=error_code(error))
                break
            hand += received
            self._left = [record for record in received if not batch.take(record)]
            if not received and not batch.records:
                break
            if not received:
                time.sleep(min(_PAUSE, self._window))
        return batch.records

    def _receive(self, most: int, wait: int) -> list[Record]:
        visibility: Any = {} if self._visibility is None else {"VisibilityTimeout": self._visibility}
        answer = self._sqs.receive_message(
            QueueUrl=self._queue_url,
            MaxNumberOfMessages=min(_MOST_IN_A_CALL, most),
            WaitTimeSeconds=wait,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["traceparent", "tracestate"],
            **visibility,
        )
        return [_record(message, self._queue_arn) for message in answer.get("Messages", [])]

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
        for some in batches(records, _MOST_IN_A_CALL):
            answer = self._sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=_entries(some))
            if refused := answer.get("Failed"):
                log.warning("messages.undeleted", messages=len(refused), fault=refused[0]["Code"])

    @contextmanager
    def _kept_invisible(self, hand: list[Record]) -> Iterator[None]:
        """While the block lasts, keep what is in `hand` invisible, if that is wanted."""
        if self._visibility is None:
            yield
            return
        over = threading.Event()
        heart = threading.Thread(target=self._beat, args=(hand, self._visibility, over), name="heartbeat")
        heart.start()
        try:
            yield
        finally:
            over.set()
            heart.join()

    def _beat(self, hand: list[Record], visibility: int, over: threading.Event) -> None:
        while not over.wait(visibility / BEATS):
            try:
                self._change_visibility(list(hand), visibility)
            except (ClientError, BotoCoreError) as error:
                log.warning("messages.visible", messages=len(hand), fault=error_code(error))

    def _change_visibility(self, records: Sequence[Record], seconds: int) -> None:
        for some in batches(records, _MOST_IN_A_CALL):
            entries: list[Any] = [{**entry, "VisibilityTimeout": seconds} for entry in _entries(some)]
            answer = self._sqs.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)
            if refused := answer.get("Failed"):
                log.warning("messages.visible", messages=len(refused), fault=refused[0]["Code"])


class _Batch:
    """A batch that is being gathered, and how much more it takes."""

    def __init__(self, most: int, window: float) -> None:
        self.records: list[Record] = []
        self._most, self._window, self._ends = most, window, 0.0
        self._payload = len(json.dumps({"Records": []}))

    def take(self, record: Record) -> bool:
        """Take a message in, unless the event would be larger than an invocation's may be."""
        size = len(json.dumps(record)) + len(", ")
        if self._payload + size > MOST_PAYLOAD and self.records:
            return False
        if not self.records:
            self._ends = time.monotonic() + self._window
        self.records.append(record)
        self._payload += size
        return True

    def room(self) -> int:
        """How many messages it takes, if they are small."""
        return self._most - len(self.records)

    def seconds_left(self, first: int) -> int:
        """Whole seconds to wait for the next message; `first` for the first."""
        return min(first, int(self._ends - time.monotonic())) if self.records else first

    def is_over(self) -> bool:
        """Whether nothing more is to be taken in."""
        return bool(self.records) and (self.room() < 1 or time.monotonic() >= self._ends)


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


def _entries(records: Sequence[Record]) -> list[Any]:
    return [{"Id": str(at), "ReceiptHandle": record["receiptHandle"]} for at, record in enumerate(records)]
