"""
How every command speaks: data on stdout, words and progress on stderr, and a user's mistake in one line.

Exit status: 0 all is well, `FINDING` something was found, `WRONG_CALL` the call was wrong or could not be carried out.
"""

import json
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from aggregator.exceptions import AggregatorError

FINDING, WRONG_CALL = 1, 2


@contextmanager
def mistakes_are_told() -> Iterator[None]:
    """End the command with one line and `WRONG_CALL` where a call cannot be carried out; never a traceback."""
    try:
        yield
    except BrokenPipeError:  # whoever read our output has seen enough: click ends without a word
        raise
    except (AggregatorError, OSError) as error:
        print(f"aggregator: {error}", file=sys.stderr)
        raise typer.Exit(WRONG_CALL) from None


@contextmanager
def ends_on_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; the second one is a KeyboardInterrupt again."""
    stop = threading.Event()

    def end(_signal: int, _frame: object) -> None:
        words().print("ending: what is under way still arrives")
        stop.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def words() -> Console:
    """The console for what is said to people."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def progress(*, of_bytes: bool = False) -> Progress:
    """A bar for long work; nothing where nobody watches. What is printed meanwhile stays on stdout."""
    done = DownloadColumn() if of_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), done, TimeElapsedColumn())
    console = words()
    return Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # rich would print it to stderr
    )


def print_json(data: Any) -> None:
    """One JSON document."""
    print(json.dumps(data, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere one line a row, fields separated by tabs, without a heading."""
    rows = [[printable(field) for field in row] for row in rows]
    console = Console(highlight=False)
    if not console.is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    table = Table(box=None, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)


def printable(text: str) -> str:
    """Text that stays on its line and commands no terminal: what is not to be seen is escaped as in Python."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def bytes_in_words(size: float) -> str:
    """A number of bytes for people: `18.6 kB`, in powers of 1,000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1_000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1_000
    raise AssertionError
