"""
Where the threads of a process stand that takes too long, asked before it is killed.

    supervisor ─SIGUSR1─▶ process: faulthandler ─pipe─▶ supervisor: one line of the log

faulthandler writes without the interpreter, so a process answers even if all its threads wait for each other.
"""

import faulthandler
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import PurePath
from typing import Any

MOST_BYTES = 256 * 1024
"""Bytes of an answer that are read; 100 threads, the most that faulthandler writes, may have more."""

_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')
_MOST_FRAMES = 30


def run(target: Callable[..., object], stacks: Connection, *arguments: Any) -> None:
    """In the process: answer to who asks, for as long as `target` runs."""
    faulthandler.register(signal.SIGUSR1, file=stacks.fileno(), all_threads=True)
    target(*arguments)


class Question:
    """What the supervisor asks one process; `answers` is its end of the pipe."""

    def __init__(self, answers: Connection) -> None:
        self._answers, self._asked, self._text = answers, False, b""
        os.set_blocking(answers.fileno(), False)

    def ask(self, pid: int) -> None:
        """Ask, unless it was asked already, and take in what has come."""
        if not self._asked:
            self._asked = True
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        self._read()

    def forget(self) -> None:
        """The process went on, so an answer says nothing any more."""
        if self._asked:
            self._read()
            self._asked, self._text = False, b""

    def answer(self) -> list[str]:
        """A line for each stack that some threads have, of the main thread first; nothing if no answer came."""
        self._read()
        return summed_up(self._text.decode(errors="backslashreplace"))

    def close(self) -> None:
        """Give the pipe back."""
        self._answers.close()

    def _read(self) -> None:
        with suppress(BlockingIOError):
            while data := os.read(self._answers.fileno(), 64 * 1024):
                self._text += data[: MOST_BYTES - len(self._text)]


def summed_up(text: str) -> list[str]:
    """What faulthandler wrote, with a line for each stack: the number of its threads, then where they stand."""
    threads = [_FRAME.findall(part) for part in re.split(r"(?m)^(?=\S)", text)]
    stacks = Counter(
        " < ".join(f"{PurePath(file).name}:{line} {name}" for file, line, name in frames[:_MOST_FRAMES])
        for frames in reversed(threads)  # the main thread is the last
        if frames
    )
    return [f"{count} × {stack}" for stack, count in stacks.items()]
