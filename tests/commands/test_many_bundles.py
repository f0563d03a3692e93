"""`aggregator bundle cat`, `extract` and `repack` on a folder of bundles, and what they do when keys meet."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from aggregator.bundles.layout import PROBE_KEY
from aggregator.commands.main import app
from tests.support.bundles import write_bundle
from tests.support.world import World

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, in a folder with bundles of three hours; the name that comes last is not of the last hour."""
    monkeypatch.chdir(tmp_path)
    write_bundle(tmp_path / "hours/1.gz", {"a": b"first", "b": b"second", "A": b"large"}, hour="08")
    write_bundle(tmp_path / "hours/2.gz", {"a": b"newest", "data[1]": b"9"}, hour="10")
    write_bundle(tmp_path / "hours/3.gz", {"a": b"third", "data1": b"10"}, hour="09")
    return lambda *arguments: CliRunner().invoke(app, ["bundle", *arguments])


def test_cat_writes_the_member_of_the_newest_bundle_and_says_that_others_hold_it(run: Run) -> None:
    ran = run("cat", "hours", "a")
    alone = run("cat", "hours", "b")

    assert (ran.exit_code, ran.stdout_bytes) == (0, b"newest")
    assert ran.stderr == "3 bundles hold that key: this is from the newest, hours/2.gz\n"
    assert (alone.exit_code, alone.stdout_bytes, alone.stderr) == (0, b"second", "")


def test_cat_of_a_key_that_no_bundle_holds_is_one_sentence(run: Run) -> None:
    ran = run("cat", "hours", "missing")

    assert (ran.exit_code, ran.stderr) == (
        2,
        "aggregator: no member has that key: search other bundles by `aggregator find KEY TARGET` (key='missing')\n",
    )


def test_cat_reads_what_it_can_and_ends_as_a_finding_where_a_bundle_is_damaged(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hours/4.gz").write_bytes((tmp_path / "hours/1.gz").read_bytes()[:-1])

    ran = run("cat", "hours", "b")

    assert (ran.exit_code, ran.stdout_bytes, ran.stderr[:23]) == (1, b"second", "hours/4.gz: truncated (")


def test_extract_writes_the_members_of_all_bundles_and_of_equal_keys_the_newest(run: Run, tmp_path: Path) -> None:
    ran = run("extract", "hours", "--to", "out")

    assert (ran.exit_code, ran.stdout) == (0, "A\tout/A~2\n")
    assert _files(tmp_path / "out") == {
        "a": b"newest",
        "b": b"second",
        "A~2": b"large",
        "data[1]": b"9",
        "data1": b"10",
    }
    assert ran.stderr.splitlines() == [
        "5 members (20 bytes) extracted, 1 renamed",
        "left out, because a newer bundle holds the same key: 2 members",
    ]


def test_extract_again_names_the_option_once(run: Run, tmp_path: Path) -> None:
    run("extract", "hours", "--to", "out")

    again = run("extract", "hours", "--to", "out")
    over = run("extract", "hours", "--to", "out", "--overwrite")

    assert (again.exit_code, over.exit_code) == (1, 0)
    (said,) = [line for line in again.stderr.splitlines() if "exist" in line]
    assert said == "files that exist already, such as 'out/b': 5 (--overwrite replaces them)"
    assert len(again.stderr.splitlines()) == 3


def test_a_member_keeps_its_name_whichever_others_are_extracted_from_a_folder(run: Run, tmp_path: Path) -> None:
    ran = run("extract", "hours", "A", "--to", "out", "--json")

    assert _files(tmp_path / "out") == {"A~2": b"large"}
    assert json.loads(ran.stdout)["in_newer_bundles"] == 0


def test_a_pattern_that_is_a_key_of_any_bundle_means_that_key_in_all(run: Run, tmp_path: Path) -> None:
    run("extract", "hours", "data[1]", "--to", "out")

    assert _files(tmp_path / "out") == {"data[1]": b"9"}


def test_max_bytes_counts_over_all_bundles_before_anything_is_written(run: Run, tmp_path: Path) -> None:
    ran = run("extract", "hours", "--to", "out", "--max-bytes", "19")

    assert (ran.exit_code, "bytes=20, max_bytes=19" in ran.stderr) == (2, True)
    assert _files(tmp_path / "out") == {}


def test_members_of_two_buckets_with_one_key_are_both_extracted(run: Run, tmp_path: Path) -> None:
    write_bundle(tmp_path / "hours/4.gz", {"a": b"elsewhere"}, hour="12", bucket="other")

    run("extract", "hours", "a", "--to", "out")

    assert _files(tmp_path / "out") == {"a": b"elsewhere", "a~3": b"newest"}


def test_a_bundle_that_is_damaged_does_not_keep_the_others_from_being_extracted(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hours/2.gz").write_bytes((tmp_path / "hours/2.gz").read_bytes()[:-1])

    ran = run("extract", "hours", "--to", "out")

    assert (ran.exit_code, _files(tmp_path / "out")["a"]) == (1, b"third")
    assert ran.stderr.startswith("hours/2.gz: truncated")


def test_the_probe_of_the_doctor_in_a_copy_of_the_bucket_is_not_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "hours/doctor").mkdir()
    (tmp_path / "hours" / PROBE_KEY).write_bytes(b"reported if it is read")

    ran = run("list", "hours")

    assert (ran.exit_code, ran.stderr[:22]) == (0, "7 members in 3 bundles")


def test_a_bundle_is_not_repacked_into_a_folder_that_is_read(run: Run, tmp_path: Path) -> None:
    before = _files(tmp_path)

    rans = [run("repack", "hours", "--out", out) for out in ("hours/all.gz", "hours/", "hours/../hours/x/")]

    assert [ran.exit_code for ran in rans] == [2, 2, 2]
    assert all("its readers would get every member twice" in ran.stderr for ran in rans)
    assert _files(tmp_path) == before
    assert run("repack", "hours/1.gz", "--out", "hours/one.gz").exit_code == 0


@pytest.mark.integration
def test_a_whole_bucket_does_as_well_without_the_probe_of_the_doctor(run: Run, tmp_path: Path, world: World) -> None:
    for path in (tmp_path / "hours").iterdir():
        world.s3.put_object(Bucket=world.distribution, Key=f"2026/{path.name}", Body=path.read_bytes())
    world.s3.put_object(Bucket=world.distribution, Key=PROBE_KEY, Body=b"reported if it is read")
    prefix = f"s3://{world.distribution}/"

    ran = run("cat", prefix, "a")
    extracted = run("extract", prefix, "--to", "out")
    listed = run("list", prefix)

    assert (ran.stdout_bytes, extracted.exit_code, len(listed.stdout.splitlines())) == (b"newest", 0, 7)
    assert (listed.exit_code, listed.stderr[:22]) == (0, "7 members in 3 bundles")
    assert _files(tmp_path / "out")["a"] == b"newest"


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
