"""
What a workload costs with `aggregator worker` on Fargate: how many tasks it takes, and how large its bundles get.

A task is one process. As many as the processor is needed for share the traffic, because each more makes bundles
smaller; a process that handles a batch does not receive, and its messages wait on the queue.
"""

import math
from collections.abc import Mapping as Dict
from typing import NamedTuple

from aggregator.operations.capacity.arrivals import IN_FLIGHT, Mapping, Seen, Stream, simulate
from aggregator.operations.capacity.costs import (
    FIGURES,
    ONE_CPU,
    PRICES,
    Figures,
    Plan,
    PlanError,
    Workload,
    check,
    duration,
    seen_plan,
)

USE = 0.7
"""Most of a processor that is planned to be used at the peak."""

TASKS = {0.25: (0.5, 1, 2), 0.5: (1, 2, 3, 4), 1.0: (2, 3, 4, 5, 6, 7, 8)}
"""GB of memory that a Fargate task may have, by its vCPUs (ECS developer guide, "Task size")."""

_GB = 1e9
_BASE, _MESSAGE = 200e6, 5_000
"""Bytes of memory of a process: without messages, and for each (`benchmarks/large.py`)."""

_RECEIVED = 4_000.0
"""Messages a second that a process receives, with 16 calls at the same time (`benchmarks/large.py`)."""

_BEATS = 3
_TICKS, _LONGEST_TICK = 100, 1.0
"""A worker lets messages collect for a hundredth of the window, a second at most."""


class Tasks(NamedTuple):
    """Fargate tasks of one process each, and their size."""

    number: int
    vcpus: float
    gigabytes: float


def plan_worker(
    workload: Workload,
    *,
    visibility: int,
    seed: int = 1,
    figures: Figures = FIGURES,
    prices: Dict[str, tuple[float, str]] = PRICES,
) -> tuple[Plan, Tasks]:
    """
    Simulate a workload with workers, whose batches end when their bundle is full; `visibility` is the queue's time-out.

    Raises:
        PlanError: nothing comes, or an object is larger than a bundle.
    """
    check(workload)
    fits = math.floor(workload.bundle_limit / workload.object_size) if workload.object_size else IN_FLIGHT
    mapping = Mapping(workload.batch_size, workload.window, fits=fits, received=_RECEIVED)
    tasks = _tasks(workload, mapping, figures)
    share = workload._replace(memory=round(tasks.vcpus * ONE_CPU))
    stream = Stream(workload.rate / workload.queues, workload.burst)
    gathered = min(workload.window, mapping.most * tasks.number / stream.rate)
    seen = simulate(
        stream,
        mapping._replace(concurrency=tasks.number, first_pollers=tasks.number),
        lambda members: duration(members, share, figures) + members * figures.message_cpu / tasks.vcpus,
        seconds=max(1_200.0, 20 * gathered, min(200 / stream.rate, 86_400)),
        warm_up=max(600.0, gathered),
        seed=seed,
        tick=min(max(workload.window / _TICKS, 0.1), _LONGEST_TICK),
    )
    if not seen.batches:
        raise PlanError("the simulated period contains no objects: raise --objects-per-day")
    hours = seen.seconds / 3_600 * tasks.number
    running = (
        ("Fargate processors", hours * tasks.vcpus, "vCPU-hours", "fargate_vcpu_hour"),
        ("Fargate memory", hours * tasks.gigabytes, "GB-hours", "fargate_gb_hour"),
        ("SQS extensions", _extensions(seen, stream.rate / tasks.number, visibility), "requests", "sqs_request"),
    )
    made = seen_plan(seen, workload, running, figures=figures, prices=prices)
    of_lambda = ("concurrent invocations", "pollers of one queue")
    return made._replace(limits=[limit for limit in made.limits if limit.what not in of_lambda]), tasks


def _tasks(workload: Workload, mapping: Mapping, figures: Figures) -> Tasks:
    """The least processors, and memory for a batch."""
    compression = workload.object_size / figures.compression
    each = (figures.object_cpu + compression) * workload.fresh + figures.message_cpu
    needed = workload.rate / workload.queues * workload.burst * each / USE
    vcpus = min((size for size in TASKS if size >= needed), default=max(TASKS))
    number = max(1, math.ceil(needed / vcpus))
    messages = min(mapping.most, workload.rate / workload.queues * workload.burst / number * workload.window + 1)
    memory = (_BASE + messages * _MESSAGE) / _GB
    gigabytes = min((size for size in TASKS[vcpus] if size >= memory), default=max(TASKS[vcpus]))
    return Tasks(number, vcpus, gigabytes)


def _extensions(seen: Seen, rate: float, visibility: int) -> float:
    """
    Calls that keep messages invisible.

    A batch is gathered at `rate` messages a second, so on average a message is in hand for half of that time, and
    extended once in each third of the time-out.
    """
    between = visibility / _BEATS * 0.9
    calls = 0.0
    for batch in seen.batches:
        ages = (batch / rate * at / 20 for at in range(1, 21))
        calls += batch / 10 * sum(math.floor(age / between) for age in ages) / 20
    return calls
