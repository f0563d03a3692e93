"""
The facts of this moment, asked of AWS: it reads, receives no message, and changes nothing.

A question that may not be asked is `Unknown`, and names the action that is missing.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.exceptions import ClientError

from aggregator.aws import error_code, s3_client, sqs_client
from aggregator.exceptions import PermanentError, StoreUnavailableError, TransientError
from aggregator.operations.doctor.current import Alarm, Copy, Depth, Names, Today
from aggregator.operations.doctor.facts import Unknown
from aggregator.operations.doctor.places import Place
from aggregator.operations.doctor.questions import NotKnownError, Unanswered, asked, dead_letter_url, known
from aggregator.operations.listings import latest_bundles

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.client import CloudWatchClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

NEEDS = {
    "DescribeAlarms": "cloudwatch:DescribeAlarms",
    "GetMetricData": "cloudwatch:GetMetricData",
    "GetQueueAttributes": "sqs:GetQueueAttributes",
    "GetQueueUrl": "sqs:GetQueueUrl",
    "ListObjectVersions": "s3:ListBucketVersions",
    "HeadObject": "s3:GetObjectVersion",
}
"""What who asks must be allowed to do, by the operation that needs it."""

_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "403", "AuthorizationError", "UnauthorizedOperation"})

_COPIES = 10
"""The last bundles whose replication is asked for."""

_AT_ONCE = 100
"""Most alarms in one question (CloudWatch API reference, DescribeAlarms)."""

T = TypeVar("T")


def today(place: Place, *, now: float) -> Today:
    """All that AWS says of this moment of the deployment at `place`."""
    return _Inquiry(place, now).today()


class _Inquiry:
    """The questions to each service."""

    def __init__(self, place: Place, now: float) -> None:
        self._place, self._now = place, now
        self._s3: S3Client = s3_client()
        self._sqs: SQSClient = sqs_client()
        self._cloudwatch: CloudWatchClient = boto3.client("cloudwatch")

    def today(self) -> Today:
        place, bucket = self._place, self._variable("DISTRIBUTION_BUCKET_NAME")
        queue = _asked(lambda: self._depth(known(place.queue_url)))
        dead = _asked(lambda: self._depth(dead_letter_url(self._sqs, known(place.queue_url))))
        bundles = _asked(lambda: self._bundles(known(bucket)))
        return Today(
            names=self._names(),
            alarms=_asked(self._alarms),
            queue=queue,
            oldest=_asked(lambda: self._oldest(known(queue))),
            retried=_asked(lambda: self._failures(TransientError, timedelta(hours=1))),
            dead=dead,
            rejected=_asked(lambda: self._failures(PermanentError, timedelta(days=14))),
            bundles=_map(bundles, lambda found: [(each.url, each.modified) for each in found]),
            copies=_asked(lambda: self._copies(known(bundles))),
        )

    def _names(self) -> Names:
        place = self._place
        given = (place.function, place.event_source, place.log)
        variables = map(self._variable, ("IDEMPOTENCY_TABLE_NAME", "DISTRIBUTION_BUCKET_NAME"))
        return Names(place.stack, *("" if isinstance(name, Unknown) else name for name in (*given, *variables)))

    def _variable(self, name: str) -> str | Unknown:
        if isinstance(self._place.environment, Unknown):
            return self._place.environment
        return self._place.environment.get(name) or Unknown(f"{name} is not set")

    def _alarms(self) -> list[Alarm]:
        names = known(self._place.alarms)
        found: dict[str, Alarm] = {}
        for at in range(0, len(names), _AT_ONCE):
            answer = self._cloudwatch.describe_alarms(AlarmNames=names[at : at + _AT_ONCE], MaxRecords=_AT_ONCE)
            for each in answer["MetricAlarms"]:
                since = each.get("StateTransitionedTimestamp") or each["StateUpdatedTimestamp"]
                found[each["AlarmName"]] = Alarm(
                    each["AlarmName"], each["StateValue"], since.timestamp(), each.get("StateReason", "")
                )
        return [found.get(name, Alarm(name, "", 0, "")) for name in names]

    def _depth(self, url: str) -> Depth:
        found: Any = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        waiting = int(found["ApproximateNumberOfMessages"]) + int(found.get("ApproximateNumberOfMessagesDelayed", 0))
        in_flight = int(found["ApproximateNumberOfMessagesNotVisible"])
        return Depth(url, waiting, in_flight, int(found["VisibilityTimeout"]))

    def _oldest(self, queue: Depth) -> float | None:
        dimensions = {"QueueName": queue.url.rpartition("/")[2]}
        query = _query("oldest", "AWS/SQS", "ApproximateAgeOfOldestMessage", dimensions, "Maximum", 60)
        return next(iter(self._figures([query], timedelta(minutes=15)).get("oldest", [])), None)

    def _failures(self, kind: type[Exception], span: timedelta) -> dict[str, int]:
        """How often messages failed, by reason; the metric counts each receive."""
        service = known(self._variable("SERVICE_NAME"))
        reasons = sorted({each.reason for each in kind.__subclasses__()})  # type: ignore[attr-defined]
        period = min(int(span.total_seconds()), 86_400)
        queries = [
            _query(reason, "DataAggregator", "Failures", {"service": service, "reason": reason}, "Sum", period)
            for reason in reasons
        ]
        found = self._figures(queries, span)
        return {reason: int(sum(values)) for reason, values in found.items() if sum(values)}

    def _figures(self, queries: list[Any], span: timedelta) -> Mapping[str, list[float]]:
        """The values of each query, the latest first."""
        ends = datetime.fromtimestamp(self._now, UTC)
        answer = self._cloudwatch.get_metric_data(
            MetricDataQueries=queries, StartTime=ends - span, EndTime=ends, ScanBy="TimestampDescending"
        )
        return {each["Id"]: list(each["Values"]) for each in answer["MetricDataResults"]}

    def _bundles(self, bucket: str) -> list[Any]:
        try:
            found = latest_bundles(self._s3, bucket)
        except StoreUnavailableError as error:
            raise error.__cause__ or error from None
        return sorted(found, key=lambda each: each.modified, reverse=True)[:_COPIES]

    def _copies(self, bundles: list[Any]) -> list[Copy]:
        known(self._variable("ARCHIVE_BUCKET_NAME"))
        copies = []
        for each in bundles:
            version: Any = {"VersionId": each.version_id} if each.version_id else {}
            found = self._s3.head_object(Bucket=each.bucket, Key=each.key, **version)
            copies.append(Copy(each.url, str(found.get("ReplicationStatus", "")), each.modified))
        return copies


def _query(id_: str, namespace: str, metric: str, dimensions: Mapping[str, str], statistic: str, period: int) -> Any:
    named = [{"Name": name, "Value": value} for name, value in dimensions.items()]
    of = {"Namespace": namespace, "MetricName": metric, "Dimensions": named}
    return {"Id": id_, "MetricStat": {"Metric": of, "Period": period, "Stat": statistic}}


def _asked(question: Callable[[], T]) -> T | Unknown:
    """The answer, or why there is none; an answer that AWS denies names the action to allow."""

    def question_or_action() -> T:
        try:
            return question()
        except ClientError as error:
            if error_code(error) not in _DENIED:
                raise
            says = f"{NEEDS[error.operation_name]} is not allowed ({error_code(error)})"
            raise NotKnownError(Unanswered(says)) from error

    return asked(question_or_action)


def _map(fact: T | Unknown, view: Callable[[T], Any]) -> Any:
    return fact if isinstance(fact, Unknown) else view(fact)
