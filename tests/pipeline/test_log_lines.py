"""Log lines on a terminal are for people, and command no terminal; everywhere else they are JSON."""

import io
import json
import re
import sys
from typing import Any

import pytest
import structlog

from aggregator.pipeline import telemetry
from aggregator.pipeline.settings import Settings

pytestmark = pytest.mark.once

EVIL = "a\x1b]0;x\x07\x9b31m\x85\x7f\u202egpj\u2066\u200b\u2028\U000e0041\ud800\r\n.json"
COLOUR = re.compile(r"\x1b\[\d+m")


class Terminal(io.StringIO):
    """A terminal, and what was written to it."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._patch = patch

    def isatty(self) -> bool:
        return True

    def log(self, settings: Settings) -> Any:
        """A logger whose lines come here."""
        self._patch.setattr(sys, "stdout", self)  # not in the fixture, after which pytest sets its own
        telemetry.configure_logging(settings)
        return structlog.get_logger()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("LOG_FORMAT", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    return Terminal(monkeypatch)


def test_a_terminal_gets_time_level_event_and_facts(terminal: Terminal, settings: Any) -> None:
    terminal.log(settings()).info("bundle.written", key="2026/bundle-1.gz", members=12, why="two words", missing=None)

    (line,) = COLOUR.sub("", terminal.getvalue()).splitlines()
    time, level, rest = re.split(r" (?=\[)|\] ", line, maxsplit=2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time)
    assert level.strip(" [") == "info"
    assert " ".join(rest.split()) == "bundle.written key=2026/bundle-1.gz members=12 why='two words' missing=None"


@pytest.mark.parametrize(
    ("variable", "value", "coloured"), [("TERM", "xterm", True), ("TERM", "dumb", False), ("NO_COLOR", "1", False)]
)
def test_a_terminal_gets_colours_unless_it_has_none_or_nobody_wants_them(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, settings: Any, variable: str, value: str, *, coloured: bool
) -> None:
    monkeypatch.setenv(variable, value)

    terminal.log(settings()).info("bundle.written")

    assert bool(COLOUR.search(terminal.getvalue())) is coloured


def test_no_fact_and_no_traceback_commands_the_terminal(terminal: Terminal, settings: Any) -> None:
    log = terminal.log(settings())

    log.info("bundle.written", plain=EVIL[:-7], key=EVIL, keys=[EVIL], facts={EVIL: EVIL}, error=ValueError(EVIL))
    try:
        raise RuntimeError(EVIL)
    except RuntimeError:
        log.exception("invocation.failed")

    written = COLOUR.sub("", terminal.getvalue())
    assert [letter for letter in written if not letter.isprintable() and letter != "\n"] == []
    assert written.count(r"\u202egpj") == 7
    assert written.count(r"\x85") == 7


def test_a_level_that_is_not_wanted_is_left_out_on_a_terminal_too(terminal: Terminal, settings: Any) -> None:
    terminal.log(settings(LOG_LEVEL="WARNING")).info("bundle.written")

    assert terminal.getvalue() == ""


def test_a_long_fact_is_shortened_on_a_terminal_too(terminal: Terminal, settings: Any) -> None:
    terminal.log(settings()).info("envelope.rejected", why="x" * 250_000)

    assert "… (250,000 characters)" in terminal.getvalue()
    assert len(terminal.getvalue()) < 2_000


def test_a_variable_chooses_json_on_a_terminal(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "json")

    terminal.log(settings()).info("bundle.written", key=EVIL)

    assert json.loads(terminal.getvalue())["key"] == EVIL


@pytest.mark.parametrize(("wanted", "first"), [("console", "2"), ("nonsense", "{"), ("", "{")])
def test_a_variable_chooses_lines_for_people_in_a_file_and_they_have_no_colours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, settings: Any, wanted: str, first: str
) -> None:
    monkeypatch.setenv("LOG_FORMAT", wanted)

    telemetry.configure_logging(settings())
    structlog.get_logger().info("bundle.written")

    written = capsys.readouterr().out
    assert written[0] == first
    assert COLOUR.search(written) is None
