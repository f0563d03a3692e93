"""Calls of `aggregator contract`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from aggregator.commands.main import app
from tests.support.contract_command import Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **given: CliRunner().invoke(app, ["contract", *arguments], **given)


@pytest.fixture
def judged(run: Run, tmp_path: Path) -> Callable[..., Result]:
    """Judge one file with this content."""

    def judge(content: Any, *arguments: str, name: str = "message.json") -> Result:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / name).write_bytes(raw)
        return run("validate", name, *arguments)

    return judge
