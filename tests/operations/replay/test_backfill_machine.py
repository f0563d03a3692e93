"""
The state machine that announces an S3 Inventory report: its form, and what it really sends on the embedded AWS.

Step Functions' own part, reading the report and batching its rows, is written down here as its developer guide has it
("ItemReader", "ItemBatcher"). Every expression runs on the embedded AWS; only the call of SendMessageBatch is made by
the test, with the arguments that the state gives, because the embedded AWS does not pass lists on to SQS.
"""

import copy
import csv
import gzip
import io
import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote_plus

import boto3
import pytest
from cfnlint.api import lint

from aggregator.schemas import BODY, ObjectRef
from tests.support import ROOT
from tests.support.world import World

pytestmark = pytest.mark.once

DEFINITION = (ROOT / "deploy" / "backfill.asl.json").read_text(encoding="utf-8")
COLUMNS = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"

TEMPLATE = """
AWSTemplateFormatVersion: "2010-09-09"
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          - {{Effect: Allow, Action: "sts:AssumeRole", Principal: {{Service: states.amazonaws.com}}}}
  Backfill:
    Type: AWS::StepFunctions::StateMachine
    Properties:
      RoleArn: !GetAtt Role.Arn
      Definition: {definition}
"""


def _substituted(queue_url: str = "https://sqs.us-east-1.amazonaws.com/123456789012/queue") -> dict[str, Any]:
    text = DEFINITION
    values = {"Partition": "aws", "QueueUrl": queue_url, "ReportBucket": "reports"}
    for name, value in values.items():
        text = text.replace(f"${{{name}}}", value)
    definition: dict[str, Any] = json.loads(text)
    return definition


def _states(machine: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every state with its name and the machine it belongs to, those of maps included."""
    for name, state in machine["States"].items():
        yield name, state, machine
        if "ItemProcessor" in state:
            yield from _states(state["ItemProcessor"])


def test_every_state_is_reached_and_leads_somewhere() -> None:
    for name, state, machine in _states(_substituted()):
        nexts = {state.get("Next"), state.get("Default"), *(choice["Next"] for choice in state.get("Choices", []))}
        entered = {machine["StartAt"]}
        for other in machine["States"].values():
            choices = other.get("Choices", [])
            entered |= {other.get("Next"), other.get("Default"), *(choice["Next"] for choice in choices)}

        assert nexts - {None} <= set(machine["States"])
        assert name in entered
        assert (nexts != {None}) != (state.get("End", False) or state["Type"] in {"Fail", "Succeed"})


def test_no_placeholder_is_left_but_those_that_the_template_gives() -> None:
    assert "${" not in json.dumps(_substituted())


def test_cloudformation_takes_the_definition() -> None:
    matches = lint(TEMPLATE.format(definition=json.dumps(_substituted())))

    assert [f"{match.rule.id} {match.message}" for match in matches if match.rule.id != "W3002"] == []


def test_a_report_is_read_by_its_manifest_and_a_hundred_rows_are_one_execution() -> None:
    state = _substituted()["States"]["Each hundred objects"]

    assert state["ItemReader"]["ReaderConfig"] == {"ManifestType": "S3_INVENTORY"}
    assert state["ItemReader"]["Arguments"] == {
        "Bucket": "{% $states.input.bucket %}",
        "Key": "{% $states.input.key %}",
    }
    assert state["ItemBatcher"]["MaxItemsPerBatch"] == 100
    assert state["ItemBatcher"]["MaxInputBytesPerBatch"] < 256 * 1024
    assert state["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "EXPRESS"}
    assert "ResultWriter" in state


Row = tuple[str, ...]


def _row(key: str, version: str = "", latest: str = "true", marker: str = "false", **fields: str) -> Row:
    given = {"size": "3", "storage": "STANDARD", **fields}
    form = quote_plus(key, safe="/")
    return ("source", form, version, latest, marker, given["size"], "2026-11-22T01:02:03.000Z", "e1", given["storage"])


def _report(rows: Sequence[Row]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    return gzip.compress(text.getvalue().encode())


def _batches(report: bytes, schema: str, size: int) -> Iterator[dict[str, Any]]:
    """What Step Functions makes of a report: items whose fields are strings, batched under `Items`."""
    columns = [name.strip() for name in schema.split(",")]
    rows = list(csv.reader(io.StringIO(gzip.decompress(report).decode())))
    items = [dict(zip(columns, row, strict=True)) for row in rows]
    for at in range(0, len(items), size):
        yield {"Items": items[at : at + size]}


class Machine:
    """The child execution of the definition, as a state machine of its own on the embedded AWS, and its queue."""

    def __init__(self, world: World) -> None:
        self.name, self.sqs = world.name, boto3.client("sqs")
        self.states: Any = boto3.session.Session().client("stepfunctions")
        self.url = self.sqs.create_queue(QueueName=world.name)["QueueUrl"]
        self.map = _substituted(self.url)["States"]["Each hundred objects"]
        self.ten = self.map["ItemProcessor"]["States"]["Each ten"]["ItemProcessor"]

    def run(self, states: dict[str, Any], start: str, given: dict[str, Any]) -> tuple[str, Any]:
        """An execution to its end: its status, and its output or error."""
        definition = json.dumps({"QueryLanguage": "JSONata", "StartAt": start, "States": states})
        role, name = "arn:aws:iam::123456789012:role/backfill", f"{self.name}-{uuid.uuid4().hex[:8]}"
        made = self.states.create_state_machine(name=name, definition=definition, roleArn=role)
        started = self.states.start_execution(stateMachineArn=made["stateMachineArn"], input=json.dumps(given))
        ends = time.monotonic() + 30
        while (told := self.states.describe_execution(executionArn=started["executionArn"]))["status"] == "RUNNING":
            assert time.monotonic() < ends
            time.sleep(0.02)
        return told["status"], told["error"] if told["status"] == "FAILED" else json.loads(told["output"])

    def child(self, batch: dict[str, Any]) -> tuple[str, Any]:
        """A child execution up to its calls of SQS; these are then made, with the arguments that it gives."""
        states = copy.deepcopy(self.map["ItemProcessor"]["States"])
        calls = {"Type": "Pass", "Output": self.ten["States"]["Send"]["Arguments"], "End": True}
        states["Each ten"]["ItemProcessor"].update(StartAt="Send", States={"Send": calls})
        del states["Each ten"]["Output"]
        status, told = self.run(states, self.map["ItemProcessor"]["StartAt"], batch)
        for call in told if status == "SUCCEEDED" else ():
            assert len(self.sqs.send_message_batch(**call)["Successful"]) == len(call["Entries"])
        return status, told

    def announce(self, rows: Sequence[Row], schema: str = COLUMNS) -> list[str]:
        """A whole report; how its child executions ended."""
        size = self.map["ItemBatcher"]["MaxItemsPerBatch"]
        return [self.child(batch)[0] for batch in _batches(_report(rows), schema, size)]

    def received(self) -> list[ObjectRef]:
        members: list[ObjectRef] = []
        while messages := self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                members += BODY.validate_json(message["Body"]).objects()
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
        return sorted(members)


@pytest.fixture
def machine(world: World) -> Machine:
    return Machine(world)


KEYS = ("a b+c.json", "deep/er/é 😀.json", "deep/100%.json", 'quo"te,comma', "plain", "tab\there")


@pytest.mark.integration
def test_what_a_report_lists_is_announced_and_what_cannot_be_read_is_not(machine: Machine) -> None:
    rows = [_row(key, version="v1") for key in KEYS]
    rows += [_row("gone", marker="true", size=""), _row("old", latest="false"), _row("folder/", size="0")]
    rows += [_row("cold", storage="GLACIER"), _row("colder", storage="DEEP_ARCHIVE"), _row("empty", size="0")]

    assert machine.announce(rows) == ["SUCCEEDED"]
    expected = [ObjectRef("source", key, 3, "e1", "v1") for key in KEYS] + [ObjectRef("source", "empty", 0, "e1", None)]
    assert machine.received() == sorted(expected)


@pytest.mark.integration
def test_a_report_with_nothing_but_bucket_and_key_is_enough(machine: Machine) -> None:
    assert machine.announce([("source", "a+b"), ("source", "c%2Bd")], "Bucket, Key") == ["SUCCEEDED"]
    assert machine.received() == [ObjectRef("source", "a b"), ObjectRef("source", "c+d")]


@pytest.mark.integration
@pytest.mark.parametrize("count", [1, 10, 11, 101])
def test_each_object_is_sent_once_however_many_there_are(machine: Machine, count: int) -> None:
    ran = machine.announce([_row(f"{at:04}") for at in range(count)])

    assert set(ran) == {"SUCCEEDED"}
    assert [member.key for member in machine.received()] == [f"{at:04}" for at in range(count)]


@pytest.mark.integration
def test_a_batch_of_nothing_that_counts_sends_nothing(machine: Machine) -> None:
    assert machine.announce([_row("folder/", size="0")]) == ["SUCCEEDED"]
    assert machine.received() == []


@pytest.mark.integration
@pytest.mark.parametrize("key", ["a b", "é"])
def test_a_key_that_is_not_encoded_sends_nothing_and_fails(machine: Machine, key: str) -> None:
    told = machine.child({"Items": [{"Bucket": "source", "Key": "fine"}, {"Bucket": "source", "Key": key}]})

    assert told == ("FAILED", "Backfill.KeyNotEncoded")
    assert machine.received() == []


@pytest.mark.integration
@pytest.mark.parametrize(
    ("failed", "left"), [(None, []), ([], []), ([{"Id": "1"}], ["b"]), ([{"Id": "0"}, {"Id": "2"}], ["a", "c"])]
)
def test_what_sqs_did_not_take_of_a_batch_is_what_is_sent_again(
    machine: Machine, failed: list[dict[str, str]] | None, left: list[str]
) -> None:
    text = json.dumps(machine.ten["States"]["Send"]["Output"]).replace("$states.result", "$states.input.result")
    given = {"bodies": ["a", "b", "c"], "attempt": 1, "result": {"Failed": failed} if failed is not None else {}}

    told = machine.run({"Send": {"Type": "Pass", "Output": json.loads(text), "End": True}}, "Send", given)

    assert told == ("SUCCEEDED", {"bodies": left, "attempt": 2})


@pytest.mark.integration
@pytest.mark.parametrize(
    ("given", "ended"),
    [
        ({"bodies": [], "attempt": 5}, ("SUCCEEDED", {"bodies": [], "attempt": 5})),
        ({"bodies": ["a"], "attempt": 5}, ("FAILED", "Backfill.NotSent")),
        ({"bodies": ["a"], "attempt": 0}, ("SUCCEEDED", ["a"])),
    ],
)
def test_sending_ends_when_all_is_sent_or_when_it_was_tried_five_times(
    machine: Machine, given: dict[str, Any], ended: tuple[str, Any]
) -> None:
    again = {"Type": "Pass", "Output": "{% $states.input.bodies %}", "End": True}

    assert machine.run({**machine.ten["States"], "Send": again}, "All sent", given) == ended
