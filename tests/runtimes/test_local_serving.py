"""A run that is kept going: bundles come as objects do, every other command finds its AWS, and it ends cleanly."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
import pytest

from aggregator.reader import Bundle
from aggregator.runtimes.local import serving
from aggregator.runtimes.local.environment import shell_lines
from aggregator.runtimes.local.run import Failure, Progress, Run, opened
from aggregator.runtimes.local.serving import Brought, serve
from tests.support.workers import until
from tests.support.world import CREDENTIALS

pytestmark = pytest.mark.once

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient


class Served(NamedTuple):
    """A run that is opened, its output folder, the event that stops it, and what a shell gets of it."""

    run: Run
    out: Path
    stop: threading.Event
    variables: dict[str, str]

    def put(self, key: str, body: bytes) -> None:
        """Put an object, as anybody else would."""
        boto3.client("s3").put_object(Bucket=self.variables["SOURCE_BUCKET_NAME"], Key=key, Body=body)

    def send(self, body: str, **options: Any) -> None:
        """Send a message to the queue."""
        boto3.client("sqs").send_message(QueueUrl=self.variables["QUEUE_URL"], MessageBody=body, **options)

    def happenings(self) -> Iterator[Any]:
        """What happens until it is stopped."""
        return serve(self.run, self.out, self.stop)


@pytest.fixture
def served(embedded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A run on an AWS that tests share, with names of its own."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MAX_BUNDLE_INPUT_MB", "1")
    name, out = f"served-{uuid.uuid4().hex[:8]}", tmp_path / "out"
    out.mkdir()
    with opened(out, endpoint_url=embedded, name=name) as (run, shell):
        yield Served(run, out, threading.Event(), shell.variables)


@pytest.mark.integration
def test_bundles_come_to_the_output_folder_as_objects_are_put(served: Served) -> None:
    happenings = served.happenings()

    brought = []
    for key in ("a", "b"):
        served.put(key, b"{}")
        brought.append(next(happenings))

    for key, bundle in zip(("a", "b"), brought, strict=True):
        assert bundle == Brought(bundle.path, 1, bundle.path.stat().st_size)
        with Bundle.open(bundle.path) as opened_bundle:
            assert opened_bundle[key] == b"{}"


@pytest.mark.integration
def test_what_is_on_the_queue_at_the_end_is_finished(served: Served) -> None:
    served.put("a", b"{}")
    served.put("b", b"{}")
    served.stop.set()

    (bundle,) = served.happenings()

    assert bundle.members == 2


@pytest.mark.integration
def test_what_cannot_be_finished_is_said_to_be_left(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "_QUIET", 0.0)
    served.send("later", DelaySeconds=900)
    served.stop.set()

    said = list(served.happenings())

    assert said == [f"messages left on the queue: 1; their objects are not in a bundle of {served.out}"]


@pytest.mark.chaos
@pytest.mark.integration
def test_a_failure_is_said_and_stays_in_the_dead_letter_queue(served: Served) -> None:
    served.put("broken.gz", b"\x1f\x8b\x08 no gzip")
    served.put("large", b"x" * 1_000_001)
    served.send("no notification")
    served.stop.set()

    failures = {failure.key.partition(" ")[0]: failure.reason for failure in served.happenings()}

    assert failures["broken.gz"].startswith("object is not gzip to its end (")
    assert failures["large"].endswith("limit=1000000): set MAX_BUNDLE_INPUT_MB to more than its size in MB")
    assert failures["message"].startswith("message is rejected (")
    queue = served.variables["DEAD_LETTER_QUEUE_URL"]
    answer = boto3.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
    assert len(answer["Messages"]) == 3


@pytest.mark.chaos
@pytest.mark.integration
def test_a_message_that_fails_without_a_reason_says_where_to_look(served: Served) -> None:
    def fails(_: object) -> Any:
        raise RuntimeError

    served.run._invoke = fails
    served.put("a", b"{}")

    assert next(served.happenings()) == Failure("a", "not bundled in 3 attempts: --log FILE shows why")


@pytest.mark.integration
def test_an_object_that_changes_after_it_is_bundled_is_said_to_be_overwritten(served: Served) -> None:
    happenings = served.happenings()
    served.put("a", b"first")
    (first, *_) = (next(happenings),)

    served.put("a", b"second")
    said = next(happenings)

    assert said == "'a': overwritten; a key is bundled once, so its bundle stays as it is"
    with Bundle.open(first.path) as bundle:
        assert bundle["a"] == b"first"


@pytest.mark.integration
def test_an_output_folder_that_cannot_be_written_is_said_once_and_tried_again(served: Served) -> None:
    happenings = served.happenings()
    served.out.rmdir()
    served.out.touch()
    served.put("a", b"{}")

    fault = next(happenings)
    served.out.unlink()

    assert fault == f"cannot write to {served.out}, and will try again: Not a directory"
    assert next(happenings).members == 1


@pytest.mark.chaos
@pytest.mark.integration
def test_progress_counts_each_file_once_and_its_bytes(served: Served, tmp_path: Path) -> None:
    files = {"a": tmp_path / "a", "empty": tmp_path / "empty", "broken.gz": tmp_path / "broken.gz"}
    for path, body in zip(files.values(), (b"12345", b"", b"\x1f\x8b\x08 no gzip"), strict=True):
        path.write_bytes(body)
    seen: list[Progress] = []

    served.run.aggregate(files, seen.append)

    assert seen == sorted(seen)
    assert (seen[0].files, seen[0].size) == (3, 16)
    assert seen[-1] == Progress(3, 16, 3, 16)


@pytest.mark.integration
def test_only_bundles_are_brought(served: Served) -> None:
    bucket = served.variables["DISTRIBUTION_BUCKET_NAME"]
    for key in ("../outside", "notes.txt", "2026/11/28/16/../bundle-a.gz", "2026/11/28/16/bundle-odd.gz"):
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=b"no bundle")
    served.put("a", b"{}")
    served.stop.set()

    odd, bundle = sorted(served.happenings(), key=lambda happening: isinstance(happening, Brought))

    path = served.out / "2026/11/28/16/bundle-odd.gz"
    assert odd == f"{path}: is not a bundle; somebody else put it into the bucket"
    assert {path for path in served.out.parent.rglob("*") if path.is_file()} == {path, bundle.path}


@pytest.mark.integration
def test_a_bundle_that_is_deleted_before_it_is_brought_does_not_end_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = "2026/11/28/16/bundle-gone.gz"
    listed = served.run._bundles
    monkeypatch.setattr(served.run, "_bundles", lambda: [gone, *listed()])
    served.put("a", b"{}")
    served.stop.set()

    (bundle,) = served.happenings()

    assert bundle.members == 1


def test_a_shell_takes_the_lines_as_they_are_and_forgets_what_leads_elsewhere() -> None:
    odd = "a b'c\"d$HOME`id`\\é\n"
    before = {"AWS_PROFILE": "mine", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "HOME": "/", "AWS_;id": "x"}
    lines = shell_lines({"QUEUE_URL": odd, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, before)
    program = "import json, os; print(json.dumps(dict(os.environ)))"
    script = "\n".join([*lines, f"exec {shlex.quote(sys.executable)} -c {shlex.quote(program)}"])

    ran = subprocess.run(["sh", "-c", script], env=before, capture_output=True, text=True, check=True)

    found = json.loads(ran.stdout)
    assert (found["QUEUE_URL"], found["AWS_ENDPOINT_URL"]) == (odd, "http://127.0.0.1:1")
    assert set(found) & set(before) == {"HOME"}


@pytest.mark.integration
def test_files_are_bundled_first_then_one_ctrl_c_finishes_and_a_second_ends_at_once(tmp_path: Path) -> None:
    files, out = tmp_path / "files", tmp_path / "out"
    files.mkdir()
    (files / "a").write_bytes(b"{}")
    command = [sys.executable, "-m", "aggregator", "local", str(files), "--serve", "--json", "--out", str(out)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        assert process.stderr
        variables = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
        sqs = _sqs(variables)
        sqs.send_message(QueueUrl=variables["QUEUE_URL"], MessageBody="later", DelaySeconds=900)

        def interrupt() -> bool:
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            return process.poll() is not None

        summary = list(iter(process.stderr.readline, f"{next(out.rglob('*.gz'))}\n"))
        said = [process.stderr.readline()]
        interrupt()
        said.append(process.stderr.readline())
        answer = sqs.get_queue_attributes(QueueUrl=variables["QUEUE_URL"])
        until(interrupt)
        said += process.stderr.readlines()

    assert summary[0] == "files       1 (2 bytes)\n"
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert process.returncode == 130
    assert said[0] == "serving until Ctrl-C; run the lines above in another shell to try commands there\n"
    assert said[1] == "ending: what is under way still arrives\n"
    assert said[-1] == "interrupted: the run is not complete\n"


def _sqs(variables: dict[str, str]) -> "SQSClient":
    return boto3.client(
        "sqs",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name=variables["AWS_DEFAULT_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )
