"""
Hand SQS messages to the handler as Lambda's event source mapping does.

A batch is gathered over several receives, because one receive returns ten messages at most, until the batch size, the
window or the payload limit is reached. What the handler does not name in its answer is deleted; what it names, or
everything if it raises or answers nonsense, stays and comes back when its visibility time-out ends, until the queue's
redrive policy takes it away. (Lambda developer guide, "Using Lambda with Amazon SQS".)
"""

import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from aggregator.planning import runs

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

MOST_PAYLOAD = 6 * 1024 * 1024
"""Bytes of an invocation's event (Lambda quotas)."""

log = structlog.get_logger()

_RECORD_OVERHEAD = 600
_MOST_IN_A_CALL = 10


class Invocation:
    """The part of Lambda's context object that a handler sees; also what Powertools' logger asks it for."""

    def __init__(self, *, function: str, seconds: float, memory: int = 1024) -> None:
        self.function_name = function
        self.function_version = "$LATEST"
        self.memory_limit_in_mb = memory
        self.invoked_function_arn = f"arn:aws:lambda:us-east-1:123456789012:function:{function}"
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

    `batch_size` messages or `window` seconds make a batch. After `retry_after` seconds a failed message comes back; by
    default that takes the queue's visibility time-out, as in Lambda.
    """

    def __init__(
        self,
        sqs: "SQSClient",
        queue_url: str,
        invoke: Callable[[dict[str, Any]], Any],
        *,
        batch_size: int = 1_000,
        window: float = 1.0,
        retry_after: int | None = None,
    ) -> None:
        self._sqs, self._queue_url, self._invoke = sqs, queue_url, invoke
        self._batch_size, self._window, self._retry_after = batch_size, window, retry_after
        attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]
        self._queue_arn = attributes["QueueArn"]

    def poll(self) -> Polled:
        """Gather one batch, invoke the handler, and delete what it took; nothing, if no message came in a window."""
        messages = self._gather()
        if not messages:
            return Polled([], 0)
        failed = self._failed(messages)
        done = [message for message in messages if message["MessageId"] not in failed]
        for some in runs(done, _MOST_IN_A_CALL):
            self._sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=_entries(some))
        kept = [message for message in messages if message["MessageId"] in failed]
        if self._retry_after is not None:
            for some in runs(kept, _MOST_IN_A_CALL):
                entries: list[Any] = [{**entry, "VisibilityTimeout": self._retry_after} for entry in _entries(some)]
                self._sqs.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)
        return Polled([message["Body"] for message in done], len(kept))

    def _gather(self) -> "list[MessageTypeDef]":
        messages: list[MessageTypeDef] = []
        payload, ends = 0, time.monotonic() + self._window
        while len(messages) < self._batch_size and payload < MOST_PAYLOAD and time.monotonic() < ends:
            answer = self._sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=min(_MOST_IN_A_CALL, self._batch_size - len(messages)),
                WaitTimeSeconds=0 if messages else 1,
                MessageSystemAttributeNames=["All"],
            )
            received = answer.get("Messages", [])
            if messages and not received:
                time.sleep(0.05)
            messages += received
            payload += sum(len(message["Body"]) + _RECORD_OVERHEAD for message in received)
        return messages

    def _failed(self, messages: "Sequence[MessageTypeDef]") -> set[str]:
        """Ids of the messages that stay on the queue: all, if the handler raises or names one that is not there."""
        ids = {message["MessageId"] for message in messages}
        event = {"Records": [_record(message, self._queue_arn) for message in messages]}
        try:
            answer = self._invoke(event) or {}
            failed = {failure["itemIdentifier"] for failure in answer.get("batchItemFailures") or []}
        except Exception:
            log.exception("invocation.failed")
            return ids
        return failed if failed.issubset(ids) else ids


def _record(message: "MessageTypeDef", queue_arn: str) -> dict[str, Any]:
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": message.get("Attributes", {}),
        "messageAttributes": {},
        "md5OfBody": message.get("MD5OfBody", ""),
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": queue_arn.split(":")[3],
    }


def _entries(messages: "Sequence[MessageTypeDef]") -> list[Any]:
    return [{"Id": str(at), "ReceiptHandle": message["ReceiptHandle"]} for at, message in enumerate(messages)]
