"""A process that takes too long says where its threads stand, and is killed in time whether it says so or not."""

import json
import multiprocessing
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from structlog.testing import capture_logs

from aggregator.pipeline import telemetry
from aggregator.pipeline.deadlines import GRACE
from aggregator.runtimes.worker.process import HANDLING, OVERDUE, Heartbeat, Options
from aggregator.runtimes.worker.stacks import MOST_BYTES, Question, summed_up
from aggregator.runtimes.worker.supervisor import ASKED_BEFORE, Supervisor
from tests.support.workers import until

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

DUMP = """Thread 0x00007f19074586c0 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 327 in wait
  File "/app/aggregator/pipeline/readahead.py", line 90 in _read

Thread 0x00007f1907c5d6c0 [read-2] (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 327 in wait
  File "/app/aggregator/pipeline/readahead.py", line 90 in _read

Thread 0x00007f19084626c0 (most recent call first):
  <no Python frame>

Current thread 0x00007f1908dbbb80 (most recent call first):
  File "<stdin>", line 6 in <module>
"""


def test_a_handler_that_hangs_says_where_before_it_is_killed() -> None:
    supervisor = Supervisor(Options("queue"), processes=1, drain=0, target=_hanging)
    (slot,) = supervisor._slots
    supervisor._step(time.monotonic())
    until(lambda: slot.listen(time.monotonic()) or slot.heartbeat.state == HANDLING)
    pid, overdue = slot.pid, slot.heard + slot.heartbeat.allowed
    assert slot._question

    with capture_logs() as lines:
        supervisor._step(overdue - ASKED_BEFORE + 0.1)
        until(lambda: slot._question and len(slot._question.answer()) == 2)
        supervisor._step(overdue + 0.1)

    (stacks, killed) = lines
    assert (stacks["event"], stacks["log_level"], stacks["pid"]) == ("process.stacks", "error", pid)
    assert [line.split(" ")[0] for line in stacks["threads"]] == ["1", "3"]
    assert "_hanging" in stacks["threads"][0]
    assert "_waiting" in stacks["threads"][1]
    assert killed == {
        "event": "process.killed",
        "log_level": "error",
        "pid": pid,
        "why": "its invocation takes too long",
    }


def test_a_process_that_does_not_answer_is_killed_at_the_same_moment() -> None:
    supervisor = Supervisor(Options("queue"), processes=1, drain=0, target=_hanging)
    (slot,) = supervisor._slots
    supervisor._step(time.monotonic())
    until(lambda: slot.listen(time.monotonic()) or slot.heartbeat.state == HANDLING)
    overdue, process = slot.heard + slot.heartbeat.allowed, slot.process
    assert slot.pid
    assert process
    os.kill(slot.pid, signal.SIGSTOP)

    with capture_logs() as lines:
        supervisor._step(overdue - ASKED_BEFORE + 0.1)
        alive = process.is_alive()
        supervisor._step(overdue + 0.1)

    assert (alive, process.is_alive()) == (True, False)
    assert [line["event"] for line in lines] == ["process.killed"]


def test_the_question_comes_while_there_is_time_until_the_claims_lapse() -> None:
    assert 0 < ASKED_BEFORE < OVERDUE < GRACE


@pytest.mark.once
def test_equal_stacks_are_one_line_and_the_main_thread_comes_first() -> None:
    assert summed_up(DUMP) == ["1 × <stdin>:6 <module>", "2 × threading.py:327 wait < readahead.py:90 _read"]
    assert summed_up("") == []


@pytest.mark.once
def test_a_line_of_stacks_stays_whole_json_however_many_threads_there_are(
    capsys: pytest.CaptureFixture[str], settings: Any
) -> None:
    frames = "".join(f'  File "/x/{"m" * 60}{at}.py", line 9 in f\n' for at in range(100))
    dump = "\n".join(
        f'Thread {at} (most recent call first):\n{frames}  File "/x", line {at} in g\n' for at in range(100)
    )
    telemetry.configure_logging(settings())

    structlog.get_logger().error("process.stacks", threads=summed_up(dump))

    written = capsys.readouterr().out
    assert len(written) < 64 * 1024
    assert json.loads(written)["message"] == "process.stacks"


@pytest.mark.once
def test_a_process_is_asked_once_until_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("aggregator.runtimes.worker.stacks.os.kill", lambda *call: asked.append(call))
    answers, stacks = multiprocessing.Pipe(duplex=False)
    question = Question(answers)

    question.ask(7)
    question.ask(7)
    os.write(stacks.fileno(), DUMP.encode())
    question.forget()
    forgotten = question.answer()
    question.ask(7)
    os.write(stacks.fileno(), DUMP.encode() * 2)

    assert asked == [(7, signal.SIGUSR1)] * 2
    assert forgotten == []
    assert question.answer()[0] == "2 × <stdin>:6 <module>"


@pytest.mark.once
def test_an_answer_is_read_to_its_bound_and_no_writer_waits() -> None:
    answers, stacks = multiprocessing.Pipe(duplex=False)
    question, text = Question(answers), b"x" * (MOST_BYTES + 100_000)
    writer = threading.Thread(
        target=lambda: [os.write(stacks.fileno(), text[at : at + 4096]) for at in range(0, len(text), 4096)]
    )
    writer.start()

    until(lambda: question.answer() or not writer.is_alive())
    question.answer()

    writer.join()
    assert len(question._text) == MOST_BYTES


def _waiting(event: threading.Event) -> None:
    event.wait()


def _hanging(_: Options, heartbeats: "Connection") -> None:
    never = threading.Event()
    for _at in range(3):
        threading.Thread(target=_waiting, args=(never,), daemon=True).start()
    heartbeats.send(Heartbeat(HANDLING, allowed=60.0))
    never.wait()
