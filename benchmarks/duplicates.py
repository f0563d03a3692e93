"""
What DynamoDB charges for a batch of which a part was bundled before: counted by the stand-in, and not timed.

    python -m benchmarks.duplicates 1000 50      # in a process of its own: of 1,000 messages 50 come again

A first invocation bundles the objects that are to come again, and some others; what comes again is spread over the
second batch, and only that is counted.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.client import invoked
from benchmarks.events import announcing
from benchmarks.objects import Object
from benchmarks.standin import Standin, controlled
from benchmarks.trials import environment
from benchmarks.workloads import SMALL

SHARES = (0.0, 0.01, 0.5)
"""Of a batch: what was bundled before."""

_SIZE = 4_096
_OTHERS = range(900_000, 900_020)
_SEED = 20_261_128


def charged(messages: int = 1_000) -> list[dict[str, float]]:
    """Write and read units of a batch of so many messages, for each share that comes again."""
    with Standin() as standin:
        return [_charged(standin, messages, round(share * messages)) for share in SHARES]


def main() -> None:
    """Print the units of one batch as a line of JSON; the environment says where the stand-in is."""
    messages, known = map(int, sys.argv[1:])
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        units = _counted(messages, known)
    print(json.dumps(units))


def _charged(standin: Standin, messages: int, known: int) -> dict[str, float]:
    standin.reset()
    command = [sys.executable, "-m", "benchmarks.duplicates", str(messages), str(known)]
    settings = environment({**SMALL.settings, **standin.settings})
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a batch of {messages} with {known} duplicates failed:\n{done.stderr[-2000:]}")
    return {"messages": messages, "duplicates": known, **json.loads(done.stdout)}


def _counted(messages: int, known: int) -> dict[str, float]:
    from aggregator.app import handler  # noqa: PLC0415 - the process that starts this one needs no handler

    objects = [Object(number, _SIZE) for number in range(messages)]
    invoked(handler, announcing([*objects[:known], *(Object(number, _SIZE) for number in _OTHERS)]))
    random.Random(_SEED).shuffle(objects)
    before = _units()
    invoked(handler, announcing(objects))
    return {f"{kind}_units": units - before[kind] for kind, units in _units().items()}


def _units() -> dict[str, Any]:
    return dict(controlled(os.environ, "GET", "stats")["units"])


if __name__ == "__main__":
    main()
