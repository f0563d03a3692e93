"""
How every command speaks: data on stdout, words and progress on stderr, and a user's mistake in one line.

Exit status: 0 all is well, `FINDING` something was found, `WRONG_CALL` the call was wrong or could not be carried out,
`BUG` an unexpected error, `UNREAD` the reader of our output closed it.
"""

import io
import json
import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

FINDING, WRONG_CALL = 1, 2

BUG = 70
"""EX_SOFTWARE of sysexits.h; 1 would be taken for a finding."""

INTERRUPTED = 130
"""What a shell says of a process that SIGINT ended."""

UNREAD = 141
"""What a shell says of a tool that SIGPIPE ended; that signal itself would end us for any closed connection to AWS."""

_HIDDEN = re.compile(r"[^\n\x20-\x7e]")
"""What may have to be escaped in a JSON text."""

_PYDANTIC = re.compile(r"^Value error, |, unable to parse string as an? \w+$")

_MOST_QUOTED = 80
"""Characters of a wrong value that are shown."""

_NUMBER = re.compile(r"-?|[-+]?[0-9][0-9,]*(\.[0-9]+)?( ?(%|bytes|[kMG]B))?")
"""What stands at the right of its column."""

_SENTENCES = frozenset({"found", "for", "says", "why", "for example"})
"""Columns whose fields may be broken between words."""

_NARROWEST = 24
"""Characters that a sentence needs at least; where there are fewer, it runs over the line."""

_COLOURS = {
    "green": frozenset({"ok", "once", "bundled"}),
    "yellow": frozenset({"not checked", "unread", "in flight", "claimed", "in doubt", "not compared"}),
    "red": frozenset(
        {"wrong", "bad", "overwritten", "lost", "gone", "rejected"}
        | {"missing", "twice", "altered", "unrecorded", "unreplicated", "unreadable"}
    ),
}
"""Words that judge, by the colour in which a terminal shows them."""


@contextmanager
def mistakes_are_printed() -> Iterator[None]:
    """
    End the command by what became of it: with one line where a call cannot be carried out, and never as a finding.

    Every command passes through here (`groups.py`), so what AWS or the system says need not be caught in each.
    """
    try:
        yield
    except BrokenPipeError:
        raise typer.Exit(UNREAD) from None
    except Exception as error:
        if isinstance(error, typer.Abort) or hasattr(error, "exit_code"):  # typer's own, which say how they end
            if isinstance(error, typer.BadParameter):
                error.message = _of_value(error)
            raise
        from aggregator.operations.faults import explain  # botocore takes long to import

        said, status = " ".join(explain(error).split()), WRONG_CALL
        if not said:
            print("\n".join(map(to_people, traceback.format_exc().splitlines())), file=sys.stderr)
            said, status = "unexpected error: please report it together with the traceback above", BUG
        print(f"aggregator: {to_people(said)}", file=sys.stderr)
        raise typer.Exit(status) from None


class _Closed(io.RawIOBase):
    """Standard input where there is none."""

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        raise OSError("there is no standard input")


def _of_value(error: typer.BadParameter) -> str:
    """What is wrong with which value, without the words of the library that says it."""
    said = _PYDANTIC.sub("", error.message).replace("Input should", "it should")
    faults: list[Any] = getattr(error.__cause__, "errors", list)()  # those of a ValidationError of pydantic
    given = faults[0]["input"] if faults else None
    return f"{said}, not {given[:_MOST_QUOTED]!r}" if isinstance(given, str) else said


@contextmanager
def streams() -> Iterator[None]:
    """
    The standard streams, such that anything can be printed, and that nothing is left to fail when the process ends.

    Output that is not a terminal is read by a program: it gets UTF-8 whatever the locale, because JSON is nothing else,
    and a key is the same key everywhere. A terminal gets its own encoding, and an escape for what that lacks.
    """
    sys.stdin = sys.stdin or io.TextIOWrapper(io.BufferedReader(_Closed()), encoding="utf-8")
    sys.stdout, sys.stderr = (stream or _nowhere() for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # told already; the interpreter would try again, and say so
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _nowhere() -> io.TextIOWrapper:
    return Path(os.devnull).open("w", encoding="utf-8")


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


@contextmanager
def ends_at_once() -> Iterator[None]:
    """While the block lasts, Ctrl-C ends the process: nothing that its threads do is worth waiting for."""

    def end(_signal: int, _frame: object) -> None:
        print("\ninterrupted: the run is not complete", file=sys.stderr, flush=True)
        os._exit(INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Words(Console):
    """A console on which no text commands the terminal, or shows a password."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print objects; texts are escaped."""
        super().print(*(to_people(each) if isinstance(each, str) else each for each in objects), **options)


def words() -> Console:
    """The console for what is said to people."""
    return _Words(stderr=True, highlight=False, soft_wrap=True, force_terminal=sys.stderr.isatty())


def progress(*, of_bytes: bool = False) -> Progress:
    """A bar for long work; nothing where nobody watches. Other output stays on stdout."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), _Figures(of_bytes=of_bytes))
    console = words()
    return Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=sys.stdout.isatty(),  # rich would print it to stderr
    )


class _Figures(ProgressColumn):
    """How much is done, of how much if that is known, how fast, and the time that is left or else that has passed."""

    def __init__(self, *, of_bytes: bool) -> None:
        super().__init__()
        self._shown: Callable[[float], str] = bytes_in_words if of_bytes else lambda number: f"{number:,.0f}"

    def render(self, task: Task) -> Text:
        """The figures of a task."""
        done = self._shown(task.completed) if task.completed or task.total else ""
        of = f" of {self._shown(task.total)}" if task.total else ""
        rate = f"{self._shown(task.speed)}/s" if task.speed else ""
        left = task.time_remaining if task.total else None
        time = f"{timedelta(seconds=left)} left" if left else f"{timedelta(seconds=int(task.elapsed or 0))}"
        return Text("  ".join(filter(None, (f"{done}{of}", rate, time))))


def print_json(data: Any) -> None:
    """One JSON document."""
    print(json_text(data, indent=2))


def json_text(data: Any, *, indent: int | None = None) -> str:
    """A JSON document in which whatever is not to be seen is escaped, so that it commands no terminal."""
    return _HIDDEN.sub(_escape, json.dumps(data, indent=indent, ensure_ascii=False))


def _escape(found: re.Match[str]) -> str:
    letter = found[0]
    return letter if letter.isprintable() else json.dumps(letter)[1:-1]


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, sizes: Sequence[str] = ()) -> None:
    """
    A table on a terminal; elsewhere one line per row, fields separated by tabs, without a heading.

    The columns `sizes` have numbers of bytes, which people get in kB or MB. The last column is never broken, so that
    an address in it can be copied; a sentence in it is, between words.
    """
    if not sys.stdout.isatty():
        for row in rows:
            print(printable_row(*row))
        return
    console = _terminal()
    shown = [
        [_in_words(field) if name in sizes else printable(field) for name, field in zip(columns, row, strict=True)]
        for row in rows
    ]
    for line in _lines(columns, shown, console.width):
        console.print(line)


def _lines(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[Text]:
    """The lines of a table that may be `width` wide."""
    widths = [max(cell_len(field) for field in column) for column in zip(columns, *rows, strict=True)]
    right = [bool(rows) and all(map(_NUMBER.fullmatch, column)) for column in zip(*rows, strict=True)]
    right = right or [False] * len(columns)
    indent = sum(widths[:-1]) + 2 * (len(columns) - 1)
    for at, row in enumerate([columns, *rows]):
        last = [row[-1]]
        if columns[-1] in _SENTENCES and width - indent >= _NARROWEST:
            last = textwrap.wrap(row[-1], width - indent, break_long_words=False, break_on_hyphens=False) or [""]
        line = Text(style="bold" if at == 0 else "")
        for place, field in enumerate(row[:-1]):
            blanks = " " * (widths[place] - cell_len(field))
            line.append(blanks + field if right[place] else field + blanks, style_of(field)).append("  ")
        if right[-1]:
            line.append(" " * (widths[-1] - cell_len(row[-1])))
        line.append(f"\n{' ' * indent}".join(last))
        yield line


def print_styled(label: str, value: str, style: str) -> None:
    """A label and a value, which has a colour on a terminal."""
    if sys.stdout.isatty():
        _terminal().print(Text.assemble(label, (printable(value), style)))
    else:
        print(label + printable(value))


def _terminal() -> Console:
    """The console for results; it has colours, unless NO_COLOR is set or the terminal has none."""
    return Console(highlight=False, soft_wrap=True, force_terminal=sys.stdout.isatty())  # whatever FORCE_COLOR says


def style_of(word: str) -> str:
    """The colour of a word that judges, for a terminal: green, yellow for what nobody knows yet, red."""
    return next((colour for colour, words_ in _COLOURS.items() if word in words_), "")


def _in_words(field: str) -> str:
    return bytes_in_words(int(field)) if field.isdecimal() else printable(field)


def printable_row(*fields: object) -> str:
    """Fields of a line, separated by tabs."""
    return "\t".join(printable(str(field)) for field in fields)


def printable(text: str) -> str:
    """Text that stays on its line and commands no terminal: what is not to be seen is escaped as in Python."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def to_people(text: str) -> str:
    """A message as it may be shown: printable, and its URLs without passwords and signatures."""
    from aggregator.bundles.opening import without_secrets

    return printable(without_secrets(text))


def bytes_in_words(size: float) -> str:
    """A number of bytes for people: `18.6 kB`, in powers of 1,000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1_000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1_000
    raise AssertionError


def counted(number: int, noun: str) -> str:
    """A number of things for people: `1 object`, `2,000 objects`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
