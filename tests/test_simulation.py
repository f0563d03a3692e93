"""Ten thousand seeded histories: nothing lost, nothing twice; a seed that fails tells its story."""

import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from os import cpu_count
from pathlib import Path

import pytest

from tests import simulation

HISTORIES = 10_000
RUN = 250


@pytest.mark.chaos
def test_in_ten_thousand_histories_each_source_is_published_once() -> None:
    runs = [range(first, first + RUN) for first in range(0, HISTORIES, RUN)]

    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cpu_count(), mp_context=context, initializer=_prepare) as processes:
        wrong = [seed for seeds in processes.map(_wrong, runs) for seed in seeds]

    assert wrong == [], _story(wrong[0])


def test_in_the_first_histories_each_source_is_published_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that every Python has some of them, and each mutant (`just mutants`)."""
    simulation.prepare(monkeypatch.setattr)

    wrong = _wrong(range(300))

    assert wrong == [], _story(wrong[0])


def test_a_history_is_the_same_each_time_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation.prepare(monkeypatch.setattr)

    once, again = (simulation.simulate(7)[1].story for _ in range(2))

    assert len(once) > 3
    assert once == again


def test_histories_are_full_of_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation.prepare(monkeypatch.setattr)

    told = "\n".join(line for seed in range(120) for line in simulation.simulate(seed)[1].story)

    for event in (
        "dies before: puts",
        "dies after: puts",
        "dies late: puts",
        "late: request",
        "late and refused",
        "lost: writes",
        "lost after: puts",
        "503: puts",
        "closes",
        "a consumer deletes",
        "is killed by its time-out",
        "there is a record until",
        "sleeps for",
        "duplicate",
        "in_flight",
    ):
        assert event in told, event


def _prepare() -> None:
    import structlog

    structlog.configure(logger_factory=structlog.ReturnLoggerFactory(), processors=[])
    simulation.prepare(setattr)


def _wrong(seeds: range) -> list[int]:
    return [seed for seed in seeds if not simulation.simulate(seed)[0]]


def _story(seed: int) -> str:
    command = [sys.executable, "-m", "tests.simulation", str(seed)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent.parent)
    return f"python -m tests.simulation {seed}\n{told.stdout}"
