"""
What makes a batch: messages that are received side by side, until one of its limits is reached.

    receive, receive, receive ─▶ batch, until it is full ─▶ what does not fit is the beginning of the next

One receive at a time suits a queue with few messages. A receive that is full doubles the number of those under way, up
to `threads`; one that is not makes it one less, and an empty one makes it one. When the batch is full, the receives
under way are awaited, and no message is dropped.

A receive that fails ends the batch too, and what is in hand is handled. That is also how a batch ends when the queue
has as many messages in flight as SQS allows (`OverLimit`).
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import error_code
from aggregator.runtimes.visibility import MOST_IN_A_CALL
from aggregator.schemas import BODY

MOST_PAYLOAD = 6 * 1024 * 1024
"""Bytes of an invocation's event (Lambda quotas)."""

log = structlog.get_logger()

Record = dict[str, Any]
"""One message as Lambda hands it over."""

Receive = Callable[[int, int], list[Record]]

_EMPTY_PAUSE = 0.1
"""Seconds after an empty receive: when less than a second of the window is left, a receive does not wait."""

_PAUSES, _LONGEST_PAUSE = 100, 1.0
"""How many pauses a window has at least in which messages collect on the queue, and the most seconds of a pause."""


class Limits(NamedTuple):
    """
    When a batch is full: after so many messages, and so many seconds after the first, which is awaited `wait` seconds.

    `payload` is the most bytes of the event, `bundle` the most bytes of the objects that the messages announce; None is
    no bound.
    """

    messages: int = 1_000
    window: float = 1.0
    wait: int = 1
    payload: int | None = None
    bundle: int | None = None


LAMBDA = Limits(payload=MOST_PAYLOAD)


class Batch:
    """A batch that is being gathered, and how much more it takes."""

    def __init__(self, limits: Limits) -> None:
        self.records: list[Record] = []
        self._limits, self._ends = limits, 0.0
        self._payload, self._announced = len(json.dumps({"Records": []})), 0

    def take(self, record: Record) -> bool:
        """Take a message in, unless it is more than fits; the first one always is."""
        limits = self._limits
        payload = self._payload + len(json.dumps(record)) + len(", ") if limits.payload else 0
        announced = self._announced + announced_bytes(record["body"], limits.bundle) if limits.bundle else 0
        if self.records and (payload > (limits.payload or 0) or announced > (limits.bundle or 0)):
            return False
        if not self.records:
            self._ends = time.monotonic() + limits.window
        self.records.append(record)
        self._payload, self._announced = payload, announced
        return True

    def room(self) -> int:
        """How many messages it takes, if they are small."""
        return self._limits.messages - len(self.records)

    def time_left(self) -> float:
        """Seconds of the window, which the first message opens, that are left."""
        return max(0.0, self._ends - time.monotonic()) if self.records else self._limits.window

    def seconds_to_wait(self) -> int:
        """Whole seconds to wait for the next message."""
        return min(self._limits.wait, int(self.time_left())) if self.records else self._limits.wait

    def is_over(self) -> bool:
        """Whether nothing more is to be taken in."""
        full = self.room() < 1 or self._announced >= (self._limits.bundle or self._announced + 1)
        return bool(self.records) and (full or not self.time_left())


def announced_bytes(body: str, most: int) -> int:
    """
    How many bytes the objects have that a message announces.

    Nothing is what a message counts that is not understood, what an object counts whose size is not said, and what one
    counts that says more than `most`: that does not get into any bundle.
    """
    try:
        objects = BODY.validate_json(body).objects()
    except (ValueError, RecursionError):
        return 0
    return sum(ref.size for ref in objects if ref.size and ref.size <= most)


class Gatherer:
    """
    Gathers batches by `receive`, which takes the most messages and the seconds to wait for the first of them.

    `going` is asked before each receive; when it says no, nothing more is received.
    """

    def __init__(
        self,
        receive: Receive,
        limits: Limits,
        *,
        threads: int = 1,
        going: Callable[[], bool] = lambda: True,
    ) -> None:
        self._receive, self._limits, self._threads, self._going = receive, limits, threads, going
        self.left: list[Record] = []
        """Received, but more than fitted into the last batch."""

    def gather(self) -> list[Record]:
        """
        The next batch; nothing, if no message came.

        Raises:
            ClientError: SQS did not let the first messages be received; so do the errors of botocore.
        """
        batch = Batch(self._limits)
        self.left = [record for record in self.left if not batch.take(record)]
        with ThreadPoolExecutor(self._threads, thread_name_prefix="receive") as threads:
            receives = _Receives(threads, self._receive, most=self._threads)
            while self._begin(receives, batch):
                received = receives.first()
                self.left += [record for record in received if not batch.take(record)]
                if not (receives.under_way or self._is_open(batch)):
                    break
                time.sleep(min(receives.pause(self._limits.window), batch.time_left()))
        if receives.failure and not batch.records:
            raise receives.failure
        if receives.failure:
            log.warning("messages.unreceived", fault=error_code(receives.failure))
        return batch.records

    def _is_open(self, batch: Batch) -> bool:
        """Whether more is to be received: the queue has messages, and they fit."""
        return bool(batch.records) and not (self.left or batch.is_over())

    def _begin(self, receives: "_Receives", batch: Batch) -> int:
        """Begin as many receives as there should be; how many are under way."""
        while receives.has_place() and not (self.left or batch.is_over()):
            most = min(MOST_IN_A_CALL, batch.room() - receives.expected)
            if most < 1 or not self._going():
                break
            receives.begin(most, batch.seconds_to_wait())
        return receives.under_way


class _Receives:
    """The receives that are under way; one, if the queue has few messages."""

    def __init__(self, threads: Executor, receive: Receive, *, most: int) -> None:
        self.failure: Exception | None = None
        self._threads, self._receive, self._most = threads, receive, most
        self._under_way: dict[Future[list[Record]], int] = {}
        self._parallel, self._last = 1, MOST_IN_A_CALL

    @property
    def under_way(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    @property
    def expected(self) -> int:
        """How many messages they bring at most."""
        return sum(self._under_way.values())

    def has_place(self) -> bool:
        """Whether one more should begin: none does after one has failed."""
        return self.failure is None and self.under_way < self._parallel

    def begin(self, most: int, wait: int) -> None:
        """Begin a receive of at most so many messages, the first of which it awaits for `wait` seconds."""
        self._under_way[self._threads.submit(self._receive, most, wait)] = most

    def first(self) -> list[Record]:
        """The messages of those that end first."""
        received: list[Record] = []
        for future in wait(self._under_way, return_when=FIRST_COMPLETED).done:
            most = self._under_way.pop(future)
            try:
                records = future.result()
            except (ClientError, BotoCoreError) as error:
                self.failure = self.failure or error
            else:
                self._adjust(len(records), most)
                received += records
        return received

    def pause(self, window: float) -> float:
        """Seconds in which messages collect on a queue that has few: a call costs the same for one as for ten."""
        if self.under_way or self._parallel > 1 or self._last == MOST_IN_A_CALL:
            return 0.0
        return min(window / _PAUSES, _LONGEST_PAUSE) if self._last else min(window, _EMPTY_PAUSE)

    def _adjust(self, received: int, most: int) -> None:
        self._last = received
        if received == most:
            self._parallel = min(2 * self._parallel, self._most)
        else:
            self._parallel = max(1, self._parallel - 1) if received else 1
