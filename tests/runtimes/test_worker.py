"""`aggregator worker`, as real processes on the embedded AWS; and what its supervisor decides, with a clock of ours."""

import contextlib
import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.pipeline.deadlines import GRACE
from aggregator.runtimes.worker.health import MOST_CONNECTIONS, HealthError, serve_health
from aggregator.runtimes.worker.process import (
    HANDLING,
    Heartbeat,
    Options,
    WorkerError,
    _Process,
    check_options,
    longest,
)
from aggregator.runtimes.worker.supervisor import UNDRAINED, UNREAD, Slot, Supervisor
from tests.conftest import ENVIRONMENT
from tests.support import ROOT
from tests.support.workers import COMMAND, Queue, Running, until
from tests.support.world import World

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@pytest.fixture
def queue(world: World) -> Queue:
    return Queue(world)


@pytest.mark.integration
def test_sigterm_drains_and_leaves_nothing_in_hand(queue: Queue) -> None:
    queue.fill(120)

    with Running(queue, "--batch-size", "10") as running:
        running.says("bundle.written")
        status = running.ends()

    waiting, in_hand = queue.left()
    published = queue.world.published()
    assert (status, in_hand) == (0, 0)
    assert waiting + len(published) == 120
    assert published == {key: [queue.objects[key]] for key in published}


@pytest.mark.integration
def test_a_worker_whose_output_nobody_reads_any_more_drains_without_a_traceback(queue: Queue) -> None:
    queue.fill(20)
    options = ("--queue-url", queue.url, "--batch-size", "10", "--window", "0.2", "--seconds", str(queue.seconds))
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    with subprocess.Popen([*COMMAND, "--health", "127.0.0.1:0", "--processes", "1", *options], **pipes) as running:
        assert running.stdout
        assert running.stderr
        first = json.loads(running.stdout.readline())
        running.stdout.close()
        err = running.stderr.read()

    assert (first["message"], running.returncode, err) == ("worker.started", UNREAD, b"")
    assert queue.left()[1] == 0


@pytest.mark.integration
def test_on_a_terminal_the_log_is_for_people_and_has_no_metrics(queue: Queue) -> None:
    queue.fill(1)
    ours, theirs = os.openpty()
    options = ("--queue-url", queue.url, "--window", "0.2", "--seconds", str(queue.seconds), "--processes", "1")
    environment = {**os.environ, "TERM": "dumb"}

    with subprocess.Popen([*COMMAND, "--health", "127.0.0.1:0", *options], stdout=theirs, env=environment) as running:
        os.close(theirs)
        written = b""
        while b"invocation.finished" not in written:
            written += os.read(ours, 4_096)
        running.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):  # how a terminal ends
            while data := os.read(ours, 4_096):
                written += data
    os.close(ours)

    lines = written.decode().splitlines()
    assert running.returncode == 0
    assert [
        line for line in lines if not re.match(r"\d{4}-\d\d-\d\dT\S+Z \[(info|warning) +\] [a-z]+\.[a-z]+", line)
    ] == []
    assert len(lines) >= 4


@pytest.mark.integration
def test_a_format_of_the_log_that_is_not_known_is_named(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_FORMAT", "text")

    ran = CliRunner().invoke(app, ["worker", "--queue-url", queue.url])

    assert (ran.exit_code, ran.stderr) == (
        2,
        "aggregator: LOG_FORMAT is not known: set it to console or json, or remove it\n",
    )


@pytest.mark.integration
def test_a_worker_without_the_guarantee_does_not_start(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_IDEMPOTENCY_DISABLED", "1")

    ran = CliRunner().invoke(app, ["worker", "--queue-url", queue.url])

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith("aggregator: POWERTOOLS_IDEMPOTENCY_DISABLED switches the guarantee off")


@pytest.mark.chaos
@pytest.mark.integration
def test_two_workers_side_by_side_bundle_all_once(queue: Queue) -> None:
    queue.fill(100)

    with Running(queue, "--batch-size", "20") as one, Running(queue, "--batch-size", "20") as other:
        until(lambda: queue.left() == (0, 0))
        statuses = [one.ends(), other.ends(signal.SIGINT)]

    handled = [line["Envelopes"] for line in one.lines + other.lines if line.get("message") == "invocation.finished"]
    assert (statuses, sum(handled)) == ([0, 0], 100)
    assert queue.world.published() == {key: [body] for key, body in queue.objects.items()}


@pytest.mark.chaos
@pytest.mark.integration
def test_a_process_that_is_killed_is_replaced_and_all_is_bundled_once(world: World) -> None:
    queue = Queue(world, seconds=12)
    queue.fill(200)

    with Running(queue, "--batch-size", "50") as running:
        victim = until(lambda: next((one for one in running.health()["processes"] if one["state"] == HANDLING), None))
        os.kill(victim["pid"], signal.SIGKILL)
        ended = running.says("process.ended")
        until(lambda: queue.left() == (0, 0))
        health = running.health()
        status = running.ends()

    assert (ended["pid"], ended["exit_code"], health["restarts"], health["healthy"], status) == (
        victim["pid"],
        -signal.SIGKILL,
        1,
        True,
        0,
    )
    assert victim["pid"] not in [process["pid"] for process in health["processes"]]
    assert queue.world.published() == {key: [body] for key, body in queue.objects.items()}


@pytest.mark.integration
def test_a_process_makes_room_for_a_new_one_after_its_batches(queue: Queue) -> None:
    queue.fill(30)

    with Running(queue, "--batch-size", "10", "--processes", "1", "--batches", "1") as running:
        until(lambda: queue.left() == (0, 0))
        until(lambda: running.health()["restarts"] >= 3)
        status = running.ends()

    requests = {line["function_arn"] for line in running.lines if line.get("message") == "invocation.finished"}
    assert (status, len(requests)) == (0, 3)
    assert queue.world.published() == {key: [body] for key, body in queue.objects.items()}


@pytest.mark.integration
def test_a_process_that_does_not_drain_in_time_is_killed(queue: Queue) -> None:
    with Running(queue, "--processes", "1", "--drain", "0.5") as running:
        _freeze(running)
        status = running.ends()

    assert (status, running.says("process.killed")["why"]) == (UNDRAINED, "it did not drain in time")


@pytest.mark.integration
def test_a_second_signal_ends_it_at_once(queue: Queue) -> None:
    with Running(queue, "--processes", "1") as running:
        frozen = _freeze(running)
        running.process.send_signal(signal.SIGTERM)
        running.says("worker.draining")
        draining = running.health()["draining"]
        status = running.ends()

    assert (draining, status) == (True, 128 + signal.SIGTERM)
    until(lambda: not _is_alive(frozen))


@pytest.mark.integration
def test_processes_whose_supervisor_is_gone_end_by_themselves(queue: Queue) -> None:
    with Running(queue) as running:
        pids = [process["pid"] for process in _polling(running)]
        running.process.kill()

        until(lambda: not any(map(_is_alive, pids)))


@pytest.mark.integration
def test_a_queue_that_fails_is_asked_again_and_the_worker_still_stops_when_told(queue: Queue) -> None:
    with Running(queue, "--processes", "1") as running:
        _polling(running)
        queue.sqs.delete_queue(QueueUrl=queue.url)
        failed = running.says("poll.failed")
        status = running.ends()

    assert (failed["failures"], status) == (1, 0)


@pytest.mark.integration
def test_a_visibility_time_out_that_ends_before_claims_lapse_is_refused(world: World) -> None:
    queue = Queue(world, seconds=12)

    assert check_options(Options(queue.url, seconds=12)) == Options(queue.url, seconds=12, visibility=33)
    with pytest.raises(WorkerError, match=r"too short: raise it, or lower .*\(visibility=33, needed=35\)"):
        check_options(Options(queue.url, seconds=13))
    with pytest.raises(WorkerError, match="the queue cannot be read"):
        check_options(Options(queue.url + "-elsewhere", seconds=12))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("DISTRIBUTION_BUCKET_NAME", "the bundles cannot be listed: there is no such bucket"),
        ("IDEMPOTENCY_TABLE_NAME", "the ledger cannot be read: there is no such table"),
    ],
)
def test_a_worker_without_its_bucket_or_its_table_does_not_begin(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    monkeypatch.setenv(variable, "no-such-thing")

    result = CliRunner().invoke(app, ["worker", "--queue-url", queue.url, "--seconds", "60", "--health", "127.0.0.1:0"])

    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert result.stderr.startswith(f"aggregator: {said}")


@pytest.mark.once
def test_the_bundle_of_a_batch_and_the_largest_bundle_are_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MAX_BUNDLE_INPUT_MB", "100")

    with pytest.raises(WorkerError, match=r"are different: remove .* \(MAX_BUNDLE_INPUT_MB=100, bundle_mb=128\)"):
        check_options(Options("queue", bundle_mb=128))


@pytest.mark.once
def test_a_worker_whose_bundles_do_not_fit_on_the_disk_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 0, 255_999_999))

    with pytest.raises(WorkerError, match=r"has no space for a bundle .* \(free_MB=255, needed_MB=256\)"):
        check_options(Options("queue", bundle_mb=128), processes=2)


@pytest.mark.once
@pytest.mark.integration
def test_a_batch_ends_when_its_bundle_is_full_long_before_its_window(world: World) -> None:
    queue = Queue(world)
    queue.objects = {f"{at}.json": b"x" * 100_000 for at in range(13)}
    world.put_all(queue.objects)
    for key, body in queue.objects.items():
        queue.sqs.send_message(QueueUrl=queue.url, MessageBody=world.body(key, size=len(body)))

    with Running(queue, "--bundle-mb", "1", "--window", "600", "--processes", "1") as running:
        written = running.says("bundle.written")
        status = running.ends()

    assert (written["members"], written["bytes_in"], status) == (10, 1_000_000, 0)
    assert queue.left()[1] == 0


def test_the_page_tells_how_long_a_worker_takes_to_stop() -> None:
    page = " ".join((ROOT / "docs" / "worker.md").read_text("utf-8").split())

    assert f"`--seconds` plus {longest(Options('', seconds=0)):.0f}, {longest(Options('')):.0f} by default" in page
    assert longest(Options("", seconds=50)) <= 120
    assert "120 seconds at most: then use `--seconds 50`" in page


def test_a_wrong_environment_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SERVICE_NAME", raising=False)

    result = CliRunner().invoke(app, ["worker", "--queue-url", "http://127.0.0.1:9/queue"])

    assert result.exit_code == 2
    assert result.stderr.startswith("aggregator: the environment is not complete: ")
    assert result.stderr.count("\n") == 1


def test_a_process_whose_invocation_takes_too_long_is_killed() -> None:
    supervisor = Supervisor(Options("queue"), processes=1, drain=0, target=_hanging)
    (slot,) = supervisor._slots

    def dies() -> int:
        supervisor._step(time.monotonic())
        return slot.failures

    until(dies)

    assert (slot.pid, slot.failures, supervisor.health()["restarts"]) == (None, 1, 1)


def test_a_process_that_the_system_cannot_start_is_tried_again_and_the_worker_lives_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supervisor = Supervisor(Options("queue"), processes=2, drain=0, target=_hanging)
    now = time.monotonic()

    def no_descriptor(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("aggregator.runtimes.worker.supervisor._SPAWN.Process.start", no_descriptor)
        supervisor._step(now)
        supervisor._step(now + 0.5)
    failed = [(slot.pid, slot.failures, slot.due) for slot in supervisor._slots]
    monkeypatch.setattr("aggregator.runtimes.worker.supervisor._SPAWN.Pipe", no_descriptor)
    supervisor._step(now + 1)

    assert failed == [(None, 1, now + 1)] * 2
    assert [(slot.pid, slot.failures, slot.due) for slot in supervisor._slots] == [(None, 2, now + 3)] * 2
    assert supervisor.health()["healthy"] is False


def test_an_invocation_is_overdue_well_before_its_claims_lapse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who meets lapsed claims takes over, and a process that still may put must be dead by then."""
    monkeypatch.setenv("SERVICE_NAME", "worker")
    monkeypatch.setattr("aggregator.runtimes.worker.process.app.handler", lambda *_: {"batchItemFailures": []})
    monkeypatch.setattr("aggregator.runtimes.worker.process.signal.signal", lambda *_: None)
    listening, heartbeats = multiprocessing.Pipe(duplex=False)

    _Process(Options("queue", seconds=60), heartbeats)._invoke({"Records": []})

    handling = listening.recv()
    assert (handling.state, handling.allowed) == (HANDLING, 60 + GRACE / 2)


def test_a_place_is_filled_again_ever_later_while_its_processes_die() -> None:
    slot, waits = Slot(0.0), []

    for _ in range(8):
        slot.process, slot.began = _Dead(1), 0.0  # type: ignore[assignment]
        slot.reap(10.0)
        waits.append(slot.due - 10.0)
    slot.process, slot.began = _Dead(1), 0.0  # type: ignore[assignment]
    slot.reap(61.0)
    waits.append(slot.due - 61.0)
    slot.process = _Dead(0)  # type: ignore[assignment]
    slot.reap(62.0)

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 1.0]
    assert slot.due == 62.0


def test_a_process_is_well_while_it_is_heard_in_the_time_that_it_asked_for() -> None:
    slot = Slot(100.0)
    slot.pid, slot.heartbeat = 7, Heartbeat(HANDLING, allowed=30.0, batches=2, deleted=9, kept=1)

    assert [slot.report(now)["healthy"] for now in (100.0, 130.0, 130.1)] == [True, True, False]
    assert slot.report(101.0) == {
        "pid": 7,
        "state": "handling",
        "seconds_since_sign": 1.0,
        "batches": 2,
        "deleted": 9,
        "kept": 1,
        "in_hand": 0,
        "seconds_since_poll": None,
        "healthy": True,
    }
    assert Slot(100.0).report(101.0)["healthy"] is False


@pytest.mark.parametrize(
    ("healthy", "path", "status"), [(True, "health", 200), (False, "health", 503), (True, "", 404)]
)
def test_health_is_told_by_the_status(path: str, status: int, *, healthy: bool) -> None:
    with serve_health("127.0.0.1:0", lambda: {"healthy": healthy}) as url:
        try:
            with urllib.request.urlopen(url.replace("health", path), timeout=5) as answer:
                found, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            found, body = error.code, error.read()

    assert found == status
    assert status == 404 or json.loads(body) == {"healthy": healthy}


def test_slow_clients_take_no_more_than_their_share_and_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.runtimes.worker.health.SECONDS", 0.5)
    with serve_health("127.0.0.1:0", lambda: {"healthy": True}) as url, contextlib.ExitStack() as stack:
        address = (str(urlsplit(url).hostname), urlsplit(url).port or 0)
        clients = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(100)]
        for client in clients:
            with contextlib.suppress(OSError):
                client.send(b"G")

        threads = threading.active_count()
        ended = [_until_closed(client) for client in clients]

        with urllib.request.urlopen(url, timeout=5) as answer:
            assert (answer.status, answer.headers["Server"]) == (200, "aggregator")

    assert threads < MOST_CONNECTIONS * 2 + 20
    assert ended == [b""] * 100


@pytest.mark.parametrize("address", ["[::1]:0", "[::]:0"])
def test_health_is_told_over_ipv6(address: str) -> None:
    with (
        serve_health(address, lambda: {"healthy": True}) as url,
        urllib.request.urlopen(url.replace("[::]", "[::1]"), timeout=5) as answer,
    ):
        assert answer.status == 200

    assert url.startswith(f"http://{address.rpartition(':')[0]}:")


def test_an_ipv6_address_without_brackets_is_named() -> None:
    with pytest.raises(HealthError, match="written in brackets"), serve_health("::1:8080", dict):
        pass


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:port", "127.0.0.1:99999", "192.0.2.1:8080"])
def test_an_address_that_cannot_be_listened_on_is_named(address: str) -> None:
    with (
        pytest.raises(HealthError, match=f"cannot serve the health endpoint on {address}"),
        serve_health(address, dict),
    ):
        pass


class _Dead:
    """A process that has ended."""

    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode

    def join(self) -> None:
        """It has."""


def _hanging(_: Options, heartbeats: "Connection") -> None:
    heartbeats.send(Heartbeat(HANDLING, allowed=0.0))
    threading.Event().wait()  # signal.pause() would return when the process is asked for its stacks


def _polling(running: Running) -> list[dict[str, Any]]:
    """The processes of a worker, as soon as all have polled."""

    def polled() -> list[dict[str, Any]]:
        processes: list[dict[str, Any]] = running.health()["processes"]
        return processes if all(process["state"] == "polling" for process in processes) else []

    found: list[dict[str, Any]] = until(polled)
    return found


def _freeze(running: Running) -> int:
    """Stop the one process of a worker, so that it hears nothing any more."""
    (process,) = _polling(running)
    os.kill(process["pid"], signal.SIGSTOP)
    return int(process["pid"])


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _until_closed(client: socket.socket) -> bytes:
    """What comes before the other side ends the connection."""
    try:
        return client.recv(100)
    except OSError:
        return b""
