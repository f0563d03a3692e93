"""
`aggregator`, and `python -m aggregator`: the command line, which an interrupt ends without a word from the beginning.
"""

import signal


def main() -> None:
    """Import and build the command line, and run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # an exception in the middle of an import is swallowed, or told
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from aggregator.commands.main import main as run  # noqa: PLC0415 - it takes half a second

    run(lambda: signal.signal(signal.SIGINT, before))


if __name__ == "__main__":
    main()
