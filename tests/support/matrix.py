"""
The kill matrix: the handler in a real process, struck at every AWS call it makes, in five ways, then delivered again.

    python -m tests.support.matrix        # prints the table of the README, for this build and for the textbook's

After each strike the messages are delivered as SQS would until all are acknowledged, in the same batch or split over
two. Then every source is looked for in all versions of the distribution bucket: once, no more and no less.
"""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from aggregator.runtimes.local.embedded import EmbeddedAws
from tests.support.proxy import MODES, Proxy, Strike
from tests.support.trial import invoke
from tests.support.world import World, sqs_record

OURS, TEXTBOOK = "aggregator.app", "benchmarks.textbook"

SECONDS = 12
LAPSED = 60
"""Seconds after which every claim of an invocation of `SECONDS` has lapsed."""

OBJECTS = {f"in/{at}.json": f'{{"at": {at}}}\n'.encode() for at in range(5)}
MOST_DELIVERIES = 8


@dataclass(frozen=True)
class Trial:
    """Which call of which delivery is struck and how; whether the batch is then split; how the ledger is written."""

    strikes: tuple[Strike | None, ...]
    split: bool
    writes: str = "statements"

    def __str__(self) -> str:
        struck = [
            f"delivery {at}, call {strike.number}: {strike.mode}" for at, strike in enumerate(self.strikes) if strike
        ]
        return ", ".join([*struck, "split over two" if self.split else "in one batch"])


class Outcome(Counter[str]):
    """How often each source was published; and how the deliveries went, as a story."""

    story: str = ""


def outcomes(embedded: str, monkeypatch: pytest.MonkeyPatch, module: str, trials: Sequence[Trial]) -> list[Outcome]:
    """What became of each trial, four at a time."""
    worlds = [World(monkeypatch, embedded, LEDGER_WRITES=trial.writes) for trial in trials]
    with ThreadPoolExecutor(4) as threads:
        return list(threads.map(lambda pair: _outcome(embedded, module, *pair), zip(worlds, trials, strict=True)))


def _outcome(embedded: str, module: str, world: World, trial: Trial) -> Outcome:
    """Deliver until all messages are acknowledged; then count what was published."""
    for key, body in OBJECTS.items():
        world.put(key, body)
    outcome, waiting, story = Outcome(), [*OBJECTS, "missing"], list[str]()
    for delivery in range(MOST_DELIVERIES):
        strike = trial.strikes[delivery] if delivery < len(trial.strikes) else None
        middle = len(waiting) // 2 if trial.split and strike is None else 0
        left: list[str] = []
        for batch in (waiting[:middle], waiting[middle:]):
            if batch:
                left += _delivered(embedded, module, world, batch, strike, delivery, story)
        waiting = left
        if set(waiting) <= {"missing"}:
            break
    outcome.update({key: len(bodies) for key, bodies in _published(world, module).items()})
    outcome.update({"unacknowledged": len(set(waiting) - {"missing"})})
    if module == OURS:
        outcome.update(_audited(world))
    outcome.story = "\n".join(story)
    return outcome


def _delivered(
    embedded: str,
    module: str,
    world: World,
    keys: Sequence[str],
    strike: Strike | None,
    delivery: int,
    story: list[str],
) -> list[str]:
    event = {"Records": [sqs_record(key, world.body(key)) for key in keys]}
    with Proxy(embedded) as proxy:
        run = invoke(
            module,
            environment(world, proxy.url),
            event,
            seconds=SECONDS,
            later=delivery * LAPSED,
            started=lambda pid: proxy.strike(strike, pid),
        )
    failed = list(keys) if run.answer is None else [item["itemIdentifier"] for item in run.answer["batchItemFailures"]]
    story.append(f"{delivery}: {strike}, {run.seconds:.1f} s, calls {proxy.calls}, answer {run.answer}")
    if strike is not None and "kill" not in strike.mode and run.answer is None:
        story.append("did not end by itself")
        failed.append("did not end by itself")
    return failed


def _audited(world: World) -> Outcome:
    """What the independent auditor finds wrong, on the clock of the last delivery: nothing, if all is well."""
    totals, findings = world.verdict(later=MOST_DELIVERIES * LAPSED)
    return Outcome({f"audit: {finding['finding']}": 1 for finding in findings} or {"audited": totals.get("once", 0)})


def _published(world: World, module: str) -> dict[str, list[bytes]]:
    if module == "aggregator.app":
        return world.published()
    return world.published_lines(OBJECTS)


def calls(
    embedded: str, monkeypatch: pytest.MonkeyPatch, module: str, *strikes: Strike, writes: str = "statements"
) -> list[str]:
    """The calls of an undisturbed delivery, after those that are struck."""
    world = World(monkeypatch, embedded, LEDGER_WRITES=writes)
    for key, body in OBJECTS.items():
        world.put(key, body)
    event = {"Records": [sqs_record(key, world.body(key)) for key in [*OBJECTS, "missing"]]}
    for delivery, strike in enumerate([*strikes, None]):
        with Proxy(embedded) as proxy:
            invoke(
                module,
                environment(world, proxy.url),
                event,
                seconds=SECONDS,
                later=delivery * LAPSED,
                started=lambda pid, strike=strike, proxy=proxy: proxy.strike(strike, pid),  # type: ignore[misc]
            )
    return proxy.calls


def environment(world: World, url: str) -> dict[str, str]:
    """The environment of a process that works in `world` and reaches it at `url`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_ENDPOINT")}
    return {**kept, **world.environment, "AWS_ENDPOINT_URL": url, "READ_CONCURRENCY": "2"}


def lost(outcome: Outcome) -> bool:
    """Whether a source is in no bundle."""
    return any(not outcome[key] for key in OBJECTS)


def repeated(outcome: Outcome) -> bool:
    """Whether a source is in bundles more than once."""
    return any(outcome[key] > 1 for key in OBJECTS)


def table(embedded: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows of the README: how many strikes lost or repeated files, in this build and in the textbook's."""
    rows = ["| struck at every call in turn | this build: lost, twice | textbook: lost, twice |", "|---|---|---|"]
    positions = {module: range(len(calls(embedded, monkeypatch, module))) for module in (OURS, TEXTBOOK)}
    for mode in MODES:
        cells = []
        for module, numbers in positions.items():
            trials = [Trial((Strike(number, mode),), split) for number in numbers for split in (False, True)]
            struck = outcomes(embedded, monkeypatch, module, trials)
            cells.append(f"{sum(map(lost, struck))}, {sum(map(repeated, struck))} of {len(struck)}")
        rows.append(f"| {mode} | {' | '.join(cells)} |")
        sys.stderr.write(rows[-1] + "\n")
    return rows


if __name__ == "__main__":
    with EmbeddedAws(guarded=False) as endpoint_url, pytest.MonkeyPatch.context() as patch:
        sys.stdout.write("\n".join([*table(endpoint_url, patch), ""]))
