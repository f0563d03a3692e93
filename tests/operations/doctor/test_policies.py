"""What resource policies say, and where they are not judged."""

from typing import Any

import pytest

from aggregator.operations.doctor.policies import enforces_commit, may_send, statements

SOURCE, ACCOUNT = "arn:aws:s3:::objects", "123456789012"
ALLOWED: dict[str, Any] = {
    "Effect": "Allow",
    "Principal": {"Service": "s3.amazonaws.com"},
    "Action": "sqs:SendMessage",
    "Resource": "*",
}
DENIED: dict[str, Any] = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "s3:PutObject",
    "Resource": "arn:aws:s3:::bundles/*",
    "Condition": {"Null": {"s3:if-none-match": "true"}, "Bool": {"s3:ObjectCreationOperation": "true"}},
}


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({}, True),
        ({"Principal": "*"}, True),
        ({"Principal": {"AWS": "*"}}, True),
        ({"Action": ["SQS:*"]}, True),
        ({"Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:*:objects"}}}, True),
        ({"Condition": {"StringEquals": {"aws:SourceAccount": [ACCOUNT]}}}, True),
        ({"Condition": {"ArnEquals": {"AWS:SourceArn": "arn:aws:s3:::others"}}}, False),
        ({"Condition": {"StringEquals": {"aws:SourceAccount": "2"}}}, False),
        ({"Principal": {"Service": "sns.amazonaws.com"}}, False),
        ({"Action": "sqs:ReceiveMessage"}, False),
        ({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}, None),
        ({"Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1"}}}, None),
        ({"Effect": "Deny"}, None),
    ],
)
def test_a_queue_takes_what_its_policy_allows_as_far_as_it_is_understood(
    changed: dict[str, Any], answer: bool | None
) -> None:
    policy = statements({"Statement": {**ALLOWED, **changed}})

    assert may_send(policy, "s3.amazonaws.com", SOURCE, ACCOUNT) is answer


def test_a_queue_without_a_policy_takes_nothing() -> None:
    assert may_send(statements(None), "s3.amazonaws.com", SOURCE, ACCOUNT) is False


def test_to_deny_plain_text_denies_no_notification() -> None:
    tls = {"Effect": "Deny", "Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}

    assert may_send([ALLOWED, tls], "s3.amazonaws.com", SOURCE, ACCOUNT) is True


@pytest.mark.parametrize(
    ("changed", "enforced"),
    [
        ({}, True),
        ({"Condition": {"Null": {"s3:if-none-match": "true"}}}, True),
        ({"Effect": "Allow"}, False),
        ({"Principal": {"AWS": "arn:aws:iam::123456789012:role/one"}}, False),
        ({"Action": "s3:DeleteObject"}, False),
        ({"Resource": "arn:aws:s3:::bundles/2026/one"}, False),
        ({"Condition": {"Null": {"s3:if-match": "true"}}}, False),
        ({"Condition": {**DENIED["Condition"], "StringEquals": {"aws:PrincipalTag/a": "b"}}}, False),
    ],
)
def test_the_commit_is_enforced_if_everybody_is_denied_a_put_without_the_condition(
    changed: dict[str, Any], enforced: bool
) -> None:
    assert enforces_commit([{**DENIED, **changed}]) is enforced
