"""
Which alarm goes off in which incident, and after how many minutes: `docs/operations.md` has the table.

`python -m tests.deploy.test_incidents` writes the table anew.
"""

import re

import pytest

from tests.support import ROOT
from tests.support.alarms import alarms, rings
from tests.support.incidents import BEGINS, INCIDENTS, QUIET, Incident, measured
from tests.support.stack import resources

pytestmark = pytest.mark.once

DOCUMENT = ROOT / "docs" / "operations.md"
IN_TIME = 15
_TABLE = re.compile(r"<!-- incidents -->\n(?:\n\|.*?\n)?(?=\n[^|])", re.DOTALL)


@pytest.mark.parametrize("incident", INCIDENTS, ids=lambda incident: incident.name)
def test_an_incident_rings_within_fifteen_minutes_or_the_table_says_why_not(incident: Incident) -> None:
    minutes = min(_alarms_of(incident).values(), default=None)

    in_time = minutes is not None and minutes <= IN_TIME
    assert in_time is (incident.later == "")


@pytest.mark.parametrize("quiet", QUIET, ids=lambda quiet: quiet.name)
def test_what_is_no_incident_rings_nothing(quiet: Incident) -> None:
    assert _alarms_of(quiet) == {}


def test_each_alarm_but_those_that_count_days_rings_in_some_incident() -> None:
    named = {each.name for each in alarms(resources())}

    rung = {name for incident in INCIDENTS for name in _alarms_of(incident)}

    assert named - rung == {"bundles", "repeats", "unknown-events", "replication-latency"}


def test_the_table_in_the_runbook_is_what_the_incidents_do() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert text.count("<!-- incidents -->") == 1
    assert written(text) == text


def written(text: str) -> str:
    """The document with the table that the incidents make."""
    return _TABLE.sub(lambda _: "<!-- incidents -->\n\n" + _table(), text)


def _table() -> str:
    rows = ["| incident | alarm, minutes after it began | later alarms |", "|---|---|---|"]
    for incident in INCIDENTS:
        found = sorted(_alarms_of(incident).items(), key=lambda each: each[1])
        first = f"[{found[0][0]}](#{found[0][0]}), {found[0][1]}" if found else "none in six hours"
        why = f". {incident.later[0].upper()}{incident.later[1:]}" if incident.later else ""
        later = ", ".join(f"[{name}](#{name}), {minutes}" for name, minutes in found[1:])
        rows.append(f"| {incident.name} | {first}{why} | {later} |")
    return "\n".join(rows) + "\n"


def _alarms_of(incident: Incident) -> dict[str, int]:
    """The alarms that go off, and after how many minutes at the latest, wherever in a period the incident begins."""
    latest: dict[str, int] = {}
    for offset in range(5):
        series, begins = measured(incident, offset=offset), BEGINS + offset
        for alarm in alarms(resources()):
            if minute := rings(alarm, series, until=BEGINS + incident.minutes):
                latest[alarm.name] = max(latest.get(alarm.name, 0), minute - begins)
    return latest


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
