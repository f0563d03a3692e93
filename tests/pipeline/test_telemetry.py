"""What is said, where and how; and that each of logger, metrics and tracer can be switched off."""

import ast
import json
import sys
from typing import Any

import pytest
import structlog

from aggregator import app
from aggregator.pipeline import telemetry
from aggregator.pipeline.settings import Settings
from aggregator.runtimes import polling
from aggregator.runtimes.polling import LocalContext
from aggregator.runtimes.worker import process as worker
from aggregator.runtimes.worker import supervisor
from tests.conftest import ENVIRONMENT
from tests.support import ROOT
from tests.support.world import CREDENTIALS, log_lines, sqs_record

PACKAGE = ROOT / "aggregator"
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**CREDENTIALS, **ENVIRONMENT, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)


def test_a_line_is_json_with_the_keys_of_the_invocation(capsys: pytest.CaptureFixture[str]) -> None:
    invocation = LocalContext(function="aggregator", seconds=60)

    app.handler({"Records": []}, invocation)  # type: ignore[arg-type]

    lines = log_lines(capsys.readouterr().out)
    finished = next(line for line in lines if line.get("message") == "invocation.finished")
    assert finished["service"] == "aggregator-test"
    assert finished["function_request_id"] == invocation.aws_request_id
    assert finished["location"].startswith("tell:")


def test_a_key_cannot_forge_a_line(capsys: pytest.CaptureFixture[str], settings: Any) -> None:
    telemetry.configure_logging(settings())

    structlog.get_logger().info("envelope.rejected", key='a"\n{"message": "forged"}\u2028\x85\x1b[31m')

    written = capsys.readouterr().out
    assert len(written.splitlines()) == 1
    assert json.loads(written)["key"] == 'a"\n{"message": "forged"}\u2028\x85\x1b[31m'
    assert written.isascii()


def test_a_message_of_250_kb_makes_no_log_line_that_large(capsys: pytest.CaptureFixture[str], settings: Any) -> None:
    telemetry.configure_logging(settings())
    keys = ["\x01" * 1_024] * 79

    structlog.get_logger().error("envelope.rejected", objects=keys, why="x" * 250_000, key=keys[0])

    written = capsys.readouterr().out
    line = json.loads(written)
    assert len(written) < 64 * 1024
    assert (line["objects"][0], line["objects"][-1], line["key"]) == (keys[0], "… and 74 more", keys[0])
    assert line["why"].endswith("… (250,000 characters)")


def test_a_fact_may_have_a_name_that_logging_keeps_for_itself(
    capsys: pytest.CaptureFixture[str], settings: Any
) -> None:
    telemetry.configure_logging(settings())

    structlog.get_logger().info("bundle.written", name="n", message="m", args="a")

    (line,) = log_lines(capsys.readouterr().out)
    assert (line["message"], line["name_"], line["message_"], line["args_"]) == ("bundle.written", "n", "m", "a")


def test_an_error_is_logged_whole(capsys: pytest.CaptureFixture[str], settings: Any) -> None:
    telemetry.configure_logging(settings())

    try:
        raise RuntimeError("unexpected")
    except RuntimeError:
        structlog.get_logger().exception("invocation.failed")

    (line,) = log_lines(capsys.readouterr().out)
    assert line["exception_name"] == "RuntimeError"
    assert "test_an_error_is_logged_whole" in line["exception"]


@pytest.mark.parametrize(("level", "said"), [("WARNING", []), ("info", ["bundle.written"])])
def test_the_level_is_that_of_this_invocation(
    capsys: pytest.CaptureFixture[str], settings: Any, level: str, said: list[str]
) -> None:
    telemetry.configure_logging(settings(LOG_LEVEL="DEBUG"))
    telemetry.configure_logging(settings(LOG_LEVEL=level))

    structlog.get_logger().info("bundle.written")

    assert [line["message"] for line in log_lines(capsys.readouterr().out)] == said


def test_every_metric_of_an_invocation_is_emitted_in_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    app.handler({"Records": []}, LocalContext(function="aggregator", seconds=60))  # type: ignore[arg-type]

    (document,) = [line for line in log_lines(capsys.readouterr().out) if "_aws" in line]
    (directive,) = document["_aws"]["CloudWatchMetrics"]
    assert directive["Namespace"] == telemetry.NAMESPACE
    assert directive["Dimensions"] == [["service"]]
    of_other_occasions = {"InvocationsFailed", "FillRatio", "Failures", "Skips", "BinaryMembers"}
    assert {metric["Name"] for metric in directive["Metrics"]} == set(telemetry.METRICS) - of_other_occasions


def test_an_invocation_that_raises_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="not a batch"):
        app.handler({}, LocalContext(function="aggregator", seconds=60))  # type: ignore[arg-type]

    (document,) = [line for line in log_lines(capsys.readouterr().out) if "_aws" in line]
    assert document["InvocationsFailed"] == [1.0]


@pytest.mark.parametrize(
    ("metric", "dimension", "values"),
    [("Failures", "reason", ["in_flight", "missing_object"]), ("Skips", "kind", ["Object Deleted", "FolderMarker"])],
)
def test_failures_are_counted_by_their_reason_and_skips_by_their_kind(
    capsys: pytest.CaptureFixture[str], settings: Any, metric: str, dimension: str, values: list[str]
) -> None:
    telemetry.add_counts(metric, dimension, dict(zip(values, (2, 1), strict=True)), settings())

    documents = log_lines(capsys.readouterr().out)
    assert [(line[dimension], line[metric], line["service"]) for line in documents] == [
        (values[0], [2.0], "aggregator-test"),
        (values[1], [1.0], "aggregator-test"),
    ]
    assert {tuple(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]) for line in documents} == {
        ("service", dimension)
    }


def test_metrics_are_switched_off_by_their_powertools_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")

    app.handler({"Records": [sqs_record("bad", "nope")]}, LocalContext(function="aggregator", seconds=60))  # type: ignore[arg-type]

    assert [line for line in log_lines(capsys.readouterr().out) if "_aws" in line] == []


@pytest.mark.parametrize("disabled", ["false", "true"])
def test_who_watches_gets_every_figure_whether_metrics_are_on_or_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, disabled: str
) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", disabled)
    seen: list[telemetry.Figure] = []

    with telemetry.watch_figures(seen.append):
        app.handler({"Records": [sqs_record("bad", "nope")]}, LocalContext(function="f", seconds=60))  # type: ignore[arg-type]
    app.handler({"Records": []}, LocalContext(function="f", seconds=60))  # type: ignore[arg-type]

    figures = {figure.metric: (figure.value, figure.label) for figure in seen}
    assert set(figures) == set(telemetry.METRICS) - {"InvocationsFailed", "FillRatio", "Skips", "BinaryMembers"}
    assert (figures["Rejected"], figures["Failures"]) == ((1, ""), (1, "invalid_notification"))
    assert len(seen) == len(figures)


def test_a_watcher_that_fails_does_not_fail_the_invocation() -> None:
    with telemetry.watch_figures(lambda _: 1 // 0):
        answer = app.handler({"Records": []}, LocalContext(function="f", seconds=60))  # type: ignore[arg-type]

    assert answer == {"batchItemFailures": []}


def test_a_metric_has_a_name_in_prometheus_that_ends_in_its_base_unit() -> None:
    names = {metric: telemetry.prometheus_name(metric) for metric in telemetry.METRICS}

    assert names["MembersBundled"] == "aggregator_members_bundled_total"
    assert (names["BytesIn"], names["BytesOut"]) == ("aggregator_in_bytes_total", "aggregator_out_bytes_total")
    assert (names["PutTime"], names["Duration"]) == ("aggregator_put_time_seconds", "aggregator_duration_seconds")
    assert names["FillRatio"] == "aggregator_fill_ratio"
    assert len(set(names.values())) == len(names)


@pytest.mark.parametrize(
    ("environment", "traced"),
    [
        ({}, False),
        ({"LAMBDA_TASK_ROOT": "/var/task"}, True),
        ({"LAMBDA_TASK_ROOT": "/var/task", "POWERTOOLS_TRACE_DISABLED": "true"}, False),
    ],
)
def test_the_tracer_is_on_in_lambda_unless_it_is_switched_off(environment: dict[str, str], *, traced: bool) -> None:
    assert telemetry.tracing_enabled(environment) == traced


def test_without_the_extra_there_is_no_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "find_spec", lambda _: None)

    assert not telemetry.tracing_enabled({"LAMBDA_TASK_ROOT": "/var/task"})


def test_with_the_tracer_the_handler_answers_as_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAMBDA_TASK_ROOT", "/var/task")
    monkeypatch.setenv("AWS_XRAY_CONTEXT_MISSING", "IGNORE_ERROR")
    monkeypatch.setenv("AWS_XRAY_SDK_ENABLED", "false")

    answer = app.handler({"Records": []}, LocalContext(function="aggregator", seconds=60))  # type: ignore[arg-type]

    assert answer == {"batchItemFailures": []}
    assert "aws_xray_sdk" in sys.modules


@pytest.mark.parametrize("module", MODULES)
def test_every_log_event_is_listed(module: str) -> None:
    tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
    said = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.func.attr != "open"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }

    assert said <= {*telemetry.LOG_EVENTS, *polling.LOG_EVENTS, *worker.LOG_EVENTS, *supervisor.LOG_EVENTS}


def test_no_log_event_is_listed_that_nobody_says() -> None:
    text = "".join((PACKAGE / name).read_text("utf-8") for name in MODULES if not name.endswith("/telemetry.py"))

    assert [event for event in telemetry.LOG_EVENTS if f'"{event}"' not in text] == []


def test_settings_are_read_anew_for_each_invocation(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def remember(event: Any, context: Any, *, settings: Settings, metrics: Any) -> Any:
        metrics.add_metric("Envelopes", "Count", 0)
        seen.append(settings)

    handler = telemetry.instrument(remember)
    for days in ("1", "2"):
        monkeypatch.setenv("IDEMPOTENCY_TTL_DAYS", days)
        handler({}, LocalContext(function="f", seconds=1))  # type: ignore[arg-type]

    assert [settings.idempotency_ttl_days for settings in seen] == [1, 2]
