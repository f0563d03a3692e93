"""
Read objects ahead of the packer: many at once, with a bound on the bytes that are held.

    wanted ──next, one reader at a time──▶ readers ──arrivals──▶ the packer, which makes room in the window again

How one object is read is `sources.py`; nothing here knows S3.
"""

import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from os import cpu_count
from queue import Empty, SimpleQueue
from time import monotonic, process_time
from typing import NamedTuple

from aggregator.exceptions import OutOfTimeError
from aggregator.pipeline.core import Reading
from aggregator.pipeline.planning import Wanted
from aggregator.schemas import ObjectRef

_UNDECLARED = 1024 * 1024
"""Bytes held for an object whose size its notification does not say."""

FIRST = 16
"""Readers to begin with: as many as two cores keep busy, if S3 answers at once."""

_PACE = 0.005
"""Seconds between two looks at whether more readers are needed."""

_BUSY = 0.9
"""Share of the processor from which on more readers only take turns. One core is all that Python code can use."""

_MEMORY_OF_A_CORE = 1_769
"""MB of memory for which Lambda gives one virtual CPU (Lambda developer guide, "Configure Lambda function memory")."""


class NotStarted:
    """The object was not asked for: enough has been read."""


class Arrival(NamedTuple):
    """What became of reading an object, and from when until when (monotonic) it was read."""

    wanted: Wanted
    reading: Reading | NotStarted | Exception
    held: int = 0
    began: float = 0.0
    ended: float = 0.0


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
        self._threads: list[threading.Thread] = []
        self._arrivals: SimpleQueue[Arrival | BaseException | None] = SimpleQueue()
        self._ended = False

    def arrivals(self, wanted: Iterator[Wanted], crew: "Crew") -> Generator[Arrival, None, None]:
        """
        Read objects in as many threads as are needed and yield them as they arrive, in any order, each exactly once.

        `wanted` may block: the thread that is free asks it for the next one, one thread at a time.
        """
        try:
            self._start(crew.size, wanted)
            yield from self._arriving(wanted, crew)
        finally:
            self._ended = True  # nothing is begun any more, and no reader waits for room
            self._window.open()
            for thread in self._threads:
                thread.join()

    def _start(self, readers: int, wanted: Iterator[Wanted]) -> None:
        for _ in range(readers):
            thread = threading.Thread(target=self._work, args=(wanted,), name=f"read-{len(self._threads)}")
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads
                if not self._threads:
                    raise
                return
            self._threads.append(thread)

    def _arriving(self, wanted: Iterator[Wanted], crew: "Crew") -> Iterator[Arrival]:
        """All that arrives, until the last reader has ended."""
        ended = 0
        while ended < len(self._threads):
            arrival = self._arrived(wanted, crew)
            if arrival is None:
                ended += 1
            elif isinstance(arrival, BaseException):
                raise arrival
            else:
                yield arrival
                self._window.give_back(arrival.held)

    def _arrived(self, wanted: Iterator[Wanted], crew: "Crew") -> Arrival | BaseException | None:
        """The next that arrives. If the packer has to wait for it, and so do all readers, there may be more of them."""
        while self._arrivals.empty() and crew.may_grow:
            if self._window.holders >= len(self._threads):
                self._start(crew.more(), wanted)
            try:
                return self._arrivals.get(timeout=_PACE)
            except Empty:
                continue
        return self._arrivals.get()

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
        began = monotonic()
        try:
            if self._ended or self._enough():
                return Arrival(wanted, NotStarted(), held)
            if began > self._until:
                raise OutOfTimeError("invocation ends before the object can be read", key=ref.key)
            reading = self._read(ref, held)
        except Exception as error:
            return Arrival(wanted, error, held, began, monotonic())
        return Arrival(wanted, reading, held, began, monotonic())


class Crew:
    """
    How many readers there are: few at first, and twice as many while all wait for S3 and the processor is not busy.

    Against an S3 that takes 20 ms, 128 readers do what 32 cannot; against one that answers at once, each reader more
    than the cores keep busy costs a turn at the interpreter's lock (docs/decisions/0029).
    """

    def __init__(self, most: int, cores: float) -> None:
        """At most so many readers, on so many cores, or a part of one."""
        self.size, self._most = min(FIRST, most), most
        self._enough = _BUSY * min(cores, 1)
        self._looked, self._used = monotonic(), process_time()

    @property
    def may_grow(self) -> bool:
        """Whether there are not as many as there may be."""
        return self.size < self._most

    def more(self) -> int:
        """How many readers to add now, as none is free."""
        now, used = monotonic(), process_time()
        passed = now - self._looked
        if passed < _PACE:
            return 0
        load = (used - self._used) / passed
        self._looked, self._used = now, used
        more = min(self.size, self._most - self.size) if load < self._enough else 0
        self.size += more
        return more


def cores(environment: Mapping[str, str]) -> float:
    """How many cores the process may use; in Lambda that follows from the function's memory."""
    memory = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    available = float(cpu_count() or 1)
    return min(available, int(memory) / _MEMORY_OF_A_CORE) if memory.isdecimal() else available


class _Window:
    """Room for so many bytes; who wants more waits until others have given back."""

    def __init__(self, size: int) -> None:
        self.holders = 0
        self._size = self._free = size
        self._changed = threading.Condition()

    def take(self, wanted: int) -> int:
        """Wait for room; what was taken."""
        wanted = min(wanted, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
            self.holders += 1
        return wanted

    def give_back(self, taken: int) -> None:
        """Make room again."""
        with self._changed:
            self._free += taken
            self.holders -= 1
            self._changed.notify_all()

    def open(self) -> None:
        """Let everyone pass from now on."""
        self.give_back(1 << 62)
