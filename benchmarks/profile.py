"""
Where the time of an invocation goes, as a picture: py-spy watches a client of the benchmarks.

    python -m benchmarks.profile                            # 1,000 objects of 4 KiB, ten times
    python -m benchmarks.profile --workload large --native  # with what the Rust and C libraries do

The wider a bar, the more of the time it took; every thread has a tower of its own. A second run is counted by the parts
of the story (`parts.py`), and the five largest are printed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.client import HANDLERS
from benchmarks.parts import parts
from benchmarks.standin import Standin
from benchmarks.workloads import WORKLOADS, Workload

_RATE = 500
"""Samples a second."""

_LARGEST = 5
"""Parts that are printed."""

_REPEAT = 10
"""Invocations, so that those that are measured outweigh the import."""


def main(arguments: list[str] | None = None) -> None:
    """Draw the flame graph that the command line asks for."""
    by_name = {workload.name: workload for workload in WORKLOADS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=list(by_name), default="small-1000")
    parser.add_argument("--contender", choices=list(HANDLERS), default="ours")
    parser.add_argument("--repeat", type=int, default=_REPEAT, help="invocations")
    parser.add_argument("--native", action="store_true", help="also what compiled libraries do; much slower")
    parser.add_argument("--gil", action="store_true", help="only what holds the interpreter's lock")
    parser.add_argument("--out", type=Path, default=Path("profile.svg"))
    given = parser.parse_args(arguments)
    options = ["--native"] * given.native + ["--gil"] * given.gil
    workload = by_name[given.workload]._replace(repeat=given.repeat)
    _record(workload, given.contender, options, given.out)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "stacks")
        _record(workload, given.contender, [*options, "--format", "raw"], raw)
        for name, share in parts(raw.read_text(encoding="utf-8").splitlines())[:_LARGEST]:
            print(f"{share:4.0%}  {name}")
    print(given.out)


def _record(workload: Workload, contender: str, options: list[str], out: Path) -> None:
    """
    Run a client under py-spy, which writes `out`.

    Raises:
        SystemExit: py-spy is not there, or may not look into a process.
    """
    spy = shutil.which("py-spy")
    if spy is None:
        raise SystemExit("py-spy is not on the path: it comes with the dev extra, and `just profile` finds it there")
    out.unlink(missing_ok=True)
    command = [spy, "record", "--output", str(out), "--rate", str(_RATE), "--threads", *options, "--", sys.executable]
    command += ["-m", "benchmarks.client", contender, "--count", str(workload.objects)]
    command += ["--size", str(workload.size), "--repeat", str(workload.repeat)]
    with Standin(latency_ms=workload.latency_ms, latency_of_s3=workload.latency_of_s3) as standin:
        environment = {**os.environ, **workload.settings, **standin.settings}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode or not out.exists():
        last = (done.stderr.strip() or "it says nothing").splitlines()[-1]
        advice = "it must be allowed to trace a process: CAP_SYS_PTRACE in a container, sudo on macOS"
        raise SystemExit(f"py-spy drew nothing ({last}); {advice}")


if __name__ == "__main__":
    main()
