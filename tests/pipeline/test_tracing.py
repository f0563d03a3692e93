"""Traces: what is in them, where they go, and that no collector harms an invocation."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from aggregator import app
from aggregator.pipeline import timings, tracing
from aggregator.pipeline.distribution import DistributionBucket
from aggregator.pipeline.tracing import ATTRIBUTES, MOST_LINKS, SPANS, tracing_wanted
from aggregator.runtimes import polling
from aggregator.runtimes.polling import LocalContext
from tests.conftest import ENVIRONMENT
from tests.support import ROOT
from tests.support.collector import Collector
from tests.support.world import CREDENTIALS, World, log_lines, sqs_record

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
XRAY = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled="
XRAY_LINK = ("5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8")


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {**CREDENTIALS, **ENVIRONMENT, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tracing, "_seen", [])
    tracing._own_provider.cache_clear()
    yield
    tracing._own_provider.cache_clear()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    collector = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    yield collector
    collector.stop()


def _invoke(*records: dict[str, Any], seconds: float = 60, arn: str = "") -> Any:
    context = LocalContext(function="aggregator", seconds=seconds, arn=arn)
    return app.handler({"Records": list(records)}, context)  # type: ignore[arg-type]


def _record(traceparent: str = "", xray: str = "") -> dict[str, Any]:
    record = sqs_record("id", '{"Event": "s3:TestEvent"}')
    if traceparent:
        record["messageAttributes"] = {"traceparent": {"stringValue": traceparent, "dataType": "String"}}
    if xray:
        record["attributes"] = {"AWSTraceHeader": xray}
    return record


@pytest.mark.integration
def test_an_invocation_is_one_trace_with_its_phases_and_its_slow_objects(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timings, "SLOW", 0.0)
    world.put_all({"a": b"1", "b": b"2"})
    began = time.time_ns()

    assert world.deliver(["a", "b"]) == set()

    root = collector.spans[-1]
    names = sorted(span.name for span in collector.spans)
    assert names == ["close", "gather", "object", "object", "process queue", "put", "settle"]
    assert {span.trace for span in collector.spans} == {root.trace}
    (gather,) = [span for span in collector.spans if span.name == "gather"]
    assert {span.parent for span in collector.spans if span.name == "object"} == {gather.id}
    assert {span.parent for span in collector.spans if span.name in {"gather", "close", "put", "settle"}} == {root.id}
    assert all(began - 10**9 < span.began <= span.ended <= time.time_ns() + 10**9 for span in collector.spans)
    assert (root.attributes["aggregator.members"], root.attributes["aggregator.bundles"]) == (2, 1)
    assert {span.attributes["aws.s3.key"] for span in collector.spans if span.name == "object"} == {"a", "b"}
    assert (gather.attributes["aggregator.slow_objects"], root.service) == (2, world.name)
    assert not any(span.failed for span in collector.spans)


@pytest.mark.integration
def test_the_table_has_every_span_and_attribute_that_is_sent_and_no_other(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timings, "SLOW", 0.0)
    monkeypatch.setattr(tracing, "MOST_LINKS", 0)
    world.put("a", b"1")
    world.deliver(["a"])
    with monkeypatch.context() as patch:
        patch.setattr(DistributionBucket, "put", _broken)
        world.put("b", b"2")
        world.deliver(["b"])
    _invoke(_record(f"00-{TRACE}-{SPAN}-01"), arn="arn:aws:lambda:us-east-1:123456789012:function:f")

    sent = {(span.name.split()[0], name) for span in collector.spans for name in span.attributes}

    assert {span.name.split()[0] for span in collector.spans} == set(SPANS)
    assert {name for _, name in sent} == set(ATTRIBUTES)
    assert {(span, name) for span, name in sent if span not in ATTRIBUTES[name][0].split(", ")} == set()


def _broken(*_: Any, **__: Any) -> None:
    raise RuntimeError("broken")


def test_each_trace_of_a_producer_is_linked_once(collector: Collector) -> None:
    traceparent = f"00-{TRACE}-{SPAN}-01"

    _invoke(_record(traceparent), _record(traceparent), _record(xray=XRAY + "1;Lineage=1:2|3:0"), _record())

    (span,) = collector.spans
    assert span.links == [(TRACE, SPAN), XRAY_LINK]
    assert span.attributes["messaging.batch.message_count"] == 4
    assert "aggregator.links.left_out" not in span.attributes


def test_no_more_links_than_a_span_takes_and_the_others_are_counted(collector: Collector) -> None:
    _invoke(*(_record(f"00-{TRACE}-{at:016x}-01") for at in range(1, MOST_LINKS + 4)))

    (span,) = collector.spans
    assert (len(span.links), span.attributes["aggregator.links.left_out"]) == (MOST_LINKS, 3)


@pytest.mark.parametrize(
    "record",
    [
        _record("00-nonsense"),
        _record(f"00-{'0' * 32}-{SPAN}-01"),
        _record(xray=XRAY + "0"),
        _record(xray="Root=1-5759e988-bd862e3fe1be46a994272793"),
        _record(xray="Root=x;Parent=y"),
        _record() | {"messageAttributes": {"traceparent": {"binaryValue": "AA=="}}, "attributes": None},
        _record() | {"messageAttributes": {"traceparent": "text"}},
    ],
)
def test_what_names_no_sampled_trace_is_not_linked_and_does_no_harm(collector: Collector, record: Any) -> None:
    assert _invoke(record) == {"batchItemFailures": []}
    assert [span.links for span in collector.spans] in ([], [[]])


def test_an_invocation_that_raises_has_the_reason_and_still_raises(collector: Collector) -> None:
    with pytest.raises(Exception, match="not a batch"):
        app.handler({}, LocalContext(function="aggregator", seconds=60))  # type: ignore[arg-type]

    (span,) = collector.spans
    assert (span.failed, span.attributes["error.type"]) == (True, "wrong_trigger")


def test_only_the_first_invocation_of_a_process_is_a_cold_start(collector: Collector) -> None:
    _invoke()
    _invoke()

    assert [span.attributes["faas.coldstart"] for span in collector.spans] == [True, False]
    assert collector.requests == 2


def test_a_collector_that_does_not_answer_costs_a_bounded_time_and_no_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracing, "FLUSH", 0.1)
    silent = Collector(silent=True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", silent.url)
    try:
        answer = _invoke(_record())

        assert not silent.released.is_set()
        assert answer == {"batchItemFailures": []}
        assert len(_said(capsys)) == 1
    finally:
        silent.stop()


@pytest.mark.parametrize("kind", ["503", "refuses"])
def test_a_collector_that_does_not_take_spans_costs_no_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    monkeypatch.setattr(tracing, "FLUSH", 0.3)
    failing = Collector(503)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", failing.url if kind == "503" else _closed_port())
    try:
        assert _invoke(_record()) == {"batchItemFailures": []}
        assert len(_said(capsys)) == 1
    finally:
        failing.stop()


def test_an_invocation_without_time_does_not_wait_for_the_collector(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = Collector(silent=True)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", silent.url)
    waited: list[float | None] = []

    class Thread(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            waited.append(timeout)
            super().join(timeout)

    monkeypatch.setattr(threading, "Thread", Thread)
    try:
        assert _invoke(_record(), seconds=0.1) == {"batchItemFailures": []}
        assert 0.0 in waited
    finally:
        monkeypatch.undo()
        silent.stop()


def test_an_error_of_telemetry_does_not_fail_the_invocation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], collector: Collector
) -> None:
    monkeypatch.setattr(tracing, "_links", _broken)

    assert _invoke(_record()) == {"batchItemFailures": []}
    assert "traces.failed" in [line.get("message") for line in log_lines(capsys.readouterr().out)]


def test_a_provider_that_is_set_globally_is_used_and_flushed() -> None:
    program = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
kept = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(kept, schedule_delay_millis=60_000))
trace.set_tracer_provider(provider)
from aggregator import app
from aggregator.runtimes.polling import LocalContext
app.handler({"Records": []}, LocalContext(function="f", seconds=60))
assert [span.name for span in kept.get_finished_spans()] == ["process"], kept.get_finished_spans()
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "POWERTOOLS_TRACE_DISABLED": "1"},
    ],
)
def test_what_is_off_is_not_even_imported(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    program = """
import sys
from aggregator import app
from aggregator.runtimes.polling import LocalContext
app.handler({"Records": []}, LocalContext(function="f", seconds=60))
assert [name for name in sys.modules if name.startswith(("opentelemetry", "google.protobuf"))] == []
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def test_without_the_extra_an_endpoint_switches_nothing_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _: None)

    assert not tracing_wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})


def test_the_poller_hands_trace_contexts_over_as_lambda_does() -> None:
    message: Any = {
        "MessageId": "id",
        "ReceiptHandle": "handle",
        "Body": "",
        "MessageAttributes": {"traceparent": {"StringValue": f"00-{TRACE}-{SPAN}-01", "DataType": "String"}},
    }

    record = polling._record(message, "arn:aws:sqs:us-east-1:123456789012:queue")

    assert record["messageAttributes"]["traceparent"]["stringValue"] == f"00-{TRACE}-{SPAN}-01"


def test_the_slowest_objects_are_kept_and_all_slow_ones_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    kept = timings.Timings("bundle")

    for seconds in range(50):
        kept.packed("ref", began=0.0, read=float(seconds), taken=100.0)  # type: ignore[arg-type]

    assert kept.slow == 49
    assert sorted(slow.seconds for slow in kept.slowest) == list(range(34, 50))


def _said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line["why"] for line in log_lines(capsys.readouterr().out) if line.get("message") == "traces.unsent"]


def _closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"
