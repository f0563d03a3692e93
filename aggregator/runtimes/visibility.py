"""
The messages that a process has in flight, kept invisible until they are deleted or given back.

Each message is extended by itself: when a third of its visibility time-out is over, the oldest first, ten in a call and
several calls at once. So 120,000 messages make 12,000 calls in a third of the time-out, spread as they were received.

An extension that fails stays due, and follows a little later. A message whose time-out ends all the same becomes
visible, and another process may receive it. That is harmless: its object is claimed, so the other process leaves the
message on the queue, or finds its object in a bundle and deletes it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import takewhile

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import batches, error_code

BEATS = 3
"""How often in a visibility time-out a message is extended: one extension may fail."""

MOST_IN_A_CALL = 10
"""Most messages that one call receives, deletes or extends (SQS API reference)."""

_TICKS = 10
"""How often in the time between two extensions of a message it is asked which are due."""

log = structlog.get_logger()


class InFlight:
    """
    The messages that were received and are not deleted yet, by their receipt handles.

    `extend` makes up to ten of them invisible for another `visibility` seconds; without `visibility` nothing is
    extended. The thread that polls and the threads that extend share nothing but this.
    """

    def __init__(
        self,
        extend: Callable[[Sequence[str], int], None],
        *,
        visibility: int | None,
        threads: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._extend, self._visibility, self._threads, self._clock = extend, visibility, threads, clock
        self._since: dict[str, float] = {}  # when each was made invisible, the oldest first
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._since)

    def add(self, handles: Sequence[str]) -> None:
        """Messages that were just received."""
        with self._lock:
            self._since.update(dict.fromkeys(handles, self._clock()))

    def remove(self, handles: Sequence[str]) -> None:
        """Messages that are about to be deleted, or are given back."""
        with self._lock:
            for handle in handles:
                self._since.pop(handle, None)

    def keep_only(self, handles: Sequence[str]) -> None:
        """Give back all but these."""
        with self._lock:
            self._since = {handle: self._since[handle] for handle in handles if handle in self._since}

    @contextmanager
    def kept_invisible(self) -> Iterator[None]:
        """While the block lasts, extend what is due."""
        if self._visibility is None:
            yield
            return
        over = threading.Event()
        pause = self._visibility / BEATS / _TICKS
        thread = threading.Thread(target=self._beat, args=(over, pause, self._visibility), name="visibility")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def extend_due(self, visibility: int, over: threading.Event) -> None:
        """Extend what has been invisible for a third of the time-out before the next time that this is asked."""
        before = self._clock() - visibility / BEATS * (1 - 1 / _TICKS)
        with self._lock:
            due = [handle for handle, _ in takewhile(lambda one: one[1] <= before, self._since.items())]
        failed = threading.Event()

        def extend(handles: Sequence[str]) -> None:
            if failed.is_set() or over.is_set() or not (left := [one for one in handles if one in self._since]):
                return
            try:
                self._extend(left, visibility)
            except (ClientError, BotoCoreError) as error:
                if not failed.is_set():
                    log.warning("messages.visible", messages=len(due), fault=error_code(error))
                failed.set()
            else:
                self._extended(left)

        if due:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="extend") as threads:
                list(threads.map(extend, batches(due, MOST_IN_A_CALL)))

    def _beat(self, over: threading.Event, pause: float, visibility: int) -> None:
        while not over.wait(pause):
            self.extend_due(visibility, over)

    def _extended(self, handles: Sequence[str]) -> None:
        with self._lock:
            now = self._clock()
            for handle in handles:
                if self._since.pop(handle, None) is not None:
                    self._since[handle] = now
