"""
The textbook build of this system, for comparison: it is not part of the product, and it loses files.

Each object is claimed, read and marked as done by Powertools' decorator, one after the other; the bundle is uploaded
when all are. A crash in between leaves objects that are marked as done and are nowhere.
"""

import gzip
import io
import os
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
    s3, dynamodb = boto3.client("s3"), boto3.client("dynamodb")
    layer = DynamoDBPersistenceLayer(os.environ["IDEMPOTENCY_TABLE_NAME"], boto3_client=dynamodb)
    config = IdempotencyConfig(expires_after_seconds=86_400 * int(os.environ["IDEMPOTENCY_TTL_DAYS"]))
    config.register_lambda_context(context)
    spool = io.BytesIO()
    bundle = gzip.GzipFile(fileobj=spool, mode="wb")

    @idempotent_function(data_keyword_argument="key", persistence_store=layer, config=config)
    def add(bucket: str, key: str) -> str:
        bundle.write(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        bundle.write(b"\n")
        return key

    def record_handler(record: SQSRecord) -> None:
        for notified in S3Event(record.json_body).records:
            add(bucket=notified.s3.bucket.name, key=unquote_plus(notified.s3.get_object.key))

    processor = BatchProcessor(EventType.SQS, raise_on_entire_batch_failure=False)
    answer = process_partial_response(event, record_handler, processor, context)
    bundle.close()
    now = datetime.now(UTC)
    name = f"{now:%Y/%m/%d/%H}/bundle-{context.aws_request_id}.gz"
    s3.put_object(Bucket=os.environ["DISTRIBUTION_BUCKET_NAME"], Key=name, Body=spool.getvalue())
    return answer
