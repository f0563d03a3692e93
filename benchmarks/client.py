"""
One contender on one batch, in a process of its own: what an invocation takes.

    python -m benchmarks.client ours --count 1000 --size 4096

The environment says where AWS is, as for the handler in Lambda. A first invocation with a few other objects warms the
process up; those that follow are measured, and each makes a line of JSON. What the handler prints goes nowhere.
"""

import argparse
import contextlib
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.events import batch, folders

HANDLERS = {
    "ours": ("aggregator.app", "handler"),
    "ours_tls": ("aggregator.app", "handler"),
    "textbook": ("benchmarks.textbook", "handler"),
    "textbook_6": ("benchmarks.textbook", "level_6_handler"),
    "smart_open": ("benchmarks.textbook", "smart_open_handler"),
    "s3fs": ("benchmarks.textbook", "s3fs_handler"),
    "obstore": ("benchmarks.limits", "obstore_handler"),
    "obstore_tls": ("benchmarks.limits", "obstore_handler"),
    "isal": ("benchmarks.limits", "isal_handler"),
}
"""Where each contender's handler is."""

WARM_UP = 20
"""Objects of the first invocation."""

WARM_UP_SIZE = 4096
"""Bytes of each."""

_OTHERS = 900_000
_FUNCTION_SECONDS = 900

Handler = Callable[[Any, Any], Any]


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=list(HANDLERS))
    parser.add_argument("--count", type=int, default=1_000, help="objects in the batch")
    parser.add_argument("--size", type=int, default=4_096, help="bytes of each; 0 announces folder markers")
    parser.add_argument("--repeat", type=int, default=1, help="invocations measured, on other objects each")
    given = parser.parse_args()
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        samples = _samples(given.contender, given.count, given.size, given.repeat)
    for sample in samples:
        print(json.dumps(sample))


def _samples(contender: str, count: int, size: int, repeat: int) -> list[dict[str, float]]:
    home, name = HANDLERS[contender]
    sys.modules["rich"] = None  # type: ignore[assignment]  # structlog imports it where it is, and in Lambda it is not
    began = time.perf_counter()
    handler = getattr(importlib.import_module(home), name)
    start = {"import_seconds": time.perf_counter() - began}
    start["first_seconds"] = invoked(handler, batch(WARM_UP, WARM_UP_SIZE, first=_OTHERS))["seconds"]
    _forget_what_was_counted()
    events = [batch(count, size, first=at * count) if size else folders(count) for at in range(repeat)]
    return [{**invoked(handler, event), "peak_bytes": _peak(), **start} for event in events]


def _forget_what_was_counted() -> None:
    """Let the stand-in count the invocations that are measured, and no other."""
    from benchmarks.standin import controlled  # noqa: PLC0415 - imports what would be missing from `import_seconds`

    controlled(os.environ, "POST", "lap")


def invoked(handler: Handler, event: dict[str, Any]) -> dict[str, float]:
    """Wall and CPU seconds of one invocation; it is an error if a message is left on the queue."""
    from aggregator.runtimes.polling import LocalContext  # noqa: PLC0415 - imports what would be missing from `import_seconds`

    context = LocalContext(function="benchmark", seconds=_FUNCTION_SECONDS)
    cpu, began = _cpu(), time.perf_counter()
    answer = handler(event, context)
    seconds = time.perf_counter() - began
    if answer != {"batchItemFailures": []}:
        raise SystemExit(f"messages are left on the queue: {str(answer)[:200]}")
    return {"seconds": seconds, "cpu_seconds": _cpu() - cpu}


def _peak() -> int:
    """
    Most bytes of memory that this process ever had resident.

    Linux hands `ru_maxrss` on from the process that started ours, so /proc is asked first (proc(5), VmHWM).
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
