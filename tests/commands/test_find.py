"""`aggregator find`: which bundles hold a key, whatever is wrong with others."""

import io
import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from aggregator.commands import find as module
from aggregator.commands.main import app
from tests.support.bundles import write_bundle
from tests.support.world import World

Run = Callable[..., Result]

HOURS: Mapping[str, Mapping[str, bytes]] = {
    "08/a.gz": {"orders/08/1.json": b"{}", "orders/08/2.json": b"{}\n", "data[1].json": b"1", "data1.json": b"2"},
    "09/b.gz": {"orders/08/1.json": b"[]", "notes/x": b"", "data1.json": b"3"},
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, in a folder with bundles of two hours."""
    monkeypatch.chdir(tmp_path)
    for name, members in HOURS.items():
        write_bundle(tmp_path / "bundles" / name, members)
    return lambda *arguments: CliRunner().invoke(app, ["find", *arguments])


def test_a_key_is_found_in_every_bundle_that_holds_it_in_their_order(run: Run) -> None:
    ran = run("orders/08/1.json", "bundles")

    assert (ran.exit_code, ran.stderr) == (0, "")
    assert [line.split("\t") for line in ran.stdout.splitlines()] == [
        ["bundles/08/a.gz", "orders/08/1.json", "2", "", ""],
        ["bundles/09/b.gz", "orders/08/1.json", "2", "", ""],
    ]


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("*.json", ["orders/08/1.json", "orders/08/2.json", "data[1].json", "data1.json", "orders/08/1.json"]),
        ("orders/*", ["orders/08/1.json", "orders/08/2.json", "orders/08/1.json"]),
        ("orders/08/[!1].json", ["orders/08/2.json"]),
        ("notes/?", ["notes/x"]),
    ],
)
def test_a_pattern_names_every_key_that_it_matches(pattern: str, keys: list[str], run: Run) -> None:
    ran = run(pattern, "bundles/08/a.gz", "bundles/09")

    expected = [*keys, "data1.json"] if pattern == "*.json" else keys
    assert [line.split("\t")[1] for line in ran.stdout.splitlines()] == expected


def test_in_a_bundle_that_has_the_pattern_as_a_key_it_means_that_key(run: Run) -> None:
    ran = run("data[1].json", "bundles")

    assert [line.split("\t")[:2] for line in ran.stdout.splitlines()] == [
        ["bundles/08/a.gz", "data[1].json"],
        ["bundles/09/b.gz", "data1.json"],
    ]


def test_json_is_one_document_for_each_member(run: Run) -> None:
    (line,) = run("notes/*", "bundles", "--json").stdout.splitlines()

    assert json.loads(line) == {
        "target": "bundles/09/b.gz",
        "bundle": "bundles/09/b.gz",
        "bucket": "source",
        "key": "notes/x",
        "version_id": None,
        "etag": None,
        "size": 0,
        "encoding": None,
        "start": 3,
        "length": 0,
        "crc32": "00000000",
        "block": 10,
        "offset": 3,
    }


def test_where_nothing_is_found_that_is_said(run: Run) -> None:
    ran = run("invoices/*", "bundles")

    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == "no member has such a key: 2 bundles searched\n"


def test_a_damaged_bundle_is_reported_and_does_not_stop_the_search(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bundles/08/b.gz").write_bytes((tmp_path / "bundles/08/a.gz").read_bytes()[:-1])

    ran = run("orders/08/1.json", "bundles")

    assert ran.exit_code == 1
    assert [line.split("\t")[0] for line in ran.stdout.splitlines()] == ["bundles/08/a.gz", "bundles/09/b.gz"]
    assert ran.stderr.startswith("bundles/08/b.gz: truncated")


def test_a_target_that_is_not_there_is_reported_and_does_not_stop_the_search(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    ran = run("notes/*", "nowhere.gz", "empty", "bundles")

    assert (ran.exit_code, ran.stdout.split("\t")[0]) == (2, "bundles/09/b.gz")
    assert [line.split(":")[:2] for line in ran.stderr.splitlines()] == [
        ["nowhere.gz", " there is no such file or folder"],
        ["empty", " no .gz file found (target='empty')"],
    ]


@pytest.mark.parametrize(("exact", "size"), [(False, ["0", "bytes"]), (True, ["0"])])
def test_a_terminal_gets_a_table_with_a_heading(
    run: Run, monkeypatch: pytest.MonkeyPatch, exact: bool, size: list[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)

    with pytest.raises(typer.Exit):
        module.find("notes/*", ["bundles"], exact=exact)

    heading, row = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()[-2:]
    assert (heading.split()[:3], row.split()) == (["target", "key", "size"], ["bundles/09/b.gz", "notes/x", *size])


def test_the_example_at_the_end_of_the_help_runs_where_its_bundles_are(run: Run) -> None:
    (example,) = [
        command.epilog or ""
        for command in typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
        if command.name == "find"
    ]

    words = shlex.split(example.removeprefix("Example: aggregator find "))

    assert (words[-1], run(words[0], "bundles").exit_code) == ("s3://bundles/2026/11/", 0)


@pytest.mark.integration
def test_a_prefix_costs_one_listing_and_the_tail_of_each_bundle(world: World, run: Run, tmp_path: Path) -> None:
    for name in HOURS:
        data = (tmp_path / "bundles" / name).read_bytes()
        world.s3.put_object(Bucket=world.distribution, Key=f"2026/{name}", Body=data)

    with world.watched() as calls:
        ran = run("orders/*", f"s3://{world.distribution}/2026/")
    hinted = run("orders/*", f"s3://{world.distribution}/2026")

    assert (ran.exit_code, len(ran.stdout.splitlines())) == (0, 3)
    assert calls == ["ListObjectsV2", "GetObject", "GetObject"]
    assert "there is no such object, but a prefix of that name: add a slash" in hinted.stderr
    assert f"s3://{world.distribution}/2026/" in hinted.stderr
