"""The IAM policies that can be attached: they allow what the doctor and the template need, in actions that exist."""

import json

import pytest

from aggregator.operations.doctor.facts_from_aws import ACTIONS
from tests.support import ROOT
from tests.support.stack import actions, resources

pytestmark = pytest.mark.once

POLICIES = json.loads((ROOT / "deploy" / "permissions.json").read_text(encoding="utf-8"))

MAKES = {
    "AWS::ApplicationAutoScaling": "application-autoscaling:*",
    "AWS::CloudWatch": "cloudwatch:*",
    "AWS::DynamoDB": "dynamodb:CreateTable",
    "AWS::Glue": "glue:*",
    "AWS::IAM": "iam:CreateRole",
    "AWS::Lambda": "lambda:*",
    "AWS::Logs": "logs:*",
    "AWS::S3": "s3:CreateBucket",
    "AWS::SQS": "sqs:*",
    "AWS::StepFunctions": "states:*",
}
"""What making a resource of each service needs, at the least."""


def _allowed(who: str) -> set[str]:
    return {action for statement in POLICIES[who]["Statement"] for action in actions(statement)}


def test_who_deploys_may_make_every_kind_of_resource() -> None:
    made = resources(LedgerCapacity="4000", InventoryBucketName="reports")

    services = {resource.type.rpartition("::")[0] for resource in made.values()}

    assert {MAKES[service] for service in services} <= _allowed("deployer")


def test_who_runs_the_doctor_may_probe_the_ledger_as_the_function_writes_it() -> None:
    assert set(ACTIONS["table"]) <= _allowed("doctor")


def test_roles_are_passed_to_the_services_that_take_them_alone() -> None:
    (passed,) = (each for each in POLICIES["deployer"]["Statement"] if each["Action"] == "iam:PassRole")

    trusted = {
        resource.properties["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"]
        for resource in resources(InventoryBucketName="reports").values()
        if resource.type == "AWS::IAM::Role"
    }

    assert set(passed["Condition"]["StringEquals"]["iam:PassedToService"]) == trusted
