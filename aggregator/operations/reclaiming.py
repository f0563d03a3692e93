"""
Source objects that may go: an object is deleted once its bytes were read back from a bundle that stays, never before.

    list the source ▸ read the indexes of its bundles ▸ for each bundle: does it stay? read the members back ▸ delete

A bundle is published by one conditional put (docs/decisions/0001), so what is stored under its name is what counts;
the ledger is not asked. Nothing that was looked up is relied on when an object is deleted: S3 itself compares the
eTag with the one that was bundled (S3 user guide, "How to perform conditional deletes"), or deletes a version by its
id, whose content never changes. So the command may be killed, repeated and run beside producers at any time
(docs/decisions/0030). Memory is bounded as the audit's is: what is listed goes to its database on disk.
"""

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import error_code
from aggregator.bundles.index import Member
from aggregator.bundles.verification import may_be_md5
from aggregator.exceptions import AggregatorError, BundleFormatError, StoreUnavailableError
from aggregator.operations.audit.cross_check import has_md5
from aggregator.operations.audit.database import Candidate, Database
from aggregator.operations.audit.reconciliation import MEMORY, runs
from aggregator.operations.holdings import UNRESTORED, Gathering, Locations, Scope, is_unrestored
from aggregator.operations.listings import Stored, in_parallel, open_bundle, versions_of
from aggregator.operations.replay.queues import Pace

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_THREADS = 16

_AT_ONCE = 10_000
"""Most objects that are judged together: as many as a bundle usually has, and few enough for memory."""

_CHANGED = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey", "NoSuchVersion", "404", "412"})
"""How S3 says that the object is not the one that was bundled any more, or is being replaced."""

_DENIED = frozenset({"AccessDenied", "403", "MethodNotAllowed", "InvalidRequest"})
"""How S3 says that we may not delete an object, or that it is locked."""

Verdict = Literal[
    "safe",
    "young",
    "unbundled",
    "overwritten",
    "unkept",
    "unproven",
    "unrestored",
    "unversioned",
    "covered",
    "changed",
    "denied",
]

MEANING: dict[Verdict, str] = {
    "safe": "its bytes were read back from a bundle that stays",
    "young": "it is younger than --older-than",
    "unbundled": "no bundle holds it",
    "overwritten": "a bundle holds another content of its key, and none holds this one",
    "unkept": "its bundle is not yet where it stays",
    "unproven": "its bundle does not give its bytes back: run `aggregator bundle verify`",
    "unrestored": "its bundle is in a storage class that has to be restored before it can be read",
    "unversioned": "it has no version id, in a bucket with versions, so S3 cannot delete exactly it",
    "covered": "an older version of it stays, and would be the current one again",
    "changed": "it was replaced or deleted meanwhile",
    "denied": "S3 does not let us delete it",
}
"""Why an object is deleted, or why it stays, by verdict. All but the first stay."""

WRONG: frozenset[Verdict] = frozenset({"unproven", "unrestored", "denied"})
"""What a person should look at; the others pass by themselves, or are as they should be."""

_ELSEWHERE: frozenset[Verdict] = frozenset({"unkept", "unrestored", "unproven"})
"""Verdicts on a bundle: another one that names the object may prove it."""


class ReclaimError(AggregatorError):
    """Nothing can be reclaimed this way."""

    reason = "reclaim"


class Judged(NamedTuple):
    """
    One object, or one version of it, and what became of it.

    `bundle` is the address of a bundle, if one holds its key; `why` is what S3 or the bundle says, if anything.
    """

    bucket: str
    key: str
    version_id: str | None
    size: int
    bundle: str | None
    verdict: Verdict
    why: str | None = None


def reclaim(
    scope: Scope,
    locations: Locations,
    *,
    delete: bool,
    rate: float | None = None,
    stop: threading.Event | None = None,
    report: Callable[[str, int], object] = lambda _, __: None,
    say: Callable[[str], object] = lambda _: None,
) -> Iterator[Judged]:
    """
    Each object of the scope, and what became of it.

    With `delete`, those that are safe are deleted, at most `rate` a second; else nothing changes. `stop` ends it before
    the next object; `say` gets what is not a bundle among bundles.

    Raises:
        ReclaimError: the source is a bucket of bundles, its store does not delete conditionally, or the archive is the
            distribution bucket.
        StoreUnavailableError: a bucket cannot be read, or objects cannot be deleted now.
    """
    if scope.bucket in {locations.distribution, locations.archive}:
        raise ReclaimError("bundles are not deleted: name a bucket of source objects", bucket=scope.bucket)
    if locations.archive == locations.distribution:
        raise ReclaimError("consumers delete from this bucket, so it is not an archive", bucket=locations.archive)
    stop = stop or threading.Event()
    source = _Source(locations.s3, scope.bucket, Pace(rate, stop), stop, delete=delete)
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="aggregator-reclaim-"))
        database = stack.enter_context(closing(Database(Path(folder), memory=MEMORY)))
        Gathering(scope, locations, database, report, say).gather(has_versions=source.has_versions)
        judging, done = _Judging(locations, source, database), 0
        for (_, bundle), group in groupby(database.candidates(scope.until), lambda one: (one.older, _first_of(one))):
            for some in runs(group, _AT_ONCE):
                yield from judging.judge(bundle, some) if bundle else judging.stay(some)
                done += len(some)
                report("deleting" if delete else "reading members back", done)
                if stop.is_set():
                    return


class _Source:
    """The bucket whose objects are deleted."""

    def __init__(self, s3: "S3Client", bucket: str, pace: Pace, stop: threading.Event, *, delete: bool) -> None:
        self.bucket = bucket
        self.fault: StoreUnavailableError | None = None
        self._s3, self._pace, self._stop, self._delete = s3, pace, stop, delete
        with _translated("the source's versioning is not known", bucket=bucket):
            self.has_versions = "Status" in s3.get_bucket_versioning(Bucket=bucket)
        if delete and not self.has_versions:
            self._require_conditions()

    def delete(self, one: Candidate) -> tuple[Verdict, str | None] | None:
        """
        Delete exactly that version, or exactly that content; what became of it, or None after a stop or a `fault`.

        A fault is not raised here, so that the caller hears of what other threads delete meanwhile.
        """
        if not self._delete:
            return "safe", None
        self._pace.wait(1)
        if self._stop.is_set() or self.fault:
            return None
        try:
            return self._delete_exactly(one)
        except StoreUnavailableError as error:
            self.fault = error
            return None

    def _delete_exactly(self, one: Candidate) -> tuple[Verdict, str | None]:
        exactly: Any = {"VersionId": one.version_id} if one.version_id else {"IfMatch": f'"{one.etag}"'}
        with _translated("the source does not delete objects now", bucket=self.bucket, key=one.key):
            try:
                self._s3.delete_object(Bucket=self.bucket, Key=one.key, **exactly)
            except ClientError as error:
                if error_code(error) in _CHANGED:
                    return "changed", error_code(error)
                if error_code(error) in _DENIED:
                    return "denied", error_code(error)
                raise
        return "safe", None

    def has_md5(self, member: Member) -> bool:
        """Whether the eTag of that object has to be the MD5 of its bytes; so too, if S3 does not say."""
        version: Any = {"VersionId": member.version_id} if member.version_id else {}
        try:
            return has_md5(member, self._s3.head_object(Bucket=self.bucket, Key=member.key, **version))
        except (ClientError, BotoCoreError):
            return True

    def _require_conditions(self) -> None:
        """
        Return, if the store compares eTags when it deletes.

        It is asked by a conditional delete of an object that does not exist. S3 answers 404 (S3 user guide, "How to
        perform conditional deletes"); a store that knows no conditions says that it is deleted.
        """
        with _translated("the source does not let us delete objects", bucket=self.bucket):
            try:
                self._s3.delete_object(Bucket=self.bucket, Key=f"aggregator-reclaim-{uuid.uuid4()}", IfMatch='"none"')
            except ClientError as error:
                if error_code(error) in _CHANGED:
                    return
                raise
        raise ReclaimError("this store ignores If-Match when it deletes: enable versioning", bucket=self.bucket)


class _Judging:
    """What becomes of objects by the bundles that hold them, or because none does."""

    def __init__(self, locations: Locations, source: _Source, database: Database) -> None:
        self._locations, self._source, self._database = locations, source, database

    def judge(
        self, bundle: str, candidates: list[Candidate], unproven: dict[Candidate, Judged] | None = None
    ) -> Iterator[Judged]:
        """Each object, and what became of it, by the first of its bundles that proves it; those before a stop."""
        again: dict[str, list[Candidate]] = {}
        unproven = {} if unproven is None else unproven  # what a person should look at, if no other bundle proves it
        for one, outcome in self._outcomes(bundle, candidates):
            if outcome is None:
                continue
            judged, others = self._judged(one, bundle, *outcome), one.bundles[one.bundles.index(bundle) + 1 :]
            if judged.verdict == "unproven":
                unproven.setdefault(one, judged)
            if judged.verdict in _ELSEWHERE and others:
                again.setdefault(others[0], []).append(one)
            else:
                yield unproven.get(one, judged) if judged.verdict in _ELSEWHERE else judged
        for other, some in again.items():
            yield from self.judge(other, some, unproven)

    def stay(self, candidates: list[Candidate]) -> Iterator[Judged]:
        """Each object that no bundle holds as it is."""
        return (self._judged(one, next(iter(one.bundles), None), one.verdict, one.why) for one in candidates)

    def _judged(self, one: Candidate, bundle: str | None, verdict: Verdict, why: str | None) -> Judged:
        address = f"s3://{self._locations.keeping}/{bundle}" if bundle else None
        return Judged(self._source.bucket, one.key, one.version_id, one.size, address, verdict, why)

    def _outcomes(
        self, bundle: str, candidates: list[Candidate]
    ) -> Iterator[tuple[Candidate, tuple[Verdict, str | None] | None]]:
        stored, why = self._kept(bundle)
        if stored is None:
            yield from ((one, ("unkept", why)) for one in candidates)
            return
        try:
            doubts = self._doubts(stored, candidates)
        except StoreUnavailableError as error:
            if not is_unrestored(error):
                raise
            yield from ((one, ("unrestored", UNRESTORED)) for one in candidates)
            return
        safe = []
        for one in candidates:
            doubt = doubts.get((one.key, one.version))
            if doubt:
                yield one, ("unproven", doubt)
            elif self._source.has_versions and one.version_id is None:
                yield one, ("unversioned", None)
            else:
                safe.append(one)
        yield from self._deleted(safe)

    def _deleted(self, safe: list[Candidate]) -> Iterator[tuple[Candidate, tuple[Verdict, str | None] | None]]:
        """Delete, but for a version whose deletion would make an older one the current one again."""
        behind = self._database.gone([one.key for one in safe if one.older])
        free = [one for one in safe if behind.get(one.key, 0) >= one.older]
        yield from ((one, ("covered", None)) for one in safe if behind.get(one.key, 0) < one.older)
        gone = []
        for one, outcome in zip(free, in_parallel(self._source.delete, free, threads=_THREADS), strict=True):
            if one.several and outcome and outcome[0] == "safe":
                gone.append((one.key,))
            yield one, outcome
        if self._source.fault:
            raise self._source.fault
        self._database.add("gone", gone)

    def _kept(self, key: str) -> tuple[Stored | None, str | None]:
        """The bundle where it stays, or why it does not (yet)."""
        s3, keeping = self._locations.s3, self._locations.keeping
        found = versions_of(s3, keeping, key)
        if not found:
            return None, f"it is not in {keeping}"
        if len(found) > 1 or not found[0].is_latest:
            return None, f"{keeping} has several versions of it, or a delete marker"
        status = self._replication(found[0])
        if self._locations.archive is None:
            wrong = status in {"PENDING", "FAILED"}
            return (None, f"replication {status}: name the bucket with --archive") if wrong else (found[0], None)
        if status == "REPLICA":
            return found[0], None
        published = [self._replication(one) for one in versions_of(s3, self._locations.distribution, key)]
        if len(published) == 1 and published[0].startswith("COMPLETE"):
            return found[0], None
        return None, f"replication {', '.join(published) or 'unknown'}"

    def _replication(self, stored: Stored) -> str:
        """S3 API reference, HeadObject, x-amz-replication-status: PENDING, COMPLETED, FAILED, REPLICA, or NONE."""
        version: Any = {"VersionId": stored.version_id} if stored.version_id else {}
        with _translated("a bundle cannot be read", bundle=stored.url):
            found = self._locations.s3.head_object(Bucket=stored.bucket, Key=stored.key, **version)
        return found.get("ReplicationStatus", "NONE")

    def _doubts(self, stored: Stored, candidates: list[Candidate]) -> dict[tuple[str, str], str]:
        """Why members that were read back are not what the objects are, by key and version."""
        wanted = {(one.key, one.version) for one in candidates}
        exactly = {(one.key, one.version, one.etag, one.size) for one in candidates}
        try:
            bundle = open_bundle(self._locations.s3, stored)
        except BundleFormatError as error:
            return dict.fromkeys(wanted, str(error))
        if bundle.index.bundle != stored.key:
            return dict.fromkeys(wanted, f"it is the bundle {bundle.index.bundle}")
        ours = (one for one in bundle if one.bucket == self._source.bucket)
        named = {_name(one): one for one in ours if (*_name(one), one.etag, one.size) in exactly}
        doubts = dict.fromkeys(wanted - named.keys(), "the index does not name it")
        md5s: list[Member] = []
        for member, chunks in bundle.walk([named[name] for name in wanted & named.keys()]):
            try:
                digest = _md5(chunks)
            except BundleFormatError as error:
                doubts[_name(member)] = str(error)
                continue
            if may_be_md5(member) and digest != member.etag:
                md5s.append(member)
        for member, wrong in zip(md5s, in_parallel(self._source.has_md5, md5s, threads=_THREADS), strict=True):
            if wrong:
                doubts[_name(member)] = "its eTag is the MD5 of other bytes"
        return doubts


def _md5(chunks: Iterable[bytes]) -> str:
    """The MD5 of a member that was read to its end, where its CRC-32 is compared."""
    digest = hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _first_of(one: Candidate) -> str | None:
    """The bundle by which an object is judged first, if any holds it as it is."""
    return one.bundles[0] if one.verdict == "safe" else None


def _name(member: Member) -> tuple[str, str]:
    return member.key, member.version_id or member.etag or ""


@contextmanager
def _translated(message: str, **facts: object) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise StoreUnavailableError(message, **facts, fault=error_code(error)) from error
