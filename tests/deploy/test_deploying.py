"""`just deploy` and `just destroy`: what would happen is shown first, and sam does it."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from aggregator.operations.doctor.template import read
from deploy import stack
from deploy.stack import Fate, StackError, deploy, fates, main, written
from tests.support.world import CREDENTIALS

pytestmark = pytest.mark.once

TEMPLATE = {
    "Resources": {
        "Bundles": {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": {"BucketName": "bundles"}},
        "Queue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "queue"}},
    }
}


@pytest.fixture
def sam(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A sam that writes down how it was called, and ends with 3."""
    called = tmp_path / "called"
    script = tmp_path / "bin" / "sam"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {called}\nexit 3\n')
    script.chmod(0o700)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    return called


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        boto3.client("cloudformation").create_stack(StackName="mine", TemplateBody=json.dumps(TEMPLATE))
        yield


def test_deploying_shows_the_change_set_and_asks(sam: Path, tmp_path: Path) -> None:
    made: list[list[str]] = []
    options = ["--parameter-overrides", "Memory=2048"]

    status = deploy("mine", options, out=tmp_path, make=lambda _, packages, python: made.append([*packages, python]))

    called = sam.read_text(encoding="utf-8").splitlines()
    assert (status, made, called[:2]) == (3, [["x86_64", "arm64", "3.13"]], ["deploy", "--template-file"])
    assert called[2] == str(tmp_path / "template.yaml")
    assert called[3:] == [
        *("--stack-name", "mine"),
        *("--capabilities", "CAPABILITY_IAM"),
        *("--resolve-s3", "--confirm-changeset"),
        *("--parameter-overrides", "Memory=2048"),
    ]


@pytest.mark.parametrize("architecture", ["arm64", "x86_64"])
def test_what_the_template_names_lies_where_it_says_for_either_architecture(tmp_path: Path, architecture: str) -> None:
    """sam takes paths from the template's folder; with another folder it uploaded nothing."""
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / f"lambda-{architecture}.zip").touch()

    template = written(tmp_path / "build", architecture)

    resources = read(template)["Resources"]
    function, machine = resources["Function"]["Properties"], resources["Backfill"]["Properties"]
    assert function["Architectures"] == [architecture]
    assert (template.parent / function["CodeUri"]).resolve() == tmp_path / "build" / f"lambda-{architecture}.zip"
    assert (template.parent / function["CodeUri"]).exists()
    assert json.loads((template.parent / machine["DefinitionUri"]).read_text("utf-8"))["StartAt"]


def test_the_runtime_is_the_python_that_the_package_was_made_for(tmp_path: Path) -> None:
    function = read(written(tmp_path, "arm64", "3.14"))["Resources"]["Function"]["Properties"]

    assert function["Runtime"] == "python3.14"


def test_an_architecture_that_lambda_does_not_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["deploy", "mine", "--arch", "i386"])

    assert "--arch: invalid choice: 'i386'" in capsys.readouterr().err


@pytest.mark.usefixtures("deployed")
def test_destroying_says_first_what_goes_and_what_stays(sam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["destroy", "mine"])

    lines = capsys.readouterr().out.splitlines()
    assert (status, sam.read_text(encoding="utf-8").splitlines()) == (3, ["delete", "--stack-name", "mine"])
    assert [line.split()[:2] for line in lines[:2]] == [["goes", "AWS::SQS::Queue"], ["stays", "AWS::S3::Bucket"]]


@pytest.mark.usefixtures("deployed")
def test_what_is_listed_is_in_the_region_that_is_deleted_from(sam: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boto3.client("cloudformation", region_name="eu-west-1").create_stack(
        StackName="mine", TemplateBody=json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}})
    )

    main(["destroy", "mine", "--no-prompts", "--region", "eu-west-1"])

    assert sam.read_text().splitlines() == ["delete", "--stack-name", "mine", "--no-prompts", "--region", "eu-west-1"]
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[:-1]] == [["goes", "AWS::SNS::Topic"]]


@pytest.mark.usefixtures("deployed", "sam")
def test_without_a_region_it_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)

    assert main(["destroy", "mine"]) == 2
    assert capsys.readouterr().err == "destroy: You must specify a region.\n"


@pytest.mark.usefixtures("deployed")
def test_what_is_retained_stays() -> None:
    cloudformation = boto3.client("cloudformation")

    found = [(fate.kept, fate.kind) for fate in fates(cloudformation, "mine")]

    assert found == [(False, "AWS::SQS::Queue"), (True, "AWS::S3::Bucket")]
    assert Fate(True, "AWS::S3::Bucket", "bundles") in fates(cloudformation, "mine")
    with pytest.raises(StackError):
        fates(cloudformation, "nobody's")


@pytest.mark.parametrize("verb", ["deploy", "destroy"])
def test_without_sam_it_is_said_how_to_get_it(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert main([verb, "mine"]) == 2
    assert capsys.readouterr().err.startswith(f"{verb}: sam is missing: pip install aws-sam-cli")


@pytest.fixture
def cloudformation(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """CloudFormation, as far as its answers are given; the embedded AWS knows no drift-aware change sets."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("cloudformation")
    monkeypatch.setattr(stack, "_client", lambda *_: client)
    monkeypatch.setattr(stack, "token_hex", lambda _: "1")
    with Stubber(client) as stubber:
        parameters = [{"ParameterKey": "Memory", "ParameterValue": "2048"}]
        described = {"StackName": "mine", "CreationTime": datetime(2026, 11, 28, tzinfo=UTC), "StackStatus": "X"}
        stubber.add_response("describe_stacks", {"Stacks": [{**described, "Parameters": parameters}]})
        stubber.add_response(
            "create_change_set",
            {},
            {
                **CHANGE_SET,
                "UsePreviousTemplate": True,
                "DeploymentMode": "REVERT_DRIFT",
                "Parameters": [{"ParameterKey": "Memory", "UsePreviousValue": True}],
                "Capabilities": ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            },
        )
        yield stubber
        stubber.assert_no_pending_responses()


CHANGE_SET = {"StackName": "mine", "ChangeSetName": "drift-1"}


def _change(name: str, status: str) -> Any:
    change = {"LogicalResourceId": name, "ResourceType": "AWS::SQS::Queue", "ResourceDriftStatus": status}
    return {"Type": "Resource", "ResourceChange": change}


def test_what_was_changed_by_hand_is_shown_and_nothing_is_reverted(
    cloudformation: Stubber, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [_change("Queue", "MODIFIED"), _change("Gone", "DELETED"), _change("Same", "IN_SYNC")]
    for _ in range(2):  # for the waiter, and for us
        cloudformation.add_response("describe_change_set", {"Status": "CREATE_COMPLETE", "Changes": changes})
    cloudformation.add_response("delete_change_set", {}, CHANGE_SET)

    status = main(["drift", "mine"])

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert (status, lines) == (
        1,
        [["deleted", "AWS::SQS::Queue", "Gone"], ["modified", "AWS::SQS::Queue", "Queue"]],
    )


@pytest.mark.parametrize(
    ("reason", "status", "said"),
    [
        ("The submitted information didn't contain changes.", 0, "mine is as it was deployed"),
        ("Access denied", 2, "drift: Access denied"),
    ],
)
def test_a_stack_without_changes_is_told_from_one_that_cannot_be_asked(
    cloudformation: Stubber, capsys: pytest.CaptureFixture[str], reason: str, status: int, said: str
) -> None:
    cloudformation.add_response("describe_change_set", {"Status": "FAILED", "StatusReason": reason})
    cloudformation.add_response("delete_change_set", {}, CHANGE_SET)

    assert main(["drift", "mine"]) == status
    assert "".join(capsys.readouterr()).strip() == said
