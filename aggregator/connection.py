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

THREADS = 16
"""Requests under way at once."""

_CONFIG = Config(max_pool_connections=THREADS, retries={"mode": "standard", "total_max_attempts": 5})


def s3_client(endpoint_url: str | None = None) -> "S3Client":
    """The S3 client for `endpoint_url`, or for where the environment says."""
    client = boto3.client("s3", endpoint_url=endpoint_url, config=_CONFIG)
    if ".amazonaws.com" in client.meta.endpoint_url:
        return client
    path_style = _CONFIG.merge(Config(s3={"addressing_style": "path"}))  # few machines resolve "bucket.localhost"
    return boto3.client("s3", endpoint_url=endpoint_url, config=path_style)


def dynamodb_client(endpoint_url: str | None = None) -> "DynamoDBClient":
    """The DynamoDB client for `endpoint_url`, or for where the environment says."""
    return boto3.client("dynamodb", endpoint_url=endpoint_url, config=_CONFIG)
