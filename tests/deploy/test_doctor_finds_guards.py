"""The doctor finds on the embedded AWS when a guard is gone: filters, policies, locks, the function's state."""

import json
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest

from aggregator.bundles.layout import PROBE_KEY
from aggregator.operations.doctor import facts_from_aws as deployment
from aggregator.operations.doctor import places
from aggregator.operations.doctor.checks import CHECKS, State, diagnose
from tests.support.stack import Stack
from tests.support.stacks import findings_of

pytestmark = [pytest.mark.integration, pytest.mark.once]


def _filter(stack: Stack) -> None:
    boto3.client("lambda").update_event_source_mapping(
        UUID=stack.ids["FunctionQueue"], FilterCriteria={"Filters": [{"Pattern": '{"body": {"a": [1]}}'}]}
    )


def _no_concurrency(stack: Stack) -> None:
    boto3.client("lambda").put_function_concurrency(FunctionName=stack.ids["Function"], ReservedConcurrentExecutions=0)


def _queue_policy(statements: list[Any]) -> Callable[[Stack], object]:
    def plant(stack: Stack) -> None:
        policy = json.dumps({"Version": "2012-10-17", "Statement": statements}) if statements else ""
        stack.sqs.set_queue_attributes(QueueUrl=stack.ids["Queue"], Attributes={"Policy": policy})

    return plant


def _other_sources(stack: Stack) -> None:
    boto3.client("lambda").update_function_configuration(
        FunctionName=stack.ids["Function"],
        Environment={"Variables": {**stack.environment, "SOURCE_BUCKETS": "another-bucket"}},
    )


def _versions_wanted(stack: Stack) -> None:
    boto3.client("lambda").update_function_configuration(
        FunctionName=stack.ids["Function"],
        Environment={"Variables": {**stack.environment, "IDEMPOTENCY_SCOPE": "version"}},
    )


def _key(bucket: str) -> Callable[[Stack], object]:
    default: Any = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "arn:aws:kms:us-east-1:123456789012:key/one"}
    return lambda stack: stack.s3.put_bucket_encryption(
        Bucket=stack.ids[bucket],
        ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": default}]},
    )


FAULTS: dict[str, tuple[Callable[[Stack], object], set[str]]] = {
    "a filter on the mapping": (_filter, {"filters"}),
    "a function that may not run": (_no_concurrency, {"function state"}),
    "a queue that takes nothing": (_queue_policy([]), {"way in"}),
    "a queue that takes from another bucket": (
        _queue_policy(
            [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "s3.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": "*",
                    "Condition": {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::another"}},
                }
            ]
        ),
        {"way in"},
    ),
    "a bucket without its policy": (
        lambda stack: stack.s3.delete_bucket_policy(Bucket=stack.ids["Distribution"]),
        {"commit"},
    ),
    "a source under a key that the role may not use": (_key("Source"), {"permissions"}),
    "bundles under a key that the role may not use": (_key("Distribution"), {"permissions"}),
    "objects from another bucket": (_other_sources, {"sources"}),
    "a source that is not versioned": (_versions_wanted, {"source bucket", "permissions"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_doctor_finds_a_guard_that_is_gone_and_nothing_else(stack: Stack, fault: str) -> None:
    plant, wrong = FAULTS[fault]
    plant(stack)

    found = {finding.check: finding for finding in findings_of(stack) if finding.state is State.WRONG}

    assert set(found) == wrong
    assert all(finding.fix == CHECKS[check][1] for check, finding in found.items())


def test_a_queue_policy_that_is_not_understood_is_not_checked(stack: Stack) -> None:
    _queue_policy([{"Effect": "Deny", "Principal": "*", "Action": "sqs:*", "Resource": "*"}])(stack)

    (finding,) = (each for each in findings_of(stack) if each.check == "way in")

    assert finding.state is State.NOT_CHECKED


def test_a_replica_without_a_lock_is_found(stack: Stack) -> None:
    stack.s3.delete_object(Bucket=stack.ids["Distribution"], Key=PROBE_KEY)  # the embedded AWS locks no replica

    (finding,) = (each for each in findings_of(stack) if each.check == "replica")

    assert (finding.state, finding.says) == (State.WRONG, "the probe's replica is not locked")


def test_the_copy_of_an_old_probe_says_nothing(stack: Stack) -> None:
    findings = diagnose(deployment.facts(places.of_stack(stack.name), probe=True, now=lambda: time.time() + 3 * 86_400))

    (finding,) = (each for each in findings if each.check == "replica")

    assert (finding.state, finding.says) == (
        State.NOT_CHECKED,
        "the probe was copied 3 days ago: delete it, and ask again",
    )
