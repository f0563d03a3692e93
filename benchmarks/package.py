"""
Cold start and warm invocation of the package for Lambda, under AWS's own runtime client, on an embedded AWS.

    python -m benchmarks.package            the package that `just build` made
    python -m benchmarks.package --uncompiled    the same without its compiled files

Lambda's own share of a cold start (finding a host, fetching the package) is not in it, nor is its share of a CPU.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from aggregator.runtimes.local.embedded import EmbeddedAws
from tests.support.runtime import Function, client
from tests.support.world import World, sqs_record

_OBJECTS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print one line a figure: best (the steadier one) and median, in milliseconds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.package", description=__doc__.split("\n\n")[0])
    parser.add_argument("package", nargs="?", type=Path, default=Path("build", "lambda-x86_64.zip"))
    parser.add_argument("--rounds", type=int, default=7, help="cold starts; as many warm invocations follow each")
    parser.add_argument("--uncompiled", action="store_true", help="leave out the compiled files")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        pytest.MonkeyPatch.context() as patch,
        EmbeddedAws(guarded=False) as endpoint_url,
    ):
        root = _unzipped(options.package, Path(folder, "task"), compiled=not options.uncompiled)
        python = client(Path(folder, "client"))
        world = World(patch, endpoint_url)
        figures: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for name, seconds in _measured(world, root, python, options.rounds):
                figures.setdefault(name, []).append(seconds)
    print(f"{options.package.name}: {options.package.stat().st_size / 1e6:.1f} MB, Python {sys.version.split()[0]}")
    for name, values in figures.items():
        print(f"{name:<32}best {min(values) * 1000:>6.0f} ms   median {statistics.median(values) * 1000:>6.0f} ms")
    return 0


def _measured(world: World, root: Path, python: Path, rounds: int) -> list[tuple[str, float]]:
    """The figures of one execution environment, from its cold start on."""
    kept = ("AWS_", "DISTRIBUTION_", "IDEMPOTENCY_", "SERVICE_", "LOG_")
    environment = {name: value for name, value in os.environ.items() if name.startswith(kept)}
    with Function(root, python, lambda: {**environment, "PYTHONDONTWRITEBYTECODE": "1"}) as function:
        first = _invoked(function, world, 1) - function.init_seconds
        figures = [("cold start: import", function.init_seconds), ("first invocation, one object", first)]
        figures += [("warm invocation, one object", _invoked(function, world, 1)) for _ in range(rounds)]
        figures += [
            (f"warm invocation, {_OBJECTS} objects", _invoked(function, world, _OBJECTS)) for _ in range(rounds)
        ]
    return figures


def _invoked(function: Function, world: World, objects: int) -> float:
    """Seconds of an invocation for `objects` new objects of 1 kB."""
    keys = [f"{uuid.uuid4()}.json" for _ in range(objects)]
    world.put_all(dict.fromkeys(keys, b'{"padding": "%s"}' % (b"x" * 1_000)))
    event: dict[str, Any] = {"Records": [sqs_record(key, world.body(key)) for key in keys]}
    began = time.monotonic()
    answer = function.invoke(event)
    seconds = time.monotonic() - began
    assert answer == {"batchItemFailures": []}, answer
    return seconds


def _unzipped(package: Path, root: Path, *, compiled: bool) -> Path:
    with zipfile.ZipFile(package) as archive:
        archive.extractall(root)
    if not compiled:
        for folder in list(root.rglob("__pycache__")):
            shutil.rmtree(folder)
    return root


if __name__ == "__main__":
    sys.exit(main())
