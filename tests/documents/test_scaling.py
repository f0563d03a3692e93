"""
`docs/scaling.md` shows what `aggregator plan` prints: each comment with a call is followed by the call and its output,
and each comment with several calls, a line each, by a table of their figures.

`python -m tests.documents.test_scaling` writes the document anew.
"""

import json
import re
import shlex
from functools import cache
from typing import Any

import pytest
from typer.testing import CliRunner

from aggregator.commands.main import app
from tests.support import ROOT

pytestmark = pytest.mark.once

DOCUMENT = ROOT / "docs" / "scaling.md"
_CALL = re.compile(r"<!-- plan: (.*?) -->\n(?:\n```text\n.*?```\n)?", re.DOTALL)

_TABLE = re.compile(r"<!-- plans:\n(.*?)-->\n(?:\n\|.*?\n(?=\n))?", re.DOTALL)
_HEAD = (
    "| settings | objects per bundle | MB of text | tasks | dollars per million objects | per day |\n"
    "|---|---|---|---|---|---|\n"
)


def test_the_tables_of_the_document_are_what_the_command_prints() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert (len(_CALL.findall(text)), len(_TABLE.findall(text))) == (6, 2)
    assert written(text) == text


def test_from_one_to_a_hundred_million_objects_a_day_the_price_of_an_object_never_rises() -> None:
    calls = [line.split(" | ")[1] for line in _TABLE.findall(DOCUMENT.read_text(encoding="utf-8"))[1].splitlines()]

    for runtime in (calls[0::2], calls[1::2]):
        figures = [_figures(call) for call in runtime]
        dollars = [made["dollars_per_million_objects"] for made in figures]
        assert [made["keeps_up"] for made in figures] == [True] * 3
        assert dollars == sorted(dollars, reverse=True)


def written(text: str) -> str:
    """The document with the output of each call behind its comment."""
    text = _CALL.sub(lambda found: f"<!-- plan: {found[1]} -->\n\n```text\n{_printed(found[1])}```\n", text)
    return _TABLE.sub(lambda found: f"<!-- plans:\n{found[1]}-->\n\n{_table(found[1])}", text)


def _printed(call: str) -> str:
    ran = CliRunner().invoke(app, ["plan", *shlex.split(call)])
    assert not ran.stderr
    return f"$ aggregator plan {call}\n{ran.stdout}"


def _table(calls: str) -> str:
    return _HEAD + "".join(_row(*line.split(" | ")) for line in calls.splitlines())


def _row(label: str, call: str) -> str:
    made = _figures(call)
    bundle, dollars = made["bundle"], made["dollars_per_million_objects"]
    tasks = made.get("tasks", {}).get("number", "")
    per_day = dollars * made["workload"]["objects_per_day"] / 1e6
    size = f"{bundle['members']:,.0f} | {bundle['text_bytes'] / 1e6:,.1f}"
    return f"| {label} | {size} | {tasks} | {dollars:,.2f} | {per_day:,.2f} |\n"


@cache
def _figures(call: str) -> dict[str, Any]:
    ran = CliRunner().invoke(app, ["plan", "--json", *shlex.split(call)])
    assert not ran.stderr
    figures: dict[str, Any] = json.loads(ran.stdout)
    return figures


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
