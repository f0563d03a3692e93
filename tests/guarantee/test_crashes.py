"""Death, lost answers and refusals at every call that the handler makes; then the batch is delivered again."""

import itertools
from collections.abc import Callable

import pytest

from aggregator.pipeline.core import empty_bundle
from aggregator.pipeline.deadlines import Deadlines
from tests.support.crashing import OBJECTS, ONCE, land, last, run_and_kill, writes_in
from tests.support.faults import LOST, Call, Killed, answered, faults
from tests.support.world import World

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("writes")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_at_any_call_costs_a_repeat_never_a_loss(
    world: World, writes: str, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    for struck in itertools.count():
        world.put_all(_objects(struck))

        with faults(monkeypatch, _strike(struck, when, Killed())) as calls:
            killed = run_and_kill(world, [*_objects(struck), f"{struck}/missing"])
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

    with monkeypatch.context() as patch, faults(monkeypatch, last(patch, "PutObject", "after", LOST)):
        stayed = world.deliver(OBJECTS)

    assert stayed == set(OBJECTS)
    assert world.deliver(OBJECTS) == set(OBJECTS)
    world.lapse()
    assert world.deliver(OBJECTS) == set()
    assert world.published() == ONCE


def test_claims_that_there_is_no_time_to_release_lapse(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put_all(OBJECTS)

    refused = answered(403, "AccessDenied")
    with monkeypatch.context() as patch, faults(monkeypatch, last(patch, "PutObject", "before", refused)):
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
        if delayed or not call.is_before(writes) or writes_in(call) != 1:
            return None
        delayed.append(call)
        return LOST

    with faults(monkeypatch, plan):
        stayed = world.deliver(objects)
    (late,) = delayed
    landed = land(world, late)

    assert not landed
    assert stayed == {"100"}
    assert world.deliver(objects) == set()
    assert world.published() == {key: [body] for key, body in objects.items()}


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
