"""The doctor, on the template's stack on the embedded AWS: it finds what is wrong, and passes what is right."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from aggregator.bundles.layout import PROBE_KEY
from aggregator.operations.doctor import facts_from_aws as deployment
from aggregator.operations.doctor import places
from aggregator.operations.doctor.checks import CHECKS, Finding, State, diagnose
from aggregator.operations.doctor.facts_from_aws import ACTIONS, FORBIDDEN
from aggregator.operations.doctor.places import DeploymentError
from aggregator.pipeline.swaps import Statements, Swapped, Transactions
from tests.support import ROOT
from tests.support.stack import Stack
from tests.support.stacks import findings_of

pytestmark = [pytest.mark.integration, pytest.mark.once]


def test_without_the_probe_nothing_is_written_and_the_check_is_said_not_to_be_made(stack: Stack) -> None:
    bucket = stack.ids["Distribution"]
    stack.s3.delete_object(Bucket=bucket, Key=PROBE_KEY)

    findings = findings_of(stack, probe=False)

    assert _of(findings, "conditional writes") == (State.NOT_CHECKED, "--no-probe is given")
    assert _of(findings, "replica") == (State.NOT_CHECKED, "--no-probe is given")
    assert "Contents" not in stack.s3.list_objects_v2(Bucket=bucket)


def _set_queue(queue: str, **attributes: str) -> Callable[[Stack], object]:
    changed: Any = attributes
    return lambda stack: stack.sqs.set_queue_attributes(QueueUrl=stack.ids[queue], Attributes=changed)


def _set_environment(**variables: str) -> Callable[[Stack], object]:
    def plant(stack: Stack) -> None:
        boto3.client("lambda").update_function_configuration(
            FunctionName=stack.ids["Function"], Environment={"Variables": {**stack.environment, **variables}}
        )

    return plant


def _set_function(**configuration: Any) -> Callable[[Stack], object]:
    return lambda stack: boto3.client("lambda").update_function_configuration(
        FunctionName=stack.ids["Function"], **configuration
    )


def _set_mapping(**configuration: Any) -> Callable[[Stack], object]:
    return lambda stack: boto3.client("lambda").update_event_source_mapping(
        UUID=stack.ids["FunctionQueue"], **configuration
    )


def _set_notification(*configurations: dict[str, Any]) -> Callable[[Stack], object]:
    def plant(stack: Stack) -> None:
        attributes = stack.sqs.get_queue_attributes(QueueUrl=stack.ids["Queue"], AttributeNames=["QueueArn"])
        arn = attributes["Attributes"]["QueueArn"]
        queues: Any = [{"QueueArn": arn, **each} for each in configurations]
        stack.s3.put_bucket_notification_configuration(
            Bucket=stack.ids["Source"], NotificationConfiguration={"QueueConfigurations": queues}
        )

    return plant


def _own_distribution_as_source(stack: Stack) -> None:
    _set_environment(DISTRIBUTION_BUCKET_NAME=stack.ids["Source"])(stack)


def _other_table(stack: Stack) -> None:
    stack.dynamodb.create_table(
        TableName=f"{stack.name}-other",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "at", "KeyType": "RANGE"}],
        AttributeDefinitions=[
            {"AttributeName": "id", "AttributeType": "S"},
            {"AttributeName": "at", "AttributeType": "N"},
        ],
        BillingMode="PAY_PER_REQUEST",
    )
    _set_environment(IDEMPOTENCY_TABLE_NAME=f"{stack.name}-other")(stack)


def _allow_everything(stack: Stack) -> None:
    document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    _set_role(stack, document)


def _set_role(stack: Stack, document: dict[str, Any]) -> None:
    boto3.client("iam").put_role_policy(
        RoleName=stack.ids["FunctionRole"], PolicyName="function", PolicyDocument=json.dumps(document)
    )


def _no_ttl(stack: Stack) -> None:
    specification: Any = {"Enabled": False, "AttributeName": "expiration"}
    stack.dynamodb.update_time_to_live(TableName=stack.ids["Ledger"], TimeToLiveSpecification=specification)


def _no_versioning(bucket: str) -> Callable[[Stack], object]:
    return lambda stack: stack.s3.put_bucket_versioning(
        Bucket=stack.ids[bucket], VersioningConfiguration={"Status": "Suspended"}
    )


FAULTS: dict[str, tuple[Callable[[Stack], object], set[str], str]] = {
    "a setting is nonsense": (
        _set_environment(COMPRESSION_LEVEL="11"),
        {"settings"},
        "the environment is not complete: COMPRESSION_LEVEL is '11': input should be less than or equal to 9",
    ),
    "the ledger is switched off": (
        _set_environment(POWERTOOLS_IDEMPOTENCY_DISABLED="true"),
        {"ledger"},
        "POWERTOOLS_IDEMPOTENCY_DISABLED is 'true'",
    ),
    "bundles go where objects come from": (
        _own_distribution_as_source,
        {"buckets apart", "versioning", "replication", "permissions", "commit"},
        "source {source}, distribution {source}, archive {archive}",
    ),
    "messages come back too early": (
        _set_queue("Queue", VisibilityTimeout="600"),
        {"visibility time-out"},
        "600 s; six time-outs of 120 s and a window of 60 s are 780 s",
    ),
    "the function takes longer": (
        _set_function(Timeout=300),
        {"visibility time-out"},
        "1020 s; six time-outs of 300 s and a window of 60 s are 1860 s",
    ),
    "members are forgotten too early": (
        _set_environment(IDEMPOTENCY_TTL_DAYS="28"),
        {"idempotency time"},
        "members are remembered for 28 days; queue and dead-letter queue keep messages for 28",
    ),
    "a message is given up at once": (
        lambda stack: _redrive(stack, receives=1),
        {"redrive"},
        "a message is given up after it was received once",
    ),
    "dead letters are kept shorter than messages": (
        _set_queue("DeadLetterQueue", MessageRetentionPeriod="86400"),
        {"dead-letter retention"},
        "kept for 1 days, in the queue for 14; both count from when a message was sent",
    ),
    "notifications may be too long": (
        _set_queue("Queue", MaximumMessageSize="2048"),
        {"message size"},
        "2048 bytes; a notification may have 65536",
    ),
    "single failures are not reported": (
        _set_mapping(FunctionResponseTypes=[]),
        {"partial failures"},
        "off: Lambda deletes the messages of a batch that the handler wants back",
    ),
    "nobody calls the function": (
        _set_mapping(Enabled=False),
        {"event source"},
        "the event source mapping is not enabled: nothing is bundled",
    ),
    "bundles are larger than the storage": (
        _set_environment(MAX_BUNDLE_INPUT_MB="1000"),
        {"storage"},
        "536 MB; one bundle is gathered while another is put, 2000 MB in all",
    ),
    "the table has another key": (
        _other_table,
        {"table key", "table expiry", "permissions"},
        "the key is id HASH S, at RANGE N",
    ),
    "records never expire": (_no_ttl, {"table expiry"}, "records never expire"),
    "bundles are not versioned": (
        _no_versioning("Distribution"),
        {"versioning"},
        "off: a bundle that a consumer deletes at once may be made again",
    ),
    "the archive is not versioned": (
        _no_versioning("Archive"),
        {"replication"},
        "bundles are copied to {archive}, which is not versioned",
    ),
    "deleted bundles go too early": (
        lambda stack: stack.set_noncurrent_days(7),
        {"deleted bundles"},
        "deleted bundles are kept for 7 days; messages may come back for 28",
    ),
    "nothing is copied": (
        lambda stack: stack.set_replication("Disabled"),
        {"replication"},
        "no enabled rule copies all bundles to {archive}",
    ),
    "the source does not notify": (
        _set_notification(),
        {"notification"},
        "the source bucket does not notify the queue",
    ),
    "the source notifies of other keys": (
        _set_notification(
            {
                "Events": ["s3:ObjectCreated:*"],
                "Filter": {"Key": {"FilterRules": [{"Name": "suffix", "Value": ".csv"}]}},
            }
        ),
        {"notification"},
        "s3:ObjectCreated:* of keys *.csv",
    ),
    "the source notifies of some ways to create": (
        _set_notification({"Events": ["s3:ObjectCreated:Put"]}),
        {"notification"},
        "s3:ObjectCreated:Put of keys *",
    ),
    "the function may do too much and too little": (
        _allow_everything,
        {"permissions"},
        f"the function lacks {', '.join((*ACTIONS['queue'], *ACTIONS['table']))}; may {', '.join(FORBIDDEN)}",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_doctor_finds_a_planted_fault_and_nothing_else(stack: Stack, fault: str) -> None:
    plant, wrong, says = FAULTS[fault]
    plant(stack)

    findings = findings_of(stack)

    found = {finding.check: finding for finding in findings if finding.state is State.WRONG}
    assert set(found) == wrong
    assert says.format(source=stack.ids["Source"], archive=stack.ids["Archive"]) in {
        each.says for each in found.values()
    }
    assert all(finding.fix == CHECKS[check][1] for check, finding in found.items())


def test_a_queue_without_dead_letters_is_wrong_and_what_depends_on_them_is_not_checked(stack: Stack) -> None:
    stack.sqs.set_queue_attributes(QueueUrl=stack.ids["Queue"], Attributes={"RedrivePolicy": ""})

    findings = findings_of(stack)

    assert _of(findings, "redrive") == (
        State.WRONG,
        "the queue has no dead-letter queue: a bad message comes back until it expires",
    )
    for check in ("idempotency time", "dead-letter retention", "deleted bundles"):
        assert _of(findings, check) == (State.NOT_CHECKED, "there is no dead-letter queue")


def test_what_aws_refuses_to_tell_is_not_checked(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = boto3.client("iam")
    stubber = Stubber(refused)
    stubber.add_client_error("simulate_principal_policy", "AccessDenied", http_status_code=403)
    stubber.activate()
    client = boto3.client
    monkeypatch.setattr(boto3, "client", lambda name, **options: refused if name == "iam" else client(name, **options))

    findings = findings_of(stack)

    assert _of(findings, "permissions") == (
        State.NOT_CHECKED,
        "SimulatePrincipalPolicy is answered AccessDenied",
    )


def test_what_is_named_and_not_there_is_wrong_and_so_is_what_needs_it(stack: Stack) -> None:
    environment = {**stack.environment, "IDEMPOTENCY_TABLE_NAME": "no-such-table"}
    place = places.of_environment(environment, queue_url=stack.ids["Queue"] + "-not", source="no-such-bucket")

    findings = diagnose(deployment.facts(place._replace(function="nobody"), probe=True, now=time.time))

    wrong = {finding.check: (finding.says, finding.fix) for finding in findings if finding.state is State.WRONG}
    queue, table = "GetQueueAttributes is answered ", "DescribeTable is answered ResourceNotFoundException"
    fix = "make it, or name the one that is meant"
    assert {says.partition("AWS.")[0] for says, _ in wrong.values()} == {
        queue,
        table,
        "GetFunctionConfiguration is answered ResourceNotFoundException",
        "GetBucketLocation is answered NoSuchBucket",
    }
    assert {check for check, (says, _) in wrong.items() if says == table} == {
        "table key",
        "table expiry",
        "ledger writes",
    }
    assert {fix for _, fix in wrong.values()} == {fix}
    assert wrong["redrive"][0].startswith(queue)
    assert wrong["notification"][0].startswith(queue)


def test_a_bucket_that_is_not_there_is_wrong(stack: Stack) -> None:
    environment = {**stack.environment, "DISTRIBUTION_BUCKET_NAME": "no-such-bucket"}
    place = places.of_environment(environment, queue_url=stack.ids["Queue"], source="no-such-source")

    findings = diagnose(deployment.facts(place, probe=True, now=time.time))

    for check in ("versioning", "conditional writes", "notification", "clock"):
        assert _of(findings, check)[0] is State.WRONG


@pytest.mark.parametrize("credentials", [True, False])
def test_an_aws_that_answers_nothing_is_a_call_that_could_not_be_carried_out(
    monkeypatch: pytest.MonkeyPatch, *, credentials: bool
) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it remembers credentials
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing") if credentials else monkeypatch.delenv(name, raising=False)
    place = places.of_environment({"DISTRIBUTION_BUCKET_NAME": "d"}, queue_url=None, source=None)

    with pytest.raises(DeploymentError, match="AWS answers none of the questions: ") as refused:
        deployment.facts(place, probe=True, now=time.time)

    assert ("no connection to http://127.0.0.1:9/" if credentials else "there are no credentials") in str(refused.value)


def test_copies_that_failed_are_found(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = boto3.client("cloudwatch")
    stubber = Stubber(figures)
    stubber.add_response("get_metric_statistics", {"Label": "", "Datapoints": [{"Sum": 3.0}]})
    stubber.activate()
    client = boto3.client
    monkeypatch.setattr(
        boto3, "client", lambda name, **options: figures if name == "cloudwatch" else client(name, **options)
    )

    findings = findings_of(stack)

    assert _of(findings, "replicas") == (State.WRONG, "3 bundles failed to reach the archive in the last day")


def test_a_clock_that_is_wrong_is_found(stack: Stack) -> None:
    place = places.of_stack(stack.name)

    findings = diagnose(deployment.facts(place, probe=False, now=lambda: time.time() + 60))

    assert _of(findings, "clock")[0] is State.WRONG


def test_a_store_that_ignores_if_none_match_is_found(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client

    def deaf(name: str, **options: Any) -> Any:
        made = client(name, **options)  # type: ignore[call-overload]
        if name == "s3":
            made.meta.events.register(
                "before-sign.s3.PutObject", lambda request, **_: request.headers.__delitem__("If-None-Match")
            )
        return made

    monkeypatch.setattr(boto3, "client", deaf)

    findings = findings_of(stack)

    assert _of(findings, "conditional writes") == (
        State.WRONG,
        "a second put with If-None-Match was answered 200",
    )


@pytest.mark.parametrize(
    ("writes", "ignored", "state"),
    [
        ("auto", {Statements, Transactions}, State.WRONG),
        ("auto", {Statements}, State.OK),
        ("statements", {Statements}, State.WRONG),
        ("transactions", {Statements}, State.OK),
    ],
)
def test_a_ledgers_store_that_ignores_conditions_is_found(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, writes: str, ignored: set[Any], state: State
) -> None:
    for way in ignored:
        monkeypatch.setattr(way, "request", lambda _, swaps: Swapped([swap.id for swap in swaps], {}, {}, {}))
    environment = {**stack.environment, "LEDGER_WRITES": writes}
    place = places.of_environment(environment, queue_url=stack.ids["Queue"], source=stack.ids["Source"])

    findings = diagnose(deployment.facts(place, probe=True, now=time.time))

    assert _of(findings, "ledger writes")[0] is state


def test_what_runs_without_lambda_is_looked_at_by_its_environment(stack: Stack) -> None:
    place = places.of_environment(stack.environment, queue_url=stack.ids["Queue"], source=stack.ids["Source"])

    findings = diagnose(deployment.facts(place, probe=True, now=time.time))

    unchecked = {finding.check for finding in findings if finding.state is State.NOT_CHECKED}
    assert [finding for finding in findings if finding.state is State.WRONG] == []
    assert unchecked == {
        "visibility time-out",
        "partial failures",
        "event source",
        "filters",
        "function state",
        "storage",
        "replicas",
        "permissions",
    }


def test_a_stack_that_is_not_there_is_a_wrong_call(stack: Stack) -> None:
    with pytest.raises(DeploymentError, match="the stack nowhere cannot be looked at"):
        places.of_stack("nowhere")


def test_the_command_prints_a_line_for_each_check_and_ends_with_what_it_found(stack: Stack) -> None:
    well = _doctor("--stack", stack.name)
    stack.set_replication("Disabled")
    ill = _doctor("--stack", stack.name, "--json")
    wrong = _doctor("--stack", "nowhere")

    *now, rest = [line.split("\t")[:2] for line in well.stdout.splitlines()[: -len(CHECKS)]]
    assert (well.returncode, now, rest) == (0, [["alarms", "not checked"], ["queue", "not checked"]], ["now", "ok"])
    assert "30 ok, 3 not checked" in well.stderr
    assert ill.returncode == 1
    assert {each["check"]: each["state"] for each in json.loads(ill.stdout)["checks"]}["replication"] == "wrong"
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("aggregator: the stack nowhere cannot be looked at")


def _redrive(stack: Stack, *, receives: int) -> None:
    attributes = stack.sqs.get_queue_attributes(QueueUrl=stack.ids["DeadLetterQueue"], AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": attributes["Attributes"]["QueueArn"], "maxReceiveCount": receives}
    _set_queue("Queue", RedrivePolicy=json.dumps(policy))(stack)


def _of(findings: list[Finding], check: str) -> tuple[State, str]:
    (finding,) = (each for each in findings if each.check == check)
    return finding.state, finding.says


def _doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aggregator", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=dict(os.environ))
