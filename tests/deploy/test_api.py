"""The public API: its page is the code's, and what breaks who depends on it is noticed."""

import contextlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy import api
from tests.support import ROOT

pytestmark = pytest.mark.once

LIST = """### `aggregator.reader`

```python
class Bundle:
    size: int
    def read(self, member: Member, begin: int=0) -> bytes: ...

def opened(source: str) -> Bundle: ...
```
"""


def test_the_page_lists_what_the_code_has_and_nothing_is_broken(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / api.PAGE).read_text(encoding="utf-8")

    assert (api.main(["check"]), capsys.readouterr().err) == (0, "")
    assert text == api.page(text, api.listed()), "run `just api`"


@pytest.mark.parametrize(
    ("old", "new", "broken"),
    [
        ("", "", []),
        ("begin: int=0", "begin: int=0, end: int=0", []),
        ("size: int", "size: int\n    entries: list[Member]", []),
        ("    size: int\n", "", ["aggregator.reader.Bundle.size: Public object was removed"]),
        ("def opened", "def opening", ["aggregator.reader.opened: Public object was removed"]),
        ("source: str", "source: str, key: str", ["aggregator.reader.opened: Parameter was added as required"]),
        ("begin: int=0", "begin: int", ["aggregator.reader.Bundle.read: Parameter is now required"]),
        ("aggregator.reader", "aggregator.readers", ["aggregator.reader: the module was removed"]),
    ],
)
def test_what_a_caller_can_no_longer_do_is_a_break_and_an_addition_is_not(
    old: str, new: str, broken: list[str]
) -> None:
    assert old in LIST

    assert api.breaks(LIST, LIST.replace(old, new, 1)) == broken


@pytest.mark.parametrize(
    ("released", "version", "accepted"),
    [
        (None, "0.1.0", False),
        ("v0.1.0", "0.1.1", False),
        ("v0.1.9", "0.2.0", True),
        ("v0.9.0", "1.0.0", True),
        ("v1.9.0", "1.10.0", False),
        ("v1.9.0", "2.0.0", True),
    ],
)
def test_a_break_needs_a_version_that_may_have_one(released: str | None, version: str, *, accepted: bool) -> None:
    new = LIST.replace("opened", "opening")
    expected: Any = contextlib.nullcontext() if accepted else pytest.raises(api.BreakError, match="raise the version")

    with expected:
        api.check(LIST, new, released=released, version=version, changelog="- `opened` is now `opening`\n")


def test_a_break_is_measured_at_the_last_tag_and_named_in_the_changelog_since_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, "ROOT", tmp_path)
    monkeypatch.setattr(api, "listed", lambda: LIST.replace("opened", "opening"))
    changelog = "## [Unreleased]\n\n- {}\n\n## [0.1.0]\n\n- `opened` opens\n"
    (tmp_path / "docs").mkdir()
    (tmp_path / api.PAGE).write_text(LIST)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["tag", "v0.1.0"]):
        subprocess.run([*git, *arguments], check=True)
    (tmp_path / api.PAGE).write_text(LIST.replace("opened", "opening"))

    (tmp_path / "CHANGELOG.md").write_text(changelog.format("nothing"))
    unnamed = api.main(["check"])
    (tmp_path / "CHANGELOG.md").write_text(changelog.format("`opened` is now `opening`"))
    named = api.main(["check"])

    assert (unnamed, named) == (1, 0)
    assert capsys.readouterr().err.startswith(
        "api: the public API breaks: name it in CHANGELOG.md under Changed (breaks=['aggregator.reader.opened"
    )


def test_writing_changes_the_list_and_nothing_else_of_the_page() -> None:
    text = "# The API\n\n<!-- written by `just api` -->\n\nold\n\n<!-- end -->\n\nNext.\n"

    assert api.page(text, "new\n") == text.replace("old", "new")
