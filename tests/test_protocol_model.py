"""
The protocol, checked exhaustively: whatever happens in whatever order, up to a size, nothing is lost and nothing twice.

`tests/protocol/` is the model; `invocation.py` there is the protocol as one reads it. Every state that can be reached
is judged: no object lies in two bundles, none is acknowledged that lies in no bundle, and if all invocations died in
this very moment, one more delivery would bundle what is left. Each invariant, taken away, has a counter-example.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import pytest

from tests.faults import Killed, faults
from tests.protocol import mutants
from tests.protocol.aws import Aws
from tests.protocol.aws import World as Outside
from tests.protocol.calls import EXPIRED, FADING, OLD, Call, Record
from tests.protocol.explorer import Explored, Model, explore
from tests.protocol.invocation import Invocation
from tests.world import World

pytestmark = pytest.mark.once

Batches = Mapping[str, tuple[str, ...]]

OLD_RECORDS = (Record("released", OLD, FADING), Record("claimed", OLD, FADING), Record("claimed", OLD, EXPIRED))


class Scene(NamedTuple):
    """What AWS and its other users do, and what the table says of x when the first message comes."""

    aws: Aws = Aws()
    records: tuple[Record | None, ...] = (None,)

    def worlds(self, faults: int) -> Iterable[Outside]:
        """The worlds that it begins with."""
        return [Outside(faults, records=(("x", record),) if record else ()) for record in self.records]


SCENES = {
    "nothing in the table": Scene(),
    "old records, which the TTL deletes": Scene(records=OLD_RECORDS),
    "consumers that write over bundles": Scene(Aws(overwritten=True)),
    "consumers that delete empty bundles, too, and claims that lapse when their owner is over": Scene(
        Aws(patient=True, empties_deleted=True, overwritten=True)
    ),
}

TWO: Batches = {"A": ("x", "y"), "B": ("x", "y")}
THREE: Batches = {**TWO, "C": ("x", "y")}

MUTANTS = {
    name: mutant
    for name, mutant in inspect.getmembers(mutants, inspect.isclass)
    if issubclass(mutant, Invocation) and mutant is not Invocation
}

NEEDS_MORE = {
    "ASecondRefusalIsBelieved": ("old records, which the TTL deletes", 2, TWO),
    "WhatChangedIsClaimedOver": ("nothing in the table", 1, THREE),
}
"""Mutants whose counter-examples take two faults, or three invocations."""

OPERATIONS = frozenset[str]().union(*(call.operations for call in Call.__subclasses__()))


def _explored(scene: str, most: int, kind: type[Invocation] = Invocation, batches: Batches = TWO) -> Explored:
    chosen = SCENES[scene]
    return explore(Model(kind, batches, aws=chosen.aws, worlds=chosen.worlds(most)))


@pytest.mark.parametrize("scene", SCENES)
def test_with_one_fault_two_invocations_lose_nothing_and_repeat_nothing(scene: str) -> None:
    """Some 20,000 to 120,000 states each, all there are."""
    explored = _explored(scene, 1)

    assert explored.wrong is None, str(explored.wrong)
    assert explored.states > 10_000


@pytest.mark.parametrize("mutant", sorted(MUTANTS.keys() - NEEDS_MORE))
def test_without_one_of_its_invariants_the_protocol_has_a_counterexample(mutant: str) -> None:
    found = (_explored(scene, faults, MUTANTS[mutant]) for faults in (0, 1) for scene in SCENES)

    assert any(explored.wrong for explored in found)


def test_the_race_that_loses_an_object_is_found_in_its_shortest_form() -> None:
    """A gives x back and publishes y, while B holds the record of x that it has read before."""
    wrong = _explored("nothing in the table", 1, MUTANTS["NoSecondLook"]).wrong

    assert wrong is not None
    *history, verdict = wrong.history
    assert verdict.endswith("is acknowledged and in no bundle")
    lost = verdict.split()[0]
    order = [
        next(at for at, line in enumerate(history) if line.startswith(begin))
        for begin in (
            f"A claims {lost}",
            f"B reads the record of {lost}: claimed for A",
            f"A releases {lost}",
            "A puts A with",
            "A settles A",
            "B asks whether A is settled: yes",
            "B acknowledges",
        )
    ]
    assert order == sorted(order), str(wrong)


@pytest.mark.chaos
@pytest.mark.parametrize("mutant", NEEDS_MORE)
def test_an_invariant_against_rarer_things_has_a_counterexample_as_well(mutant: str) -> None:
    scene, faults, batches = NEEDS_MORE[mutant]

    assert _explored(scene, faults, MUTANTS[mutant], batches).wrong


@pytest.mark.chaos
def test_with_two_faults_two_invocations_lose_nothing_and_repeat_nothing() -> None:
    explored = _explored("nothing in the table", 2)

    assert explored.wrong is None, str(explored.wrong)
    assert explored.states > 100_000


@pytest.mark.chaos
def test_without_a_fault_three_invocations_lose_nothing_and_repeat_nothing() -> None:
    """Without a fault an invocation may still die at any call, and objects may come to each of them."""
    explored = _explored("nothing in the table", 0, batches=THREE)

    assert explored.wrong is None, str(explored.wrong)


@pytest.mark.integration
@pytest.mark.parametrize("writes", ["statements", "transactions"])
def test_the_handler_makes_no_call_that_the_model_does_not_know(
    world: World, monkeypatch: pytest.MonkeyPatch, writes: str
) -> None:
    """In a delivery that dies before its put, and in the one that heals it; rejections are no part of the protocol."""
    monkeypatch.setenv("LEDGER_WRITES", writes)
    world.put_all({"a": b"1", "b": b"2"})

    with faults(monkeypatch, lambda call: Killed() if call.is_before("PutObject") else None) as first, _dying():
        world.deliver("ab")
    world.lapse()
    with faults(monkeypatch, lambda _: None) as then:
        world.deliver(["a", "b", "missing"])

    made = {call.operation for call in (*first, *then)}
    assert {"PutObject", "ListObjectVersions", "BatchGetItem", "PutItem"} <= made
    assert made - OPERATIONS == {"BatchWriteItem"}


def _dying() -> pytest.RaisesExc[Killed]:
    return pytest.raises(Killed)
