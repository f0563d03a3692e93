"""
The template's stack on the embedded AWS: the handler runs in it with the environment it gives, and the doctor finds
what is wrong with it.
"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from aggregator import app
from aggregator.bundles.layout import PROBE_KEY
from aggregator.operations.doctor.checks import CHECKS, State
from aggregator.pipeline.telemetry import NAMESPACE
from aggregator.reader import Bundle
from aggregator.runtimes.polling import EventSourceMapping, LocalContext
from tests.support import ROOT
from tests.support.stack import Stack, watched
from tests.support.stacks import findings_of
from tests.support.world import log_lines

pytestmark = [pytest.mark.integration, pytest.mark.once]

NOT_ON_THE_EMBEDDED_AWS = {"replicas"}
"""It has no figures of replication."""

UNKNOWN_EVENT = ROOT / "fixtures/events/reject/s3-unknown-event.json"


def test_the_handler_runs_in_the_stack_with_its_environment_and_says_what_its_alarms_watch(
    embedded: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = Stack(monkeypatch, embedded)
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    objects = {f"in/{at}.json": json.dumps({"at": at}).encode() for at in range(30)}
    for key, body in objects.items():
        stack.s3.put_object(Bucket=stack.ids["Source"], Key=key, Body=body)

    mapping = EventSourceMapping(stack.sqs, stack.ids["Queue"], _invoke, retry_after=1)
    while _waiting(stack):
        mapping.poll()

    bundles = [_bundle(stack, key) for key in _keys(stack)]
    assert {entry.key: bundle.read(entry) for bundle in bundles for entry in bundle} == objects
    assert sum(len(bundle) for bundle in bundles) == len(objects)
    settled = stack.dynamodb.scan(TableName=stack.ids["Ledger"])["Items"]
    assert [item["status"]["S"] for item in settled].count("COMPLETED") == len(bundles)

    stack.sqs.send_message(QueueUrl=stack.ids["Queue"], MessageBody=UNKNOWN_EVENT.read_text())
    mapping.poll()

    assert _watched(stack) <= _emitted(capsys.readouterr().out)


def test_the_doctor_finds_nothing_wrong_with_the_stack(stack: Stack) -> None:
    findings = findings_of(stack)

    states = {finding.check: finding.state for finding in findings}
    assert states == {check: State.NOT_CHECKED if check in NOT_ON_THE_EMBEDDED_AWS else State.OK for check in CHECKS}


def test_the_doctors_probe_is_put_once_and_is_an_empty_bundle(stack: Stack) -> None:
    findings_of(stack)
    findings_of(stack)

    versions = stack.s3.list_object_versions(Bucket=stack.ids["Distribution"])["Versions"]
    assert [version["Key"] for version in versions] == [PROBE_KEY]
    assert len(_bundle(stack, PROBE_KEY)) == 0


def _invoke(event: dict[str, Any]) -> Any:
    return app.handler(event, LocalContext(function="stack", seconds=60))  # type: ignore[arg-type]


Metric = tuple[str, tuple[tuple[str, str], ...]]
"""The name of a metric of ours, and its dimensions in order."""


def _watched(stack: Stack) -> set[Metric]:
    """Each metric of ours that an alarm of the stack watches."""
    alarms = [resource for resource in stack.resources.values() if resource.type == "AWS::CloudWatch::Alarm"]
    metrics = [metric for alarm in alarms for metric in watched(alarm)]
    ours = {(name, _ordered(dimensions)) for namespace, name, dimensions in metrics if namespace == NAMESPACE}
    assert len(ours) == 8
    return ours


def _emitted(output: str) -> set[Metric]:
    """Each metric that the handler emitted."""
    return {
        (metric["Name"], _ordered({name: line[name] for name in dimensions}))
        for line in log_lines(output)
        for directive in line.get("_aws", {}).get("CloudWatchMetrics", [])
        if directive["Namespace"] == NAMESPACE
        for dimensions in directive["Dimensions"]
        for metric in directive["Metrics"]
    }


def _ordered(dimensions: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(dimensions.items()))


def _waiting(stack: Stack) -> bool:
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = stack.sqs.get_queue_attributes(QueueUrl=stack.ids["Queue"], AttributeNames=names)["Attributes"]
    return any(int(count) for count in found.values())


def _keys(stack: Stack) -> list[str]:
    listed = stack.s3.list_objects_v2(Bucket=stack.ids["Distribution"])
    return [each["Key"] for each in listed.get("Contents", [])]


def _bundle(stack: Stack, key: str) -> Bundle:
    body = stack.s3.get_object(Bucket=stack.ids["Distribution"], Key=key)["Body"].read()
    return Bundle(lambda offset, length: body[offset : offset + length], len(body))
