"""The batches that Lambda would hand to the handler, each notification with every field that S3 writes."""

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote_plus

from benchmarks.objects import BUCKET, Object


def folders(count: int) -> dict[str, Any]:
    """A batch of SQS messages that announce `count` folder markers: parsed like any other, and then skipped."""
    return event(
        [notification(f"orders/{number:06d}/", 0, "d41d8cd98f00b204e9800998ecf8427e") for number in range(count)]
    )


def announced(event: dict[str, Any]) -> list[Object]:
    """The objects that a batch announces, found with no more care than a benchmark of something else needs."""
    keys = (json.loads(record["body"])["Records"][0]["s3"]["object"]["key"] for record in event["Records"])
    return [found for found in map(Object.named, keys) if found]


def batch(count: int, size: int, *, first: int = 0) -> dict[str, Any]:
    """A batch of SQS messages that announce `count` objects of `size` bytes, from the number `first` on."""
    return announcing(Object(first + at, size) for at in range(count))


def announcing(objects: Iterable[Object]) -> dict[str, Any]:
    """A batch of SQS messages that announce `objects`."""
    return event([notification(each.key, each.size, each.etag) for each in objects])


def event(bodies: list[str]) -> dict[str, Any]:
    """A batch of SQS messages with these bodies (Lambda developer guide, "Using Lambda with Amazon SQS")."""
    return {"Records": [_message(number, body) for number, body in enumerate(bodies)]}


def notification(key: str, size: int, etag: str) -> str:
    """The body of one message (S3 user guide, "Event message structure")."""
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-11-23T17:00:00.000Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AROAEXAMPLE:producer"},
        "requestParameters": {"sourceIPAddress": "192.0.2.7"},
        "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8/IgAtTv8xRjskZQpcIZ9KG"},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "aggregator",
            "bucket": {
                "name": BUCKET,
                "ownerIdentity": {"principalId": "A3NL1KOZZKExample"},
                "arn": f"arn:aws:s3:::{BUCKET}",
            },
            "object": {
                "key": quote_plus(key, safe="/"),
                "size": size,
                "eTag": etag,
                "sequencer": "0055AED6DCD90281E5",
            },
        },
    }
    return json.dumps({"Records": [record]})


def _message(number: int, body: str) -> dict[str, Any]:
    return {
        "messageId": f"059f36b4-87a3-44ab-83d2-{number:012x}",
        "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1795453200000",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1795453200001",
        },
        "messageAttributes": {},
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:aggregator",
        "awsRegion": "us-east-1",
    }
