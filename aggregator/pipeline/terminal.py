"""
Log lines for people: time, level, event and facts, where standard output is a terminal.

Nothing in such a line commands the terminal: what is not to be seen is escaped, whoever chose it.
"""

import os
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import structlog

FORMATS = ("console", "json")
"""The values of LOG_FORMAT; without it, a terminal gets lines for people, and everything else gets JSON."""


def is_for_people(environment: Mapping[str, str]) -> bool:
    """Whether log lines are for people."""
    wanted = environment.get("LOG_FORMAT", "")
    return wanted == "console" if wanted in FORMATS else sys.stdout.isatty()


def renderers(environment: Mapping[str, str]) -> list[Any]:
    """Structlog's processors for such lines; colours if the terminal has them and NO_COLOR is not set."""
    plain = environment.get("NO_COLOR") or environment.get("TERM") == "dumb" or os.name == "nt"
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True),
        _escape,
        structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty() and not plain, exception_formatter=_write_traceback, sort_keys=False
        ),
    ]


class _Escaped:
    """A text as Python writes it in a program."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return repr(self._text)


def _escape(_logger: object, _method: str, facts: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in facts.items():
        if name == "exc_info" or isinstance(value, bool | int | float | list | tuple | dict | None):
            continue  # Python escapes the texts in a list by itself
        text = str(value)
        facts[name] = text if text.isprintable() else _Escaped(text)
    return facts


def _write_traceback(stream: TextIO, failure: Any) -> None:
    lines = "".join(traceback.format_exception(*failure)).rstrip("\n").split("\n")  # not at other separators
    stream.writelines("\n" + (line if line.isprintable() else repr(line)[1:-1]) for line in lines)
