"""The pages on bundles show what happens: their commands are run, and so is their Python."""

import gzip
import hashlib
import io
import re
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef
from tests.support import ROOT
from tests.support.world import World

SAMPLES = ROOT / "fixtures" / "samples"
READING = (ROOT / "docs" / "reading-bundles.md").read_text(encoding="utf-8")
TOOLS = (ROOT / "docs" / "bundle-tools.md").read_text(encoding="utf-8")
EXAMPLES: list[tuple[str, str]] = re.findall(r"```sh\n(aggregator .*?)```\n\n```text\n(.*?)```", TOOLS, flags=re.DOTALL)
LOCAL = [example for example in EXAMPLES if "s3://" not in example[0]]

ORDERS = ["orders/08/order 001.json", "orders/08/order 002.json", "orders/08/order 003.json"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages speak of: a bundle, damaged ones, and a quiet hour."""
    (tmp_path / "quiet-hour").mkdir()
    bundle = _bundle("2026/11/23/16/bundle-6f1b2c3d.gz", ORDERS, {"../orders/order.json": ORDERS[0]})
    files = {
        "bundle.gz": bundle,
        "damaged.gz": bundle[:40] + bytes([bundle[40] ^ 1]) + bundle[41:],
        "truncated.gz": bundle[:-100],
        "quiet-hour/bundle-1.gz": _bundle("2026/11/23/02/bundle-1.gz", ["orders/08/order 004.json"]),
        "quiet-hour/bundle-2.gz": _bundle("2026/11/23/02/bundle-2.gz", ["notes/größe + maße.txt", "notes/empty.txt"]),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_command_of_the_page_prints_what_stands_below_it(folder: Path) -> None:
    printed = [(commands, "".join(map(_run, commands.splitlines()))) for commands, _ in LOCAL]

    assert printed == LOCAL
    assert {commands.split()[2] for commands, _ in LOCAL} == {"list", "cat", "extract", "verify", "repack"}


@pytest.mark.integration
def test_the_deep_example_of_the_page_prints_what_stands_below_it(folder: Path, world: World) -> None:
    (example,) = [example for example in EXAMPLES if "s3://" in example[0]]
    key = "2026/11/23/16/bundle-6f1b2c3d.gz"
    data = (folder / "bundle.gz").read_bytes()
    world.s3.put_object(Bucket=world.distribution, Key=key, Body=data)
    world.dynamodb.put_item(
        TableName=world.table,
        Item={
            "id": {"S": f"{world.distribution}#{key}"},
            "data": {"S": f'{{"bundle": "{key}", "members": 4, "sha256": "{hashlib.sha256(data).hexdigest()}"}}'},
        },
    )

    printed = _run(example[0].replace("s3://distribution/", f"s3://{world.distribution}/"))

    assert printed.replace(world.distribution, "distribution") == example[1]


def test_the_python_of_the_page_runs(folder: Path) -> None:
    scope = _run_python_of_the_page()

    assert scope["text"] == (SAMPLES / ORDERS[0]).read_bytes()
    assert scope["sizes"] == {
        **{key: (SAMPLES / key).stat().st_size for key in ORDERS},
        "../orders/order.json": len(scope["text"]),
    }
    assert scope["orders"][0][0] == sum(len((SAMPLES / key).read_bytes().splitlines()) for key in [ORDERS[0], *ORDERS])
    assert scope["by_bucket"] == [("source", 4, sum(scope["sizes"].values()))]


def test_the_python_of_the_page_reads_the_bundle_of_the_readmes_first_command(
    samples_bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bundle.gz").write_bytes(samples_bundle)
    monkeypatch.chdir(tmp_path)

    scope = _run_python_of_the_page()

    assert len(scope["members"]) == 122
    assert scope["orders"][0][0] == len(gzip.decompress(samples_bundle).splitlines()) - 1  # the note is no JSON


@pytest.mark.parametrize("command", ["list", "cat", "extract", "verify", "repack"])
def test_the_example_at_the_end_of_each_help_runs(command: str, folder: Path) -> None:
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
    assert len(blocks) == 8
    return scope


def _run(command: str) -> str:
    """What a command prints, data first; the page's fence needs a line of its own."""
    done = CliRunner().invoke(app, shlex.split(command)[1:])
    assert done.exception is None or isinstance(done.exception, SystemExit)
    printed = done.stdout + done.stderr
    return printed if printed.endswith("\n") else printed + "\n"


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
