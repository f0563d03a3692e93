"""
The processes of `aggregator worker`: started, watched, replaced when they die, and told to stop.

    SIGTERM, SIGINT     drain: the processes finish what they have in hand; those that take too long are killed
    a second signal     the end, at once

Nothing depends on a clean end: what a killed process had in hand comes back to the queue by itself.
"""

import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import TYPE_CHECKING, Any

import structlog

from aggregator.pipeline.telemetry import Figure
from aggregator.runtimes.worker import process as worker
from aggregator.runtimes.worker.exposition import Exposition
from aggregator.runtimes.worker.process import HANDLING, Heartbeat, Options
from aggregator.runtimes.worker.stacks import Question, run

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

LOG_EVENTS = {
    "worker.started": "the worker began: its processes, what ends a batch, and the address of its health endpoint",
    "worker.draining": "a signal asked the worker to stop: the processes finish what they have in hand",
    "worker.stopped": "the worker ended, with this exit status",
    "process.ended": "a process ended that should not have, or died: another takes its place after so many seconds",
    "process.unstarted": "the system could not start a process: another attempt follows after so many seconds",
    "process.stacks": "where the threads of a process stood, a second before it was killed",
    "process.killed": "a process was killed: its invocation took longer than Lambda allows, or it did not drain",
}
"""What is said here beside the log events of `worker.py`."""

UNDRAINED = 1
"""Exit status when a process had to be killed while draining."""

ASKED_BEFORE = 1.0
"""Seconds before a process is killed when it is asked where its threads stand, so that the kill waits for nothing."""

UNREAD = 141
"""Exit status when nobody reads standard output any more: what a shell says of a tool that SIGPIPE ended."""

log = structlog.get_logger()

_SPAWN = multiprocessing.get_context("spawn")
_TICK = 0.2
_LONGEST_BACKOFF = 60.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Slot:
    """A place for one process, and what is known of it; times are of the monotonic clock."""

    def __init__(self, now: float) -> None:
        self.process: BaseProcess | None = None
        self.pid: int | None = None
        self.heartbeat, self.heard = Heartbeat(), now
        self.due, self.began, self.failures = now, now, 0
        self.answered = 0.0
        self._heartbeats: Connection | None = None
        self._question: Question | None = None

    def start(self, target: Callable[[Options, Connection], None], options: Options, now: float) -> None:
        """
        Put a new process into the place.

        Raises:
            OSError: the system has no process or descriptor left; another attempt is due later.
        """
        ours, theirs = list[Connection](), list[Connection]()
        try:
            for _ in ("heartbeats", "stacks"):
                for end, ends in zip(_SPAWN.Pipe(duplex=False), (ours, theirs), strict=True):
                    ends.append(end)
            heartbeats, stacks = theirs
            process = _SPAWN.Process(target=run, args=(target, stacks, options, heartbeats))
            process.start()
        except OSError:
            for end in ours:
                end.close()
            self._put_off(now)
            raise
        finally:
            for end in theirs:
                end.close()
        self._heartbeats, self._question = ours[0], Question(ours[1])
        self.process, self.pid = process, process.pid
        self.heartbeat, self.heard, self.began = Heartbeat(), now, now

    def listen(self, now: float) -> list[Figure]:
        """Take in the signs of life that have come; the figures that came with them."""
        figures = list[Figure]()
        while self._heartbeats is not None and self._heartbeats.poll():
            try:
                self.heartbeat, self.heard = self._heartbeats.recv(), now
            except (EOFError, OSError):  # it ended, perhaps in the middle of a heartbeat
                self._heartbeats.close()
                self._heartbeats = None
            else:
                if self._question:
                    self._question.forget()
                self.answered = max(self.answered, self.heartbeat.answered)
                figures += self.heartbeat.figures
        return figures

    def is_overdue(self, now: float) -> bool:
        """Whether nothing was heard for longer than what it does may take."""
        return now > self.heard + self.heartbeat.allowed

    def ask(self) -> None:
        """Let the process write where its threads stand; one that is only starting would die of the signal."""
        if self._question and self.pid and self.heartbeat.state != Heartbeat().state:
            self._question.ask(self.pid)

    def kill(self) -> list[str]:
        """Kill the process; where its threads stood, if it was asked and answered."""
        assert self.process is not None
        self.process.kill()
        self.process.join()
        return self._question.answer() if self._question else []

    def reap(self, now: float) -> int:
        """Empty the place of a dead process, and say when another may come; its exit code."""
        assert self.process is not None
        self.process.join()
        code = int(self.process.exitcode or 0)
        self.process, self.pid = None, None
        if self._question:
            self._question.close()
            self._question = None
        if code == 0 or now > self.began + _LONGEST_BACKOFF:
            self.failures = 0
        self.due = now
        if code:
            self._put_off(now)
        return code

    def _put_off(self, now: float) -> None:
        """Count a failure, and wait longer after each."""
        self.failures += 1
        self.due = now + min(2.0 ** min(self.failures - 1, 10), _LONGEST_BACKOFF)

    def report(self, now: float) -> dict[str, Any]:
        """What is known of it, for people."""
        return {
            "pid": self.pid,
            "state": self.heartbeat.state if self.pid else "dead",
            "seconds_since_sign": round(now - self.heard, 1),
            "batches": self.heartbeat.batches,
            "deleted": self.heartbeat.deleted,
            "kept": self.heartbeat.kept,
            "in_hand": self.heartbeat.in_hand if self.pid else 0,
            "seconds_since_poll": round(now - self.answered, 1) if self.answered else None,
            "healthy": self.pid is not None and not self.is_overdue(now),
        }


class Supervisor:
    """Keeps `processes` processes at work until a signal comes, and `drain` seconds longer at most."""

    def __init__(
        self,
        options: Options,
        *,
        processes: int,
        drain: float,
        target: Callable[[Options, Connection], None] = worker.work,
    ) -> None:
        self._options, self._drain, self._target = options, drain, target
        self._slots = [Slot(time.monotonic()) for _ in range(processes)]
        self._received: list[int] = []
        self._drained_by = 0.0
        self._status = 0
        self._restarts = self._died = 0
        self.exposition = Exposition(self.health)

    def run(self, *, health: str = "") -> int:
        """Work until a signal comes; the exit status. `health` is the address of the health endpoint, for the log."""
        with _signals(self._received):
            options = self._options
            batches = {"batch_size": options.batch_size, "window": options.window, "bundle_mb": options.bundle_mb}
            log.info("worker.started", processes=len(self._slots), queue=options.queue_url, health=health, **batches)
            while not self._over():
                self._step(time.monotonic())
        log.info("worker.stopped", status=self._status)
        return self._status

    def drain_unread(self) -> None:
        """Drain, because nobody reads the log and the metrics any more."""
        if not self._received:
            self._received.append(signal.SIGTERM)
            self._status = UNREAD

    def health(self) -> dict[str, Any]:
        """Whether every process was heard in time, and the figures of each."""
        now = time.monotonic()
        processes = [slot.report(now) for slot in self._slots]
        return {
            "healthy": all(process["healthy"] for process in processes),
            "draining": bool(self._received),
            "restarts": self._restarts,
            "died": self._died,
            "processes": processes,
        }

    def _step(self, now: float) -> None:
        """Start who is due, hear who speaks, reap who is dead, kill who takes too long."""
        if self._received and not self._drained_by:
            self._begin_drain(now)
        for slot in self._slots:
            if slot.process is None and now >= slot.due and not self._received:
                self._start(slot, now)
        wait([slot.process.sentinel for slot in self._slots if slot.process], _TICK)
        for slot in self._slots:
            self._listen(slot, now)
            if slot.process and not slot.process.is_alive():
                self._bury(slot, now)
            elif slot.process:
                self._end_overdue(slot, now)

    def _listen(self, slot: Slot, now: float) -> None:
        self.exposition.add(slot.listen(now))
        if slot.heartbeat.unread:
            self.drain_unread()

    def _start(self, slot: Slot, now: float) -> None:
        try:
            slot.start(self._target, self._options, now)
        except OSError as error:
            log.error("process.unstarted", fault=str(error), again_in=round(slot.due - now))

    def _begin_drain(self, now: float) -> None:
        log.info("worker.draining", signal=signal.Signals(self._received[0]).name, seconds=self._drain)
        self._drained_by = now + self._drain
        for slot in self._slots:
            if slot.process:
                slot.process.terminate()

    def _over(self) -> bool:
        if len(self._received) > 1:
            self._status = 128 + self._received[1]
            for slot in self._slots:
                if slot.process:
                    slot.process.kill()
            return True
        return bool(self._received) and not any(slot.process for slot in self._slots)

    def _bury(self, slot: Slot, now: float) -> None:
        self._listen(slot, now)  # what it said before it died
        pid, code = slot.pid, slot.reap(now)
        if not self._received:
            self._restarts += 1
            self._died += bool(code)
        if code and not (self._received and code == -signal.SIGTERM):  # that one had not even begun
            log.error("process.ended", pid=pid, exit_code=code, again_in=round(slot.due - now))

    def _end_overdue(self, slot: Slot, now: float) -> None:
        """Kill a process that takes too long; shortly before, ask where it stands."""
        overdue = slot.heard + slot.heartbeat.allowed if slot.heartbeat.state == HANDLING else math.inf
        drained = self._drained_by or math.inf
        if now > overdue:
            self._kill(slot, "its invocation takes too long")
        elif now > drained:
            self._status = UNDRAINED
            self._kill(slot, "it did not drain in time")
        elif now > min(overdue, drained) - ASKED_BEFORE:
            slot.ask()

    def _kill(self, slot: Slot, why: str) -> None:
        stacks = slot.kill()  # before the log, which may have to wait for its reader
        if stacks:
            log.error("process.stacks", pid=slot.pid, threads=stacks)
        log.error("process.killed", pid=slot.pid, why=why)


@contextmanager
def _signals(received: list[int]) -> Iterator[None]:
    """Collect the signals that ask us to stop."""

    def collect(number: int, _: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, collect) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
