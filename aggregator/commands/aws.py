"""What commands share that speak to an AWS: clients, a ledger that is only read, and what to do about errors."""

import time
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

    from aggregator.ledger import Ledger


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


_REMEDIES = {
    "ProfileNotFound": "AWS_PROFILE names one of ~/.aws/config",
    "NoRegionError": "set AWS_DEFAULT_REGION, or the region of your profile",
    "NoCredentialsError": "set AWS_PROFILE, or log in (aws sso login)",
    "EndpointConnectionError": "look at the network, and at AWS_ENDPOINT_URL",
    "ValueError": "AWS_ENDPOINT_URL and --endpoint-url are such as http://127.0.0.1:4566",
}
"""What to do about errors of botocore that say only what is missing, by their names."""


def is_of_aws(error: BaseException) -> bool:
    """Whether botocore says so: AWS refused, did not answer, or could not even be asked."""
    from botocore.exceptions import BotoCoreError, ClientError

    if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint"):
        return True  # botocore has no error of its own for it
    return isinstance(error, (BotoCoreError, ClientError))


def remedy(error: BaseException) -> str:
    """What to do about an error, or about what it came from; nothing, if only the error itself can say."""
    cause = error if is_of_aws(error) else error.__cause__
    return _REMEDIES.get(type(cause).__name__, "") if cause and is_of_aws(cause) else ""
