"""What the stand-in counts from one moment to another."""

import time
from collections import Counter
from typing import Any

from benchmarks.latency import SLOW


class Lap:
    """
    What is counted: calls by kind, connections by what was first asked on them, and the most calls at one time.

    Of GETs besides: how many were slow, and the seconds from the first until the last of those that were not, and until
    the last of all, was answered.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.connections: Counter[str] = Counter()
        self.most_at_once = self._at_once = self._slow = 0
        self._first: float | None = None
        self._seconds = {"others": 0.0, "all": 0.0}

    def begin(self) -> None:
        """A call has arrived."""
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)

    def end(self) -> None:
        """Its answer is written."""
        self._at_once -= 1

    def time_get(self, late: float) -> None:
        """A GET is answered, so many seconds after it arrived."""
        now = time.monotonic()
        self._first = now - late if self._first is None else self._first
        self._seconds["all"] = now - self._first
        if late >= SLOW:
            self._slow += 1
        else:
            self._seconds["others"] = self._seconds["all"]

    def stats(self) -> dict[str, Any]:
        """All of it."""
        gets = {"slow": self._slow, **{f"{name}_seconds": seconds for name, seconds in self._seconds.items()}}
        counted = {"calls": dict(self.calls), "connections": dict(self.connections)}
        return {**counted, "most_at_once": self.most_at_once, "gets": gets}
