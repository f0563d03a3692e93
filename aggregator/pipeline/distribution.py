"""
The distribution bucket: bundles are put into it, looked up in it, and their names are fenced.

A bundle is published by one conditional put, which is the commit of everything. Anyone can find out later whether it
happened, because every version that was ever put under its name is listed, also those that a consumer has deleted.
"""

import time
from base64 import b64encode
from typing import IO, TYPE_CHECKING, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import error_code, http_status, retry_once
from aggregator.bundles.bundle import Bundle
from aggregator.bundles.index import BundleIndex
from aggregator.exceptions import AmbiguousPutError, BundleFormatError, StoreUnavailableError, UnpublishedError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONDITION_FAILED = frozenset({"412", "PreconditionFailed"})

_INDEFINITE = frozenset({408, 409, 412, 429})
"""Answers of the 400 family that do not say that the object was refused."""

_THROTTLED = frozenset({"SlowDown", "ServiceUnavailable"})
"""What S3 says when it has not done what it was asked; the 503 of a proxy does not tell."""

_PUT_ATTEMPTS = 3

_MOST_INDEX = 32 * 1024 * 1024
"""Most bytes of a bundle that are read at once: an index of ours, deflated, has some hundred kilobytes."""


class Version(NamedTuple):
    """One version of an object in the distribution bucket; `size` in bytes."""

    version_id: str
    size: int
    is_latest: bool


class DistributionBucket:
    """The bucket that bundles are put into, looked up in, and whose names are fenced."""

    def __init__(self, s3: "S3Client", bucket: str) -> None:
        self.bucket = bucket
        self._s3 = s3

    def put(self, key: str, body: IO[bytes], *, size: int, sha256: bytes) -> None:
        """
        Publish a bundle under `key`, unless there is something already. This is the commit.

        Raises:
            UnpublishedError: S3 refused it, so it is not there.
            AmbiguousPutError: whether the bundle is there must be found out.
        """
        for attempt in range(_PUT_ATTEMPTS):
            body.seek(0)
            try:
                self._s3.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=body,
                    ContentLength=size,
                    ContentType="application/gzip",
                    ChecksumSHA256=b64encode(sha256).decode(),
                    IfNoneMatch="*",
                )
            except (ClientError, BotoCoreError) as error:
                status, fault = http_status(error), error_code(error)
                refused = 400 <= status < 500 and status not in _INDEFINITE
                if refused and attempt == 0:  # of a second attempt it would say nothing of the first
                    raise UnpublishedError("S3 rejects the bundle", bundle=key, fault=fault) from error
                if fault not in _THROTTLED or attempt + 1 == _PUT_ATTEMPTS or self.versions(key):
                    raise AmbiguousPutError("the put of a bundle failed", bundle=key, fault=fault) from error
                time.sleep(0.2 * 2**attempt)
            else:
                return

    def fence(self, key: str, body: bytes) -> None:
        """
        Put an empty bundle under `key`, unless there is something already; then look what is there.

        Raises:
            StoreUnavailableError: whether it is there is unknown.
        """
        try:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="application/gzip", IfNoneMatch="*")
        except (ClientError, BotoCoreError) as error:
            if error_code(error) not in CONDITION_FAILED:
                raise StoreUnavailableError("a bundle's name could not be fenced", bundle=key) from error

    def versions(self, key: str) -> list[Version]:
        """
        All versions under `key` that have content, also those behind a delete marker.

        Raises:
            StoreUnavailableError: S3 does not say.
        """
        try:
            page = retry_once(lambda: self._s3.list_object_versions(Bucket=self.bucket, Prefix=key))
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailableError(
                "a bundle could not be looked up", bundle=key, fault=error_code(error)
            ) from error
        return [
            Version(version["VersionId"], version["Size"], version["IsLatest"])
            for version in page.get("Versions", [])
            if version["Key"] == key
        ]

    def index(self, key: str, version: Version) -> BundleIndex:
        """
        The index of a bundle, read from its tail.

        Raises:
            BundleFormatError: something else is there.
            StoreUnavailableError: it cannot be read.
        """

        def fetch(offset: int, length: int) -> bytes:
            if length > _MOST_INDEX:  # whoever may put into the bucket must not end the function
                raise BundleFormatError("the index is larger than that of any bundle of ours", bundle=key)

            def get() -> bytes:
                answer = self._s3.get_object(
                    Bucket=self.bucket,
                    Key=key,
                    VersionId=version.version_id,
                    Range=f"bytes={offset}-{offset + length - 1}",
                )
                body = answer["Body"].read()
                # A server may ignore a range, and answer with the whole (RFC 9110, 14.2).
                return body if len(body) <= length else body[offset : offset + length]

            try:
                return retry_once(get)
            except (ClientError, BotoCoreError) as error:
                raise StoreUnavailableError("a bundle's index could not be read", bundle=key) from error

        return Bundle(fetch, version.size).index
