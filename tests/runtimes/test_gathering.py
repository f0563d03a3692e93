"""A batch is what its limits say, however many receives bring it; on a queue in memory."""

import json
import threading
import tracemalloc
from typing import Any

import pytest
import structlog
from botocore.exceptions import ClientError, EndpointConnectionError

from aggregator.runtimes.gathering import Limits, announced_bytes
from aggregator.runtimes.polling import EventSourceMapping
from fixtures import factories
from tests.support.messages import Shape, every_shape
from tests.support.queues import Hook, MemoryQueue

pytestmark = pytest.mark.once

MB = 1_000_000


class Poller:
    """A mapping in front of a queue in memory, and the batches that the handler got."""

    def __init__(self, queue: MemoryQueue, limits: Limits, **options: Any) -> None:
        self.queue, self.batches = queue, list[list[str]]()
        client: Any = queue
        self._mapping = EventSourceMapping(client, "queue", self._take, limits=limits, **{"threads": 16, **options})

    def poll(self) -> list[str]:
        """The bodies of the next batch."""
        before = len(self.batches)
        self._mapping.poll()
        return self.batches[-1] if len(self.batches) > before else []

    def _take(self, event: dict[str, Any]) -> None:
        self.batches.append([record["body"] for record in event["Records"]])


def test_a_batch_ends_when_its_bundle_is_full_and_what_does_not_fit_begins_the_next() -> None:
    bodies = [_announcing(name, 400_000) for name in "abcde"]
    poller = Poller(MemoryQueue(bodies), Limits(window=300, bundle=MB))

    batches = [poller.poll(), poller.poll()]

    assert batches == [bodies[:2], bodies[2:4]]
    assert poller.queue.calls.count("receive") == 1


def test_a_batch_whose_bundle_is_exactly_full_does_not_wait_for_more() -> None:
    bodies = [_announcing(f"{at}", 100_000) for at in range(10)]
    queue = MemoryQueue(bodies)

    assert Poller(queue, Limits(window=300, bundle=MB)).poll() == bodies
    assert queue.calls.count("receive") == 1


@every_shape
def test_the_size_is_found_however_a_notification_is_wrapped(shape: Shape) -> None:
    assert announced_bytes(shape.body(size=12_345), MB) == 12_345


def test_a_message_of_several_objects_counts_them_all() -> None:
    records = [json.loads(_announcing(name, 100))["Records"][0] for name in "abc"]

    assert announced_bytes(json.dumps({"Records": records}), MB) == 300


@pytest.mark.parametrize(
    "body",
    [
        "",
        "nonsense",
        "[" * 100_000,
        "\ud800",
        '{"Records": []}',
        '{"Event": "s3:TestEvent"}',
        factories.created("a", size=None),
        factories.created("a", size=MB + 1),
        factories.created("a", size=1).replace('"size": 1', '"size": -1'),
        factories.created("a", size=1).replace('"size": 1', '"size": "many"'),
        factories.created("a", size=1).replace('"size": 1', '"size": 1e999'),
        factories.created("a", size=1).replace('"size": 1', f'"size": {10**4000}'),
    ],
)
def test_a_strange_size_counts_nothing_and_the_message_is_in_the_batch(body: str) -> None:
    poller = Poller(MemoryQueue([_announcing("before", 600_000), body]), Limits(messages=2, window=300, bundle=MB))

    assert announced_bytes(body, MB) == 0
    assert poller.poll()[1] == body


def test_many_receives_are_under_way_while_the_queue_is_full_and_no_message_is_lost_or_too_many() -> None:
    together = threading.Barrier(8)
    receives: list[int] = []

    def meet(name: str, call: dict[str, Any]) -> None:
        if name == "receive":
            receives.append(call["MaxNumberOfMessages"])
            if 8 <= len(receives) <= 15:  # after 1, 2 and 4 receives that were full, 8 are under way
                together.wait(30)

    bodies = [f"{at}" for at in range(400)]
    queue = MemoryQueue(bodies, hook=meet)

    batch = Poller(queue, Limits(messages=333, window=300), threads=8).poll()

    assert sorted(map(int, batch)) == list(range(333))
    assert (len(queue.waiting), queue.in_flight) == (67, {})


def test_an_empty_queue_is_asked_once_and_makes_no_batch() -> None:
    queue = MemoryQueue([])

    assert Poller(queue, Limits(window=300)).poll() == []
    assert queue.calls == ["receive"]


def test_messages_that_come_seldom_collect_on_the_queue_between_two_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = MemoryQueue(["first"])
    paused: list[float] = []

    def pass_time(seconds: float) -> None:
        paused.append(seconds)
        queue.waiting.extend((f"id-{len(paused)}-{at}", "later") for at in range(9))

    monkeypatch.setattr("time.sleep", lambda seconds: pass_time(seconds) if seconds else None)
    batch = Poller(queue, Limits(messages=91, window=300)).poll()

    assert (len(batch), paused) == (91, [1.0] * 10)
    assert queue.calls.count("receive") == 11


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="queue"),
        ClientError({"Error": {"Code": "OverLimit", "Message": ""}}, "ReceiveMessage"),
    ],
)
def test_a_receive_that_fails_ends_the_batch_and_loses_nothing_that_others_bring(error: Exception) -> None:
    queue = MemoryQueue([f"{at}" for at in range(400)], hook=_failing("receive", at=12, error=error))

    with structlog.testing.capture_logs() as said:
        batch = Poller(queue, Limits(window=300)).poll()

    assert [line["event"] for line in said] == ["messages.unreceived"]
    assert len(batch) == 400 - len(queue.waiting) > 100
    assert queue.in_flight == {}


def test_a_queue_whose_messages_are_all_in_flight_makes_a_batch_of_those() -> None:
    queue = MemoryQueue([f"{at}" for at in range(100)], most_in_flight=30)

    with structlog.testing.capture_logs() as said:
        batch = Poller(queue, Limits(window=300), threads=1).poll()

    assert (len(batch), said[0]["fault"]) == (30, "OverLimit")


def test_who_is_told_to_stop_while_receives_are_under_way_handles_what_they_bring() -> None:
    stopping = threading.Event()
    queue = MemoryQueue(
        [f"{at}" for at in range(1_000)],
        hook=lambda name, _: stopping.set() if name == "receive" and len(queue.calls) > 20 else None,
    )

    batch = Poller(queue, Limits(window=300), going=lambda: not stopping.is_set()).poll()

    assert len(batch) + len(queue.waiting) == 1_000
    assert (len(queue.waiting) > 0, queue.in_flight) == (True, {})


def test_a_message_in_hand_takes_little_more_memory_than_its_text() -> None:
    count, text = 2_000, 1_000
    queue = MemoryQueue(["x" * text for _ in range(count)])
    taken: list[int] = []

    def measure(name: str, _: dict[str, Any]) -> None:
        if name == "delete" and not taken:
            taken.append(tracemalloc.get_traced_memory()[0])

    queue._hook = measure
    tracemalloc.start()
    try:
        Poller(queue, Limits(count, window=300), visibility=900).poll()
    finally:
        tracemalloc.stop()

    assert taken[0] / count < 1_200  # the text itself was made before; a list of bodies is a part of the test


def _announcing(key: str, size: int) -> str:
    return factories.created(key, size=size)


def _failing(call: str, *, at: int, error: Exception) -> Hook:
    seen: list[str] = []
    lock = threading.Lock()

    def hook(name: str, _: dict[str, Any]) -> None:
        with lock:
            seen.append(name)
            if name == call and seen.count(call) == at:
                raise error

    return hook
