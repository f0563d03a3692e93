"""
Contenders side by side: A B A B …, each run in a process of its own against a stand-in that has forgotten the last.

A run whose bundles do not hold every byte of every object is no measurement, and raises.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

from benchmarks.standin import Standin
from benchmarks.workloads import Workload


class Sample(NamedTuple):
    """One run: seconds, CPU seconds of the client, its peak memory in bytes, CPU seconds and calls of the stand-in."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    standin_cpu_seconds: float
    calls: dict[str, int]


def trials(workload: Workload, say: Callable[[str], None]) -> dict[str, list[Sample]]:
    """Every contender of `workload`, in turn, in as many rounds as it asks for."""
    samples: dict[str, list[Sample]] = {contender: [] for contender in workload.contenders}
    with Standin(latency_ms=workload.latency_ms) as standin:
        for number in range(workload.rounds):
            for contender, taken in samples.items():
                taken.append(trial(contender, workload, standin))
                say(f"{workload.name}, round {number + 1}: {contender} {taken[-1].seconds:.2f} s")
    return samples


def trial(contender: str, workload: Workload, standin: Standin) -> Sample:
    """One run of one contender."""
    standin.reset()
    environment = {**os.environ, **workload.settings, "AWS_ENDPOINT_URL": standin.endpoint_url}
    command = [sys.executable, "-m", "benchmarks.client", contender]
    command += ["--count", str(workload.objects), "--size", str(workload.size)]
    before = standin.stats()["cpu_seconds"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    after = standin.stats()
    if done.returncode:
        raise RuntimeError(f"{contender} failed on {workload.name}:\n{done.stderr[-2000:]}")
    return Sample(**json.loads(done.stdout), standin_cpu_seconds=after["cpu_seconds"] - before, calls=after["calls"])
