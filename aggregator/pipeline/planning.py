"""
What an invocation intends: which members go into which bundle, how its time is spent, what may become of each member.

Pure: no AWS, no clock, no environment.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal, NamedTuple, TypeVar

from aggregator.bundles.index import timestamp
from aggregator.schemas import ObjectRef

T = TypeVar("T")

_SORTED_JSON = json.JSONEncoder(sort_keys=True).encode
"""As `json.dumps` does it, which makes an encoder for each object: 6 µs instead of 3."""


class Wanted(NamedTuple):
    """An object that is to be bundled, and the id under which it is bundled once: made together, they stay together."""

    id: str
    ref: ObjectRef

    @classmethod
    def of(cls, ref: ObjectRef, scope: Literal["key", "version"]) -> "Wanted":
        """The object with its id."""
        return cls(identity(ref, scope), ref)


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


def identity(ref: ObjectRef, scope: Literal["key", "version"]) -> str:
    """
    The id of an object: what has the same id is the same object, and is bundled once.

    With the scope `version` that is its version id, or its entity tag where the bucket keeps no versions. Where a
    notification leaves both out, or the one that counts, S3's answer identifies the version (docs/decisions/0026).

    It is hashed as Powertools hashes an idempotency key: SHA-256, in hexadecimal, of the sorted JSON.
    """
    data: dict[str, str | None] = {"bucket": ref.bucket, "key": ref.key}
    if scope == "version":
        data["version"] = ref.version_id or ref.etag
    return sha256(_SORTED_JSON(data).encode()).hexdigest()


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
        size = one.ref.size or 0
        if not runs or size > room:
            runs.append([])
            room = limit
        runs[-1].append(one)
        room -= size
    return [tuple(run) for run in runs]
