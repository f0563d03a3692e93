"""
When the phases of a bundle began and ended, and which of its objects were slow; moments are of the monotonic clock.

This is kept for each bundle, whether somebody traces or not: two readings of a clock per object, and no more.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from heapq import heappush, heappushpop
from typing import NamedTuple

from aggregator.exceptions import AggregatorError, UnexpectedError
from aggregator.schemas import ObjectRef

SLOW = 1.0
"""
Seconds from which on an object is slow: five times the 200 ms that S3 usually takes for a small object ("Performance
design patterns for Amazon S3"), and the shortest time-out of a request here (`deadlines.py`).
"""

MOST_SLOW = 16
"""Most slow objects that are kept for a bundle: the slowest."""


class Phase(NamedTuple):
    """A phase of a bundle."""

    name: str
    began: float
    ended: float


class Slow(NamedTuple):
    """
    An object that took `seconds` to read and to pack, between `began` and `ended`; it may have waited as well.

    `number` makes no two of a bundle equal, so that references are never compared.
    """

    seconds: float
    number: int
    began: float
    ended: float
    ref: ObjectRef


class Timings:
    """The phases of one bundle, its slowest objects, how many were slow, and why the last phase failed, if it did."""

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle
        self.phases: list[Phase] = []
        self.slowest: list[Slow] = []
        self.slow = 0
        self.fault = ""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time a phase."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases.append(Phase(name, began, time.monotonic()))

    def packed(self, ref: ObjectRef, *, began: float, read: float, taken: float) -> None:
        """Note an object: read from `began` to `read`, and packed from `taken` until now."""
        now = time.monotonic()
        seconds = read - began + now - taken
        if seconds < SLOW:
            return
        self.slow += 1
        push = heappush if len(self.slowest) < MOST_SLOW else heappushpop
        push(self.slowest, Slow(seconds, self.slow, began, now, ref))

    def fail(self, error: Exception) -> None:
        """The last phase failed."""
        self.fault = error.reason if isinstance(error, AggregatorError) else UnexpectedError.reason
