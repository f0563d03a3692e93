"""
Logger, metrics and tracer around the handler, and the list of everything they say.

structlog is what the code speaks; Powertools' Logger renders it, so that every line carries the keys of the Lambda
context. On a terminal, lines are for people instead (terminal.py). Nothing is kept from one invocation to the next, and
each of the three can be switched off by its Powertools environment variable (LOG_LEVEL is ours;
POWERTOOLS_METRICS_DISABLED, POWERTOOLS_TRACE_DISABLED).
"""

import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol, TextIO, TypeVar, cast

import structlog
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.logging.formatter import RESERVED_LOG_ATTRS
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from aggregator.pipeline.settings import Settings, switched_off
from aggregator.pipeline.terminal import is_for_people, renderers
from aggregator.pipeline.tracing import trace, tracing_wanted

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

LOG_EVENTS = {
    "envelope.rejected": "an envelope that trying again cannot help: it goes to the dead-letter queue, for this reason",
    "envelopes.retried": "envelopes left on the queue for one reason, and how many",
    "spool.short": "two bundles as large as the setting allows may not fit on the disk: lower it, or give more storage",
    "bundle.written": "a bundle was published: its key, members, bytes in and out, SHA-256",
    "binary.bundled": "members of a published bundle are not text: their kinds, and the key of one",
    "bundle.unpublished": "a bundle was not published; its members are tried again",
    "bundle.in_doubt": "it is not known yet whether a bundle was published; its claims lapse and are resolved later",
    "claim.resolved": "a lapsed claim's bundle was found published, or its name was fenced",
    "settle.failed": "a published bundle could not be settled; the next claim of a member heals it",
    "ledger.in_doubt": "the answer to some writes was lost; what they did is found out or undone",
    "rejections.unrecorded": "why envelopes were rejected could not be kept in the ledger; this log has it",
    "traces.unsent": "the spans of an invocation were not sent: the collector did not take them within two seconds",
    "traces.failed": "OpenTelemetry raised an error; the invocation goes on without its spans",
    "invocation.failed": "an unexpected error, with its traceback; the envelopes are tried again",
    "invocation.finished": "the one line with every figure of the invocation",
}

METRICS = {
    "Envelopes": (MetricUnit.Count, "SQS messages received"),
    "MembersBundled": (MetricUnit.Count, "objects that are now in a published bundle"),
    "BundlesWritten": (MetricUnit.Count, "bundles published"),
    "BytesIn": (MetricUnit.Bytes, "bytes of members in those bundles, decoded"),
    "BytesOut": (MetricUnit.Bytes, "bytes of those bundles"),
    "Duplicates": (MetricUnit.Count, "notifications of objects that are in a bundle already"),
    "Overwritten": (MetricUnit.Count, "notifications of keys that are in a bundle already, with another entity tag"),
    "Superseded": (MetricUnit.Count, "notifications of versions that have been replaced meanwhile"),
    "Skipped": (MetricUnit.Count, "messages that announce no object"),
    "InFlight": (MetricUnit.Count, "messages left on the queue because another invocation has the object"),
    "Retried": (MetricUnit.Count, "messages left on the queue for any other passing reason"),
    "Rejected": (MetricUnit.Count, "messages that go to the dead-letter queue"),
    "InvocationsFailed": (MetricUnit.Count, "invocations that raised: a wrong trigger, an incomplete environment"),
    "FillRatio": (MetricUnit.Percent, "bytes of members in a bundle, of what a bundle may hold"),
    "GatherTime": (MetricUnit.Milliseconds, "time to claim, read and pack the members of all bundles"),
    "CloseTime": (MetricUnit.Milliseconds, "time to compress the last blocks and write the index of all bundles"),
    "PutTime": (MetricUnit.Milliseconds, "time to put all bundles; the next one is gathered meanwhile"),
    "SettleTime": (MetricUnit.Milliseconds, "time to record that all bundles are published"),
    "Duration": (MetricUnit.Milliseconds, "time of the invocation"),
    "Failures": (MetricUnit.Count, "messages left on the queue or rejected, by the dimension `reason`"),
    "Skips": (MetricUnit.Count, "events and folder markers that bundle nothing, by the dimension `kind`"),
    "BinaryMembers": (MetricUnit.Count, "members of published bundles that are not text, by `kind`"),
}

DIMENSIONS = {"Failures": "reason", "Skips": "kind", "BinaryMembers": "kind"}
"""What a metric is counted by, beside `service`."""

NAMESPACE = "DataAggregator"

_SUFFIXES = {
    MetricUnit.Count: ("total",),
    MetricUnit.Bytes: ("bytes", "total"),
    MetricUnit.Milliseconds: ("seconds",),
    MetricUnit.Percent: ("ratio",),
}
"""How the name of a metric ends in Prometheus, which has base units (prometheus.io, "Metric and label naming")."""

_RESERVED = frozenset(RESERVED_LOG_ATTRS) | {"message", "msg", "extra", "stacklevel"}
_CALLER = 5
"""Frames between the code that logs and the logger: makes `location` the caller's line."""

Answer_co = TypeVar("Answer_co", covariant=True)


class Figure(NamedTuple):
    """One value of a metric, as CloudWatch gets it; `label` is the value of its dimension, if it has one."""

    metric: str
    value: float
    label: str = ""


_WATCHER: ContextVar[Callable[[Figure], object] | None] = ContextVar("watcher", default=None)


class Observed(Protocol[Answer_co]):
    """A handler that gets its settings and metrics to fill."""

    def __call__(
        self, event: dict[str, Any], context: "LambdaContext", *, settings: Settings, metrics: Metrics
    ) -> Answer_co:
        """Handle one invocation."""


def instrument(handler: Observed[Answer_co]) -> Callable[[dict[str, Any], "LambdaContext"], Answer_co]:
    """Read the environment, and put Powertools' logger, metrics and (if installed) tracer around `handler`."""

    @functools.wraps(handler)
    def invoke(event: dict[str, Any], context: "LambdaContext") -> Answer_co:
        settings = Settings.from_env(os.environ)
        logger, metrics = configure_logging(settings), Metrics(namespace=NAMESPACE, service=settings.service_name)
        inner: Any = _counted(handler, settings, metrics)
        if tracing_enabled(os.environ):
            inner = _tracer(settings).capture_lambda_handler(inner, capture_response=False)
        if tracing_wanted(os.environ):
            inner = _traced(inner, settings)
        inner = metrics.log_metrics(inner, raise_on_empty_metrics=False)
        answer: Answer_co = logger.inject_lambda_context(inner, clear_state=True)(event, context)
        return answer

    return invoke


def prometheus_name(metric: str) -> str:
    """
    The name of a metric in Prometheus: its words after `aggregator`, and its unit at the end.

    `MembersBundled` is `aggregator_members_bundled_total`, `BytesIn` `aggregator_in_bytes_total`, `PutTime`
    `aggregator_put_time_seconds`, `FillRatio` `aggregator_fill_ratio`.
    """
    suffix = _SUFFIXES[METRICS[metric][0]]
    words = [word.lower() for word in re.findall(r"[A-Z][a-z]*", metric)]
    return "_".join(["aggregator", *(word for word in words if word not in suffix), *suffix])


@contextmanager
def watch_figures(watcher: Callable[[Figure], object]) -> Iterator[None]:
    """While the block lasts, give every figure of an invocation to `watcher` too, whether metrics are on or off."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def add_metric(metrics: Metrics, name: str, value: float) -> None:
    """Add a value to the metrics of the invocation."""
    metrics.add_metric(name, METRICS[name][0], value)
    _show(Figure(name, value))


def add_counts(name: str, dimension: str, counts: Mapping[str, int], settings: Settings) -> None:
    """Count by a dimension: the envelopes that failed by `reason`, what was skipped or is not text by `kind`."""
    for value, count in counts.items():
        _show(Figure(name, count, value))
    if switched_off(os.environ, "POWERTOOLS_METRICS_DISABLED"):
        return
    unit = METRICS[name][0]
    for value, count in counts.items():
        dimensions = {"service": settings.service_name}
        with single_metric(name, unit, count, namespace=NAMESPACE, default_dimensions=dimensions) as metric:
            metric.add_dimension(dimension, value)


def configure_logging(settings: Settings) -> Logger:
    """Powertools' logger for `settings`, with structlog in front of it, or for people lines without it."""
    logger = Logger(
        service=settings.service_name,
        level=settings.log_level,
        utc=True,
        use_rfc3339=True,
        stream=cast("IO[str]", _Stdout()),
        json_serializer=functools.partial(json.dumps, default=str, separators=(",", ":")),
    )
    logger.setLevel(settings.log_level)  # Powertools configures a logger of one name once
    if is_for_people(os.environ):
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, _bound, *renderers(os.environ)],
            logger_factory=structlog.PrintLoggerFactory(file=cast("TextIO", _Stdout())),
            wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
            cache_logger_on_first_use=False,
        )
        return logger
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.contextvars.merge_contextvars, _bound, _for_powertools],
        logger_factory=lambda *_: logger,
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    return logger


def tracing_enabled(environment: MutableMapping[str, str]) -> bool:
    """Whether the tracer is installed (the `tracer` extra), in Lambda, and not switched off."""
    off = switched_off(environment, "POWERTOOLS_TRACE_DISABLED")
    return not off and "LAMBDA_TASK_ROOT" in environment and find_spec("aws_xray_sdk") is not None


_LONGEST_STRING, _LONGEST_LIST = 8 * 1024, 32 * 1024
"""Most bytes of a fact in a log line; a key of 1,024 control characters takes 6,144."""


def _counted(handler: Observed[Any], settings: Settings, metrics: Metrics) -> Callable[[Any, Any], Any]:
    @functools.wraps(handler)
    def invoke(event: Any, context: Any) -> Any:
        try:
            return handler(event, context, settings=settings, metrics=metrics)
        except BaseException:
            add_metric(metrics, "InvocationsFailed", 1)
            raise

    return invoke


def _show(figure: Figure) -> None:
    """Give a figure to the watcher, whose faults are not the invocation's."""
    if watcher := _WATCHER.get():
        with suppress(Exception):
            watcher(figure)


def _traced(handler: Callable[[Any, Any], Any], settings: Settings) -> Callable[[Any, Any], Any]:
    @functools.wraps(handler)
    def invoke(event: Any, context: Any) -> Any:
        return trace(
            lambda: handler(event, context),
            event,
            context,
            service=settings.service_name,
            distribution=settings.distribution_bucket_name,
            done=lambda answer: (answer.report.result, len(answer.report.failed)),
        )

    return invoke


def _tracer(settings: Settings) -> Any:
    from aws_lambda_powertools import Tracer  # noqa: PLC0415 - costs a cold start 9 to 18 ms, and is seldom wanted

    return Tracer(service=settings.service_name, patch_modules=["botocore"])


def _for_powertools(_logger: object, _method: str, facts: MutableMapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    event = facts.pop("event")
    standard = {name: facts.pop(name) for name in ("exc_info", "stack_info") if name in facts}
    extra = {f"{name}_" if name in _RESERVED else name: value for name, value in facts.items()}
    return (event,), {"extra": extra, "stacklevel": _CALLER, **standard}


def _bound(_logger: object, _method: str, facts: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Shorten the facts of a line, except its error."""
    return {name: value if name in {"exc_info", "stack_info"} else _bounded(value) for name, value in facts.items()}


def _bounded(value: Any) -> Any:
    """A value that makes no line longer than a log service takes: a message of 256 kB can name 79 keys of 6 kB each."""
    if isinstance(value, str):
        return (
            value
            if _size(value) <= _LONGEST_STRING
            else f"{value[: _LONGEST_STRING // 12]}… ({len(value):,} characters)"
        )
    if not isinstance(value, list | tuple):
        return value
    kept, size = list[Any](), 0
    for each in map(_bounded, value):
        size += _size(each)
        if size > _LONGEST_LIST:
            return [*kept, f"… and {len(value) - len(kept):,} more"]
        kept.append(each)
    return kept


def _size(value: Any) -> int:
    return len(json.dumps(value, default=str))


class _Stdout:
    """What sys.stdout is now, not what it was when the logger was made: Powertools keeps one handler a process."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()
