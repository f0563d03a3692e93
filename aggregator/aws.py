"""
How AWS is reached: clients, one way to ask again, and what its errors say.

An invocation has clients of its own (`pipeline/clients.py`), whose time-outs end before the invocation does. All others
are made here: they are patient, and go where the environment says, as boto3 does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.exceptions import NotFoundError, OpeningError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

THREADS = 16
"""Requests under way at once."""

_NOT_THERE = frozenset({"ResourceNotFoundException", "NoSuchBucket", "NoSuchEntity", "404"}) | {
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
}
"""How services say that what is named does not exist (404: HeadBucket, whose answers have no body)."""

_SENTENCES = {
    **dict.fromkeys(("NoSuchKey", "404", "NoSuchVersion"), "there is no such object"),
    "NoSuchBucket": "there is no such bucket",
    **dict.fromkeys(("AccessDenied", "403"), "the object may not be read, or is not there"),
    **dict.fromkeys(("PreconditionFailed", "412"), "the object was replaced while it was read"),
    "InvalidObjectState": "the object is in a storage class that must be restored before it can be read",
    "ResourceNotFoundException": "there is no such table",
}

T = TypeVar("T")


class CommandClients(NamedTuple):
    """The three clients that a command needs, for the AWS that the environment names."""

    s3: "S3Client"
    sqs: "SQSClient"
    dynamodb: "DynamoDBClient"

    @classmethod
    def build(
        cls, connections: int = THREADS, *, attempts: int = 5, session: boto3.Session | None = None
    ) -> "CommandClients":
        """CommandClients that keep up to `connections` open at once, and make `attempts` at each call."""
        return cls(
            s3_client(connections, attempts=attempts, session=session),
            sqs_client(connections, attempts=attempts, session=session),
            dynamodb_client(connections, attempts=attempts, session=session),
        )


def s3_client(connections: int = THREADS, *, attempts: int = 5, session: boto3.Session | None = None) -> "S3Client":
    """A client of S3."""
    config = _config(connections, attempts)
    client = (session or boto3).client("s3", config=config)
    if ".amazonaws.com" in client.meta.endpoint_url:
        return client
    path_style = config.merge(Config(s3={"addressing_style": "path"}))  # few machines resolve "bucket.localhost"
    return (session or boto3).client("s3", config=path_style)


def sqs_client(connections: int = THREADS, *, attempts: int = 5, session: boto3.Session | None = None) -> "SQSClient":
    """A client of SQS."""
    return (session or boto3).client("sqs", config=_config(connections, attempts))


def dynamodb_client(
    connections: int = THREADS, *, attempts: int = 5, session: boto3.Session | None = None
) -> "DynamoDBClient":
    """A client of DynamoDB."""
    return (session or boto3).client("dynamodb", config=_config(connections, attempts))


def bucket_exists(s3: "S3Client", bucket: str) -> None:
    """
    Return, unless S3 says that there is no such bucket; an answer that we may not ask is not such a word.

    Raises:
        NotFoundError: there is no such bucket.
    """
    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if is_missing(error):
            raise NotFoundError("there is no such bucket", bucket=bucket) from error


def queue_exists(sqs: "SQSClient", queue_url: str) -> None:
    """
    Return, unless SQS says that there is no such queue.

    Raises:
        NotFoundError: there is no such queue.
    """
    try:
        sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    except ClientError as error:
        if is_missing(error):
            raise NotFoundError("there is no such queue", queue=queue_url) from error


def retry_once(call: Callable[[], T]) -> T:
    """Make a call that changes nothing, and once more if AWS did not answer, or answered that it cannot now."""
    try:
        return call()
    except (ClientError, BotoCoreError) as error:
        if 0 < http_status(error) < 500:
            raise
        return call()


def had_no_effect(error: Exception) -> bool:
    """Whether AWS rejected every attempt of a call, so that the call surely did nothing."""
    return isinstance(error, ClientError) and not lost_attempts(error.response) and 0 < http_status(error) < 500


def lost_attempts(answer: Any) -> int:
    """How many attempts inside botocore, before the one that was answered, may have taken effect (`clients.py`)."""
    metadata = answer["ResponseMetadata"]
    return int(metadata.get("LostAttempts", metadata.get("RetryAttempts", 0)))


def error_code(error: Exception) -> str:
    """The error code that AWS gave, or the kind of the error where there was no answer."""
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code", "") or type(error).__name__
    return type(error).__name__


def http_status(error: Exception) -> int:
    """The HTTP status of an answer; 0 where there was no answer."""
    return int(error.response["ResponseMetadata"].get("HTTPStatusCode", 0)) if isinstance(error, ClientError) else 0


def is_missing(error: ClientError) -> bool:
    """Whether AWS says that what is named does not exist; no other answer says anything about that."""
    return error.response.get("Error", {}).get("Code", "") in _NOT_THERE


@contextmanager
def translated(**facts: object) -> Iterator[None]:
    """
    What S3 or DynamoDB answers, as one sentence.

    Raises:
        OpeningError: with the error code of AWS as its `fault`.
    """
    try:
        yield
    except ClientError as error:
        code = error_code(error)
        raise OpeningError(_SENTENCES.get(code, "AWS rejects the request"), **facts, fault=code) from error
    except BotoCoreError as error:
        raise OpeningError("AWS cannot be asked: " + str(error), **facts) from error
    except ValueError as error:
        if not str(error).startswith("Invalid endpoint"):  # botocore has no error of its own for it
            raise
        raise OpeningError(str(error), **facts) from error


def batches(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Cut `values` into batches of `size`, the last one shorter: most of AWS's calls take only so many at once."""
    return (values[at : at + size] for at in range(0, len(values), size))


def _config(connections: int, attempts: int) -> Config:
    return Config(max_pool_connections=connections, retries={"mode": "standard", "total_max_attempts": attempts})
