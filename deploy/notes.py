"""
The notes of a release: what `CHANGELOG.md` says of its version.

    python -m deploy.notes v0.1.0      prints the section [0.1.0]
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from aggregator.exceptions import AggregatorError

ROOT = Path(__file__).parent.parent


class NotesError(AggregatorError):
    """A tag cannot be released."""

    reason = "notes"


def notes(tag: str, changelog: str, version: str) -> str:
    """
    The section of `changelog` that the tag names.

    Raises:
        NotesError: the tag is not v and `version`, or the changelog has no text for it, or text that is not released.
    """
    if tag != f"v{version}":
        raise NotesError("the tag is not the version of pyproject.toml", tag=tag, version=version)
    parts = re.split(r"^## \[(.+?)\].*\n", changelog, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    if sections.get("Unreleased", "").strip():
        raise NotesError(
            "CHANGELOG.md has text under Unreleased: move it into the section of the version", version=version
        )
    text = re.split(r"^Next: ", sections.get(version, ""), flags=re.MULTILINE)[0].strip()
    if not text:
        raise NotesError("CHANGELOG.md has no section with text for the version", version=version)
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the notes, or say why there are none."""
    parser = argparse.ArgumentParser(prog="python -m deploy.notes", description="Print the notes of a release.")
    parser.add_argument("tag", help="such as v0.1.0")
    tag = parser.parse_args(arguments).tag
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    try:
        print(notes(tag, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version))
    except NotesError as error:
        print(f"notes: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
