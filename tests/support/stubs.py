"""
The ledger and its arbiter between a stubbed DynamoDB and a stubbed S3, on a clock that stands still.

botocore's Stubber answers each call once and refuses every call, and every parameter, that a test did not expect. What
a test expects is said in swaps; how these are written, by statements or in a transaction, is spelled out here once.
"""

import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import boto3
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber

from aggregator.pipeline.arbiter import Arbiter
from aggregator.pipeline.core import FetchedObject, Packer, empty_bundle
from aggregator.pipeline.deadlines import GRACE
from aggregator.pipeline.distribution import DistributionBucket
from aggregator.pipeline.ledger import Claim, Ledger
from aggregator.pipeline.planning import Plan, Wanted
from aggregator.pipeline.records import Record, Records
from aggregator.pipeline.swaps import Statements, Swap, Transactions
from aggregator.schemas import ObjectRef

NOW = 1_795_000_000
TTL = 30 * 86_400
REMAINING = 60
DEADLINE = (NOW + REMAINING + GRACE) * 1000

OURS = "2026/11/18/13/bundle-ours-1.gz"
THEIRS = "2026/11/18/12/bundle-theirs-1.gz"

Scope = Literal["key", "version"]
Means = Literal["statements", "transactions"]

INSERT = "INSERT INTO \"ledger\" VALUE {'id': ?, 'status': ?, 'data': ?, 'expiration': ?, 'in_progress_expiration': ?}"
UPDATE = (
    'UPDATE "ledger" SET "status" = ? SET "data" = ? SET "expiration" = ? SET "in_progress_expiration" = ?'
    ' WHERE "id" = ? AND "data" = ? AND "in_progress_expiration" = ?'
)


class Bench:
    """What a test works at; `means` is how swaps are written."""

    def __init__(self, means: Means = "statements", scope: Scope = "key") -> None:
        self.means, self.scope = means, scope
        self.now, self.has_time = float(NOW), True
        self.client, s3 = boto3.client("dynamodb"), boto3.client("s3")
        self.dynamodb, self.s3 = Stubber(self.client), Stubber(s3)
        self.records = Records(self.client, table="ledger", prefix="distribution", ttl=TTL, clock=lambda: self.now)
        self.way = (Statements if means == "statements" else Transactions)(self.records)
        self.arbiter = Arbiter(
            DistributionBucket(s3, "distribution"),
            settle=self.records.settle,
            scope=scope,
            request_id="request-1",
            clock=lambda: self.now,
            has_time=lambda: self.has_time,
        )
        self.ledger = Ledger(
            self.records,
            self.way,
            self.arbiter,
            settle=self.records.settle,
            lapses=DEADLINE / 1000,
            clock=lambda: self.now,
        )

    def wanted(self, member: ObjectRef) -> Wanted:
        return Wanted.of(member, self.scope)

    def claim(self, member: ObjectRef, *, over: Record | None = None, bundle: str = OURS) -> Claim:
        content = {"bundle": bundle, "etag": member.etag}
        return Claim(self.wanted(member), Record(json.dumps(content), DEADLINE, NOW + TTL), over)

    def claiming(self, member: ObjectRef, *, over: Record | None = None) -> Swap:
        """What claims an object for `OURS`."""
        return Swap(self.wanted(member).id, over, self.claim(member).mine)

    def releasing(self, member: ObjectRef, seen: Record | None) -> Swap:
        """What gives an object back that was claimed for `OURS`."""
        return Swap(self.wanted(member).id, seen, Record(json.dumps({"released": OURS}), NOW * 1000, NOW + TTL))

    def expect(self, *swaps: Swap, met: Mapping[int, Record | None] | None = None) -> None:
        """Swaps that are made, but for those by their place that meet another record, or none."""
        met = met or {}
        if self.means == "statements":
            self.expect_statements(*swaps, codes={at: _code(swaps[at]) for at in met})
            if met:
                self.expect_look_up({swaps[at].id: record for at, record in met.items()})
            return
        if not met:
            self.expect_transaction(*swaps)
            return
        self.expect_cancelled(*swaps, met=met)
        if len(met) < len(swaps):
            self.expect_transaction(*(swap for at, swap in enumerate(swaps) if at not in met))

    def expect_statements(self, *swaps: Swap, codes: Mapping[int, str] | None = None, retries: int = 0) -> None:
        codes = codes or {}
        answers = [{"Error": {"Code": codes[at]}} if at in codes else {} for at in range(len(swaps))]
        answer = {"Responses": answers, "ResponseMetadata": {"HTTPStatusCode": 200, "RetryAttempts": retries}}
        wanted = {"Statements": [_statement(swap) for swap in swaps]}
        self.dynamodb.add_response("batch_execute_statement", answer, wanted)

    def expect_transaction(self, *swaps: Swap) -> None:
        wanted = {"TransactItems": [_put(swap) for swap in swaps], "ClientRequestToken": ANY}
        self.dynamodb.add_response("transact_write_items", {}, wanted)

    def expect_cancelled(self, *swaps: Swap, met: Mapping[int, Record | None], retries: int = 0) -> None:
        reasons = [_reason(swap, met[at]) if at in met else {"Code": "None"} for at, swap in enumerate(swaps)]
        self.dynamodb.add_client_error(
            "transact_write_items",
            "TransactionCanceledException",
            modeled_fields={"CancellationReasons": reasons},
            response_meta={"RetryAttempts": retries},
            expected_params={"TransactItems": [_put(swap) for swap in swaps], "ClientRequestToken": ANY},
        )

    def expect_error(self, code: str, *, status: int = 400) -> None:
        """A request for swaps that AWS refuses, or fails at."""
        operation = "batch_execute_statement" if self.means == "statements" else "transact_write_items"
        self.dynamodb.add_client_error(operation, code, http_status_code=status)

    def expect_look_up(self, records: Mapping[str, Record | None]) -> None:
        """Records that are looked up, by id; None where there is none."""
        keys = [{"id": _s(f"distribution#{id_}")} for id_ in records]
        items = [_item(id_, record) for id_, record in records.items() if record]
        wanted = {"ledger": {"Keys": keys, "ConsistentRead": True}}
        self.dynamodb.add_response("batch_get_item", {"Responses": {"ledger": items}}, {"RequestItems": wanted})

    def expect_settled(self, asked: str, *, settled: bool) -> None:
        """The question whether a bundle is settled."""
        self.expect_look_up({asked: Record(json.dumps({"bundle": asked}), 0, NOW + TTL) if settled else None})

    def expect_heal(self, bundle: str, *, members: int = 1) -> None:
        content = {"bundle": bundle, "members": members, "healed_by": "request-1"}
        self.dynamodb.add_response("put_item", {}, {"TableName": "ledger", "Item": settle_record(bundle, content)})

    def expect_versions(self, bundle: str, *bodies: bytes, latest: bool = True) -> None:
        versions = [
            {"Key": bundle, "VersionId": f"v{at}", "Size": len(body), "IsLatest": latest and at == 0}
            for at, body in enumerate(bodies)
        ]
        wanted = {"Bucket": "distribution", "Prefix": bundle}
        self.s3.add_response("list_object_versions", {"Versions": versions}, wanted)
        for at, body in enumerate(bodies):
            got = {"Body": StreamingBody(io.BytesIO(body), len(body))}
            place = {"Key": bundle, "VersionId": f"v{at}", "Range": f"bytes=0-{len(body) - 1}"}
            self.s3.add_response("get_object", got, {"Bucket": "distribution", **place})

    def expect_fence(self, bundle: str) -> None:
        body = empty_bundle(bundle, NOW, "request-1")
        wanted = {"Bucket": "distribution", "Key": bundle, "Body": body, "IfNoneMatch": "*"}
        self.s3.add_response("put_object", {}, {**wanted, "ContentType": "application/gzip"})

    def done(self) -> None:
        self.dynamodb.assert_no_pending_responses()
        self.s3.assert_no_pending_responses()


def theirs(etag: str | None, *, deadline: int = NOW * 1000 + 1, bundle: str = THEIRS) -> Record:
    """Somebody else's claim."""
    return Record(json.dumps({"bundle": bundle, "etag": etag}), deadline, NOW + TTL)


def released(bundle: str = THEIRS, *, expiration: int = NOW + TTL) -> Record:
    """What somebody else gave back."""
    return Record(json.dumps({"released": bundle}), NOW * 1000, expiration)


def settle_record(bundle: str, content: Mapping[str, object]) -> dict[str, Any]:
    return {
        "id": _s(f"distribution#{bundle}"),
        "status": _s("COMPLETED"),
        "data": _s(json.dumps(content)),
        "expiration": _n(NOW + TTL + 86_400),
    }


def bundle_of(key: str, *members: ObjectRef) -> bytes:
    """A bundle with these members."""
    spool = io.BytesIO()
    with ThreadPoolExecutor(1) as executor:
        packer = Packer(spool, limit=1_000, level=1, framing="lines", executor=executor)
        for member in members:
            packer.add(FetchedObject(member, 1, member.etag, member.version_id), [b"x"])
        packer.finish(Plan(key, "2026-11-18T12:00:00Z", "request-0", ()))
    return spool.getvalue()


def _code(swap: Swap) -> str:
    return "DuplicateItem" if swap.seen is None else "ConditionalCheckFailed"


def _statement(swap: Swap) -> dict[str, Any]:
    item = _item(swap.id, swap.new)
    order = ("id", "status", "data", "expiration", "in_progress_expiration")
    if swap.seen is None:
        return {"Statement": INSERT, "Parameters": [item[name] for name in order]}
    seen = [item["id"], _s(swap.seen.data), _n(swap.seen.deadline)]
    return {"Statement": UPDATE, "Parameters": [*(item[name] for name in order[1:]), *seen]}


def _put(swap: Swap) -> dict[str, Any]:
    condition: dict[str, Any] = {
        "ConditionExpression": "attribute_not_exists(#id)",
        "ExpressionAttributeNames": {"#id": "id"},
    }
    if swap.seen:
        condition = {
            "ConditionExpression": "#data = :data AND #deadline = :deadline",
            "ExpressionAttributeNames": {"#data": "data", "#deadline": "in_progress_expiration"},
            "ExpressionAttributeValues": {":data": _s(swap.seen.data), ":deadline": _n(swap.seen.deadline)},
        }
    told = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    return {"Put": {"TableName": "ledger", "Item": _item(swap.id, swap.new), **condition, **told}}


def _reason(swap: Swap, record: Record | None) -> dict[str, Any]:
    return {"Code": "ConditionalCheckFailed", **({"Item": _item(swap.id, record)} if record else {})}


def _item(id_: str, record: Record) -> dict[str, Any]:
    return {
        "id": _s(f"distribution#{id_}"),
        "status": _s("INPROGRESS"),
        "data": _s(record.data),
        "expiration": _n(record.expiration),
        "in_progress_expiration": _n(record.deadline),
    }


def names(wanted: Sequence[Wanted]) -> list[str]:
    """The keys of objects."""
    return [one.ref.key for one in wanted]


def _s(value: str) -> dict[str, str]:
    return {"S": value}


def _n(value: int) -> dict[str, str]:
    return {"N": str(value)}
