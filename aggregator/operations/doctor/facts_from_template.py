"""
The facts of a deployment that is not there yet, from its template and parameters.

What only a running system can tell is unknown here, and says so. Pure: no AWS.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from aggregator.operations.doctor import policies
from aggregator.operations.doctor.checks import CREATED
from aggregator.operations.doctor.facts import (
    Bucket,
    EventSource,
    Facts,
    Function,
    Notification,
    Queue,
    SourceBucket,
    Table,
    Unknown,
)
from aggregator.operations.doctor.template import Resource, Template, TemplateError
from aggregator.pipeline.settings import SECONDS_PER_DAY

_NOT_RUNNING = Unknown("not in a template: run the doctor with --stack after the deployment")
_OURS_TO_DO = Unknown("the source bucket exists already: set its notification, then ask again with --stack")

_VISIBILITY, _RETENTION, _LARGEST_MESSAGE = 30, 4 * SECONDS_PER_DAY, 1_048_576
"""What SQS takes where a template says nothing (CloudFormation template reference, AWS::SQS::Queue)."""


def facts(template: Template) -> Facts:
    """
    What `template`, laid out as `deploy/template.yaml` is, says of the deployment it makes.

    Raises:
        TemplateError: a resource is missing, or is none of its type.
    """
    try:
        return _facts(template)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise TemplateError(f"the template is not laid out as deploy/template.yaml is ({said})") from error


def _facts(template: Template) -> Facts:
    resources = template.resources
    function, queue = _of(resources, "Function"), _of(resources, "Queue")
    distribution = _of(resources, "Distribution")
    arn = template.resolved({"Fn::GetAtt": ["Queue", "Arn"]})
    prefix, suffix = (str(template.parameters.get(name, "")) for name in ("SourcePrefix", "SourceSuffix"))
    source = resources.get("Source")
    return Facts(
        environment={name: str(value) for name, value in function["Environment"]["Variables"].items()},
        function=Function(
            int(function.get("Timeout", 3)),
            int(function.get("EphemeralStorage", {}).get("Size", 512)),
            reserved=function.get("ReservedConcurrentExecutions"),
        ),
        event_source=_event_source(function),
        queue=_queue(arn, queue),
        dead_letters=_queue("", _of(resources, "DeadLetterQueue")),
        table=_table(_of(resources, "Ledger")),
        source=str(template.parameters.get("SourceBucketName", "")),
        wanted=Notification(_announcer(template) or arn, (CREATED,), prefix, suffix),
        notifications=_notifications(source.properties) if source else _OURS_TO_DO,
        may_send=_may_send(template, arn),
        arrives=_OURS_TO_DO if _announcer(template) else True,
        source_bucket=_source_bucket(source, arn),
        enforced=policies.enforces_commit(_statements(resources, "DistributionPolicy")),
        lock=_lock(_of(resources, "Archive")),
        replica=_NOT_RUNNING,
        distribution=_bucket(distribution),
        archive=_bucket(_of(resources, "Archive")),
        replicas=_replicas(distribution, whole=True),
        partial=_replicas(distribution, whole=False),
        failed_replicas=_NOT_RUNNING,
        access=_NOT_RUNNING,
        second_put=_NOT_RUNNING,
        honoured=_NOT_RUNNING,
        skew=_NOT_RUNNING,
    )


def _of(resources: Mapping[str, Resource], name: str) -> dict[str, Any]:
    if name not in resources:
        raise TemplateError(f"the template has no resource {name}")
    return resources[name].properties


def _event_source(function: Mapping[str, Any]) -> EventSource | Unknown:
    mappings = [event["Properties"] for event in function.get("Events", {}).values() if event["Type"] == "SQS"]
    if len(mappings) != 1:
        return Unknown(f"the function has {len(mappings)} SQS events, not one")
    reports = "ReportBatchItemFailures" in mappings[0].get("FunctionResponseTypes", [])
    window = int(mappings[0].get("MaximumBatchingWindowInSeconds", 0))
    enabled = bool(mappings[0].get("Enabled", True))
    filters = len(mappings[0].get("FilterCriteria", {}).get("Filters", []))
    return EventSource(
        window, reports, enabled, filters, mappings[0].get("ScalingConfig", {}).get("MaximumConcurrency")
    )


def _announcer(template: Template) -> str:
    """The topic or the rule that announces objects instead of the bucket."""
    return str(template.parameters.get("SourceTopicArn") or template.parameters.get("SourceRuleArn") or "")


def _may_send(template: Template, queue: str) -> bool | None:
    source = f"arn:{queue.split(':')[1]}:s3:::{template.parameters.get('SourceBucketName', '')}"
    announcer = _announcer(template) or source
    account = queue.split(":")[4]
    return policies.may_send(_statements(template.resources, "QueuePolicy"), service_of(announcer), announcer, account)


def service_of(announcer: str) -> str:
    """The service that sends for a bucket, a topic or a rule, by its ARN."""
    return announcer.split(":")[2] + ".amazonaws.com"


def _statements(resources: Mapping[str, Resource], name: str) -> Sequence[policies.Statement]:
    return policies.statements(resources[name].properties.get("PolicyDocument") if name in resources else None)


def _source_bucket(source: Resource | None, queue: str) -> SourceBucket | Unknown:
    if source is None:
        return _OURS_TO_DO
    versioned = source.properties.get("VersioningConfiguration", {}).get("Status") == "Enabled"
    return SourceBucket(queue.split(":")[3], versioned)


def _lock(archive: Mapping[str, Any]) -> str | None:
    configuration = archive.get("ObjectLockConfiguration", {})
    return configuration.get("Rule", {}).get("DefaultRetention", {}).get("Mode") if configuration else None


def _queue(arn: str, queue: Mapping[str, Any]) -> Queue:
    redrive = queue.get("RedrivePolicy")
    return Queue(
        arn,
        int(queue.get("VisibilityTimeout", _VISIBILITY)),
        int(queue.get("MessageRetentionPeriod", _RETENTION)),
        int(queue.get("MaximumMessageSize", _LARGEST_MESSAGE)),
        int(redrive["maxReceiveCount"]) if redrive else None,
    )


def _table(table: Mapping[str, Any]) -> Table:
    types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in table["AttributeDefinitions"]}
    key = tuple((part["AttributeName"], part["KeyType"], types[part["AttributeName"]]) for part in table["KeySchema"])
    ttl = table.get("TimeToLiveSpecification", {})
    return Table(key, ttl.get("AttributeName") if ttl.get("Enabled") else None)


def _notifications(bucket: Mapping[str, Any]) -> Sequence[Notification]:
    found = []
    for each in bucket.get("NotificationConfiguration", {}).get("QueueConfigurations", []):
        rules = each.get("Filter", {}).get("S3Key", {}).get("Rules", [])
        filters = {rule["Name"].lower(): rule["Value"] for rule in rules}
        prefix, suffix = filters.get("prefix", ""), filters.get("suffix", "")
        found.append(Notification(each["Queue"], (each["Event"],), prefix, suffix))
    return found


def _bucket(bucket: Mapping[str, Any]) -> Bucket:
    rules = bucket.get("LifecycleConfiguration", {}).get("Rules", [])
    days = [
        int(rule["NoncurrentVersionExpiration"]["NoncurrentDays"])
        for rule in rules
        if rule["Status"] == "Enabled" and "NoncurrentVersionExpiration" in rule and is_for_bundles(rule)
    ]
    return Bucket(bucket.get("VersioningConfiguration", {}).get("Status") == "Enabled", min(days, default=None))


def _replicas(bucket: Mapping[str, Any], *, whole: bool) -> Sequence[str]:
    rules = bucket.get("ReplicationConfiguration", {}).get("Rules", [])
    return [
        rule["Destination"]["Bucket"].rpartition(":")[2]
        for rule in rules
        if rule["Status"] == "Enabled" and is_for_all(rule) is whole
    ]


def is_for_all(rule: Mapping[str, Any]) -> bool:
    """Whether a replication rule is for every object: its filter is empty, or an empty prefix and nothing else."""
    return rule.get("Filter", {"Prefix": rule.get("Prefix", "")}) in ({}, {"Prefix": ""})


def is_for_bundles(rule: Mapping[str, Any]) -> bool:
    """Whether a lifecycle rule may be for bundles: their keys begin with the year, and they have no tags."""
    chosen = rule.get("Filter") or rule
    chosen = {**chosen, **chosen.get("And", {})}
    prefix = chosen.get("Prefix") or ""
    tagged = any(name in chosen for name in ("Tag", "Tags", "TagFilters"))
    return (not prefix or prefix[0].isdecimal()) and not tagged
