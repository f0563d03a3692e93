"""
Threads in the simulation: real ones, of which one moves at a time, and only when it is let.

A thread stops at every call to AWS and wherever it waits for another; so whoever lets it move decides all that a
system's scheduler would decide, and can decide it the same way again.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar


class Died(BaseException):
    """The process is killed here."""


class Process:
    """Threads that live and die together."""

    def __init__(self) -> None:
        self.strands: list[Strand] = []
        self.dead = False
        self.broken: BaseException | None = None
        """What no product should raise."""

    def begin(self, do: Callable[[], None]) -> None:
        """Begin a thread, which waits for its turn."""
        self.strands.append(Strand(self, do))

    def die(self) -> None:
        """Be killed, in the middle of the thread that moves."""
        self.dead = True
        raise Died

    def end(self) -> None:
        """Let all threads of a process that is killed find out."""
        self.dead = True
        while self.strands:
            strand = self.strands.pop()
            while not strand.ended:
                strand.move()


class Strand:
    """A thread that moves only when it is let."""

    moving: ClassVar["Strand"]
    """The one that moves."""

    def __init__(self, process: Process, do: Callable[[], None]) -> None:
        self.process, self._do = process, do
        self.ended = False
        self.moves = 0
        self._awaits: Callable[[], bool] | None = None
        self._turn, self._stopped = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._stopped.acquire()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    @property
    def can_move(self) -> bool:
        """Whether it waits for nothing but its turn."""
        return self._awaits is None or self._awaits()

    def move(self) -> None:
        """Let it run, up to where it stops, or to its end."""
        Strand.moving = self
        self.moves += 1
        self._turn.release()
        self._stopped.acquire()
        if self.ended:
            self._thread.join()

    def stop(self, until: Callable[[], bool] | None = None) -> None:
        """Stop the thread that moves, until it is let again, and `until` something is the case."""
        if self.process.dead:
            raise Died
        self._awaits = until
        self._stopped.release()
        self._turn.acquire()
        self._awaits = None
        if self.process.dead:
            raise Died

    def wait(self, until: Callable[[], bool]) -> None:
        """Stop if something is not the case yet."""
        if not until() or self.process.dead:
            self.stop(until)

    def _live(self) -> None:
        self._turn.acquire()
        try:
            if not self.process.dead:
                self._do()
        except Died:
            pass
        except BaseException as error:
            self.process.broken = error
        finally:
            self.ended = True
            self._stopped.release()


class Awaited(Future[Any]):
    """A future that a strand waits for while others move."""

    def result(self, timeout: float | None = None) -> Any:
        Strand.moving.wait(self.done)
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        Strand.moving.wait(self.done)
        return super().exception(timeout)


class Strands(Executor):
    """A pool of threads of one process, at most so many at once."""

    def __init__(self, most: int) -> None:
        self._most, self._futures = most, list[Awaited]()

    def submit(self, do: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Awaited:
        before = self._futures[-self._most] if len(self._futures) >= self._most else None
        future = Awaited()
        self._futures.append(future)

        def live() -> None:
            if before:
                Strand.moving.wait(before.done)
            _fulfil(future, partial(do, *args, **kwargs))

        Strand.moving.process.begin(live)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        del wait, cancel_futures
        for future in self._futures:
            Strand.moving.wait(future.done)


class Inline(Executor):
    """Does at once, in the caller's thread, what it is given."""

    def __init__(self, most: int = 1) -> None:
        del most

    def submit(self, do: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        _fulfil(future, partial(do, *args, **kwargs))
        return future


class Lock:
    """A lock that a strand waits for while others move."""

    def __init__(self) -> None:
        self._held = False

    def __enter__(self) -> None:
        Strand.moving.wait(lambda: not self._held)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False


@contextmanager
def on_one_processor() -> Iterator[None]:
    """Threads of which one moves at a time hand over faster on one processor; it takes a system that knows of them."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    processors = os.sched_getaffinity(0)
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))  # so that each worker has its own
    os.sched_setaffinity(0, {sorted(processors)[number % len(processors)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


def _fulfil(future: Future[Any], do: Callable[[], Any]) -> None:
    try:
        future.set_result(do())
    except BaseException as error:
        future.set_exception(error)
