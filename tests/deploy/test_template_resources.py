"""The resources of the template: buckets, policies, replication, the table for Athena, alarms and the dashboard."""

import itertools
import json
import re

import pytest

from aggregator.exceptions import PermanentError, UnknownEventError
from aggregator.operations.doctor.template import Resource
from aggregator.pipeline.telemetry import METRICS, NAMESPACE
from tests.support import ROOT
from tests.support.stack import actions, resources, statements, watched
from tests.support.templates import policy, statement

pytestmark = pytest.mark.once

KEY = "arn:aws:kms:us-east-1:123456789012:key/one"
SOURCE_KEY = "arn:aws:kms:us-east-1:123456789012:key/two"

AWS_METRICS = {
    "AWS/SQS": {
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesVisible",
        "NumberOfMessagesDeleted",
        "NumberOfMessagesReceived",
        "NumberOfMessagesSent",
    },
    "AWS/Lambda": {"ConcurrentExecutions", "Duration", "Errors", "FilteredOutEventCount", "Invocations", "Throttles"},
    "AWS/S3": {
        "BucketSizeBytes",
        "NumberOfObjects",
        "OperationsFailedReplication",
        "OperationsPendingReplication",
        "ReplicationLatency",
    },
    "AWS/DynamoDB": {"ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits"},
}
"""Metrics that exist: the pages "CloudWatch metrics" of the developer guides of SQS, Lambda, S3 and DynamoDB."""

OURS = {"service": "stack"}
"""The dimension of the function's metrics."""

ALARMS = {
    "OldestMessageAlarm",
    "DeadLettersAlarm",
    "UnknownEventsAlarm",
    "BundlesAlarm",
    "ReplicationLatencyAlarm",
    "ReplicationFailuresAlarm",
    "FunctionErrorsAlarm",
    "FunctionThrottlesAlarm",
    "NoProgressAlarm",
    "RetriesAlarm",
    "RejectionsAlarm",
    "FilteredAlarm",
    "RepeatsAlarm",
}


# Buckets


def test_bundles_are_versioned_and_copied_to_an_archive_that_is_locked() -> None:
    made = resources(ArchiveLockMode="COMPLIANCE", ArchiveLockDays="7")

    replication, archive = made["Distribution"].properties["ReplicationConfiguration"], made["Archive"].properties

    assert made["Distribution"].properties["VersioningConfiguration"] == {"Status": "Enabled"}
    assert replication == {
        "Role": "arn:aws:iam::123456789012:role/stack-replicationrole",
        "Rules": [
            {
                "Id": "archive",
                "Priority": 1,
                "Status": "Enabled",
                "Filter": {"Prefix": ""},
                "DeleteMarkerReplication": {"Status": "Disabled"},
                "Destination": {"Bucket": "arn:aws:s3:::stack-archive", "Metrics": {"Status": "Enabled"}},
            }
        ],
    }
    assert archive["VersioningConfiguration"] == {"Status": "Enabled"}
    assert archive["ObjectLockEnabled"] is True
    assert archive["ObjectLockConfiguration"] == {
        "ObjectLockEnabled": "Enabled",
        "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 7}},
    }
    assert archive["LifecycleConfiguration"]["Rules"] == [
        {
            "Id": "cold",
            "Status": "Enabled",
            "Transitions": [{"StorageClass": "GLACIER_IR", "TransitionInDays": 90}],
        }
    ]


def test_bundles_stay_until_their_consumers_delete_them_unless_told_otherwise(made: dict[str, Resource]) -> None:
    kept = made["Distribution"].properties["LifecycleConfiguration"]["Rules"]
    expiring = resources(DistributionExpirationDays="7")["Distribution"].properties["LifecycleConfiguration"]["Rules"]

    assert [rule for rule in kept if "ExpirationInDays" in rule] == []
    assert expiring[1:] == [{"Id": "old-bundles", "Status": "Enabled", "ExpirationInDays": 7}]


@pytest.mark.parametrize("bucket", ["Source", "Distribution", "Archive"])
def test_a_bucket_is_private_encrypted_and_takes_only_tls(made: dict[str, Resource], bucket: str) -> None:
    properties, name = made[bucket].properties, made[f"{bucket}Policy"].properties["Bucket"]

    blocks = properties["PublicAccessBlockConfiguration"]
    (encryption,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]

    assert set(blocks.values()) == {True}
    assert len(blocks) == 4
    assert encryption == {"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
    assert properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert policy(made[f"{bucket}Policy"])[0] == {
        "Sid": "OnlyTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


@pytest.mark.parametrize("queue", ["Queue", "DeadLetterQueue"])
def test_a_queue_takes_only_tls(made: dict[str, Resource], queue: str) -> None:
    (denied,) = (each for each in policy(made[f"{queue}Policy"]) if each["Effect"] == "Deny")

    assert made[f"{queue}Policy"].properties["Queues"] == [
        f"https://sqs.us-east-1.amazonaws.com/123456789012/stack-{queue.lower()}"
    ]
    assert (denied["Principal"], denied["Action"], denied["Condition"]) == (
        "*",
        "sqs:*",
        {"Bool": {"aws:SecureTransport": "false"}},
    )


def test_the_function_may_delete_no_bundle_whatever_its_role_says(made: dict[str, Resource]) -> None:
    denied = next(each for each in policy(made["DistributionPolicy"]) if "Function" in each["Sid"])

    assert denied == {
        "Sid": "TheFunctionDeletesNoBundle",
        "Effect": "Deny",
        "Principal": "*",  # not the role itself: a policy that names a deleted role cannot be changed
        "Action": "s3:DeleteObject",
        "Resource": "arn:aws:s3:::stack-distribution/*",
        "Condition": {"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/stack-functionrole"}},
    }
    assert [action for each in statements(made["FunctionRole"]) for action in each["Action"] if "Delete" in action] == [
        "sqs:DeleteMessage"
    ]


@pytest.mark.parametrize("role", ["FunctionRole", "ReplicationRole"])
def test_no_role_is_allowed_anything_on_everything(made: dict[str, Resource], role: str) -> None:
    allowed = [
        *itertools.chain.from_iterable(
            policy["PolicyDocument"]["Statement"] for policy in made[role].properties.get("Policies", [])
        ),
        *policy(made["ReplicationRolePolicy"]),
    ]

    assert [each for each in allowed if each["Resource"] == "*" or any("*" in action for action in actions(each))] == []
    assert "ManagedPolicyArns" not in made[role].properties


def test_replication_may_read_bundles_and_write_replicas_and_no_more(made: dict[str, Resource]) -> None:
    allowed = {(action, each["Resource"]) for each in policy(made["ReplicationRolePolicy"]) for action in actions(each)}

    bundles, archive = "arn:aws:s3:::stack-distribution", "arn:aws:s3:::stack-archive"
    assert allowed == {
        ("s3:GetReplicationConfiguration", bundles),
        ("s3:ListBucket", bundles),
        ("s3:GetObjectVersionForReplication", f"{bundles}/*"),
        ("s3:GetObjectVersionAcl", f"{bundles}/*"),
        ("s3:GetObjectVersionTagging", f"{bundles}/*"),
        ("s3:GetObjectRetention", f"{bundles}/*"),
        ("s3:GetObjectLegalHold", f"{bundles}/*"),
        ("s3:ReplicateObject", f"{archive}/*"),
        ("s3:ReplicateTags", f"{archive}/*"),
    }
    assert made["ReplicationRolePolicy"].properties["Roles"] == ["stack-replicationrole"]


def test_with_keys_of_ones_own_everyone_may_use_them_who_must() -> None:
    made = resources(KmsKeyArn=KEY, SourceKmsKeyArn=SOURCE_KEY)

    (rule,) = made["Distribution"].properties["ReplicationConfiguration"]["Rules"]
    encrypted = {
        name: made[name].properties["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
        for name in ("Source", "Distribution", "Archive")
    }

    assert statement(made["FunctionRole"], "DecryptMembers")["Action"] == ["kms:Decrypt"]
    assert statement(made["FunctionRole"], "DecryptMembers")["Resource"] == SOURCE_KEY
    assert statement(made["FunctionRole"], "EncryptBundles")["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert statement(made["FunctionRole"], "EncryptBundles")["Resource"] == KEY
    assert policy(made["ReplicationRolePolicy"])[-1]["Action"] == ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"]
    assert rule["SourceSelectionCriteria"] == {"SseKmsEncryptedObjects": {"Status": "Enabled"}}
    assert rule["Destination"]["EncryptionConfiguration"] == {"ReplicaKmsKeyID": KEY}
    assert encrypted == {
        name: {
            "BucketKeyEnabled": True,
            "ServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key},
        }
        for name, key in (("Source", SOURCE_KEY), ("Distribution", KEY), ("Archive", KEY))
    }


# Querying


def test_athena_finds_each_hour_of_bundles_without_a_crawler(made: dict[str, Resource]) -> None:
    table = made["BundlesTable"].properties["TableInput"]

    projection = {
        name.removeprefix("projection."): value
        for name, value in table["Parameters"].items()
        if name.startswith("projection.")
    }

    assert table["PartitionKeys"][0]["Name"] == "hour"
    assert table["Parameters"]["storage.location.template"] == "s3://stack-distribution/${hour}/"
    assert projection == {
        "enabled": "true",
        "hour.type": "date",
        "hour.format": "yyyy/MM/dd/HH",
        "hour.interval": "1",
        "hour.interval.unit": "HOURS",
        "hour.range": "2026/01/01/00,NOW",
    }
    assert table["StorageDescriptor"]["Columns"] == [{"Name": "line", "Type": "string"}]
    assert table["StorageDescriptor"]["SerdeInfo"]["Parameters"] == {"serialization.format": "1"}


# Watching


def test_the_alarms_are_those_of_the_design(made: dict[str, Resource]) -> None:
    assert {name for name, resource in made.items() if resource.type == "AWS::CloudWatch::Alarm"} == ALARMS


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_an_alarm_watches_metrics_that_exist(made: dict[str, Resource], name: str) -> None:
    metrics = watched(made[name])

    assert metrics
    for namespace, metric, dimensions in metrics:
        assert metric in (METRICS if namespace == NAMESPACE else AWS_METRICS[namespace])
        assert namespace != NAMESPACE or dimensions in (OURS, {**OURS, "reason": UnknownEventError.reason})


@pytest.mark.parametrize("name", sorted(ALARMS))
def test_an_alarm_says_what_it_means_the_first_thing_to_do_and_where_the_rest_stands(
    made: dict[str, Resource], name: str
) -> None:
    alarm = made[name].properties
    title = alarm["AlarmName"].removeprefix("stack-")
    runbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")

    meaning, _, first = alarm["AlarmDescription"].partition(" First: ")

    assert len(meaning.split()) >= 8
    assert len(first.split()) >= 8
    assert first.endswith(f"Runbook: docs/operations.md, {title}.")
    assert f"\n### {title}\n" in runbook
    assert len(alarm["AlarmDescription"]) <= 1024


def test_the_runbook_knows_every_reason_for_which_a_message_is_given_up() -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = runbook.partition("\n### dead-letters\n")[2].partition("\n### ")[0]

    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", section))

    assert {error.reason for error in PermanentError.__subclasses__()} <= named


def test_alarms_go_to_the_topic_if_there_is_one(made: dict[str, Resource]) -> None:
    topic = "arn:aws:sns:us-east-1:123456789012:alarms"
    told = resources(AlarmTopicArn=topic)

    assert [made[name].properties.get("AlarmActions") for name in sorted(ALARMS)] == [None] * len(ALARMS)
    for name in ALARMS:
        assert told[name].properties["AlarmActions"] == told[name].properties["OKActions"] == [topic]


def test_the_dashboard_answers_four_questions_with_metrics_that_exist(made: dict[str, Resource]) -> None:
    body = json.loads(made["Dashboard"].properties["DashboardBody"])

    headings = [each["properties"]["markdown"] for each in body["widgets"] if each["type"] == "text"]
    series = [line for each in body["widgets"] for line in each["properties"].get("metrics", [])]
    named = {(line[0], line[1]) for line in series if isinstance(line[0], str)}

    assert [re.sub(r"^## ([^?]*\?).*", r"\1", heading) for heading in headings] == [
        "Is it healthy?",
        "Is it keeping up?",
        "What does it cost?",
        "Where is the time?",
    ]
    assert named >= {("AWS/SQS", "ApproximateAgeOfOldestMessage"), (NAMESPACE, "MembersBundled")}
    for namespace, metric in named:
        assert metric in (METRICS if namespace == NAMESPACE else AWS_METRICS[namespace])
    assert len(next(each for each in body["widgets"] if each["type"] == "alarm")["properties"]["alarms"]) == len(ALARMS)


def test_failures_by_reason_and_skips_by_kind_are_on_the_dashboard_whatever_comes(made: dict[str, Resource]) -> None:
    body = made["Dashboard"].properties["DashboardBody"]

    searched = re.findall(r"SEARCH\('\{DataAggregator,(\w+),service\} service=", body)

    assert searched == ["reason", "kind"]


def test_every_phase_that_is_measured_is_on_the_dashboard(made: dict[str, Resource]) -> None:
    body = made["Dashboard"].properties["DashboardBody"]

    measured = {name for name in METRICS if name.endswith("Time")} | {"Duration"}

    assert {name for name in measured if f'"{name}' not in body} == set()
