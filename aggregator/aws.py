"""
boto3 clients for the command line: patient, as many connections as there are threads, where the environment says.

The pipeline has clients of its own (`clients.py`), whose time-outs are those of an invocation.
"""

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

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


def s3_client(*, connections: int = THREADS) -> "S3Client":
    """The S3 client."""
    config = _config(connections)
    client = boto3.client("s3", config=config)
    if ".amazonaws.com" in client.meta.endpoint_url:
        return client
    path_style = config.merge(Config(s3={"addressing_style": "path"}))  # few machines resolve "bucket.localhost"
    return boto3.client("s3", config=path_style)


def sqs_client(*, connections: int = THREADS) -> "SQSClient":
    """The SQS client."""
    return boto3.client("sqs", config=_config(connections))


def dynamodb_client(*, connections: int = THREADS) -> "DynamoDBClient":
    """The DynamoDB client."""
    return boto3.client("dynamodb", config=_config(connections))


def is_missing(error: ClientError) -> bool:
    """Whether AWS says that what is named does not exist; everything else says nothing of that."""
    return error.response.get("Error", {}).get("Code", "") in _NOT_THERE


def _config(connections: int) -> Config:
    return Config(max_pool_connections=connections, retries={"mode": "standard", "total_max_attempts": 5})
