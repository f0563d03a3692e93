"""
The queues of the stand-in: each announces objects that nobody has put, as its URL says.

    http://127.0.0.1:8080/queue/120000-1-4096      120,000 messages, each of one object of 4,096 bytes

Messages are made when they are received, once each; what is received is in flight until it is deleted.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from benchmarks.events import notification
from benchmarks.objects import Object

VISIBILITY = 900

_URL = re.compile(r".*/queue/(\d+)-(\d+)-(\d+)")
_HANDLE = "AQEB" + "w" * 396  # as long as SQS's


class Queues:
    """Queues by their URL: the messages that wait, and those in flight."""

    def __init__(self) -> None:
        self._waiting: dict[str, Any] = {}
        self.in_flight: set[str] = set()

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a call of SQS."""
        if operation == "ReceiveMessage":
            return {"Messages": self._receive(request["QueueUrl"], request["MaxNumberOfMessages"])}
        if operation == "GetQueueAttributes":
            arn = "arn:aws:sqs:us-east-1:123456789012:queue"
            return {"Attributes": {"QueueArn": arn, "VisibilityTimeout": str(VISIBILITY)}}
        entries = request["Entries"]
        if operation == "DeleteMessageBatch":
            self.in_flight.difference_update(entry["ReceiptHandle"] for entry in entries)
        return {"Successful": [{"Id": entry["Id"]} for entry in entries], "Failed": []}

    def _receive(self, url: str, most: int) -> list[dict[str, Any]]:
        if url not in self._waiting:
            found = _URL.fullmatch(url)
            assert found, url
            self._waiting[url] = _messages(*map(int, found.groups()))
        messages = list(islice(self._waiting[url], most))
        self.in_flight.update(message["ReceiptHandle"] for message in messages)
        return messages


def _messages(count: int, objects: int, size: int) -> Iterator[dict[str, Any]]:
    for at in range(count):
        named = [Object(at * objects + number, size) for number in range(objects)]
        records = [json.loads(notification(each.key, each.size, each.etag))["Records"][0] for each in named]
        yield {
            "MessageId": f"059f36b4-87a3-44ab-83d2-{at:012x}",
            "ReceiptHandle": f"{_HANDLE}{at:012x}",
            "MD5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
            "Body": json.dumps({"Records": records}),
            "Attributes": {"ApproximateReceiveCount": "1"},
        }
