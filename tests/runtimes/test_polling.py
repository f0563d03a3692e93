"""The poller does with a queue what Lambda's event source mapping does; on moto, in this process."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import structlog
from botocore.exceptions import EndpointConnectionError
from moto import mock_aws

from aggregator.runtimes.gathering import LAMBDA
from aggregator.runtimes.polling import EventSourceMapping, LocalContext, Polled
from tests.support.world import CREDENTIALS

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient


class Queue:
    """A queue with a dead-letter queue behind it, and what a handler was invoked with."""

    def __init__(self, sqs: "SQSClient") -> None:
        self.sqs = sqs
        self.dead_letters = sqs.create_queue(QueueName="dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self.dead_letters, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
        self.url = sqs.create_queue(QueueName="queue", Attributes={"RedrivePolicy": redrive})["QueueUrl"]
        self.events: list[dict[str, Any]] = []

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    def mapping(
        self,
        answer: Callable[[dict[str, Any]], Any],
        *,
        batch_size: int = 1_000,
        window: float = 0.2,
        **options: Any,
    ) -> EventSourceMapping:
        def invoke(event: dict[str, Any]) -> Any:
            self.events.append(event)
            return answer(event)

        limits = LAMBDA._replace(messages=batch_size, window=window)
        return EventSourceMapping(self.sqs, self.url, invoke, limits=limits, **{"retry_after": 0, **options})

    def left(self, url: str) -> list[str]:
        answer = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
        return sorted(message["Body"] for message in answer.get("Messages", []))


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        yield Queue(boto3.client("sqs"))


def test_a_batch_is_gathered_over_several_receives_up_to_its_size(queue: Queue) -> None:
    queue.send(*(f"{at:02}" for at in range(25)))

    polled = queue.mapping(lambda _: None, batch_size=23).poll()

    assert len(polled.deleted) == len(queue.events[0]["Records"]) == 23
    assert len(queue.left(queue.url)) == 2


def test_a_message_reaches_the_handler_as_lambda_hands_it_over(queue: Queue) -> None:
    queue.send("body")

    queue.mapping(lambda _: None).poll()

    (record,) = queue.events[0]["Records"]
    assert record["body"] == "body"
    assert record["eventSource"] == "aws:sqs"
    assert record["eventSourceARN"].endswith(":queue")
    assert record["attributes"]["ApproximateReceiveCount"] == "1"
    assert set(record) == {
        "messageId",
        "receiptHandle",
        "body",
        "attributes",
        "messageAttributes",
        "md5OfBody",
        "eventSource",
        "eventSourceARN",
        "awsRegion",
    }


@pytest.mark.parametrize("answer", [None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}])
def test_an_answer_without_failures_deletes_the_whole_batch(queue: Queue, answer: Any) -> None:
    queue.send("a", "b")

    polled = queue.mapping(lambda _: answer).poll()

    assert (sorted(polled.deleted), polled.kept, queue.left(queue.url)) == (["a", "b"], 0, [])


def test_what_the_answer_names_stays_and_the_rest_is_deleted(queue: Queue) -> None:
    queue.send("good", "bad")

    polled = queue.mapping(_refusing("bad")).poll()

    assert polled == Polled(["good"], 1)
    assert queue.left(queue.url) == ["bad"]


@pytest.mark.parametrize(
    "answer",
    [
        {"batchItemFailures": [{"itemIdentifier": "nobody"}]},
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{}]},
        {"batchItemFailures": "nonsense"},
        "nonsense",
    ],
)
def test_a_nonsensical_answer_keeps_the_whole_batch(queue: Queue, answer: Any) -> None:
    queue.send("a", "b")

    polled = queue.mapping(lambda _: answer).poll()

    assert (polled.deleted, polled.kept) == ([], 2)


def test_a_handler_that_raises_keeps_the_whole_batch(queue: Queue) -> None:
    queue.send("a")

    polled = queue.mapping(_raising).poll()

    assert (polled.deleted, polled.kept) == ([], 1)
    assert queue.left(queue.url) == ["a"]


def test_a_message_that_keeps_failing_goes_to_the_dead_letter_queue(queue: Queue) -> None:
    queue.send("bad")
    mapping = queue.mapping(_refusing("bad"))

    polled = [mapping.poll() for _ in range(3)]

    assert [batch.kept for batch in polled] == [1, 1, 0]
    assert queue.left(queue.dead_letters) == ["bad"]


def test_a_failed_message_waits_for_its_visibility_time_out_as_in_lambda(queue: Queue) -> None:
    queue.send("bad")

    queue.mapping(_refusing("bad"), retry_after=None).poll()

    assert queue.left(queue.url) == []


def test_an_empty_queue_invokes_nobody(queue: Queue) -> None:
    assert queue.mapping(_raising).poll() == Polled([], 0)
    assert queue.events == []


def test_a_batch_is_no_larger_than_an_invocation_takes_and_the_rest_is_the_next(queue: Queue) -> None:
    queue.send(*(f"{at}".ljust(250_000) for at in range(40)))
    mapping = queue.mapping(lambda _: None, batch_size=100, window=5)

    polled = [mapping.poll() for _ in range(2)]

    assert [len(batch.deleted) for batch in polled] == [25, 15]
    assert max(len(json.dumps(event)) for event in queue.events) <= 6 * 1024 * 1024
    assert sorted(int(body) for batch in polled for body in batch.deleted) == list(range(40))


def test_messages_of_a_receive_that_ends_after_the_window_are_in_the_batch(queue: Queue) -> None:
    queue.send(*(f"{at:02}" for at in range(20)))
    queue.sqs.meta.events.register("after-call.sqs.ReceiveMessage", lambda **_: time.sleep(0.3))
    mapping = queue.mapping(lambda _: None, window=0.2)

    polled = [mapping.poll() for _ in range(2)]

    assert sorted(body for batch in polled for body in batch.deleted) == [f"{at:02}" for at in range(20)]


def test_who_is_told_to_stop_receives_nothing_more_and_finishes_what_is_in_hand(queue: Queue) -> None:
    queue.send(*(f"{at}".ljust(900_000) for at in range(10)))
    going = [True]
    mapping = queue.mapping(lambda _: going.clear(), batch_size=100, window=5, going=lambda: bool(going))

    polled = [mapping.poll() for _ in range(3)]
    queue.send("late")
    polled.append(mapping.poll())

    assert [len(batch.deleted) for batch in polled] == [6, 4, 0, 0]
    assert queue.left(queue.url) == ["late"]


def test_a_batch_in_hand_stays_invisible_for_longer_than_its_visibility_time_out(queue: Queue) -> None:
    queue.send("slow", "slower")
    beats: list[int] = []
    seen: list[list[str]] = []
    beaten = threading.Event()

    def beat(**_: Any) -> None:
        beats.append(len(beats))
        if len(beats) > 4:  # a third of the time-out lies between two, so it has run out by now
            beaten.set()

    def handle(_: dict[str, Any]) -> None:
        assert beaten.wait(60)
        seen.append(queue.left(queue.url))

    queue.sqs.meta.events.register("before-call.sqs.ChangeMessageVisibilityBatch", beat)
    polled = queue.mapping(handle, visibility=2, retry_after=None).poll()

    assert (sorted(polled.deleted), seen) == (["slow", "slower"], [[]])


def test_messages_that_cannot_be_kept_invisible_are_handled_all_the_same(queue: Queue) -> None:
    queue.send("a")
    failed = threading.Event()

    def refuse(**_: Any) -> None:
        failed.set()
        raise EndpointConnectionError(endpoint_url="queue")

    queue.sqs.meta.events.register("before-call.sqs.ChangeMessageVisibilityBatch", refuse)
    with structlog.testing.capture_logs() as said:
        polled = queue.mapping(lambda _: failed.wait(60) and None, visibility=1, retry_after=None).poll()

    assert polled == Polled(["a"], 0)
    assert said[0] == {
        "event": "messages.visible",
        "log_level": "warning",
        "messages": 1,
        "fault": "EndpointConnectionError",
    }


def test_what_is_in_hand_is_handled_when_a_later_receive_fails(queue: Queue) -> None:
    queue.send(*(f"{at:02}" for at in range(20)))
    received: list[int] = []

    def fail_later(**_: Any) -> None:
        received.append(1)
        if len(received) > 1:
            raise EndpointConnectionError(endpoint_url="queue")

    queue.sqs.meta.events.register("before-call.sqs.ReceiveMessage", fail_later)
    mapping = queue.mapping(lambda _: None)
    with structlog.testing.capture_logs() as said:
        polled = mapping.poll()

    assert len(polled.deleted) == 10
    assert said == [{"event": "messages.unreceived", "log_level": "warning", "fault": "EndpointConnectionError"}]
    with pytest.raises(EndpointConnectionError):
        mapping.poll()


def test_a_message_that_is_not_deleted_is_said(queue: Queue) -> None:
    queue.send("a")

    def forget(event: dict[str, Any]) -> None:
        event["Records"][0]["receiptHandle"] = "nonsense"

    with structlog.testing.capture_logs() as said:
        queue.mapping(forget).poll()

    assert [line["event"] for line in said] == ["messages.undeleted"]
    assert said[0]["messages"] == 1


def test_an_invocation_outside_lambda_says_where_it_runs() -> None:
    assert LocalContext(function="f", seconds=1, arn="worker:host:7").invoked_function_arn == "worker:host:7"
    assert LocalContext(function="f", seconds=1).invoked_function_arn.endswith(":function:f")


def test_an_invocation_counts_down_to_its_end() -> None:
    over, fresh = LocalContext(function="f", seconds=0), LocalContext(function="f", seconds=900)

    assert over.get_remaining_time_in_millis() == 0
    assert 890_000 < fresh.get_remaining_time_in_millis() <= 900_000
    assert over.aws_request_id != fresh.aws_request_id


def _refusing(body: str) -> Callable[[dict[str, Any]], Any]:
    def answer(event: dict[str, Any]) -> Any:
        ids = [record["messageId"] for record in event["Records"] if record["body"] == body]
        return {"batchItemFailures": [{"itemIdentifier": id_} for id_ in ids]}

    return answer


def _raising(_: dict[str, Any]) -> Any:
    raise RuntimeError("no")
