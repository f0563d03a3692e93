"""Every promise of the threat model names a test, and that test is in the file that the link names."""

import ast
import re

import pytest

from tests.support import ROOT

pytestmark = pytest.mark.once

PAGE = ROOT / "docs" / "threat-model.md"

ROWS = [
    row
    for table in re.findall(
        r"^\| promise \| test \|\n\|---\|---\|\n((?:\|.*\n)+)", PAGE.read_text("utf-8"), re.MULTILINE
    )
    for row in table.splitlines()
]


def test_every_promise_names_a_test_that_is_where_it_says() -> None:
    named = [re.fullmatch(r"\| .+ \| \[`(test_\w+)`\]\(([^)]+)\) \|", row) for row in ROWS]

    assert len(ROWS) >= 25
    assert [row for row, found in zip(ROWS, named, strict=True) if found is None] == []
    assert [found[1] for found in named if found and found[1] not in _tests(found[2])] == []


def _tests(link: str) -> set[str]:
    tree = ast.parse((PAGE.parent / link).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
