"""
The function may do what the handler's calls need, and nothing else.

The calls are those that really go to AWS, seen by the proxy of the kill matrix: in runs in which nothing fails, and in
which the process is killed after each of its calls in turn and another heals what it left. What a call needs is said by
AWS's service authorization reference; the statements are those of the template.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from aggregator.operations.doctor.facts_from_aws import ACTIONS, FORBIDDEN, VERSIONS
from tests.support.matrix import LAPSED, OURS, SECONDS
from tests.support.proxy import Proxy, Strike
from tests.support.stack import resources, statements
from tests.support.trial import invoke
from tests.support.world import World, sqs_record

pytestmark = pytest.mark.once

LEDGER = {"PutItem", "BatchGetItem", "BatchWriteItem"}
"""Calls to the table that need the permission of their own name."""

STATEMENTS = {"INSERT": "dynamodb:PartiQLInsert", "UPDATE": "dynamodb:PartiQLUpdate"}
"""What a statement needs, by its first word (DynamoDB developer guide, "IAM security policies with PartiQL")."""

TRANSACTION = {"Put": "dynamodb:PutItem"}
"""What a transaction needs, by the writes that it holds (same guide, "IAM and DynamoDB transactions")."""

BY_LAMBDA = {
    ("queue", "sqs:ReceiveMessage"),
    ("queue", "sqs:DeleteMessage"),
    ("queue", "sqs:GetQueueAttributes"),
    ("logs", "logs:CreateLogStream"),
    ("logs", "logs:PutLogEvents"),
}
"""What Lambda itself does in the function's name (Lambda developer guide, "Using Lambda with Amazon SQS")."""

TO_TELL_MISSING = ("source", "s3:ListBucket")
"""No call of ours: with it, S3 answers 404 for an object that is not there, else 403 (S3 API reference, GetObject)."""

Need = tuple[str, str]


class Scene(NamedTuple):
    """Which AWS calls are struck, invocation by invocation, and under which settings."""

    strikes: tuple[Strike | None, ...]
    settings: Mapping[str, str]


@pytest.mark.integration
@pytest.mark.parametrize("scope", ["key", pytest.param("version", marks=pytest.mark.chaos)])
def test_the_function_may_do_what_its_calls_need_and_no_more(
    embedded: str, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    settings = {"IDEMPOTENCY_SCOPE": scope, "LEDGER_WRITES": "statements"}  # as on AWS, where nothing is probed
    quiet = _needs(embedded, monkeypatch, Scene((None, None), settings))
    struck = [
        _needs(embedded, monkeypatch, Scene((Strike(number, "kill after"), None), settings))
        for number in range(_calls(embedded, monkeypatch, settings))
    ]

    needed = quiet.union(*struck) | BY_LAMBDA | {TO_TELL_MISSING}

    assert needed == _granted(scope)


@pytest.mark.integration
def test_claims_in_transactions_need_no_more(embedded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = _needs(embedded, monkeypatch, Scene((None, None), {"LEDGER_WRITES": "transactions"}))

    assert needed <= _granted("key")


def test_the_doctor_asks_for_what_the_template_grants() -> None:
    asked = {(where, action) for where, actions in ACTIONS.items() for action in actions}

    granted = {(where, action) for where, action in _granted("version") if where != "logs"}

    assert asked | {("members", VERSIONS)} == granted
    assert {action for _, action in granted} & set(FORBIDDEN) == set()


def _granted(scope: str) -> set[Need]:
    """What the role's statements allow, by what they allow it to."""
    return {
        (_where(str(each["Resource"])), action)
        for each in statements(resources(IdempotencyScope=scope)["FunctionRole"])
        for action in each["Action"]
        if each["Effect"] == "Allow"
    }


def _where(arn: str) -> str:
    places = {
        "arn:aws:sqs:us-east-1:123456789012:stack-queue": "queue",
        "arn:aws:logs:us-east-1:123456789012:log-group:stack-functionlogs:*": "logs",
        "arn:aws:s3:::objects": "source",
        "arn:aws:s3:::objects/*": "members",
        "arn:aws:s3:::stack-distribution": "distribution",
        "arn:aws:s3:::stack-distribution/*": "bundles",
        "arn:aws:dynamodb:us-east-1:123456789012:table/stack-ledger": "table",
    }
    return places[arn]


def _needs(embedded: str, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> set[Need]:
    """What the calls of the invocations of a scene need."""
    world = _world(embedded, monkeypatch)
    needs: set[Need] = set()
    for delivery, strike in enumerate(scene.strikes):
        calls = _delivered(embedded, world, scene.settings, strike, delivery)
        needs.update(need for call in calls for need in _needed(*call, world))
    return needs


def _calls(embedded: str, monkeypatch: pytest.MonkeyPatch, settings: Mapping[str, str]) -> int:
    """How many calls an invocation makes in which nothing fails."""
    return len(list(_delivered(embedded, _world(embedded, monkeypatch), settings, None, 0)))


def _world(embedded: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two objects, one under a name that obstore cannot say, so that boto3 reads it."""
    world = World(monkeypatch, embedded)
    world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": "Enabled"})
    world.put_all({"in/a": b"1\n", "/in//b": b"2\n"})
    return world


def _delivered(
    embedded: str, world: World, settings: Mapping[str, str], strike: Strike | None, delivery: int
) -> Iterable[tuple[str, str, bytes]]:
    version = world.s3.head_object(Bucket=world.source, Key="in/a")["VersionId"]
    bodies = {
        "announced with a version": world.body("in/a", versionId=version),
        "announced without": world.body("/in//b"),
        "missing": world.body("missing"),
    }
    event = {"Records": [sqs_record(key, body) for key, body in bodies.items()]}
    with Proxy(embedded) as proxy:
        environment = {**world.environment, **settings, "AWS_ENDPOINT_URL": proxy.url, "READ_CONCURRENCY": "2"}
        invoke(
            OURS,
            environment,
            event,
            seconds=SECONDS,
            later=delivery * LAPSED,
            started=lambda pid: proxy.strike(strike, pid),
        )
    return zip(proxy.calls, proxy.paths, proxy.bodies, strict=True)


def _needed(call: str, path: str, body: bytes, world: World) -> set[Need]:
    """What one call needs; a call that nobody has thought of has no entry, and fails the test."""
    if call in LEDGER:
        return {("table", f"dynamodb:{call}")}
    if call == "BatchExecuteStatement":
        return {("table", STATEMENTS[each["Statement"].split()[0]]) for each in _told(body, "Statements")}
    if call == "TransactWriteItems":
        return {("table", TRANSACTION[kind]) for write in _told(body, "TransactItems") for kind in write}
    return {_needed_of_s3(call, path, world)}


def _told(body: bytes, part: str) -> list[dict[str, Any]]:
    return list(json.loads(body)[part])


def _needed_of_s3(call: str, path: str, world: World) -> Need:
    address = urlsplit(path)
    bucket, versioned = address.path.split("/")[1], "versionId" in parse_qs(address.query)
    return {
        ("GetObject", world.source, False): ("members", "s3:GetObject"),
        ("GetObject", world.source, True): ("members", "s3:GetObjectVersion"),
        ("GetObject", world.distribution, True): ("bundles", "s3:GetObjectVersion"),
        ("PutObject", world.distribution, False): ("bundles", "s3:PutObject"),
        ("ListObjectVersions", world.distribution, False): ("distribution", "s3:ListBucketVersions"),
    }[call, bucket, versioned]
