"""
Where an object is: which bundle holds it, or what became of it. It only looks: nothing is decided, closed or healed.

    claim? ─none──────▶ never seen
      ├─released──────▶ released, or rejected if the ledger knows why
      └─names a bundle
          ├─that holds it──────▶ bundled, or overwritten if the source has other content by now
          ├─that does not──────▶ free, or lost if it is settled
          └─that is not there──▶ gone if it is settled, else claimed, or in doubt once the claim has lapsed
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import error_code
from aggregator.bundles.bundle import Bundle
from aggregator.bundles.index import Member
from aggregator.exceptions import MissingObjectError, StoreUnavailableError
from aggregator.operations.ledger_reader import Claim, LedgerReader, RejectionRecord
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

State = Literal[
    "bundled", "overwritten", "claimed", "in doubt", "free", "released", "rejected", "gone", "lost", "never seen"
]

MEANING: dict[State, str] = {
    "bundled": "a bundle holds it, as it is in the source",
    "overwritten": "its bundle holds an earlier content: no bundle holds what is in the source now",
    "claimed": "an invocation works on it, or has died: then it is free from `lapses` on, when its message comes back",
    "in doubt": "its invocation is over and its bundle not there; the next message of the object resolves it",
    "free": "the bundle that it was meant for does not hold it; the next message claims it again",
    "released": "its claim was released; the next message claims it again",
    "rejected": "its message was rejected; it is in the dead-letter queue, or was",
    "gone": "its bundle was published, and is in neither bucket any more",
    "lost": "its bundle is settled and does not hold it; this must not happen: please report it",
    "never seen": "the ledger has no record of it: no message came, or its record has expired",
}

Source = Literal["same", "changed", "gone", "not compared"]
"""How an object that a bundle holds compares with what S3 has now."""

UNCHANGED: dict[Source, str] = {
    "same": MEANING["bundled"],
    "gone": "a bundle holds it; it is gone from the source",
    "not compared": "a bundle holds it, but it could not be compared with the source: allow s3:GetObject on the source",
}
"""What `bundled` means, by the source."""

_THREADS = 8
_LOOKS = 3
"""How often an object is looked for that changes hands meanwhile."""

_LATEST = 20
"""Bundles that are asked which buckets they were made from."""


class Located(NamedTuple):
    """
    What became of one object, or of one version of it.

    `facts` are those that are known, in an order for people: the bundle, when and by which request, and how it compares
    with the source; when a claim lapses; why a message was rejected.
    """

    url: str
    version_id: str | None
    state: State
    facts: dict[str, Any]

    @property
    def is_proven(self) -> bool:
        """Whether a bundle surely holds what is in the source now, if anything is."""
        return self.state == "bundled" and self.facts["source"] != "not compared"

    @property
    def meaning(self) -> str:
        """The state in a sentence."""
        return UNCHANGED[self.facts["source"]] if self.state == "bundled" else MEANING[self.state]


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


class Locations(NamedTuple):
    """Where to look."""

    s3: "S3Client"
    distribution: str
    archive: str | None
    ledger: LedgerReader


def locate(
    wanted: Object, locations: Locations, *, now: float, since: float | None = None, rejections: bool = True
) -> list[Located]:
    """
    What became of an object, wherever it may lie: an object without a bucket is looked for in all that are known.

    Under the scope `version` each version that the source has is told of, or the one given. With `rejections` the whole
    table is read for the reason, if an object was claimed and is in no bundle. With `since`, in seconds since the
    epoch, the bundles since then are searched if the ledger does not name one.

    Raises:
        MissingObjectError: there is nothing to go by.
        StoreUnavailableError: a bucket cannot be read.
        LedgerUnavailableError: the ledger cannot be read.
        BundleFormatError: something else lies where a bundle should.
    """
    buckets = [wanted.bucket] if wanted.bucket else source_buckets(locations)
    if not buckets:
        raise MissingObjectError("no bundle names a source bucket: give the bucket, as s3://bucket/key", key=wanted.key)
    asked = [one for bucket in buckets for one in _versions(wanted._replace(bucket=bucket), locations)]
    found = [_located(one, locations, now, rejections=rejections) for one in asked]
    known = [one for one in found if one.state != "never seen"]
    if since is not None and not any(one.state == "bundled" for one in known):
        named = {one.facts.get("bundle") for one in known}
        known += [one for one in search(wanted, locations, since=since, now=now) if one.facts["bundle"] not in named]
        return known or found
    return found if wanted.bucket else known or found


def source_buckets(locations: Locations) -> list[str]:
    """
    The buckets that the latest bundles were made from.

    Raises:
        StoreUnavailableError: the distribution bucket cannot be read.
        BundleFormatError: something else is among the bundles.
    """
    names: dict[str, None] = {}
    for stored in latest_bundles(locations.s3, locations.distribution)[-_LATEST:]:
        names |= dict.fromkeys(open_bundle(locations.s3, stored).index.buckets)
    return list(names)


def search(wanted: Object, locations: Locations, *, since: float, now: float) -> Iterator[Located]:
    """
    Every bundle since then that holds an object, whatever the ledger says; one without a bucket may come from any.

    Raises:
        StoreUnavailableError: the distribution bucket cannot be read.
        BundleFormatError: something else is among the bundles.
    """
    everything = (
        bundle for prefix in prefixes(since, now) for bundle in versions(locations.s3, locations.distribution, prefix)
    )

    def holding(stored: Stored) -> list[Located]:
        bundle = open_bundle(locations.s3, stored)
        return [
            Located(
                f"s3://{entry.bucket}/{entry.key}",
                entry.version_id,
                *_compared(entry, locations, _held(stored, bundle, entry)),
            )
            for entry in bundle
            if wanted._replace(bucket=wanted.bucket or entry.bucket).is_held_as(entry)
        ]

    for found in in_parallel(holding, everything, threads=_THREADS):
        yield from found


def _located(wanted: Object, locations: Locations, now: float, *, rejections: bool) -> Located:
    state, facts = _state(wanted, locations, now)
    rejected = (
        _rejection(wanted.url, locations.ledger) if rejections and state in {"released", "free", "in doubt"} else None
    )
    if rejected:
        state, facts = "rejected", {**_told(rejected), **facts}
    return Located(wanted.url, wanted.version_id, state, facts)


def _versions(wanted: Object, locations: Locations) -> list[Object]:
    if locations.ledger.scope == "key" or wanted.version_id:
        return [wanted]
    found = versions_of(locations.s3, wanted.bucket, wanted.key)
    if not found:
        raise MissingObjectError("object is gone from the source: name its version", object=wanted.url)
    return [wanted._replace(version_id=stored.version_id, etag=stored.etag) for stored in found]


def _state(wanted: Object, locations: Locations, now: float) -> tuple[State, dict[str, Any]]:
    """The state of an object, judged by a claim that still said the same after everything else was looked up."""
    claim = _claim(wanted, locations)
    for _ in range(_LOOKS):
        state = _judged(claim, wanted, locations, now)
        before, claim = claim, _claim(wanted, locations)
        if claim == before:
            break
    return state


def _claim(wanted: Object, locations: Locations) -> Claim | None:
    id_ = locations.ledger.id(*wanted)
    return locations.ledger.claims([id_]).get(id_)


def _judged(claim: Claim | None, wanted: Object, locations: Locations, now: float) -> tuple[State, dict[str, Any]]:
    if claim is None:
        return "never seen", {}
    if claim.released:
        return "released", {"attempt": claim.bundle}
    receipt = locations.ledger.receipts([claim.bundle]).get(claim.bundle)
    found = _bundles(claim.bundle, locations)
    for stored, bundle in found:
        for entry in filter(wanted.is_held_as, bundle):
            return _compared(entry, locations, {**_held(stored, bundle, entry), "settled": receipt is not None})
    if receipt is not None:
        return ("lost" if found else "gone"), receipt
    if found:
        return "free", {"attempt": claim.bundle}
    return ("claimed" if now <= claim.lapses else "in doubt"), {
        "attempt": claim.bundle,
        "lapses": _moment(claim.lapses),
    }


def _bundles(key: str, locations: Locations) -> list[tuple[Stored, Bundle]]:
    """What is stored under the name of a bundle, in the distribution bucket or else in the archive."""
    found = versions_of(locations.s3, locations.distribution, key)
    if not found and locations.archive:
        found = versions_of(locations.s3, locations.archive, key)
    return [(stored, open_bundle(locations.s3, stored)) for stored in found]


def _rejection(url: str, ledger: LedgerReader) -> RejectionRecord | None:
    """The last rejection of an object."""
    return max((one for one in ledger.rejections() if url in one.objects), key=lambda one: one.time, default=None)


def _told(rejected: RejectionRecord) -> dict[str, Any]:
    return {
        "reason": rejected.reason,
        "message": rejected.message,
        "rejected": _moment(rejected.time),
        "message_id": rejected.message_id,
        "request_id": rejected.request_id,
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


def _compared(entry: Member, locations: Locations, held: dict[str, Any]) -> tuple[State, dict[str, Any]]:
    """Whether a bundle holds what the source has now: S3 is asked last, so that no later answer contradicts it."""
    source, facts = _source(entry, locations)
    return ("overwritten" if source == "changed" else "bundled"), {**held, "source": source, **facts}


def _source(entry: Member, locations: Locations) -> tuple[Source, dict[str, Any]]:
    asked: Any = {"Bucket": entry.bucket, "Key": entry.key}
    if locations.ledger.scope == "version" and entry.version_id:
        asked["VersionId"] = entry.version_id
    try:
        found = locations.s3.head_object(**asked)
    except ClientError as error:
        code = error_code(error)
        return ("gone", {}) if code in {"404", "NoSuchKey", "NoSuchVersion"} else ("not compared", {"fault": code})
    except BotoCoreError as error:
        raise StoreUnavailableError(
            "an object cannot be compared with the source",
            object=f"s3://{entry.bucket}/{entry.key}",
            fault=error_code(error),
        ) from error
    etag, size, version = found["ETag"].strip('"'), found["ContentLength"], found.get("VersionId")
    if (etag, size) == (entry.etag, entry.size) or (version and version == entry.version_id != "null"):
        return "same", {}
    if entry.etag is None and size == entry.size:
        return "not compared", {"fault": "the bundle has no eTag of it"}
    known = {"source_etag": etag, "source_size": size, "source_version_id": version}
    return "changed", {**known, "source_modified": _moment(found["LastModified"].timestamp())}


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
