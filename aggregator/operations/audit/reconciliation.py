"""
The independent auditor: the source against the ledger, against the indexes of the bundles, against the archive.

    list the source ▸ read every bundle's index ▸ list the archive ▸ ask the ledger ▸ follow its claims ▸ judge

It shares no code with what writes bundles but the index format (`reader`, `schemas`), so that it can be a judge of it.
Memory is bounded whatever the number of objects: what is found goes to a database on disk (`database.py`).

It looks at a system that runs. What is younger than the grace may be on its way, so it is not a finding.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

from aggregator.bundles.bundle import Bundle
from aggregator.operations.audit.database import Database
from aggregator.operations.audit.queries import GRACE, Parameters
from aggregator.operations.indexes import Fault, read_indexes
from aggregator.operations.ledger_reader import MOST_READS, LedgerReader
from aggregator.operations.listings import Stored, in_parallel, objects, open_bundle, prefixes, versions, versions_of

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

T = TypeVar("T")

MEMORY = "256MB"
"""What DuckDB may use before it goes to disk."""

_THREADS = 8

WRONG = ("missing", "twice", "altered", "rejected", "unrecorded", "unreplicated", "unreadable")
"""The totals that are findings; the others only count."""

Report = Callable[[str, int], object]
"""Is told what is being done, and how many were done."""


class AuditScope(NamedTuple):
    """
    What is audited: the objects under `prefix` of `bucket` that were modified from `since` to before `until`.

    `scope` is what makes two objects the same member; `now` is when the audit is. Times are seconds since the epoch.
    """

    bucket: str
    prefix: str
    scope: Literal["key", "version"]
    since: float
    until: float
    now: float

    def holds(self, stored: Stored) -> bool:
        """Whether an object is audited: folder markers are not, because they are never bundled."""
        return self.since <= stored.modified < self.until and not stored.is_folder_marker

    def version(self, version_id: str | None, etag: str | None) -> str:
        """What beside its key tells a member from others."""
        return "" if self.scope == "key" else version_id or etag or ""


class Locations(NamedTuple):
    """Where the auditor looks. A ledger or an archive that is not given is not asked."""

    s3: "S3Client"
    distribution: str
    archive: str | None = None
    ledger: LedgerReader | None = None


class Audit:
    """What an audit found: `totals` by name, `findings` one by one. Leaving its `with` block deletes the database."""

    def __init__(self, database: Database, totals: dict[str, int], close: Callable[[], None]) -> None:
        self.totals = totals
        self._database, self._close = database, close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def wrong(self) -> int:
        """How many findings there are."""
        return sum(self.totals[name] for name in WRONG)

    def findings(self, kinds: Sequence[str] = WRONG) -> Iterator[dict[str, Any]]:
        """What is wrong, or what the totals `kinds` count: `finding`, `object` or `bundle`, `why`, in that order."""
        return self._database.shown(kinds)


def reconcile(
    audited: AuditScope,
    locations: Locations,
    *,
    grace: float = GRACE,
    ttl: float | None = None,
    rejections: bool = True,
    memory: str = MEMORY,
    report: Report = lambda _, __: None,
) -> Audit:
    """
    Audit `subject`.

    `grace` in seconds; `ttl` is how many seconds the ledger remembers, if that is known. With `rejections` the reasons
    why objects were rejected are looked for, which reads the whole table, and only if objects are in no bundle.

    Raises:
        StoreUnavailableError: a bucket cannot be read.
        LedgerUnavailableError: the ledger cannot be read.
    """
    folder = TemporaryDirectory(prefix="aggregator-audit-")
    database = Database(Path(folder.name), memory=memory)

    def close() -> None:
        database.close()
        folder.cleanup()

    try:
        gathering = _Gathering(audited, locations, database, report)
        gathering.from_buckets()
        if locations.ledger:
            gathering.from_ledger(locations.ledger, rejections=rejections)
        report("judging", 0)
        fresh, root = audited.now - grace, f"s3://{audited.bucket}/"
        parameters = Parameters(
            root,
            f"s3://{locations.distribution}/",
            audited.now,
            fresh,
            ttl,
            locations.ledger is not None,
            locations.archive is not None,
        )
        return Audit(database, database.classify(parameters), close)
    except BaseException:
        close()
        raise


class _Gathering:
    """Brings in the database, in the order in which one thing leads to the next."""

    def __init__(self, audited: AuditScope, locations: Locations, database: Database, report: Report) -> None:
        self._audited, self._locations, self._database, self._report = audited, locations, database, report
        self._bundles = 0

    def from_buckets(self) -> None:
        """The source, the indexes of all bundles that may hold any of it, and the archive."""
        archive = self._locations.archive
        self._database.add("objects", self._objects())
        self._read("reading indexes", self._listed(self._locations.distribution))
        if archive:
            copies = (
                (copy.key, copy.version_id, copy.etag, copy.size, copy.modified) for copy in self._listed(archive)
            )
            self._database.add("copies", self._counted("listing the archive", copies))
            only = self._database.only_copies()
            self._read("reading the archive", (Stored(archive, *copy, is_latest=True) for copy in only))

    def from_ledger(self, ledger: LedgerReader, *, rejections: bool) -> None:
        """
        What the ledger says of each object; and the bundles that it names and that were not read yet.

        Whether they are settled is asked before they are looked for: a settled bundle that is not there is gone. Then
        the claims of objects that are in none are read again: what they said before proves nothing by now.
        """
        self._ask(ledger)
        unread = self._database.unread_bundles()
        self._database.add("settled", ((key,) for some in runs(unread, MOST_READS) for key in ledger.receipts(some)))
        self._read("following claims", chain.from_iterable(map(self._found, unread)))
        if self._database.forget_stale_claims():
            self._ask(ledger)
        if rejections and self._database.any_unexplained():
            told = ((url, one.reason, one.message, one.time) for one in ledger.rejections() for url in one.objects)
            self._database.add("rejections", self._counted("searching for rejections", told))

    def _objects(self) -> Iterator[tuple[Any, ...]]:
        audited = self._audited
        listing = objects if audited.scope == "key" else versions
        found = filter(audited.holds, listing(self._locations.s3, audited.bucket, audited.prefix))
        for number, stored in enumerate(self._counted("listing the source", found)):
            version = audited.version(stored.version_id, stored.etag)
            yield number, stored.key, version, stored.version_id, stored.etag, stored.size, stored.modified

    def _listed(self, bucket: str) -> Iterator[Stored]:
        """All versions of bundles in `bucket` that objects of the window may be in."""

        def listed(prefix: str) -> list[Stored]:
            return list(versions(self._locations.s3, bucket, prefix))

        hours = prefixes(self._audited.since, self._audited.now)
        return chain.from_iterable(in_parallel(listed, hours, threads=_THREADS))

    def _found(self, bundle: str) -> list[Stored]:
        """The versions of one bundle, from the archive if the distribution bucket has none."""
        found = versions_of(self._locations.s3, self._locations.distribution, bundle)
        if found or not self._locations.archive:
            return found
        return versions_of(self._locations.s3, self._locations.archive, bundle)

    def _read(self, doing: str, bundles: Iterable[Stored]) -> None:
        """Take down bundles and their members."""
        headings: list[tuple[Any, ...]] = []
        faults: list[tuple[str, str]] = []

        def entries() -> Iterator[tuple[Any, ...]]:
            for stored, read in self._counted(doing, self._indexes(bundles)):
                if isinstance(read, Exception):
                    faults.append((stored.url, str(read)))
                    continue
                created, members, rows = read
                archived = stored.bucket == self._locations.archive
                number, self._bundles = self._bundles, self._bundles + 1
                heading = (number, stored.key, stored.url, created, stored.modified, stored.size, members, archived)
                headings.append(heading)
                yield from ((number, *row) for row in rows)

        self._database.add("entries", entries())
        self._database.add("bundles", headings)
        self._database.add("unreadable", faults)

    def _indexes(self, bundles: Iterable[Stored]) -> Iterator[tuple[Stored, tuple[float, int, list[Any]] | Fault]]:
        """When each bundle was made, how many members it has, and those of them that come from where we look."""
        audited = self._audited

        def take(bundle: Bundle) -> tuple[float, int, list[Any]]:
            rows = [
                (
                    member.key,
                    audited.version(member.version_id, member.etag),
                    member.version_id,
                    member.etag,
                    member.size,
                )
                for member in bundle
                if member.bucket == audited.bucket and member.key.startswith(audited.prefix)
            ]
            return datetime.fromisoformat(bundle.index.created).timestamp(), len(bundle), rows

        return read_indexes(bundles, partial(open_bundle, self._locations.s3), take, threads=_THREADS)

    def _ask(self, ledger: LedgerReader) -> None:
        """Take down the claims."""

        def claims(page: list[tuple[int, str, str | None, str]]) -> list[tuple[Any, ...]]:
            ids = {
                ledger.id(self._audited.bucket, key, version_id, etag): number for number, key, version_id, etag in page
            }
            return [(ids[id_], *claim) for id_, claim in ledger.claims(list(ids)).items()]

        pages = chain.from_iterable(runs(page, MOST_READS) for page in self._database.objects())
        found = in_parallel(claims, pages, threads=_THREADS)
        self._database.add("claims", self._counted("asking the ledger", chain.from_iterable(found)))

    def _counted(self, doing: str, values: Iterable[T]) -> Iterator[T]:
        """The values, and every thousand of them a word."""
        self._report(doing, 0)
        for count, value in enumerate(values, start=1):
            yield value
            if count % 1_000 == 0:
                self._report(doing, count)


def runs(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut `values` into runs of `size`, the last one shorter."""
    values = iter(values)
    while some := list(islice(values, size)):
        yield some
