"""
The rules for Prometheus and the dashboard for Grafana ask for what the worker serves.

Neither promtool nor Grafana is here: a rule is compared with its alarm in the template, and a query is read as far as
its names. That Prometheus parses the queries was checked by hand, with the grammar of its own editor.
"""

import json
import re
from collections.abc import Iterator
from functools import cache
from itertools import combinations
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from aggregator.pipeline.telemetry import prometheus_name
from aggregator.runtimes.worker.exposition import LABELS, Exposition
from tests.support import ROOT
from tests.support.alarms import Alarm, alarms
from tests.support.stack import resources

pytestmark = pytest.mark.once

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "worker.json").read_text(encoding="utf-8"))
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
ALERTS: dict[str, Any] = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
PAGE = (ROOT / "docs" / "worker.md").read_text(encoding="utf-8")

COUNTED = ("retries", "repeats", "function-errors")
"""Rules that count periods, as their alarms do."""


@pytest.mark.parametrize("query", [*QUERIES, *(rule["expr"] for rule in ALERTS.values())])
def test_a_query_names_only_what_the_worker_serves(query: str) -> None:
    served, labels = _served()

    assert _metrics(query) != set()
    assert _metrics(query) - set(served) == set()
    assert _labels(query) - {"job", "instance"} <= labels
    assert [query.count(each) for each in "([{"] == [query.count(each) for each in ")]}"]


def test_a_query_that_names_a_value_of_a_label_names_one_that_is_counted() -> None:
    named = re.findall(r'(\w+)="(\w+)"', " ".join([*QUERIES, *(rule["expr"] for rule in ALERTS.values())]))

    assert named == [("reason", "unknown_event")]
    assert {value for _, value in named} <= set(LABELS["Failures"][1])


def test_each_alarm_of_the_template_is_a_rule_or_the_page_says_that_it_stays_in_cloudwatch() -> None:
    ours = {name for name in ALERTS if not name.startswith("worker-")}
    (row,) = re.findall(r"^\| in CloudWatch \|(.*)\|$", PAGE, flags=re.MULTILINE)

    elsewhere = set(re.findall(r"\[([\w-]+)\]", row))
    assert ours | elsewhere == set(_alarms())
    assert ours & elsewhere == set()
    assert ours | {"worker-processes", "worker-polls", "worker-absent"} == set(ALERTS)


@pytest.mark.parametrize("name", COUNTED)
def test_a_rule_counts_as_many_periods_as_its_alarm(name: str) -> None:
    alarm, query = _alarms()[name], " ".join(ALERTS[name]["expr"].split())

    minutes = alarm.periods * alarm.period
    assert query.startswith("count_over_time(")
    assert query.endswith(f")[{minutes}m:{alarm.period}m]) >= {alarm.needed}")
    assert set(re.findall(r"\)\[(\w+)\]|_total\[(\w+)\]", query)) == {("", f"{alarm.period}m")}
    assert f"{_limit(alarm)} )[" in query


@pytest.mark.parametrize("name", ["unknown-events", "rejections"])
def test_a_rule_of_one_period_has_the_limit_of_its_alarm(name: str) -> None:
    alarm, query = _alarms()[name], ALERTS[name]["expr"]

    assert (alarm.periods, alarm.needed) == (1, 1)
    assert query.endswith(f"[{alarm.period}m])) {_limit(alarm)}")


def test_the_rule_without_progress_waits_as_long_as_its_alarm() -> None:
    alarm, query = _alarms()["no-progress"], ALERTS["no-progress"]["expr"]

    assert alarm.periods * alarm.period == 10
    assert (query.count("[10m:1m]"), query.count("[10m]")) == (1, 1)


def test_a_rule_has_the_fields_that_prometheus_knows_and_a_runbook_that_is_there() -> None:
    assert {key for group in RULES["groups"] for key in group} == {"name", "rules"}
    assert {key for rule in ALERTS.values() for key in rule} <= {"alert", "expr", "for", "labels", "annotations"}
    for rule in ALERTS.values():
        assert set(rule["annotations"]) == {"summary", "runbook"}
        page, _, heading = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^##+ (.*)$", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert heading in {each.lower().replace(" ", "-") for each in headings}


def test_the_dashboard_shows_what_the_rules_watch() -> None:
    shown = {name for query in QUERIES for name in _metrics(query)}

    watched = {name for rule in ALERTS.values() for name in _metrics(rule["expr"])}
    assert watched - shown == set()
    assert {name for panel in PANELS for name in _alerts_named(panel)} == set(ALERTS) - {"worker-absent"}


def test_the_dashboard_is_one_that_grafana_imports_into_any_data_source() -> None:
    assert DASHBOARD["id"] is None
    assert DASHBOARD["schemaVersion"] >= 36  # from then on a data source is an object
    assert {"uid", "title", "tags", "time", "refresh", "templating", "annotations", "panels"} <= set(DASHBOARD)
    (source, job) = DASHBOARD["templating"]["list"]
    assert (source["type"], source["query"], job["type"]) == ("datasource", "prometheus", "query")
    chosen = {"type": "prometheus", "uid": f"${{{source['name']}}}"}
    assert [each for each in _sources() if each != chosen] == []
    assert {variable for query in QUERIES for variable in re.findall(r"\$(\w+)", query)} == {
        job["name"],
        "__rate_interval",
    }


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    places = [panel["gridPos"] for panel in panels]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert [(one, other) for one, other in combinations(places, 2) if _overlap(one, other)] == []
    for panel in PANELS:
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        assert {"datasource", "fieldConfig", "options", "description"} <= set(panel)


def test_the_page_names_metrics_as_they_are_served() -> None:
    named = re.findall(r"`([A-Z]\w+)` is `(aggregator_\w+)`", PAGE)
    worker = set(re.findall(r"`(aggregator_worker_\w+)`", PAGE))
    (scrape,) = re.findall(r"```yaml\n(scrape_configs:.*?)```", PAGE, flags=re.DOTALL)

    assert len(named) >= 6
    assert [pair for pair in named if prometheus_name(pair[0]) != pair[1]] == []
    assert worker == {name for name in _served()[0] if name.startswith("aggregator_worker_")}
    assert set(yaml.safe_load(scrape)["scrape_configs"][0]) == {"job_name", "static_configs"}


@cache
def _served() -> tuple[frozenset[str], set[str]]:
    """The names of all series of the worker, and of their labels."""
    process = {"healthy": True, "in_hand": 0, "seconds_since_poll": 1.0}
    _, text = Exposition(lambda: {"restarts": 0, "died": 0, "processes": [process]}).page("")
    samples = [sample for family in text_string_to_metric_families(text.decode()) for sample in family.samples]
    return frozenset(sample.name for sample in samples), {name for sample in samples for name in sample.labels}


@cache
def _alarms() -> dict[str, Alarm]:
    return {alarm.name: alarm for alarm in alarms(resources())}


def _limit(alarm: Alarm) -> str:
    return f"{'>=' if 'OrEqual' in alarm.comparison else '>'} {alarm.threshold:.0f}"


def _metrics(query: str) -> set[str]:
    return set(re.findall(r"\b(?:aggregator|process|python)_\w+", query))


def _labels(query: str) -> set[str]:
    grouped = {name.strip() for names in re.findall(r"\bby \(([^)]*)\)", query) for name in names.split(",")}
    return grouped | set(re.findall(r"(\w+)=~?\"", query))


def _alerts_named(panel: dict[str, Any]) -> set[str]:
    """The rules that a panel's description names."""
    named = re.findall(r"[a-z]+(?:-[a-z]+)?", panel["description"].partition("Alert")[2])
    return set(named) & set(ALERTS)


def _sources() -> Iterator[Any]:
    yield from (panel["datasource"] for panel in PANELS)
    yield from (target["datasource"] for panel in PANELS for target in panel["targets"])
    yield DASHBOARD["templating"]["list"][1]["datasource"]


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
