"""How an invocation spends its time, so that it always ends by itself. Pure: no clock."""

from typing import NamedTuple

CONNECT_TIMEOUT = 2.0
"""Most seconds for a connection to AWS to come about."""

CLOSING = 0.5
"""Seconds at the end of an invocation in which AWS is not called any more: it reports, and takes down what it built."""

GRACE = 10
"""Seconds that a claim outlives its invocation: Lambda has been seen to kill 0.7 s late (powertools-lambda-python
issue 4759), and what a dead invocation sent just before may land a little later still."""

_SLOWEST_PUT = 100_000_000
"""Bytes of members a second whose bundle is surely compressed and put: a tenth of what was measured."""


class Deadlines(NamedTuple):
    """
    How an invocation spends its time, so that it always ends by itself.

    Moments are seconds of a monotonic clock, time-outs are seconds. A read that begins at `read_until` and runs into
    every time-out and retry ends at `gather_until`; what is left from then on suffices to publish. Only `lapses` is a
    moment of the wall clock, in seconds since the epoch, because others read it too: from then on the claims of the
    invocation are not its own any more.
    """

    read_until: float
    gather_until: float
    ends: float
    request_timeout: float
    ledger_timeout: float
    put_timeout: float
    lapses: float

    @classmethod
    def of(cls, now: float, remaining: float, limit: int, *, wall: float) -> "Deadlines":
        """
        The deadlines of an invocation with `remaining` seconds at `now`, for bundles of at most `limit` bytes.

        `now` is the monotonic clock's time, `wall` the wall clock's at the same moment.
        """
        reserve = min(min(max(remaining / 5, 5.0), 60.0) + limit / _SLOWEST_PUT, remaining / 2)
        gather = max(remaining - reserve, 0.0)
        request = min(max(gather / 8, 1.0), 10.0)
        return cls(
            read_until=now + gather - 2 * request,
            gather_until=now + gather,
            ends=now + remaining,
            request_timeout=request,
            ledger_timeout=min(max(reserve / 6, 0.8), 5.0),
            put_timeout=min(max(reserve / 3, 1.5), 20.0),
            lapses=wall + remaining + GRACE,
        )

    def allows(self, seconds: float, now: float) -> bool:
        """Whether what takes at most so many seconds from `now` on ends within the invocation."""
        return now + seconds <= self.ends - CLOSING

    def allows_put(self, now: float) -> bool:
        """Whether a put that begins at `now` ends, one way or the other, within the invocation."""
        return self.allows(CONNECT_TIMEOUT + self.put_timeout, now)
