"""The queries of docs/log-queries.md ask for what the handler really says: each field is in a line of its event."""

import re

import pytest

from aggregator.pipeline.telemetry import LOG_EVENTS
from tests.support import ROOT
from tests.support.world import World, log_lines

pytestmark = pytest.mark.once

PAGE = (ROOT / "docs" / "log-queries.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"```text\n(.*?)```", PAGE, flags=re.DOTALL)

INSIGHTS = {"@timestamp", "@message"}
"""Fields that CloudWatch Logs Insights adds ("Supported logs and discovered fields")."""

_WORDS = {"as", "by", "asc", "desc", "bin", "sum", "avg", "count", "latest"}


@pytest.mark.integration
def test_every_field_of_a_query_is_in_a_line_of_its_event(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.put_all({"a": b"1", "cut.gz": b"\x1f\x8b\x08nonsense"})
    world.deliver(["a", "gone", "cut.gz"])
    world.deliver_bodies({"unknown": '{"source": "aws.s3", "detail-type": "New"}'})
    world.deliver_bodies({"retried": world.body("b")}, seconds=0.1)

    said = {line["message"]: set(line) for line in log_lines(capsys.readouterr().out) if "message" in line}

    asked = [(event, field) for query in QUERIES for event in _events(query) for field in _fields(query)]
    assert len(asked) > 30
    assert {(event, field) for event, field in asked if field not in said[event] | INSIGHTS} == set()


def test_every_event_that_is_asked_for_is_one_that_is_said() -> None:
    asked = {event for query in QUERIES for event in _events(query)}

    assert {"invocation.finished", "envelope.rejected", "envelopes.retried", "bundle.written"} <= asked
    assert asked <= set(LOG_EVENTS)


def _events(query: str) -> list[str]:
    return re.findall(r'message = "([a-z.]+)"', query)


def _fields(query: str) -> set[str]:
    """The names that a query uses, but for those it gives itself."""
    text = re.sub(r'"[^"]*"|/[^/]*/|\bbin\(\w+\)|\blimit \d+', " ", query)
    given = set(re.findall(r"\bas (\w+)", text))
    clauses = re.findall(r"\| (?:stats|display|sort) ([^|]*)", text)
    named = {name for clause in clauses for name in re.findall(r"@?[A-Za-z_]+", clause)}
    return named - given - _WORDS
