"""
Objects in buckets, and what bundles say of themselves. It reads, and nothing else.

A listing is a stream, page after page, so its size does not matter. A bundle's index is read from the tail of the
object, in one range request up to some 1,500 members, in two beyond. All versions of bundles count, because consumers
delete what they have fetched.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from aggregator.bundles.bundle import Bundle
from aggregator.exceptions import StoreUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_DAYS_BY_THE_HOUR, _DAYS_BY_THE_DAY = 7, 400

T = TypeVar("T")
R = TypeVar("R")


class Stored(NamedTuple):
    """
    One version of an object.

    `size` in bytes; `etag` without quotes; `modified` in seconds since the epoch; `version_id` is None where the bucket
    keeps no versions.
    """

    bucket: str
    key: str
    version_id: str | None
    etag: str
    size: int
    modified: float
    is_latest: bool

    @property
    def is_folder_marker(self) -> bool:
        """Whether this is what the S3 console makes for "create folder"."""
        return self.key.endswith("/") and self.size == 0

    @property
    def url(self) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"


def objects(s3: "S3Client", bucket: str, prefix: str = "") -> Iterator[Stored]:
    """
    The current objects under `prefix`, in the order of their keys.

    Raises:
        StoreUnavailableError: S3 does not list them.
    """
    with _translated("a bucket cannot be listed", bucket=bucket):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            yield from (_stored(bucket, found) for found in page.get("Contents", []))


def versions(s3: "S3Client", bucket: str, prefix: str = "") -> Iterator[Stored]:
    """
    All versions under `prefix` that have content, also those behind a delete marker.

    Raises:
        StoreUnavailableError: S3 does not list them.
    """
    with _translated("a bucket's versions cannot be listed", bucket=bucket):
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
            yield from (_stored(bucket, found) for found in page.get("Versions", []))


def versions_of(s3: "S3Client", bucket: str, key: str) -> list[Stored]:
    """
    All versions of one object that have content.

    Raises:
        StoreUnavailableError: S3 does not list them.
    """
    found = []
    for stored in versions(s3, bucket, key):
        if stored.key != key:  # longer keys follow, and there may be many
            break
        found.append(stored)
    return found


def latest_bundles(s3: "S3Client", bucket: str) -> list[Stored]:
    """
    The bundles of the last hour that has any, whether deleted or not.

    Raises:
        StoreUnavailableError: S3 does not list them.
    """
    prefix = ""
    with _translated("a bucket's versions cannot be listed", bucket=bucket):
        for _ in ("YYYY/", "MM/", "DD/", "HH/"):
            page = s3.list_object_versions(Bucket=bucket, Prefix=prefix, Delimiter="/")
            names = [found["Prefix"] for found in page.get("CommonPrefixes", [])]
            dates = [name for name in names if name.removeprefix(prefix)[:-1].isdigit()]
            if not dates:
                return []
            prefix = max(dates)
    return list(versions(s3, bucket, prefix))


def prefixes(since: float, until: float) -> list[str]:
    """
    The prefixes under which bundles lie that were made from `since` to `until`, in seconds since the epoch.

    An hour more on either side, for clocks that are wrong. Hours for a week, days for a year, then years: a listing for
    each hour of ten years would take longer than reading a little too much.
    """
    step, form = timedelta(hours=1), "%Y/%m/%d/%H/"
    days = (until - since) / 86_400
    if days > _DAYS_BY_THE_HOUR:
        step, form = timedelta(days=1), "%Y/%m/%d/"
    if days > _DAYS_BY_THE_DAY:
        form = "%Y/"
    at = datetime.fromtimestamp(since, UTC) - timedelta(hours=1)
    end = datetime.fromtimestamp(until, UTC) + timedelta(hours=1)
    names = []
    while at < end + step:
        names.append(f"{at:{form}}")
        at += step
    last = f"{end:{form}}"
    return [name for name in dict.fromkeys(names) if name <= last]


def open_bundle(s3: "S3Client", stored: Stored) -> Bundle:
    """
    The bundle that is stored there, by its tail.

    Raises:
        BundleFormatError: it is not a bundle.
        StoreUnavailableError: it cannot be read.
    """
    version: Any = {"VersionId": stored.version_id} if stored.version_id else {}

    def fetch(offset: int, length: int) -> bytes:
        wanted = f"bytes={offset}-{offset + length - 1}"
        with _translated("a bundle cannot be read", bundle=stored.url):
            answer = s3.get_object(Bucket=stored.bucket, Key=stored.key, Range=wanted, **version)
            body = answer["Body"].read()
        partial = answer["ResponseMetadata"]["HTTPStatusCode"] == 206  # a server may ignore a range (RFC 9110, 14.2)
        return body if partial else body[offset : offset + length]

    return Bundle(fetch, stored.size)


def in_parallel(call: Callable[[T], R], values: Iterable[T], *, threads: int) -> Iterator[R]:
    """What `call` makes of each value, in their order; a few values are ahead of what was taken, and no more."""
    ahead: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="read") as pool:
        try:
            for value in values:
                ahead.append(pool.submit(call, value))
                if len(ahead) > 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _stored(bucket: str, found: Any) -> Stored:
    version_id = found.get("VersionId")
    return Stored(
        bucket,
        found["Key"],
        None if version_id == "null" else version_id,
        found["ETag"].strip('"'),
        found["Size"],
        found["LastModified"].timestamp(),
        found.get("IsLatest", True),
    )


@contextmanager
def _translated(message: str, **facts: object) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
        raise StoreUnavailableError(message, **facts, fault=code or type(error).__name__) from error
