"""
The kill matrix, black box: whatever is struck, each source is published once. `tests/support/matrix.py` says how.

The same matrix over the textbook build shows what it would have lost.
"""

from collections.abc import Sequence

import pytest

from tests.support.matrix import OBJECTS, OURS, TEXTBOOK, Outcome, Trial, calls, lost, outcomes
from tests.support.proxy import MODES, Mode, Strike

pytestmark = [pytest.mark.integration, pytest.mark.chaos]


WRITES = {"statements": "BatchExecuteStatement", "transactions": "TransactWriteItems"}


@pytest.mark.parametrize("writes", WRITES)
@pytest.mark.parametrize("split", [False, True], ids=["in one batch", "split over two"])
@pytest.mark.parametrize("mode", MODES)
def test_struck_at_any_call_each_source_is_published_once(
    embedded: str, monkeypatch: pytest.MonkeyPatch, mode: Mode, writes: str, *, split: bool
) -> None:
    made = calls(embedded, monkeypatch, OURS, writes=writes)
    trials = [Trial((Strike(number, mode),), split, writes) for number in range(len(made))]

    struck = outcomes(embedded, monkeypatch, OURS, trials)

    assert _wrong(trials, struck) == []
    assert {WRITES[writes], "GetObject", "PutObject", "PutItem", "BatchWriteItem"} <= set(made)


@pytest.mark.parametrize("writes", WRITES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", ["before the put", "after the put"])
def test_the_invocation_that_heals_may_be_struck_as_well(
    embedded: str, monkeypatch: pytest.MonkeyPatch, first: str, mode: Mode, writes: str
) -> None:
    made = calls(embedded, monkeypatch, OURS, writes=writes)
    death = Strike(made.index("PutObject"), "kill before" if first == "before the put" else "kill after")
    healing = calls(embedded, monkeypatch, OURS, death, writes=writes)
    trials = [Trial((death, Strike(number, mode)), split=False, writes=writes) for number in range(len(healing))]

    struck = outcomes(embedded, monkeypatch, OURS, trials)

    assert _wrong(trials, struck) == []
    assert {"ListObjectVersions", "BatchGetItem"} <= set(healing)


def test_the_textbook_build_would_have_lost_files(embedded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = calls(embedded, monkeypatch, TEXTBOOK)
    trials = [Trial((Strike(number, mode),), split=False) for number in range(len(made)) for mode in MODES[:2]]

    struck = outcomes(embedded, monkeypatch, TEXTBOOK, trials)

    assert sum(map(lost, struck)) > len(trials) // 2


def _wrong(trials: Sequence[Trial], struck: Sequence[Outcome]) -> list[str]:
    once = Outcome({**dict.fromkeys(OBJECTS, 1), "unacknowledged": 0, "audited": len(OBJECTS)})
    pairs = zip(trials, struck, strict=True)
    return [f"{trial}: {dict(outcome)}\n{outcome.story}" for trial, outcome in pairs if outcome != once]
