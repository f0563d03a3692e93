"""Claims and settle records that land late, expire, or cannot be written."""

import errno
import time
from typing import Any

import pytest

from aggregator.pipeline import bundling
from aggregator.pipeline.core import Packer
from tests.support.crashing import OBJECTS, ONCE, land, last, run_and_kill, writes_in
from tests.support.faults import LOST, Call, Killed, faults
from tests.support.world import World, log_lines

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("writes")]


def test_a_claim_that_lands_after_an_old_record_has_expired_does_not_hide_its_member(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that finds an old record in its place proves nothing once DynamoDB has deleted that record."""
    objects = {f"{at:03}": b"x" for at in range(101)}
    world.deliver(["100"])  # it is not there yet, so this leaves an old record
    (old,) = [record["id"] for record in world.records() if record["status"] == "INPROGRESS"]
    _expire_within_seconds(world, old)
    world.put_all(objects)
    delayed: list[Call] = []

    def plan(call: Call) -> Exception | None:
        if delayed or not call.is_before(writes) or writes_in(call) != 1:
            return None
        delayed.append(call)
        return LOST

    with faults(monkeypatch, plan):
        world.deliver(objects)
    world.dynamodb.delete_item(TableName=world.table, Key={"id": {"S": old}})
    assert land(world, delayed[0])
    world.lapse()

    assert world.deliver(objects) == set()
    assert world.published() == {key: [body] for key, body in objects.items()}


def test_a_bundle_that_somebody_wrote_over_is_still_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put_all(OBJECTS)
    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutItem") else None):
        assert run_and_kill(world, OBJECTS)
    (listed,) = world.s3.list_objects_v2(Bucket=world.distribution)["Contents"]
    world.s3.put_object(Bucket=world.distribution, Key=listed["Key"], Body=b"fetched")
    world.lapse()

    stayed = world.deliver(OBJECTS)

    (first, second) = world.s3.list_object_versions(Bucket=world.distribution)["Versions"]
    assert stayed == set()
    assert {first["Key"], second["Key"]} == {listed["Key"]}


def test_a_process_that_was_asleep_while_its_claims_lapsed_does_not_put(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The monotonic clock stands still while a machine is suspended: clock_gettime(2)."""
    world.put_all(OBJECTS)
    asleep = 0.0
    now = time.time

    def plan(call: Call) -> None:
        nonlocal asleep
        asleep = 3_600.0 if call.is_after(writes) else asleep

    with monkeypatch.context() as patch, faults(monkeypatch, plan) as calls:
        patch.setattr(time, "time", lambda: now() + asleep)
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert "PutObject" not in {call.operation for call in calls}
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE


def test_a_bundle_that_could_not_be_settled_is_settled_by_whoever_meets_it_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)

    with faults(monkeypatch, lambda call: LOST if call.is_before("PutItem") else None):
        stayed = world.deliver(OBJECTS)

    assert stayed == set()
    world.lapse()
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE
    assert sum(record["status"] == "COMPLETED" for record in world.records()) == 1


def test_a_consumer_that_deletes_bundles_at_once_makes_nothing_come_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)
    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutItem") else None):
        assert run_and_kill(world, OBJECTS)
    for listed in world.s3.list_objects_v2(Bucket=world.distribution)["Contents"]:
        world.s3.delete_object(Bucket=world.distribution, Key=listed["Key"])
    world.lapse()

    stayed = world.deliver(OBJECTS)

    assert stayed == set()
    assert world.published() == ONCE


def test_a_full_disk_fails_the_batch_and_gives_the_members_back(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fails_whole(world, monkeypatch, capsys, (bundling, "SpooledTemporaryFile", _FullDisk), "OSError")


def test_an_error_that_nobody_foresaw_fails_the_batch_and_gives_the_members_back(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fails_whole(world, monkeypatch, capsys, (Packer, "add", _unexpected), "RuntimeError")


def _fails_whole(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Any, error: str
) -> None:
    """With the attribute patched by `fault` a batch fails, for `error` logged whole; without it, it is bundled."""
    world.put_all(OBJECTS)

    with monkeypatch.context() as patch:
        patch.setattr(*fault)
        stayed = world.deliver(OBJECTS)

    failed = [line for line in log_lines(capsys.readouterr().out) if line.get("message") == "invocation.failed"]
    assert stayed == set(OBJECTS)
    assert [line["exception_name"] for line in failed] == [error]
    assert "Traceback" in failed[0]["exception"]
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE


def test_refusals_that_there_is_no_time_to_record_are_in_the_log(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch, faults(monkeypatch, last(patch, writes, "after", None)):
        stayed = world.deliver(["missing"])

    lines = log_lines(capsys.readouterr().out)
    assert stayed == {"missing"}
    assert [line["reason"] for line in lines if line.get("message") == "envelope.rejected"] == ["missing_object"]
    assert "rejections.unrecorded" in {line.get("message") for line in lines}


def test_refusals_that_cannot_be_recorded_do_not_change_the_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with faults(monkeypatch, lambda call: LOST if call.is_before("BatchWriteItem") else None):
        stayed = world.deliver(["missing"])

    lines = log_lines(capsys.readouterr().out)
    assert stayed == {"missing"}
    assert [line["message"] for line in lines if line.get("level") == "WARNING"] == ["rejections.unrecorded"]


class _FullDisk:
    """A spool on a disk that is full from the first byte."""

    def __init__(self, _size: int) -> None: ...

    def __class_getitem__(cls, _content: type) -> "type[_FullDisk]":
        return cls

    def write(self, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def close(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def _unexpected(*_: Any) -> None:
    raise RuntimeError("unexpected")


def _expire_within_seconds(world: World, id_: str) -> None:
    world.dynamodb.update_item(
        TableName=world.table,
        Key={"id": {"S": id_}},
        UpdateExpression="SET expiration = :soon",
        ExpressionAttributeValues={":soon": {"N": str(int(time.time()) + 5)}},
    )
