"""The one template: what it makes agrees with the settings, with itself, and with what the guarantee rests on."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from aggregator.exceptions import PermanentError, UnknownEventError
from aggregator.operations.doctor.checks import LARGEST_NOTIFICATION, MEBIBYTE
from aggregator.operations.doctor.template import Resource, Template, TemplateError, read
from aggregator.pipeline.settings import MEGABYTE, SECONDS_PER_DAY, Settings
from aggregator.pipeline.telemetry import METRICS, NAMESPACE
from tests.support import ROOT
from tests.support.stack import PATH, REQUIRED, actions, resources, statements, transformed, watched

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
    "AWS/Lambda": {"ConcurrentExecutions", "Duration", "Errors", "Invocations", "Throttles"},
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
    "RepeatsAlarm",
}

DOCUMENT = read(PATH)
PARAMETERS = DOCUMENT["Parameters"]


@pytest.fixture(scope="module")
def made() -> dict[str, Resource]:
    """The resources that the defaults make."""
    return resources()


# What it says


@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_the_linter_says_nothing_of_the_template(architecture: str) -> None:
    assert _linted(PATH.read_text().replace("arm64", architecture)) == []


def test_the_linter_says_nothing_of_what_the_transform_makes_of_it() -> None:
    assert _linted(json.dumps(transformed())) == []


def test_the_linter_would_say_something() -> None:
    faulty = PATH.read_text().replace("HasTopic: ", "HasNoTopic: ").replace("MemorySize: ", "Memory: ")

    assert {match[1:6] for match in _linted(faulty)} == {"E1028", "E3002", "W8001"}


def test_one_word_chooses_the_architecture_and_with_it_the_package(tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(PATH.read_text().replace("arm64", "x86_64"))

    function = read(tmp_path / "template.yaml")["Resources"]["Function"]["Properties"]

    assert (function["Architectures"], function["CodeUri"]) == (["x86_64"], "../build/lambda-x86_64.zip")


def test_the_machine_for_backfills_is_there_only_with_a_bucket_of_reports(made: dict[str, Resource]) -> None:
    wanted = resources(InventoryBucketName="reports")

    (statements,) = (policy["PolicyDocument"]["Statement"] for policy in wanted["BackfillRole"].properties["Policies"])
    granted = {action: statement["Resource"] for statement in statements for action in _listed(statement["Action"])}
    assert set(wanted) - set(made) == {"Backfill", "BackfillRole"}
    assert wanted["Backfill"].properties["DefinitionSubstitutions"]["ReportBucket"] == "reports"
    assert {action: resource for action, resource in granted.items() if action.startswith("s3:")} == {
        "s3:GetObject": "arn:aws:s3:::reports/*",
        "s3:PutObject": "arn:aws:s3:::reports/backfill/*",
        "s3:ListMultipartUploadParts": "arn:aws:s3:::reports/backfill/*",
        "s3:AbortMultipartUpload": "arn:aws:s3:::reports/backfill/*",
    }
    assert {granted[action].rpartition(":")[2] for action in granted if action.startswith("states:")} == {
        "stack-backfill",
        "stack-backfill/*",
    }


def test_what_the_definition_leaves_open_is_filled_in() -> None:
    definition = (PATH.parent / "backfill.asl.json").read_text(encoding="utf-8")

    given = DOCUMENT["Resources"]["Backfill"]["Properties"]["DefinitionSubstitutions"]
    assert set(re.findall(r"\$\{(\w+)\}", definition)) == set(given)


def test_the_environment_is_the_settings(made: dict[str, Resource]) -> None:
    variables = made["Function"].properties["Environment"]["Variables"]

    settings = Settings.from_env({name: str(value) for name, value in variables.items()})

    assert set(variables) == {name.upper() for name in Settings.model_fields} | {"MALLOC_ARENA_MAX"}
    assert settings == Settings(
        distribution_bucket_name="stack-distribution",
        service_name="stack",
        idempotency_table_name="stack-ledger",
        idempotency_ttl_days=30,
        log_level="INFO",
        archive_bucket_name="stack-archive",
    )


@pytest.mark.parametrize("name", sorted(set(Settings.model_fields)))
def test_a_parameter_allows_only_what_its_setting_allows(name: str) -> None:
    parameter = PARAMETERS.get("".join(word.capitalize() for word in name.split("_")))
    if parameter is None:
        assert name in {
            "distribution_bucket_name",
            "service_name",
            "idempotency_table_name",
            "archive_bucket_name",
            "ledger_writes",
        }
        return
    field = Settings.model_fields[name]

    for value in _extremes(parameter):
        Settings.from_env({**_complete(), name.upper(): str(value)})
    assert field.is_required() or parameter["Default"] == field.default


def test_a_parameter_that_is_one_of_few_words_offers_all_that_the_setting_has() -> None:
    for name, parameter in (("idempotency_scope", "IdempotencyScope"), ("bundle_framing", "BundleFraming")):
        assert PARAMETERS[parameter]["AllowedValues"] == _words(Settings.model_fields[name])


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"IdempotencyTtlDays": "28"}, "IdempotencyTtlDays is '28': must be more than the 28 days"),
        ({"MaxReceiveCount": "4"}, "MaxReceiveCount is '4': must be at least 5"),
        ({"FunctionTimeoutSeconds": "90"}, "FunctionTimeoutSeconds is '90': AllowedValues"),
        ({"BatchingWindowSeconds": "301"}, "BatchingWindowSeconds is '301': MinValue 1, MaxValue 300"),
        ({"MaxBundleInputMb": "5000"}, "MaxBundleInputMb is '5000': AllowedValues"),
        ({"LedgerCapacity": "500"}, "LedgerCapacity is '500': AllowedValues"),
        ({"SourceBucketName": "My_Objects"}, "SourceBucketName is 'My_Objects': must be the name of an S3 bucket"),
        ({"KmsKeyArn": "alias/mine"}, "KmsKeyArn is 'alias/mine': is not such a value"),
        ({"Timeout": "60"}, "the template has no parameter Timeout"),
    ],
)
def test_a_combination_that_would_lose_something_is_rejected_by_name(given: dict[str, str], refused: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(refused)):
        Template(DOCUMENT, {**REQUIRED, **given})


def test_what_holds_data_outlives_the_stack() -> None:
    kept = {
        name
        for name, resource in DOCUMENT["Resources"].items()
        if resource.get("DeletionPolicy") == resource.get("UpdateReplacePolicy") == "Retain"
    }

    assert kept == {"Source", "Queue", "DeadLetterQueue", "Ledger", "Distribution", "Archive"}


def test_every_parameter_stands_in_a_group_of_the_console() -> None:
    groups = DOCUMENT["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]

    assert sorted(itertools.chain.from_iterable(group["Parameters"] for group in groups)) == sorted(PARAMETERS)


# FetchedObject and queue


def test_every_created_object_is_announced_to_the_queue(made: dict[str, Resource]) -> None:
    queue = "arn:aws:sqs:us-east-1:123456789012:stack-queue"

    assert made["Source"].properties["BucketName"] == "objects"
    assert made["Source"].properties["NotificationConfiguration"] == {
        "QueueConfigurations": [{"Event": "s3:ObjectCreated:*", "Queue": queue}]
    }
    assert DOCUMENT["Resources"]["Source"]["DependsOn"] == "QueuePolicy"


def test_prefix_and_suffix_choose_the_objects_and_bound_what_is_read() -> None:
    made = resources(SourcePrefix="in/", SourceSuffix=".json")

    (notification,) = made["Source"].properties["NotificationConfiguration"]["QueueConfigurations"]

    assert notification["Filter"] == {
        "S3Key": {"Rules": [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".json"}]}
    }
    assert _statement(made["FunctionRole"], "ReadMembers")["Resource"] == "arn:aws:s3:::objects/in/*"


def test_a_bucket_of_ones_own_needs_one_command_which_is_said() -> None:
    template = Template(transformed(), {"SourceBucketName": "ours", "SourceBucket": "existing"})

    command = template.outputs["NotificationCommand"]

    assert {"Source", "SourcePolicy"} & set(template.resources) == set()
    assert command.startswith("aws s3api put-bucket-notification-configuration --bucket ours ")
    assert json.loads(command.split("'")[1]) == {
        "QueueConfigurations": [
            {"QueueArn": "arn:aws:sqs:us-east-1:123456789012:stack-queue", "Events": ["s3:ObjectCreated:*"]}
        ]
    }


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        ({"SourcePrefix": "in/"}, [{"Name": "prefix", "Value": "in/"}]),
        ({"SourceSuffix": ".json"}, [{"Name": "suffix", "Value": ".json"}]),
        (
            {"SourcePrefix": "in/", "SourceSuffix": ".json"},
            [{"Name": "prefix", "Value": "in/"}, {"Name": "suffix", "Value": ".json"}],
        ),
    ],
)
def test_the_command_for_a_bucket_of_ones_own_has_the_filter(given: dict[str, str], rules: list[Any]) -> None:
    template = Template(transformed(), {"SourceBucketName": "ours", "SourceBucket": "existing", **given})

    (notification,) = json.loads(template.outputs["NotificationCommand"].split("'")[1])["QueueConfigurations"]

    assert notification["Filter"] == {"Key": {"FilterRules": rules}}


@pytest.mark.parametrize(("scope", "versioning"), [("key", None), ("version", {"Status": "Enabled"})])
def test_a_source_whose_versions_are_members_has_versions(scope: str, versioning: object) -> None:
    assert resources(IdempotencyScope=scope)["Source"].properties.get("VersioningConfiguration") == versioning


def test_only_the_source_bucket_may_send_to_the_queue(made: dict[str, Resource]) -> None:
    allowed = [each for each in _policy(made["QueuePolicy"]) if each["Effect"] == "Allow"]

    assert allowed == [
        {
            "Sid": "NotificationsOfTheSource",
            "Effect": "Allow",
            "Principal": {"Service": "s3.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": "arn:aws:sqs:us-east-1:123456789012:stack-queue",
            "Condition": {
                "ArnEquals": {"aws:SourceArn": "arn:aws:s3:::objects"},
                "StringEquals": {"aws:SourceAccount": "123456789012"},
            },
        }
    ]


def test_a_message_is_given_up_after_five_receives_and_kept_as_long_as_possible(made: dict[str, Resource]) -> None:
    queue, dead_letters = made["Queue"].properties, made["DeadLetterQueue"].properties

    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:stack-deadletterqueue",
        "maxReceiveCount": 5,
    }
    assert queue["MessageRetentionPeriod"] == dead_letters["MessageRetentionPeriod"] == 14 * SECONDS_PER_DAY
    assert min(queue["MaximumMessageSize"], dead_letters["MaximumMessageSize"]) >= LARGEST_NOTIFICATION
    assert queue["SqsManagedSseEnabled"] is dead_letters["SqsManagedSseEnabled"] is True


@pytest.mark.parametrize("timeout", PARAMETERS["FunctionTimeoutSeconds"]["AllowedValues"])
def test_a_message_stays_invisible_for_six_time_outs_and_the_longest_window(timeout: int) -> None:
    made = resources(FunctionTimeoutSeconds=str(timeout))

    longest = PARAMETERS["BatchingWindowSeconds"]["MaxValue"]

    assert made["Function"].properties["Timeout"] == timeout
    assert made["Queue"].properties["VisibilityTimeout"] >= 6 * timeout + longest


def test_nothing_may_come_back_once_it_is_forgotten() -> None:
    made = resources(IdempotencyTtlDays=str(PARAMETERS["IdempotencyTtlDays"]["MinValue"]))

    redelivered = sum(made[name].properties["MessageRetentionPeriod"] for name in ("Queue", "DeadLetterQueue"))
    days = int(made["Function"].properties["Environment"]["Variables"]["IDEMPOTENCY_TTL_DAYS"])

    assert days * SECONDS_PER_DAY > redelivered
    assert made["Distribution"].properties["LifecycleConfiguration"]["Rules"][0] == {
        "Id": "deleted-bundles",
        "Status": "Enabled",
        "NoncurrentVersionExpiration": {"NoncurrentDays": days},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }


@pytest.mark.parametrize("timeout", PARAMETERS["FunctionTimeoutSeconds"]["AllowedValues"])
def test_an_alarm_waits_for_what_comes_back_by_itself_and_sees_what_dies_again_and_again(timeout: int) -> None:
    made = resources(FunctionTimeoutSeconds=str(timeout))

    visibility, window = made["Queue"].properties["VisibilityTimeout"], PARAMETERS["BatchingWindowSeconds"]["MaxValue"]
    oldest, errors = made["OldestMessageAlarm"].properties, made["FunctionErrorsAlarm"].properties
    assert oldest["Threshold"] == max(3_600, 3 * visibility)
    assert errors["DatapointsToAlarm"] == 2
    assert (errors["EvaluationPeriods"] - 1) * errors["Period"] >= visibility + window
    assert errors["EvaluationPeriods"] * errors["Period"] <= SECONDS_PER_DAY  # the most that CloudWatch takes


def test_bundles_that_are_fetched_and_deleted_raise_no_alarm(made: dict[str, Resource]) -> None:
    mapping = made["FunctionQueue"].properties
    a_day = (
        mapping["ScalingConfig"]["MaximumConcurrency"] * SECONDS_PER_DAY // mapping["MaximumBatchingWindowInSeconds"]
    )
    (rule, *_) = made["Distribution"].properties["LifecycleConfiguration"]["Rules"]
    days = rule["NoncurrentVersionExpiration"]["NoncurrentDays"]

    kept = 2 * a_day * (days + 1)  # a version and a delete marker

    assert kept == 892_800
    assert made["BundlesAlarm"].properties["Threshold"] > kept


# Function and ledger


def test_the_function_takes_batches_and_gives_back_single_messages(made: dict[str, Resource]) -> None:
    assert made["FunctionQueue"].properties == {
        "BatchSize": 10_000,
        "EventSourceArn": "arn:aws:sqs:us-east-1:123456789012:stack-queue",
        "FunctionName": "stack-function",
        "MaximumBatchingWindowInSeconds": 60,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "ScalingConfig": {"MaximumConcurrency": 10},
    }
    assert (made["Function"].properties["Handler"], made["Function"].properties["Runtime"]) == (
        "aggregator.app.handler",
        "python3.13",
    )


@pytest.mark.parametrize("megabytes", PARAMETERS["MaxBundleInputMb"]["AllowedValues"])
def test_two_bundles_that_do_not_compress_fit_into_the_storage_with_room_to_spare(megabytes: int) -> None:
    function = resources(MaxBundleInputMb=str(megabytes))["Function"].properties

    assert function["EphemeralStorage"]["Size"] * MEBIBYTE >= 1.05 * 2 * megabytes * MEGABYTE
    assert function["Environment"]["Variables"]["MAX_BUNDLE_INPUT_MB"] == megabytes


def test_log_lines_are_kept_for_as_long_as_messages_may_come_back(made: dict[str, Resource]) -> None:
    assert made["FunctionLogs"].properties == {"RetentionInDays": 90}
    assert made["Function"].properties["LoggingConfig"] == {"LogGroup": "stack-functionlogs"}


def test_the_ledger_expires_by_itself_and_survives_mistakes(made: dict[str, Resource]) -> None:
    assert made["Ledger"].properties == {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "TimeToLiveSpecification": {"AttributeName": "expiration", "Enabled": True},
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
        "DeletionProtectionEnabled": True,
    }


@pytest.mark.parametrize("most", PARAMETERS["LedgerCapacity"]["AllowedValues"][1:])
def test_what_is_provisioned_follows_the_use_between_bounds_that_one_parameter_sets(most: str) -> None:
    made = resources(LedgerCapacity=most)

    least = int(most) // 20
    assert made["Ledger"].properties["BillingMode"] == "PROVISIONED"
    assert made["Ledger"].properties["ProvisionedThroughput"] == {
        "ReadCapacityUnits": least,
        "WriteCapacityUnits": least,
    }
    for kind in ("Read", "Write"):
        target, policy = made[f"Ledger{kind}s"].properties, made[f"Ledger{kind}sPolicy"].properties
        assert (target["MinCapacity"], target["MaxCapacity"]) == (least, int(most))
        assert target["ResourceId"] == "table/stack-ledger"
        assert target["ScalableDimension"] == f"dynamodb:table:{kind}CapacityUnits"
        assert policy["ScalingTargetId"] == f"stack-ledger{kind.lower()}s"
        assert policy["TargetTrackingScalingPolicyConfiguration"] == {
            "TargetValue": 70,
            "PredefinedMetricSpecification": {"PredefinedMetricType": f"DynamoDB{kind}CapacityUtilization"},
        }


def test_on_demand_nothing_scales(made: dict[str, Resource]) -> None:
    provisioned = set(resources(LedgerCapacity="4000"))

    assert provisioned - set(made) == {"LedgerWrites", "LedgerWritesPolicy", "LedgerReads", "LedgerReadsPolicy"}


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
    assert _policy(made[f"{bucket}Policy"])[0] == {
        "Sid": "OnlyTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }


@pytest.mark.parametrize("queue", ["Queue", "DeadLetterQueue"])
def test_a_queue_takes_only_tls(made: dict[str, Resource], queue: str) -> None:
    (denied,) = (each for each in _policy(made[f"{queue}Policy"]) if each["Effect"] == "Deny")

    assert made[f"{queue}Policy"].properties["Queues"] == [
        f"https://sqs.us-east-1.amazonaws.com/123456789012/stack-{queue.lower()}"
    ]
    assert (denied["Principal"], denied["Action"], denied["Condition"]) == (
        "*",
        "sqs:*",
        {"Bool": {"aws:SecureTransport": "false"}},
    )


def test_the_function_may_delete_no_bundle_whatever_its_role_says(made: dict[str, Resource]) -> None:
    denied = next(each for each in _policy(made["DistributionPolicy"]) if "Function" in each["Sid"])

    assert denied == {
        "Sid": "TheFunctionDeletesNoBundle",
        "Effect": "Deny",
        "Principal": {"AWS": "arn:aws:iam::123456789012:role/stack-functionrole"},
        "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
        "Resource": "arn:aws:s3:::stack-distribution/*",
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
        *_policy(made["ReplicationRolePolicy"]),
    ]

    assert [each for each in allowed if each["Resource"] == "*" or any("*" in action for action in actions(each))] == []
    assert "ManagedPolicyArns" not in made[role].properties


def test_replication_may_read_bundles_and_write_replicas_and_no_more(made: dict[str, Resource]) -> None:
    allowed = {
        (action, each["Resource"]) for each in _policy(made["ReplicationRolePolicy"]) for action in actions(each)
    }

    bundles, archive = "arn:aws:s3:::stack-distribution", "arn:aws:s3:::stack-archive"
    assert allowed == {
        ("s3:GetReplicationConfiguration", bundles),
        ("s3:ListBucket", bundles),
        ("s3:GetObjectVersionForReplication", f"{bundles}/*"),
        ("s3:GetObjectVersionAcl", f"{bundles}/*"),
        ("s3:GetObjectVersionTagging", f"{bundles}/*"),
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

    assert _statement(made["FunctionRole"], "DecryptMembers")["Action"] == ["kms:Decrypt"]
    assert _statement(made["FunctionRole"], "DecryptMembers")["Resource"] == SOURCE_KEY
    assert _statement(made["FunctionRole"], "EncryptBundles")["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert _statement(made["FunctionRole"], "EncryptBundles")["Resource"] == KEY
    assert _policy(made["ReplicationRolePolicy"])[-1]["Action"] == ["kms:Decrypt", "kms:Encrypt"]
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


def _linted(template: str) -> list[str]:
    """Errors and warnings; the linter is imported here because it takes seconds."""
    from cfnlint.api import ManualArgs, lint

    return [str(match) for match in lint(template, config=ManualArgs(regions=["us-east-1"]))]


def _statement(role: Resource, sid: str) -> Any:
    (statement,) = (each for each in statements(role) if each["Sid"] == sid)
    return statement


def _policy(resource: Resource) -> list[Any]:
    return list(resource.properties["PolicyDocument"]["Statement"])


def _extremes(parameter: dict[str, Any]) -> list[Any]:
    bounds = [parameter[name] for name in ("Default", "MinValue", "MaxValue") if name in parameter]
    return [*bounds, *parameter.get("AllowedValues", [])]


def _complete() -> dict[str, str]:
    variables = resources()["Function"].properties["Environment"]["Variables"]
    return {name: str(value) for name, value in variables.items()}


def _words(field: FieldInfo) -> list[Any]:
    return list(field.annotation.__args__)  # type: ignore[union-attr]  # a Literal


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
