"""The documents do not promise what is not there; the README's two commands are run by `.ci/run` on a fresh clone."""

import ast
import functools
import re
from pathlib import Path

import pytest

from aggregator.pipeline.settings import Settings
from aggregator.pipeline.telemetry import LOG_EVENTS
from aggregator.reader import Bundle
from fixtures import generate
from tests.support import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))


def test_the_first_command_stands_by_line_twenty_and_the_whole_is_short() -> None:
    lines = README.splitlines()

    assert lines.index("```sh") < 20
    assert len(lines) <= 150


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "Justfile", ".ci/run", "deploy/Dockerfile"])
def test_a_lock_is_installed_as_it_stands(document: str) -> None:
    """Its resolver takes the newest `coverage[toml]` where the lock has `coverage==`: each release of it breaks us."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    installs = [line for line in lines if re.search(r"pip install .*(-r|--requirement) \S+\.lock", line)]

    assert installs
    assert [line for line in installs if not re.search(r"--no-deps .*\.lock", line)] == []


def test_nobody_is_told_to_install_us_by_a_name_that_is_a_strangers_on_the_package_index() -> None:
    suffixes = {".md", ".py", ".toml", ".yaml", ".yml", ".html", ".js", ""}
    folders = ("aggregator", "contracts", "contracts_site", "deploy", "docs")
    below = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    files = [path for path in [*ROOT.iterdir(), *below] if path.is_file() and path.suffix in suffixes]
    install = re.compile(r"pip install[^\n`]*data-aggregator(?!(\[\w+\])? @ git\+)", re.IGNORECASE)

    told = [path.name for path in files if install.search(path.read_text(encoding="utf-8", errors="replace"))]

    assert told == []


def test_every_row_of_what_happens_when_names_a_test_that_exists() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| ") and "`test_" in line]
    named = {name for row in rows for name in re.findall(r"`(test_\w+)`", row)}

    assert len(rows) >= 12
    assert named <= _tests()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_file_or_a_test_that_a_document_names_is_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    files = re.findall(r"`((?:aggregator|tests|fixtures|docs|contracts|deploy)/[\w./-]+)", text)
    tests = re.findall(r"::(test_\w+)", text)

    missing = [name for name in files if not _exists(name)]
    assert missing == []
    assert set(tests) <= _tests()


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.name)
def test_a_decision_has_its_parts_and_one_page(decision: Path) -> None:
    lines = decision.read_text(encoding="utf-8").splitlines()

    assert lines[0].startswith("# ")
    assert lines[2].startswith("**Status:** ")
    assert {"## Context", "## Decision", "## Consequences", "## Refused"} <= set(lines)
    assert len(lines) <= 70


def test_decisions_are_numbered_without_a_gap() -> None:
    assert [path.name[:4] for path in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]


def test_the_table_of_settings_is_the_settings() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \|([^|]*)\|", operations, flags=re.MULTILINE))

    documented = {name.lower(): default.strip().strip("`").replace(",", "") for name, default in rows.items()}
    actual = {
        name: "required" if field.is_required() else "" if field.default is None else str(field.default)
        for name, field in Settings.model_fields.items()
    }
    assert documented == actual


def test_the_readmes_python_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    members = {"orders/08/order 001.json": b"{}"}
    monkeypatch.setitem(generate.GOLDEN, "bundle.gz", ("lines", 1, members))
    (tmp_path / "bundle.gz").write_bytes(generate.golden("bundle.gz"))
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}

    exec(compile(program, "README.md", "exec"), scope)

    assert scope["text"] == b"{}"
    assert isinstance(scope["bundle"], Bundle)


def test_every_document_sends_dead_letters_back_by_the_same_command() -> None:
    texts = {
        path: (ROOT / "docs" / path).read_text("utf-8")
        for path in ("operations.md", "after-a-crash.md", "replaying.md")
    }

    assert {path for path, text in texts.items() if "aggregator redrive" not in text} == set()
    assert {path for path, text in texts.items() if "start-message-move-task" in text} == set()


def test_log_events_that_documents_name_are_said() -> None:
    named = {
        name
        for document in DOCUMENTS
        for name in re.findall(r"`((?:bundle|envelope|invocation|claim|settle)\.[a-z]+)`", document.read_text("utf-8"))
    }

    assert named <= set(LOG_EVENTS)


def _exists(name: str) -> bool:
    if "…" in name or "NNNN" in name:
        return True
    return any(ROOT.glob(name.rstrip("./") + "*"))


@functools.cache
def _tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
