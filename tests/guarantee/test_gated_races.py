"""
Races by the book: a process is held between two of its AWS calls while another goes on. `gated.py` says how.

Reading an object or an index commutes with everything, so no process is held there, but where a test says so.
"""

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import pytest

from tests.support.gated import LAPSED, MISSING, SECONDS, Process, Stage, play
from tests.support.gates import (
    CLAIMS,
    Trouble,
    Where,
    after,
    asks_what_is_settled,
    before,
    nth,
    puts_a_bundle,
    reads,
)
from tests.support.proxy import Mode
from tests.support.world import World

pytestmark = [pytest.mark.integration, pytest.mark.once]

SHORT = 12
"""Seconds of an invocation that waits no longer than two for the answer to a call."""

WRITES = CLAIMS | {"PutObject", "PutItem"}


@dataclass(frozen=True)
class Scene:
    """
    What two processes, A and B, have got, and how AWS answers A.

    B's clock is `later` seconds ahead of A's. If a process has `died`, it had A's messages, and its claims have lapsed
    for A. With `consumed`, a consumer deletes each bundle as soon as it is there. `size` is an object's, in bytes.
    """

    messages: Mapping[str, Sequence[str]]
    a: Sequence[str]
    b: Sequence[str]
    later: float = 0
    died: Where | None = None
    troubles: Sequence[Trouble] = ()
    troubles_of_b: Sequence[Trouble] = ()
    consumed: bool = False
    size: int = 0

    def begin(self, stage: Stage, *, seconds: float = SECONDS) -> tuple[Process, Process]:
        """Send the messages; the two processes, neither of which has begun."""
        stage.send(self.messages, size=self.size)
        if self.died:
            dead = stage.process("dead", self.a)
            assert dead.run(until=self.died)
            dead.kill()
        now = LAPSED if self.died else 0
        a = stage.process("A", self.a, later=now, troubles=self.troubles, seconds=seconds)
        return a, stage.process("B", self.b, later=now + self.later, troubles=self.troubles_of_b)

    def run(self, stage: Stage, *steps: tuple[Process, Where | None]) -> None:
        """Let one process after the other go on; the consumer comes in between."""
        for process, until in steps:
            process.run(until)
            if self.consumed:
                stage.consume()


XY = {"x": ["x"], "y": ["y"]}
XYZ = {**XY, "z": ["z"]}
TWICE = {**XY, "x again": ["x"]}
SEVERAL = {"x and y": ["x", "y"], "y": ["y"], "z": ["z"]}
PARTLY = {"x": ["x"], "x and missing": ["x", MISSING], "y": ["y"]}


def _put(mode: Mode) -> list[Trouble]:
    return [Trouble(puts_a_bundle, mode, times=1)]


LOSES_CLAIMS = [Trouble(CLAIMS, "lose the answer", times=2)]
CANNOT_READ_X = [Trouble(reads("x"), "answer 503")]

EVERY_DAY = {
    "the same messages": Scene(XY, "xy", "xy"),
    "the same messages, lapsed": Scene(XY, "xy", "xy", later=LAPSED),
    "one message shared, lapsed": Scene(XYZ, "xy", "yz", later=LAPSED),
    "two messages for one object, lapsed": Scene(TWICE, ["x", "x again", "y"], ["x again"], later=LAPSED),
    "several records": Scene(SEVERAL, ["x and y"], ["y", "z"]),
    "one cannot be read": Scene(XY, "xy", "x", troubles=CANNOT_READ_X),
    "one is missing, lapsed": Scene(PARTLY, ["x and missing", "y"], ["x", "y"], later=LAPSED),
    "a process died before its put": Scene(XYZ, "xy", "yz", died=before(puts_a_bundle)),
    "a process died after its put": Scene(XYZ, "xy", "yz", died=after(puts_a_bundle)),
    "the answer to the put is lost, lapsed": Scene(XYZ, "xy", "yz", later=LAPSED, troubles=_put("lose the answer")),
    "claims are in doubt, lapsed": Scene(XYZ, "xy", "xyz", later=LAPSED, troubles=LOSES_CLAIMS),
}

SCENES = {
    **EVERY_DAY,
    "one message shared": Scene(XYZ, "xy", "yz"),
    "two messages for one object": Scene(TWICE, "xy", ["x again"]),
    "several records, lapsed": Scene(SEVERAL, ["x and y", "y"], ["x and y", "z"], later=LAPSED),
    "one cannot be read, lapsed": Scene(XY, "xy", "xy", later=LAPSED, troubles=CANNOT_READ_X),
    "the other cannot read one, lapsed": Scene(XY, "xy", "xy", later=LAPSED, troubles_of_b=CANNOT_READ_X),
    "one is missing": Scene(PARTLY, ["x and missing", "y"], ["x and missing", "x"]),
    "a process died before its put, lapsed": Scene(XYZ, "xy", "xyz", later=LAPSED, died=before(puts_a_bundle)),
    "a process died after its put, lapsed": Scene(XYZ, "xyz", "xyz", later=LAPSED, died=after(puts_a_bundle)),
    "the put is refused for the moment, lapsed": Scene(XYZ, "xy", "yz", later=LAPSED, troubles=_put("answer 503")),
    "the put takes effect with a 503": Scene(XYZ, "xy", "yz", later=LAPSED, troubles=_put("answer 503 all the same")),
    "claims are in doubt": Scene(XYZ, "xy", "yz", troubles=LOSES_CLAIMS),
    "a second bundle, lapsed": Scene(XY, "xy", "xy", later=LAPSED, size=600_000),
    "a consumer deletes": Scene(XY, "xy", "xy", later=LAPSED, consumed=True),
    "a consumer deletes, the answer to the put is lost": Scene(
        XYZ, "xy", "yz", later=LAPSED, consumed=True, troubles=_put("lose the answer")
    ),
}


TAKEN_OVER = {
    name: SCENES[name]
    for name in ("the same messages, lapsed", "one is missing, lapsed", "claims are in doubt, lapsed")
}
TIMED_OUT = {
    name: SCENES[name] for name in ("the same messages, lapsed", "one message shared", "one is missing, lapsed")
}


class Hold(NamedTuple):
    """One of the calls of a process: an operation, and how many of the same came before."""

    operation: str
    earlier: int

    def __str__(self) -> str:
        return f"{self.operation} {self.earlier + 1}"

    @property
    def before(self) -> Where:
        """Before it takes effect."""
        return before(nth(*self))


class Table:
    """
    Rows of races: each scene with A held at each of its calls in turn, and with B held at each of its own meanwhile.

    To be held after a call is to be held before the next. The calls are those that a process was seen to make before;
    should it make others this time, it may never be held, and the row is the poorer, but right.
    """

    def __init__(self, world: World, scenes: Mapping[str, Scene]) -> None:
        self._world, self._scenes = world, scenes
        self._calls: dict[str, list[Hold]] = {}
        wrong = self._play({name: (self._alone, name) for name in scenes})
        assert not wrong, wrong

    def held(self) -> str:
        """A is held, B runs to its end."""
        return self._play({row: (self._crossed, name, hold, None) for row, name, hold in self._rows()})

    def crossed(self) -> str:
        """A is held, B runs until it is held, A runs to its end."""
        rows = [(row, name, hold) for row, name, hold in self._rows() if row in self._calls]
        return self._play(
            {
                f"{row}, B before {other}": (self._crossed, name, hold, other)
                for row, name, hold in rows
                for other in self._calls[row][1:]
            }
        )

    def asleep(self) -> str:
        """A is held, B runs to its end, and then A's clock is as late as B's."""
        return self._play({row: (self._asleep, name, hold) for row, name, hold in self._rows()})

    def late(self) -> str:
        """A is held and dies, B runs to its end, and then A's call lands."""
        return self._play({row: (self._late, name, hold, None) for row, name, hold in self._rows(WRITES)})

    def late_in_between(self) -> str:
        """A is held and dies, B runs until it is held, and then A's call lands."""
        return self._play(
            {
                f"{row}, B before {other}": (self._late, name, hold, other)
                for row, name, hold in self._rows(WRITES)
                for other in self._calls[row]
            }
        )

    def timed_out(self, order: Sequence[str]) -> str:
        """A is held until it stops waiting; it runs to its end, B to its own, and the call lands, in that `order`."""
        return self._play({row: (self._timed_out, name, hold, order) for row, name, hold in self._rows(WRITES)})

    def _rows(self, operations: Container[str] | None = None) -> Iterator[tuple[str, str, Hold]]:
        for name in self._scenes:
            for hold in self._calls[name]:
                if operations is None or hold.operation in operations:
                    yield f"{name}; A before {hold}", name, hold

    def _play(self, rows: Mapping[str, tuple[Any, ...]]) -> str:
        """Play rows, each a method and what it is given beside its own name and stage."""
        scripts = {row: partial(method, row, *given) for row, (method, *given) in rows.items()}
        return play(self._world, scripts)

    def _alone(self, row: str, name: str, stage: Stage) -> None:
        a, _ = self._scenes[name].begin(stage)
        a.run()
        self._calls[row] = _holds(a.calls)

    def _crossed(self, row: str, name: str, hold: Hold, other: Hold | None, stage: Stage) -> None:
        scene = self._scenes[name]
        a, b = scene.begin(stage)
        scene.run(stage, (a, hold.before), (b, other.before if other else None))
        self._calls[row] = _holds(b.calls)
        scene.run(stage, (a, None), (b, None))

    def _asleep(self, row: str, name: str, hold: Hold, stage: Stage) -> None:
        scene = self._scenes[name]
        a, b = scene.begin(stage)
        scene.run(stage, (a, hold.before), (b, None))
        a.sleep(LAPSED)
        scene.run(stage, (a, None))

    def _late(self, row: str, name: str, hold: Hold, other: Hold | None, stage: Stage) -> None:
        scene = self._scenes[name]
        a, b = scene.begin(stage)
        a.run(hold.before)
        a.kill()
        scene.run(stage, (b, other.before if other else None))
        self._calls[row] = _holds(b.calls)
        a.land()
        scene.run(stage, (b, None))

    def _timed_out(self, row: str, name: str, hold: Hold, order: Sequence[str], stage: Stage) -> None:
        a, b = self._scenes[name].begin(stage, seconds=SHORT)
        steps: dict[str, Callable[[], object]] = {"A": a.wait, "B": b.run, "landing": a.land}
        a.run(hold.before)
        for step in order:
            steps[step]()


def _holds(calls: Sequence[str]) -> list[Hold]:
    """The calls of a process where it matters to be held."""
    held = [Hold(call, calls[:at].count(call)) for at, call in enumerate(calls)]
    return [hold for hold in held if hold.operation != "GetObject"]


def _lapsed(scenes: Mapping[str, Scene]) -> dict[str, Scene]:
    """Those in which A's claims have lapsed for B."""
    return {name: scene for name, scene in scenes.items() if scene.later}


@pytest.fixture
def statements(embedded: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """One way of writing, for tables that are squares: the rows above hold for both."""
    return World(monkeypatch, embedded, LEDGER_WRITES="statements", MAX_BUNDLE_INPUT_MB="1")


@pytest.fixture(params=["statements", "transactions"])
def world(request: pytest.FixtureRequest, embedded: str, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch, embedded, LEDGER_WRITES=request.param, MAX_BUNDLE_INPUT_MB="1")


def test_an_object_that_is_given_back_between_two_looks_of_another_process_is_no_duplicate(world: World) -> None:
    def race(stage: Stage) -> None:
        a, b = SCENES["one cannot be read"].begin(stage)
        assert a.run(until=after(CLAIMS))
        assert b.run(until=before(asks_what_is_settled))
        a.run()
        b.run()

    assert play(world, {"given back": race}) == ""


def test_a_claim_whose_first_attempt_is_still_on_its_way_is_in_doubt(world: World) -> None:
    """A process died with x long ago: the record of x expires soon, and its bundle cannot be looked up."""

    def race(stage: Stage) -> None:
        others = {f"{at:03}": [f"{at:03}"] for at in range(100)}
        stage.send({**others, "x": ["x"]})
        dead = stage.process("dead", ["x"])
        assert dead.run(until=before(puts_a_bundle))
        dead.kill()
        (record,) = world.records()
        _expires(world, record, time.time() + LAPSED + 60)
        cannot_look = [Trouble("ListObjectVersions", "answer 503")]
        a = stage.process("A", [*others, "x"], later=LAPSED, seconds=SHORT, troubles=cannot_look)
        assert a.run(until=before(lambda call: call.name in CLAIMS and record["id"].encode() in call.body))
        a.wait()
        world.dynamodb.delete_item(TableName=world.table, Key={"id": {"S": record["id"]}})
        a.land()

    assert play(world, {"in doubt": race}) == ""


def test_while_a_process_is_held_at_any_of_its_calls_another_may_run_to_its_end(statements: World) -> None:
    assert Table(statements, EVERY_DAY).held() == ""


def test_a_process_may_be_suspended_at_any_of_its_calls_for_longer_than_its_claims_live(world: World) -> None:
    assert Table(world, TAKEN_OVER).asleep() == ""


def test_what_a_process_sent_before_it_died_may_land_when_another_has_taken_over(world: World) -> None:
    assert Table(world, TAKEN_OVER).late() == ""


@pytest.mark.chaos
def test_in_any_scene_a_process_may_be_held_while_another_runs_to_its_end(world: World) -> None:
    assert Table(world, SCENES).held() == ""


@pytest.mark.chaos
def test_two_processes_may_hold_each_other_up_at_any_two_of_their_calls(statements: World) -> None:
    table = Table(statements, EVERY_DAY)

    assert table.held() == ""
    assert table.crossed() == ""


@pytest.mark.chaos
def test_a_process_in_any_scene_may_be_suspended_for_longer_than_its_claims_live(world: World) -> None:
    assert Table(world, _lapsed(SCENES)).asleep() == ""


@pytest.mark.chaos
def test_what_a_process_sent_before_it_died_may_land_between_any_two_calls_of_another(statements: World) -> None:
    table = Table(statements, _lapsed(EVERY_DAY))

    assert table.late() == ""
    assert table.late_in_between() == ""


@pytest.mark.chaos
@pytest.mark.parametrize("order", ["A, B, landing", "A, landing, B", "B, A, landing"])
def test_a_call_may_land_after_its_process_has_stopped_waiting_for_it(world: World, order: str) -> None:
    assert Table(world, TIMED_OUT).timed_out(order.split(", ")) == ""


def _expires(world: World, record: Mapping[str, str], at: float) -> None:
    world.dynamodb.update_item(
        TableName=world.table,
        Key={"id": {"S": record["id"]}},
        UpdateExpression="SET expiration = :at",
        ExpressionAttributeValues={":at": {"N": str(int(at))}},
    )
