"""
What is in a source, and which bundles may hold it: listed and read into the database, before anything is judged.

The index of a bundle is read where the bundle stays. If it has to be restored before it can be read, the index of the
published bundle is read instead, because both are the same object.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.index import Member
from aggregator.exceptions import BundleFormatError, StoreUnavailableError
from aggregator.operations.audit.database import Database
from aggregator.operations.indexes import read_indexes
from aggregator.operations.listings import Stored, in_parallel, objects, open_bundle, prefixes, versions, versions_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_THREADS = 16

UNRESTORED = "InvalidObjectState"
"""How S3 says that an object is in a storage class that has to be restored before it can be read."""


class Scope(NamedTuple):
    """The objects under `prefix` of `bucket` that were last modified before `until`; seconds since the epoch."""

    bucket: str
    prefix: str
    until: float
    now: float


class Locations(NamedTuple):
    """Where bundles are published, and where their copies stay; without an archive, published bundles have to stay."""

    s3: "S3Client"
    distribution: str
    archive: str | None

    @property
    def keeping(self) -> str:
        """The bucket in which a bundle stays."""
        return self.archive or self.distribution


class Gathering:
    """Brings in the database: the source, and the indexes of all bundles that may hold any of it."""

    def __init__(
        self,
        scope: Scope,
        locations: Locations,
        database: Database,
        report: Callable[[str, int], object],
        say: Callable[[str], object],
    ) -> None:
        """`report` gets what is done and how often, `say` what is not a bundle among bundles."""
        self._scope, self._locations, self._database, self._report, self._say = scope, locations, database, report, say
        self._oldest = scope.now

    def gather(self, *, has_versions: bool) -> None:
        """Fill the tables `objects`, `entries` and `bundles`."""
        listing = versions if has_versions else objects
        self._database.add(
            "objects", self._objects(listing(self._locations.s3, self._scope.bucket, self._scope.prefix))
        )
        headings: list[tuple[Any, ...]] = []
        self._database.add("entries", self._members(self._bundles(), headings))
        self._database.add("bundles", headings)

    def _objects(self, listed: Iterable[Stored]) -> Iterator[tuple[Any, ...]]:
        for number, one in enumerate(stored for stored in listed if not stored.is_folder_marker):
            self._oldest = min(self._oldest, one.modified)
            yield number, one.key, one.version_id or one.etag, one.version_id, one.etag, one.size, one.modified
            if number % 1_000 == 0:
                self._report("listing the source", number)

    def _bundles(self) -> Iterator[Stored]:
        def listed(prefix: str) -> list[Stored]:
            return list(versions(self._locations.s3, self._locations.keeping, prefix))

        hours = prefixes(self._oldest, self._scope.now)
        return chain.from_iterable(in_parallel(listed, hours, threads=_THREADS))

    def _members(self, bundles: Iterable[Stored], headings: list[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        scope = self._scope

        def members_in(bundle: Bundle) -> list[Member]:
            return [one for one in bundle if one.bucket == scope.bucket and one.key.startswith(scope.prefix)]

        unread = 0
        faults = BundleFormatError, StoreUnavailableError
        for number, (stored, found) in enumerate(read_indexes(bundles, self._opened, members_in, faults=faults)):
            if is_unrestored(found):
                unread += 1
                continue
            if isinstance(found, BundleFormatError):
                self._say(f"{stored.url}: {found}")
                continue
            if isinstance(found, BaseException):
                raise found
            headings.append((number, stored.key, stored.url, 0.0, stored.modified, stored.size, len(found), False))
            for one in found:
                yield number, one.key, one.version_id or one.etag or "", one.version_id, one.etag, one.size
            self._report("reading indexes", number)
        if unread:
            self._say(f"bundles that have to be restored before they can be read: {unread:,}; their objects stay")

    def _opened(self, stored: Stored) -> Bundle:
        """The bundle; by its published version, if the copy has to be restored before it can be read."""
        s3, distribution = self._locations.s3, self._locations.distribution
        try:
            return open_bundle(s3, stored)
        except StoreUnavailableError as error:
            published = versions_of(s3, distribution, stored.key) if is_unrestored(error) else []
            if stored.bucket == distribution or not published:
                raise
            return open_bundle(s3, published[0])


def is_unrestored(found: object) -> bool:
    """Whether S3 says that a bundle has to be restored before it can be read."""
    return isinstance(found, StoreUnavailableError) and found.facts.get("fault") == UNRESTORED
