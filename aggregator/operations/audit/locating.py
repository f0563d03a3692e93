"""
Where an object is: which bundle holds it, or what became of it. It only looks: nothing is decided, closed or healed.

    claim? ─none──────▶ never seen
      ├─released──────▶ released, or refused if the ledger knows why
      └─names a bundle
          ├─that holds it──────▶ bundled
          ├─that does not──────▶ free, or lost if it is settled
          └─that is not there──▶ gone if it is settled, else claimed, or undecided once the claim has lapsed
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.index import Member
from aggregator.exceptions import MissingObjectError
from aggregator.operations.ledger_reader import Claim, LedgerReader, Refused
from aggregator.operations.listings import (
    Stored,
    in_parallel,
    latest_bundles,
    open_bundle,
    prefixes,
    versions,
    versions_of,
)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

State = Literal["bundled", "claimed", "undecided", "free", "released", "refused", "gone", "lost", "never seen"]

MEANING: dict[State, str] = {
    "bundled": "it is in a bundle",
    "claimed": "an invocation is bundling it; nothing is published yet",
    "undecided": "its invocation is over and its bundle not there; whoever gets the next message of a member decides",
    "free": "the bundle that it was meant for does not hold it; the next message claims it anew",
    "released": "it was given back; the next message claims it anew",
    "refused": "its message was rejected; it is in the dead-letter queue, or was",
    "gone": "its bundle was published, and lies in neither bucket any more",
    "lost": "its bundle is settled and does not hold it; this must not be: please report it",
    "never seen": "the ledger has no record of it: no message came, or its record has expired",
}

_THREADS = 8
_LOOKS = 3
"""How often an object is looked for that changes hands meanwhile."""

_LATEST = 20
"""Bundles that are asked which buckets they were made from."""


class Whereabouts(NamedTuple):
    """
    What became of one object, or of one version of it.

    `facts` are those that are known, in an order for people: the bundle, when and by which request; when a claim
    lapses; why a message was refused.
    """

    url: str
    version_id: str | None
    state: State
    facts: dict[str, Any]


class Object(NamedTuple):
    """What is asked for: `bucket` may be empty; `version_id` and `etag` say which, where each version is a member."""

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None

    @property
    def url(self) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"

    def is_held_as(self, entry: Member) -> bool:
        """Whether `entry` is it."""
        told = entry.version_id if self.version_id else entry.etag
        return (entry.bucket, entry.key) == self[:2] and told == (self.version_id or self.etag or told)


class Places(NamedTuple):
    """Where to look."""

    s3: "S3Client"
    distribution: str
    archive: str | None
    ledger: LedgerReader


def locate(
    wanted: Object, places: Places, *, now: float, since: float | None = None, refusals: bool = True
) -> list[Whereabouts]:
    """
    What became of an object, wherever it may lie: an object without a bucket is looked for in all that are known.

    Under the scope `version` each version that the source has is told of, or the one given. With `refusals` the whole
    table is read for the reason, if an object was claimed and is in no bundle. With `since`, in seconds since the
    epoch, the bundles since then are searched if the ledger does not name one.

    Raises:
        MissingObjectError: there is nothing to go by.
        StoreUnavailableError: a bucket cannot be read.
        LedgerUnavailableError: the ledger cannot be read.
        BundleFormatError: something else lies where a bundle should.
    """
    buckets = [wanted.bucket] if wanted.bucket else source_buckets(places)
    if not buckets:
        raise MissingObjectError("no bundle tells which buckets there are: name it, s3://bucket/key", key=wanted.key)
    asked = [one for bucket in buckets for one in _versions(wanted._replace(bucket=bucket), places)]
    found = [_whereabouts(one, places, now, refusals=refusals) for one in asked]
    known = [one for one in found if one.state != "never seen"]
    if since is not None and not any(one.state == "bundled" for one in known):
        known += search(wanted, places, since=since, now=now)
        return known or found
    return found if wanted.bucket else known or found


def source_buckets(places: Places) -> list[str]:
    """
    The buckets that the latest bundles were made from.

    Raises:
        StoreUnavailableError: the distribution bucket cannot be read.
        BundleFormatError: something else lies among the bundles.
    """
    names: dict[str, None] = {}
    for stored in latest_bundles(places.s3, places.distribution)[-_LATEST:]:
        names |= dict.fromkeys(open_bundle(places.s3, stored).index.buckets)
    return list(names)


def search(wanted: Object, places: Places, *, since: float, now: float) -> Iterator[Whereabouts]:
    """
    Every bundle since then that holds an object, whatever the ledger says; one without a bucket may come from any.

    Raises:
        StoreUnavailableError: the distribution bucket cannot be read.
        BundleFormatError: something else lies among the bundles.
    """
    everything = (
        bundle for prefix in prefixes(since, now) for bundle in versions(places.s3, places.distribution, prefix)
    )

    def holding(stored: Stored) -> list[Whereabouts]:
        bundle = open_bundle(places.s3, stored)
        return [
            Whereabouts(f"s3://{entry.bucket}/{entry.key}", entry.version_id, "bundled", _held(stored, bundle, entry))
            for entry in bundle
            if wanted._replace(bucket=wanted.bucket or entry.bucket).is_held_as(entry)
        ]

    for found in in_parallel(holding, everything, threads=_THREADS):
        yield from found


def _whereabouts(wanted: Object, places: Places, now: float, *, refusals: bool) -> Whereabouts:
    state, facts = _state(wanted, places, now)
    refused = _refusal(wanted.url, places.ledger) if refusals and state in {"released", "free", "undecided"} else None
    if refused:
        state, facts = "refused", {**_told(refused), **facts}
    return Whereabouts(wanted.url, wanted.version_id, state, facts)


def _versions(wanted: Object, places: Places) -> list[Object]:
    if places.ledger.scope == "key" or wanted.version_id:
        return [wanted]
    found = versions_of(places.s3, wanted.bucket, wanted.key)
    if not found:
        raise MissingObjectError("object is gone from the source: name its version", object=wanted.url)
    return [wanted._replace(version_id=stored.version_id, etag=stored.etag) for stored in found]


def _state(wanted: Object, places: Places, now: float) -> tuple[State, dict[str, Any]]:
    """The state of an object, judged by a claim that still said the same after everything else was looked up."""
    claim = _claim(wanted, places)
    for _ in range(_LOOKS):
        state = _judged(claim, wanted, places, now)
        before, claim = claim, _claim(wanted, places)
        if claim == before:
            break
    return state


def _claim(wanted: Object, places: Places) -> Claim | None:
    ids = places.ledger.ids(*wanted)
    claims = places.ledger.claims(ids)
    return next((claims[id_] for id_ in ids if id_ in claims), None)


def _judged(claim: Claim | None, wanted: Object, places: Places, now: float) -> tuple[State, dict[str, Any]]:
    if claim is None:
        return "never seen", {}
    if claim.released:
        return "released", {"attempt": claim.bundle}
    receipt = places.ledger.receipts([claim.bundle]).get(claim.bundle)
    found = _bundles(claim.bundle, places)
    for stored, bundle in found:
        for entry in filter(wanted.is_held_as, bundle):
            return "bundled", {**_held(stored, bundle, entry), "settled": receipt is not None}
    if receipt is not None:
        return ("lost" if found else "gone"), receipt
    if found:
        return "free", {"attempt": claim.bundle}
    return ("claimed" if now <= claim.lapses else "undecided"), {
        "attempt": claim.bundle,
        "lapses": _moment(claim.lapses),
    }


def _bundles(key: str, places: Places) -> list[tuple[Stored, Bundle]]:
    """What lies under the name of a bundle, in the distribution bucket or else in the archive."""
    found = versions_of(places.s3, places.distribution, key)
    if not found and places.archive:
        found = versions_of(places.s3, places.archive, key)
    return [(stored, open_bundle(places.s3, stored)) for stored in found]


def _refusal(url: str, ledger: LedgerReader) -> Refused | None:
    """The last refusal of an object."""
    return max((one for one in ledger.refusals() if url in one.objects), key=lambda one: one.time, default=None)


def _told(refused: Refused) -> dict[str, Any]:
    return {
        "reason": refused.reason,
        "message": refused.message,
        "refused": _moment(refused.time),
        "message_id": refused.message_id,
        "request_id": refused.request_id,
    }


def _held(stored: Stored, bundle: Bundle, entry: Member) -> dict[str, Any]:
    return {
        "bundle": stored.url,
        "created": bundle.index.created,
        "request_id": bundle.index.request_id,
        "size": entry.size,
        "etag": entry.etag,
        "start": entry.start,
        "length": entry.length,
        "deleted": not stored.is_latest,
    }


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
