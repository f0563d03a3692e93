"""
One invocation in a process of its own, started fast: a server process has imported the handler and forks it.

    run = invoke("aggregator.app", environment, event, seconds=12, later=0)
"""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.support import ROOT

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["aggregator.app", "benchmarks.textbook", "tests.support.trial", "tests.support.warmed"])


class Run(NamedTuple):
    """What an invocation answered, None if it died or raised; and the seconds that it took."""

    answer: dict[str, Any] | None
    seconds: float


def clock(later: float = 0) -> "Synchronized[float]":
    """A clock that is `later` seconds ahead, for `invoke`; it may be put forward while the process runs."""
    return _FORKS.Value("d", later)


def invoke(
    module: str,
    environment: Mapping[str, str],
    event: dict[str, Any],
    *,
    seconds: float,
    later: "float | Synchronized[float]" = 0,
    started: Callable[[int], object] = lambda _: None,
) -> Run:
    """
    Invoke `handler` of `module` with `event`, and kill it as Lambda would when its `seconds` are over.

    Its clock is `later` seconds ahead, or as far as a `clock` says. `started` is told the process id before the handler
    begins.
    """
    ours, theirs = _FORKS.Pipe()
    child = _FORKS.Process(target=_child, args=(theirs, module, dict(environment), event, seconds, later), daemon=True)
    child.start()
    theirs.close()
    try:
        started(int(child.pid or 0))
        began = time.monotonic()
        with contextlib.suppress(OSError):  # it is dead already
            ours.send(None)
        answer = None
        with contextlib.suppress(EOFError, OSError):
            if ours.poll(seconds + 1):
                answer = ours.recv()
        return Run(answer, time.monotonic() - began)
    finally:
        child.kill()
        child.join()
        ours.close()


def _child(
    pipe: Connection,
    module: str,
    environment: dict[str, str],
    event: dict[str, Any],
    seconds: float,
    later: "float | Synchronized[float]",
) -> None:
    from aggregator.runtimes.polling import LocalContext

    pipe.recv()
    os.environ.clear()
    os.environ.update(environment)
    now = time.time
    time.time = lambda: now() + (later if isinstance(later, int | float) else later.value)
    handler = importlib.import_module(module).handler
    with contextlib.redirect_stdout(io.StringIO()):
        answer = handler(event, LocalContext(function="aggregator", seconds=seconds))
    pipe.send(answer)


def told(program: str, argument: Path) -> Any:
    """What a Python program, run in a process of its own, prints as JSON on its last line."""
    command = [sys.executable, "-c", program, str(argument)]
    done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])
