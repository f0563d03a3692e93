"""
Read objects ahead of the packer: many at once, with a bound on the bytes that are held.

    wanted ──next, one reader at a time──▶ readers ──arrivals──▶ the packer, which makes room in the window again

How one object is read is `sources.py`; nothing here knows S3.
"""

import threading
from collections.abc import Callable, Generator, Iterator
from queue import SimpleQueue
from time import monotonic
from typing import NamedTuple

from aggregator.exceptions import OutOfTimeError
from aggregator.pipeline.core import Reading
from aggregator.pipeline.planning import Wanted
from aggregator.schemas import ObjectRef

_UNDECLARED = 1024 * 1024
"""Bytes held for an object whose size its notification does not say."""


class NotStarted:
    """The object was not asked for: enough has been read."""


class Arrival(NamedTuple):
    """What became of reading an object."""

    wanted: Wanted
    reading: Reading | NotStarted | Exception
    held: int = 0


class ReadAhead:
    """
    The readers of one bundle, and what they share: the objects still to be read, room for their bytes, the arrivals.

    `read` reads one object, and takes its bytes if they are no more than `at_once`; `most` is the largest `at_once`.
    Once `enough` says so, objects that are not begun arrive as `NotStarted`; from `until` (monotonic) on, as an error.
    """

    def __init__(
        self,
        read: Callable[[ObjectRef, int], Reading],
        *,
        enough: Callable[[], bool],
        until: float,
        window: int,
        most: int,
    ) -> None:
        self._read, self._enough, self._until, self._most = read, enough, until, most
        self._window = _Window(window)
        self._turn = threading.Lock()
        self._arrivals: SimpleQueue[Arrival | BaseException | None] = SimpleQueue()
        self._ended = False

    def arrivals(self, wanted: Iterator[Wanted], readers: int) -> Generator[Arrival, None, None]:
        """
        Read objects in so many threads and yield them as they arrive, in any order, each exactly once.

        `wanted` may block: the thread that is free asks it for the next one, one thread at a time.
        """
        threads: list[threading.Thread] = []
        try:
            for number in range(readers):
                threads.append(threading.Thread(target=self._work, args=(wanted,), name=f"read-{number}"))
                threads[-1].start()
            yield from self._arriving(len(threads))
        finally:
            self._ended = True  # nothing is begun any more, and no reader waits for room
            self._window.open()
            for thread in threads:
                if thread.ident is not None:  # it was started
                    thread.join()

    def _arriving(self, working: int) -> Iterator[Arrival]:
        """All that arrives, until the last of so many readers has ended."""
        while working:
            arrival = self._arrivals.get()
            if arrival is None:
                working -= 1
            elif isinstance(arrival, BaseException):
                raise arrival
            else:
                yield arrival
                self._window.give_back(arrival.held)

    def _work(self, wanted: Iterator[Wanted]) -> None:
        """Read one object after the other until there are no more; the life of a reader."""
        try:
            while (one := self._next(wanted)) is not None:
                self._arrivals.put(self._arrival(one))
        except BaseException as error:
            self._arrivals.put(error)
        finally:
            self._arrivals.put(None)

    def _next(self, wanted: Iterator[Wanted]) -> Wanted | None:
        with self._turn:
            return None if self._ended else next(wanted, None)

    def _arrival(self, wanted: Wanted) -> Arrival:
        ref = wanted.ref
        held = self._window.take(min(_UNDECLARED if ref.size is None else ref.size, self._most))
        try:
            if self._ended or self._enough():
                return Arrival(wanted, NotStarted(), held)
            if monotonic() > self._until:
                raise OutOfTimeError("invocation ends before the object can be read", key=ref.key)
            return Arrival(wanted, self._read(ref, held), held)
        except Exception as error:
            return Arrival(wanted, error, held)


class _Window:
    """Room for so many bytes; who wants more waits until others have given back."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = threading.Condition()

    def take(self, wanted: int) -> int:
        """Wait for room; what was taken."""
        wanted = min(wanted, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        return wanted

    def give_back(self, taken: int) -> None:
        """Make room again."""
        with self._changed:
            self._free += taken
            self._changed.notify_all()

    def open(self) -> None:
        """Let everyone pass from now on."""
        self.give_back(1 << 62)
