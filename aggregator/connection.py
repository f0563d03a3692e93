"""
boto3 clients for the command line: patient, as many connections as there are threads, any endpoint.

The pipeline has clients of its own (`clients.py`), whose time-outs are those of an invocation.
"""

from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

THREADS = 16
"""Requests under way at once."""


def s3_client(endpoint_url: str | None = None, *, connections: int = THREADS) -> "S3Client":
    """The S3 client for `endpoint_url`, or for where the environment says."""
    config = _config(connections)
    client = boto3.client("s3", endpoint_url=endpoint_url, config=config)
    if ".amazonaws.com" in client.meta.endpoint_url:
        return client
    path_style = config.merge(Config(s3={"addressing_style": "path"}))  # few machines resolve "bucket.localhost"
    return boto3.client("s3", endpoint_url=endpoint_url, config=path_style)


def sqs_client(*, connections: int = THREADS) -> "SQSClient":
    """The SQS client for where the environment says."""
    return boto3.client("sqs", config=_config(connections))


def dynamodb_client(endpoint_url: str | None = None, *, connections: int = THREADS) -> "DynamoDBClient":
    """The DynamoDB client for `endpoint_url`, or for where the environment says."""
    return boto3.client("dynamodb", endpoint_url=endpoint_url, config=_config(connections))


def _config(connections: int) -> Config:
    return Config(max_pool_connections=connections, retries={"mode": "standard", "total_max_attempts": 5})
