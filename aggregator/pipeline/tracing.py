"""
One OpenTelemetry trace per invocation, made after the fact from the timings of its bundles (docs/decisions/0032).

    process QUEUE ── gather ── object (the slowest)
                  ── close, put, settle             links: the traces of the messages' producers

The spans go to the provider that is set globally (by a layer, or by whoever calls the handler). Otherwise they go by
OTLP over HTTP to the endpoint that OTEL_EXPORTER_OTLP_ENDPOINT names. Without either, OpenTelemetry is not imported.
Whatever goes wrong here is logged, and changes nothing for an object.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

import structlog

from aggregator.exceptions import AggregatorError, UnexpectedError
from aggregator.pipeline.settings import switched_off

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import Span, SpanContext, TracerProvider

    from aggregator.pipeline.outcomes import Result
    from aggregator.pipeline.timings import Slow, Timings

FLUSH = 2.0
"""Most seconds that an invocation waits until its spans are sent; a collector that does not answer costs no more."""

RESERVE = 0.2
"""Seconds of an invocation that are left after its spans are sent, for the log and the answer."""

MOST_LINKS = 128
"""Most links of a span (OpenTelemetry specification, "Span Limits")."""

SPANS = {
    "process": "an invocation: a batch of messages; its name ends with the name of the queue",
    "gather": "claim, read and pack the members of one bundle",
    "close": "compress the last block of one bundle and write its index",
    "put": "put one bundle",
    "settle": "record that one bundle is published",
    "object": "read and pack one object that took a second or longer; the 16 slowest of each bundle have a span",
}
"""Every span, by the first word of its name."""

ATTRIBUTES = {
    "faas.invocation_id": ("process", "the request id, as in each log line"),
    "faas.trigger": ("process", "`pubsub`"),
    "faas.coldstart": ("process", "whether it is the first traced invocation of the process"),
    "aws.lambda.invoked_arn": ("process", "the function's ARN; only in Lambda"),
    "messaging.system": ("process", "`aws_sqs`"),
    "messaging.operation.name": ("process", "`process`"),
    "messaging.operation.type": ("process", "`process`"),
    "messaging.destination.name": ("process", "the queue, if all messages are from one"),
    "messaging.batch.message_count": ("process", "messages of the batch"),
    "aggregator.links.left_out": ("process", "producers' traces above 128, which have no link; only if there are any"),
    "aggregator.members": ("process", "objects that are now in a published bundle"),
    "aggregator.bundles": ("process", "bundles published"),
    "aggregator.retried": ("process", "messages that stay on the queue"),
    "aggregator.bundle": ("gather, close, put, settle, object", "the key of the bundle"),
    "aggregator.slow_objects": ("gather", "objects that took a second or longer"),
    "aws.s3.bucket": ("put, object", "the bucket of the bundle, or of the object"),
    "aws.s3.key": ("put, object", "the key of the bundle, or of the object"),
    "aggregator.busy": ("object", "seconds to read and to pack it, without the time that it waited"),
    "error.type": (
        "process, gather, close, put, settle",
        "the reason of the failure, as in the log; only if it failed",
    ),
}
"""Every attribute of a span: which spans have it, and its meaning."""

log = structlog.get_logger()

_XRAY = re.compile(
    r"(?:^|;)\s*(Root=1-([0-9a-f]{8})-([0-9a-f]{24})|Parent=([0-9a-f]{16})|Sampled=([01]))(?=\s*(?:;|$))"
)


def tracing_wanted(environment: Mapping[str, str]) -> bool:
    """Whether there is somewhere to send spans to, and nobody switched them off; imports nothing."""
    disabled = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if disabled or switched_off(environment, "POWERTOOLS_TRACE_DISABLED"):
        return False
    loaded = "opentelemetry.trace" in sys.modules or "OTEL_PYTHON_TRACER_PROVIDER" in environment
    return _has_endpoint(environment) or (loaded and _guarded(_global_provider) is not None)


class Tracing:
    """The trace of one invocation; does nothing if it is not sampled."""

    def __init__(self, span: "Span", tracer: Any, distribution: str) -> None:
        self._span, self._tracer, self._distribution = span, tracer, distribution
        self._offset = time.time() - time.monotonic()

    def add(self, result: "Result", retried: int) -> None:
        """The figures of the invocation, and a span for each phase of each bundle and for its slowest objects."""
        if not self._span.is_recording():
            return
        self._span.set_attribute("aggregator.members", sum(one.members for one in result.published))
        self._span.set_attribute("aggregator.bundles", len(result.published))
        self._span.set_attribute("aggregator.retried", retried)
        for timings in result.timings:
            self._add_bundle(timings)

    def _add_bundle(self, timings: "Timings") -> None:
        for phase in timings.phases:
            attributes: dict[str, Any] = {"aggregator.bundle": timings.bundle}
            if phase.name == "gather":
                attributes["aggregator.slow_objects"] = timings.slow
            if phase.name == "put":
                attributes |= {"aws.s3.bucket": self._distribution, "aws.s3.key": timings.bundle}
            with self._made(phase.name, phase.began, phase.ended, attributes) as span:
                if timings.fault and phase is timings.phases[-1]:
                    _fail(span, timings.fault)
                if phase.name == "gather":
                    for slow in timings.slowest:
                        self._add_object(slow, timings.bundle)

    def _add_object(self, slow: "Slow", bundle: str) -> None:
        place = {"aws.s3.bucket": slow.ref.bucket, "aws.s3.key": slow.ref.key}
        with self._made("object", slow.began, slow.ended, {"aggregator.bundle": bundle, **place}) as span:
            span.set_attribute("aggregator.busy", slow.seconds)

    @contextmanager
    def _made(self, name: str, began: float, ended: float, attributes: dict[str, Any]) -> Iterator["Span"]:
        """A span of the past: moments of the monotonic clock become nanoseconds of the wall clock."""
        start = int((began + self._offset) * 1e9)
        with self._tracer.start_as_current_span(
            name, start_time=start, attributes=attributes, end_on_exit=False
        ) as span:
            yield span
        span.end(int((ended + self._offset) * 1e9))


def trace(
    handle: Callable[[], Any],
    event: Any,
    context: Any,
    *,
    service: str,
    distribution: str,
    done: Callable[[Any], "tuple[Result, int]"],
) -> Any:
    """
    What `handle` answers, with a span around it.

    `done` takes from the answer the result, and how many messages stay on the queue.
    """
    opened = _guarded(lambda: _Opened.of(event, context, service, distribution))
    if opened is None:
        return handle()
    try:
        answer = handle()
    except BaseException as error:
        reason = error.reason if isinstance(error, AggregatorError) else UnexpectedError.reason
        _guarded(lambda: _fail(opened.span, reason))
        raise
    else:
        _guarded(lambda: opened.tracing.add(*done(answer)))
        return answer
    finally:
        _guarded(opened.close)
        _guarded(lambda: _flush(opened.provider, context))


class _Opened(NamedTuple):
    """The span of an invocation that is under way, and its provider."""

    provider: Any
    span: "Span"
    tracing: Tracing
    manager: Any

    @classmethod
    def of(cls, event: Any, context: Any, service: str, distribution: str) -> "_Opened":
        from opentelemetry.trace import SpanKind  # noqa: PLC0415 - imported only if it is wanted

        records = _records(event)
        provider: Any = _global_provider() or _own_provider(service)
        tracer = provider.get_tracer("aggregator")
        queues = {str(record.get("eventSourceARN", "")).rpartition(":")[2] for record in records}
        links, left_out = _links(records)
        attributes = _attributes(context, records, queues, left_out)
        name = " ".join(["process", *(queues if len(queues) == 1 else ())]).strip()
        manager = tracer.start_as_current_span(
            name,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            links=links,
            record_exception=False,
            set_status_on_exception=False,
        )
        span = manager.__enter__()
        return cls(provider, span, Tracing(span, tracer, distribution), manager)

    def close(self) -> None:
        """End the span."""
        self.manager.__exit__(None, None, None)


_seen: list[str] = []
"""The first traced invocation of this process."""


def _attributes(context: Any, records: Sequence[Any], queues: set[str], left_out: int) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "faas.invocation_id": context.aws_request_id,
        "faas.trigger": "pubsub",
        "faas.coldstart": not _seen,
        "messaging.system": "aws_sqs",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.batch.message_count": len(records),
    }
    _seen[:] = [context.aws_request_id]
    if str(context.invoked_function_arn).startswith("arn:"):
        attributes["aws.lambda.invoked_arn"] = context.invoked_function_arn
    if len(queues) == 1:
        attributes["messaging.destination.name"] = min(queues)
    if left_out:
        attributes["aggregator.links.left_out"] = left_out
    return attributes


def _links(records: Sequence[Any]) -> tuple[list[Any], int]:
    """A link to each producer's span, once, and how many were left out."""
    from opentelemetry.trace import Link  # noqa: PLC0415 - imported only if it is wanted

    contexts: dict[tuple[int, int], SpanContext] = {}
    for record in records:
        for found in (_traceparent(record), _xray(record)):
            if found is not None and found.is_valid:
                contexts.setdefault((found.trace_id, found.span_id), found)
    return [Link(one) for one in list(contexts.values())[:MOST_LINKS]], max(0, len(contexts) - MOST_LINKS)


def _traceparent(record: Mapping[str, Any]) -> "SpanContext | None":
    """The W3C context in a message's own attributes."""
    given = record.get("messageAttributes") or {}
    carrier = {name: given[name].get("stringValue") for name in ("traceparent", "tracestate") if name in given}
    if not isinstance(carrier.get("traceparent"), str):
        return None
    from opentelemetry.context import Context  # noqa: PLC0415 - the same
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - imported only if it is wanted
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415 - the same

    carrier = {name: value for name, value in carrier.items() if isinstance(value, str)}
    return get_current_span(TraceContextTextMapPropagator().extract(carrier, Context())).get_span_context()


def _xray(record: Mapping[str, Any]) -> "SpanContext | None":
    """The context in the header of X-Ray that SQS keeps with a message; nothing, if its trace was not sampled."""
    header = (record.get("attributes") or {}).get("AWSTraceHeader")
    if not isinstance(header, str):
        return None
    fields: dict[str, str] = {}
    for _, epoch, unique, parent, sampled in _XRAY.findall(header):
        fields |= {"root": epoch + unique} if epoch else {"parent": parent} if parent else {"sampled": sampled}
    if not {"root", "parent"} <= fields.keys() or fields.get("sampled") == "0":
        return None
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - imported only if it is wanted

    flags = TraceFlags(int(fields.get("sampled", "0")))
    return SpanContext(int(fields["root"], 16), int(fields["parent"], 16), is_remote=True, trace_flags=flags)


def _records(event: Any) -> list[Any]:
    records = event.get("Records") if isinstance(event, dict) else None
    return [one for one in records if isinstance(one, dict)] if isinstance(records, list) else []


def _fail(span: "Span", reason: str) -> None:
    from opentelemetry.trace import StatusCode  # noqa: PLC0415 - imported only if it is wanted

    span.set_attribute("error.type", reason)
    span.set_status(StatusCode.ERROR)


def _has_endpoint(environment: Mapping[str, str]) -> bool:
    named = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    return any(environment.get(name) for name in named) and find_spec("opentelemetry") is not None


def _global_provider() -> "TracerProvider | None":
    """The provider that somebody else has set, if anybody has."""
    from opentelemetry.trace import ProxyTracerProvider, get_tracer_provider  # noqa: PLC0415 - only if it is wanted

    provider = get_tracer_provider()
    return None if isinstance(provider, ProxyTracerProvider) else provider


@cache
def _own_provider(service: str) -> Any:
    """Our own provider, once in a process: its connection is kept from one invocation to the next."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - 200 ms
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same
    from opentelemetry.sdk.trace import SpanProcessor, TracerProvider  # noqa: PLC0415 - the same
    from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415 - the same

    class Collected(SpanProcessor):
        """
        Keeps the spans of an invocation, and sends them in one request.

        The SDK's batch processor has a thread, which Lambda freezes, and its flush does not keep to a time-out
        (opentelemetry-sdk 1.45.2, `BatchProcessor.force_flush`). Its simple one sends a request per span.
        """

        def __init__(self) -> None:
            self._spans: list[ReadableSpan] = []
            self._exporter = OTLPSpanExporter(timeout=FLUSH)

        def on_end(self, span: "ReadableSpan") -> None:
            if span.context and span.context.trace_flags.sampled:
                self._spans.append(span)

        def force_flush(self, timeout_millis: int = 30_000) -> bool:  # noqa: ARG002 - `_flush` keeps the time
            spans, self._spans = self._spans, []
            return not spans or self._exporter.export(spans) is SpanExportResult.SUCCESS

    resource = Resource.create({} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(Collected())
    return provider


def _flush(provider: Any, context: Any) -> None:
    """Send the spans before Lambda freezes the process, and wait no longer than the invocation can bear."""
    seconds = min(FLUSH, context.get_remaining_time_in_millis() / 1000 - RESERVE)
    sent: list[bool] = []
    flush = getattr(provider, "force_flush", None)
    if flush is None:
        return
    milliseconds = max(0, int(seconds * 1000))
    thread = threading.Thread(
        target=lambda: sent.append(bool(_guarded(lambda: flush(milliseconds)))), name="traces", daemon=True
    )
    thread.start()
    thread.join(max(0.0, seconds))
    if sent != [True]:
        log.warning("traces.unsent", why="the collector did not answer in time" if not sent else "it did not take them")


def _guarded(action: Callable[[], Any]) -> Any:
    """What `action` answers; an error of telemetry is logged and does not matter to an object."""
    try:
        return action()
    except Exception as error:
        log.warning("traces.failed", fault=f"{type(error).__name__}: {error}")
        return None
