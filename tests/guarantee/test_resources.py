"""What an invocation takes it gives back, also when it fails; and a deadline is kept whatever the objects do."""

import gc
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.faults import LOST, faults
from tests.support.proxy import Proxy
from tests.support.trial import invoke, told
from tests.support.world import World, environment, log_lines, sqs_record

pytestmark = pytest.mark.integration


def test_threads_and_files_are_gone_after_an_invocation_and_after_a_failure(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("aggregator.pipeline.bundling.SPOOL_SIZE", 1_000)
    objects = {f"{at}": os.urandom(5_000) for at in range(20)}
    world.put_all(objects)
    world.deliver(["the first invocation starts obstore's runtime, once for the process"])
    threads, files = set(threading.enumerate()), _open_files()

    with faults(monkeypatch, lambda call: LOST if call.is_after("PutObject") or call.is_before("PutItem") else None):
        world.deliver([*objects, "missing"])
    world.deliver(objects)
    gc.collect()

    assert set(threading.enumerate()) <= threads  # those of earlier tests may have ended meanwhile
    assert list(tmp_path.iterdir()) == []
    _until(lambda: _open_files() <= files + 2)  # the test's own client keeps a connection or two


def _until(condition: Callable[[], bool]) -> None:
    """Wait for what obstore's runtime does on its own time: close connections that nobody can use any more."""
    ends = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < ends, "connections are still open"
        gc.collect()
        time.sleep(0.05)


@pytest.mark.chaos
def test_two_hundred_invocations_in_one_process_leave_no_growth(world: World, tmp_path: Path) -> None:
    world.put_all({f"{at}": b"x" * 2_000 for at in range(5)})
    (tmp_path / "bodies.json").write_text(json.dumps({f"{at}": world.body(f"{at}") for at in [*range(5), "missing"]}))
    program = """
import gc, json, os, sys, threading
from aggregator import app
from aggregator.runtimes.polling import LocalContext
from tests.support.world import sqs_record
bodies = json.load(open(sys.argv[1]))
event = {"Records": [sqs_record(*pair) for pair in bodies.items()]}
os.environ["POWERTOOLS_IDEMPOTENCY_DISABLED"] = "true"
def state():
    gc.collect()
    pages = int(open("/proc/self/statm").read().split()[1])
    pause = threading.Event().wait  # connections are closed by obstore's own threads, a moment after they are dropped
    files = min(len(os.listdir("/proc/self/fd")) for _ in range(100) if not pause(0.01))
    objects, threads = len(gc.get_objects()), threading.active_count()
    return {"megabytes": pages * 4096 / 1e6, "files": files, "threads": threads, "objects": objects}
states = []
for number in range(200):
    app.handler(event, LocalContext(function="f", seconds=60))
    if number in (99, 199):  # by the hundredth, the allocator has what it wants
        states.append(state())
print(json.dumps(states))
"""

    early, late = told(program, tmp_path / "bodies.json")

    assert late["threads"] == early["threads"] == 1
    assert late["files"] <= early["files"] + 1
    assert late["objects"] < early["objects"] + 500
    assert late["megabytes"] < early["megabytes"] + 15


@pytest.mark.parametrize(("seconds", "folder"), [(12, "trickles"), (20, "trickles"), (12, "trickles/")])
def test_objects_that_trickle_cost_themselves_and_not_the_invocation(world: World, seconds: int, folder: str) -> None:
    """An object whose key has an empty part is read by boto3."""
    trickling = {f"{folder}/{at}": b"y" * 200_000 for at in (1, 2)}
    objects = {f"{at}": b"x" * 2_000 for at in range(8)} | trickling
    world.put_all(objects)
    event = {"Records": [sqs_record(key, world.body(key)) for key in objects]}

    with Proxy(world.environment["AWS_ENDPOINT_URL"], trickles="trickles/") as proxy:
        run = invoke("aggregator.app", {**world.environment, "AWS_ENDPOINT_URL": proxy.url}, event, seconds=seconds)

    assert run.answer is not None
    assert {failure["itemIdentifier"] for failure in run.answer["batchItemFailures"]} == set(trickling)
    assert world.published() == {key: [body] for key, body in objects.items() if "/" not in key}


def test_too_little_room_for_the_spool_is_said_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("a", b"1")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 512_000_000})())

    with environment(monkeypatch, MAX_BUNDLE_INPUT_MB="600"):
        stayed = world.deliver("a")

    (line,) = [line for line in log_lines(capsys.readouterr().out) if line.get("message") == "spool.short"]
    assert stayed == set()
    assert (line["setting"], line["MAX_BUNDLE_INPUT_MB"], line["free_MB"]) == ("MAX_BUNDLE_INPUT_MB", 600, 512)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
