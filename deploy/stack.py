"""
The stack of `deploy/template.yaml`, made and unmade with AWS's `sam`, which shows first and asks.

    python -m deploy.stack deploy NAME [--arch x86_64] [--python 3.14] [options of sam deploy]
    python -m deploy.stack drift NAME [--region R] [--profile P]
    python -m deploy.stack destroy NAME [options of sam delete]

`sam deploy` prints the change set before it asks; what was changed by hand is not in it, so `drift` shows that.
`sam delete` does not say what it would delete, so `destroy` does.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any, NamedTuple

import boto3
from botocore.exceptions import BotoCoreError, ClientError, WaiterError

from aggregator.exceptions import AggregatorError
from deploy.build import MACHINES, PYTHON, ROOT, build

_KEPT = frozenset({"Retain", "RetainExceptOnCreate", "Snapshot"})


class StackError(AggregatorError):
    """The stack cannot be made or unmade from here."""

    reason = "stack"


class Fate(NamedTuple):
    """What becomes of a resource when its stack is deleted."""

    kept: bool
    kind: str
    name: str


def deploy(
    name: str,
    options: Sequence[str],
    *,
    architecture: str = "arm64",
    python: str = PYTHON,
    out: Path = ROOT / "build",
    make: Callable[..., object] = build,
) -> int:
    """Build the packages and hand over to `sam deploy`, which shows what would change and asks; its exit status."""
    sam = _sam()
    make(out, list(MACHINES), python=python)
    command = [sam, "deploy", "--template-file", str(written(out, architecture, python)), "--stack-name", name]
    command += ["--capabilities", "CAPABILITY_IAM", "--resolve-s3", "--confirm-changeset", *options]
    return subprocess.run(command, check=False).returncode


def written(out: Path, architecture: str, python: str = PYTHON) -> Path:
    """The template for that architecture and Python, in `out`, beside a copy of what it names; its path."""
    source = ROOT / "deploy"
    shutil.copy(source / "backfill.asl.json", out)
    template = out / "template.yaml"
    text = (source / "template.yaml").read_text("utf-8")
    template.write_text(text.replace("arm64", architecture).replace(f"python{PYTHON}", f"python{python}"), "utf-8")
    return template


def drift(name: str, *, region: str | None = None, profile: str | None = None) -> int:
    """
    Print what was changed in a stack since it was deployed, and would stay as it is; 1, if anything was.

    A change set that reverts it is made, read, and removed again: nothing is changed (CloudFormation user guide,
    "Using drift-aware change sets").

    Raises:
        StackError: there is no such stack in that region, or it cannot be read.
    """
    cloudformation = _client(region, profile)
    changes = changed_by_hand(cloudformation, name)
    for status, kind, resource in changes:
        print(f"{status.lower():<9}{kind:<36}{resource}")
    if not changes:
        print(f"{name} is as it was deployed")
    return int(bool(changes))


def changed_by_hand(cloudformation: Any, name: str) -> list[tuple[str, str, str]]:
    """
    The resources of a stack that are not as its template says: how, their types, their names in the template.

    Raises:
        StackError: there is no such stack, or it cannot be read.
    """
    change_set = {"StackName": name, "ChangeSetName": f"drift-{token_hex(4)}"}
    try:
        given = cloudformation.describe_stacks(StackName=name)["Stacks"][0].get("Parameters", [])
        cloudformation.create_change_set(
            **change_set,
            UsePreviousTemplate=True,
            DeploymentMode="REVERT_DRIFT",
            Parameters=[{"ParameterKey": each["ParameterKey"], "UsePreviousValue": True} for each in given],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        try:
            return _drifted(cloudformation, change_set)
        finally:
            cloudformation.delete_change_set(**change_set)
    except (ClientError, BotoCoreError) as error:
        raise StackError(str(error)) from error


def _drifted(cloudformation: Any, change_set: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """What a change set would revert, once it is complete; one that fails for want of changes has nothing to revert."""
    try:
        cloudformation.get_waiter("change_set_create_complete").wait(**change_set, WaiterConfig={"Delay": 2})
    except WaiterError as error:
        reason = str(error.last_response.get("StatusReason", ""))
        if "didn't contain changes" in reason or "No updates" in reason:
            return []
        raise StackError(reason or str(error)) from error
    pages = cloudformation.get_paginator("describe_change_set").paginate(**change_set)
    changes = [change["ResourceChange"] for page in pages for change in page["Changes"] if "ResourceChange" in change]
    return sorted(
        (change["ResourceDriftStatus"], change["ResourceType"], change["LogicalResourceId"])
        for change in changes
        if change.get("ResourceDriftStatus") in {"MODIFIED", "DELETED"}
    )


def destroy(name: str, options: Sequence[str], *, region: str | None = None, profile: str | None = None) -> int:
    """
    Say what would be deleted and what stays, and hand over to `sam delete`, which asks; its exit status.

    Raises:
        StackError: there is no such stack in that region, or it cannot be read.
    """
    sam, cloudformation = _sam(), _client(region, profile)
    options = [*options, *(["--region", region] if region else []), *(["--profile", profile] if profile else [])]
    for fate in fates(cloudformation, name):
        print(f"{'stays' if fate.kept else 'goes':<7}{fate.kind:<36}{fate.name}")
    print("A bucket that goes must be empty; a table that is protected against deletion stays until it is not.")
    return subprocess.run([sam, "delete", "--stack-name", name, *options], check=False).returncode


def fates(cloudformation: Any, name: str) -> list[Fate]:
    """
    What would become of each resource of a stack; what stays comes last.

    Raises:
        StackError: there is no such stack, or it cannot be read.
    """
    try:
        template = cloudformation.get_template(StackName=name, TemplateStage="Processed")["TemplateBody"]
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
        resources = [resource for page in pages for resource in page["StackResourceSummaries"]]
    except (ClientError, BotoCoreError) as error:
        raise StackError(str(error)) from error
    if not isinstance(template, Mapping):
        raise StackError("the stack was not made from our template: it is no JSON", stack=name)
    declared = template["Resources"]
    return sorted(
        Fate(
            declared.get(resource["LogicalResourceId"], {}).get("DeletionPolicy") in _KEPT,
            resource["ResourceType"],
            resource.get("PhysicalResourceId", resource["LogicalResourceId"]),
        )
        for resource in resources
    )


def _client(region: str | None, profile: str | None) -> Any:
    try:
        return boto3.Session(region_name=region, profile_name=profile).client("cloudformation")
    except BotoCoreError as error:
        raise StackError(str(error)) from error


def _sam() -> str:
    found = shutil.which("sam")
    if found is None:
        raise StackError(
            "sam is missing: pip install aws-sam-cli, in an environment of its own, and put it on the path"
        )
    return found


def _place(options: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Where the stack is, by the options of sam that say so, and the other options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--region")
    parser.add_argument("--profile")
    return parser.parse_known_args(options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or unmake the stack; what we do not know is for sam."""
    parser = argparse.ArgumentParser(
        "python -m deploy.stack", description="Make or unmake the stack.", allow_abbrev=False
    )
    parser.add_argument("verb", choices=("deploy", "drift", "destroy"))
    parser.add_argument("name", help="name of the stack")
    parser.add_argument("--arch", choices=sorted(MACHINES), default="arm64", help="what the function runs on")
    parser.add_argument("--python", default=PYTHON, help="the function's runtime, such as 3.14")
    known, options = parser.parse_known_args(arguments)
    try:
        if known.verb == "deploy":
            return deploy(known.name, options, architecture=known.arch, python=known.python)
        where, options = _place(options)
        if known.verb == "drift":
            return drift(known.name, region=where.region, profile=where.profile)
        return destroy(known.name, options, region=where.region, profile=where.profile)
    except AggregatorError as error:
        print(f"{known.verb}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
