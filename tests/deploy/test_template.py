"""The one template: what it makes agrees with the settings, with itself, and with what the guarantee rests on."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from aggregator.operations.doctor.checks import LARGEST_NOTIFICATION, MEBIBYTE
from aggregator.operations.doctor.template import Resource, Template, TemplateError, read
from aggregator.pipeline.settings import MEGABYTE, SECONDS_PER_DAY, Settings
from tests.support.stack import PATH, REQUIRED, resources, transformed
from tests.support.templates import policy, statement

pytestmark = pytest.mark.once

DOCUMENT = read(PATH)
PARAMETERS = DOCUMENT["Parameters"]


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
        "*",
    }
    assert granted["states:DescribeExecution"].endswith(":execution:stack-backfill:*")
    assert granted["states:RedriveExecution"].endswith(":execution:stack-backfill/*:*")


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
        source_buckets=("objects/",),
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
            "source_buckets",
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
        ({"SourceBucketName": "objects..old"}, "SourceBucketName is 'objects..old': must be the name of an S3 bucket"),
        ({"SourceBucketName": "10.0.0.1"}, "SourceBucketName is '10.0.0.1': must be the name of an S3 bucket"),
        ({"SourcePrefix": "in put/"}, "SourcePrefix is 'in put/': may have letters, digits"),
        ({"SourceSuffix": "*.json"}, "SourceSuffix is '*.json': may have letters, digits"),
        ({"ArchiveLockDays": "36501"}, "ArchiveLockDays is '36501': MinValue 1, MaxValue 36500"),
        ({"Timeout": "60"}, "the template has no parameter Timeout"),
    ],
)
def test_a_combination_that_would_lose_something_is_rejected_by_name(given: dict[str, str], refused: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(refused)):
        Template(DOCUMENT, {**REQUIRED, **given})


def test_what_holds_data_outlives_the_stack() -> None:
    kept = {
        name: resource["DeletionPolicy"]
        for name, resource in DOCUMENT["Resources"].items()
        if resource.get("UpdateReplacePolicy") == "Retain"
    }

    assert kept.pop("Ledger") == "Retain"  # it is protected, so a rollback that deletes it would fail
    assert kept == dict.fromkeys(
        [
            *("Source", "SourcePolicy", "Queue", "QueuePolicy", "DeadLetterQueue", "DeadLetterQueuePolicy"),
            *("Distribution", "DistributionPolicy", "Archive", "ArchivePolicy"),
            *("ReplicationRole", "ReplicationRolePolicy"),
        ],
        "RetainExceptOnCreate",
    )


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
    assert statement(made["FunctionRole"], "ReadMembers")["Resource"] == "arn:aws:s3:::objects/in/*"


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
    allowed = [each for each in policy(made["QueuePolicy"]) if each["Effect"] == "Allow"]

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
    assert visibility + window + timeout < oldest["Threshold"] < 2 * visibility  # then SQS leaves it out of the metric
    silence = made["NoProgressAlarm"].properties
    assert silence["EvaluationPeriods"] * 60 >= timeout + window + 120  # an invocation reports when it ends
    assert errors["DatapointsToAlarm"] == made["RetriesAlarm"].properties["DatapointsToAlarm"] == 2
    assert errors["EvaluationPeriods"] == made["RetriesAlarm"].properties["EvaluationPeriods"]
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
        "MetricsConfig": {"Metrics": ["EventCount"]},
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


def _linted(template: str) -> list[str]:
    """Errors and warnings; the linter is imported here because it takes seconds."""
    from cfnlint.api import ManualArgs, lint

    return [str(match) for match in lint(template, config=ManualArgs(regions=["us-east-1"]))]


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
