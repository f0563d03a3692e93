"""`aggregator local`, as a user runs it: a process, its output, its exit status."""

import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from aggregator.reader import Bundle
from tests.support.workers import until
from tests.support.world import CREDENTIALS

pytestmark = pytest.mark.integration


class Ran(NamedTuple):
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        """The summary that --json prints."""
        parsed: dict[str, Any] = json.loads(self.out)
        return parsed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files of several kinds."""
    files = {
        "a b+c.json": b'{"n": 1}\n',
        "deep/er/é 😀.json": b'{"n": 2}',
        "deep/empty": b"",
        "packed.gz": gzip.compress(b'{"n": 3}\n'),
    }
    for name, body in files.items():
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return tmp_path / "files"


def test_a_folder_becomes_a_bundle_with_each_file_once(folder: Path, tmp_path: Path) -> None:
    ran = _aggregator("local", folder, "--out", tmp_path / "out")

    (bundle,) = (tmp_path / "out").rglob("bundle-*.gz")
    assert ran.status == 0
    assert sorted(gzip.decompress(bundle.read_bytes()).splitlines()) == [b'{"n": 1}', b'{"n": 2}', b'{"n": 3}']
    assert "bundled     4 in 1 bundle (" in ran.out
    assert ran.out.splitlines()[-1] == str(bundle)


def test_a_second_run_on_the_same_endpoint_makes_no_second_bundle(folder: Path, tmp_path: Path, embedded: str) -> None:
    options = ("--out", tmp_path / "out", "--endpoint-url", embedded, "--name", "second-run", "--json")

    first, second = (_aggregator("local", folder, *options) for _ in range(2))

    assert (first.status, second.status) == (0, 0)
    assert (first.summary["members"], len(first.summary["bundles"])) == (4, 1)
    assert (second.summary["members"], second.summary["bundles"], second.summary["duplicates"]) == (0, [], 4)
    assert len(list((tmp_path / "out").rglob("*.gz"))) == 1


def test_a_file_that_cannot_be_bundled_is_named_with_its_reason(folder: Path, tmp_path: Path, embedded: str) -> None:
    (folder / "broken.gz").write_bytes(b"\x1f\x8b\x08 no gzip")
    log = tmp_path / "handler.log"

    ran = _aggregator(
        "local", folder, "--out", tmp_path / "out", "--endpoint-url", embedded, "--name", "broken", "--log", log
    )

    (bundle,) = (tmp_path / "out").rglob("bundle-*.gz")
    assert ran.status == 1
    assert "failures    1" in ran.out
    assert "'broken.gz': object is not gzip to its end" in ran.err
    with Bundle.open(bundle) as opened:
        assert len(opened) == 4
    assert '"reason":"corrupt_member"' in log.read_text(encoding="utf-8")


def test_a_second_run_into_the_same_folder_replaces_the_first_or_is_rejected(folder: Path, tmp_path: Path) -> None:
    options = ("local", folder, "--out", tmp_path / "out", "--json")

    first, second, third = _aggregator(*options), _aggregator(*options), _aggregator(*options, "--replace")

    assert (first.status, second.status, third.status) == (0, 2, 0)
    said = f"{tmp_path / 'out'} has bundles of an earlier run: add --replace or --keep, or name another --out"
    assert second.err == f"aggregator: {said}\n"
    bundles = [path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.gz")]
    assert bundles == third.summary["bundles"]
    assert _aggregator(*options, "--keep").status == 0
    assert len(list((tmp_path / "out").rglob("*.gz"))) == 2


@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_DEFAULT_REGION": "eu-west-1"},
        {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "nobody", "AWS_CONFIG_FILE": "/no/such/file"},
        {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9", "AWS_ENDPOINT_URL_DYNAMODB": "http://127.0.0.1:9"},
        {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_SKIP_SIGNATURE": "x"},
        {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_CA_BUNDLE": "/no/such.pem"},
        {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "http://127.0.0.1:9"},
        {"LOG_LEVEL": "WARNING"},
        {"POWERTOOLS_IDEMPOTENCY_DISABLED": "true", "POWERTOOLS_METRICS_DISABLED": "true", "POWERTOOLS_DEV": "true"},
        {"ARCHIVE_BUCKET_NAME": "aggregator-local-source", "IDEMPOTENCY_SCOPE": "version"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "LANG": "tr_TR.UTF-8"},
        {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    ],
    ids="+".join,
)
def test_whatever_the_environment_says_a_run_talks_to_its_own_aws_and_reports_what_it_did(
    folder: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    ran = _aggregator("local", folder, "--out", tmp_path / "out", "--json", **environment)

    (bundle,) = (tmp_path / "out").rglob("bundle-*.gz")
    assert (ran.status, ran.err) == (0, "")
    assert (ran.summary["files"], ran.summary["members"], ran.summary["failures"]) == (4, 4, [])
    with Bundle.open(bundle) as opened:
        assert len(opened) == 4


def test_on_an_aws_that_is_already_there_buckets_are_made_in_its_region(
    folder: Path, tmp_path: Path, embedded: str
) -> None:
    options = ("--out", tmp_path / "out", "--endpoint-url", embedded, "--name", "elsewhere")

    ran = _aggregator(
        "local", folder, *options, AWS_DEFAULT_REGION="eu-west-1", AWS_ENDPOINT_URL_S3="http://127.0.0.1:9"
    )

    assert (ran.status, ran.err) == (0, "")


def test_ctrl_c_ends_a_run_with_a_word(folder: Path, tmp_path: Path) -> None:
    for at in range(3_000):
        (folder / f"{at:04}").write_bytes(b"{}")
    command = [sys.executable, "-m", "aggregator", "local", str(folder), "--out", str(tmp_path / "out")]
    log = tmp_path / "log"
    run = subprocess.Popen([*command, "--log", str(log)], stderr=subprocess.PIPE, text=True)
    until(lambda: log.exists() and log.stat().st_size)

    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)

    assert (run.returncode, err) == (130, "\ninterrupted: the run is not complete\n")


def test_an_output_folder_among_the_files_is_left_out(folder: Path) -> None:
    options = ("local", folder, "--out", folder / "out", "--json", "--replace")

    first, second = (_aggregator(*options) for _ in range(2))

    assert [(ran.status, ran.summary["files"], ran.summary["members"]) for ran in (first, second)] == [(0, 4, 4)] * 2


def test_what_cannot_be_an_object_is_named_and_the_rest_is_bundled(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "deep" / "to itself").symlink_to(folder / "deep" / "to itself")
    with open(os.fsencode(folder) + b"/deep/\xff[red]", "wb"):  # noqa: PTH123 - a name that Path cannot write
        pass

    ran = _aggregator("local", folder, "--out", tmp_path / "out")

    assert ran.status == 0
    assert "files       4 (" in ran.out
    assert [line.removeprefix(f"left out {folder}/") for line in ran.err.splitlines()] == [
        "deep/to itself: it is a link to nowhere",
        "deep/\\udcff[red]: its name is not Unicode, so it cannot be the key of an object: rename it",
        "pipe: it is a pipe, a socket or a device",
    ]


def test_settings_of_the_environment_are_kept(folder: Path, tmp_path: Path, embedded: str) -> None:
    ran = _aggregator(
        *("local", folder, "--out", tmp_path / "out", "--endpoint-url", embedded, "--name", "kept", "--json"),
        SOURCE_DECODING="none",
    )

    (bundle,) = (tmp_path / "out").rglob("bundle-*.gz")
    with Bundle.open(bundle) as opened:
        assert opened["packed.gz"] == (folder / "packed.gz").read_bytes()
    assert ran.summary["failures"] == []


def test_an_endpoint_where_nobody_listens_is_one_clear_line(folder: Path, tmp_path: Path) -> None:
    ran = _aggregator("local", folder, "--out", tmp_path / "out", "--endpoint-url", "http://127.0.0.1:9")

    assert (ran.status, ran.out) == (2, "")
    said = "no connection to http://127.0.0.1:9/: check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"
    assert ran.err == f"aggregator: {said}\n"


def test_what_a_run_makes_is_what_a_deployment_has(folder: Path, tmp_path: Path, embedded: str) -> None:
    _aggregator("local", folder, "--out", tmp_path / "out", "--endpoint-url", embedded, "--name", "made")

    session = boto3.Session("testing", "testing", region_name=CREDENTIALS["AWS_DEFAULT_REGION"])
    s3 = session.client("s3", endpoint_url=embedded)
    sqs = session.client("sqs", endpoint_url=embedded)
    attributes = sqs.get_queue_attributes(
        QueueUrl=sqs.get_queue_url(QueueName="made")["QueueUrl"], AttributeNames=["All"]
    )["Attributes"]
    assert s3.get_bucket_versioning(Bucket="made-distribution")["Status"] == "Enabled"
    assert int(attributes["VisibilityTimeout"]) == 6 * 120
    assert json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"].endswith(":made-dead-letters")


def _aggregator(*arguments: object, **environment: str) -> Ran:
    command = [sys.executable, "-m", "aggregator", *map(str, arguments)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**kept, **environment, "COLUMNS": "200"}, timeout=120
    )
    return Ran(done.returncode, done.stdout, done.stderr)
