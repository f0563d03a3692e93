"""The documents do not promise what is not there; the README's two commands are run by `.ci/run` on a fresh clone."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.pipeline.settings import Settings
from aggregator.pipeline.telemetry import LOG_EVENTS
from aggregator.reader import Bundle
from fixtures import generate
from tests.support import ROOT

pytestmark = pytest.mark.once

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "*/README.md")
    for path in ROOT.glob(pattern)
    if not path.relative_to(ROOT).parts[0].startswith(".")
)
"""The pages that people read; the decisions are frozen."""

DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
DOCUMENTS = [*PAGES, *DECISIONS]

MODULES = sorted((ROOT / "aggregator").rglob("*.py"))

FORBIDDEN = (
    r"(?<!there )\b(?:is|are) none\b",
    r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b|less\b|better\b)",
    r"\banew\b|\bfor ever\b|\bhence\b|\bthereof\b|\bwhoever\b|\bwherever\b",
    r"\bmend(?:s|ed|ing)?\b",
    r"\bin vain\b",
    r"\bin the place of\b",
    r"\bnobody foresaw\b",
    r"\b(?:is|are|was|were|be|been) told\b|\btell(?:s|ing)? (?:of|which|what|how|whether)\b",
    r"\blies? (?:in|under|behind|among|below|beside|there)\b",
    r"\bbehind (?:it|the text|its text|a text)\b",
    r"(?<=[.!] )What (?!if\b)",
)
"""Regular expressions of what plain prose does not say; they are looked for without regard to case."""


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_of_a_document_resolves(document: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", _without_blocks(document.read_text(encoding="utf-8")))

    relative = [link for link in links if not re.match(r"https?:", link)]
    assert [link for link in relative if not _resolves(link, document)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_names_files_and_tests_by_links(page: Path) -> None:
    """What is in backticks and not a link cannot be clicked; commands and names of settings are no files."""
    text = _without_blocks(page.read_text(encoding="utf-8"))
    named = re.findall(r"(?<!\[)`([\w./-]+[/.][\w./-]+|test_\w+)`(?!\])", text)

    assert [name for name in named if _is_file(name, page) or name.startswith("test_")] == []
    assert set(re.findall(r"\[`(test_\w+)`\]", text)) <= _tests()


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.name)
def test_a_file_or_a_test_that_a_decision_names_is_there(decision: Path) -> None:
    text = decision.read_text(encoding="utf-8")
    files = re.findall(r"`((?:aggregator|tests|fixtures|docs|contracts|deploy)/[\w./-]+)", text)
    tests = re.findall(r"::(test_\w+)", text)

    missing = [name for name in files if not any(ROOT.glob(name.rstrip("./") + "*"))]
    assert missing == []
    assert set(tests) <= _tests()


def test_the_architecture_names_every_module_and_functions_that_are_there() -> None:
    page = ROOT / "docs" / "architecture.md"
    text = page.read_text(encoding="utf-8")
    (tree,) = re.findall(r"```text\n(aggregator/\n.*?)```", text, flags=re.DOTALL)
    modules = [path for path in (ROOT / "aggregator").rglob("[!_]*.py") if path.parent.name != "commands"]
    named = re.findall(r"\]\((\.\./aggregator/[\w/]+\.py)\) `([\w.]+)`", text)

    assert {path.stem for path in modules} <= set(re.findall(r"\w+", tree))
    assert len(named) >= 10
    assert [(module, name) for module, name in named if name not in _defined(page.parent / module)] == []


def test_the_index_of_the_pages_names_each_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {
        (index.parent / link.partition("#")[0]).resolve()
        for link in re.findall(r"\]\(([^)\s]+)\)", index.read_text("utf-8"))
    }

    assert {path for path in PAGES if path not in linked} <= {index}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_begins_with_who_it_is_for_and_ends_with_where_to_go_next(page: Path) -> None:
    paragraphs = page.read_text(encoding="utf-8").strip().split("\n\n")

    assert re.search(r"^For |This page is for ", paragraphs[1])
    assert re.match(r"Next: .*\]\(", paragraphs[-1], flags=re.DOTALL)


@pytest.mark.parametrize("document", [*PAGES, *MODULES], ids=lambda path: str(path.relative_to(ROOT)))
def test_prose_is_plain(document: Path) -> None:
    assert [fault for text in _texts(document) for fault in _faults(text)] == []


@pytest.mark.parametrize(
    ("name", "text", "faults"),
    [
        ("page.md", "The record is written\nanew.", ["record is written anew."]),
        ("page.md", "There is no record. It is no longer there.", []),
        ("page.md", 'S3 answers "it is none", or `nobody foresaw`.\n\n```text\nanew\n```\n', []),
        ("module.py", 'raise Error("it is no bundle", why="a \'key\' is missing")', ["it is no bundle"]),
        ("module.py", "anew = 1  # anew", []),
    ],
)
def test_what_is_not_plain_is_found_in_prose_and_not_in_quotations(
    tmp_path: Path, name: str, text: str, faults: list[str]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    assert [fault for text in _texts(tmp_path / name) for fault in _faults(text)] == faults


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
    hour = tmp_path / "bundles/2026/11/23/16"
    hour.mkdir(parents=True)
    (hour / "bundle-78733e43.gz").write_bytes(generate.golden("bundle.gz"))
    monkeypatch.setitem(generate.GOLDEN, "another.gz", ("lines", 1, {"another": b""}))
    (hour / "bundle-a-slow-machine-makes-two.gz").write_bytes(generate.golden("another.gz"))
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


def test_log_events_that_pages_name_are_said() -> None:
    nouns = "|".join({name.split(".")[0] for name in LOG_EVENTS})
    named = {
        name
        for document in PAGES
        for name in re.findall(rf"`((?:{nouns})\.(?!py|gz)[a-z_]+)`", document.read_text("utf-8"))
    }

    assert named <= set(LOG_EVENTS)


def _texts(path: Path) -> Iterator[str]:
    """What a file says to people: a page without its blocks of code; the strings of a module, and help of commands."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield _without_blocks(text)
        return
    tree = ast.parse(text)
    comments = (
        set()
        if path.parent.name == "commands"
        else {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    )
    literals = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in comments)
    yield from (node.value for node in literals if isinstance(node.value, str))


def _faults(text: str) -> list[str]:
    """Where prose is not plain, with some words around; code and quotations are somebody else's words."""
    prose = " ".join(re.sub(r"`[^`]*`|\"[^\"]{1,300}\"", "…", text).split())
    found = (match for pattern in FORBIDDEN for match in re.finditer(pattern, prose, re.IGNORECASE))
    return [prose[max(0, match.start() - 18) : match.end() + 10].strip() for match in found]


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _is_file(name: str, page: Path) -> bool:
    return any(name.strip("./") and (folder / name).exists() for folder in (ROOT, page.parent))


def _resolves(link: str, document: Path) -> bool:
    """Whether GitHub finds what a relative link names: a file or folder of ours and, in a page, the heading."""
    name, _, anchor = link.partition("#")
    target = (document.parent / name).resolve() if name else document
    if not target.exists() or not target.is_relative_to(ROOT.resolve()):
        return False
    return not anchor or (target.suffix == ".md" and anchor in _anchors(target.read_text(encoding="utf-8")))


def _anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", _without_blocks(text), flags=re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


def _defined(module: Path) -> set[str]:
    """The functions and classes of a module, and the methods of its classes."""
    names: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


@functools.cache
def _tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
