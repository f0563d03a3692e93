"""`aggregator catalog`: one row per member, no bundle read twice, and the old file or the new one whatever happens."""

import json
import shlex
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import typer
from typer.testing import CliRunner, Result

from aggregator.commands.main import app
from aggregator.operations import rows as loading
from aggregator.operations.catalog import COLUMNS
from aggregator.reader import Bundle
from tests.support.bundles import write_bundle
from tests.support.world import World

Run = Callable[..., Result]
HOUR = datetime.fromisoformat("2026-11-23T08:00:00")
FILES = ("catalog.parquet", "catalog.duckdb")
every_format = pytest.mark.parametrize("name", FILES)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, in a folder with bundles of two hours."""
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "hours/08/a.gz", {"orders/1": b"{}", "größe\t'\x00": b"1"}, hour="08")
    write_bundle(tmp_path / "hours/09/b.gz", {"orders/1": b"[]", "empty": b""}, hour="09")
    return lambda *arguments: CliRunner().invoke(app, ["catalog", *arguments])


@every_format
def test_each_member_of_each_bundle_is_a_row(name: str, run: Run) -> None:
    ran = run("hours", "--to", name)

    with Bundle.open("hours/08/a.gz") as bundle:
        first, second = bundle
        size, sha256 = bundle.size, bundle.sha256
    heading = ("hours/08/a.gz", size, "hours/08/a.gz", HOUR, "request-08", sha256, "hours/08/a.gz")
    assert (ran.exit_code, ran.stdout) == (0, f"{name}\n")
    assert ran.stderr == "2 bundles read, 0 known before: 4 of 4 members added\n"
    assert _rows(name)[:2] == [
        (*heading, "source", "orders/1", None, None, 2, None, 0, 2, first.crc32),
        (*heading, "source", "größe\t'\x00", None, None, 1, None, second.start, 1, second.crc32),
    ]
    assert [(row[0], row[8]) for row in _rows(name)[2:]] == [("hours/09/b.gz", "orders/1"), ("hours/09/b.gz", "empty")]


@every_format
def test_a_bundle_that_the_catalog_has_is_not_read_again(name: str, run: Run, tmp_path: Path) -> None:
    run("hours", "--to", name)
    path = tmp_path / "hours/08/a.gz"
    path.write_bytes(b"x" * path.stat().st_size)  # of the same size: to read it would fail
    write_bundle(tmp_path / "hours/10/c.gz", {"late": b"1"})

    ran = run("hours", "hours/09/b.gz", "--to", name, "--json")

    assert json.loads(ran.stdout) == {"catalog": name, "read": 1, "known": 3, "added": 1, "members": 5, "failed": 0}
    assert [row[8] for row in _rows(name)] == ["orders/1", "größe\t'\x00", "orders/1", "empty", "late"]


@every_format
def test_a_bundle_of_another_size_is_read_again_and_its_rows_are_replaced(name: str, run: Run, tmp_path: Path) -> None:
    run("hours", "--to", name)
    write_bundle(tmp_path / "hours/08/a.gz", {f"new/{number}": b"1" for number in range(100)})

    run("hours", "--to", name)

    keys = [row[8] for row in _rows(name)]
    assert (len(keys), keys[:2]) == (102, ["orders/1", "empty"])


@every_format
def test_rows_of_bundles_that_are_gone_stay(name: str, run: Run, tmp_path: Path) -> None:
    run("hours", "--to", name)
    (tmp_path / "hours/08/a.gz").unlink()
    write_bundle(tmp_path / "hours/10/c.gz", {"late": b"1"})

    run("hours", "--to", name)

    assert [row[0] for row in _rows(name)] == ["hours/08/a.gz"] * 2 + ["hours/09/b.gz"] * 2 + ["hours/10/c.gz"]


def test_a_bundle_that_is_named_twice_is_in_the_catalog_once(run: Run) -> None:
    run("hours", "hours/08/a.gz", "hours", "--to", "catalog.parquet")

    assert len(_rows("catalog.parquet")) == 4


@every_format
def test_a_run_that_is_killed_leaves_the_old_file_and_no_other(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("hours", "--to", name)
    before = (tmp_path / name).read_bytes()
    write_bundle(tmp_path / "hours/10/c.gz", {"late": b"1"})

    def killed(*_: object) -> None:
        assert list(tmp_path.glob(".*.part"))  # it is written, and has no name yet
        raise SystemExit(137)

    monkeypatch.setattr(Path, "replace", killed)
    ran = run("hours", "--to", name)

    assert (ran.exit_code, (tmp_path / name).read_bytes()) == (137, before)
    assert {path.name for path in tmp_path.iterdir()} == {"hours", name}


def test_a_damaged_bundle_is_reported_and_read_again_the_next_time(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "hours/08/a.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])

    damaged = run("hours", "--to", "catalog.parquet", "--json")
    path.write_bytes(whole)
    again = run("hours", "--to", "catalog.parquet")

    assert (damaged.exit_code, json.loads(damaged.stdout)["failed"]) == (1, 1)
    assert damaged.stderr.startswith("hours/08/a.gz: truncated")
    assert (again.exit_code, len(_rows("catalog.parquet"))) == (0, 4)


def test_rows_go_to_the_database_in_batches(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_BATCH_BYTES", 1)

    run("hours", "--to", "catalog.parquet")

    assert len(_rows("catalog.parquet")) == 4


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("catalog.csv", None, "the name of a catalog ends in .parquet or .duckdb"),
        ("nowhere/catalog.parquet", None, "nowhere: there is no such file or folder"),
        ("catalog.parquet", b"PAR1", "the catalog cannot be read or written"),
        ("catalog.duckdb", b"something else", "the catalog cannot be read or written"),
    ],
)
def test_a_file_that_cannot_be_a_catalog_is_said_and_left_as_it_is(
    name: str, content: bytes | None, said: str, run: Run, tmp_path: Path
) -> None:
    if content:
        (tmp_path / name).write_bytes(content)

    ran = run("hours", "--to", name)

    assert (ran.exit_code, said in ran.stderr, len(ran.stderr.splitlines())) == (2, True, 1)
    assert ((tmp_path / name).read_bytes() if content else None) == content


def test_a_table_that_is_not_a_catalog_is_said(run: Run) -> None:
    duckdb.execute("COPY (SELECT 1 AS one) TO 'catalog.parquet'")

    ran = run("hours", "--to", "catalog.parquet")

    assert (ran.exit_code, "the catalog cannot be read or written" in ran.stderr) == (2, True)


def test_a_database_that_was_not_closed_is_not_replaced(run: Run, tmp_path: Path) -> None:
    run("hours", "--to", "catalog.duckdb")
    (tmp_path / "catalog.duckdb.wal").touch()

    ran = run("hours", "--to", "catalog.duckdb")

    assert (ran.exit_code, "another program has the catalog open" in ran.stderr) == (2, True)


def test_a_name_with_signs_of_a_pattern_is_that_name(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a[1]").mkdir()
    name = "a[1]/it's*.parquet"

    run("hours/08", "--to", name)
    ran = run("hours", "--to", name, "--json")

    assert (json.loads(ran.stdout)["known"], json.loads(ran.stdout)["members"]) == (1, 4)


def test_the_example_at_the_end_of_the_help_runs_where_its_bundles_are(run: Run) -> None:
    (example,) = [
        command.epilog or ""
        for command in typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
        if command.name == "catalog"
    ]

    words = shlex.split(example.removeprefix("Example: aggregator catalog "))

    assert (words[0], run("hours", *words[1:]).exit_code) == ("s3://bundles/2026/11/", 0)


@pytest.mark.integration
def test_a_prefix_costs_one_listing_and_the_tails_of_what_is_new(world: World, run: Run, tmp_path: Path) -> None:
    for name in ("08/a.gz", "09/b.gz"):
        data = (tmp_path / "hours" / name).read_bytes()
        world.s3.put_object(Bucket=world.distribution, Key=f"2026/{name}", Body=data)
        with world.watched() as calls:
            ran = run(f"s3://{world.distribution}/2026/", "--to", "catalog.parquet")

        assert (ran.exit_code, calls) == (0, ["ListObjectsV2", "GetObject"])
    assert len(_rows("catalog.parquet")) == 4


def _rows(name: str) -> list[tuple[Any, ...]]:
    """All rows, in their order."""
    columns = ", ".join(COLUMNS)
    if name.endswith(".parquet"):
        return duckdb.execute(f"SELECT {columns} FROM read_parquet('{name}')").fetchall()
    with duckdb.connect(name, read_only=True) as connection:
        return connection.execute(f"SELECT {columns} FROM members").fetchall()
