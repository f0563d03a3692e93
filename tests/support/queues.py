"""A queue in memory, for what a poller does with many messages; it never waits, and a test may let its calls fail."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from botocore.exceptions import ClientError

Hook = Callable[[str, dict[str, Any]], object]
"""Sees each call before it takes effect; it may wait, or raise."""


class MemoryQueue:
    """The calls of SQS that a poller makes; what was received is in flight until it is deleted or comes back."""

    def __init__(self, bodies: Iterable[str], *, most_in_flight: int = 120_000, hook: Hook = lambda *_: None) -> None:
        self._lock, self._hook, self._most = threading.Lock(), hook, most_in_flight
        self.waiting = deque((f"id-{at}", body) for at, body in enumerate(bodies))
        self.in_flight: dict[str, tuple[str, str]] = {}
        self.extended: list[str] = []
        self.calls: list[str] = []

    def get_queue_attributes(self, **_: Any) -> Any:
        return {"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:123456789012:queue"}}

    def receive_message(self, **call: Any) -> Any:
        self._began("receive", call)
        with self._lock:
            if len(self.in_flight) >= self._most:
                raise ClientError({"Error": {"Code": "OverLimit", "Message": ""}}, "ReceiveMessage")
            count = min(call["MaxNumberOfMessages"], len(self.waiting))
            taken = [self.waiting.popleft() for _ in range(count)]
            self.in_flight |= {_handle(id_): (id_, body) for id_, body in taken}
        return {"Messages": [{"MessageId": id_, "ReceiptHandle": _handle(id_), "Body": body} for id_, body in taken]}

    def delete_message_batch(self, **call: Any) -> Any:
        self._began("delete", call)
        with self._lock:
            for entry in call["Entries"]:
                del self.in_flight[entry["ReceiptHandle"]]
        return {"Successful": call["Entries"]}

    def change_message_visibility_batch(self, **call: Any) -> Any:
        self._began("extend", call)
        with self._lock:
            self.extended += [entry["ReceiptHandle"] for entry in call["Entries"]]
        return {"Successful": call["Entries"]}

    def _began(self, name: str, call: dict[str, Any]) -> None:
        self.calls.append(name)
        self._hook(name, call)


def _handle(id_: str) -> str:
    return f"handle-of-{id_}"
