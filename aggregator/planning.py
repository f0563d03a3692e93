"""
What an invocation intends: which members go into which bundle, how its time is spent, what may become of each member.

Pure: no AWS, no clock, no environment.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple, TypeVar

from aggregator.schemas import Member

CONNECT_TIMEOUT = 2.0
"""Most seconds for a connection to AWS to come about."""

CLOSING = 0.5
"""Seconds at the end of an invocation in which AWS is not called any more: it reports, and takes down what it built."""

_SLOWEST_PUT = 100_000_000
"""Bytes of members a second whose bundle is surely compressed and put: a tenth of what was measured."""

T = TypeVar("T")


class Outcome(Enum):
    """What becomes of a member that is acknowledged."""

    BUNDLED = "bundled"
    DUPLICATE = "duplicate"
    OVERWRITTEN = "overwritten"
    SUPERSEDED = "superseded"


class Plan(NamedTuple):
    """The bundle that members are meant for: its key, and when and by whom it was planned."""

    bundle: str
    created: str
    request_id: str
    members: tuple[Member, ...]


class Timetable(NamedTuple):
    """
    How an invocation spends its time, so that it always ends by itself.

    Moments are seconds of a monotonic clock, time-outs are seconds. A read that begins at `read_until` and runs into
    every time-out and retry ends at `gather_until`; what is left from then on suffices to publish.
    """

    read_until: float
    gather_until: float
    ends: float
    request_timeout: float
    ledger_timeout: float
    put_timeout: float

    @classmethod
    def of(cls, now: float, remaining: float, limit: int) -> "Timetable":
        """The timetable of an invocation with `remaining` seconds at `now`, for bundles of at most `limit` bytes."""
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
        )

    def allows(self, seconds: float, now: float) -> bool:
        """Whether what takes at most so many seconds from `now` on ends within the invocation."""
        return now + seconds <= self.ends - CLOSING

    def allows_put(self, now: float) -> bool:
        """Whether a put that begins at `now` ends, one way or the other, within the invocation."""
        return self.allows(CONNECT_TIMEOUT + self.put_timeout, now)


def bundle_key(now: float, request_id: str, suffix: str) -> str:
    """`YYYY/MM/DD/HH/bundle-<request id>-<suffix>.gz`, in UTC; `now` in seconds since the epoch."""
    return f"{datetime.fromtimestamp(now, UTC):%Y/%m/%d/%H}/bundle-{request_id}-{suffix}.gz"


def planned(members: tuple[Member, ...], *, now: float, request_id: str, suffix: str) -> Plan:
    """A plan to put `members` into one bundle; `now` in seconds since the epoch."""
    return Plan(bundle_key(now, request_id, suffix), timestamp(now), request_id, members)


def timestamp(now: float) -> str:
    """`now`, in seconds since the epoch, as an index says it: RFC 3339, in UTC, to the second."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}"


def split(members: Iterable[Member], limit: int) -> list[tuple[Member, ...]]:
    """Cut `members` into runs of at most `limit` declared bytes; a member that is larger is alone in its run."""
    runs: list[list[Member]] = []
    room = 0
    for member in members:
        size = member.size or 0
        if not runs or size > room:
            runs.append([])
            room = limit
        runs[-1].append(member)
        room -= size
    return [tuple(run) for run in runs]


def runs(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut `values` into runs of `size`, the last one shorter."""
    return (values[at : at + size] for at in range(0, len(values), size))
