"""
Sending to a queue so that it is known of each message whether it arrived.

A batch has ten messages at most and 1 MiB in all (SQS API reference, SendMessageBatch); ten notifications with keys as
long as S3 allows are 35 kB. SQS may take some of a batch and not others: what it blames itself for is sent again, what
it blames the sender for is rejected. A lost answer means sending again: twice is harmless here, because of the ledger.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from aggregator.exceptions import AggregatorError
from aggregator.operations.faults import explain

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

MOST_IN_A_CALL = 10
"""Most messages in one call (SQS API reference, SendMessageBatch, DeleteMessageBatch)."""

_ATTEMPTS = 5


class Delivery(NamedTuple):
    """
    What became of messages, by their place in what was to be sent.

    `rejected` will never be taken, for the reason given; `unsent` may be, later. `why` tells the error that ended it.
    """

    sent: list[int]
    rejected: dict[int, str]
    unsent: list[int]
    why: str = ""


_GROUP = {"MessageGroupId": "data-aggregator-replay"}
"""
All that is replayed is one group, so a fair queue gives live notifications first, which have none.

SQS developer guide, "Amazon SQS fair queues"; a standard queue keeps the order of a group no more than before.
"""


class QueueError(AggregatorError):
    """A queue is of a kind that the aggregator does not work with."""

    reason = "queue"


def require_standard(queue_url: str) -> None:
    """
    Return, unless the queue is a FIFO queue: S3 does not send notifications to one.

    Raises:
        QueueError: it is a FIFO queue.
    """
    if queue_url.endswith(".fifo"):
        raise QueueError(
            "FIFO queues are not supported: S3 sends notifications to standard queues only", queue=queue_url
        )


class Pace:
    """Lets so many messages a second pass, evenly; all of them, if `rate` is None. `stop` ends every wait."""

    def __init__(self, rate: float | None, stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._stop, self._clock = rate, stop, clock
        self._lock = threading.Lock()
        self._next = clock()

    def wait(self, messages: int) -> None:
        """Wait until `messages` more may be sent."""
        if self._rate is None:
            return
        with self._lock:
            now = self._clock()
            starts = max(self._next, now)
            self._next = starts + messages / self._rate
        self._stop.wait(starts - now)


class Outbox:
    """
    Sends to one queue from several threads at once, until `stop` is set; then what is under way still arrives.

    After an error of the whole queue (it is gone, we may not send) nothing more is begun.
    """

    def __init__(
        self, sqs: "SQSClient", queue_url: str, *, threads: int, stop: threading.Event, rate: float | None = None
    ) -> None:
        require_standard(queue_url)
        self._sqs, self._queue_url, self._stop = sqs, queue_url, stop
        self._pace, self._broken = Pace(rate, stop), threading.Event()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="send")

    def deliver(self, bodies: Sequence[str]) -> Delivery:
        """Send messages with these bodies."""
        batches = [range(at, min(at + MOST_IN_A_CALL, len(bodies))) for at in range(0, len(bodies), MOST_IN_A_CALL)]
        parts = list(self._threads.map(lambda places: self._send(bodies, places), batches))
        return Delivery(
            [place for part in parts for place in part.sent],
            {place: code for part in parts for place, code in part.rejected.items()},
            [place for part in parts for place in part.unsent],
            next((part.why for part in parts if part.why), ""),
        )

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _send(self, bodies: Sequence[str], places: Sequence[int]) -> Delivery:
        self._pace.wait(len(places))
        sent, rejected, left, why = list[int](), dict[int, str](), list(places), ""
        for attempt in range(_ATTEMPTS):
            if not left or self._stop.is_set() or self._broken.is_set():
                break
            entries: Any = [{"Id": str(place), "MessageBody": bodies[place], **_GROUP} for place in left]
            try:
                answer = self._sqs.send_message_batch(QueueUrl=self._queue_url, Entries=entries)
            except (ClientError, BotoCoreError) as error:
                self._broken.set()
                return Delivery(sent, rejected, left, explain(error))
            sent += [int(entry["Id"]) for entry in answer.get("Successful", [])]
            failed = {int(entry["Id"]): entry for entry in answer.get("Failed", [])}
            rejected.update({place: entry["Code"] for place, entry in failed.items() if entry["SenderFault"]})
            left = [place for place, entry in failed.items() if not entry["SenderFault"]]
            why = f"SQS does not take messages now: {failed[left[0]]['Code']}" if left else ""
            if left:
                self._stop.wait(0.1 * 2**attempt)
        return Delivery(sent, rejected, left, why)
