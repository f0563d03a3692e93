"""
Measure, and write down what was measured.

    python -m benchmarks.run                     # everything: some ten minutes on two cores
    python -m benchmarks.run --only small-1000   # one workload, nothing is written
"""

import argparse
import sys
from statistics import median

from benchmarks.trials import trials
from benchmarks.workloads import WORKLOADS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[workload.name for workload in WORKLOADS])
    parser.add_argument("--contender", action="append")
    parser.add_argument("--rounds", type=int)
    given = parser.parse_args()
    for workload in WORKLOADS:
        if given.only and workload.name != given.only:
            continue
        if given.contender:
            workload = workload._replace(contenders=tuple(given.contender))
        if given.rounds:
            workload = workload._replace(rounds=given.rounds)
        for contender, samples in trials(workload, lambda text: print(text, file=sys.stderr)).items():
            seconds = median(sample.seconds for sample in samples)
            cpu = median(sample.cpu_seconds for sample in samples)
            print(
                f"{workload.name:14} {contender:12} {workload.objects / seconds:10,.0f} objects/s "
                f"{workload.objects * workload.size / seconds / 2**20:9,.1f} MiB/s {cpu / workload.objects * 1000:9.3f} ms CPU/object "
                f"{max(sample.peak_bytes for sample in samples) / 2**20:7.0f} MiB peak {cpu / seconds:5.2f} cores"
            )


if __name__ == "__main__":
    main()
