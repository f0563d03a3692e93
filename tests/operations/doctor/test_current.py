"""What the doctor says of this moment, on facts and on answers of AWS that are given."""

import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from aggregator.operations.doctor import current_from_aws
from aggregator.operations.doctor.checks import State
from aggregator.operations.doctor.current import Alarm, Copy, Depth, Names, Symptom, Today, symptoms
from aggregator.operations.doctor.facts import Unknown
from aggregator.operations.doctor.places import Place
from tests.support import ROOT
from tests.support.stack import actions
from tests.support.world import CREDENTIALS

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
QUEUE = "https://sqs.eu-central-1.amazonaws.com/123456789012/in"
DEAD = "https://sqs.eu-central-1.amazonaws.com/123456789012/dead"
BUNDLE = "s3://bundles/2026/11/28/11/a.gz"

WELL = Today(
    names=Names("agg", "agg-function", "uuid", "/logs/agg", "ledger", "bundles"),
    alarms=[Alarm("agg-retries", "OK", NOW, ""), Alarm("agg-bundles", "INSUFFICIENT_DATA", NOW, "")],
    queue=Depth(QUEUE, 12, 3, 1020),
    oldest=40.0,
    retried={},
    dead=Depth(DEAD, 0, 0, 30),
    rejected={},
    bundles=[(BUNDLE, NOW - 180)],
    copies=[Copy(BUNDLE, "PENDING", NOW - 180)],
)


def test_if_nothing_is_wrong_that_is_one_line() -> None:
    assert symptoms(WELL, now=NOW) == [
        Symptom(
            "now",
            State.OK,
            "nothing is wrong: no alarm rings; 12 messages in the queue, 3 in flight; the oldest waits for 40 s; "
            f"no dead letters; the last bundle is 3 min old, {BUNDLE}; 0 of the last 1 bundles are copied",
            "",
        )
    ]


WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "an alarm": (
        {"alarms": [Alarm("agg-retries", "ALARM", NOW - 7_200, "threshold crossed")]},
        "retries",
        "the alarm agg-retries rings since 2026-11-28 10:00 UTC (2 h): threshold crossed",
        "aws logs tail /logs/agg --since 1h --filter-pattern '{ $.message = \"envelopes.retried\" }'",
    ),
    "an alarm of a filter": (
        {"alarms": [Alarm("agg-filtered", "ALARM", NOW - 300, "1 > 0")]},
        "filtered",
        "the alarm agg-filtered rings since 2026-11-28 11:55 UTC (5 min): 1 > 0",
        "aws lambda update-event-source-mapping --uuid uuid --filter-criteria '{}'",
    ),
    "an alarm of somebody else": (
        {"alarms": [Alarm("mine", "ALARM", NOW - 300, "1 > 0")]},
        "mine",
        "the alarm mine rings since 2026-11-28 11:55 UTC (5 min): 1 > 0",
        "read docs/operations.md, mine",
    ),
    "an alarm that somebody deleted": (
        {"alarms": [Alarm("agg-retries", "", 0, "")]},
        "retries",
        "the alarm agg-retries is not there",
        "just drift agg",
    ),
    "a message that waits": (
        {"oldest": 1_701.0, "retried": {"out_of_time": 2, "ledger_unavailable": 1_000}},
        "queue",
        (
            "12 messages in the queue, 3 in flight; the oldest waits for 28 min; messages came back in the last hour "
            "for ledger_unavailable 1,000, out_of_time 2"
        ),
        "aws logs tail /logs/agg --since 1h --filter-pattern '{ $.message = \"envelopes.retried\" }'",
    ),
    "dead letters": (
        {"dead": Depth(DEAD, 1, 0, 30), "rejected": {"missing_object": 5}},
        "dead letters",
        (
            "1 message in the dead-letter queue; rejected in 14 days, counted at each receive: missing_object 5; "
            "the next command hides them while it reads them"
        ),
        f"aggregator redrive --dlq {DEAD} --table ledger --distribution bundles",
    ),
    "a copy that is late": (
        {"copies": [Copy(BUNDLE, "PENDING", NOW - 1_000), Copy(BUNDLE, "COMPLETED", NOW - 2_000)]},
        "copies",
        "1 of the last 2 bundles wait for their copy, the first for 17 min",
        "aws s3api get-bucket-replication --bucket bundles",
    ),
    "a copy that failed": (
        {"copies": [Copy(BUNDLE, "FAILED", NOW)]},
        "copies",
        f"replication of 1 of the last 1 bundles failed, such as {BUNDLE}",
        "aws s3api get-bucket-replication --bucket bundles",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_comes_first_with_the_next_command(what: str) -> None:
    changed, check, says, command = WRONG[what]

    first, *rest = symptoms(WELL._replace(**changed), now=NOW)

    assert first == Symptom(check, State.WRONG, says, command)
    assert [(each.check, each.state) for each in rest] == [("now", State.OK)]
    assert "nothing is wrong" not in rest[0].says


def test_what_is_not_known_is_not_checked_and_never_ok() -> None:
    unknown: Any = dict.fromkeys(
        ("alarms", "queue", "oldest", "dead", "bundles", "copies"), Unknown("x is not allowed")
    )

    found = symptoms(WELL._replace(**unknown), now=NOW)

    assert {(each.state, each.says, each.next) for each in found} == {(State.NOT_CHECKED, "x is not allowed", "")}
    assert [each.check for each in found] == ["alarms", "queue", "dead letters", "last bundle", "copies"]


@pytest.mark.parametrize(
    ("oldest", "why"),
    [(None, "CloudWatch has no figure of the last 15 minutes"), (Unknown("not allowed"), "not allowed")],
)
def test_a_queue_whose_oldest_message_is_not_known_is_not_checked(oldest: Unknown | None, why: str) -> None:
    first, _ = symptoms(WELL._replace(oldest=oldest), now=NOW)

    assert first.state is State.NOT_CHECKED
    assert first.says.endswith(f"the age of the oldest is not known: {why}")


def test_before_the_first_bundle_nothing_is_late() -> None:
    (only,) = symptoms(WELL._replace(bundles=[], copies=[]), now=NOW)

    assert only.says.endswith("; no bundle was published yet; no copy is late")


def test_copies_of_which_s3_says_nothing_are_not_checked() -> None:
    first, _ = symptoms(WELL._replace(copies=[Copy(BUNDLE, "", NOW)]), now=NOW)

    assert first[:3] == ("copies", State.NOT_CHECKED, "S3 gives no replication status for 1 of the last 1 bundles")


PLACE = Place(
    {
        "DISTRIBUTION_BUCKET_NAME": "bundles",
        "ARCHIVE_BUCKET_NAME": "archive",
        "IDEMPOTENCY_TABLE_NAME": "ledger",
        "SERVICE_NAME": "agg",
    },
    "agg-function",
    "uuid",
    QUEUE,
    "objects",
    None,
    None,
    stack="agg",
    log="/logs/agg",
    alarms=["agg-retries", "agg-deleted"],
)


class _Aws:
    """A stub of each client."""

    def __init__(self) -> None:
        self.of = {name: Stubber(boto3.client(name)) for name in ("s3", "sqs", "cloudwatch")}

    def answers(self, service: str, call: str, answer: dict[str, Any]) -> None:
        self.of[service].add_response(call, answer)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> _Aws:
    """AWS, of which each client answers once, in order."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    made = _Aws()
    for stub in made.of.values():
        stub.activate()
    monkeypatch.setattr(boto3, "client", lambda name, **_: made.of[name].client)
    return made


def _attributes(waiting: int) -> dict[str, Any]:
    found = {"ApproximateNumberOfMessages": waiting, "ApproximateNumberOfMessagesNotVisible": 1}
    return {"Attributes": {name: str(value) for name, value in {**found, "VisibilityTimeout": 1020}.items()}}


def test_facts_are_what_aws_answers_and_no_message_is_received(aws: _Aws) -> None:
    at = datetime.fromtimestamp(NOW - 60, UTC)
    alarm = {"AlarmName": "agg-retries", "StateValue": "ALARM", "StateTransitionedTimestamp": at, "StateReason": "why"}
    redrive = json.dumps({"deadLetterTargetArn": "arn:aws:sqs:eu-central-1:123456789012:dead", "maxReceiveCount": 5})
    version = {"Key": "2026/11/28/11/a.gz", "VersionId": "v1", "ETag": '"e"', "Size": 5, "LastModified": at}
    aws.answers("sqs", "get_queue_attributes", _attributes(7))
    aws.answers("sqs", "get_queue_attributes", {"Attributes": {"RedrivePolicy": redrive}})
    aws.answers("sqs", "get_queue_url", {"QueueUrl": DEAD})
    aws.answers("sqs", "get_queue_attributes", _attributes(2))
    for name in ("2026/", "2026/11/", "2026/11/28/", "2026/11/28/11/"):
        aws.answers("s3", "list_object_versions", {"CommonPrefixes": [{"Prefix": name}]})
    aws.answers("s3", "list_object_versions", {"Versions": [{**version, "IsLatest": True}]})
    aws.of["s3"].add_response(
        "head_object",
        {"ReplicationStatus": "COMPLETED"},
        {"Bucket": "bundles", "Key": "2026/11/28/11/a.gz", "VersionId": "v1"},
    )
    aws.of["cloudwatch"].add_response(
        "describe_alarms",
        {"MetricAlarms": [alarm]},
        {"AlarmNames": ["agg-retries", "agg-deleted"], "MaxRecords": 100},
    )
    for values in (
        {"Id": "oldest", "Values": [300.0, 240.0]},
        {"Id": "out_of_time", "Values": [4.0]},
        {"Id": "missing_object", "Values": [1.0, 2.0]},
    ):
        aws.of["cloudwatch"].add_response(
            "get_metric_data",
            {"MetricDataResults": [values]},
            {"MetricDataQueries": ANY, "StartTime": ANY, "EndTime": ANY, "ScanBy": "TimestampDescending"},
        )

    today = current_from_aws.today(PLACE, now=NOW)

    assert today == Today(
        WELL.names,
        [Alarm("agg-retries", "ALARM", NOW - 60, "why"), Alarm("agg-deleted", "", 0, "")],
        Depth(QUEUE, 7, 1, 1020),
        300.0,
        {"out_of_time": 4},
        Depth(DEAD, 2, 1, 1020),
        {"missing_object": 3},
        [("s3://bundles/2026/11/28/11/a.gz", NOW - 60)],
        [Copy("s3://bundles/2026/11/28/11/a.gz", "COMPLETED", NOW - 60)],
    )
    for stub in aws.of.values():
        stub.assert_no_pending_responses()


def test_what_aws_denies_is_not_checked_and_the_action_to_allow_is_named(aws: _Aws) -> None:
    for service, call in (
        ("sqs", "get_queue_attributes"),
        ("sqs", "get_queue_attributes"),
        ("s3", "list_object_versions"),
        ("cloudwatch", "describe_alarms"),
        ("cloudwatch", "get_metric_data"),
        ("cloudwatch", "get_metric_data"),
    ):
        aws.of[service].add_client_error(call, "AccessDenied", http_status_code=403)

    found = symptoms(current_from_aws.today(PLACE, now=NOW), now=NOW)

    assert {each.check: (each.state, each.says) for each in found} == {
        "alarms": (State.NOT_CHECKED, "cloudwatch:DescribeAlarms is not allowed (AccessDenied)"),
        "queue": (State.NOT_CHECKED, "sqs:GetQueueAttributes is not allowed (AccessDenied)"),
        "dead letters": (State.NOT_CHECKED, "sqs:GetQueueAttributes is not allowed (AccessDenied)"),
        "last bundle": (State.NOT_CHECKED, "s3:ListBucketVersions is not allowed (AccessDenied)"),
        "copies": (State.NOT_CHECKED, "s3:ListBucketVersions is not allowed (AccessDenied)"),
    }


def test_where_there_is_no_stack_the_rest_is_said_and_needs_no_name(aws: _Aws) -> None:
    place = PLACE._replace(
        environment={}, queue_url=Unknown("--queue-url is not given"), stack="", log=Unknown("-"), alarms=Unknown("-")
    )

    today = current_from_aws.today(place, now=NOW)

    assert today.names == Names("", "agg-function", "uuid", "", "", "")
    assert today.bundles == today.copies == Unknown("DISTRIBUTION_BUCKET_NAME is not set")
    assert today.dead == Unknown("--queue-url is not given")


def test_who_runs_the_doctor_may_ask_for_all_of_this() -> None:
    policies = json.loads((ROOT / "deploy" / "permissions.json").read_text(encoding="utf-8"))

    allowed = {action for statement in policies["doctor"]["Statement"] for action in actions(statement)}

    assert set(current_from_aws.NEEDS.values()) <= allowed
