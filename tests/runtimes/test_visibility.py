"""A message in flight stays invisible for as long as it is in flight, and not longer; on a clock of ours."""

import threading
from itertools import pairwise
from typing import Any

import pytest
import structlog
from botocore.exceptions import EndpointConnectionError

from aggregator.pipeline.deadlines import GRACE
from aggregator.runtimes.gathering import Limits
from aggregator.runtimes.polling import EventSourceMapping
from aggregator.runtimes.visibility import BEATS, InFlight
from aggregator.runtimes.worker.process import SWEPT, Options, longest, shortest_visibility
from tests.support.queues import MemoryQueue

pytestmark = pytest.mark.once

NEVER = threading.Event()


class Extended:
    """What is in flight on a clock that a test sets, and when each message was extended."""

    def __init__(self, visibility: int) -> None:
        self.now, self.visibility = 0.0, visibility
        self.calls: list[tuple[float, list[str]]] = []
        self.failing = False
        self.messages = InFlight(self._extend, visibility=visibility, clock=lambda: self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass as the thread sees it that asks ten times between two extensions."""
        ends = self.now + seconds
        while self.now < ends:
            self.now += self.visibility / BEATS / 10
            self.messages.extend_due(self.visibility, NEVER)

    def _extend(self, handles: Any, _: int) -> None:
        if self.failing:
            raise EndpointConnectionError(endpoint_url="queue")
        self.calls.append((self.now, list(handles)))


def test_a_message_is_extended_before_a_third_of_its_time_out_is_over_whenever_it_was_received() -> None:
    extended = Extended(300)
    for at in range(60):
        extended.messages.add([f"{at}"])
        extended.pass_time(7)
    extended.pass_time(1_000)

    for at in range(60):
        times = [when for when, handles in extended.calls if f"{at}" in handles]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        assert len(times) > 8
        assert max(gaps) <= 300 / BEATS + 1e-9


def test_a_call_extends_ten_and_no_message_is_extended_before_it_is_due() -> None:
    extended = Extended(300)
    extended.messages.add([f"{at}" for at in range(25)])

    extended.pass_time(70)
    early = list(extended.calls)
    extended.pass_time(30)

    assert early == []
    assert sorted(len(handles) for _, handles in extended.calls) == [5, 10, 10]


def test_what_is_deleted_or_given_back_is_not_extended_any_more() -> None:
    extended = Extended(300)
    extended.messages.add(["deleted", "left", "given back"])

    extended.messages.remove(["deleted"])
    extended.messages.keep_only(["left", "of another process"])
    extended.pass_time(100)

    assert [handles for _, handles in extended.calls] == [["left"]]


def test_what_is_deleted_while_others_are_extended_is_not_extended() -> None:
    calls: list[list[str]] = []

    def extend(handles: Any, _: int) -> None:
        calls.append(list(handles))
        messages.remove([f"{at}" for at in range(10, 18)])

    messages = InFlight(extend, visibility=300, clock=lambda: 0.0)
    messages.add([f"{at}" for at in range(20)])
    messages.extend_due(0, NEVER)

    assert calls == [[f"{at}" for at in range(10)], ["18", "19"]]


def test_an_extension_that_fails_is_said_once_and_made_good_as_soon_as_sqs_answers() -> None:
    extended = Extended(300)
    extended.messages.add([f"{at}" for at in range(30)])
    extended.failing = True

    with structlog.testing.capture_logs() as said:
        extended.pass_time(90)
    extended.failing = False
    extended.pass_time(10)

    assert [(line["event"], line["messages"]) for line in said] == [("messages.visible", 30)]
    assert sorted(len(handles) for _, handles in extended.calls) == [10, 10, 10]


@pytest.mark.parametrize("batch_size", [1_000, 10_000, 120_000])
@pytest.mark.parametrize("seconds", [12, 120, 900])
def test_claims_lapse_before_the_messages_of_a_killed_process_are_visible_again(seconds: int, batch_size: int) -> None:
    """At worst a message was extended a third of the time-out ago, and all the others were extended meanwhile."""
    visibility = shortest_visibility(seconds, batch_size)

    assert visibility - visibility / BEATS - batch_size // SWEPT >= seconds + GRACE


def test_a_process_has_the_more_time_to_stop_the_more_messages_it_may_have_to_delete() -> None:
    few, many = Options("", batch_size=1_000), Options("", batch_size=120_000)

    assert longest(many) - longest(few) == 60


def test_what_did_not_fit_is_kept_invisible_and_is_all_that_a_poll_leaves_in_flight() -> None:
    queue = MemoryQueue([f"{at}".ljust(400_000) for at in range(20)])
    mapping = _mapping(queue, limits=Limits(window=0, payload=2_500_000), visibility=900)

    mapping.poll()

    assert len(mapping._in_flight) == len(queue.in_flight) == 4
    mapping._in_flight.extend_due(0, NEVER)
    assert sorted(queue.extended) == sorted(queue.in_flight)


def test_a_poll_that_is_broken_off_keeps_nothing_invisible() -> None:
    def go(_: Any) -> Any:
        raise KeyboardInterrupt

    mapping = _mapping(MemoryQueue(["a", "b"]), go, limits=Limits(2), visibility=900)

    with pytest.raises(KeyboardInterrupt):
        mapping.poll()
    assert len(mapping._in_flight) == 0


def test_deletes_are_made_side_by_side_and_each_is_a_sign_of_life() -> None:
    together = threading.Barrier(8)
    signs: list[int] = []
    queue = MemoryQueue(
        [f"{at}" for at in range(160)], hook=lambda name, _: name == "delete" and together.wait(30) and None
    )

    mapping = _mapping(queue, limits=Limits(160, 300), threads=8, deleting=lambda: signs.append(1))
    polled = mapping.poll()

    assert (len(polled.deleted), len(signs), queue.in_flight) == (160, 16, {})


def test_a_delete_that_fails_leaves_its_messages_alone_and_many_that_fail_end_the_deleting() -> None:
    failing = {3}

    def hook(name: str, _: dict[str, Any]) -> None:
        if name == "delete" and queue.calls.count("delete") in failing:
            raise EndpointConnectionError(endpoint_url="queue")

    queue = MemoryQueue([f"{at}" for at in range(100)], hook=hook)
    with structlog.testing.capture_logs() as one:
        _mapping(queue, limits=Limits(100, 300), threads=2).poll()
    left = len(queue.in_flight)
    queue = MemoryQueue([f"{at}" for at in range(100)], hook=hook)
    failing |= set(range(100))
    with structlog.testing.capture_logs() as all_:
        _mapping(queue, limits=Limits(100, 300), threads=1).poll()

    assert left == 10
    assert one == [_undeleted(10)]
    assert (all_, queue.calls.count("delete"), len(queue.in_flight)) == ([_undeleted(100)], 1, 100)


def _mapping(queue: MemoryQueue, invoke: Any = lambda _: None, **options: Any) -> EventSourceMapping:
    client: Any = queue
    return EventSourceMapping(client, "queue", invoke, **options)


def _undeleted(messages: int) -> dict[str, Any]:
    facts = {"messages": messages, "fault": "EndpointConnectionError"}
    return {"event": "messages.undeleted", "log_level": "warning", **facts}
