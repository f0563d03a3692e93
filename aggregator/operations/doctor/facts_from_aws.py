"""
The facts of a deployment that runs, asked of AWS.

Every question may be refused or go unanswered; the fact is then unknown, with the reason, and the rest is asked all the
same. Nothing is changed but for two probes, and only if wanted: an empty bundle under a fixed name in the distribution
bucket, to see whether the endpoint honours `If-None-Match`, and records that expire within the hour in the ledger's
table, to see whether it honours the conditions of claims.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from aggregator.bundles.layout import PROBE_KEY
from aggregator.exceptions import LedgerUnavailableError
from aggregator.operations.doctor import policies, questions
from aggregator.operations.doctor.checks import CREATED
from aggregator.operations.doctor.facts import (
    Access,
    EventSource,
    Facts,
    Function,
    Missing,
    Notification,
    Queue,
    Replica,
    Table,
    Unknown,
)
from aggregator.operations.doctor.facts_from_template import is_for_all, service_of
from aggregator.operations.doctor.places import DeploymentError, Place
from aggregator.operations.doctor.questions import NotKnownError, Unanswered, asked, known, unless
from aggregator.pipeline.core import empty_bundle
from aggregator.pipeline.records import Records
from aggregator.pipeline.swaps import WAYS, honours

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_iam.client import IAMClient
    from mypy_boto3_lambda.client import LambdaClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

ACTIONS: dict[str, tuple[str, ...]] = {
    "queue": ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
    "source": ("s3:ListBucket",),
    "members": ("s3:GetObject",),
    "distribution": ("s3:ListBucketVersions",),
    "bundles": ("s3:PutObject", "s3:GetObjectVersion"),
    "table": (
        "dynamodb:PartiQLInsert",
        "dynamodb:PartiQLUpdate",
        "dynamodb:PutItem",
        "dynamodb:BatchGetItem",
        "dynamodb:BatchWriteItem",
    ),
}
"""What the function must be allowed to do, and to what; where each version is a member, `VERSIONS` as well."""

VERSIONS = "s3:GetObjectVersion"

KEYS = ("kms:Decrypt", "kms:GenerateDataKey")
"""What it needs of the KMS key of bundles, if that bucket has one; of the sources' key only the first."""

FORBIDDEN = ("s3:DeleteObject", "s3:DeleteObjectVersion")
"""What it must not be allowed to do to bundles."""

_ANSWERS_TO_A_CONDITION = frozenset({409, 412, 501})
"""Statuses that say how a store takes `If-None-Match`; any other error says nothing of it."""

_NOT_ASKED = frozenset({"environment", "source", "wanted"})
"""Facts that are given, or follow from others."""

_DAY = 86_400


def facts(place: Place, *, probe: bool, now: Callable[[], float]) -> Facts:
    """
    All that AWS says of the deployment at `place`; with `probe`, an object and two records are written.

    Raises:
        DeploymentError: AWS answers none of the questions.
    """
    found = _Inquiry(place).facts(probe=probe, now=now)
    answers = [fact for name, fact in found._asdict().items() if name not in _NOT_ASKED]
    unanswered = [fact for fact in answers if isinstance(fact, Unanswered)]
    if unanswered and all(isinstance(fact, Unknown) and not isinstance(fact, Missing) for fact in answers):
        raise DeploymentError(f"AWS answers none of the questions: {unanswered[0].why}")
    return found


class _Inquiry:
    """The questions to each service."""

    def __init__(self, place: Place) -> None:
        self._place = place
        path_style = Config(s3={"addressing_style": "path"})  # "bucket.localhost" is a name that few machines resolve
        self._s3: S3Client = boto3.client("s3", config=path_style)
        self._sqs: SQSClient = boto3.client("sqs")
        self._dynamodb: DynamoDBClient = boto3.client("dynamodb")
        self._lambda: LambdaClient = boto3.client("lambda")
        self._iam: IAMClient = boto3.client("iam")
        self._cloudwatch: CloudWatchClient = boto3.client("cloudwatch")

    def facts(self, *, probe: bool, now: Callable[[], float]) -> Facts:
        place = self._place
        queue = asked(lambda: self._queue(known(place.queue_url)))
        rules, table = asked(self._replication_rules), asked(self._table)
        wanted = asked(
            lambda: Notification(place.announcer or known(queue).arn, (CREATED,), place.prefix, place.suffix)
        )
        second_put = asked(lambda: self._second_put(now())) if probe else Unknown("--no-probe is given")
        return Facts(
            environment=place.environment,
            function=asked(self._function),
            event_source=asked(self._event_source),
            queue=queue,
            dead_letters=asked(self._dead_letters),
            table=table,
            source=place.source,
            wanted=wanted,
            notifications=asked(self._notifications),
            may_send=asked(lambda: self._may_send(known(queue).arn)),
            arrives=asked(lambda: questions.sends_to(self._announcer(), known(queue).arn)),
            source_bucket=asked(lambda: questions.source_bucket(self._s3, known(place.source))),
            enforced=asked(lambda: questions.commit_is_enforced(self._s3, self._named("DISTRIBUTION_BUCKET_NAME"))),
            lock=asked(lambda: questions.default_lock(self._s3, self._named("ARCHIVE_BUCKET_NAME"))),
            replica=asked(lambda: self._replica(known(second_put), now())),
            distribution=asked(lambda: questions.bundle_bucket(self._s3, self._named("DISTRIBUTION_BUCKET_NAME"))),
            archive=asked(lambda: questions.bundle_bucket(self._s3, self._named("ARCHIVE_BUCKET_NAME"))),
            replicas=asked(lambda: [_bucket_of(rule) for rule in known(rules) if is_for_all(rule)]),
            partial=asked(lambda: [_bucket_of(rule) for rule in known(rules) if not is_for_all(rule)]),
            failed_replicas=asked(lambda: self._failed_replicas(known(rules), now())),
            access=asked(lambda: self._access(known(queue))),
            second_put=second_put,
            honoured=asked(lambda: self._honoured(known(table), now)) if probe else Unknown("--no-probe is given"),
            skew=asked(lambda: self._skew(now)),
        )

    def _named(self, variable: str) -> str:
        value = known(self._place.environment).get(variable, "")
        if not value:
            raise NotKnownError(Unknown(f"{variable} is not set"))
        return value

    def _function(self) -> Function:
        name = known(self._place.function)
        answer = self._lambda.get_function_configuration(FunctionName=name)
        reserved = self._lambda.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
        states = {"State": answer.get("State", ""), "LastUpdateStatus": answer.get("LastUpdateStatus", "")}
        faults = [f"{name} is {state}" for name, state in states.items() if state in {"Failed", "Inactive"}]
        storage = answer["EphemeralStorage"]["Size"]
        return Function(answer["Timeout"], storage, "the function's " + ", ".join(faults) if faults else "", reserved)

    def _event_source(self) -> EventSource:
        answer = self._lambda.get_event_source_mapping(UUID=known(self._place.event_source))
        reports = "ReportBatchItemFailures" in answer.get("FunctionResponseTypes", [])
        enabled = answer["State"] in {"Enabled", "Enabling", "Updating", "Creating"}
        said = answer.get("LastProcessingResult", "")
        return EventSource(
            answer.get("MaximumBatchingWindowInSeconds", 0),
            reports,
            enabled,
            filters=len(answer.get("FilterCriteria", {}).get("Filters", [])),
            most=answer.get("ScalingConfig", {}).get("MaximumConcurrency"),
            problem=f"the mapping's last result is {said}" if said.upper().startswith("PROBLEM") else "",
        )

    def _attributes(self, queue_url: str) -> dict[str, str]:
        answer = self._sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["All"])
        return {str(name): value for name, value in answer["Attributes"].items()}

    def _queue(self, queue_url: str) -> Queue:
        found = self._attributes(queue_url)
        redrive = json.loads(found.get("RedrivePolicy", "null"))
        return Queue(
            found["QueueArn"],
            int(found["VisibilityTimeout"]),
            int(found["MessageRetentionPeriod"]),
            int(found["MaximumMessageSize"]),
            int(redrive["maxReceiveCount"]) if redrive else None,
        )

    def _dead_letters(self) -> Queue:
        return self._queue(questions.dead_letter_url(self._sqs, known(self._place.queue_url)))

    def _table(self) -> Table:
        name = self._named("IDEMPOTENCY_TABLE_NAME")
        table = self._dynamodb.describe_table(TableName=name)["Table"]
        types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
        key = tuple(
            (each["AttributeName"], each["KeyType"], types[each["AttributeName"]]) for each in table["KeySchema"]
        )
        ttl = self._dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
        enabled = ttl.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"}
        return Table(key, ttl.get("AttributeName") if enabled else None)

    def _notifications(self) -> Sequence[Notification]:
        answer = self._s3.get_bucket_notification_configuration(Bucket=known(self._place.source))
        found = []
        if answer.get("EventBridgeConfiguration") is not None and service_of(self._announcer()).startswith("events."):
            found.append(
                Notification(self._announcer(), (CREATED,), "", "")
            )  # it is told everything, and chooses itself
        configured: list[Any] = [*answer.get("QueueConfigurations", []), *answer.get("TopicConfigurations", [])]
        for each in configured:
            rules = each.get("Filter", {}).get("Key", {}).get("FilterRules", [])
            filters = {str(rule["Name"]).lower(): rule["Value"] for rule in rules}
            events = tuple(map(str, each["Events"]))
            to = each.get("QueueArn") or each["TopicArn"]
            found.append(Notification(to, events, filters.get("prefix", ""), filters.get("suffix", "")))
        return found

    def _announcer(self) -> str:
        """Who sends to the queue: a topic, a rule, or else the bucket."""
        return self._place.announcer or f"arn:aws:s3:::{known(self._place.source)}"

    def _may_send(self, queue: str) -> bool | None:
        policy = policies.statements(self._attributes(known(self._place.queue_url)).get("Policy"))
        announcer, account = self._announcer(), queue.split(":")[4]
        if announcer.startswith("arn:aws:s3:::"):
            announcer = announcer.replace("arn:aws:", f"arn:{queue.split(':')[1]}:", 1)
        return policies.may_send(policy, service_of(announcer), announcer, account)

    def _replica(self, _second_put: int, now: float) -> Replica:
        """What became of the probe, which replication copies as it copies every bundle."""
        bucket, archive = self._named("DISTRIBUTION_BUCKET_NAME"), self._named("ARCHIVE_BUCKET_NAME")
        return questions.replica(self._s3, bucket, archive, PROBE_KEY, now=now)

    def _replication_rules(self) -> list[dict[str, Any]]:
        bucket, missing = self._named("DISTRIBUTION_BUCKET_NAME"), "ReplicationConfigurationNotFoundError"
        answer: Any = unless(missing, lambda: self._s3.get_bucket_replication(Bucket=bucket))
        rules = answer.get("ReplicationConfiguration", {}).get("Rules", [])
        return [rule for rule in rules if rule["Status"] == "Enabled"]

    def _failed_replicas(self, rules: Sequence[Mapping[str, Any]], now: float) -> int:
        """Copies that failed in the last day, of the rules whose metrics are on."""
        source, ends = self._named("DISTRIBUTION_BUCKET_NAME"), datetime.fromtimestamp(now, UTC)
        figures = []
        for rule in rules:
            names = {"SourceBucket": source, "DestinationBucket": _bucket_of(rule), "RuleId": rule.get("ID", "")}
            answer = self._cloudwatch.get_metric_statistics(
                Namespace="AWS/S3",
                MetricName="OperationsFailedReplication",
                Dimensions=[{"Name": name, "Value": value} for name, value in names.items()],
                StartTime=ends - timedelta(seconds=_DAY),
                EndTime=ends,
                Period=_DAY,
                Statistics=["Sum"],
            )
            figures += [point["Sum"] for point in answer["Datapoints"]]
        if not figures:
            raise NotKnownError(
                Unknown("CloudWatch has no figures of the last day: nothing was copied, or metrics are off")
            )
        return int(sum(figures))

    def _access(self, queue: Queue) -> Access:
        """What IAM's simulation says of the function's role; bucket and key policies are not in it."""
        role = self._lambda.get_function_configuration(FunctionName=known(self._place.function))["Role"]
        s3 = f"arn:{role.split(':')[1]}:s3:::"
        bucket, source = self._named("DISTRIBUTION_BUCKET_NAME"), known(self._place.source)
        table = self._dynamodb.describe_table(TableName=self._named("IDEMPOTENCY_TABLE_NAME"))["Table"]["TableArn"]
        arns = {
            "queue": queue.arn,
            "source": s3 + source,
            "members": f"{s3}{source}/{self._place.prefix or ''}object",
            "distribution": s3 + bucket,
            "bundles": f"{s3}{bucket}/bundle.gz",
            "table": table,
        }
        needed = dict(ACTIONS)
        if known(self._place.environment).get("IDEMPOTENCY_SCOPE") == "version":
            needed["members"] = (*needed["members"], VERSIONS)
        keys = {
            "source key": (questions.default_key(self._s3, source), KEYS[:1]),
            "bundle key": (questions.default_key(self._s3, bucket), KEYS),
        }
        needed.update({what: actions for what, (key, actions) in keys.items() if key})
        arns.update({what: key for what, (key, _) in keys.items() if key})
        missing = [
            action for what in needed for action in self._simulated(role, needed[what], arns[what], allowed=False)
        ]
        excessive = self._simulated(role, FORBIDDEN, arns["bundles"], allowed=True)
        return Access(tuple(missing), tuple(excessive))

    def _simulated(self, role: str, actions: Sequence[str], arn: str, *, allowed: bool) -> list[str]:
        """Those of `actions` on `arn` that the role is, or is not, allowed."""
        answer = self._iam.simulate_principal_policy(
            PolicySourceArn=role,
            ActionNames=actions,
            ResourceArns=[arn],
            ContextEntries=[
                {
                    "ContextKeyName": "aws:ResourceAccount",
                    "ContextKeyValues": [role.split(":")[4]],
                    "ContextKeyType": "string",
                }
            ],
        )
        results = answer["EvaluationResults"]
        return [each["EvalActionName"] for each in results if (each["EvalDecision"] == "allowed") is allowed]

    def _second_put(self, now: float) -> int:
        """How a conditional put of an object that is there is answered; a first one sees to it that it is there."""
        body = empty_bundle(PROBE_KEY, now, "doctor")
        first = self._put(body)
        return first if first == 412 else self._put(body)

    def _put(self, body: bytes) -> int:
        bucket = self._named("DISTRIBUTION_BUCKET_NAME")
        try:
            answer = self._s3.put_object(Bucket=bucket, Key=PROBE_KEY, Body=io.BytesIO(body), IfNoneMatch="*")
        except ClientError as error:
            status = int(error.response["ResponseMetadata"]["HTTPStatusCode"])
            if status not in _ANSWERS_TO_A_CONDITION:
                raise
            return status
        return int(answer["ResponseMetadata"]["HTTPStatusCode"])

    def _honoured(self, _table: Table, now: Callable[[], float]) -> list[str]:
        """The ways of writing the ledger whose conditions its store honours, if there is a table."""
        name, bucket = self._named("IDEMPOTENCY_TABLE_NAME"), self._named("DISTRIBUTION_BUCKET_NAME")
        records = Records(self._dynamodb, table=name, prefix=bucket, ttl=_DAY, clock=now)
        honoured, unknown = [], None
        for name, way in WAYS.items():
            try:
                honoured += [name] if honours(way(records), records) else []
            except LedgerUnavailableError as error:
                unknown = error
        if unknown and not honoured:
            raise NotKnownError(Unanswered(str(unknown)))
        return honoured

    def _skew(self, now: Callable[[], float]) -> float:
        answer = self._s3.head_bucket(Bucket=self._named("DISTRIBUTION_BUCKET_NAME"))
        return now() - parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()


def _bucket_of(rule: Mapping[str, Any]) -> str:
    return str(rule["Destination"]["Bucket"].rpartition(":")[2])
