"""
Contenders side by side: A B A B …, each run in a process of its own, against a stand-in that has forgotten the last.

A run whose bundles do not hold every byte that was announced is no measurement, and raises.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import boto3

from aggregator.pipeline.distribution import DistributionBucket, Version
from aggregator.runtimes.local import packages
from benchmarks.client import WARM_UP, WARM_UP_SIZE
from benchmarks.standin import Standin
from benchmarks.workloads import AGGREGATORS, CREDENTIALS, DISTRIBUTION, OURS, Workload

S3FS = Path(__file__).parent / "s3fs.txt"
"""What s3fs needs: aiobotocore, which pins botocore, so that it cannot live where boto3 is newer."""

Say = Callable[[str], None]


class Sample(NamedTuple):
    """One invocation: seconds, CPU seconds and peak bytes of its process; and what its first moments took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    import_seconds: float
    first_seconds: float


class Trial(NamedTuple):
    """What a contender needed on a workload, the stand-in's CPU seconds, and what it counted (`laps.py`)."""

    samples: list[Sample]
    standin_cpu_seconds: float
    counted: dict[str, Any]


class Trials:
    """Runs contenders; compiled modules are kept in one folder, so that no run pays for another's compilation."""

    def __init__(self, say: Say, *, skip: tuple[str, ...] = ()) -> None:
        self._say, self._skip = say, set(skip)
        self._compiled = tempfile.TemporaryDirectory()
        self._paths: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compiled.cleanup()

    def run(self, workload: Workload) -> dict[str, list[Trial]]:
        """Every contender of `workload`, in turn, in as many rounds as it asks for."""
        trials: dict[str, list[Trial]] = {each: [] for each in workload.contenders if self._runs(each)}
        options: Any = {"latency_ms": workload.latency_ms, "latency_of_s3": workload.latency_of_s3}
        with Standin(**options) as plain, Standin(**options, tls=True) as secure:
            for number in range(workload.rounds):
                for contender, done in trials.items():
                    standin = secure if contender.endswith("_tls") else plain
                    done.append(self._trial(contender, workload, standin))
                    self._say(f"{workload.name}, round {number + 1}: {contender} {done[-1].samples[0].seconds:.2f} s")
        return trials

    def _runs(self, contender: str) -> bool:
        """Whether a contender takes part: s3fs does not where it cannot be installed."""
        if contender == "s3fs" and not self._skip & {"s3fs"} and "s3fs" not in self._paths:
            try:
                self._paths["s3fs"] = str(packages.install(S3FS, "s3fs", called="s3fs", say=self._say))
            except packages.InstallError as error:
                self._say(f"s3fs is left out: {error}")
                self._skip.add("s3fs")
        return contender not in self._skip

    def _trial(self, contender: str, workload: Workload, standin: Standin) -> Trial:
        standin.reset()
        command = [sys.executable, "-m", "benchmarks.client", contender]
        command += [
            "--count",
            str(workload.objects_of(contender)),
            "--size",
            str(workload.size),
            "--repeat",
            str(workload.repeat),
        ]
        settings = {**workload.settings, **standin.settings}
        compiled = {"PYTHONPYCACHEPREFIX": self._compiled.name}
        given = environment({**settings, **compiled}, first=self._paths.get(contender))
        before = standin.stats()
        done = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
        after = standin.stats()
        if done.returncode:
            raise RuntimeError(f"{contender} failed on {workload.name}:\n{done.stderr[-2000:]}")
        if contender in AGGREGATORS:
            _check(contender, workload, standin)
        samples = [Sample(**json.loads(line)) for line in done.stdout.splitlines()]
        return Trial(samples, after["cpu_seconds"] - before["cpu_seconds"], after)


def environment(settings: Mapping[str, str], *, first: str | None = None) -> dict[str, str]:
    """The environment of a process that runs a handler with `settings`; modules are looked for in `first` first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "POWERTOOLS_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    path = os.pathsep.join(filter(None, [first, str(Path(__file__).parent.parent)]))
    as_deployed = {"MALLOC_ARENA_MAX": "2"}  # deploy/template.yaml
    return {**kept, **as_deployed, **settings, "PYTHONPATH": path}


def _check(contender: str, workload: Workload, standin: Standin) -> None:
    """
    Count what was published.

    Raises:
        RuntimeError: it is not what was announced.
    """
    objects = workload.objects_of(contender) * workload.repeat if workload.size else 0
    expected = objects * workload.size + WARM_UP * WARM_UP_SIZE
    if contender not in OURS:  # they add a line feed to every object, and tell the size modulo 4 GiB
        expected = (expected + objects + WARM_UP) % 2**32
    found = _published(contender, standin.settings)
    if found != expected:
        raise RuntimeError(f"{contender} published {found} bytes on {workload.name}, not {expected}")


def _published(contender: str, settings: Mapping[str, str]) -> int:
    """Bytes in all bundles: by the index in ours, by the last four bytes in other gzip files (RFC 1952, ISIZE)."""
    s3 = boto3.client(
        "s3",
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        verify=settings.get("AWS_CA_BUNDLE"),
        region_name=CREDENTIALS["AWS_DEFAULT_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )
    distribution, size = DistributionBucket(s3, DISTRIBUTION), 0
    for listed in s3.list_object_versions(Bucket=DISTRIBUTION).get("Versions", []):
        if contender in OURS:
            version = Version(listed["VersionId"], listed["Size"], listed["IsLatest"])
            size += sum(distribution.index(listed["Key"], version).members.length)
        else:
            tail = s3.get_object(Bucket=DISTRIBUTION, Key=listed["Key"], Range="bytes=-4")["Body"].read()
            size += int.from_bytes(tail, "little")
    return size
