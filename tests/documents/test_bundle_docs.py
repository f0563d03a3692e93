"""The pages on bundles show what happens: their commands are run, and so is their Python."""

import gzip
import hashlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import duckdb
import pytest
import typer
from fsspec.registry import _registry  # type: ignore[import-untyped]
from typer.testing import CliRunner

from aggregator.bundles.filesystem import BundleFileSystem
from aggregator.commands.main import app
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.reader import Bundle
from aggregator.schemas import ObjectRef
from tests.support import ROOT
from tests.support.world import World

SAMPLES = ROOT / "fixtures" / "samples"
READING = (ROOT / "docs" / "reading-bundles.md").read_text(encoding="utf-8")
TOOLS = (ROOT / "docs" / "bundle-tools.md").read_text(encoding="utf-8")
EXAMPLES: list[tuple[str, str]] = re.findall(r"```sh\n(aggregator .*?)```\n\n```text\n(.*?)```", TOOLS, flags=re.DOTALL)
LOCAL = [example for example in EXAMPLES if "s3://" not in example[0]]
REPACKING = LOCAL[0][0].splitlines()[0]
(AGGREGATING,) = re.findall(r"```sh\n(mkdir .*?)```", TOOLS, flags=re.DOTALL)
(NIGHTLY,) = re.findall(r"```sh\n(set -eu\n.*?)```", TOOLS, flags=re.DOTALL)
(DAMAGING,) = re.findall(r"```sh\n(head .*?)```", TOOLS, flags=re.DOTALL)
(MAKING,) = re.findall(r"```sh\n(aggregator .*?)```", READING, flags=re.DOTALL)

ORDERS = ["orders/08/order 001.json", "orders/08/order 002.json", "orders/08/order 003.json"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the two bundles that the page of the tools begins with."""
    notes = {"größe + maße.txt": "notes/größe + maße.txt", "empty.txt": "notes/empty.txt"}
    (tmp_path / "quiet-hour/2026/11/23/02").mkdir(parents=True)
    for key, bundle in (
        ("2026/11/23/02/bundle-6f1b2c3d.gz", _bundle("2026/11/23/02/bundle-6f1b2c3d.gz", ORDERS)),
        ("2026/11/23/02/bundle-a7d0e914.gz", _bundle("2026/11/23/02/bundle-a7d0e914.gz", [], notes)),
    ):
        (tmp_path / "quiet-hour" / key).write_bytes(bundle)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_command_of_the_page_prints_what_stands_below_it(folder: Path) -> None:
    printed = []
    for commands, _ in LOCAL:
        if "damaged.gz" in commands:
            _run_in_bash(DAMAGING, folder)
        printed.append((commands, "".join(map(_run, commands.splitlines()))))

    assert printed == LOCAL
    shown = {re.split(r"aggregator (?:bundle )?(\w+)", commands)[1] for commands, _ in LOCAL}
    assert shown == {"list", "cat", "extract", "verify", "repack", "find"}


@pytest.mark.integration
@pytest.mark.once
def test_the_commands_at_the_top_of_the_page_make_the_files_of_its_examples(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = _run("aggregator bundle list quiet-hour").splitlines()[:-1]
    clone = tmp_path_factory.mktemp("clone")
    (clone / "fixtures").symlink_to(ROOT / "fixtures")

    _run_in_bash(AGGREGATING + REPACKING + "\n" + DAMAGING, clone)

    monkeypatch.chdir(clone)
    assert sorted(_run("aggregator bundle list quiet-hour").splitlines()[:-1]) == sorted(listed)
    verified = _run("aggregator bundle verify bundle.gz damaged.gz truncated.gz")
    assert re.findall(r"^(ok|bad)\t.*?(\w+\.gz)", verified, flags=re.MULTILINE) == [
        ("ok", "bundle.gz"),
        ("bad", "damaged.gz"),
        ("bad", "truncated.gz"),
    ]


@pytest.mark.integration
def test_the_deep_example_of_the_page_prints_what_stands_below_it(folder: Path, world: World) -> None:
    (example,) = [example for example in EXAMPLES if "s3://" in example[0]]
    key = "2026/11/23/02/bundle-6f1b2c3d.gz"
    data = (folder / "quiet-hour" / key).read_bytes()
    world.s3.put_object(Bucket=world.distribution, Key=key, Body=data)
    world.dynamodb.put_item(
        TableName=world.table,
        Item={
            "id": {"S": f"{world.distribution}#{key}"},
            "data": {"S": f'{{"bundle": "{key}", "members": 3, "sha256": "{hashlib.sha256(data).hexdigest()}"}}'},
        },
    )

    printed = _run(example[0].replace("s3://distribution/", f"s3://{world.distribution}/"))

    assert printed.replace(world.distribution, "distribution") == example[1]


@pytest.mark.integration
@pytest.mark.once
def test_the_nightly_script_of_the_page_makes_one_bundle_of_yesterday_and_never_another(
    folder: Path, world: World
) -> None:
    yesterday = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y/%m/%d")
    daily = f"{world.distribution}-daily"
    world.s3.create_bucket(Bucket=daily)
    for path in (folder / "quiet-hour").rglob("*.gz"):
        world.s3.put_object(Bucket=world.distribution, Key=f"{yesterday}/02/{path.name}", Body=path.read_bytes())
    script = NIGHTLY.replace("s3://distribution/", f"s3://{world.distribution}/").replace(
        "s3://daily/", f"s3://{daily}/"
    )

    first = _run_in_bash(script, folder)
    again = _run_in_bash(f"set -- {yesterday}\n{script}", folder, fails=True)

    with Bundle.open(f"s3://{daily}/{yesterday}.gz") as bundle:
        assert sorted(member.key for member in bundle) == sorted([*ORDERS, "empty.txt", "größe + maße.txt"])
    assert first.stdout == f"s3://{daily}/{yesterday}.gz\n"
    assert (again.returncode, "the name is taken already" in again.stderr) == (2, True)


def test_the_python_of_the_page_runs_on_what_its_commands_make(
    samples_bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, repack = MAKING.splitlines()
    bundle = tmp_path / "bundles/2026/11/23/16/bundle-samples.gz"
    bundle.parent.mkdir(parents=True)
    bundle.write_bytes(samples_bundle)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(_registry, "bundle", BundleFileSystem)  # as the entry point does, once it is installed
    _run(repack)

    scope = _run_python_of_the_page()

    duckdb.unregister_filesystem("bundle")
    assert f"\n{local}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert scope["text"] == (SAMPLES / ORDERS[0]).read_bytes()
    assert len(scope["members"]) == len(scope["sizes"]) == 122
    assert scope["orders"][0][0] == len(gzip.decompress(samples_bundle).splitlines()) - 1  # the note is not JSON
    assert scope["bodies"] == {key: (SAMPLES / key).read_bytes() for key in scope["keys"]}
    assert scope["beginnings"] == [body[:10] for body in scope["bodies"].values()]
    assert (len(scope["first"]), len(scope["second"])) == (4, len(scope["bodies"][scope["keys"][1]].splitlines()))
    assert [name for name, _ in scope["by_member"]] == [f"bundle://{key}" for key in scope["keys"]]
    assert scope["by_bucket"] == [("samples", 122, sum(scope["sizes"].values()))]


@pytest.mark.parametrize("command", ["list", "cat", "extract", "verify", "repack"])
def test_the_example_at_the_end_of_each_help_runs(command: str, folder: Path) -> None:
    _run(REPACKING)
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group | typer.core.TyperGroup)
    epilog = group.commands["bundle"].commands[command].epilog or ""  # type: ignore[attr-defined]

    assert epilog.startswith(f"Example: aggregator bundle {command} ")
    assert CliRunner().invoke(app, shlex.split(epilog)[2:]).exit_code == 0


def _run_python_of_the_page() -> dict[str, Any]:
    """What the page's programs leave behind, one run after the other."""
    blocks = re.findall(r"```python\n(.*?)```", READING, flags=re.DOTALL)
    scope: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/reading-bundles.md", "exec"), scope)
    assert len(blocks) == 9
    return scope


def _run(command: str) -> str:
    """What a command prints, data first; the page's fence needs a line of its own."""
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    printed = done.stdout + done.stderr
    return printed if printed.endswith("\n") else printed + "\n"


def _run_in_bash(script: str, folder: Path, *, fails: bool = False) -> subprocess.CompletedProcess[str]:
    aggregator = f'aggregator() {{ {shlex.quote(sys.executable)} -m aggregator "$@"; }}\n'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["bash", "-euo", "pipefail", "-c", aggregator + script]
    return subprocess.run(command, cwd=folder, env=environment, check=not fails, capture_output=True, text=True)


def _bundle(key: str, names: Sequence[str], others: dict[str, str] | None = None) -> bytes:
    """A bundle of samples under their own names, and under others."""
    spool = io.BytesIO()
    with ThreadPoolExecutor(1) as executor:
        packer = Packer(spool, limit=10**9, level=6, framing="lines", executor=executor)
        for name, sample in {**{name: name for name in names}, **(others or {})}.items():
            body = (SAMPLES / sample).read_bytes()
            packer.add(FetchedObject(ObjectRef("source", name), len(body), hashlib.md5(body).hexdigest()), [body])
        hour = key.split("/")[3]
        packer.finish(Plan(key, f"2026-11-23T{hour}:00:00Z", "6f1b2c3d-request", ()))
    return spool.getvalue()
