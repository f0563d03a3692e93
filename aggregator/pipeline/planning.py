"""
What an invocation intends: which members go into which bundle, how its time is spent, what may become of each member.

Pure: no AWS, no clock, no environment.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum
from hashlib import sha256
from typing import Literal, NamedTuple, TypeVar

from aggregator.bundles.index import timestamp
from aggregator.schemas import ObjectRef

CONNECT_TIMEOUT = 2.0
"""Most seconds for a connection to AWS to come about."""

CLOSING = 0.5
"""Seconds at the end of an invocation in which AWS is not called any more: it reports, and takes down what it built."""

GRACE = 10
"""Seconds that a claim outlives its invocation: Lambda has been seen to kill 0.7 s late (powertools-lambda-python
issue 4759), and what a dead invocation sent just before may land a little later still."""

_SLOWEST_PUT = 100_000_000
"""Bytes of members a second whose bundle is surely compressed and put: a tenth of what was measured."""

T = TypeVar("T")


class Outcome(Enum):
    """What becomes of a member that is acknowledged."""

    BUNDLED = "bundled"
    DUPLICATE = "duplicate"
    OVERWRITTEN = "overwritten"
    SUPERSEDED = "superseded"


class Wanted(NamedTuple):
    """An object that is to be bundled, and the id under which it is bundled once: made together, they stay together."""

    id: str
    member: ObjectRef

    @classmethod
    def of(cls, member: ObjectRef, scope: Literal["key", "version"]) -> "Wanted":
        """The object with its id."""
        return cls(identity(member, scope), member)


class Envelope(NamedTuple):
    """One SQS message: its id, and the objects that its notification announces."""

    message_id: str
    wanted: tuple[Wanted, ...]


class Plan(NamedTuple):
    """The bundle that objects are meant for: its key, and when and by whom it was planned."""

    bundle: str
    created: str
    request_id: str
    wanted: tuple[Wanted, ...]


class Timetable(NamedTuple):
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
    def of(cls, now: float, remaining: float, limit: int, *, wall: float) -> "Timetable":
        """
        The timetable of an invocation with `remaining` seconds at `now`, for bundles of at most `limit` bytes.

        `now` is told by the monotonic clock, `wall` at the same moment by the wall clock.
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


def identity(member: ObjectRef, scope: Literal["key", "version"]) -> str:
    """
    The id of an object: what has the same id is the same object, and is bundled once.

    It is hashed as Powertools hashes an idempotency key: SHA-256, in hexadecimal, of the sorted JSON.
    """
    data: dict[str, str | None] = {"bucket": member.bucket, "key": member.key}
    if scope == "version":
        data["version"] = member.version_id or member.etag
    return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def repeated(member: ObjectRef, etag: str | None) -> Outcome:
    """A duplicate of what was announced with `etag`; where the tags differ, the object has been overwritten since."""
    return Outcome.OVERWRITTEN if etag and member.etag and etag != member.etag else Outcome.DUPLICATE


def bundle_key(now: float, request_id: str, suffix: str) -> str:
    """`YYYY/MM/DD/HH/bundle-<request id>-<suffix>.gz`, in UTC; `now` in seconds since the epoch."""
    return f"{datetime.fromtimestamp(now, UTC):%Y/%m/%d/%H}/bundle-{request_id}-{suffix}.gz"


def planned(wanted: tuple[Wanted, ...], *, now: float, request_id: str, suffix: str) -> Plan:
    """A plan to put `wanted` into one bundle; `now` in seconds since the epoch."""
    return Plan(bundle_key(now, request_id, suffix), timestamp(now), request_id, wanted)


def split(wanted: Iterable[Wanted], limit: int) -> list[tuple[Wanted, ...]]:
    """Cut `wanted` into runs of at most `limit` declared bytes; an object that is larger is alone in its run."""
    runs: list[list[Wanted]] = []
    room = 0
    for one in wanted:
        size = one.member.size or 0
        if not runs or size > room:
            runs.append([])
            room = limit
        runs[-1].append(one)
        room -= size
    return [tuple(run) for run in runs]
