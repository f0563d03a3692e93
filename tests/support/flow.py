"""Keys and log lines for the tests of the flow."""

import unicodedata
from typing import Any

import pytest

from tests.support.world import log_lines

AWKWARD_KEYS = [
    "a b",
    "a+b",
    "a%2Bb",
    "a%20b",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "😀/🎉.json",
    "a//b",
    "/leading",
    "lead",
    "trailing/",
    "trailing",
    "./dot",
    "a/../up",
    "a/./b",
    "tab\tnewline\n",
    "~",
    "a?b#c&d=e",
    'quote"\\back',
    "k" * 1024,
    "é" * 512,
]


def finished(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return [line for line in log_lines(capsys.readouterr().out) if line.get("message") == "invocation.finished"][-1]
