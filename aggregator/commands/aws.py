"""What commands share that speak to an AWS: clients, a ledger that is only read, and what to do about errors."""

import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from aggregator.exceptions import AggregatorError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

    from aggregator.operations.ledger_reader import LedgerReader


class NowhereError(AggregatorError):
    """Something that is named does not exist; to ask it would say that all is well."""

    reason = "nowhere"


class Clients(NamedTuple):
    """The clients of a command, for the AWS that the environment names."""

    s3: "S3Client"
    sqs: "SQSClient"
    dynamodb: "DynamoDBClient"

    @classmethod
    def build(cls, connections: int = 10) -> "Clients":
        """Clients that keep up to `connections` open at once."""
        from aggregator.aws import dynamodb_client, s3_client, sqs_client

        return cls(
            s3_client(connections=connections),
            sqs_client(connections=connections),
            dynamodb_client(connections=connections),
        )

    def ledger(self, table: str, distribution: str, scope: Literal["key", "version"] = "key") -> "LedgerReader":
        """
        The ledger of the bundles in the bucket `distribution`, to look things up in, as of now.

        Raises:
            NowhereError: there is no such bucket, of whose bundles a ledger would know nothing.
        """
        from aggregator.operations.ledger_reader import LedgerReader

        bucket_exists(self.s3, distribution)
        return LedgerReader(self.dynamodb, table=table, distribution=distribution, scope=scope, now=time.time())


def bucket_exists(s3: "S3Client", bucket: str) -> None:
    """
    Go on, unless S3 says that there is no such bucket; what it does not say, because we may not ask, is no reason.

    Raises:
        NowhereError: there is none.
    """
    from botocore.exceptions import ClientError

    from aggregator.aws import is_missing

    try:
        s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if is_missing(error):
            raise NowhereError("there is no such bucket", bucket=bucket) from error


def queue_exists(sqs: "SQSClient", queue_url: str) -> None:
    """
    Go on, unless SQS says that there is no such queue.

    Raises:
        NowhereError: there is none.
    """
    from botocore.exceptions import ClientError

    from aggregator.aws import is_missing

    try:
        sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
    except ClientError as error:
        if is_missing(error):
            raise NowhereError("there is no such queue", queue=queue_url) from error


_REMEDIES = {
    "ProfileNotFound": "AWS_PROFILE names one of ~/.aws/config",
    "NoRegionError": "set AWS_DEFAULT_REGION, or the region of your profile",
    "NoCredentialsError": "set AWS_PROFILE, or log in (aws sso login)",
    "EndpointConnectionError": "look at the network, and at the endpoint",
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
