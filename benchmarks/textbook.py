"""
The textbook build of this system, for comparison: it is not part of the product, and it loses files.

Each object is claimed, read and marked as done by Powertools' decorator, one after the other; the bundle is uploaded
when all are. A crash in between leaves objects that are marked as done and are nowhere.

`handler` reads with boto3; `smart_open_handler` and `s3fs_handler` read as the users of those libraries do.
"""

import gzip
import io
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes import S3Event
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)


def handler(event: dict[str, Any], context: Any) -> Any:
    """Bundle the objects that a batch of SQS messages announces; clients are built as in the handler we compare."""
    s3 = boto3.client("s3")

    def read(bucket: str, key: str) -> bytes:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    return _bundled(event, context, s3, read)


def level_6_handler(event: dict[str, Any], context: Any) -> Any:
    """The same at the level of the gzip command; `gzip.GzipFile` takes the ninth."""
    s3 = boto3.client("s3")

    def read(bucket: str, key: str) -> bytes:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read()

    return _bundled(event, context, s3, read, level=6)


def smart_open_handler(event: dict[str, Any], context: Any) -> Any:
    """The same, reading with smart_open, which is given the client as its documentation advises."""
    import smart_open  # noqa: PLC0415 - the others do without

    s3 = boto3.client("s3")

    def read(bucket: str, key: str) -> bytes:
        with smart_open.open(
            f"s3://{bucket}/{key}", "rb", compression="disable", transport_params={"client": s3}
        ) as opened:
            return bytes(opened.read())

    return _bundled(event, context, s3, read)


def s3fs_handler(event: dict[str, Any], context: Any) -> Any:
    """The same, reading with s3fs."""
    import s3fs  # noqa: PLC0415 - it lives in an environment of its own: benchmarks/s3fs.txt

    files = s3fs.S3FileSystem()

    def read(bucket: str, key: str) -> bytes:
        with files.open(f"{bucket}/{key}", "rb") as opened:
            return bytes(opened.read())

    return _bundled(event, context, boto3.client("s3"), read)


def _bundled(event: dict[str, Any], context: Any, s3: Any, read: Callable[[str, str], bytes], *, level: int = 9) -> Any:
    layer = DynamoDBPersistenceLayer(os.environ["IDEMPOTENCY_TABLE_NAME"], boto3_client=boto3.client("dynamodb"))
    config = IdempotencyConfig(expires_after_seconds=86_400 * int(os.environ["IDEMPOTENCY_TTL_DAYS"]))
    config.register_lambda_context(context)
    spool = io.BytesIO()
    bundle = gzip.GzipFile(fileobj=spool, mode="wb", compresslevel=level)

    def add(*, bucket: str, key: str) -> str:
        bundle.write(read(bucket, key))
        bundle.write(b"\n")
        return key

    idempotent = idempotent_function(data_keyword_argument="key", persistence_store=layer, config=config)
    add_once = idempotent(add)

    def record_handler(record: SQSRecord) -> None:
        for notified in S3Event(record.json_body).records:
            add_once(bucket=notified.s3.bucket.name, key=unquote_plus(notified.s3.get_object.key))

    processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
    answer = process_partial_response(event, record_handler, processor, context)
    bundle.close()
    now = datetime.now(UTC)
    name = f"{now:%Y/%m/%d/%H}/bundle-{context.aws_request_id}.gz"
    s3.put_object(Bucket=os.environ["DISTRIBUTION_BUCKET_NAME"], Key=name, Body=spool.getvalue())
    return answer
