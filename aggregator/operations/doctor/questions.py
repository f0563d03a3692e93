"""
Single questions to AWS about a bucket, a topic or a rule, each with one answer.

They raise what boto3 raises; `asked` makes an unknown fact of it.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import error_code, is_missing
from aggregator.operations.doctor import policies
from aggregator.operations.doctor.facts import Bucket, Missing, Replica, SourceBucket, Unknown
from aggregator.operations.doctor.facts_from_template import is_for_bundles
from aggregator.operations.faults import explain
from aggregator.pipeline.settings import SECONDS_PER_DAY

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient


T = TypeVar("T")


class NotKnownError(Exception):
    """A question cannot be asked, because the answer to an earlier one is missing."""

    def __init__(self, unknown: Unknown) -> None:
        super().__init__(unknown.why)
        self.unknown = unknown


class Unanswered(Unknown):
    """A fact that AWS did not answer."""


def known(fact: T | Unknown) -> T:
    """
    The fact.

    Raises:
        NotKnownError: it is not known.
    """
    if isinstance(fact, Unknown):
        raise NotKnownError(fact)
    return fact


def asked(question: Callable[[], T]) -> T | Unknown:
    """The answer, or why there is none."""
    try:
        return question()
    except NotKnownError as error:
        return error.unknown
    except ClientError as error:
        kind = Missing if is_missing(error) else Unanswered
        return kind(f"{error.operation_name} is answered {error_code(error)}")
    except BotoCoreError as error:
        return Unanswered(explain(error))


def source_bucket(s3: "S3Client", name: str) -> SourceBucket:
    """The region of a bucket, and whether it is versioned."""
    region = s3.get_bucket_location(Bucket=name).get("LocationConstraint") or "us-east-1"
    versioned = s3.get_bucket_versioning(Bucket=name).get("Status") == "Enabled"
    return SourceBucket("eu-west-1" if region == "EU" else region, versioned)


def bundle_bucket(s3: "S3Client", name: str) -> Bucket:
    """Whether a bucket of bundles is versioned, and for how long it keeps deleted versions."""
    versioned = s3.get_bucket_versioning(Bucket=name).get("Status") == "Enabled"
    lifecycle = unless("NoSuchLifecycleConfiguration", lambda: s3.get_bucket_lifecycle_configuration(Bucket=name))
    days = [
        rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
        for rule in lifecycle.get("Rules", [])
        if rule["Status"] == "Enabled" and "NoncurrentVersionExpiration" in rule and is_for_bundles(rule)
    ]
    return Bucket(versioned, min(days, default=None))


def commit_is_enforced(s3: "S3Client", bucket: str) -> bool:
    """Whether the bucket's policy denies puts that could replace an object."""
    answer = unless("NoSuchBucketPolicy", lambda: s3.get_bucket_policy(Bucket=bucket))
    return policies.enforces_commit(policies.statements(answer.get("Policy")))


def default_lock(s3: "S3Client", bucket: str) -> str | None:
    """The mode of a bucket's default retention, if it has one."""
    missing = "ObjectLockConfigurationNotFoundError"
    answer = unless(missing, lambda: s3.get_object_lock_configuration(Bucket=bucket))
    mode: str | None = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {}).get("Mode")
    return mode


def replica(s3: "S3Client", bucket: str, archive: str, key: str, *, now: float) -> Replica:
    """What became of the replication of an object."""
    found = s3.head_object(Bucket=bucket, Key=key)
    days, status = (now - found["LastModified"].timestamp()) / SECONDS_PER_DAY, str(found.get("ReplicationStatus", ""))
    if status != "COMPLETED":
        return Replica(days, status, None)
    return Replica(days, status, s3.head_object(Bucket=archive, Key=key).get("ObjectLockMode"))


def default_key(s3: "S3Client", bucket: str) -> str | None:
    """
    The KMS key that a bucket encrypts with by default, if it is not a key of AWS.

    Raises:
        NotKnownError: the bucket does not name the key by its ARN.
    """
    missing = "ServerSideEncryptionConfigurationNotFoundError"
    answer = unless(missing, lambda: s3.get_bucket_encryption(Bucket=bucket))
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules", [])
    keys = [rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID") for rule in rules]
    key = next(filter(None, keys), None)
    if key and not key.startswith("arn:"):
        raise NotKnownError(Unknown(f"{bucket} does not name its key {key} by the ARN"))
    return key


def sends_to(announcer: str, queue: str) -> bool:
    """Whether the topic or the rule between a bucket and the queue sends to the queue; a bucket does by itself."""
    service = announcer.split(":")[2]
    if service == "sns":
        pages = boto3.client("sns").get_paginator("list_subscriptions_by_topic").paginate(TopicArn=announcer)
        return queue in {each.get("Endpoint") for page in pages for each in page["Subscriptions"]}
    if service == "events":
        bus, _, rule = announcer.partition(":rule/")[2].rpartition("/")
        targets = boto3.client("events").list_targets_by_rule(Rule=rule, EventBusName=bus or "default")["Targets"]
        return queue in {each["Arn"] for each in targets}
    return True


def dead_letter_url(sqs: "SQSClient", queue_url: str) -> str:
    """
    The queue that messages are given up to, as the redrive policy says: it may be any.

    Raises:
        NotKnownError: the queue has none.
    """
    answer = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["RedrivePolicy"])
    redrive = json.loads(answer.get("Attributes", {}).get("RedrivePolicy") or "null")
    if not redrive:
        raise NotKnownError(Unknown("there is no dead-letter queue"))
    *_, account, name = redrive["deadLetterTargetArn"].split(":")
    return sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]


def unless(missing: str, question: Callable[[], Any]) -> Any:
    """The answer, or an empty one where AWS says by the error `missing` that there is nothing."""
    try:
        return question()
    except ClientError as error:
        if error_code(error) != missing:
            raise
        return {}
