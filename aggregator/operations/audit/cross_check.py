"""
What others say of a bundle: the ledger, the archive, and the sources of its members.

Each statement confirms, contradicts, or says nothing either way. Silence is common and no fault: a settle record
expires, a source is deleted when it has been bundled, replication takes its time (docs/after-a-crash.md).
"""

import json
from base64 import b64decode
from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from aggregator.aws import dynamodb_client, s3_client, translated
from aggregator.bundles.bundle import Bundle
from aggregator.bundles.index import Member
from aggregator.bundles.verification import Proof
from aggregator.exceptions import OpeningError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client

_ABSENT = "there is no such object"


class Verdict(StrEnum):
    """Whether a witness stands by a bundle."""

    CONFIRMED = "confirmed"
    SILENT = "silent"
    CONTRADICTED = "contradicted"


class Statement(NamedTuple):
    """What a witness (`ledger`, `archive` or `source`) says, in words."""

    witness: str
    verdict: Verdict
    words: str


class Witnesses(NamedTuple):
    """Who is asked: S3, the ledger's table, the bucket that bundles are published in, and the archive, if any."""

    s3: "S3Client"
    dynamodb: "DynamoDBClient"
    table: str
    distribution: str
    archive: str | None

    @classmethod
    def called(cls, table: str, distribution: str, archive: str | None) -> "Witnesses":
        """
        The witnesses that the environment's endpoint and credentials lead to.

        Raises:
            OpeningError: boto3's configuration is wrong.
        """
        with translated():
            return cls(s3_client(), dynamodb_client(), table, distribution, archive)

    def heard(self, bundle: Bundle, proof: Proof) -> list[Statement]:
        """
        What all of them say of a bundle that was verified.

        Raises:
            OpeningError: one of them does not answer.
        """
        return [self._ledger(bundle, proof), self._archive(bundle, proof), *self._sources(proof.other_etags)]

    def _ledger(self, bundle: Bundle, proof: Proof) -> Statement:
        """The settle record, by its id in the table (docs/operations.md)."""
        key: Any = {"id": {"S": f"{self.distribution}#{bundle.index.bundle}"}}
        with translated(table=self.table):
            item = self.dynamodb.get_item(TableName=self.table, Key=key, ConsistentRead=True).get("Item")
        if item is None:
            return Statement("ledger", Verdict.SILENT, "no settle record: not settled yet, expired, or repacked")
        settled = json.loads(item["data"]["S"])
        if settled.get("sha256", proof.sha256) != proof.sha256:
            return Statement("ledger", Verdict.CONTRADICTED, "settled with another SHA-256")
        if settled.get("members", len(bundle)) != len(bundle):
            return Statement("ledger", Verdict.CONTRADICTED, f"settled with {settled['members']:,} members")
        return Statement("ledger", Verdict.CONFIRMED, "settled")

    def _archive(self, bundle: Bundle, proof: Proof) -> Statement:
        """What replication made of the published bundle (S3 API reference, HeadObject, x-amz-replication-status)."""
        published = self._head(self.distribution, bundle.index.bundle)
        status = "NONE" if published is None else published.get("ReplicationStatus", "NONE")
        if status == "FAILED":
            return Statement("archive", Verdict.CONTRADICTED, "replication FAILED")
        if self.archive is not None:
            return self._copy(bundle, proof, status)
        if status.startswith("COMPLETE"):
            return Statement("archive", Verdict.CONFIRMED, "replication COMPLETED")
        return Statement("archive", Verdict.SILENT, "not replicated" if status == "NONE" else f"replication {status}")

    def _copy(self, bundle: Bundle, proof: Proof, status: str) -> Statement:
        copy = self._head(str(self.archive), bundle.index.bundle)
        if copy is None:
            verdict = Verdict.SILENT if status == "PENDING" else Verdict.CONTRADICTED
            return Statement("archive", verdict, f"no copy, replication {status}")
        checksum = copy.get("ChecksumSHA256")
        if copy["ContentLength"] != bundle.size or (checksum and b64decode(checksum).hex() != proof.sha256):
            return Statement("archive", Verdict.CONTRADICTED, "the copy is another than this bundle")
        return Statement("archive", Verdict.CONFIRMED, f"copy {copy.get('ReplicationStatus', 'by hand')}")

    def _sources(self, entries: tuple[Member, ...]) -> Iterator[Statement]:
        """Whether eTags that are not the MD5 of their member had to be: only if S3 did not encrypt with another key."""
        for entry in entries:
            found = self._head(entry.bucket, entry.key, entry.version_id)
            if found is None or found["ETag"].strip('"') != entry.etag:
                yield Statement("source", Verdict.SILENT, f"{entry.key!r} is not there any more, or is another")
            elif _has_md5(entry, found):
                yield Statement("source", Verdict.CONTRADICTED, f"{entry.key!r} has the MD5 of other bytes")

    def _head(self, bucket: str, key: str, version_id: str | None = None) -> Any | None:
        version: Any = {"VersionId": version_id} if version_id else {}
        try:
            with translated(target=f"s3://{bucket}/{key}"):
                return self.s3.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED", **version)
        except OpeningError as error:
            if error.args[0] == _ABSENT:
                return None
            raise


def _has_md5(entry: Member, found: Any) -> bool:
    """S3 API reference, "Object", ETag: in plain text or under SSE-S3, and not in a directory bucket."""
    return (
        found.get("ServerSideEncryption", "AES256") == "AES256"
        and "SSECustomerAlgorithm" not in found
        and not entry.bucket.endswith("--x-s3")
    )
