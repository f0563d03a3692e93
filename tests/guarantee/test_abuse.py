"""Bad input never harms its neighbours: fuzzed events, bombs, and what must not get into a log."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator import app
from aggregator.exceptions import WrongTriggerError
from aggregator.runtimes.polling import LocalContext
from tests.support.trial import told
from tests.support.world import World, environment, log_lines, sqs_record

pytestmark = pytest.mark.integration

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_message_is_answered_and_its_neighbours_are_acknowledged(world: World, data: st.DataObject) -> None:
    if "good" not in world.published():
        world.put("good", b"1")
    document = json.loads(world.body("gone", size=3, eTag="e", versionId="v"))
    bad = json.dumps(_mutated(document, data))

    stayed = world.deliver_bodies({"bad": bad, "good": world.body("good")})

    assert stayed <= {"bad"}
    assert world.published()["good"] == [b"1"]


@pytest.mark.chaos
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(body=st.text() | st.binary().map(lambda raw: raw.decode("latin-1")) | JSON.map(json.dumps) | SCALARS)
def test_any_body_at_all_is_answered_and_its_neighbours_are_acknowledged(world: World, body: Any) -> None:
    if "good" not in world.published():
        world.put("good", b"1")

    stayed = world.deliver_bodies({"bad": body, "good": world.body("good")})

    assert stayed <= {"bad"}
    assert world.published()["good"] == [b"1"]


@pytest.mark.chaos
@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_event_is_answered_with_ids_of_its_own_or_refused_as_a_wrong_trigger(
    world: World, data: st.DataObject
) -> None:
    event = {"Records": [sqs_record("one", world.body("gone")), sqs_record("two", "{}")]}
    mutated = _mutated(event, data)

    try:
        answer = app.handler(mutated, LocalContext(function="fuzz", seconds=60))  # type: ignore[arg-type]
    except WrongTriggerError:
        return

    ids = {record["messageId"] for record in mutated["Records"]}
    assert {failure["itemIdentifier"] for failure in answer["batchItemFailures"]} <= ids


def test_ten_megabytes_that_open_to_ten_gigabytes_are_refused_and_cost_no_memory(world: World, tmp_path: Path) -> None:
    gigabyte = gzip.compress(bytes(100_000_000), 9) * 10
    world.put_all({"bomb.gz": gigabyte * 10, "good": b"1"})
    bodies = {"bomb": world.body("bomb.gz"), "good": world.body("good")}
    (tmp_path / "bodies.json").write_text(json.dumps(bodies))
    program = r"""
import json, re, sys
from aggregator import app
from aggregator.runtimes.polling import LocalContext
from tests.support.world import sqs_record
def peak():  # ru_maxrss would begin with that of the process that started this one
    return int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1])
bodies = json.load(open(sys.argv[1]))
before = peak()
event = {"Records": [sqs_record(*pair) for pair in bodies.items()]}
answer = app.handler(event, LocalContext(function="f", seconds=60))
print(json.dumps({"before": before, "more": peak() - before, **answer}))
"""

    answer = told(program, tmp_path / "bodies.json")

    assert answer["batchItemFailures"] == [{"itemIdentifier": "bomb"}]
    assert answer["before"] > 10_000
    assert answer["more"] < 150_000
    assert world.published() == {"good": [b"1"]}


def test_a_batch_as_large_as_lambda_takes_is_answered(world: World) -> None:
    padding = {"Event": "s3:TestEvent", "HostId": "x" * 1_100}
    world.put("good", b"1")
    bodies = {f"{at}": json.dumps(padding) for at in range(4_800)}

    stayed = world.deliver_bodies({**bodies, "good": world.body("good")})

    assert sum(map(len, bodies.values())) > 5_000_000
    assert stayed == set()
    assert world.published() == {"good": [b"1"]}


def test_a_body_nested_as_deep_as_sqs_carries_it_is_refused(world: World) -> None:
    deep = '{"Records":' * 23_000 + "[]" + "}" * 23_000
    world.put("good", b"1")

    stayed = world.deliver_bodies({"deep": deep, "good": world.body("good")})

    assert len(deep) > 250_000
    assert stayed == {"deep"}


def test_no_content_of_an_object_gets_into_a_log(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = b"SECRET-CONTENT"
    world.put_all({"plain": secret, "corrupt.gz": b"\x1f\x8b" + secret, "cut.gz": gzip.compress(secret * 99, 0)[:-20]})
    world.put("junk.gz", gzip.compress(b"1") + secret)
    body = json.dumps({"Records": secret.decode()})

    with environment(monkeypatch, LOG_LEVEL="DEBUG"):
        stayed = world.deliver_bodies(
            {**{key: world.body(key) for key in ("plain", "corrupt.gz", "cut.gz", "junk.gz")}, "body": body}
        )

    written = capsys.readouterr().out
    assert stayed == {"corrupt.gz", "cut.gz", "junk.gz", "body"}
    assert secret.decode() not in written


def test_a_key_with_control_characters_forges_no_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    key = 'x"}\n{"level":"INFO","message":"forged"}\r\x1b[2J\u2028'

    world.deliver([key])

    written = capsys.readouterr().out
    assert "forged" not in {line.get("message") for line in log_lines(written)}
    assert all(line.startswith("{") for line in written.splitlines())


def _mutated(document: Any, data: st.DataObject) -> Any:
    """The document, with one to three places in it replaced, removed or repeated."""
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(_places(document))
        holder, at = data.draw(st.sampled_from(places))
        kind = data.draw(st.sampled_from(["replace", "remove", "repeat"]))
        if kind == "replace":
            holder[at] = data.draw(JSON)
        elif kind == "remove" and isinstance(holder, dict):
            del holder[at]
        elif isinstance(holder, list):
            holder.append(holder[at])
        if not list(_places(document)):
            break
    return document


def _places(node: Any) -> Any:
    if isinstance(node, dict | list):
        for at in list(node) if isinstance(node, dict) else range(len(node)):
            yield node, at
            yield from _places(node[at])
