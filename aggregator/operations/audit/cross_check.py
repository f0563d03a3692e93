"""
What others say of a bundle: the ledger, the archive, and the sources of its members.

Each statement confirms, contradicts, or says nothing either way. Silence is common and no fault: a settle record
expires, a source is deleted when it has been bundled, replication takes its time (docs/after-a-crash.md).
"""

import json
import time
from base64 import b64decode
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from aggregator.aws import dynamodb_client, s3_client, translated
from aggregator.bundles.bundle import Bundle
from aggregator.bundles.index import Member
from aggregator.bundles.verification import Proof
from aggregator.exceptions import OpeningError
from aggregator.operations.audit.queries import GRACE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client

_ABSENT = "there is no such object"


class Standing(StrEnum):
    """Whether a asked stands by a bundle."""

    CONFIRMED = "confirmed"
    UNKNOWN = "unknown"
    MISMATCH = "mismatch"


class Check(NamedTuple):
    """What a asked (`ledger`, `archive` or `source`) says, in words."""

    asked: str
    verdict: Standing
    words: str


class CrossCheck(NamedTuple):
    """Who is asked: S3, the ledger's table, the bucket that bundles are published in, and the archive, if any."""

    s3: "S3Client"
    dynamodb: "DynamoDBClient"
    table: str
    distribution: str
    archive: str | None

    @classmethod
    def connect(cls, table: str, distribution: str, archive: str | None) -> "CrossCheck":
        """
        The cross-check on the AWS that the environment names.

        Raises:
            OpeningError: boto3's configuration is wrong.
        """
        with translated():
            return cls(s3_client(), dynamodb_client(), table, distribution, archive)

    def check(self, bundle: Bundle, proof: Proof) -> list[Check]:
        """
        What all of them say of a bundle that was verified.

        Raises:
            OpeningError: one of them does not answer.
        """
        return [self._ledger(bundle, proof), self._archive(bundle, proof), *self._sources(proof.other_etags)]

    def _ledger(self, bundle: Bundle, proof: Proof) -> Check:
        """The settle record, by its id in the table (docs/operations.md)."""
        key: Any = {"id": {"S": f"{self.distribution}#{bundle.index.bundle}"}}
        with translated(table=self.table):
            item = self.dynamodb.get_item(TableName=self.table, Key=key, ConsistentRead=True).get("Item")
        if item is None:
            return Check("ledger", Standing.UNKNOWN, "no settle record: not settled yet, expired, or repacked")
        settled = json.loads(item["data"]["S"])
        if settled.get("sha256", proof.sha256) != proof.sha256:
            return Check("ledger", Standing.MISMATCH, "settled with another SHA-256")
        if settled.get("members", len(bundle)) != len(bundle):
            return Check("ledger", Standing.MISMATCH, f"settled with {settled['members']:,} members")
        return Check("ledger", Standing.CONFIRMED, "settled")

    def _archive(self, bundle: Bundle, proof: Proof) -> Check:
        """What replication made of the published bundle (S3 API reference, HeadObject, x-amz-replication-status)."""
        published = self._head(self.distribution, bundle.index.bundle)
        status = "NONE" if published is None else published.get("ReplicationStatus", "NONE")
        if status == "FAILED":
            return Check("archive", Standing.MISMATCH, "replication FAILED")
        if self.archive is not None:
            return self._copy(bundle, proof, status)
        if status.startswith("COMPLETE"):
            return Check("archive", Standing.CONFIRMED, "replication COMPLETED")
        return Check("archive", Standing.UNKNOWN, "not replicated" if status == "NONE" else f"replication {status}")

    def _copy(self, bundle: Bundle, proof: Proof, status: str) -> Check:
        copy = self._head(str(self.archive), bundle.index.bundle)
        if copy is None:
            age = time.time() - datetime.fromisoformat(bundle.index.created).timestamp()
            is_expected = status == "PENDING" or (status == "NONE" and age < GRACE)
            verdict = Standing.UNKNOWN if is_expected else Standing.MISMATCH
            return Check("archive", verdict, f"no copy{' yet' if is_expected else ''}, replication {status}")
        checksum = copy.get("ChecksumSHA256")
        if copy["ContentLength"] != bundle.size or (checksum and b64decode(checksum).hex() != proof.sha256):
            return Check("archive", Standing.MISMATCH, "the copy is another than this bundle")
        return Check("archive", Standing.CONFIRMED, f"copy {copy.get('ReplicationStatus', 'by hand')}")

    def _sources(self, entries: tuple[Member, ...]) -> Iterator[Check]:
        """Whether eTags that are not the MD5 of their member had to be: only if S3 did not encrypt with another key."""
        for entry in entries:
            found = self._head(entry.bucket, entry.key, entry.version_id)
            if found is None or found["ETag"].strip('"') != entry.etag:
                yield Check("source", Standing.UNKNOWN, f"{entry.key!r} is not there any more, or is another")
            elif has_md5(entry, found):
                yield Check("source", Standing.MISMATCH, f"{entry.key!r} has the MD5 of other bytes")

    def _head(self, bucket: str, key: str, version_id: str | None = None) -> Any | None:
        version: Any = {"VersionId": version_id} if version_id else {}
        try:
            with translated(target=f"s3://{bucket}/{key}"):
                return self.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED", **version)
        except OpeningError as error:
            if error.args[0] == _ABSENT:
                return None
            raise


def has_md5(entry: Member, found: Any) -> bool:
    """
    Whether the eTag of an object, as HeadObject has `found` it, is an MD5.

    S3 API reference, "Object", ETag: in plain text or under SSE-S3, and not in a directory bucket.
    """
    return (
        found.get("ServerSideEncryption", "AES256") == "AES256"
        and "SSECustomerAlgorithm" not in found
        and not entry.bucket.endswith("--x-s3")
    )
