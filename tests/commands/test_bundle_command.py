"""`aggregator bundle` on bundles in files: what it prints, what it writes, and its exit status."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aggregator.bundles import footer as indexing
from aggregator.commands.bundle import _brief
from aggregator.commands.main import app
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef
from tests.support import ROOT

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **given: CliRunner().invoke(app, ["bundle", *arguments], **given)


@pytest.fixture
def write(tmp_path: Path, executor: Executor) -> Callable[[str, Mapping[str, bytes]], bytes]:
    """Write a bundle of these members to a file of this name."""

    def write(name: str, members: Mapping[str, bytes]) -> bytes:
        data = _bundle(members, executor)
        (tmp_path / name).write_bytes(data)
        return data

    return write


@pytest.mark.parametrize("key", ["data[1].json", "a?", "*", "[!a]"])
def test_a_pattern_that_is_a_key_means_that_key_and_nothing_else(
    key: str, run: Run, write: Callable[..., bytes], tmp_path: Path
) -> None:
    write("bundle.gz", {key: b"this", "data1.json": b"1", "ab": b"2", "b": b"3"})

    result = run("extract", "bundle.gz", key, "--to", "out")

    assert (result.exit_code, {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}) == (
        0,
        {key: b"this"},
    )


def test_a_pattern_that_is_no_key_means_every_key_it_matches(
    run: Run, write: Callable[..., bytes], tmp_path: Path
) -> None:
    write("bundle.gz", {"a/1": b"1", "a/2": b"2", "a/3": b"3", "A/1": b"4", "b": b"5"})

    result = run("extract", "bundle.gz", "a/[!3]", "?", "--to", "out")

    files = {path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.rglob("out/**/*") if path.is_file()}
    assert (result.exit_code, files) == (0, {"a/1", "a/2", "b"})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux's")
@pytest.mark.parametrize("command", ["list", "verify", "extract"])
def test_output_that_finds_no_room_ends_the_command_in_one_line(
    command: str, write: Callable[..., bytes], tmp_path: Path
) -> None:
    write("bundle.gz", {f"../{number:05}": b"" for number in range(2_000)})  # more than Python holds back
    more = ["--to", "out"] if command == "extract" else ["bundle.gz"] * 500 if command == "verify" else []
    program = [sys.executable, "-m", "aggregator", "bundle", command, "bundle.gz", *more]

    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            program,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )

    told = done.stderr.decode()
    assert (done.returncode, told.splitlines()[0]) == (
        2,
        "aggregator: no space is left on the disk: free some, or name another place",
    )


def test_a_narrow_terminal_has_no_room_for_etags() -> None:
    assert "etag" not in _brief(80)
    assert _brief(None) == _brief(100) == ("size", "crc32", "etag", "version_id", "key")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-", "--out", "out.gz"], "cannot read from standard input: save the bundle to a file first"),
        (["bundle.gz", "--out", "-"], "a bundle is not written to standard output: name a file"),
        (["bundle.gz", "--out", "nowhere/out.gz"], "nowhere/out.gz: there is no such file or folder"),
    ],
)
def test_what_cannot_be_repacked_is_told_and_nothing_is_written(
    arguments: list[str], said: str, run: Run, write: Callable[..., bytes], tmp_path: Path
) -> None:
    data = write("bundle.gz", {"a": b"1"})

    result = run("repack", *arguments, input=data)

    assert (result.exit_code, said in result.stderr) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle.gz"]


def test_a_folder_to_repack_into_is_made(run: Run, write: Callable[..., bytes], tmp_path: Path) -> None:
    write("bundle.gz", {"a": b"1"})

    result = run("repack", "bundle.gz", "--out", "new/folder/")

    (made,) = tmp_path.glob("new/folder/repacked-*.gz")
    assert (result.exit_code, result.stdout) == (0, f"{made.relative_to(tmp_path)}\n")


@pytest.mark.parametrize("command", [["list"], ["verify"], ["cat"], ["repack", "--out", "out.gz"]])
def test_a_bundle_of_a_later_version_is_no_finding_but_more_than_this_reader_knows(
    command: list[str], run: Run, write: Callable[..., bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("bundle.gz", {"a": b"1"})
    monkeypatch.setattr(indexing, "_VERSION", 0)

    result = run(*command, "bundle.gz", *(["a"] if command == ["cat"] else []))

    assert result.exit_code == 2
    assert "of a later version than this reader knows: upgrade (version=1, known=0)" in result.output


@pytest.mark.parametrize("command", ["list", "verify", "cat"])
def test_where_there_is_no_standard_input_that_is_said(command: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    shell = [sys.executable, "-m", "aggregator", "bundle", command, "-", *(["key"] if command == "cat" else [])]
    closed = ["sh", "-c", 'exec "$@" <&-', "sh", *shell]

    done = subprocess.run(
        closed, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )

    assert (done.returncode, "there is no standard input" in done.stdout + done.stderr) == (2, True)
    assert "Traceback" not in done.stderr


def _bundle(members: Mapping[str, bytes], executor: Executor) -> bytes:
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=1, framing="lines", executor=executor)
    for key, body in members.items():
        packer.add(FetchedObject(ObjectRef("source", key), len(body)), [body])
    packer.finish(Plan("2026/11/23/11/bundle-b.gz", "2026-11-23T11:54:56Z", "r", ()))
    return spool.getvalue()
