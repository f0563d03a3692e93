"""The buckets, queues and table of a local run."""

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.exceptions import ClientError

from aggregator.aws import CommandClients
from aggregator.runtimes.local.files import LocalRunError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

_TAKEN = {"BucketAlreadyExists", "QueueAlreadyExists", "QueueNameExists"}
"""How services say that somebody else has a name, or a queue with other settings."""


class Stack(NamedTuple):
    """The resources of a run, by name; the queues by URL."""

    source: str
    distribution: str
    table: str
    queue: str
    dead_letters: str


def make_stack(clients: CommandClients, name: str, *, visibility_timeout: int, receives: int) -> Stack:
    """
    Make the resources that are missing; the queue's time-out in seconds.

    Raises:
        LocalRunError: somebody else has one of their names.
    """
    dead_letters = _queue(clients.sqs, f"{name}-dead-letters", {})
    redrive = {"deadLetterTargetArn": _arn(clients.sqs, dead_letters), "maxReceiveCount": receives}
    settings = {"VisibilityTimeout": str(visibility_timeout), "RedrivePolicy": json.dumps(redrive)}
    queue = _queue(clients.sqs, name, settings)
    stack = Stack(f"{name}-source", f"{name}-distribution", f"{name}-ledger", queue, dead_letters)
    for bucket in (stack.source, stack.distribution):
        with _already("BucketAlreadyOwnedByYou"), _untaken(bucket):
            _make_bucket(clients.s3, bucket)
    clients.s3.put_bucket_versioning(Bucket=stack.distribution, VersioningConfiguration={"Status": "Enabled"})
    with _already("ResourceInUseException"):
        make_ledger(clients.dynamodb, stack.table)
    _notify(clients, stack)
    return stack


def _make_bucket(s3: "S3Client", bucket: str) -> None:
    region: Any = s3.meta.region_name
    if region == "us-east-1":  # the one region that is not to be named (S3 API reference, CreateBucket)
        s3.create_bucket(Bucket=bucket)
    else:
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})


def make_ledger(dynamodb: "DynamoDBClient", table: str) -> None:
    """Make the DynamoDB table of a ledger."""
    dynamodb.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})


def _notify(clients: CommandClients, stack: Stack) -> None:
    arn = _arn(clients.sqs, stack.queue)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn,
                "Condition": {"ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{stack.source}"}},
            }
        ],
    }
    clients.sqs.set_queue_attributes(QueueUrl=stack.queue, Attributes={"Policy": json.dumps(policy)})
    clients.s3.put_bucket_notification_configuration(
        Bucket=stack.source,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
    )


def _queue(sqs: "SQSClient", name: str, attributes: dict[str, str]) -> str:
    with _untaken(name):
        return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]


def _arn(sqs: "SQSClient", queue_url: str) -> str:
    return sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


@contextlib.contextmanager
def _already(code: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise


@contextlib.contextmanager
def _untaken(name: str) -> Iterator[None]:
    """Say so, if another account or another queue has that name."""
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] not in _TAKEN:
            raise
        raise LocalRunError(f"the name {name} is taken: choose another --name") from error
