"""
One batch of the worker, as large as the command line says: what gathering, handling and deleting take, and the memory.

    python -m benchmarks.large --messages 32768 --size 4096 --bundle-mb 135

The stand-in is S3, DynamoDB and SQS, on the same cores. Each line of the output is a JSON document.
"""

import argparse
import contextlib
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.standin import Standin
from benchmarks.workloads import SMALL

_SECONDS = 900


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=32_768, help="messages on the queue")
    parser.add_argument("--size", type=int, default=4_096, help="bytes of each object")
    parser.add_argument("--objects", type=int, default=1, help="objects that a message announces")
    parser.add_argument("--bundle-mb", type=int, default=135, help="MB of a bundle")
    parser.add_argument("--latency-ms", type=float, default=0, help="added to every call")
    given = parser.parse_args()
    with Standin(latency_ms=given.latency_ms) as standin:
        settings = SMALL._replace(largest_mb=given.bundle_mb).settings
        os.environ.update(settings, AWS_ENDPOINT_URL=standin.endpoint_url)
        url = f"{standin.endpoint_url}/queue/{given.messages}-{given.objects}-{given.size}"
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            measured = _measured(url, given.messages, given.bundle_mb)
        bundles = standin.stats()["calls"]["PUT"]
    print(json.dumps({**vars(given), "bundles": bundles, **measured}))


def _measured(url: str, messages: int, bundle_mb: int) -> dict[str, float]:
    from aggregator import app  # noqa: PLC0415 - the environment is set first
    from aggregator.runtimes.gathering import Limits  # noqa: PLC0415
    from aggregator.runtimes.polling import EventSourceMapping, LocalContext  # noqa: PLC0415
    from aggregator.runtimes.worker.process import THREADS, _sqs  # noqa: PLC0415

    clock = _Clock()

    def handle(event: dict[str, Any]) -> Any:
        clock.lap("gather")
        extend()
        clock.lap("extend")
        sweep = threading.Thread(target=extend)
        sweep.start()  # as happens now and then: the calls share Python's lock with the handler
        answer = app.handler(event, LocalContext(function="large", seconds=_SECONDS))  # type: ignore[arg-type]
        sweep.join()
        clock.lap("handle")
        return answer

    def extend() -> None:
        began = time.perf_counter()
        mapping._in_flight.extend_due(0, threading.Event())  # noqa: SLF001 - everything is due now
        clock.found["extended_in_seconds"] = round(time.perf_counter() - began, 2)

    limits = Limits(messages, window=_SECONDS, wait=1, bundle=bundle_mb * 1_000_000)
    mapping = EventSourceMapping(_sqs(), url, handle, limits=limits, visibility=_SECONDS, threads=THREADS)
    clock.lap("begin")
    polled = mapping.poll()
    clock.lap("delete")
    return {"handled": len(polled.deleted), "kept": polled.kept, **clock.found}


class _Clock:
    """Wall and CPU seconds of each step, and the memory at its end, with the most that there ever was."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}
        self._began = (time.perf_counter(), time.process_time())

    def lap(self, step: str) -> None:
        now = (time.perf_counter(), time.process_time())
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        resident, most = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) // 1024 for name in ("VmRSS", "VmHWM"))
        self.found |= {f"{step}_seconds": round(now[0] - self._began[0], 2)}
        self.found |= {f"{step}_cpu": round(now[1] - self._began[1], 2)}
        self.found |= {f"{step}_rss_mib": resident, "peak_mib": most}
        self._began = now


if __name__ == "__main__":
    main()
