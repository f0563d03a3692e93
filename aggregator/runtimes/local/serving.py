"""
Keep a run going: what arrives is bundled, and bundles are brought as they come, until it is stopped.

    poll ▸ bring, until stopped; then until the queue is empty, or what is on it does not move
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aggregator.bundles.bundle import Bundle
from aggregator.runtimes.local.run import Failure, Run, Step

_QUIET, _LONGEST = 5.0, 60.0
"""Seconds without a message, and in all, after which a run that is to stop leaves what is on the queue."""


class Brought(NamedTuple):
    """A bundle that came to the output folder."""

    path: Path
    members: int
    size: int


Happening = Brought | Failure | str
"""What is to be said to a person; a text is said as it is."""


def serve(run: Run, out: Path, stop: threading.Event) -> Iterator[Happening]:
    """Poll until `stop` is set and the queue is empty; what happens meanwhile."""
    said = set[str]()
    began = quiet = time.monotonic()
    while True:
        stopping = stop.is_set()
        step = run.poll()
        yield from _happenings(run, step, out, said)
        if not stopping:
            began = time.monotonic()
        if step.messages or not stopping:
            quiet = time.monotonic()
        if not stopping:
            continue
        left, now = run.waiting(), time.monotonic()
        if not left:
            return
        if now - quiet > _QUIET or now - began > _LONGEST:
            yield f"messages left on the queue: {left:,}; their objects are not in a bundle of {out}"
            return


def _happenings(run: Run, step: Step, out: Path, said: set[str]) -> Iterator[Happening]:
    """What a step did; a folder that cannot be written is said once, and tried again."""
    yield from step.failures
    for key in step.overwritten:
        yield f"{key!r}: overwritten; its bundle keeps the version that came first"
    try:
        for bundle, size in run.bring():
            with Bundle.open(out / bundle) as opened:
                yield Brought(out / bundle, len(opened), size)
    except OSError as error:
        fault = f"cannot write to {out}, and will try again: {error.strerror}"
        if fault not in said:
            said.add(fault)
            yield fault
