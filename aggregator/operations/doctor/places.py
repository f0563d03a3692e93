"""Where the parts of a deployment are: of a stack, or of what runs with an environment."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.exceptions import AggregatorError
from aggregator.operations.doctor.facts import Unknown
from aggregator.operations.doctor.questions import asked, known


class DeploymentError(AggregatorError):
    """There is nothing to look at."""

    reason = "deployment"


class Place(NamedTuple):
    """Where the parts of a deployment are, as far as that is known."""

    environment: Mapping[str, str] | Unknown
    function: str | Unknown
    event_source: str | Unknown
    queue_url: str | Unknown
    source: str | Unknown
    prefix: str | None
    suffix: str | None
    announcer: str = ""
    stack: str = ""
    log: str | Unknown = Unknown("no stack is named: ask with --stack")
    alarms: Sequence[str] | Unknown = Unknown("no stack is named: ask with --stack")


def of_stack(name: str) -> Place:
    """
    Where the parts of the stack `name` are.

    Raises:
        DeploymentError: there is no such stack, or CloudFormation does not tell.
    """
    cloudformation = boto3.client("cloudformation")
    try:
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
        resources = [resource for page in pages for resource in page["StackResourceSummaries"]]
    except (ClientError, BotoCoreError) as error:
        raise DeploymentError(f"the stack {name} cannot be looked at: {error}") from error
    ids = {each["LogicalResourceId"]: each.get("PhysicalResourceId", "") for each in resources}
    alarms = [
        each["PhysicalResourceId"]
        for each in resources
        if each["ResourceType"] == "AWS::CloudWatch::Alarm" and each.get("PhysicalResourceId")
    ]
    given = {each["ParameterKey"]: each.get("ParameterValue", "") for each in stack.get("Parameters", [])}
    parts = ("Function", "FunctionQueue", "Queue", "FunctionLogs")
    function, event_source, queue, log = (_id(ids, part) for part in parts)
    environment = asked(lambda: _variables(known(function)))
    source = given.get("SourceBucketName") or Unknown("the stack has no parameter SourceBucketName")
    filters = given.get("SourcePrefix", ""), given.get("SourceSuffix", "")
    announcer = given.get("SourceTopicArn") or given.get("SourceRuleArn") or ""
    found = Place(environment, function, event_source, queue, source, *filters, announcer)
    return found._replace(stack=name, log=log, alarms=alarms or Unknown("the stack has no alarms"))


def of_environment(environment: Mapping[str, str], *, queue_url: str | None, source: str | None) -> Place:
    """Where the parts are of what runs with `environment`, and not in Lambda."""
    no_function = Unknown("no function is named: ask with --stack")
    return Place(
        environment,
        no_function,
        no_function,
        queue_url or Unknown("--queue-url (QUEUE_URL) is not given"),
        source or Unknown("--source-bucket (SOURCE_BUCKET_NAME) is not given"),
        None,
        None,
    )


def _variables(function: str) -> dict[str, str]:
    answer = boto3.client("lambda").get_function_configuration(FunctionName=function)
    return dict(answer.get("Environment", {}).get("Variables", {}))


def _id(ids: Mapping[str, str], part: str) -> str | Unknown:
    return ids.get(part) or Unknown(f"the stack has no resource {part}")
