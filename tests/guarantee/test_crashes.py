"""Death, lost answers and refusals at every call that the handler makes; then the batch is delivered again."""

import errno
import itertools
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from aggregator.pipeline import bundling
from aggregator.pipeline.core import Packer, empty_bundle
from aggregator.pipeline.deadlines import Deadlines
from tests.support.faults import LOST, Call, Killed, Plan, answered, faults
from tests.support.world import World, log_lines

pytestmark = pytest.mark.integration

WRITES = {"statements": "BatchExecuteStatement", "transactions": "TransactWriteItems"}

OBJECTS = {f"{at}": f"content of {at}\n".encode() for at in range(5)}
ONCE = {key: [body] for key, body in OBJECTS.items()}


@pytest.fixture(params=WRITES, autouse=True)
def writes(request: pytest.FixtureRequest, world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """The call that writes claims and releases, in each of the two ways."""
    monkeypatch.setenv("LEDGER_WRITES", request.param)
    return WRITES[request.param]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_call_costs_a_repeat_never_a_loss(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    for struck in itertools.count():
        world.put_all(_objects(struck))

        with faults(monkeypatch, _strike(struck, when, Killed())) as calls:
            killed = _killed(world, [*_objects(struck), f"{struck}/missing"])
        world.lapse()
        stayed = world.deliver(_objects(struck))

        assert stayed == set()
        assert _of(world, struck) == {key: [body] for key, body in _objects(struck).items()}
        if not killed:
            break
    assert [call.operation for call in calls] == [
        writes,
        writes,
        "PutObject",
        "PutItem",
        "BatchWriteItem",
    ]


@pytest.mark.parametrize(
    ("when", "error"),
    [
        ("after", LOST),
        ("before", LOST),
        ("before", answered(503, "SlowDown")),
        ("after", answered(500, "InternalError")),
    ],
)
def test_a_fault_at_any_call_is_answered_and_mended_by_redelivery(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str, error: Exception
) -> None:
    for struck in itertools.count():
        world.put_all(_objects(struck))

        with faults(monkeypatch, _strike(struck, when, error)) as calls:
            first = world.deliver([*_objects(struck), f"{struck}/missing"])
        stayed = world.deliver(_objects(struck))
        if stayed:
            world.lapse()
            stayed = world.deliver(_objects(struck))

        assert f"{struck}/missing" in first
        assert stayed == set()
        assert _of(world, struck) == {key: [body] for key, body in _objects(struck).items()}
        if struck >= len(calls):
            break


def test_a_put_whose_answer_is_lost_is_found_and_acknowledged_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)

    with faults(monkeypatch, lambda call: LOST if call.is_after("PutObject") else None):
        stayed = world.deliver(OBJECTS)

    assert stayed == set()
    assert world.published() == ONCE


def test_a_put_that_never_arrived_leaves_its_claims_to_lapse_because_it_may_yet_land(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)

    with faults(monkeypatch, lambda call: LOST if call.is_before("PutObject") else None) as calls:
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert [call.operation for call in calls] == [writes, "PutObject", "ListObjectVersions"]
    assert world.deliver(OBJECTS) == set(OBJECTS)
    world.lapse()
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_put_that_is_throttled_is_made_again_but_not_blindly(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    world.put_all(OBJECTS)

    with faults(monkeypatch, _strike(1, when, answered(503, "SlowDown"))) as calls:
        stayed = world.deliver(OBJECTS)

    puts = [call.operation for call in calls].count("PutObject")
    assert stayed == set()
    assert puts == (2 if when == "before" else 1)
    assert world.published() == ONCE


def test_a_consumer_that_deletes_a_bundle_before_its_put_is_answered_makes_nothing_come_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)

    def plan(call: Call) -> Exception | None:
        if not call.is_after("PutObject"):
            return None
        for listed in world.s3.list_objects_v2(Bucket=world.distribution)["Contents"]:
            world.s3.delete_object(Bucket=world.distribution, Key=listed["Key"])
        return answered(503, "SlowDown")

    with faults(monkeypatch, plan):
        stayed = world.deliver(OBJECTS)

    assert stayed == set()
    assert world.published() == ONCE


def test_a_put_whose_name_was_closed_meanwhile_gives_the_members_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)

    def plan(call: Call) -> None:
        if call.is_before("PutObject"):
            key = call.parameters["url_path"].lstrip("/")
            world.s3.put_object(Bucket=world.distribution, Key=key, Body=empty_bundle(key, 0, "another"))

    with faults(monkeypatch, plan):
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE


def test_a_put_that_is_refused_gives_the_members_back_without_asking(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)

    with faults(
        monkeypatch, lambda call: answered(403, "AccessDenied") if call.is_before("PutObject") else None
    ) as calls:
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert [call.operation for call in calls] == [writes, "PutObject", writes]
    assert world.deliver(OBJECTS) == set()


def test_a_bundle_that_nobody_can_decide_is_left_to_its_claims(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put_all(OBJECTS)

    def plan(call: Call) -> Exception | None:
        return LOST if call.is_after("PutObject") or call.is_before("ListObjectVersions") else None

    with faults(monkeypatch, plan):
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert world.deliver(OBJECTS) == set(OBJECTS)
    world.lapse()
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE


def test_an_invocation_that_ends_too_soon_does_not_begin_to_put(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)

    with monkeypatch.context() as patch, faults(monkeypatch, lambda _: None) as calls:
        patch.setattr(Deadlines, "allows_put", lambda *_: False)
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert [call.operation for call in calls] == [writes, writes]
    assert world.deliver(OBJECTS) == set()


def test_an_invocation_that_ends_too_soon_does_not_begin_to_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put_all(OBJECTS)

    with monkeypatch.context() as patch, faults(monkeypatch, _last(patch, "PutObject", "after", LOST)):
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert world.deliver(OBJECTS) == set(OBJECTS)
    world.lapse()
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE


def test_claims_that_there_is_no_time_to_release_lapse(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put_all(OBJECTS)

    refused = answered(403, "AccessDenied")
    with monkeypatch.context() as patch, faults(monkeypatch, _last(patch, "PutObject", "before", refused)):
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert {record["status"] for record in world.records() if "bundle" in record["data"]} == {"INPROGRESS"}
    world.lapse()
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE


def test_an_object_that_arrives_too_late_to_be_packed_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)

    with monkeypatch.context() as patch:
        patch.setattr(Deadlines, "of", _no_time_to_pack(Deadlines.of))
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert world.deliver(OBJECTS) == set()


def test_a_bundle_is_not_put_while_a_stray_claim_may_carry_its_name(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put_all(OBJECTS)

    def plan(call: Call) -> Exception | None:
        return LOST if call.is_before(writes) and call.number > 0 else None

    with faults(monkeypatch, plan) as calls:
        stayed = world.deliver([*OBJECTS, "missing"])

    assert stayed == {*OBJECTS, "missing"}
    assert "PutObject" not in {call.operation for call in calls}
    world.lapse()
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE


def test_a_claim_that_lands_after_its_bundle_was_put_does_not_hide_its_member(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {f"{at:03}": b"x" for at in range(101)}
    world.put_all(objects)
    delayed: list[Call] = []

    def plan(call: Call) -> Exception | None:
        if delayed or not call.is_before(writes) or _writes_in(call) != 1:
            return None
        delayed.append(call)
        return LOST

    with faults(monkeypatch, plan):
        stayed = world.deliver(objects)
    (late,) = delayed
    landed = _land(world, late)

    assert not landed
    assert stayed == {"100"}
    assert world.deliver(objects) == set()
    assert world.published() == {key: [body] for key, body in objects.items()}


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
        if delayed or not call.is_before(writes) or _writes_in(call) != 1:
            return None
        delayed.append(call)
        return LOST

    with faults(monkeypatch, plan):
        world.deliver(objects)
    world.dynamodb.delete_item(TableName=world.table, Key={"id": {"S": old}})
    assert _land(world, delayed[0])
    world.lapse()

    assert world.deliver(objects) == set()
    assert world.published() == {key: [body] for key, body in objects.items()}


def test_a_bundle_that_somebody_wrote_over_is_still_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put_all(OBJECTS)
    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutItem") else None):
        assert _killed(world, OBJECTS)
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
        assert _killed(world, OBJECTS)
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
    with monkeypatch.context() as patch, faults(monkeypatch, _last(patch, writes, "after", None)):
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


def _last(patch: pytest.MonkeyPatch, operation: str, when: str, error: Exception | None) -> Plan:
    """From this call on, which ends with `error`, there is no time for any other."""

    def plan(call: Call) -> Exception | None:
        if (call.operation, call.when) != (operation, when):
            return None
        patch.setattr(Deadlines, "allows", lambda *_: False)
        return error

    return plan


def _no_time_to_pack(of: Callable[..., Deadlines]) -> Callable[..., Deadlines]:
    return lambda *given, **told: of(*given, **told)._replace(gather_until=0)


def _objects(trial: int) -> dict[str, bytes]:
    return {f"{trial}/{key}": body for key, body in OBJECTS.items()}


def _of(world: World, trial: int) -> dict[str, list[bytes]]:
    return {key: bodies for key, bodies in world.published().items() if key.startswith(f"{trial}/")}


def _strike(number: int, when: str, error: BaseException) -> Callable[[Call], BaseException | None]:
    return lambda call: error if (call.number, call.when) == (number, when) else None


def _strike_first(operation: str, error: BaseException) -> Callable[[Call], BaseException | None]:
    struck: list[Call] = []

    def plan(call: Call) -> BaseException | None:
        if struck or not call.is_before(operation):
            return None
        struck.append(call)
        return error

    return plan


def _killed(world: World, keys: Iterable[str]) -> bool:
    try:
        world.deliver(keys)
    except Killed:
        return True
    return False


def _writes_in(call: Call) -> int:
    request = json.loads(call.parameters["body"])
    return len(request.get("TransactItems") or request["Statements"])


def _land(world: World, call: Call) -> bool:
    """Let a request arrive late; whether what it writes took effect."""
    request = json.loads(call.parameters["body"])
    if call.operation == "BatchExecuteStatement":
        answer: Any = world.dynamodb.batch_execute_statement(**request)
        return not any("Error" in response for response in answer["Responses"])
    try:
        world.dynamodb.transact_write_items(**request)
    except world.dynamodb.exceptions.TransactionCanceledException:
        return False
    return True
