"""`aggregator --version` names the commit where it is known, and nothing where it is not."""

import json
import subprocess
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from aggregator.commands.version import version


class Installed(Distribution):
    """A distribution of version 1.2 with what pip recorded of its origin."""

    def __init__(self, origin: dict[str, Any] | None) -> None:
        self._origin = origin

    @property
    def version(self) -> str:
        return "1.2"

    def read_text(self, filename: str) -> str | None:
        return json.dumps(self._origin) if self._origin and filename == "direct_url.json" else None

    def locate_file(self, path: Any) -> Any:
        raise AssertionError(path)


@pytest.fixture
def checkout(tmp_path: Path) -> dict[str, Any]:
    folder = tmp_path / "a checkout"
    git = ["git", "-C", str(folder), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    subprocess.run(
        [*git, "commit", "-q", "--allow-empty", "-m", "m", "--date", "2026-01-02T03:04:05Z"],
        check=True,
        env={"PATH": "/usr/bin:/bin", "GIT_COMMITTER_DATE": "2026-01-02T03:04:05Z"},
    )
    return {"url": folder.as_uri(), "dir_info": {"editable": True}}


def test_a_release_is_its_number() -> None:
    assert version(Installed(None)) == "1.2"


def test_what_was_installed_from_a_repository_names_its_commit() -> None:
    origin = {"url": "https://example.com/a.git", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef" * 2}}

    assert version(Installed(origin)) == "1.2 (commit 0123456789ab)"


def test_a_checkout_names_its_commit_and_date(checkout: dict[str, Any]) -> None:
    assert version(Installed(checkout)).endswith(", 2026-01-02)")


def test_a_checkout_without_git_is_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}

    assert version(Installed(origin)) == "1.2"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert version(Installed(origin)) == "1.2"
