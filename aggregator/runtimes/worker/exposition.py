"""
The figures of all processes of a worker, as Prometheus reads them: `GET /metrics`.

    handler ─figure─▶ process ─heartbeat─▶ supervisor: counters that only grow ─▶ /metrics

The supervisor counts, so a process that is replaced takes no sum with it; one that is killed during an invocation takes
the figures of that invocation, which has written no metrics to the log either. Each value is known before it first
changes, because Prometheus does not see an increase from nothing to one.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aggregator.events import FOLDER_MARKER, NO_CREATION, TEST_EVENT
from aggregator.exceptions import PermanentError, TransientError
from aggregator.pipeline.content import KINDS
from aggregator.pipeline.telemetry import METRICS, Figure, prometheus_name

LABELS = {
    "Failures": (
        "reason",
        [kind.reason for base in (PermanentError, TransientError) for kind in base.__subclasses__()],
    ),
    "Skips": ("kind", [*NO_CREATION, TEST_EVENT, FOLDER_MARKER]),
    "BinaryMembers": ("kind", [*KINDS]),
}
"""Metrics with a dimension: the label, and its values."""

SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
"""Bounds of the buckets of times; an invocation takes 900 seconds at most."""

RATIOS = tuple(tenth / 10 for tenth in range(1, 11))

_SCALES = {MetricUnit.Milliseconds: (1 / 1_000, SECONDS), MetricUnit.Percent: (1 / 100, RATIOS)}


class Exposition:
    """What the processes did since the worker began, and how they are, which `report` says."""

    def __init__(self, report: Callable[[], dict[str, Any]]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would double the series
        self._registry = CollectorRegistry()
        self._counters = {name: self._made(name) for name in METRICS}
        self._registry.register(_Worker(report))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def add(self, figures: Iterable[Figure]) -> None:
        """Count the figures of an invocation; one that is not known or not valid is left out."""
        for metric, value, label in figures:
            with suppress(Exception):  # the supervisor has more important things to do than to count
                counter = self._counters[metric]
                counter = counter.labels(label) if label else counter
                if isinstance(counter, Counter):
                    counter.inc(value)
                else:
                    counter.observe(value * _SCALES[METRICS[metric][0]][0])

    def page(self, accept: str) -> tuple[str, bytes]:
        """The content type and the text that a client with this Accept header gets: OpenMetrics, or Prometheus' own."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)

    def _made(self, name: str) -> Counter | Histogram:
        (unit, text), (label, values) = METRICS[name], LABELS.get(name, ("", []))
        if unit in _SCALES:
            return Histogram(prometheus_name(name), text, buckets=_SCALES[unit][1], registry=self._registry)
        counter = Counter(prometheus_name(name), text, [label] if label else [], registry=self._registry)
        for value in values:
            counter.labels(value)
        return counter


class _Worker(Collector):
    """What only the supervisor knows."""

    def __init__(self, report: Callable[[], dict[str, Any]]) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        """The figures of the moment."""
        report, now = self._report(), time.time()
        processes = report["processes"]
        for name, text, value in (
            ("processes", "processes that the worker keeps at work", len(processes)),
            ("processes_up", "processes that run and report in time", sum(each["healthy"] for each in processes)),
            ("messages_in_hand", "messages received, and not yet deleted or given back", _in_hand(processes)),
        ):
            yield GaugeMetricFamily(f"aggregator_worker_{name}", text, value)
        for name, text in (
            ("restarts", "processes that were replaced"),
            ("died", "processes that were replaced because they died or were killed"),
        ):
            yield CounterMetricFamily(f"aggregator_worker_{name}", text, report[name])
        polled = GaugeMetricFamily(
            "aggregator_worker_last_poll_timestamp_seconds",
            "when SQS last answered a receive, by process, in seconds since the epoch; 0 is never",
            labels=["process"],
        )
        for at, process in enumerate(processes):
            since = process["seconds_since_poll"]
            polled.add_metric([str(at)], 0 if since is None else now - since)
        yield polled


def _in_hand(processes: Iterable[dict[str, Any]]) -> int:
    return sum(process["in_hand"] for process in processes)
