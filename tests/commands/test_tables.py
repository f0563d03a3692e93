"""Tables, numbers and colours: for people on a terminal, for programs elsewhere."""

import io
import re
from contextlib import redirect_stdout
from typing import Self

import pytest
from rich.progress import Progress

from aggregator.commands.console import counted, print_styled, print_table, progress
from aggregator.commands.reconcile import _print_found


class Terminal(io.StringIO):
    """A standard output that is a terminal, while a test prints to it."""

    def __enter__(self) -> Self:
        self._redirected = redirect_stdout(self)
        self._redirected.__enter__()
        return self

    def __exit__(self, *given: object) -> None:
        self._redirected.__exit__(None, None, None)

    def isatty(self) -> bool:
        return True

    @property
    def plain(self) -> list[str]:
        """Its lines without colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.getvalue()).splitlines()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 60 columns."""
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    return Terminal()


ROWS = [("7", "1500", "s3://b/a"), ("1,234", "0", "s3://b/" + "long/" * 20)]


def test_a_terminal_gets_numbers_at_the_right_in_units_of_people_and_addresses_whole(terminal: Terminal) -> None:
    with terminal:
        print_table(("members", "size", "target"), ROWS, sizes=("size",))

    assert terminal.plain == [
        "members     size  target",
        "      7   1.5 kB  s3://b/a",
        "  1,234  0 bytes  s3://b/" + "long/" * 20,
    ]


def test_a_program_gets_exact_numbers_and_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("members", "size", "target"), ROWS, sizes=("size",))

    assert capsys.readouterr().out.splitlines() == ["\t".join(row) for row in ROWS]


def test_a_sentence_is_broken_between_words_under_its_column(terminal: Terminal) -> None:
    with terminal:
        print_table(
            ("check", "found"), [("ledger", "a sentence that is longer than what is left of the line; fix: this")]
        )

    assert terminal.plain[1:] == [
        "ledger  a sentence that is longer than what is left of the",
        "        line; fix: this",
    ]


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_word_that_judges_has_a_colour_unless_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    coloured, plain = list[str](), list[str]()
    for found in (coloured, plain):
        with Terminal() as output:
            print_table(("check", "", "found"), [("a", "ok", "x"), ("b", "wrong", "y"), ("c", "not checked", "z")])
            print_styled("state  ", "bundled", "green")
        found.append(output.getvalue())
        monkeypatch.setenv(variable, value)

    assert all(f"\x1b[3{colour}m" in coloured[0] for colour in (1, 2, 3))
    assert not re.search(r"\x1b\[3[0-9]", plain[0])


def test_a_table_without_rows_has_its_heading(terminal: Terminal) -> None:
    with terminal:
        print_table(("a", "key"), [])

    assert terminal.plain == ["a  key"]


def test_one_thing_is_singular() -> None:
    assert [counted(number, "object") for number in (0, 1, 2_000)] == ["0 objects", "1 object", "2,000 objects"]


@pytest.mark.parametrize(
    ("of_bytes", "total", "shown"),
    [
        (False, None, r"1,500  [\d,]+/s  0:00:\d\d"),
        (False, 6_000, r"1,500 of 6,000  [\d,]+/s  0:00:\d\d left"),
        (True, 6_000, r"1\.5 kB of 6\.0 kB  [\d.,]+ (bytes|[kM]B)/s  0:00:\d\d left"),
    ],
)
def test_progress_says_how_much_how_fast_and_how_long(of_bytes: bool, total: int | None, shown: str) -> None:
    now = [0.0]
    (*_, figures) = progress(of_bytes=of_bytes).columns
    bar = Progress(get_time=lambda: now[0])
    task = bar.add_task("reading", total=total)
    for _ in range(3):
        now[0] += 1
        bar.advance(task, 500)

    assert re.fullmatch(shown, str(figures.render(bar.tasks[0])))  # type: ignore[union-attr]


def test_progress_that_has_not_begun_has_no_question_mark() -> None:
    (*_, figures) = progress().columns
    bar = Progress()
    bar.add_task("listing", total=None)

    assert str(figures.render(bar.tasks[0])) == "0:00:00"  # type: ignore[union-attr]


def test_a_terminal_shows_the_first_findings_as_a_table_and_counts_the_others(
    terminal: Terminal, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [{"finding": "missing", "object": f"s3://b/{at}", "why": "never claimed"} for at in range(1_002)]
    with terminal:
        _print_found(iter(found))

    assert terminal.plain[1].split() == ["finding", "because", "version", "other", "bundle", "where"]
    assert terminal.plain[2].split() == ["missing", "never", "claimed", "s3://b/0"]
    assert len(terminal.plain) == 1_002
    assert capsys.readouterr().err == "and 2 more: redirect the output, or add --json, to get all\n"
