"""The benchmarks run and count what they measure; the page says what was measured and no more. No time is judged."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import profile, run
from benchmarks.charts import draw
from benchmarks.report import page
from benchmarks.standin import Standin
from benchmarks.targets import rows
from benchmarks.trials import Trials, _check
from benchmarks.workloads import WORKLOADS

pytestmark = pytest.mark.once

BENCHMARKS = Path(run.__file__).parent
SMALL, MANY = "1,000 objects of 4 KiB", "3,000 objects of 4 KiB"
MEDIUM, LARGE = "200 objects of 1 MiB", "10 objects of 100 MiB"
LATE, TAIL = f"{MANY}, every call 20 ms late", f"{MANY}, calls as late as S3's"
SIZE, COUNTED = "bundle size against zlib level 6", "index included, from 4 KiB members up"

TARGETS = [
    (SMALL, "≥ 18 × textbook, level 9, objects/s"),
    (SMALL, "≤ 0.20 ms CPU an object"),
    (MANY, "≥ 18 × textbook, level 9, objects/s"),
    (MANY, "≤ 0.20 ms CPU an object"),
    (MEDIUM, "≥ 7 × textbook, level 6, MiB/s"),
    (MEDIUM, "≥ 22 × textbook, level 9, MiB/s"),
    (LARGE, "≥ 10 × textbook, level 9, MiB/s"),
    (LARGE, "both cores busy: ≥ 1.7"),
    (LATE, "≥ 3,600 objects/s"),
    (LATE, "≥ 220 × textbook, level 9, objects/s"),
    (TAIL, "≥ 3,000 objects/s, without those that take over a second"),
    (TAIL, "a slow object holds up nothing but itself: ≤ 0.5 s before the first GET and after the last"),
    (f"{LATE}, over TLS", "≥ 80 % of plain HTTP"),
    (f"{LATE}, over TLS", "no more handshakes than readers"),
    ("1,000 objects of 128 KiB, every call 50 ms late", "≤ 220 MiB peak RSS at 128 readers"),
    ("any of these, one after the other, and a batch with one 4 GB object", "≤ 220 MiB peak RSS"),
    (SIZE, f"≤ 1.15 at the default level, {COUNTED}"),
    (SIZE, f"≤ 1.00 at COMPRESSION_LEVEL=6, {COUNTED}"),
    ("index", "≤ 40 bytes a member without version ids"),
    ("index", "≤ 64 bytes a member with version ids"),
    ("index", "flush points ≤ 1 % of the bundle"),
    ("import and first invocation", "no slower than the textbook's"),
    ("parsing", "≥ 50,000 messages/s at batches of 3,000"),
    ("growth", "objects/s at 30,000 not below those at 300"),
    ("what the ledger is charged", "≤ 1.1 write units an envelope"),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the whole suite writes when it is run with a fiftieth of the objects; s3fs would have to be downloaded."""
    folder = tmp_path_factory.mktemp("benchmarks")
    run.main(["--quick", "--skip", "s3fs", "--out", str(folder)])
    return folder


@pytest.mark.chaos
def test_the_whole_suite_runs_and_measures_every_contender(tiny: Path) -> None:
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))

    assert {name: list(found["contenders"]) for name, found in results["workloads"].items()} == {
        workload.name: [each for each in workload.contenders if each != "s3fs"] for workload in WORKLOADS
    }
    measured = [found for each in results["workloads"].values() for found in each["contenders"].values()]
    assert all(found["seconds"] > 0 and found["cpu_seconds"] > 0 and found["peak_bytes"] > 0 for found in measured)
    assert results["standin"]["gets_per_second"] > 0
    late = results["workloads"]["late"]["contenders"]
    assert (late["ours"]["objects"], late["textbook"]["objects"]) == (60, 6)
    assert 0 < late["ours_tls"]["handshakes"] <= 60


@pytest.mark.chaos
def test_an_aggregator_asks_for_each_object_once(tiny: Path) -> None:
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))

    calls = {name: found["calls"] for name, found in results["workloads"]["small-1000"]["contenders"].items()}

    objects = results["workloads"]["small-1000"]["objects"]
    assert calls["obstore"] == objects
    assert calls["textbook"] == 3 * objects + 1  # claim, read, mark as done; the bundle
    assert calls["ours"] == objects + 3  # claims, a put and a settle record


@pytest.mark.chaos
def test_a_message_costs_one_write_unit_whatever_of_its_batch_comes_again(tiny: Path) -> None:
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))
    text = (tiny / "RESULTS.md").read_text(encoding="utf-8")

    counted = results["ledger"]

    assert [(found["messages"], found["duplicates"]) for found in counted] == [(20, 0), (20, 0), (20, 10)]
    assert [found["write_units"] for found in counted] == [20 + 1] * 3  # each is claimed, the bundle is settled
    assert [found["read_units"] > 0 for found in counted] == [False, False, True]
    assert f"| 50% | {counted[-1]['write_units'] / 20:.2f} | {counted[-1]['write_units'] / 10:.2f} |" in text


def test_what_the_ledger_is_charged_is_counted_anew_without_the_rest(tmp_path: Path) -> None:
    run.main(["--units", "--quick", "--out", str(tmp_path)])

    published, written = (
        json.loads((folder / "results.json").read_text(encoding="utf-8")) for folder in (BENCHMARKS, tmp_path)
    )
    assert {name for name in written if written[name] != published[name]} == {"ledger"}
    assert (tmp_path / "RESULTS.md").read_text(encoding="utf-8") == page(written)


@pytest.mark.chaos
def test_the_page_has_every_target_and_what_was_measured_beside_it(tiny: Path) -> None:
    results = json.loads((tiny / "results.json").read_text(encoding="utf-8"))
    text = (tiny / "RESULTS.md").read_text(encoding="utf-8")

    judged = rows(results)

    assert [(row.workload, row.target) for row in judged] == TARGETS
    assert all(f"| {row.workload} | {row.target} | {row.measured} | {row.verdict} |" in text for row in judged)


def test_the_published_page_is_that_of_the_published_figures() -> None:
    results = json.loads((BENCHMARKS / "results.json").read_text(encoding="utf-8"))
    text = (BENCHMARKS / "RESULTS.md").read_text(encoding="utf-8")

    assert text == page(results)
    assert {name: found["objects"] for name, found in results["workloads"].items()} == {
        workload.name: workload.objects for workload in WORKLOADS
    }


def test_a_target_that_is_missed_says_by_how_much_and_why() -> None:
    results = json.loads((BENCHMARKS / "results.json").read_text(encoding="utf-8"))

    missed = [row for row in rows(results) if row.margin < 1]

    assert all(re.fullmatch(r"\*\*missed by \d+%\*\*: .{20,}", row.verdict) for row in missed)
    assert [row.target for row in missed if "nobody knows" in row.verdict] == []


def test_the_published_charts_show_the_published_figures(tmp_path: Path) -> None:
    results = json.loads((BENCHMARKS / "results.json").read_text(encoding="utf-8"))

    draw(results, tmp_path / "once")
    draw(results, tmp_path / "again")

    for drawn in sorted((tmp_path / "once").iterdir()):
        assert drawn.read_bytes() == (tmp_path / "again" / drawn.name).read_bytes()
        assert _words(drawn) == _words(BENCHMARKS / "charts" / drawn.name) != []


def test_a_run_whose_bundles_lack_a_byte_is_no_measurement() -> None:
    with Standin() as standin, pytest.raises(RuntimeError, match=r"ours published 0 bytes on small-300, not 1310720"):
        _check("ours", WORKLOADS[0], standin)


def test_s3fs_is_left_out_with_a_word_where_it_cannot_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path / "python", "echo 'no network' >&2; exit 1")))
    said: list[str] = []

    with Trials(said.append) as trials:
        runs = [trials._runs("s3fs") for _ in range(2)]

    assert runs == [False, False]
    assert said == ["preparing s3fs (once, some ten seconds)", "s3fs is left out: s3fs cannot be installed: no network"]


def test_a_quick_run_does_not_replace_the_published_figures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--quick"])

    assert "name another folder with --out" in capsys.readouterr().err


def test_a_profiler_that_may_not_trace_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _script(tmp_path / "py-spy", "echo 'Error: Permission Denied' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SystemExit, match=r"Permission Denied.*CAP_SYS_PTRACE"):
        profile.main(["--out", str(tmp_path / "profile.svg")])


def test_a_profile_says_what_an_object_is_made_of_and_leaves_out_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stacks = [
        "thread (1): MainThread;invoked (benchmarks/client.py:80);_body (aggregator/app.py:9) 30",
        "thread (2): read-0;_work (aggregator/pipeline/readahead.py:5);get (obstore/store.py:7) 60",
        "thread (1): MainThread;invoked (benchmarks/client.py:80);other (powertools.py:3) 10",
        "thread (1): MainThread;<module> (aggregator/pipeline/core.py:1) 900",
    ]
    written = "\n".join(stacks)
    _script(tmp_path / "py-spy", f'while [ "$1" != --output ]; do shift; done\ncat > "$2" <<END\n{written}\nEND')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    profile.main(["--out", str(tmp_path / "profile.svg")])

    assert capsys.readouterr().out.splitlines() == [
        " 60%  read: ask obstore, hand over",
        " 30%  messages: parse and validate",
        " 10%  other",
        str(tmp_path / "profile.svg"),
    ]


def test_a_profiler_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(SystemExit, match="py-spy is not on the path"):
        profile.main([])


def _words(chart: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]+)</text>", chart.read_text(encoding="utf-8"))


def _script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_a_batch_of_the_worker_is_gathered_from_the_queue_of_the_stand_in_and_makes_one_bundle() -> None:
    call = [sys.executable, "-m", "benchmarks.large", "--messages", "120", "--objects", "2", "--bundle-mb", "1"]
    ran = subprocess.run(call, capture_output=True, text=True, check=True)

    measured = json.loads(ran.stdout)
    assert (measured["handled"], measured["kept"], measured["bundles"]) == (120, 0, 1)
    assert 0 < measured["gather_rss_mib"] <= measured["peak_mib"] < 220
