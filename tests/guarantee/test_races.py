"""Races for real: eight processes over one queue, duplicates, and a killer among them."""

import json
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import boto3
import pytest

from tests.support.world import World

pytestmark = [pytest.mark.integration, pytest.mark.chaos]

PROCESSES = 8
FILES = 2_000
SECONDS = 12
PATIENCE = 240

_SPAWN = multiprocessing.get_context("spawn")


def test_eight_processes_with_a_killer_among_them_publish_each_file_once(world: World) -> None:
    objects = {f"in/{at:04}.json": json.dumps({"at": at}).encode() for at in range(FILES)}
    world.put_all(objects)
    queue_url = _queue(world, objects)
    rng = random.Random(20_261_123)

    pollers = [_poller(world.environment, queue_url) for _ in range(PROCESSES)]
    kills, ends = 0, time.monotonic() + PATIENCE
    while _left(queue_url) and time.monotonic() < ends:
        time.sleep(rng.uniform(0.2, 0.8))
        if kills < 15:
            victim = rng.randrange(PROCESSES)
            pollers[victim].kill()
            pollers[victim].join()
            pollers[victim] = _poller(world.environment, queue_url)
            kills += 1
    for poller in pollers:
        poller.kill()
        poller.join()

    published = Counter({key: len(bodies) for key, bodies in world.published().items()})
    assert _left(queue_url) == 0
    assert published == Counter(dict.fromkeys(objects, 1))
    totals, findings = world.verdict(later=600)
    assert (totals["once"], findings) == (FILES, [])


def _queue(world: World, objects: Mapping[str, bytes]) -> str:
    """A queue with a notification for each object, and a second one for every fifth."""
    sqs = boto3.client("sqs")
    url = sqs.create_queue(QueueName=world.name, Attributes={"VisibilityTimeout": "8"})["QueueUrl"]
    keys = [*objects, *list(objects)[::5]]
    random.Random(1).shuffle(keys)
    for at in range(0, len(keys), 10):
        entries: list[Any] = [
            {"Id": str(number), "MessageBody": world.body(key)} for number, key in enumerate(keys[at : at + 10])
        ]
        sqs.send_message_batch(QueueUrl=url, Entries=entries)
    return url


def _left(queue_url: str) -> int:
    names: Any = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = boto3.client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)


def _poller(environment: Mapping[str, str], queue_url: str) -> Any:
    poller = _SPAWN.Process(target=_poll, args=(dict(environment), queue_url), daemon=True)
    poller.start()
    return poller


def _poll(environment: dict[str, str], queue_url: str) -> None:
    """The life of a process: one batch after the other."""
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    from aggregator import app
    from aggregator.runtimes.gathering import Limits
    from aggregator.runtimes.polling import EventSourceMapping, LocalContext

    def invoke(event: dict[str, Any]) -> Any:
        return app.handler(event, LocalContext(function="race", seconds=SECONDS))  # type: ignore[arg-type]

    mapping = EventSourceMapping(boto3.client("sqs"), queue_url, invoke, limits=Limits(100, 0.5))
    while True:
        mapping.poll()
