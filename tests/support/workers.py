"""
A worker as a process of its own, and a queue for it on the AWS of a `World`.

    queue.fill(100)
    with Running(queue, "--batch-size", "20") as running:
        running.says("bundle.written")
        assert running.ends() == 0
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import boto3

from aggregator.runtimes.worker.process import shortest_visibility
from tests.support.world import World

COMMAND = (sys.executable, "-m", "aggregator", "worker")

PATIENCE = 120.0
"""Seconds after which a test gives up waiting for what must come."""


class Queue:
    """A queue on the AWS of a world, with a notification for each object that is put."""

    def __init__(self, world: World, *, seconds: int = 60) -> None:
        """`seconds` is the time of an invocation; the visibility time-out is the shortest that suits it."""
        self.world, self.sqs, self.seconds = world, boto3.client("sqs"), seconds
        attributes: Any = {"VisibilityTimeout": str(shortest_visibility(seconds))}
        created = self.sqs.create_queue(QueueName=world.name, Attributes=attributes)
        self.url = created["QueueUrl"]
        self.objects: dict[str, bytes] = {}

    def fill(self, count: int) -> None:
        """Put objects, and say so."""
        fresh = {f"{len(self.objects) + at:04}.json": b'{"at": %d}\n' % at for at in range(count)}
        self.world.put_all(fresh)
        self.objects.update(fresh)
        for key in fresh:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=self.world.body(key))

    def left(self) -> tuple[int, int]:
        """Messages that wait, and messages in hand."""
        names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found: Any = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])


class Running:
    """A worker, and what it has said."""

    def __init__(self, queue: Queue, *options: str, command: Sequence[str] = COMMAND, **process: Any) -> None:
        """`command` begins it, in place of the interpreter's; `process` is for `subprocess.Popen`."""
        self._said = threading.Condition()
        self.lines: list[dict[str, Any]] = []
        whole = [*command, "--queue-url", queue.url, "--window", "0.2", "--seconds", str(queue.seconds)]
        whole += ["--health", "127.0.0.1:0", *options]
        self.process = subprocess.Popen(whole, stdout=subprocess.PIPE, text=True, **process)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):
            for child in self.health()["processes"]:
                os.kill(child["pid"], signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self._thread.join()

    def says(self, event: str) -> dict[str, Any]:
        """The first line of that event, when it comes."""
        with self._said:
            assert self._said.wait_for(lambda: any(line.get("message") == event for line in self.lines), PATIENCE)
            return next(line for line in self.lines if line.get("message") == event)

    def health(self) -> dict[str, Any]:
        """What the health endpoint tells."""
        try:
            with urllib.request.urlopen(self.says("worker.started")["health"], timeout=5) as answer:
                report: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            report = json.load(error)
        return report

    def ends(self, number: int = signal.SIGTERM) -> int:
        """Ask it to stop; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                with self._said:
                    self.lines.append(json.loads(line))
                    self._said.notify_all()


def until(condition: Callable[[], Any]) -> Any:
    """What the condition says, as soon as it says something."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about")
