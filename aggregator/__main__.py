"""
`aggregator`, and `python -m aggregator`: the command line, which an interrupt ends without a word from the beginning.
"""

import signal
import sys


def main() -> None:
    """Import and build the command line, and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # an exception in the middle of an import is swallowed, or told
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from aggregator.commands.main import main as run  # noqa: PLC0415 - it takes half a second
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.stderr.write(
            "aggregator: the command line is not installed: install data-aggregator with the extra [cli]\n"
        )
        raise SystemExit(2) from None

    run(lambda: signal.signal(signal.SIGINT, before))


if __name__ == "__main__":
    main()
