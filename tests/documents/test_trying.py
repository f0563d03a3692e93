"""The page on trying it shows what happens: its blocks are run, one after the other, in two shells."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from typer.testing import CliRunner

from aggregator.commands.main import app
from tests.support import ROOT
from tests.support.workers import until

pytestmark = pytest.mark.once

PAGE = (ROOT / "docs" / "trying.md").read_text(encoding="utf-8")
SERVING, READING, LOOKING, TRYING, WATCHING = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL)
(PUTTING,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
(PRINTED,) = re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)
VARIABLES = set(re.findall(r"`([A-Z_]+)`", "".join(re.findall(r"^\|.*\|$", PAGE, flags=re.MULTILINE))))


@pytest.mark.integration
def test_what_the_page_shows_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # it keeps credentials, maybe those of another test
    with _running(SERVING):
        variables = _read()
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

        exec(compile(PUTTING, "docs/trying.md", "exec"), {})
        until(lambda: list(Path("bundles").rglob("*.gz")))
        *commands, printing = LOOKING.splitlines()
        statuses = [_status(command) for command in [*commands, *TRYING.splitlines()]]
        printed = _bash(printing)

    assert set(variables) == VARIABLES
    assert statuses == [0, 0, 0, 0, 0, 0, 1]  # the doctor finds what this AWS lacks
    assert printed == PRINTED


@pytest.mark.integration
def test_the_page_watches_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with _running(WATCHING):
        _read()
        (tmp_path / "inbox" / "a.json").write_bytes(b"{}")
        until(lambda: list(Path("bundles").rglob("*.gz")))


@contextmanager
def _running(block: str) -> Iterator[None]:
    """The first shell, which runs until Ctrl-C, and then ends with exit status 0."""
    script = re.sub(r"^aggregator", f"exec {shlex.quote(sys.executable)} -m aggregator", block, flags=re.MULTILINE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(["bash", "-euc", script], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


def _read() -> dict[str, str]:
    """What the lines for the second shell set there, as soon as they are all there."""
    until(lambda: Path("here.sh").is_file() and "DEAD_LETTER" in Path("here.sh").read_text("utf-8"))
    dumped = f"{shlex.quote(sys.executable)} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    found: dict[str, str] = json.loads(_bash(READING + dumped, PATH=os.environ["PATH"]))
    return {name: value for name, value in found.items() if name.startswith("AWS_") or name in VARIABLES}


def _bash(script: str, **environment: str) -> str:
    return subprocess.run(
        ["bash", "-euc", script], env=environment or None, stdout=subprocess.PIPE, text=True, check=True
    ).stdout


def _status(command: str) -> int:
    return CliRunner().invoke(app, shlex.split(os.path.expandvars(command))[1:]).exit_code
