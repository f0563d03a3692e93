"""
`docs/telemetry.md` has tables of every log event, metric, span and attribute, made from the code.

`python -m tests.documents.test_telemetry_page` writes them again.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from aggregator.contracts.gate.publishing import log_events, telemetry
from aggregator.pipeline.telemetry import DIMENSIONS, prometheus_name
from tests.support import ROOT

pytestmark = pytest.mark.once

PAGE = ROOT / "docs" / "telemetry.md"
_TABLES = re.compile(r"<!-- telemetry -->\n.*?(?=\nNext: )", re.DOTALL)


def test_the_tables_of_the_page_are_made_from_the_code() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert text.count("<!-- telemetry -->") == 1
    assert written(text) == text


def test_the_dimensions_in_the_table_are_those_that_are_counted_by() -> None:
    tree = ast.parse((ROOT / "aggregator" / "pipeline" / "report.py").read_text(encoding="utf-8"))
    counted = [
        tuple(ast.literal_eval(argument) for argument in node.args[:2])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "add_counts"
    ]

    assert dict(counted) == DIMENSIONS


def written(text: str) -> str:
    """The page with its tables made again."""
    tables = "\n".join(_tables())
    return _TABLES.sub(lambda _: f"<!-- telemetry -->\n\n{tables}", text)


def _tables() -> Iterator[str]:
    document = telemetry()
    yield "## Log events\n\n| event | from | meaning |\n|---|---|---|"
    for module, events in log_events().items():
        link = f"[{module.rpartition('/')[2]}](../aggregator/{module})"
        yield from (f"| `{name}` | {link} | {meaning} |" for name, meaning in events.items())
    yield f"\n## Metrics\n\nThe namespace is `{document['namespace']}`.\n"
    yield "The worker serves them to [Prometheus](worker.md#metrics-and-logs) by the names in the last column.\n"
    yield "| metric | unit | dimensions | meaning | in Prometheus |\n|---|---|---|---|---|"
    for name, metric in document["metrics"].items():
        dimensions = ", ".join(f"`{one}`" for one in metric["dimensions"])
        yield f"| `{name}` | {metric['unit']} | {dimensions} | {metric['description']} | `{prometheus_name(name)}` |"
    yield "\n## Spans\n\n| span | meaning |\n|---|---|"
    yield from (f"| `{name}` | {meaning} |" for name, meaning in document["spans"].items())
    yield "\n## Attributes of spans\n\n| attribute | spans | meaning |\n|---|---|---|"
    for name, attribute in document["span_attributes"].items():
        spans = ", ".join(f"`{one}`" for one in attribute["spans"])
        yield f"| `{name}` | {spans} | {attribute['description']} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
