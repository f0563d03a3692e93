"""`aggregator bundle` on bundles that the handler put into S3."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.reader import Bundle
from tests.support.proxy import Proxy
from tests.support.world import World

pytestmark = [pytest.mark.integration, pytest.mark.once]

OBJECTS = {
    "orders/a 1.json": b'{"n": 1}\n',
    "orders/b+c.json": b'{"n": 2}',
    "../escape.json": b'{"n": 3}\n',
    "größe": bytes(range(256)),
}


class Ran(NamedTuple):
    """What a command did."""

    status: int
    out: bytes
    err: str

    @property
    def rows(self) -> list[list[str]]:
        """The lines of a table, by field."""
        return [line.split("\t") for line in self.out.decode().splitlines()]

    @property
    def document(self) -> Any:
        """What --json prints."""
        return json.loads(self.out)


class Published(NamedTuple):
    """A world in which the handler has published one bundle of `OBJECTS`."""

    world: World
    key: str
    url: str
    data: bytes


@pytest.fixture
def published(world: World) -> Published:
    world.put_all(OBJECTS)
    assert world.deliver(OBJECTS) == set()
    (found,) = world.s3.list_objects_v2(Bucket=world.distribution)["Contents"]
    data = world.s3.get_object(Bucket=world.distribution, Key=found["Key"])["Body"].read()
    return Published(world, found["Key"], f"s3://{world.distribution}/{found['Key']}", data)


@pytest.fixture
def proxy(published: Published) -> Iterator[Proxy]:
    """Counts what goes to the AWS and what comes back."""
    with Proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        yield proxy


def test_a_bundle_in_s3_is_listed_with_one_request(published: Published, proxy: Proxy) -> None:
    ran = _bundle("list", published.url, AWS_ENDPOINT_URL=proxy.url)

    etags = {key: published.world.s3.head_object(Bucket=published.world.source, Key=key)["ETag"] for key in OBJECTS}
    assert (ran.status, proxy.calls) == (0, ["GetObject"])
    assert {row[4]: (int(row[0]), row[2]) for row in ran.rows} == {
        key: (len(body), etags[key].strip('"')) for key, body in OBJECTS.items()
    }
    assert ran.err.startswith("4 members: 284 bytes of text in ")


def test_the_long_list_and_the_totals_and_the_json_say_the_same(published: Published) -> None:
    long, totals, document = (_bundle("list", published.url, option) for option in ("--long", "--totals", "--json"))

    (listed,) = document.document
    assert sorted(row[-1] for row in long.rows) == sorted(OBJECTS)
    assert {tuple(row[6:9]) for row in long.rows} == {(published.key, published.url, published.world.source)}
    assert totals.rows == [["4", "282", "284", str(len(published.data)), str(listed["ratio"]), published.url]]
    assert (listed["bundle"], listed["size"], len(listed["members"])) == (published.key, len(published.data), 4)


def test_a_member_comes_out_as_it_went_in(published: Published) -> None:
    out = {key: _bundle("cat", published.url, key).out for key in OBJECTS}

    assert out == OBJECTS


def test_standard_input_is_a_bundle_too(published: Published) -> None:
    listed = _bundle("list", "-", stdin=published.data)
    text = _bundle("cat", "-", "größe", stdin=published.data)
    verified = _bundle("verify", "-", stdin=published.data)

    assert sorted(row[4] for row in listed.rows) == sorted(OBJECTS)
    assert text.out == OBJECTS["größe"]
    assert (verified.status, verified.rows[0][0]) == (0, "ok")


def test_members_are_extracted_below_the_folder_and_what_is_renamed_is_told(
    published: Published, tmp_path: Path
) -> None:
    ran = _bundle("extract", published.url, "--to", tmp_path / "out")

    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {f"out/{key.replace('..', '__')}": body for key, body in OBJECTS.items()}
    assert ran.rows == [["../escape.json", str(tmp_path / "out" / "__" / "escape.json")]]
    assert (ran.status, ran.err) == (0, "4 members (282 bytes) extracted, 1 renamed\n")


def test_patterns_choose_members(published: Published, tmp_path: Path) -> None:
    ran = _bundle("extract", published.url, "orders/*", "--to", tmp_path, "--json")
    again = _bundle("extract", published.url, "orders/b*", "--to", tmp_path, "--json")
    none = _bundle("extract", published.url, "orders/*", "invoices/*", "--to", tmp_path)

    assert ran.document == {"extracted": 2, "bytes": 17, "renamed": [], "failed": [], "in_newer_bundles": 0}
    assert (again.status, [one["key"] for one in again.document["failed"]]) == (1, ["orders/b+c.json"])
    assert (none.status, none.err) == (2, "aggregator: no member has such a key (pattern='invoices/*')\n")


def test_verify_says_of_each_bundle_what_it_is_and_goes_on(published: Published, tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(published.data[:-1])
    flipped = bytearray(published.data)
    flipped[20] ^= 1
    (tmp_path / "flipped.gz").write_bytes(flipped)

    ran = _bundle("verify", tmp_path / "cut.gz", tmp_path / "flipped.gz", published.url)

    assert [row[0] for row in ran.rows] == ["bad", "bad", "ok"]
    assert ran.rows[0][5].startswith("truncated ")
    assert ran.rows[2] == ["ok", "4", str(len(published.data)), "4", published.url, ""]
    assert ran.status == 1


def test_a_target_that_cannot_be_read_is_told_and_the_next_is_verified(published: Published) -> None:
    ran = _bundle("verify", published.url + "x", published.url)

    assert [row[0] for row in ran.rows] == ["unread", "ok"]
    assert (ran.status, ran.rows[0][5].partition(" (")[0]) == (2, "there is no such object")


def test_verify_deep_asks_the_ledger_and_the_archive(published: Published) -> None:
    world = published.world
    archive = world.source  # any bucket: replication is not what is tested here
    world.s3.put_object(Bucket=archive, Key=published.key, Body=published.data)

    good = _bundle("verify", published.url, "--deep", ARCHIVE_BUCKET_NAME=archive)
    world.s3.put_object(Bucket=archive, Key=published.key, Body=published.data[1:])
    bad = _bundle("verify", published.url, "--deep", "--json", ARCHIVE_BUCKET_NAME=archive)

    assert (good.status, good.rows[0][5]) == (0, "settled; copy by hand")
    assert (bad.status, bad.document[0]["verdict"]) == (1, "bad")
    assert bad.document[0]["checks"][1] == {
        "asked": "archive",
        "verdict": "mismatch",
        "words": "the copy is another than this bundle",
    }


def test_verify_deep_without_a_ledger_is_a_wrong_call(published: Published) -> None:
    ran = _bundle("verify", published.url, "--deep", IDEMPOTENCY_TABLE_NAME="")

    assert (ran.status, ran.out, len(ran.err.splitlines())) == (2, b"", 1)


def test_a_prefix_is_repacked_into_one_bundle(published: Published, tmp_path: Path) -> None:
    world = published.world
    world.put_all({"late/1": b"1", "late/2": b"2"})
    world.deliver(["late/1", "late/2"])

    ran = _bundle("repack", f"s3://{world.distribution}/", "--out", tmp_path / "one.gz", "--json")
    refused = _bundle("repack", f"s3://{world.distribution}/", "--out", f"s3://{world.distribution}/one.gz")
    again = _bundle("repack", f"s3://{world.distribution}/", "--out", tmp_path / "one.gz")

    with Bundle.open(tmp_path / "one.gz") as one:
        one.verify()
        assert {entry.key: one.read(entry) for entry in one} == {**OBJECTS, "late/1": b"1", "late/2": b"2"}
        assert one.provenance().count(published.key) == 4
    assert (ran.status, ran.document["bundles"], ran.document["members"]) == (0, 2, 6)
    assert (refused.status, "bundles are published in that bucket" in refused.err) == (2, True)
    assert (again.status, "the name is taken already" in again.err) == (2, True)


def test_a_repacked_bundle_changes_nothing_for_the_ledger(published: Published, tmp_path: Path) -> None:
    world = published.world
    _bundle("repack", published.url, "--out", tmp_path / "one.gz")
    records = world.records()

    world.lapse()
    stayed = world.deliver(OBJECTS)

    assert stayed == set()
    assert {record["id"] for record in world.records()} == {record["id"] for record in records}
    assert world.published() == {key: [body] for key, body in OBJECTS.items()}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("cat", "{url}", "missing"),
            "no member has that key: search other bundles by `aggregator find KEY TARGET` (key='missing')",
        ),
        (("cat", "{url}x", "a"), "there is no such object (target="),
        (("cat", "/no/such/file", "a"), "/no/such/file: there is no such file or folder"),
        (("cat", "{url}", "größe", "--bucket", "other"), "no member has that key: search other"),
        (("extract", "nowhere://x", "--to", "out"), "fsspec cannot read it: "),
    ],
)
def test_a_wrong_call_is_one_clear_line(arguments: tuple[str, ...], said: str, published: Published) -> None:
    ran = _bundle(*(one.format(url=published.url) for one in arguments))

    assert (ran.status, ran.out, len(ran.err.splitlines())) == (2, b"", 1)
    assert ran.err.startswith(f"aggregator: {said}")


def test_a_damaged_bundle_is_a_finding_whatever_is_asked_of_it(published: Published, tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(published.data[:-50])

    rans = [
        _bundle("list", tmp_path / "cut.gz"),
        _bundle("cat", tmp_path / "cut.gz", "größe"),
        _bundle("extract", tmp_path / "cut.gz", "--to", tmp_path / "out"),
        _bundle("verify", tmp_path / "cut.gz"),
        _bundle("repack", published.url, tmp_path / "cut.gz", "--out", tmp_path / "one.gz"),
    ]

    assert [ran.status for ran in rans] == [1, 1, 1, 1, 1]
    assert all(str(tmp_path / "cut.gz") in ran.err + ran.out.decode() for ran in rans)
    assert all("truncated" in ran.err + ran.out.decode() for ran in rans)


def test_a_reader_that_has_seen_enough_ends_the_command_without_a_word(published: Published) -> None:
    command = [sys.executable, "-m", "aggregator", "bundle", "list", *[published.url] * 3]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ))
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()

    err = process.stderr.read()
    process.stderr.close()
    process.wait()

    assert not {b"Traceback", b"Broken pipe"} & set(err.split())
    assert b"Errno" not in err


def test_a_key_is_printed_so_that_it_commands_no_terminal(world: World) -> None:
    world.put("a\tb\x1b[2J\nc", b"1")
    world.deliver(["a\tb\x1b[2J\nc"])

    ran = _bundle("list", f"s3://{world.distribution}/")

    assert [row[4] for row in ran.rows] == [r"a\tb\x1b[2J\nc"]


def test_what_the_world_holds_is_what_the_reader_opens(published: Published) -> None:
    assert {entry.key for entry in Bundle.open(io.BytesIO(published.data))} == set(OBJECTS)


def _bundle(*arguments: object, stdin: bytes = b"", **environment: str) -> Ran:
    done = CliRunner().invoke(app, ["bundle", *map(str, arguments)], input=stdin, env=environment)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return Ran(done.exit_code, done.stdout_bytes, done.stderr)
