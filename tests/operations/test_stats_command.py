"""`aggregator stats` over a bucket, a prefix and a folder."""

import errno
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aggregator.bundles.layout import PROBE_KEY
from aggregator.commands import stats
from aggregator.commands.main import app
from aggregator.pipeline.core import empty_bundle
from fixtures.generate import golden
from tests.support.world import World

pytestmark = pytest.mark.integration


def test_bundles_of_a_bucket_are_counted_deleted_ones_too_and_the_report_is_written(
    world: World, tmp_path: Path
) -> None:
    world.put_all({"in/a": b"1\n" * 500, "in/b": b"2\n" * 500, "c": b"3\n"})
    world.deliver(["in/a", "in/b"])
    (first,) = world.bundles()
    world.s3.delete_object(Bucket=world.distribution, Key=first.index.bundle)
    world.deliver(["c"])
    world.s3.put_object(Bucket=world.distribution, Key="closed.gz", Body=empty_bundle("closed.gz", 0, "r"))
    world.s3.put_object(Bucket=world.distribution, Key=PROBE_KEY, Body=empty_bundle(PROBE_KEY, 0, "doctor"))
    report = tmp_path / "report.html"

    ran = CliRunner().invoke(
        app, ["stats", f"s3://{world.distribution}", "--json", "--html", str(report), "--max-bundle-input-mb", "1"]
    )

    found = json.loads(ran.stdout)
    prefixes = [
        {"name": f"s3://{world.source}/in/", "members": 2, "size": 2_000},
        {"name": f"s3://{world.source}/", "members": 1, "size": 2},
    ]
    assert ran.exit_code == 0
    assert (found["bundles"], found["empty_bundles"], found["members"], found["text_bytes"]) == (2, 1, 3, 2_002)
    assert (found["fill"], found["prefixes"], found["unreadable"]) == (0.001001, prefixes, 0)
    assert found["bundle_bytes"] == sum(bundle.size for bundle in world.bundles())
    assert f"<h1>Bundle statistics: s3://{world.distribution}</h1>" in report.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("share", "shown"),
    [(None, "-"), (0.0, "0%"), (3.5e-7, "<0.001%"), (1e-5, "0.001%"), (0.0123, "1.2%"), (0.5, "50%")],
)
def test_a_share_is_shown_without_an_exponent(share: float | None, shown: str) -> None:
    assert stats._percent(share) == shown


def test_a_bundle_costs_one_request_for_its_tail_whatever_its_size(world: World) -> None:
    world.put("a", random.Random(1).randbytes(3_000_000))
    world.deliver("a")

    with world.watched() as calls:
        ran = CliRunner().invoke(app, ["stats", f"s3://{world.distribution}/"])

    assert ran.exit_code == 0
    assert "bundled     3.0 MB" in ran.stdout
    assert calls == ["ListObjectVersions", "GetObject"]


def test_a_folder_does_as_well_and_what_is_no_bundle_is_named(tmp_path: Path) -> None:
    (tmp_path / "good.gz").write_bytes(golden("v1-lines.gz"))
    (tmp_path / "bad.gz").write_bytes(golden("v1-lines.gz")[:-1])

    ran = CliRunner().invoke(app, ["stats", str(tmp_path), "--depth", "0"])

    lines = ran.stdout.splitlines()
    assert ran.exit_code == 1
    assert lines[:4] == ["bundles     1", "empty       0", "unreadable  1", "members     4"]
    assert ran.stderr.startswith(f"aggregator: {tmp_path}/bad.gz: truncated (or plain gzip that never was a bundle)")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no-such-folder", "aggregator: no-such-folder is not a folder"),
        ("s3://no-such-bucket/", "aggregator: a bucket's versions cannot be listed"),
    ],
)
def test_a_wrong_call_is_told_in_words(world: World, target: str, said: str) -> None:
    ran = CliRunner().invoke(app, ["stats", target])

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(said)


def test_where_there_is_no_bundle_it_is_said(world: World, tmp_path: Path) -> None:
    for target in (f"s3://{world.distribution}/2020/", str(tmp_path)):
        ran = CliRunner().invoke(app, ["stats", target])

        assert (ran.exit_code, ran.stderr) == (0, f"no bundle found below {target}\n")


def test_a_folder_that_may_not_be_read_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs the tests may read everything, so the system's answer is given here."""
    (tmp_path / "closed").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if os.fspath(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

    ran = CliRunner().invoke(app, ["stats", str(tmp_path)])

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"aggregator: {tmp_path / 'closed'}: no permission")
