"""Tier 3: the real handler against an AWS: the embedded one, moto's, or a live one that the environment names."""

import gzip
import json
import random
import tempfile
import threading
from typing import Any

import pytest

from aggregator.pipeline import bundling
from aggregator.pipeline.telemetry import METRICS
from fixtures import factories
from tests.support.faults import Call, faults
from tests.support.flow import AWKWARD_KEYS, finished
from tests.support.world import World, environment, log_lines

pytestmark = pytest.mark.integration


def test_each_announced_object_is_in_one_bundle_byte_for_byte(world: World) -> None:
    objects = {f"in/{at}.json": json.dumps({"at": at}).encode() for at in range(150)}
    world.put_all(objects)

    stayed = world.deliver(objects)

    assert stayed == set()
    assert world.published() == {key: [body] for key, body in objects.items()}
    assert len(list(world.bundles())) == 1


def test_keys_that_are_hard_to_write_arrive_under_their_exact_names(world: World) -> None:
    objects = {key: f"content of {key!a}\n".encode() for key in AWKWARD_KEYS}
    world.put_all(objects)

    stayed = world.deliver(objects)

    assert stayed == set()
    assert world.published() == {key: [body] for key, body in objects.items()}


def test_a_redelivered_batch_makes_no_second_bundle(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.put_all({"a": b"1", "b": b"2"})
    world.deliver("ab")
    capsys.readouterr()

    stayed = world.deliver("ab")

    assert stayed == set()
    assert world.published() == {"a": [b"1"], "b": [b"2"]}
    assert finished(capsys)["Duplicates"] == 2


def test_two_notifications_for_one_object_in_a_batch_share_its_outcome(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("a", b"1")
    bodies = {"m1": world.body("a"), "m2": world.body("a"), "m3": world.body("gone"), "m4": world.body("gone")}

    stayed = world.deliver_bodies(bodies)

    assert stayed == {"m3", "m4"}
    assert world.published() == {"a": [b"1"]}
    figures = finished(capsys)
    assert (figures["MembersBundled"], figures["Duplicates"], figures["Rejected"]) == (1, 1, 2)


def test_a_message_with_several_records_is_acknowledged_only_when_all_of_them_are(world: World) -> None:
    world.put_all({"a": b"1", "b": b"2"})
    records = [json.loads(world.body(key))["Records"][0] for key in ("a", "b", "gone")]
    bodies = {"good": json.dumps({"Records": records[:2]}), "bad": json.dumps({"Records": records[1:]})}

    stayed = world.deliver_bodies(bodies)

    assert stayed == {"bad"}
    assert world.published() == {"a": [b"1"], "b": [b"2"]}


def test_bad_messages_stay_and_good_ones_beside_them_are_bundled(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all({"good": b"1", "corrupt.gz": b"\x1f\x8b\x08nonsense", "cut.gz": gzip.compress(b"x" * 999)[:-9]})
    world.put_all({"large": bytes(1_500_000), "bomb.gz": gzip.compress(bytes(2_000_000)), "folder/": b""})
    document = json.loads(world.body("good"))
    foreign = json.loads(world.body("good"))
    foreign["Records"][0]["eventSource"] = "minio:s3"
    deleted = json.loads(world.body("good"))
    deleted["Records"][0]["eventName"] = "ObjectRemoved:Delete"
    bodies = {
        "good": world.body("good"),
        "skipped: test event": json.dumps({"Event": "s3:TestEvent"}),
        "skipped: deletion": json.dumps(deleted),
        "skipped: folder marker": world.body("folder/", size=0),
        "bad: not JSON": "nope",
        "bad: nothing of ours": "{}",
        "bad: foreign source": json.dumps(foreign),
        "bad: unknown event": world.body("good").replace("ObjectCreated:Put", "ObjectMoved:Rename"),
        "bad: API call": json.dumps({"source": "aws.s3", "detail-type": "AWS API Call via CloudTrail", "detail": {}}),
        "bad: several things at once": json.dumps({**document, "source": "aws.s3", "detail-type": "Object Deleted"}),
        "bad: missing": world.body("missing"),
        "bad: no such bucket": factories.created("x", bucket=f"{world.name}-none"),
        "bad: corrupt gzip": world.body("corrupt.gz"),
        "bad: cut gzip": world.body("cut.gz"),
        "bad: larger than a bundle": world.body("large"),
        "bad: declared larger than a bundle": world.body("large", size=1_500_000),
        "bad: decoded larger than a bundle": world.body("bomb.gz"),
        "bad: loop": factories.created("x", bucket=world.distribution),
        "bad: loop in the archive": factories.created("x", bucket="archive"),
    }

    with environment(monkeypatch, MAX_BUNDLE_INPUT_MB="1", ARCHIVE_BUCKET_NAME="archive"):
        stayed = world.deliver_bodies(bodies)

    lines = log_lines(capsys.readouterr().out)
    rejected = {line["message_id"]: line["reason"] for line in lines if line.get("message") == "envelope.rejected"}
    assert stayed == {name for name in bodies if name.startswith("bad")}
    assert world.published() == {"good": [b"1"]}
    assert rejected == {
        "bad: not JSON": "invalid_notification",
        "bad: nothing of ours": "invalid_notification",
        "bad: foreign source": "invalid_notification",
        "bad: unknown event": "unknown_event",
        "bad: API call": "unknown_event",
        "bad: several things at once": "invalid_notification",
        "bad: missing": "missing_object",
        "bad: no such bucket": "missing_object",
        "bad: corrupt gzip": "corrupt_member",
        "bad: cut gzip": "corrupt_member",
        "bad: larger than a bundle": "oversized_member",
        "bad: declared larger than a bundle": "oversized_member",
        "bad: decoded larger than a bundle": "oversized_member",
        "bad: loop": "loop",
        "bad: loop in the archive": "loop",
    }
    assert {record["id"].rpartition("#")[2] for record in world.records() if "#rejected#" in record["id"]} == set(
        rejected
    )


def test_an_object_that_is_not_where_objects_may_come_from_is_rejected_and_never_read(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put_all({"in/a": b"1", "out/b": b"2"})
    bodies = {
        "ours": world.body("in/a"),
        "below another prefix": world.body("out/b"),
        "in another bucket": factories.created("in/c", bucket="not-ours"),
    }

    with environment(monkeypatch, SOURCE_BUCKETS=f"{world.source}/in/"):
        stayed = world.deliver_bodies(bodies)

    lines = log_lines(capsys.readouterr().out)
    rejected = {line["message_id"]: line["reason"] for line in lines if line.get("message") == "envelope.rejected"}
    assert stayed == {"below another prefix", "in another bucket"}
    assert rejected == dict.fromkeys(stayed, "foreign_source")
    assert world.published() == {"in/a": [b"1"]}


def test_a_creation_is_bundled_whatever_it_is_called_and_whatever_stands_beside_it(world: World) -> None:
    world.put_all({"plain": b"1", "prefixed": b"2", "tested": b"3", "both": b"4"})
    prefixed = world.body("prefixed").replace("ObjectCreated:Put", "s3:ObjectCreated:Put")
    tested = {"Service": "Amazon S3", "Event": "s3:TestEvent", **json.loads(world.body("tested"))}
    both = json.loads(world.body("both"))
    both["Records"].insert(0, {"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete"})
    bodies = {
        "plain": world.body("plain"),
        "prefixed": prefixed,
        "tested": json.dumps(tested),
        "both": json.dumps(both),
    }

    stayed = world.deliver_bodies(bodies)

    assert "s3:ObjectCreated:Put" in prefixed
    assert stayed == set()
    assert world.published() == {"plain": [b"1"], "prefixed": [b"2"], "tested": [b"3"], "both": [b"4"]}


def test_what_is_skipped_is_counted_by_its_kind_and_what_is_not_known_is_told_by_its_name(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    deletion = {"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete"}
    records = json.loads(world.body("gone"))["Records"]
    bodies = {
        "test event": json.dumps({"Event": "s3:TestEvent"}),
        "two deletions": json.dumps({"Records": [deletion, deletion]}),
        "folder marker": world.body("folder/", size=0),
        "tags": json.dumps({"source": "aws.s3", "detail-type": "Object Tags Added"}),
        "a deletion and an object that is gone": json.dumps({"Records": [deletion, *records]}),
        "unknown": json.dumps({"source": "aws.s3", "detail-type": "Object Moved"}),
    }

    stayed = world.deliver_bodies(bodies)

    lines = log_lines(capsys.readouterr().out)
    skips = {line["kind"]: line["Skips"] for line in lines if "Skips" in line}
    finished = next(line for line in lines if line.get("message") == "invocation.finished")
    told = {line["message_id"]: line.get("events") for line in lines if line.get("message") == "envelope.rejected"}
    assert stayed == {"a deletion and an object that is gone", "unknown"}
    assert skips == {"TestEvent": [1.0], "ObjectRemoved": [2.0], "FolderMarker": [1.0], "Object Tags Added": [1.0]}
    assert finished["skips"] == {"TestEvent": 1, "ObjectRemoved": 2, "FolderMarker": 1, "Object Tags Added": 1}
    assert (finished["Skipped"], finished["reasons"]) == (4, {"missing_object": 1, "unknown_event": 1})
    assert told == {"a deletion and an object that is gone": None, "unknown": ["Object Moved"]}
    reasons = [json.loads(record["data"]) for record in world.records() if record["id"].endswith("#rejected#unknown")]
    assert [(kept["reason"], "Object Moved" in kept["message"]) for kept in reasons] == [("unknown_event", True)]


def test_what_a_batch_left_on_the_queue_is_bundled_as_soon_as_it_can_be(world: World) -> None:
    world.put("a", b"1")
    assert world.deliver(["a", "late"]) == {"late"}
    world.put("late", b"2")

    stayed = world.deliver(["a", "late"])

    assert stayed == set()
    assert world.published() == {"a": [b"1"], "late": [b"2"]}


def test_gzip_sources_are_decoded_when_they_say_so_and_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("named.gz", gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    world.put("labelled", gzip.compress(b"three\n"), ContentEncoding="gzip")
    world.put("plain.gz", b"not gzip at all\n")
    world.put("unlabelled", gzip.compress(b"four\n", mtime=0))
    world.put("empty.gz", b"")

    stayed = world.deliver(["named.gz", "labelled", "plain.gz", "unlabelled", "empty.gz"])

    assert stayed == set()
    assert world.published() == {
        "named.gz": [b"one\ntwo\n"],
        "labelled": [b"three\n"],
        "plain.gz": [b"not gzip at all\n"],
        "unlabelled": [gzip.compress(b"four\n", mtime=0)],
        "empty.gz": [b""],
    }
    with environment(monkeypatch, SOURCE_DECODING="none"):
        world.put("kept.gz", gzip.compress(b"five\n", mtime=0))
        world.deliver(["kept.gz"])
    assert world.published()["kept.gz"] == [gzip.compress(b"five\n", mtime=0)]


def test_a_message_with_an_absurd_tag_harms_nobody_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("good", b"1")
    absurd = {"long": "x" * 200_000, "line": "a\nb", "nul": "a\0b", "unicode": "é"}
    bodies = {}
    for field in ("eTag", "versionId"):
        for name, tag in absurd.items():
            document = json.loads(world.body("bad"))
            document["Records"][0]["s3"]["object"][field] = tag
            bodies[f"{field}: {name}"] = json.dumps(document)

    with environment(monkeypatch, IDEMPOTENCY_SCOPE="version"):
        stayed = world.deliver_bodies({**bodies, "good": world.body("good")})

    assert stayed == set(bodies)
    assert world.published() == {"good": [b"1"]}


def test_a_large_object_is_read_in_parts(world: World) -> None:
    large = random.Random(7).randbytes(20_000_001)
    world.put_all({"large": large, "small": b"1", "a//large": large})

    stayed = world.deliver(["large", "small", "a//large"])

    assert stayed == set()
    assert world.published() == {"large": [large], "small": [b"1"], "a//large": [large]}


@pytest.mark.parametrize("declared", [True, False])
def test_more_than_one_bundle_holds_goes_into_several(
    world: World, monkeypatch: pytest.MonkeyPatch, *, declared: bool
) -> None:
    objects = {f"{at}": random.Random(at).randbytes(300_000) for at in range(10)}
    world.put_all(objects)
    bodies = {key: world.body(key, size=300_000 if declared else None) for key in objects}

    with environment(monkeypatch, MAX_BUNDLE_INPUT_MB="1"):
        stayed = world.deliver_bodies(bodies)

    assert stayed == set()
    assert world.published() == {key: [body] for key, body in objects.items()}
    assert sorted(len(bundle) for bundle in world.bundles()) == [1, 3, 3, 3]


def test_the_figures_of_an_invocation_are_those_of_its_bundles(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {f"{at}": bytes(300_000) for at in range(4)}
    world.put_all(objects)
    bodies = {key: world.body(key, size=300_000) for key in [*objects, "gone"]}

    with environment(monkeypatch, MAX_BUNDLE_INPUT_MB="1"):
        world.deliver_bodies(bodies)

    lines = log_lines(capsys.readouterr().out)
    figures = next(line for line in lines if line.get("message") == "invocation.finished")
    metrics = {name: line[name] for line in lines if "_aws" in line for name in METRICS if name in line}
    written = [line for line in lines if line.get("message") == "bundle.written"]
    assert (figures["BundlesWritten"], figures["BytesIn"], figures["MembersBundled"]) == (2, 1_200_000, 4)
    assert figures["BytesOut"] == sum(line["bytes_out"] for line in written)
    assert (figures["Rejected"], figures["reasons"]) == (1, {"missing_object": 1})
    assert (sorted(metrics["FillRatio"]), metrics["Failures"]) == ([30.0, 90.0], [1.0])
    assert {figures[name] >= 0 for name in ("GatherTime", "CloseTime", "PutTime", "SettleTime", "Duration")} == {True}


def test_a_bundle_is_gathered_while_the_last_is_put(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {f"{at}": bytes(600_000) for at in range(3)}
    world.put_all(objects)
    bodies = {key: world.body(key, size=600_000) for key in objects}
    claimed, waited = threading.Semaphore(0), list[bool]()

    def watch(call: Call) -> None:
        if call.is_after("BatchExecuteStatement"):
            claimed.release()
        if call.is_before("PutObject") and len(waited) < 2:
            assert claimed.acquire(timeout=10)  # its own claims
            waited.append(claimed.acquire(timeout=10))  # those of the next bundle
            claimed.release()

    with environment(monkeypatch, MAX_BUNDLE_INPUT_MB="1"), faults(monkeypatch, watch):
        stayed = world.deliver_bodies(bodies)

    assert stayed == set()
    assert waited == [True, True]
    assert {key: len(bodies) for key, bodies in world.published().items()} == dict.fromkeys(objects, 1)


def test_a_bundle_that_grows_goes_to_the_disk(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("random", random.Random(1).randbytes(100_000))
    rolled = list[int]()

    class Spool(tempfile.SpooledTemporaryFile[bytes]):
        def rollover(self) -> None:
            rolled.append(self.tell())
            super().rollover()

    monkeypatch.setattr(bundling, "SpooledTemporaryFile", Spool)
    monkeypatch.setattr(bundling, "SPOOL_SIZE", 20_000)
    stayed = world.deliver(["random"])

    assert stayed == set()
    assert len(rolled) == 1


def test_never_more_than_two_bundles_are_spooled(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {f"{at}": bytes(600_000) for at in range(5)}
    world.put_all(objects)
    bodies = {key: world.body(key, size=600_000) for key in objects}
    third, spooled = threading.Event(), list[int]()

    class Spool(tempfile.SpooledTemporaryFile[bytes]):
        under_way = 0

        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            Spool.under_way += 1
            spooled.append(Spool.under_way)
            if len(spooled) > 2:
                third.set()

        def close(self) -> None:
            Spool.under_way -= 1
            super().close()

    def hold(call: Call) -> None:
        if call.is_before("PutObject"):
            third.wait(1)  # time for a third bundle to be begun, if it is

    monkeypatch.setattr(bundling, "SpooledTemporaryFile", Spool)
    with environment(monkeypatch, MAX_BUNDLE_INPUT_MB="1"), faults(monkeypatch, hold):
        stayed = world.deliver_bodies(bodies)

    assert stayed == set()
    assert (len(spooled), max(spooled)) == (5, 2)


def test_what_a_full_bundle_left_over_is_not_even_claimed_in_vain(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {f"{at:03}.gz": gzip.compress(bytes(200_000)) for at in range(12)}
    small = {f"small/{at:03}": b"x" for at in range(900)}
    world.put_all(objects | small)

    with environment(monkeypatch, MAX_BUNDLE_INPUT_MB="1"), faults(monkeypatch, lambda _: None) as calls:
        stayed = world.deliver([*objects, *small])

    writes = sum(
        call.parameters["body"].count(b'"Statement"') for call in calls if call.operation == "BatchExecuteStatement"
    )
    assert stayed == set()
    assert {key: len(bodies) for key, bodies in world.published().items()} == dict.fromkeys([*objects, *small], 1)
    assert writes < 5 * len(objects | small)
