"""
Ten thousand seeded histories, and all schedules of small scenarios: nothing lost, nothing twice.

A fault tells its story. What the two find is shown by mutants: the product with one of its precautions taken out.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from aggregator.exceptions import InFlightError
from aggregator.pipeline.ledger import Claims, Ledger
from aggregator.pipeline.planning import Wanted
from tests.support import ROOT, sim_schedules, simulation
from tests.support.sim_mutants import EQUIVALENT, MUTANTS, Edit, Schedules, edited, hunt
from tests.support.sim_schedules import SCENARIOS, WAYS, Budget, Way
from tests.support.sim_threads import on_one_processor
from tests.support.sim_world import prepare

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""What a process leaves open when it dies, the system closes; here it dies in the middle of ours."""

HISTORIES = 10_000
RUN = 1_000

SMALL = ("one stray", "delivered twice", "two delivered twice", "two in one message", "consumers", "hasty consumers")
"""Scenarios of which enough schedules are seen in a second or two."""

EXPLORED = (
    ("an old record", Budget(0, 1)),
    ("threads", Budget(1, 0)),
    *((name, Budget(2, 0)) for name in ("an old record", "slow", "delivered three times")),
    *((name, Budget(1, 1)) for name in ("one stray", "delivered twice", "two delivered twice", "consumers")),
)
"""Scenarios, and what may happen in them, beyond those that the ordinary tests explore."""

SLOWEST_TO_FIND = "a bundle is taken to hold all that was claimed for it"
SLOW_TO_FIND = (
    "claims lapse before their invocation ends",
    "what is settled is remembered too late",
    "a statement that failed is taken for refused",
    "a second answer counts as a first, in statements",
    "a second refusal counts as a first",
    "after SlowDown it is put again blindly",
)
"""Mutants that are found after thousands of schedules."""


@pytest.fixture(autouse=True)
def _prepared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    prepare(monkeypatch.setattr)
    with on_one_processor():
        yield


@pytest.mark.chaos
@pytest.mark.parametrize("first", range(0, HISTORIES, RUN))
def test_in_ten_thousand_histories_each_source_is_published_once(first: int) -> None:
    wrong = _wrong(range(first, first + RUN))

    assert wrong == [], _told(simulation.__name__, str(wrong[0]))


def test_in_the_first_histories_each_source_is_published_once() -> None:
    """So that every Python has some of them, and each mutant (`just mutants`)."""
    wrong = _wrong(range(300))

    assert wrong == [], _told(simulation.__name__, str(wrong[0]))


def test_a_history_is_the_same_each_time_it_is_told() -> None:
    once, again = (simulation.simulate(7).story for _ in range(2))

    assert len(once) > 3
    assert once == again


def test_histories_are_full_of_trouble() -> None:
    told = "\n".join(line for seed in range(150) for line in simulation.simulate(seed).story)

    for event in TROUBLE:
        assert event in told, event


def test_a_history_that_takes_many_steps_ends_in_calm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "TROUBLED_STEPS", 10)

    history = simulation.simulate(6)

    assert "from here on all is calm" in "\n".join(history.story)
    assert history.wrong == []


def test_what_never_ends_is_told_from_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def claim(_: Ledger, wanted: Sequence[Wanted], bundle: str) -> Claims:
        return Claims([], [], {one.id: InFlightError("somebody else's, for ever", bundle=bundle) for one in wanted})

    monkeypatch.setattr(Ledger, "claim", claim)

    assert simulation.simulate(0).wrong == ["it does not end"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("budget", [Budget(2, 0), Budget(0, 1)], ids=["two interruptions", "one fault"])
def test_no_schedule_of_a_small_scenario_is_wrong(name: str, way: Way, budget: Budget) -> None:
    _, wrong = sim_schedules.explore(SCENARIOS[name], way, budget)

    assert wrong is None, "\n".join([*wrong.story, *wrong.wrong])


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_the_same_each_time_it_is_explored(name: str) -> None:
    once, again = (sim_schedules.explore(SCENARIOS[name], "statements", Budget(0, 0)) for _ in range(2))

    assert once.schedules > 2
    assert once == again


@pytest.mark.chaos
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("name", "budget"), EXPLORED)
def test_no_schedule_is_wrong(name: str, budget: Budget, way: Way) -> None:
    """Every scenario, interrupted twice and with a fault at any call, as far as that is bearable; see `EXPLORED`."""
    _, wrong = sim_schedules.explore(SCENARIOS[name], way, budget)

    assert wrong is None, "\n".join([*wrong.story, *wrong.wrong])


@pytest.mark.once
@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=pytest.mark.chaos if name in SLOW_TO_FIND else ())
            for name in MUTANTS
            if name != SLOWEST_TO_FIND
        ),
        pytest.param(SLOWEST_TO_FIND, marks=pytest.mark.nightly),
    ],
)
def test_the_simulation_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant = MUTANTS[name]
    mutant.mutate(monkeypatch.setattr)

    for where in mutant.found:
        assert hunt(where) is not None, where


@pytest.mark.nightly
@pytest.mark.parametrize("name", EQUIVALENT)
def test_a_mutant_that_is_equivalent_is_not_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What makes no difference, and why.

    *412 is a refusal.* A refusal is believed of the first attempt only. What lies under the name then is not ours, and
    nobody but the arbiter puts there: a fence, and the bundle is surely unpublished. To look all the same is for what
    sends a request again between us and S3, which the simulation does not have.

    *What was seen is known by its data alone.* A record's data name a bundle, whose name belongs to one attempt of one
    invocation. An attempt writes at most one claim on an object: the same request may land twice only if what it
    replaces were there twice. And it writes at most one release: a second one finds the first, which says the same, and
    counts as done. So no data come back once they were replaced, and equal data are the same record, deadline and all.

    *A put is begun though the claims have lapsed.* botocore asks once more before it is sent, and sends nothing. The
    attempt then looks, as after any put without an answer, and leaves its claims to whoever resolves them: it costs the
    objects a delivery. `whether claims have lapsed is asked too early` is the mutant in which only the first is asked.
    """
    EQUIVALENT[name](monkeypatch.setattr)

    assert hunt(Schedules("one stray", "statements", 1, 1)) is None
    assert hunt(Schedules("hasty consumers", "transactions", 1, 1)) is None


def test_a_mutant_of_what_is_not_there_any_more_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    mutate = edited(Edit(Ledger, "claim", {"what it never said": "pass"}))

    with pytest.raises(AssertionError, match="what it never said"):
        mutate(monkeypatch.setattr)


TROUBLE = (
    "sleeps for",
    "is killed by its time-out",
    "hears nothing",
    "dies (",
    "late, and refused",
    "is not heard by SQS",
    "a consumer deletes",
    "the TTL deletes the record of",
    "there is a record",
    "is overwritten with",
    "cannot read",
    "DuplicateItem",
    "ConditionalCheckFailed",
    "logs ledger.in_doubt",
    "logs bundle.unpublished",
    "logs claim.resolved",
    "duplicate",
    "in_flight",
    "transactions of",
    "statements of",
    "scope version",
)
"""What is to be found in the stories of the first histories."""


def _wrong(seeds: range) -> list[int]:
    return [seed for seed in seeds if simulation.simulate(seed).wrong]


def _told(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", module, *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return f"python -m {module} {' '.join(arguments)}\n{told.stdout}"
