"""
CloudWatch, as far as the template's alarms need it: statistics of periods, metric math, missing data, M of N.

    alarms(made)                      # the alarms of the transformed template
    rings(alarm, series, until=360)   # the minute at which it goes off, or None

A series has a value for each minute, or None where the service publishes nothing. Periods are aligned, as CloudWatch
aligns them; an alarm sees a period when it is complete and the slowest of its metrics has arrived.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

from aggregator.operations.doctor.template import Resource

Series = Mapping[str, Sequence[float | None]]

DELAYS = {"DataAggregator": 2, "AWS/Lambda": 2, "AWS/SQS": 1, "AWS/S3": 10}
"""
Minutes until a datapoint can be seen. Lambda and an active queue publish every minute (developer guides, "metrics");
ours go through the log first; those of S3 replication are at best effort.
"""

IDLE_QUEUE = 15
"""Minutes until a queue that was idle for six hours is measured again (SQS developer guide, "CloudWatch metrics")."""

_STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Sum": sum,
    "Maximum": max,
    "Minimum": min,
    "Average": lambda values: sum(values) / len(values),
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
}


class Input(NamedTuple):
    """A metric that an alarm reads: the series, the statistic, and the minutes by which it is late."""

    series: str
    statistic: str
    delay: int


class Alarm(NamedTuple):
    """An alarm of the template; `period` in minutes."""

    name: str
    inputs: dict[str, Input]
    expression: str
    period: int
    periods: int
    needed: int
    comparison: str
    threshold: float
    missing: str


def alarms(made: Mapping[str, Resource]) -> list[Alarm]:
    """The alarms of a template's resources."""
    return [_alarm(each.properties) for each in made.values() if each.type == "AWS::CloudWatch::Alarm"]


def rings(alarm: Alarm, series: Series, *, until: int) -> int | None:
    """The minute, before the minute `until`, at which the alarm goes off; None if it does not."""
    values: list[float | None] = []
    delay = max(each.delay for each in alarm.inputs.values())
    for end in range(alarm.period, until - delay + 1, alarm.period):
        values.append(_value(alarm, series, end - alarm.period, end))
        if _breaches(alarm, values[-alarm.periods :]):
            return end + delay
    return None


def series_name(namespace: str, metric: str, dimensions: Mapping[str, Any]) -> str:
    """What a metric's series is called: `ours/Retried`, `stack-queue/NumberOfMessagesSent`."""
    first = "ours" if namespace == "DataAggregator" else str(next(iter(dimensions.values())))
    return "/".join([first, metric, *([str(dimensions["reason"])] if "reason" in dimensions else [])])


def _alarm(properties: Mapping[str, Any]) -> Alarm:
    stats = {each["Id"]: each["MetricStat"] for each in properties.get("Metrics", []) if "MetricStat" in each}
    math = next((each["Expression"] for each in properties.get("Metrics", []) if "Expression" in each), "metric")
    single = {"Metric": properties, "Stat": properties.get("Statistic"), "Period": properties.get("Period")}
    stats = stats or {"metric": single}
    return Alarm(
        name=properties["AlarmName"].partition("-")[2],
        inputs={name: _input(stat) for name, stat in stats.items()},
        expression=math,
        period=next(iter(stats.values()))["Period"] // 60,
        periods=properties["EvaluationPeriods"],
        needed=properties.get("DatapointsToAlarm", properties["EvaluationPeriods"]),
        comparison=properties["ComparisonOperator"],
        threshold=float(properties["Threshold"]),
        missing=properties["TreatMissingData"],
    )


def _input(stat: Mapping[str, Any]) -> Input:
    metric = stat["Metric"]
    dimensions = {each["Name"]: each["Value"] for each in metric["Dimensions"]}
    name = series_name(metric["Namespace"], metric["MetricName"], dimensions)
    delay = IDLE_QUEUE if name.startswith("stack-deadletterqueue") else DELAYS[metric["Namespace"]]
    return Input(name, stat["Stat"], delay)


def _value(alarm: Alarm, series: Series, start: int, end: int) -> float | None:
    """The alarm's value in a period: none where no metric has one, or where a metric was never published."""
    found: dict[str, float | None] = {}
    for name, each in alarm.inputs.items():
        known = series.get(each.series, ())
        if all(value is None for value in known[:end]):
            return None  # of such a metric FILL may be empty: AWS does not say
        values = [value for value in known[start:end] if value is not None]
        found[name] = _STATISTICS[each.statistic](values) if values else None
    if all(value is None for value in found.values()):
        return None
    return found["metric"] if alarm.expression == "metric" else _calculated(alarm.expression, found)


def _calculated(expression: str, found: Mapping[str, float | None]) -> float:
    """Metric math: IF, FILL, AND, OR and arithmetic, which Python has under other names."""
    text = re.sub(r"\bIF\(", "choose(", expression).replace(" AND ", " and ").replace(" OR ", " or ")
    text = re.sub(r"FILL\((\w+), 0\)", r"(\1 or 0)", text)
    names = {"choose": lambda condition, yes, no: yes if condition else no, **found}
    names = {name: _One(value) if name != "choose" and not value else value for name, value in names.items()}
    return float(eval(text, {"__builtins__": {}}, names))


class _One(float):
    """No value, or 0: false, and 1 where somebody divides by it in the branch that is not taken."""

    def __new__(cls, _: object) -> Self:
        return super().__new__(cls, 0)

    def __rtruediv__(self, other: float) -> float:
        return other


def _breaches(alarm: Alarm, values: Sequence[float | None]) -> bool:
    compare = _COMPARISONS[alarm.comparison]
    return sum(value is not None and compare(value, alarm.threshold) for value in values) >= alarm.needed
