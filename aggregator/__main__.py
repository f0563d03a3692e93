"""
`aggregator`, and `python -m aggregator`: the command line, which an interrupt ends without a word from the beginning.
"""

import sys


def main() -> None:
    """Import the command line and run it."""
    try:
        from aggregator.cli import main as run  # noqa: PLC0415 - an interrupt may come meanwhile

        run()
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell says it of SIGINT


if __name__ == "__main__":
    main()
