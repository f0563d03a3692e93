"""
In every history, up to a size, nothing is lost, repeated or stuck; without any one of the protocol's rules it is.

`tests/support/protocol/` is the model. A row says how many invocations there are, and how many faults: no answer, a
write that lands late, an attempt inside botocore, a call that fails, an object that cannot be read, a 503, a claim that
lapses while others go on. Death costs nothing, and neither do consumers, the TTL, and the order in which calls are
made.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple

import pytest

from tests.support import ROOT
from tests.support.faults import Killed, Plan, faults
from tests.support.protocol import mutants
from tests.support.protocol.aws import Aws, World
from tests.support.protocol.calls import EXPIRED, FADING, OLD, Acknowledge, AskClock, Call, Put, ReadObject, Record
from tests.support.protocol.explorer import Exploration, Model, alone, explore
from tests.support.protocol.invocation import Invocation, Overlapping
from tests.support.protocol.programs import Way
from tests.support.world import World as Deployed

pytestmark = pytest.mark.once

Batches = Mapping[str, tuple[str, ...]]

ONE: Batches = {"A": ("x", "y")}
ONE_AND_X: Batches = {"A": ("x", "y"), "B": ("x",)}
TWO: Batches = {"A": ("x", "y"), "B": ("x", "y")}
CROSSED: Batches = {"A": ("x", "y"), "B": ("y", "x")}
ONE_AND_X_TWICE: Batches = {"A": ("x", "y"), "B": ("x",), "C": ("x",)}
THREE: Batches = {"A": ("x", "y"), "B": ("x", "y"), "C": ("x", "y")}

OLD_CLAIM = (Record("claimed", OLD, FADING),)
OLD_RECORDS = (*OLD_CLAIM, Record("released", OLD, FADING), Record("claimed", OLD, EXPIRED))
"""What the table may say of x at first, until the TTL deletes it."""

CARELESS = Aws(patient=True, empties_deleted=True, overwritten=True)
"""Consumers delete empty bundles, and write over what they have fetched; claims lapse when their put cannot land."""


class Row(NamedTuple):
    """What is searched, for how many faults; and the states, as tests/README.md has them under this name."""

    name: str
    batches: Batches
    faults: int
    states: int = 0
    aws: Aws = Aws()
    records: tuple[Record, ...] = ()
    kind: type[Invocation] = Invocation

    def explored(self) -> Exploration:
        """Go through all that may happen."""
        world = World(self.faults)
        worlds = [world.with_record("x", record) for record in self.records] or [world]
        return explore(Model(self.kind, self.batches, aws=self.aws, worlds=worlds))


SMALL = [
    Row("two invocations, two faults", TWO, 2, 149_187),
    Row("one, and one with x alone, one fault, a claim of long ago", ONE_AND_X, 1, 48_821, records=OLD_CLAIM),
    Row("two, one fault, careless consumers", TWO, 1, 39_908, CARELESS),
]

LARGE = [
    Row("two invocations, three faults", TWO, 3, 848_306),
    Row("two, two faults, records of long ago", TWO, 2, 1_069_802, records=OLD_RECORDS),
    Row("two, two faults, careless consumers", TWO, 2, 314_323, CARELESS),
    Row("three invocations, one fault", THREE, 1, 455_824),
    Row("three, two of them with x alone, two faults", ONE_AND_X_TWICE, 2, 298_626),
    Row("two, of two bundles each, one fault", CROSSED, 1, 188_824, kind=Overlapping),
    Row("one of two bundles, one with x alone, two faults", ONE_AND_X, 2, 196_161, kind=Overlapping),
]

MUTANTS = [
    Row("NoSecondLook", ONE_AND_X, 1),
    Row("SettledAskedTooLate", TWO, 1),
    Row("OverChangedClaim", ONE_AND_X_TWICE, 1),
    Row("ReleaseDeletes", ONE, 1),
    Row("ReleaseUnconditional", ONE_AND_X, 1),
    Row("ReleaseAfterPut", ONE, 1),
    Row("ReleaseUncertain", ONE, 2),
    Row("DoubtIgnored", ONE, 1),
    Row("RetryNotInDoubt", ONE, 2),
    Row("FadingIgnored", ONE, 1, records=OLD_CLAIM),
    Row("VanishedIgnored", ONE, 1, records=OLD_CLAIM),
    Row("TakeOverUnresolved", ONE, 0),
    Row("TakeOverUnconditional", TWO, 0, records=OLD_CLAIM),
    Row("NewestOnly", ONE, 0),
    Row("FenceBelieved", ONE, 1),
    Row("FenceDoneBelieved", ONE, 1),
    Row("GivenUpBlindly", ONE, 1),
    Row("AcknowledgedBlindly", ONE, 1),
    Row("PutAgainBlindly", ONE, 1),
    Row("PutUnconditional", ONE, 1),
    Row("SettledFirst", ONE, 0),
]


HARMLESS = [
    Row("OwnUnrecognised", ONE_AND_X, 1),
    Row("Forgetful", ONE_AND_X, 1),
    Row("MembersLookedForOnly", ONE_AND_X, 1, aws=CARELESS),
    Row("EmptyAnywhere", ONE_AND_X, 1, aws=CARELESS),
]

LIMITS = [
    Row("empty bundles are left alone while a put may land", ONE_AND_X, 1, aws=Aws(empties_deleted=True)),
    Row("a put that was answered with 503 does not land later", ONE, 1, aws=Aws(late_503=True)),
]


def _names(row: Row) -> str:
    return row.name


@pytest.mark.parametrize(
    "row",
    [
        *SMALL[1:],
        *(pytest.param(row, marks=pytest.mark.chaos) for row in (SMALL[0], *LARGE[2:])),
        *(pytest.param(row, marks=pytest.mark.nightly) for row in LARGE[:2]),
    ],
    ids=_names,
)
def test_in_every_history_each_object_is_in_one_bundle(row: Row) -> None:
    exploration = row.explored()

    assert exploration.history == (), exploration.told()
    assert exploration.states == row.states


@pytest.mark.parametrize("row", MUTANTS, ids=_names)
def test_without_one_of_its_invariants_the_protocol_has_a_counterexample(row: Row) -> None:
    exploration = row._replace(kind=getattr(mutants, row.name)).explored()

    assert exploration.history[-1].endswith(("in two bundles", "acknowledged, and in no bundle"))


def test_the_race_that_loses_an_object_is_found_in_its_shortest_form() -> None:
    history = Row("", ONE_AND_X, 1, kind=mutants.NoSecondLook).explored().history

    by_a, by_b = ([line for line in history if line.startswith(name)] for name in "AB")
    assert by_a == [
        "A claims x",
        "A claims y",
        "A reads object x: no answer",
        "A reads object y",
        "A releases x",
        "A puts A with y",
        "A settles A",
    ]
    assert by_b == [
        "B claims x: refused",
        "B reads the record of x: claimed for A",
        "B asks whether A is settled: yes",
        "B acknowledges x",
    ]
    assert history.index(by_b[1]) < history.index("A releases x")
    assert history.index("A settles A") < history.index(by_b[2])
    assert history[-1] == "x is acknowledged, and in no bundle"


@pytest.mark.parametrize("row", HARMLESS, ids=_names)
def test_what_only_spares_a_repeat_or_cannot_help_makes_no_difference(row: Row) -> None:
    exploration = row._replace(kind=getattr(mutants, row.name)).explored()

    assert exploration.history == (), exploration.told()


def test_each_mutant_has_a_row() -> None:
    kinds = {
        name for name, kind in vars(mutants).items() if isinstance(kind, type) and kind.__module__ == mutants.__name__
    }

    assert {row.name for row in (*MUTANTS, *HARMLESS)} == kinds
    assert {row.name for row in HARMLESS} == {kind.__name__ for kind in mutants.SAME}


@pytest.mark.parametrize("row", LIMITS, ids=_names)
def test_what_the_protocol_relies_on_is_needed(row: Row) -> None:
    """docs/reading-bundles.md asks consumers for the first; S3 is believed to keep the second."""
    assert row.explored().history[-1].endswith("is in two bundles")


@pytest.mark.parametrize(
    ("batches", "number"), [({"A": ("x",), "B": ("x",)}, 2), pytest.param(ONE, 0, marks=pytest.mark.chaos)]
)
def test_what_makes_the_states_fewer_leaves_no_world_out(batches: Batches, number: int) -> None:
    reduced, whole = (
        Model(Invocation, batches, aws=Aws(), worlds=[World(number)], reduced=reduced) for reduced in (True, False)
    )

    explored = explore(reduced), explore(whole)

    assert explored[0].states < explored[1].states
    assert reduced.worlds == whole.worlds


def test_the_sizes_that_the_page_of_the_tests_tells_are_those_searched() -> None:
    page = (ROOT / "tests" / "README.md").read_text("utf-8").splitlines()

    told = [line for line in page if any(line.startswith(f"| {row.name} | ") for row in (*SMALL, *LARGE))]

    assert [line.split(" | ")[1] for line in told] == [f"{row.states:,}" for row in (*SMALL, *LARGE)]


class Scene(NamedTuple):
    """What has become of an owner of x: it died after a call, or it ended; and how that comes about in the handler."""

    name: str
    until: type[Call] | None
    strike: Plan


SCENES = [
    Scene("an owner that is done", None, lambda _: None),
    Scene(
        "an owner that died before the put", ReadObject, lambda call: Killed() if call.is_before("PutObject") else None
    ),
    Scene("an owner that died after the put", Put, lambda call: Killed() if call.is_after("PutObject") else None),
]

KINDS = {operation: call.operations for call in Call.__subclasses__() for operation in call.operations}


@pytest.mark.integration
def test_the_handler_makes_the_calls_of_the_model_where_nobody_was_before(
    world: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, _ = alone(Invocation, Way("A", ("x",)), World(0), aws=Aws())

    assert _made(world, monkeypatch) == _in_kinds(call.operations for call in calls)


@pytest.mark.integration
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_the_handler_makes_the_calls_of_the_model_after(
    world: Deployed, monkeypatch: pytest.MonkeyPatch, scene: Scene
) -> None:
    _, left = alone(Invocation, Way("A", ("x",)), World(0), aws=Aws(), until=scene.until)
    calls, _ = alone(Invocation, Way("B", ("x",)), Aws().calmed(left), aws=Aws())

    with faults(monkeypatch, scene.strike), suppress(Killed):
        _made(world, monkeypatch)
    world.lapse()

    assert _made(world, monkeypatch) == _in_kinds(call.operations for call in calls)


def _made(world: Deployed, monkeypatch: pytest.MonkeyPatch) -> list[frozenset[str]]:
    """The kinds of the calls that the handler makes for x; one that the model does not know fails."""
    world.put("x", b"x")
    with faults(monkeypatch, lambda _: None) as calls:
        world.deliver(["x"])
    return _in_kinds(KINDS[call.operation] for call in calls)


def _in_kinds(calls: Iterable[frozenset[str]]) -> list[frozenset[str]]:
    """Calls of one kind in a row are one; an object is read by obstore, and Lambda acknowledges: boto3 sees neither."""
    unseen = (AskClock.operations, Acknowledge.operations, ReadObject.operations)
    return [kind for kind, _ in groupby(kind for kind in calls if kind not in unseen)]
