"""
One contender on one workload, in a process of its own: what one warm invocation takes.

    python -m benchmarks.client ours --count 1000 --size 4096

The environment says where AWS is, as for the handler in Lambda. A first invocation with a few other objects warms the
process up; the second is measured. The one line of output is JSON: wall and CPU seconds of the invocation, and the peak
of the process's resident memory. What the handler prints goes nowhere.
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

from aggregator.polling import Invocation
from benchmarks.events import batch

WARM_UP = 20
"""Objects of the first invocation."""

_OTHERS = 900_000
_FUNCTION_SECONDS = 900
HANDLERS = {
    "ours": ("aggregator.app", "handler"),
    "textbook": ("benchmarks.textbook", "handler"),
    "smart_open": ("benchmarks.textbook", "smart_open_handler"),
    "s3fs": ("benchmarks.textbook", "s3fs_handler"),
}
"""Where each contender's handler is."""


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("contender", choices=list(HANDLERS))
    parser.add_argument("--count", type=int, default=1_000, help="objects in the batch")
    parser.add_argument("--size", type=int, default=4_096, help="bytes of each")
    parser.add_argument("--repeat", type=int, default=1, help="invocations measured, on other objects each")
    given = parser.parse_args()
    home, name = HANDLERS[given.contender]
    handler = getattr(importlib.import_module(home), name)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        measured(handler, batch(WARM_UP, 4096, first=_OTHERS))
        events = [batch(given.count, given.size, first=at * given.count) for at in range(given.repeat)]
        samples = [measured(handler, event) for event in events]
    for sample in samples:
        print(json.dumps({**sample, "peak_bytes": peak()}))


def measured(handler: Callable[[Any, Any], Any], event: dict[str, Any]) -> dict[str, float]:
    """Wall and CPU seconds of one invocation; it is an error if a message is left on the queue."""
    context = Invocation(function="benchmark", seconds=_FUNCTION_SECONDS)
    cpu, began = _cpu(), time.perf_counter()
    answer = handler(event, context)
    seconds = time.perf_counter() - began
    if answer != {"batchItemFailures": []}:
        print(str(answer)[:500], file=sys.stderr)
        raise SystemExit("messages are left on the queue")
    return {"seconds": seconds, "cpu_seconds": _cpu() - cpu}


def peak() -> int:
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
