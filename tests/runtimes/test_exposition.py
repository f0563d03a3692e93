"""`GET /metrics` of the worker: what is served is parsed as Prometheus does, and no sum goes back."""

import math
import multiprocessing
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed

from aggregator.pipeline.telemetry import METRICS, Figure, prometheus_name
from aggregator.runtimes.polling import Polled
from aggregator.runtimes.worker.exposition import Exposition
from aggregator.runtimes.worker.health import serve_health
from aggregator.runtimes.worker.process import HANDLING, Heartbeat, Options, _Process
from aggregator.runtimes.worker.supervisor import Slot, Supervisor
from tests.support.workers import Queue, Running, until
from tests.support.world import World

pytestmark = pytest.mark.once

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.mark.integration
def test_the_sums_of_all_processes_survive_one_that_is_killed(world: World) -> None:
    queue = Queue(world)
    queue.fill(12)

    with Running(queue, "--batch-size", "6", "--processes", "2") as running:
        until(lambda: _scraped(running)["aggregator_members_bundled_total"] == 12)
        victim = running.health()["processes"][0]["pid"]
        os.kill(victim, signal.SIGKILL)
        until(lambda: _scraped(running)["aggregator_worker_died_total"] == 1)
        after = _scraped(running)
        queue.fill(16)  # up to six of them go to the receive of the dead process, and come back after two minutes
        until(lambda: _scraped(running)["aggregator_members_bundled_total"] >= 22)
        until(lambda: _scraped(running)["aggregator_worker_processes_up"] == 2)
        last = until(lambda: _agreeing(_scraped(running), running.lines))

    assert (after["aggregator_members_bundled_total"], after["aggregator_worker_restarts_total"]) == (12, 1)
    assert time.time() - last["aggregator_worker_last_poll_timestamp_seconds{process=1}"] < 60


def test_every_metric_is_served_under_its_name_before_it_has_a_value() -> None:
    served = _read(_exposition().page(""))

    expected = {prometheus_name(name) for name in METRICS}
    names = {name.partition("{")[0] for name in served}
    assert {name for name in expected if not {name, f"{name}_count"} & names} == set()
    assert served["aggregator_failures_total{reason=unknown_event}"] == 0
    assert served["aggregator_skips_total{kind=FolderMarker}"] == 0
    assert served["aggregator_binary_members_total{kind=parquet}"] == 0
    assert {value for name, value in served.items() if name.startswith("aggregator_")} == {0}
    assert {name for name in served if name.startswith(("python_info", "process_resident_memory_bytes"))}


def test_figures_are_counted_in_base_units_and_by_their_labels() -> None:
    exposition = _exposition()

    exposition.add([Figure("BytesIn", 10), Figure("BytesIn", 5), Figure("Failures", 2, "loop")])
    exposition.add([Figure("PutTime", 1_500), Figure("PutTime", 300), Figure("FillRatio", 42)])

    served = _read(exposition.page(""))
    assert served["aggregator_in_bytes_total"] == 15
    assert served["aggregator_failures_total{reason=loop}"] == 2
    assert served["aggregator_put_time_seconds_sum"] == pytest.approx(1.8)
    assert served["aggregator_put_time_seconds_bucket{le=0.5}"] == 1
    assert served["aggregator_put_time_seconds_bucket{le=2.5}"] == 2
    assert (served["aggregator_fill_ratio_bucket{le=0.4}"], served["aggregator_fill_ratio_bucket{le=0.5}"]) == (0, 1)


def test_openmetrics_says_the_same_as_the_text_of_prometheus() -> None:
    exposition = _exposition()
    exposition.add([Figure("MembersBundled", 7), Figure("Duration", 1_000), Figure("Skips", 1, "TestEvent")])

    kind, text = exposition.page(OPENMETRICS)

    ours = {name: value for name, value in _read(exposition.page("")).items() if name.startswith("aggregator_")}
    theirs = _values(parsed_openmetrics(text.decode()))  # type: ignore[no-untyped-call]
    assert kind.startswith("application/openmetrics-text")
    assert {name: value for name, value in theirs.items() if name.startswith("aggregator_")} == ours


def test_a_figure_that_cannot_be_counted_is_left_out_and_the_rest_counts() -> None:
    exposition = _exposition()

    exposition.add([Figure("Nonsense", 1), Figure("Envelopes", -1), Figure("Skips", 1), Figure("Envelopes", 3)])

    assert _read(exposition.page(""))["aggregator_envelopes_total"] == 3


def test_the_worker_says_how_its_processes_are() -> None:
    supervisor = Supervisor(Options("queue"), processes=2, drain=0)
    polled = supervisor._slots[1]
    polled.pid, polled.heartbeat, polled.answered = 7, Heartbeat("polling", in_hand=9), time.monotonic() - 5

    served = _read(supervisor.exposition.page(""))

    assert served["aggregator_worker_processes"] == 2
    assert served["aggregator_worker_processes_up"] == 1
    assert served["aggregator_worker_messages_in_hand"] == 9
    assert served["aggregator_worker_last_poll_timestamp_seconds{process=0}"] == 0
    assert math.isclose(
        served["aggregator_worker_last_poll_timestamp_seconds{process=1}"], time.time() - 5, abs_tol=3, rel_tol=0
    )


@pytest.mark.parametrize(("path", "status"), [("metrics?name=a", 200), ("health?a", 200), ("metricsx", 404)])
def test_a_path_may_have_a_query(path: str, status: int) -> None:
    assert _get(lambda accept: ("text/plain", accept.encode()), path)[0] == status


def test_metrics_that_cannot_be_made_fail_the_scrape_alone() -> None:
    def broken(_: str) -> tuple[str, bytes]:
        raise RuntimeError("broken")

    assert _get(broken, "metrics")[0] == 500
    assert _get(broken, "health")[0] == 200


def test_without_metrics_there_is_no_such_page() -> None:
    assert _get(None, "metrics")[0] == 404


def test_figures_of_a_process_that_died_are_counted_and_half_a_heartbeat_is_not() -> None:
    slot = Slot(0.0)
    slot._heartbeats, theirs = multiprocessing.Pipe(duplex=False)
    theirs.send(Heartbeat("deleting", figures=(Figure("Envelopes", 4),), answered=3.0))
    theirs.send(Heartbeat("polling", figures=()))
    os.write(theirs.fileno(), b"\0\0\1\0 half of it")
    theirs.close()

    figures = slot.listen(1.0)

    assert (figures, slot.heartbeat.state, slot.answered) == ([Figure("Envelopes", 4)], "polling", 3.0)
    assert slot.listen(2.0) == []


def test_the_last_words_of_a_process_count_before_another_takes_its_place() -> None:
    supervisor = Supervisor(Options("queue"), processes=1, drain=0)
    (slot,) = supervisor._slots
    slot._heartbeats, theirs = multiprocessing.Pipe(duplex=False)
    slot.process = _Dead()  # type: ignore[assignment]
    theirs.send(Heartbeat("deleting", figures=(Figure("Envelopes", 4),)))

    supervisor._bury(slot, 1.0)

    served = _read(supervisor.exposition.page(""))
    assert (slot.process, served["aggregator_envelopes_total"]) == (None, 4)
    assert (served["aggregator_worker_restarts_total"], served["aggregator_worker_died_total"]) == (1, 0)


def test_a_heartbeat_with_every_figure_is_written_to_the_pipe_as_a_whole() -> None:
    """More than PIPE_BUF bytes may be half written when the process is killed (pipe(7))."""
    figures = [Figure(name, 12_345_678) for name in METRICS]
    figures += [Figure("Failures", 1_000, f"store_unavailable_{at}") for at in range(12)]
    listening, theirs = multiprocessing.Pipe(duplex=False)

    theirs.send(Heartbeat("deleting", figures=tuple(figures)))

    assert len(listening.recv_bytes()) < 4_096


def test_an_invocation_sends_its_figures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    process, listening = _process(monkeypatch)
    monkeypatch.setattr("aggregator.runtimes.worker.process.app.handler", lambda *_: _invoked())

    process._invoke({"Records": []})
    process._going()

    said = [listening.recv() for _ in range(3)]
    assert [(each.state, each.figures) for each in said] == [
        (HANDLING, ()),
        ("deleting", (Figure("Envelopes", 1),)),
        ("polling", ()),
    ]


def test_a_process_whose_polls_fail_gives_no_sign_of_life_until_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    process, listening = _process(monkeypatch)
    mapping = _Mapping(process, ["fails", "fails", "answers", "ends"])
    monkeypatch.setattr(process, "_make_mapping", lambda: mapping)
    monkeypatch.setattr(process, "_pause", lambda _: None)

    process.run()

    said = []
    while listening.poll():
        said.append(listening.recv().answered > 0)
    assert mapping.polls == []
    assert said == [False, True]


class _Dead:
    """A process that has ended."""

    exitcode = 0

    def join(self) -> None:
        """It has."""


class _Mapping:
    """A poller whose polls go as a list says."""

    in_hand, answered = 0, 0.0

    def __init__(self, process: _Process, polls: list[str]) -> None:
        self._process, self.polls = process, polls

    def poll(self) -> Polled:
        self._process._going()
        poll = self.polls.pop(0)
        if poll == "fails":
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
        self.answered = time.monotonic()
        self._process._stopping = poll == "ends"
        return Polled([], 0)


def _process(monkeypatch: pytest.MonkeyPatch) -> tuple[_Process, Any]:
    monkeypatch.setenv("SERVICE_NAME", "worker")
    monkeypatch.setattr("aggregator.runtimes.worker.process.signal.signal", lambda *_: None)
    monkeypatch.setattr("aggregator.runtimes.worker.process.parent_process", multiprocessing.current_process)
    listening, heartbeats = multiprocessing.Pipe(duplex=False)
    return _Process(Options("queue", seconds=60), heartbeats), listening


def _invoked() -> dict[str, Any]:
    from aggregator.pipeline import telemetry

    telemetry._show(Figure("Envelopes", 1))
    return {"batchItemFailures": []}


def _exposition() -> Exposition:
    return Exposition(lambda: {"restarts": 0, "died": 0, "processes": []})


def _get(page: Callable[[str], tuple[str, bytes]] | None, path: str) -> tuple[int, bytes]:
    with serve_health("127.0.0.1:0", lambda: {"healthy": True}, page) as url:
        try:
            with urllib.request.urlopen(url.replace("health", path), timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def _scraped(running: Running) -> dict[str, float]:
    url = running.says("worker.started")["health"].replace("/health", "/metrics")
    with urllib.request.urlopen(url, timeout=5) as answer:
        return _read((answer.headers["Content-Type"], answer.read()))


def _agreeing(served: dict[str, float], lines: Iterable[dict[str, Any]]) -> dict[str, float]:
    """What is served, if it is the sum of what the log says; the last line may be written before or after it counts."""
    finished = [line for line in lines if line.get("message") == "invocation.finished"]
    same = (
        served["aggregator_envelopes_total"] == sum(line["Envelopes"] for line in finished)
        and served["aggregator_in_bytes_total"] == sum(line["BytesIn"] for line in finished)
        and served["aggregator_duration_seconds_count"] == len(finished)
        and math.isclose(served["aggregator_duration_seconds_sum"], sum(line["Duration"] for line in finished) / 1_000)
    )
    return served if same else {}


def _read(page: tuple[str, bytes]) -> dict[str, float]:
    kind, text = page
    assert kind.startswith("text/plain; version=0.0.4")
    return _values(parsed(text.decode()))


def _values(families: Iterable[Any]) -> dict[str, float]:
    """The value of each sample by its name and labels."""
    found = {}
    for family in families:
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found
