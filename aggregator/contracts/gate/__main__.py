"""
`python -m aggregator.contracts.gate contracts`: reject a change that breaks somebody, or is not proven to break nobody.

Exit status: 0 all is proven, 1 something is not, 2 a check could not be made.
"""

import argparse
import sys
from pathlib import Path

from aggregator.contracts.gate.checks import Check, Gate
from aggregator.exceptions import AggregatorError


def main(*arguments: str) -> int:
    """Print what each check found; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m aggregator.contracts.gate")
    parser.add_argument("folder", type=Path, help="the folder contracts/ of a checkout")
    parser.add_argument("--corpus", type=Path, help="a folder of messages with known verdicts, listed in INDEX.tsv")
    parser.add_argument("--complete", action="store_true", help="a validator that is not installed is a finding")
    options = parser.parse_args(arguments or None)
    failed = False
    try:
        for check in Gate(options.folder, options.corpus).checks():
            _print(check)
            failed |= bool(check.findings or (options.complete and check.missing))
    except (AggregatorError, OSError) as error:
        print(f"contracts: {error}", file=sys.stderr)
        return 2
    return int(failed)


def _print(check: Check) -> None:
    verdict = f"{len(check.findings):,} findings" if check.findings else "in part" if check.missing else "passed"
    print(f"{check.name:14}{verdict:14}{check.note}", flush=True)
    for finding in check.findings:
        print(f"  {finding}")
    if check.missing:
        print(f"  not installed: {check.missing}")


if __name__ == "__main__":
    sys.exit(main())
