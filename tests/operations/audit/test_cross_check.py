"""What the ledger, the archive and the sources say of a bundle, and what counts as a contradiction."""

import hashlib
import io
import json
from base64 import b64encode
from concurrent.futures import Executor
from datetime import datetime
from typing import Any, NamedTuple

import boto3
import pytest
from botocore.stub import Stubber

from aggregator.bundles.verification import Proof
from aggregator.exceptions import OpeningError
from aggregator.operations.audit.cross_check import Check, CrossCheck, Standing
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.reader import Bundle
from aggregator.schemas import ObjectRef

KEY = "2026/11/23/11/bundle-r-s.gz"
CONFIRMED, UNKNOWN, MISMATCH = Standing


class Bench(NamedTuple):
    """A bundle that was verified, and witnesses that answer as a test says."""

    bundle: Bundle
    proof: Proof
    s3: Stubber
    dynamodb: Stubber

    def check(self, archive: str | None = None) -> list[Check]:
        """What they say."""
        s3: Any = self.s3.client
        dynamodb: Any = self.dynamodb.client
        with self.s3, self.dynamodb:
            said = CrossCheck(s3, dynamodb, "ledger", "distribution", archive).check(self.bundle, self.proof)
        self.s3.assert_no_pending_responses()
        return said

    def settled(self, **receipt: object) -> None:
        """The ledger has a settle record; nothing given, none."""
        item = {"Item": {"data": {"S": json.dumps({"bundle": KEY, **receipt})}}} if receipt else {}
        expected = {"TableName": "ledger", "Key": {"id": {"S": f"distribution#{KEY}"}}, "ConsistentRead": True}
        self.dynamodb.add_response("get_item", item, expected)

    def found(self, bucket: str, key: str = KEY, **head: Any) -> None:
        """S3 has such an object; nothing given, none."""
        expected = {"Bucket": bucket, "Key": key, "ChecksumMode": "ENABLED"}
        if head:
            self.s3.add_response("head_object", head, expected)
        else:
            self.s3.add_client_error("head_object", "404", http_status_code=404, expected_params=expected)


@pytest.fixture
def bench(executor: Executor) -> Bench:
    """Two members, the eTag of one of them no MD5."""
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=1, framing="lines", executor=executor)
    packer.add(FetchedObject(ObjectRef("source", "plain"), 1, hashlib.md5(b"1").hexdigest()), [b"1"])
    packer.add(FetchedObject(ObjectRef("source", "other"), 1, "0" * 32), [b"2"])
    packer.finish(Plan(KEY, "2026-11-23T11:54:56Z", "r", ()))
    bundle = Bundle.open(spool)
    session = boto3.session.Session("testing", "testing", region_name="us-east-1")
    return Bench(bundle, bundle.verify(), Stubber(session.client("s3")), Stubber(session.client("dynamodb")))


@pytest.fixture
def plain(bench: Bench) -> Bench:
    """The same, all eTags as they should be."""
    return bench._replace(proof=bench.proof._replace(other_etags=()))


def test_a_bundle_that_is_settled_and_replicated_is_confirmed(plain: Bench) -> None:
    plain.settled(sha256=plain.proof.sha256, members=2)
    plain.found("distribution", ReplicationStatus="COMPLETED")

    assert plain.check() == [
        Check("ledger", CONFIRMED, "settled"),
        Check("archive", CONFIRMED, "replication COMPLETED"),
    ]


@pytest.mark.parametrize(
    ("receipt", "statement"),
    [
        ({}, (UNKNOWN, "no settle record: not settled yet, expired, or repacked")),
        ({"members": 2, "healed_by": "x"}, (CONFIRMED, "settled")),
        ({"members": 3}, (MISMATCH, "settled with 3 members")),
        ({"members": 2, "sha256": "00"}, (MISMATCH, "settled with another SHA-256")),
    ],
)
def test_the_settle_record_speaks(receipt: dict[str, object], statement: tuple[Standing, str], plain: Bench) -> None:
    plain.settled(**receipt)
    plain.found("distribution")

    assert plain.check()[0] == Check("ledger", *statement)


@pytest.mark.parametrize(
    ("status", "statement"),
    [
        ("PENDING", (UNKNOWN, "replication PENDING")),
        ("FAILED", (MISMATCH, "replication FAILED")),
        ("COMPLETED", (CONFIRMED, "replication COMPLETED")),
    ],
)
def test_the_replication_status_speaks(status: str, statement: tuple[Standing, str], plain: Bench) -> None:
    plain.settled()
    plain.found("distribution", ReplicationStatus=status)

    assert plain.check()[1] == Check("archive", *statement)


@pytest.mark.parametrize("head", [{}, {"ETag": '"x"'}])
def test_a_bundle_that_no_rule_replicates_or_a_consumer_deleted_is_no_fault(head: dict[str, str], plain: Bench) -> None:
    plain.settled()
    plain.found("distribution", **head)

    assert plain.check()[1] == Check("archive", UNKNOWN, "not replicated")


def test_a_copy_of_the_same_bytes_is_confirmed(plain: Bench) -> None:
    checksum = b64encode(bytes.fromhex(plain.proof.sha256)).decode()
    plain.settled()
    plain.found("distribution")
    plain.found("archive", ReplicationStatus="REPLICA", ContentLength=plain.bundle.size, ChecksumSHA256=checksum)

    assert plain.check("archive")[1] == Check("archive", CONFIRMED, "copy REPLICA")


@pytest.mark.parametrize(("longer", "checksum"), [(1, None), (0, "AAAA")])
def test_a_copy_of_other_bytes_is_a_contradiction(longer: int, checksum: str | None, plain: Bench) -> None:
    plain.settled()
    plain.found("distribution", ReplicationStatus="COMPLETED")
    given = {"ChecksumSHA256": checksum} if checksum else {}
    plain.found("archive", ContentLength=plain.bundle.size + longer, **given)

    assert plain.check("archive")[1] == Check("archive", MISMATCH, "the copy is another than this bundle")


@pytest.mark.parametrize(
    ("status", "age", "verdict", "words"),
    [
        ("PENDING", 7_200, UNKNOWN, "no copy yet, replication PENDING"),
        ("COMPLETED", 60, MISMATCH, "no copy, replication COMPLETED"),
        (None, 7_200, MISMATCH, "no copy, replication NONE"),
        (None, 60, UNKNOWN, "no copy yet, replication NONE"),
    ],
)
def test_a_missing_copy_is_a_contradiction_unless_it_is_on_its_way(
    status: str | None, age: float, verdict: Standing, words: str, plain: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.fromisoformat(plain.bundle.index.created).timestamp() + age
    monkeypatch.setattr("aggregator.operations.audit.cross_check.time.time", lambda: now)
    plain.settled()
    plain.found("distribution", ETag="x", **({"ReplicationStatus": status} if status else {}))
    plain.found("archive")

    assert plain.check("archive")[1] == Check("archive", verdict, words)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({"ServerSideEncryption": "aws:kms"}, []),
        ({"ServerSideEncryption": "aws:kms:dsse"}, []),
        ({"SSECustomerAlgorithm": "AES256"}, []),
        ({"ServerSideEncryption": "AES256"}, [(MISMATCH, "'other' has the MD5 of other bytes")]),
        ({}, [(MISMATCH, "'other' has the MD5 of other bytes")]),
    ],
)
def test_an_etag_that_is_no_md5_is_a_fault_only_where_it_has_to_be_one(
    head: dict[str, str], expected: list[tuple[Standing, str]], bench: Bench
) -> None:
    bench.settled()
    bench.found("distribution")
    bench.found("source", "other", ETag=f'"{"0" * 32}"', **head)

    assert [one[1:] for one in bench.check()[2:]] == expected


@pytest.mark.parametrize("head", [{}, {"ETag": '"new"'}])
def test_a_source_that_is_gone_or_replaced_says_nothing(head: dict[str, str], bench: Bench) -> None:
    bench.settled()
    bench.found("distribution")
    bench.found("source", "other", **head)

    assert bench.check()[2:] == [Check("source", UNKNOWN, "'other' is not there any more, or is another")]


def test_a_witness_that_does_not_answer_is_one_sentence(plain: Bench) -> None:
    plain.dynamodb.add_client_error("get_item", "ResourceNotFoundException")

    with pytest.raises(OpeningError, match="there is no such table"):
        plain.check()
