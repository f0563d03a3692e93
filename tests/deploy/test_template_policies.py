"""What the template denies and to whom: the bucket enforces the commit, whatever a client or a role may do."""

from typing import Any

import pytest

from aggregator.operations.doctor.template import Resource
from tests.support.stack import resources, statements
from tests.support.templates import policy, statement

pytestmark = pytest.mark.once

ACCOUNT = "123456789012"
OURS = {"StringEquals": {"aws:ResourceAccount": ACCOUNT}}
FUNCTION, REPLICATION = (f"arn:aws:iam::{ACCOUNT}:role/stack-{name}" for name in ("functionrole", "replicationrole"))
BUNDLES, REPLICAS = "arn:aws:s3:::stack-distribution/*", "arn:aws:s3:::stack-archive/*"


def test_a_put_that_could_replace_a_bundle_is_denied_to_everybody(made: dict[str, Resource]) -> None:
    """Parts of a multipart upload create no object and cannot have the condition; completing one must have it."""
    denied = _denied(made["DistributionPolicy"], "APutReplacesNothing")

    assert (denied["Principal"], denied["Action"], denied["Resource"]) == ("*", "s3:PutObject", BUNDLES)
    assert denied["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }


def test_a_version_of_a_bundle_is_deleted_by_lifecycle_alone(made: dict[str, Resource]) -> None:
    denied = _denied(made["DistributionPolicy"], "OnlyLifecycleDeletesVersions")

    assert (denied["Principal"], denied["Action"], denied["Resource"]) == ("*", "s3:DeleteObjectVersion", BUNDLES)
    assert "Condition" not in denied


@pytest.mark.parametrize(
    ("worker", "writers"),
    [("", [FUNCTION]), (f"arn:aws:iam::{ACCOUNT}:role/worker", [FUNCTION, f"arn:aws:iam::{ACCOUNT}:role/worker"])],
)
def test_nobody_but_the_aggregator_publishes(worker: str, writers: list[str]) -> None:
    denied = _denied(resources(WorkerRoleArn=worker)["DistributionPolicy"], "OnlyTheAggregatorPublishes")

    assert denied == {
        "Sid": "OnlyTheAggregatorPublishes",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "NotResource": "arn:aws:s3:::stack-distribution/doctor/*",  # the doctor's probe
        "Condition": {"ArnNotEquals": {"aws:PrincipalArn": writers}},
    }


def test_nobody_but_replication_writes_to_the_archive(made: dict[str, Resource]) -> None:
    denied = _denied(made["ArchivePolicy"], "OnlyReplicationWrites")

    assert (denied["Principal"], denied["Action"]) == ("*", ["s3:PutObject", "s3:ReplicateObject"])
    assert denied["Resource"] == REPLICAS
    assert denied["Condition"] == {"ArnNotEquals": {"aws:PrincipalArn": REPLICATION}}


def test_no_policy_names_a_principal_that_removing_the_stack_deletes(made: dict[str, Resource]) -> None:
    """S3 and SQS keep such a policy, with an id instead of the name, and take no change of it any more."""
    policies = [each for each in made.values() if each.type in {"AWS::S3::BucketPolicy", "AWS::SQS::QueuePolicy"}]

    principals = [each["Principal"] for one in policies for each in policy(one)]

    assert [each for each in principals if each != "*" and "Service" not in each] == []


@pytest.mark.parametrize("sid", ["ReadMembers", "TellMissingFromForbidden", "PublishBundles", "FindBundles"])
def test_the_function_uses_buckets_of_its_own_account_alone(made: dict[str, Resource], sid: str) -> None:
    assert statement(made["FunctionRole"], sid)["Condition"] == OURS


def test_a_role_is_assumed_for_this_account_alone_where_aws_says_that_the_service_tells_it() -> None:
    made = resources(InventoryBucketName="reports")

    trusts = {
        name: resource.properties["AssumeRolePolicyDocument"]["Statement"][0].get("Condition")
        for name, resource in made.items()
        if resource.type == "AWS::IAM::Role"
    }

    ours = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    assert trusts == {"FunctionRole": ours, "BackfillRole": ours, "ReplicationRole": None}


def test_no_queue_may_use_ours_for_its_dead_letters(made: dict[str, Resource]) -> None:
    assert made["Queue"].properties["RedriveAllowPolicy"] == {"redrivePermission": "denyAll"}


def test_a_topic_or_a_rule_may_announce_the_objects_instead_of_the_bucket() -> None:
    topic, rule = "arn:aws:sns:us-east-1:123456789012:created", "arn:aws:events:us-east-1:123456789012:rule/created"
    made = resources(SourceBucket="existing", SourceTopicArn=topic, SourceRuleArn=rule)

    allowed = {
        each["Principal"]["Service"]: each["Condition"]["ArnEquals"]["aws:SourceArn"]
        for each in policy(made["QueuePolicy"])
        if each["Effect"] == "Allow"
    }

    assert allowed == {
        "s3.amazonaws.com": "arn:aws:s3:::objects",
        "sns.amazonaws.com": topic,
        "events.amazonaws.com": rule,
    }


def test_no_filter_of_the_mapping_deletes_messages(made: dict[str, Resource]) -> None:
    assert "FilterCriteria" not in made["FunctionQueue"].properties
    assert made["FunctionQueue"].properties["MetricsConfig"] == {"Metrics": ["EventCount"]}
    assert made["FilteredAlarm"].properties["Dimensions"] == [
        {"Name": "EventSourceMappingUUID", "Value": "stack-functionqueue"}
    ]


def test_pollers_of_ones_own_take_the_place_of_the_greatest_concurrency() -> None:
    mapping = resources(ProvisionedPollers="4")["FunctionQueue"].properties

    assert mapping["ProvisionedPollerConfig"] == {"MinimumPollers": 4, "MaximumPollers": 4}
    assert "ScalingConfig" not in mapping


def test_a_new_table_takes_the_writes_that_are_asked_for_from_the_start(made: dict[str, Resource]) -> None:
    warm = resources(LedgerWarmWriteUnits="20000")["Ledger"].properties

    assert warm["WarmThroughput"] == {"WriteUnitsPerSecond": 20_000}
    assert "WarmThroughput" not in made["Ledger"].properties


def test_in_a_vpc_the_function_has_what_lambda_needs_to_attach_it(made: dict[str, Resource]) -> None:
    inside = resources(SubnetIds="subnet-1a,subnet-2b", SecurityGroupIds="sg-3c")

    assert inside["Function"].properties["VpcConfig"] == {
        "SubnetIds": ["subnet-1a", "subnet-2b"],
        "SecurityGroupIds": ["sg-3c"],
    }
    assert statement(inside["FunctionRole"], "AttachToTheVpc")["Resource"] == "*"
    assert "VpcConfig" not in made["Function"].properties
    assert [each for each in statements(made["FunctionRole"]) if each["Sid"] == "AttachToTheVpc"] == []


def test_a_backfill_reads_reports_under_a_key() -> None:
    key = "arn:aws:kms:us-east-1:123456789012:key/three"

    role = resources(InventoryBucketName="reports", InventoryKmsKeyArn=key)["BackfillRole"]

    assert statement(role, "UseTheKeyOfTheReports")["Action"] == ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"]
    assert statement(role, "UseTheKeyOfTheReports")["Resource"] == key


def _denied(resource: Resource, sid: str) -> Any:
    (found,) = (each for each in policy(resource) if each["Sid"] == sid)
    assert found["Effect"] == "Deny"
    return found
