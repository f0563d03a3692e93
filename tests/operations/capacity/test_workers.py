"""A worker's plan has the tasks that the processor needs, bundles that its settings make, and Lambda's beside it."""

import json

import pytest
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.operations.capacity.costs import FIGURES, Workload
from aggregator.operations.capacity.workers import TASKS, USE, Tasks, plan_worker

pytestmark = pytest.mark.once

HOURS = 43_200
LARGE = Workload(1e6, 4_096, batch_size=120_000, window=3_600, bundle_limit=128e6)


def test_a_bundle_is_as_large_as_it_may_be_if_the_window_is_long_enough() -> None:
    full, _ = plan_worker(LARGE, visibility=HOURS)
    short, _ = plan_worker(LARGE._replace(window=600), visibility=HOURS)

    assert (full.members, full.bound) == (31_250, {"bundle": 1.0})
    waited = short.seconds  # what comes while a batch is handled begins the next one
    assert short.members == pytest.approx(1 + LARGE.rate * (600 + waited), rel=0.03)
    assert short.bound == {"window": 1.0}


def test_tasks_are_paid_by_the_hour_whether_they_work_or_not() -> None:
    made, tasks = plan_worker(LARGE, visibility=HOURS)

    amounts = {line.what: line.amount for line in made.lines}
    assert tasks == Tasks(1, 0.25, 0.5)
    assert amounts["Fargate processors"] == pytest.approx(24 * 0.25, rel=0.1)
    assert amounts["Fargate memory"] == pytest.approx(24 * 0.5, rel=0.1)
    assert "Lambda time" not in amounts


@pytest.mark.parametrize("rate", [1e6, 1e8, 1e9])
def test_no_more_of_the_processors_is_used_than_planned(rate: float) -> None:
    made, tasks = plan_worker(LARGE._replace(objects_per_day=rate, window=60), visibility=HOURS)

    needed = made.workload.rate * (FIGURES.object_cpu + FIGURES.message_cpu)
    assert needed <= USE * tasks.number * tasks.vcpus
    assert tasks.number == 1 or needed > USE * (tasks.number - 1) * tasks.vcpus - 0.05 * needed
    assert tasks.gigabytes in TASKS[tasks.vcpus]


def test_messages_that_are_in_hand_for_longer_than_a_third_of_their_time_out_cost_extensions() -> None:
    long, _ = plan_worker(LARGE, visibility=HOURS)
    short, _ = plan_worker(LARGE, visibility=1_000)

    calls = [next(line.amount for line in made.lines if line.what == "SQS extensions") for made in (long, short)]
    gathered = long.members / LARGE.rate
    assert calls[0] == 0
    assert calls[1] == pytest.approx(1e5 * (gathered / 2 / 300 - 0.5), rel=0.15)


def test_the_command_shows_lambda_beside_and_lambda_alone_has_its_own_limits() -> None:
    call = ["plan", "--objects-per-day", "1M", "--object-size", "4KiB", "--window", "600", "--batch-size", "120000"]
    told = CliRunner().invoke(app, [*call, "--worker"])
    figures = CliRunner().invoke(app, [*call, "--worker", "--json"])
    rejected = CliRunner().invoke(app, call)

    assert "workers     1 task of 0.25 vCPU and 0.5 GB, with one process each" in told.stdout.splitlines()
    assert any(line.startswith("in Lambda, per day, 69") for line in told.stdout.splitlines())
    assert json.loads(figures.stdout)["tasks"] == {"number": 1, "vcpus": 0.25, "gigabytes": 0.5}
    assert json.loads(figures.stdout)["in_lambda"]["workload"]["window"] == 300
    assert (rejected.exit_code, rejected.stderr.startswith("aggregator: Lambda has batches of at most 10,000")) == (
        2,
        True,
    )
