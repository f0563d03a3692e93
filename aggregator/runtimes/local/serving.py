"""
Keep a run going: what arrives is bundled, and bundles are brought as they come, until it is stopped.

    look ▸ poll ▸ bring, until stopped; then poll ▸ bring, until the queue is empty, or what is on it does not move
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aggregator.bundles.bundle import Bundle
from aggregator.exceptions import AggregatorError
from aggregator.runtimes.local.run import Failure, Run, Step
from aggregator.runtimes.local.watching import Watcher

_QUIET, _LONGEST = 5.0, 60.0
"""Seconds without a message, and in all, after which a run that is to stop leaves what is on the queue."""


class Brought(NamedTuple):
    """A bundle that came to the output folder."""

    path: Path
    members: int
    size: int


Happening = Brought | Failure | str
"""What is to be said to a person; a text is said as it is."""


def serve(run: Run, out: Path, stop: threading.Event, watcher: Watcher | None = None) -> Iterator[Happening]:
    """Poll, and watch, until `stop` is set; then poll until the queue is empty. What happens meanwhile."""
    said = set[str]()
    while not stop.is_set():
        if watcher:
            yield from watcher.look()
        yield from _happenings(run, run.poll(), out, said)
    if watcher:
        yield from watcher.end()
    began = quiet = time.monotonic()
    while True:
        step = run.poll()
        yield from _happenings(run, step, out, said)
        left, now = run.waiting(), time.monotonic()
        quiet = now if step.messages else quiet
        if not left:
            return
        if now - quiet > _QUIET or now - began > _LONGEST:
            yield f"messages left on the queue: {left:,}; their objects are not in a bundle of {out}"
            return


def _happenings(run: Run, step: Step, out: Path, said: set[str]) -> Iterator[Happening]:
    """What a step did; a folder that cannot be written is said once, and tried again."""
    yield from step.failures
    for key in step.overwritten:
        yield f"{key!r}: overwritten; a key is bundled once, so its bundle stays as it is"
    try:
        for bundle, size in run.bring():
            yield _opened(out / bundle, size)
    except OSError as error:
        fault = f"cannot write to {out}, and will try again: {error.strerror}"
        if fault not in said:
            said.add(fault)
            yield fault


def _opened(path: Path, size: int) -> Happening:
    """A bundle with the number of its members, or that it is not a bundle."""
    try:
        with Bundle.open(path) as bundle:
            return Brought(path, len(bundle), size)
    except AggregatorError:
        return f"{path}: is not a bundle; somebody else put it into the bucket"
