"""
Measure, and write down what was measured.

    python -m benchmarks.run                                         # everything: some eight minutes on two cores
    python -m benchmarks.run --only small-1000 --contender ours      # one workload, one contender; nothing is written
    python -m benchmarks.run --units                                 # only what the ledger is charged; the rest stays
    python -m benchmarks.run --quick --out /tmp/benchmarks           # shows only that everything runs

Everything writes `results.json`, `RESULTS.md` and `charts/` beside this file, or into the folder that `--out` names.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.charts import draw
from benchmarks.duplicates import charged
from benchmarks.figures import figures
from benchmarks.limits import gets_per_second
from benchmarks.report import page
from benchmarks.standin import Standin
from benchmarks.targets import rows
from benchmarks.trials import Trial, Trials
from benchmarks.workloads import WORKLOADS, Workload

HERE = Path(__file__).parent

_PACKAGES = ("boto3", "aws-lambda-powertools", "pydantic", "obstore", "isal", "zlib-ng", "smart-open")
_STANDIN_SECONDS = 3.0


def main(arguments: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    given = _parsed(arguments)
    if given.page:
        _present(_published(), HERE)
        return
    if given.units:
        _write({**_published(), "ledger": _ledger(given)}, given.out or HERE)
        return
    machine = _machine()
    with Trials(_say, skip=tuple(given.skip)) as trials:
        measured = {workload.name: _measured(workload, trials) for workload in _wanted(given)}
    if given.only or given.contender:
        return
    results = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine,
        "versions": {"Python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "standin": _standin(0.2 if given.quick else _STANDIN_SECONDS),
        "workloads": measured,
        "figures": figures(*([65_536] if given.quick else [])),
        "ledger": _ledger(given),
    }
    _write(results, given.out or HERE)


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    names = [workload.name for workload in WORKLOADS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=names, help="measure this workload; may be repeated")
    parser.add_argument("--contender", action="append", help="measure this contender; may be repeated")
    parser.add_argument("--skip", action="append", default=[], help="leave this contender out; may be repeated")
    parser.add_argument("--rounds", type=int, help="runs of each contender, where the workload says otherwise")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the objects, one run each; wants --out")
    parser.add_argument("--page", action="store_true", help="only write RESULTS.md and charts/ anew from results.json")
    parser.add_argument("--units", action="store_true", help="only count what the ledger is charged, and write it in")
    parser.add_argument("--out", type=Path, help="folder for results.json, RESULTS.md and charts/")
    given = parser.parse_args(arguments)
    if given.quick and not given.out and not given.only:
        parser.error("--quick measures nothing worth keeping: name another folder with --out")
    return given


def _wanted(given: argparse.Namespace) -> Iterable[Workload]:
    """The workloads, as the command line changes them."""
    for workload in WORKLOADS:
        if given.only and workload.name not in given.only:
            continue
        chosen = workload.quick() if given.quick else workload
        if given.contender:
            chosen = chosen._replace(contenders=tuple(given.contender))
        yield chosen._replace(rounds=given.rounds) if given.rounds else chosen


def _ledger(given: argparse.Namespace) -> list[dict[str, float]]:
    return charged(*([20] if given.quick else []))


def _measured(workload: Workload, trials: Trials) -> dict[str, Any]:
    contenders = {
        contender: {"objects": workload.objects_of(contender), **_summary(done)}
        for contender, done in trials.run(workload).items()
    }
    for contender, found in contenders.items():
        speed = found["objects"] / found["seconds"]
        cost = found["cpu_seconds"] / found["objects"] * 1000
        peak = found["peak_bytes"] / 1024**2
        facts = f"{speed:10,.1f} objects/s {speed * workload.size / 1024**2:9,.1f} MiB/s {cost:9.3f} ms CPU an object"
        print(f"{workload.name:13} {contender:12} {facts} {peak:6.0f} MiB peak", flush=True)
    return {"title": workload.title, "objects": workload.objects, "size": workload.size, "contenders": contenders}


def _summary(done: list[Trial]) -> dict[str, Any]:
    """Medians over all runs; of memory the most, and of what the stand-in counted too."""
    counted = [trial.counted for trial in done]
    samples = [sample for trial in done for sample in trial.samples]
    return {
        "seconds": median(sample.seconds for sample in samples),
        "cpu_seconds": median(sample.cpu_seconds for sample in samples),
        "peak_bytes": max(sample.peak_bytes for sample in samples),
        "import_seconds": median(sample.import_seconds for sample in samples),
        "first_seconds": median(sample.first_seconds for sample in samples),
        "standin_cpu_seconds": median(trial.standin_cpu_seconds for trial in done),
        "calls": max(sum(each["calls"].values()) for each in counted),
        "handshakes": max(each["connections"].get("GET", 0) for each in counted),
        "readers": max(each["most_at_once"] for each in counted),
        "slow": max(each["gets"]["slow"] for each in counted),
        "gets_seconds": median(each["gets"]["all_seconds"] for each in counted),
        "others_seconds": median(each["gets"]["others_seconds"] for each in counted),
        "runs": [round(sample.seconds, 4) for sample in samples],
    }


def _standin(seconds: float) -> dict[str, float]:
    """What the stand-in itself can do."""
    with Standin() as standin:
        before = standin.stats()["cpu_seconds"]
        speed = gets_per_second(standin.endpoint_url, seconds=seconds)
        after = standin.stats()
    return {
        "gets_per_second": speed,
        "cpu_microseconds": (after["cpu_seconds"] - before) / after["calls"]["GET"] * 1_000_000,
    }


def _machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    names = (
        [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")] if cpuinfo.exists() else []
    )
    return {
        "processor": names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3,
        "system": f"{platform.system()} {platform.machine()}",
        "load": os.getloadavg()[0],
    }


def _published() -> dict[str, Any]:
    return dict(json.loads((HERE / "results.json").read_text(encoding="utf-8")))


def _write(results: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results = _rounded(results)
    (folder / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _present(results, folder)


def _rounded(value: Any) -> Any:
    """The same to six digits, which is more than any of them is worth."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _present(results: dict[str, Any], folder: Path) -> None:
    """The page, the charts, and the targets on the terminal."""
    (folder / "RESULTS.md").write_text(page(results), encoding="utf-8")
    draw(results, folder / "charts")
    for row in rows(results):
        print(f"{row.workload} | {row.target} | {row.measured} | {row.verdict}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
