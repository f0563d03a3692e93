"""
`docs/scaling.md` shows what `aggregator plan` prints: each comment with a call is followed by the call and its output.

`python -m tests.documents.test_scaling` writes the document anew.
"""

import re
import shlex

from typer.testing import CliRunner

from aggregator.commands.main import app
from tests.support import ROOT

DOCUMENT = ROOT / "docs" / "scaling.md"
_CALL = re.compile(r"<!-- plan: (.*?) -->\n(?:\n```text\n.*?```\n)?", re.DOTALL)


def test_the_tables_of_the_document_are_what_the_command_prints() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")

    assert len(_CALL.findall(text)) == 6
    assert written(text) == text


def written(text: str) -> str:
    """The document with the output of each call behind its comment."""
    return _CALL.sub(lambda found: f"<!-- plan: {found[1]} -->\n\n```text\n{_printed(found[1])}```\n", text)


def _printed(call: str) -> str:
    ran = CliRunner().invoke(app, ["plan", *shlex.split(call)])
    assert not ran.stderr
    return f"$ aggregator plan {call}\n{ran.stdout}"


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
