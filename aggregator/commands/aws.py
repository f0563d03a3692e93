"""What commands share that speak to an AWS: clients, a ledger that is only read, and refusals told in one line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple

from aggregator.exceptions import AggregatorError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

    from aggregator.ledger import Ledger


class AwsError(AggregatorError):
    """AWS refused a call, or did not answer."""

    reason = "aws"


class Clients(NamedTuple):
    """The clients of a command, for the AWS that the environment names."""

    s3: "S3Client"
    sqs: "SQSClient"
    dynamodb: "DynamoDBClient"

    @classmethod
    def build(cls, connections: int = 10) -> "Clients":
        """Clients that keep up to `connections` open at once."""
        from aggregator.connection import dynamodb_client, s3_client, sqs_client

        return cls(
            s3_client(connections=connections),
            sqs_client(connections=connections),
            dynamodb_client(connections=connections),
        )

    def ledger(self, table: str, distribution: str, scope: Literal["key", "version"] = "key") -> "Ledger":
        """The ledger of the bundles in the bucket `distribution`, to look things up in."""
        from aggregator.clients import Distribution
        from aggregator.ledger import Ledger

        return Ledger(
            self.dynamodb,
            Distribution(self.s3, distribution),
            table=table,
            scope=scope,
            ttl=1,
            request_id="command-line",
            remaining=0,
            deciding=0,
            clock=time.time,
        )


@contextmanager
def refusals_are_told() -> Iterator[None]:
    """
    Turn what AWS says into a line for people.

    Raises:
        AwsError: AWS refused a call, or did not answer.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise AwsError(str(error)) from error
