"""What a backfill sends, how it paces itself, and what it does when a queue does not take everything; no AWS."""

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st

from aggregator.bundles.opening import s3_address
from aggregator.exceptions import InvalidNotificationError, OpeningError
from aggregator.operations.replay.backfill import (
    BackfillError,
    Bookmark,
    Choice,
    Ending,
    Mark,
    Totals,
    notification,
    run,
)
from aggregator.operations.replay.pages import Listed, Page, Position
from aggregator.operations.replay.queues import Delivery, Outbox, Pace
from aggregator.schemas import BODY, ObjectRef
from tests.support.world import CREDENTIALS

MODIFIED = datetime(2026, 11, 23, 16, 30, tzinfo=UTC)


def listed(key: str, **fields: Any) -> Listed:
    return Listed(ObjectRef("source", key, 3, "e1", **fields), MODIFIED, archived=False)


def test_a_notification_is_the_one_that_s3_would_have_sent() -> None:
    body = notification(listed("a b+c/é.json", version_id="v1"))

    assert json.loads(body) == {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "eventTime": "2026-11-23T16:30:00Z",
                "eventName": "ObjectCreated:Put",
                "userIdentity": {"principalId": "aggregator-backfill"},
                "s3": {
                    "bucket": {"name": "source"},
                    "object": {"key": "a+b%2Bc/%C3%A9.json", "size": 3, "eTag": "e1", "versionId": "v1"},
                },
            }
        ]
    }


@given(st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda key: len(key.encode()) <= 1024))
def test_whatever_the_key_the_handler_reads_the_same_member_out_of_the_notification(key: str) -> None:
    member = ObjectRef("source", key, 3, "e1", "v1")

    assert BODY.validate_json(notification(Listed(member, None, archived=False))).objects() == (member,)


@pytest.mark.parametrize("key", ["\udcff.json", "k" * 1025])
def test_a_key_that_no_notification_can_carry_is_refused(key: str) -> None:
    with pytest.raises(InvalidNotificationError):
        notification(listed(key))


@pytest.mark.parametrize("url", ["source/key", "http://source/key", "s3:///key", ""])
def test_an_address_is_in_s3_or_refused(url: str) -> None:
    with pytest.raises(OpeningError):
        s3_address(url)


def test_a_choice_is_a_glob_and_a_half_open_time() -> None:
    choice = Choice("*/orders-?.json", since=MODIFIED, until=datetime(2026, 11, 24, tzinfo=UTC))

    assert choice.includes(listed("in/orders-1.json"))
    assert not choice.includes(listed("in/orders-12.json"))
    assert not choice.includes(listed("in/orders-1.json")._replace(modified=datetime(2026, 11, 24, tzinfo=UTC)))
    with pytest.raises(BackfillError, match="does not say when"):
        choice.includes(listed("in/orders-1.json")._replace(modified=None))


class Pages:
    """A listing of twenty-five objects, ten a page, that goes on from any position."""

    objects = tuple(listed(f"{at:02}") for at in range(25))

    def __call__(self, position: Position) -> Iterator[Page]:
        first = int(position.get("row", 0))
        for at in range(first, len(self.objects), 10):
            yield Page(list(self.objects[at : at + 10]), {"row": at + 10})


class Recipient:
    """Takes messages, until it has taken `most`; then what is left stays unsent, and it sets `stop`."""

    def __init__(self, stop: threading.Event, most: int = 1_000) -> None:
        self.stop, self.most, self.bodies = stop, most, list[str]()

    def __call__(self, bodies: Sequence[str]) -> Delivery:
        room = self.most - len(self.bodies)
        self.bodies += bodies[:room]
        if room < len(bodies):
            self.stop.set()
        return Delivery(list(range(min(room, len(bodies)))), {}, list(range(room, len(bodies))))

    @property
    def keys(self) -> list[str]:
        return [member.key for body in self.bodies for member in BODY.validate_json(body).objects()]


@pytest.mark.parametrize("most", range(26))
def test_a_backfill_that_is_stopped_anywhere_and_resumed_sends_each_object_once(tmp_path: Path, most: int) -> None:
    bookmark = Bookmark(tmp_path / "mark.json", {"target": "s3://source/"})

    def ran(recipient: Recipient) -> Ending:
        return run(Pages(), Choice(), deliver=recipient, ledger=None, bookmark=bookmark, stop=recipient.stop)

    first = Recipient(threading.Event(), most)
    ended = ran(first)
    second = Recipient(threading.Event())
    resumed = second if ended.complete else None
    if resumed:
        assert most == 25
        return
    ended = ran(second)

    assert first.keys + second.keys == [listed.ref.key for listed in Pages.objects]
    assert ended == Ending(complete=True, totals=Totals(listed=25, sent=25))
    assert not bookmark.path.exists()


def test_the_mark_of_another_call_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mark.json"
    mark = Mark({"StartAfter": "a"}, ["body"], Totals(listed=2, rejected=Counter({"archived_object": 1})))
    Bookmark(path, {"target": "s3://one/"}).save(mark)

    with pytest.raises(BackfillError, match="of another backfill"):
        Bookmark(path, {"target": "s3://two/"}).load()

    assert Bookmark(path, {"target": "s3://one/"}).load() == mark


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"call": {}, "position": {}, "unsent": [], "totals": {"x": 1}}'])
def test_a_file_that_is_no_mark_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mark.json"
    path.write_text(text)

    with pytest.raises(BackfillError, match="is not the mark of a backfill"):
        Bookmark(path, {}).load()


def test_what_is_not_sent_is_counted_by_its_reason() -> None:
    objects = [
        listed("good"),
        listed("frozen")._replace(archived=True),
        listed("\udcff"),
        Listed(ObjectRef("source", "folder/", 0), MODIFIED, archived=False),
        listed("other.csv"),
    ]
    recipient = Recipient(threading.Event())

    ended = run(
        lambda _: iter([Page(objects, {})]),
        Choice("[!o]*"),
        deliver=recipient,
        ledger=None,
        bookmark=None,
        stop=recipient.stop,
    )

    rejected = Counter({"archived_object": 1, "invalid_notification": 1})
    examples = [("frozen", "archived_object"), ("\udcff", "invalid_notification")]
    assert ended.totals == Totals(listed=5, not_selected=1, skipped=1, sent=1, rejected=rejected, examples=examples)
    assert recipient.keys == ["good"]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Stubber]]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("sqs")
    with Stubber(client) as stubber:
        yield client, stubber


def _entries(*bodies: tuple[int, str]) -> dict[str, Any]:
    return {
        "QueueUrl": "queue",
        "Entries": [
            {"Id": str(place), "MessageBody": body, "MessageGroupId": "data-aggregator-replay"}
            for place, body in bodies
        ],
    }


def _failed(place: int, code: str, *, ours: bool) -> dict[str, Any]:
    return {"Id": str(place), "Code": code, "SenderFault": ours}


def _taken(*places: int) -> list[dict[str, str]]:
    return [{"Id": str(place), "MessageId": "m", "MD5OfMessageBody": "d"} for place in places]


def test_of_a_batch_what_failed_is_sent_again_and_what_is_our_fault_is_not(queue: tuple[Any, Stubber]) -> None:
    client, stubber = queue
    failed = [_failed(1, "InternalError", ours=False), _failed(2, "InvalidMessageContents", ours=True)]
    stubber.add_response(
        "send_message_batch",
        {"Successful": _taken(0), "Failed": failed},
        _entries((0, "a"), (1, "b"), (2, "c")),
    )
    stubber.add_response("send_message_batch", {"Successful": _taken(1), "Failed": []}, _entries((1, "b")))

    delivery = Outbox(client, "queue", threads=1, stop=threading.Event()).deliver(["a", "b", "c"])

    assert delivery == Delivery([0, 1], {2: "InvalidMessageContents"}, [])


def test_a_queue_that_is_gone_ends_it_and_nothing_more_is_begun(queue: tuple[Any, Stubber]) -> None:
    client, stubber = queue
    bodies = [str(at) for at in range(25)]
    stubber.add_response(
        "send_message_batch", {"Successful": _taken(*range(10)), "Failed": []}, _entries(*enumerate(bodies[:10]))
    )
    stubber.add_client_error("send_message_batch", "AWS.SimpleQueueService.NonExistentQueue", "gone")

    delivery = Outbox(client, "queue", threads=1, stop=threading.Event()).deliver(bodies)

    assert (delivery.sent, delivery.unsent) == (list(range(10)), list(range(10, 25)))
    assert delivery.why.startswith("there is no such queue: check the URL (--queue-url, --dlq)")
    stubber.assert_no_pending_responses()


def test_a_queue_that_keeps_failing_is_left_alone_and_said_so(
    queue: tuple[Any, Stubber], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, stubber = queue
    stop = threading.Event()
    monkeypatch.setattr(stop, "wait", lambda seconds: seconds < 2)
    for _ in range(5):
        stubber.add_response(
            "send_message_batch",
            {"Successful": [], "Failed": [_failed(0, "InternalError", ours=False)]},
            _entries((0, "a")),
        )

    delivery = Outbox(client, "queue", threads=1, stop=stop).deliver(["a"])

    assert delivery == Delivery([], {}, [0], "SQS does not take messages now: InternalError")


def test_a_pace_lets_so_many_a_second_pass_and_no_burst_after_a_pause() -> None:
    now, waits = [0.0], list[float]()

    class Clockwork(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            now[0] += timeout or 0
            return False

    pace = Pace(100, Clockwork(), lambda: now[0])
    for _ in range(3):
        pace.wait(10)
    now[0] += 60
    for _ in range(2):
        pace.wait(10)

    assert waits == pytest.approx([0, 0.1, 0.1, 0, 0.1])
