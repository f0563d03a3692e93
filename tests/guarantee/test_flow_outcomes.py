"""What becomes of objects that are overwritten or replaced, and of events that are wrong, on the embedded AWS."""

import gzip
import json
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from aggregator import app
from aggregator.exceptions import ConfigurationError, WrongTriggerError
from aggregator.runtimes.polling import LocalContext
from fixtures import factories
from tests.support.flow import AWKWARD_KEYS, finished
from tests.support.world import World, environment, log_lines

pytestmark = pytest.mark.integration


def test_an_overwritten_key_is_counted_and_not_hidden_among_duplicates(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("a", b"1")
    world.deliver_bodies({"m1": world.body("a", eTag="first")})
    capsys.readouterr()

    stayed = [world.deliver_bodies({"m": world.body("a", eTag=etag)}) for etag in ("second", "first")]

    lines = log_lines(capsys.readouterr().out)
    figures = [line for line in lines if line.get("message") == "invocation.finished"]
    assert stayed == [set(), set()]
    assert [(line["Overwritten"], line["Duplicates"]) for line in figures] == [(1, 0), (0, 1)]


def test_with_the_scope_version_an_overwritten_key_is_a_new_member(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with environment(monkeypatch, IDEMPOTENCY_SCOPE="version"):
        for body in (b"1", b"2"):
            world.put("a", body)
            etag = world.s3.head_object(Bucket=world.source, Key="a")["ETag"].strip('"')
            assert world.deliver_bodies({"m": world.body("a", eTag=etag)}) == set()

    assert world.published() == {"a": [b"1", b"2"]} or world.published() == {"a": [b"2", b"1"]}


def test_with_the_scope_version_exactly_the_announced_version_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": "Enabled"})
    versions = [world.s3.put_object(Bucket=world.source, Key="a", Body=body)["VersionId"] for body in (b"1", b"2")]

    with environment(monkeypatch, IDEMPOTENCY_SCOPE="version"):
        stayed = world.deliver_bodies({"m1": world.body("a", versionId=versions[0])})

    assert stayed == set()
    assert world.published() == {"a": [b"1"]}


def test_with_the_scope_version_a_replaced_object_is_left_to_its_own_notification(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("a", b"1")

    with environment(monkeypatch, IDEMPOTENCY_SCOPE="version"):
        stayed = world.deliver_bodies({"m1": world.body("a", eTag="0" * 32)})

    assert stayed == set()
    assert world.published() == {}
    assert finished(capsys)["Superseded"] == 1


@pytest.mark.parametrize("framing", ["lines", "none"])
def test_lines_stay_lines(world: World, monkeypatch: pytest.MonkeyPatch, framing: str) -> None:
    world.put_all({"a": b'{"n":1}', "b": b'{"n":2}'})

    with environment(monkeypatch, BUNDLE_FRAMING=framing, READ_CONCURRENCY="1"):
        world.deliver("ab")

    lines = sorted(_text(world).splitlines())
    assert lines == ([b'{"n":1}', b'{"n":2}'] if framing == "lines" else [b'{"n":1}{"n":2}'])


def test_a_function_that_has_only_twelve_seconds_still_works(world: World) -> None:
    objects = {f"{at}": b"x" * 4096 for at in range(200)}
    world.put_all(objects)

    stayed = world.deliver(objects, seconds=12)

    assert stayed == set()
    assert world.published() == {key: [body] for key, body in objects.items()}


def test_an_invocation_without_time_gives_everything_back_at_once(world: World) -> None:
    world.put("a", b"1")

    stayed = world.deliver(["a"], seconds=0.5)

    assert stayed == {"a"}
    assert world.deliver(["a"]) == set()
    assert world.published() == {"a": [b"1"]}


def test_switched_off_the_ledger_leaves_no_trace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put("a", b"1")

    with environment(monkeypatch, POWERTOOLS_IDEMPOTENCY_DISABLED="true"):
        assert world.deliver("a") == set()
        assert world.deliver("a") == set()

    assert world.published() == {"a": [b"1", b"1"]}
    assert world.records() == []


def test_the_per_service_endpoint_moves_obstore_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.put_all({"a": b"1", "a//b": b"2"})
    endpoint = os.environ["AWS_ENDPOINT_URL"]

    moved = {"AWS_ENDPOINT_URL_S3": endpoint, "AWS_ENDPOINT_URL_DYNAMODB": endpoint}
    with environment(monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:9", **moved):
        stayed = world.deliver(["a", "a//b"])

    assert stayed == set()
    assert world.published() == {"a": [b"1"], "a//b": [b"2"]}


@pytest.mark.parametrize(
    "event",
    [
        json.loads(factories.created("a")),
        {"Records": [{"messageId": "m", "eventSource": "aws:kinesis", "body": ""}]},
        {"Records": [{"messageId": 1, "eventSource": "aws:sqs", "body": ""}]},
        {"Records": [None]},
        {"Records": {}},
        {"Messages": []},
        [],
        None,
    ],
)
def test_an_event_of_another_trigger_raises_one_clear_error(world: World, event: Any) -> None:
    with pytest.raises(WrongTriggerError, match="the event is not a batch of SQS messages"):
        app.handler(event, LocalContext(function="f", seconds=60))  # type: ignore[arg-type]


@pytest.mark.parametrize("body", [None, 1, {"Records": []}, b"{}", "\ud800", "[" * 100_000, "\ufeff{}", ""])
def test_a_body_that_is_anything_else_stays_and_harms_nobody(world: World, body: Any) -> None:
    world.put("good", b"1")

    stayed = world.deliver_bodies({"bad": body, "good": world.body("good")})

    assert stayed == {"bad"}
    assert world.published() == {"good": [b"1"]}


def test_an_incomplete_environment_raises_one_clear_error(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISTRIBUTION_BUCKET_NAME")
    monkeypatch.setenv("MAX_BUNDLE_INPUT_MB", "5001")

    with pytest.raises(ConfigurationError, match="DISTRIBUTION_BUCKET_NAME is not set; MAX_BUNDLE_INPUT_MB is '5001'"):
        world.deliver("a")


def test_widely_used_readers_read_a_bundle_of_many_members_whole(world: World, tmp_path: Path) -> None:
    rng = random.Random(11)
    objects = {
        f"in/{at:05}.json": json.dumps({"n": at, "noise": rng.randbytes(200).hex()}).encode() for at in range(1200)
    }
    world.put_all(objects)
    world.deliver(objects)
    (bundle,) = world.bundles()
    path = tmp_path / "bundle.gz"
    key = world.s3.list_objects_v2(Bucket=world.distribution)["Contents"][0]["Key"]
    world.s3.download_file(world.distribution, key, str(path))

    text = b"".join(objects[entry.key] + b"\n" for entry in bundle)

    assert gzip.decompress(path.read_bytes()) == text
    assert subprocess.run(["gzip", "-dc", path], capture_output=True, check=True).stdout == text
    assert pa.input_stream(str(path), compression="gzip").read() == text
    query = f"SELECT count(*), sum(n) FROM read_json('{path}')"
    assert duckdb.connect().execute(query).fetchone() == (1200, 719_400)
    node = shutil.which("node")
    if node:
        program = "process.stdout.write(require('zlib').gunzipSync(require('fs').readFileSync(process.argv[1])))"
        assert subprocess.run([node, "-e", program, path], capture_output=True, check=True).stdout == text


def test_on_motos_server_the_flow_is_the_same(
    moto_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(monkeypatch, moto_server, LEDGER_WRITES="auto")
    keys = [key for key in AWKWARD_KEYS if "\n" not in key]  # moto's server answers 404 to a line feed in a URL
    objects = {key: f"content of {key!a}\n".encode() for key in keys}
    world.put_all(objects)

    stayed = [world.deliver([*objects, "missing"]) for _ in range(2)]

    assert stayed == [{"missing"}, {"missing"}]
    assert world.published() == {key: [body] for key, body in objects.items()}
    assert finished(capsys)["Duplicates"] == len(objects)


def _text(world: World) -> bytes:
    key = world.s3.list_objects_v2(Bucket=world.distribution)["Contents"][0]["Key"]
    return gzip.decompress(world.s3.get_object(Bucket=world.distribution, Key=key)["Body"].read())
