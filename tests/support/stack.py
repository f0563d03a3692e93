"""
`deploy/template.yaml` as CloudFormation would see it, and as a stack on the embedded AWS.

    document = transformed()              # what the SAM transform makes of it
    stack = Stack(monkeypatch, endpoint_url)
    stack.ids["Distribution"]             # the bucket's name
"""

import functools
import io
import json
import time
import uuid
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config

from aggregator.bundles.layout import PROBE_KEY
from aggregator.operations.doctor.template import Resource, Template, read
from aggregator.pipeline.core import empty_bundle
from deploy import transform
from tests.support import ROOT
from tests.support.world import CREDENTIALS

PATH = ROOT / "deploy" / "template.yaml"

REQUIRED = {"SourceBucketName": "objects"}
"""Parameters that have no default."""

_PACKAGES = "packages"

_ENGINE_KNOWS = ("AWS::S3::", "AWS::SQS::", "AWS::DynamoDB::", "AWS::IAM::", "AWS::Logs::", "AWS::Lambda::Function")
"""What the embedded AWS makes of the template; its own event source mapping would take messages that tests wait for."""


@functools.cache
def transformed() -> dict[str, Any]:
    """What the SAM transform makes of the template, after `sam package` has put the code into a bucket."""
    document = read(PATH)
    document["Resources"]["Function"]["Properties"]["CodeUri"] = f"s3://{_PACKAGES}/lambda.zip"
    document["Resources"]["Backfill"]["Properties"]["DefinitionUri"] = f"s3://{_PACKAGES}/backfill.asl.json"
    return transform.transformed(document)


def resources(**parameters: str) -> dict[str, Resource]:
    """The resources of the transformed template, with these parameters."""
    return Template(transformed(), {**REQUIRED, **parameters}).resources


class Stack:
    """The template's buckets, queues, table, roles and function on the embedded AWS, under names of its own."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, endpoint_url: str, *, with_event_source: bool = False, **parameters: str
    ) -> None:
        for name, value in {"AWS_ENDPOINT_URL": endpoint_url, **CREDENTIALS}.items():
            monkeypatch.setenv(name, value)
        self.name = f"agg-{uuid.uuid4().hex[:8]}"
        self.parameters = {"SourceBucketName": f"{self.name}-source", **parameters}
        self.s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
        self.sqs, self.dynamodb = boto3.client("sqs"), boto3.client("dynamodb")
        self.resources = Template(transformed(), self.parameters, stack=self.name).resources
        self._put_code()
        self.ids = self._created((*_ENGINE_KNOWS, *(["AWS::Lambda::EventSourceMapping"] if with_event_source else [])))
        self._configure()
        configuration = boto3.client("lambda").get_function_configuration(FunctionName=self.ids["Function"])
        self.environment = configuration["Environment"]["Variables"]

    def _put_code(self) -> None:
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("unused.py", "")
        self.s3.create_bucket(Bucket=_PACKAGES)
        self.s3.put_object(Bucket=_PACKAGES, Key="lambda.zip", Body=code.getvalue())

    def _created(self, known: tuple[str, ...]) -> dict[str, str]:
        document = {name: part for name, part in transformed().items() if name != "Outputs"}
        kept = {name: each for name, each in document["Resources"].items() if each["Type"].startswith(known)}
        cloudformation = boto3.client("cloudformation")
        cloudformation.create_stack(
            StackName=self.name,
            TemplateBody=json.dumps({**document, "Resources": kept}),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in self.parameters.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        cloudformation.get_waiter("stack_create_complete").wait(StackName=self.name, WaiterConfig={"Delay": 1})
        listed = cloudformation.list_stack_resources(StackName=self.name)["StackResourceSummaries"]
        return {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in listed}

    def _configure(self) -> None:
        """What the embedded CloudFormation leaves out: lifecycle, replication, the lock, expiry of the table."""
        distribution = self.resources["Distribution"].properties
        (noncurrent,) = (
            rule["NoncurrentVersionExpiration"]["NoncurrentDays"]
            for rule in distribution["LifecycleConfiguration"]["Rules"]
            if "NoncurrentVersionExpiration" in rule
        )
        self.set_noncurrent_days(noncurrent)
        self.set_replication("Enabled")
        lock: Any = self.resources["Archive"].properties["ObjectLockConfiguration"]
        self.s3.put_object_lock_configuration(Bucket=self.ids["Archive"], ObjectLockConfiguration=lock)
        ttl = self.resources["Ledger"].properties["TimeToLiveSpecification"]
        self.dynamodb.update_time_to_live(TableName=self.ids["Ledger"], TimeToLiveSpecification=ttl)

    def lock_probe(self) -> None:
        """Put the doctor's probe, and lock its replica, as S3 does: the embedded AWS copies, and does not lock."""
        bundle = empty_bundle(PROBE_KEY, time.time(), "doctor")
        self.s3.put_object(Bucket=self.ids["Distribution"], Key=PROBE_KEY, Body=bundle, IfNoneMatch="*")
        until = datetime.now(UTC) + timedelta(days=365)
        retention: Any = {"Mode": "GOVERNANCE", "RetainUntilDate": until}
        self.s3.put_object_retention(Bucket=self.ids["Archive"], Key=PROBE_KEY, Retention=retention)

    def set_noncurrent_days(self, days: int) -> None:
        """For how long the distribution bucket keeps what was deleted."""
        rule: Any = {
            "ID": "deleted-bundles",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "NoncurrentVersionExpiration": {"NoncurrentDays": days},
        }
        self.s3.put_bucket_lifecycle_configuration(
            Bucket=self.ids["Distribution"], LifecycleConfiguration={"Rules": [rule]}
        )

    def set_replication(self, status: str) -> None:
        """Let the rule that copies bundles to the archive be Enabled or Disabled."""
        rule: Any = {
            "ID": "archive",
            "Priority": 1,
            "Status": status,
            "Filter": {"Prefix": ""},
            "DeleteMarkerReplication": {"Status": "Disabled"},
            "Destination": {"Bucket": f"arn:aws:s3:::{self.ids['Archive']}"},
        }
        role = f"arn:aws:iam::123456789012:role/{self.ids['ReplicationRole']}"
        self.s3.put_bucket_replication(
            Bucket=self.ids["Distribution"], ReplicationConfiguration={"Role": role, "Rules": [rule]}
        )


def statements(role: Resource) -> list[Mapping[str, Any]]:
    """All statements of a role's own policies, their actions as lists."""
    found = [each for policy in role.properties["Policies"] for each in policy["PolicyDocument"]["Statement"]]
    return [{**each, "Action": actions(each)} for each in found]


def actions(statement: Mapping[str, Any]) -> list[str]:
    """The actions of a statement, of which it may have one or many."""
    named = statement["Action"]
    return [named] if isinstance(named, str) else list(named)


def watched(alarm: Resource) -> list[tuple[str, str, dict[str, str]]]:
    """Namespace, name and dimensions of every metric of an alarm."""
    properties = alarm.properties
    metrics = [properties, *(each.get("MetricStat", {}).get("Metric", {}) for each in properties.get("Metrics", []))]
    return [
        (each["Namespace"], each["MetricName"], {pair["Name"]: pair["Value"] for pair in each["Dimensions"]})
        for each in metrics
        if "MetricName" in each
    ]
