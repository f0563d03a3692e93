"""Files that a stranger wrote end a command with one line, and in time."""

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.targets import bundle_at
from aggregator.exceptions import OpeningError
from aggregator.operations.capacity.costs import PlanError, priced
from aggregator.operations.doctor.template import TemplateError, read
from aggregator.operations.replay.backfill import BackfillError, Bookmark, Mark, Totals
from aggregator.operations.statistics import Figures
from aggregator.runtimes.local.files import readable_files
from tests.support.damage import pack, rewritten


@pytest.mark.parametrize(
    "text",
    [
        "Resources: &a {A: {Type: B, Properties: *a}}",
        "a: &a [x, x]\nb: &b [*a, *a]\nResources: {A: {Type: B, P: *b}}",
        "Resources: " + "[" * 5_000,
    ],
)
def test_a_template_with_aliases_or_of_many_levels_is_rejected(text: str, tmp_path: Path) -> None:
    (tmp_path / "template.yaml").write_text(text)

    with pytest.raises(TemplateError):
        read(tmp_path / "template.yaml")


def test_prices_of_many_levels_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "prices.json").write_text("[" * 100_000)

    with pytest.raises(PlanError, match="not a JSON object"):
        priced(tmp_path / "prices.json")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.gz")

    for path in (tmp_path / "fifo.gz", Path("/dev/zero")):
        with pytest.raises(OpeningError, match="a pipe or a device"):
            Bundle.open(path)


def test_standard_input_that_does_not_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/zero").open("rb") as zeros:
        monkeypatch.setattr("aggregator.bundles.targets.standard_input", lambda: zeros)
        with pytest.raises(OpeningError, match="not a bundle, or larger than any is"):
            bundle_at("-")


@pytest.mark.parametrize("times", [("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"), ("9999-12-31T23:00:00Z",) * 2])
def test_bundles_of_impossible_times_spoil_no_report(times: tuple[str, str], small: bytes) -> None:
    figures = Figures(limit=1_000, depth=1)

    for created in times:
        changed = rewritten(small, index=lambda fields, created=created: fields.update(created=created))  # type: ignore[misc]
        figures.add(Bundle.open(io.BytesIO(changed)))

    assert sum(period.bundles for period in figures.periods()) == 2
    assert len(figures.periods()) <= 2


def test_a_mark_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "planted").write_text(json.dumps({"call": {}, "began": 0, "position": {}, "unsent": [], "totals": {}}))
    (tmp_path / "mark").symlink_to(tmp_path / "planted")
    (tmp_path / "victim").write_text("old")
    (tmp_path / "own.new").symlink_to(tmp_path / "victim")

    with pytest.raises(BackfillError, match="is a link, or not yours"):
        Bookmark(tmp_path / "mark", {}).load()
    Bookmark(tmp_path / "own", {}).save(Mark({}, [], Totals()))

    assert (tmp_path / "victim").read_text() == "old"
    assert (tmp_path / "own").stat().st_mode & 0o077 == 0


def test_a_local_run_uploads_no_file_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("1")
    (folder / "inside").symlink_to(folder / "file")
    (folder / "outside").symlink_to(tmp_path / "secret")

    found = readable_files(folder, out=tmp_path / "out")

    assert (sorted(found.by_key), list(found.left_out)) == (["file", "inside"], [folder / "outside"])


@pytest.fixture
def small(executor: Any) -> bytes:
    """A bundle of one member."""
    return pack([b"a"], executor)
