"""`aggregator backfill` on the embedded AWS: listing, ledger, inventory, and a Ctrl-C in the middle."""

import csv
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from aggregator.commands.main import app
from aggregator.operations.replay.backfill import Bookmark, Mark, Totals
from aggregator.schemas import BODY, ObjectRef
from tests.support import ROOT
from tests.support.world import World

pytestmark = pytest.mark.integration

KEYS = ("a b+c.json", "deep/er/é 😀.json", "deep/100%.json", "plain")


class Post:
    """A queue of its own, and the command that fills it."""

    def __init__(self, world: World) -> None:
        self.world, self.sqs = world, boto3.client("sqs")
        self.url = self.sqs.create_queue(QueueName=world.name)["QueueUrl"]
        self.target = f"s3://{world.source}/"

    def backfill(self, *options: str, target: str = "") -> Result:
        """Run the command in this process, and say what it said."""
        return CliRunner().invoke(app, ["backfill", target or self.target, "--queue-url", self.url, *options])

    def waiting(self) -> int:
        """How many messages the queue holds."""
        attributes = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])["Attributes"]
        return int(attributes["ApproximateNumberOfMessages"])

    def received(self) -> list[ObjectRef]:
        """All that waits in the queue, taken from it."""
        members: list[ObjectRef] = []
        while messages := self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages", []):
            for message in messages:
                members += BODY.validate_json(message["Body"]).objects()
            taken: list[Any] = [{"Id": m["MessageId"], "ReceiptHandle": m["ReceiptHandle"]} for m in messages]
            self.sqs.delete_message_batch(QueueUrl=self.url, Entries=taken)
        return sorted(members)

    def bodies(self) -> dict[str, str]:
        """The same, undecoded, as a batch for the handler."""
        messages = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages", [])
        return {message["MessageId"]: message["Body"] for message in messages}


@pytest.fixture
def post(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Post:
    monkeypatch.chdir(tmp_path)
    world.put_all({key: key.encode() for key in KEYS})
    return Post(world)


def _md5(text: str | bytes) -> str:
    return hashlib.md5(text.encode() if isinstance(text, str) else text, usedforsecurity=False).hexdigest()


def _member(world: World, key: str, version: str | None = None) -> ObjectRef:
    return ObjectRef(world.source, key, len(key.encode()), _md5(key), version)


def test_existing_objects_are_announced_bundled_and_then_known_as_bundled(post: Post) -> None:
    first = post.backfill("--json")
    stayed = post.world.deliver_bodies(post.bodies())
    second = post.backfill("--json", "--table", post.world.table, "--distribution", post.world.distribution)

    assert (first.exit_code, stayed) == (0, set())
    assert post.world.published() == {key: [key.encode()] for key in KEYS}
    assert json.loads(second.stdout) == {
        "complete": True,
        "listed": 4,
        "passed_over": 0,
        "folder_markers": 0,
        "already_bundled": 4,
        "sent": 0,
        "rejected": 0,
        "reasons": {},
        "examples": [],
        "error": None,
    }


def test_only_what_is_meant_is_sent_and_the_rest_is_accounted_for(post: Post) -> None:
    post.world.put("deep/folder/", b"")
    post.world.put("deep/frozen.json", b"{}", StorageClass="GLACIER")

    ran = post.backfill("--pattern", "*[!%].*", "--since", "2020-01-01", target=post.target + "deep/")

    assert post.received() == [_member(post.world, "deep/er/é 😀.json")]
    assert ran.exit_code == 1
    assert ran.stdout.splitlines() == [
        "listed           4",
        "passed over      2",
        "folder markers   0",
        "already bundled  0",
        "sent             1",
        "rejected         1",
    ]
    assert "'deep/frozen.json': archived_object" in ran.stderr


def test_a_dry_run_prints_what_would_be_sent_and_leaves_nothing_behind(post: Post, tmp_path: Path) -> None:
    ran = post.backfill("--dry-run")

    printed = [member for line in ran.stdout.splitlines() for member in BODY.validate_json(line).objects()]
    assert sorted(printed) == sorted(_member(post.world, key) for key in KEYS)
    assert "would be sent    4" in ran.stderr
    assert (ran.exit_code, post.waiting(), list(tmp_path.iterdir())) == (0, 0, [])


def test_a_dry_run_tells_in_json_what_would_be_sent_and_nothing_else(post: Post) -> None:
    ran = post.backfill("--dry-run", "--json")

    told = json.loads(ran.stdout)
    assert (told["listed"], told["would_be_sent"], "sent" in told) == (4, 4, False)
    assert (ran.exit_code, ran.stderr, post.waiting()) == (0, "", 0)


def test_the_variables_of_the_function_are_read_as_by_its_siblings(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    world = post.world
    world.s3.put_bucket_versioning(Bucket=world.source, VersioningConfiguration={"Status": "Enabled"})
    version = world.s3.put_object(Bucket=world.source, Key="versioned", Body=b"versioned")["VersionId"]
    world.deliver(["plain"])
    monkeypatch.setenv("IDEMPOTENCY_SCOPE", "version")

    versioned = post.backfill("--pattern", "versioned")
    monkeypatch.setenv("IDEMPOTENCY_SCOPE", "key")
    known = post.backfill("--json", "--pattern", "plain")

    assert (versioned.exit_code, post.received()) == (0, [_member(world, "versioned", version)])
    assert json.loads(known.stdout)["already_bundled"] == 1


def test_what_is_asked_for_by_an_age_is_reckoned_from_the_first_run(post: Post, tmp_path: Path) -> None:
    mark = tmp_path / "mark.json"
    bookmark = Bookmark(mark, {"a": "call"}, now=10.0)
    bookmark.save(Mark({}, [], Totals()))

    assert Bookmark(mark, {"a": "call"}, now=99.0).began == 10.0
    assert Bookmark(tmp_path / "another", {"a": "call"}, now=99.0).began == 99.0
    assert post.backfill("--since", "1h", "--json").exit_code == 0
    assert post.waiting() == 4


def test_a_mark_that_cannot_be_kept_ends_it_before_anything_is_sent(post: Post, tmp_path: Path) -> None:
    ran = post.backfill("--state", str(tmp_path / "no-such-folder" / "mark.json"))

    assert (ran.exit_code, ran.stdout, post.waiting()) == (2, "", 0)
    assert ran.stderr.startswith(f"aggregator: {tmp_path / 'no-such-folder'}")


@pytest.mark.parametrize("every", [False, True])
def test_with_the_scope_version_versions_are_announced_by_their_id(post: Post, *, every: bool) -> None:
    world, bucket = post.world, post.world.distribution + "-v"
    world.s3.create_bucket(Bucket=bucket)
    world.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    ids = [world.s3.put_object(Bucket=bucket, Key="k", Body=body)["VersionId"] for body in (b"1", b"2")]
    world.s3.put_object(Bucket=bucket, Key="gone", Body=b"3")
    gone = world.s3.list_object_versions(Bucket=bucket, Prefix="gone")["Versions"][0]["VersionId"]
    world.s3.delete_object(Bucket=bucket, Key="gone")

    post.backfill("--scope", "version", *(["--every-version"] if every else []), target=f"s3://{bucket}")

    old = [ObjectRef(bucket, "gone", 1, _md5(b"3"), gone), ObjectRef(bucket, "k", 1, _md5(b"1"), ids[0])]
    current = [ObjectRef(bucket, "k", 1, _md5(b"2"), ids[1])]
    assert post.received() == sorted(current + (old if every else []))


def test_a_backfill_struck_by_ctrl_c_ends_cleanly_and_the_same_call_sends_the_rest(post: Post, tmp_path: Path) -> None:
    names = [f"many/{at:03}" for at in range(80)]
    post.world.put_all(dict.fromkeys(names, b""))
    call = [sys.executable, "-m", "aggregator", "backfill", post.target + "many/", "--queue-url", post.url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(
        [*call, "--rate", "20"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not post.waiting():
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    out, words = running.communicate(timeout=30)
    sent = post.waiting()
    (mark,) = tmp_path.glob("aggregator-backfill-*.json")
    resumed = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)

    assert running.returncode == 1
    assert f"sent             {sent}\n" in out
    assert f"not finished: the same call goes on where {mark.name} says" in words
    assert 0 < sent < 80
    assert (resumed.returncode, resumed.stderr) == (0, "")
    assert [member.key for member in post.received()] == names
    assert not mark.exists()


class Report:
    """An S3 Inventory report of the source, in a bucket of its own, as S3 writes them."""

    COLUMNS = ("Bucket", "Key", "Size", "LastModifiedDate", "ETag", "StorageClass")

    def __init__(self, post: Post, kind: str) -> None:
        self.post, self.bucket = post, post.world.source + "-inventory"
        post.world.s3.create_bucket(Bucket=self.bucket)
        self._manifest(kind, [self._put(f"data/{at}", self._file(kind, KEYS[at::2])) for at in range(2)], self.COLUMNS)
        self.url = f"s3://{self.bucket}/manifest.json"

    def rewrite(self, members: Sequence[str], columns: Sequence[str], *, partition: str = "aws") -> None:
        """One file of CSV instead, gzip with a member for each of `members`."""
        body = b"".join(gzip.compress(member.encode()) for member in members)
        self._manifest("CSV", [self._put("data/0", body)], columns, partition=partition)

    def _manifest(
        self, kind: str, files: list[dict[str, Any]], columns: Sequence[str], *, partition: str = "aws"
    ) -> None:
        post = self.post
        manifest = {
            "sourceBucket": post.world.source,
            "destinationBucket": f"arn:{partition}:s3:::{self.bucket}",
            "version": "2016-11-30",
            "creationTimestamp": "1795000000000",
            "fileFormat": kind,
            "fileSchema": ", ".join(columns),
            "files": files,
        }
        self._put("manifest.json", json.dumps(manifest).encode())

    def _put(self, key: str, body: bytes) -> dict[str, Any]:
        self.post.world.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return {"key": key, "size": len(body), "MD5checksum": _md5(body)}

    def _file(self, kind: str, keys: tuple[str, ...]) -> bytes:
        rows = [self._row(key) for key in keys]
        if kind == "Parquet":
            names = ("bucket", "key", "size", "last_modified_date", "e_tag", "storage_class")
            table = pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))
            file = io.BytesIO()
            pq.write_table(table, file)
            return file.getvalue()
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        writer.writerows((bucket, quote_plus(key, safe="/"), *rest) for bucket, key, *rest in rows)
        return gzip.compress(text.getvalue().encode())

    def _row(self, key: str) -> tuple[Any, ...]:
        size = len(key.encode())
        return (self.post.world.source, key, size, "2026-11-22T01:02:03.000Z", _md5(key), "STANDARD")


@pytest.mark.parametrize("kind", ["CSV", "Parquet"])
def test_an_inventory_says_the_same_as_a_listing_whatever_the_keys(post: Post, kind: str) -> None:
    report = Report(post, kind)

    ran = post.backfill("--inventory", report.url, "--since", "2026-11-22", "--until", "2026-11-23")

    assert (ran.exit_code, ran.stderr) == (0, "")
    assert post.received() == sorted(_member(post.world, key) for key in KEYS)


def test_an_inventory_is_read_in_any_partition_with_blank_lines_and_without_what_must_be_restored(post: Post) -> None:
    report = Report(post, "CSV")
    columns = [*Report.COLUMNS, "IntelligentTieringAccessTier"]
    tiers = ["", "FREQUENT_ACCESS", "ARCHIVE_INSTANT_ACCESS", "ARCHIVE_ACCESS", "Deep Archive Access"]
    lines = [
        ",".join(f'"{value}"' for value in (*report._row(f"k{at}")[:5], "INTELLIGENT_TIERING", tier))
        for at, tier in enumerate(tiers)
    ]
    report.rewrite(["\r\n", *(line + "\r\n\r\n" for line in lines)], columns, partition="aws-us-gov")

    ran = post.backfill("--inventory", report.url, "--json")

    assert (ran.exit_code, [member.key for member in post.received()]) == (1, ["k0", "k1", "k2"])
    assert json.loads(ran.stdout)["rejected"] == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('"b","k"', "a line of the inventory has a wrong number of columns (line=3)"),
        ('"{bucket}","k","many","2026-11-22T01:02:03.000Z","e","STANDARD"', "a size in the inventory is not a number"),
    ],
)
def test_a_bad_line_of_an_inventory_is_one_clear_line(post: Post, line: str, said: str) -> None:
    report = Report(post, "CSV")
    good = ",".join(f'"{value}"' for value in report._row("good"))
    report.rewrite([good + "\n\n" + line.format(bucket=post.world.source) + "\n"], Report.COLUMNS)

    ran = post.backfill("--inventory", report.url)

    assert (ran.exit_code, len(ran.stderr.splitlines())) == (2, 1)
    assert ran.stderr.startswith(f"aggregator: {said}")


@pytest.mark.parametrize("fault", ["orc", "no manifest", "another file", "another bucket", "no versions"])
def test_an_inventory_that_cannot_be_used_is_one_clear_line(post: Post, fault: str) -> None:
    report = Report(post, "ORC" if fault == "orc" else "CSV")
    if fault == "no manifest":
        post.world.s3.put_object(Bucket=report.bucket, Key="manifest.json", Body=b"{}")
    if fault == "another file":
        post.world.s3.put_object(Bucket=report.bucket, Key="data/1", Body=b"")
    options = ["--scope", "version"] if fault == "no versions" else []
    target = "s3://elsewhere/" if fault == "another bucket" else ""

    ran = post.backfill("--inventory", report.url, *options, target=target)

    said = {
        "orc": "the inventory is in ORC: configure it to be written as CSV or Parquet",
        "no manifest": "this is not a manifest of an S3 Inventory report",
        "another file": "a file of the inventory is not the one that the manifest names (key='data/1')",
        "another bucket": f"the inventory is about another bucket (bucket='{post.world.source}')",
        "no versions": "the inventory has no version ids: configure it for all versions",
    }[fault]
    assert ran.exit_code == 2
    assert ran.stderr.startswith(f"aggregator: {said}")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--table", ""], "--table and --distribution belong together: "),
        (["--distribution", "no-such-bucket"], "there is no such bucket (bucket='no-such-bucket'): check the name"),
        (["--every-version"], "--every-version needs --scope version: with --scope key a key is bundled once"),
        (
            ["--queue-url", "q.fifo"],
            "FIFO queues are not supported: S3 sends notifications to standard queues only (queue='q.fifo')",
        ),
        (["--queue-url", ""], "--queue-url is missing: it says where to send; --dry-run only shows"),
    ],
)
def test_a_wrong_call_is_one_clear_line(post: Post, options: list[str], said: str) -> None:
    ran = post.backfill(*options)

    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith(f"aggregator: {said}")
    assert post.waiting() == 0


def test_a_prefix_without_objects_is_said(post: Post) -> None:
    ran = CliRunner().invoke(app, ["backfill", f"s3://{post.world.source}/no-such/", "--dry-run"])

    assert (ran.exit_code, ran.stdout) == (0, "")
    assert ran.stderr.endswith("no object was found there: check bucket and prefix\n")


def test_a_time_that_is_none_is_told_with_its_option(post: Post) -> None:
    ran = post.backfill("--since", "yesterday")

    assert (ran.exit_code, ran.stdout, post.waiting()) == (2, "", 0)
    assert "Invalid value for --since: 'yesterday' is not a time" in ran.stderr


def test_the_bucket_that_bundles_go_to_is_no_source(post: Post) -> None:
    options = ("--table", post.world.table, "--distribution", post.world.source)

    ran = post.backfill(*options)

    assert (ran.exit_code, post.waiting()) == (2, 0)
    assert "that would be a loop" in ran.stderr


def test_a_queue_that_is_not_there_is_a_wrong_call_and_leaves_no_mark(post: Post) -> None:
    queue = post.url + "-not"

    ran = post.backfill("--queue-url", queue, "--state", "mark.json", "--json")

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"aggregator: there is no such queue (queue={queue!r}): check the URL (--queue-url")
    assert not Path("mark.json").exists()
