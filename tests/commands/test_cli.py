"""However a command ends, it says so in words and by its status: a crash is never a finding."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aggregator.commands.console import BUG, UNREAD
from aggregator.commands.main import app
from aggregator.commands.options import moment
from aggregator.operations.capacity import costs

PLAN = ("plan", "--objects-per-day", "50M", "--object-size", "4KiB")
WHERE = ("where", "s3://b/k", "--distribution", "d", "--table", "t")
RECONCILE = ("reconcile", "--source", "s3://b", "--distribution", "d")


@pytest.mark.parametrize(
    ("environment", "call", "said"),
    [
        (
            {"AWS_PROFILE": "nosuch"},
            WHERE,
            "there is no profile 'nosuch': AWS_PROFILE names one of ~/.aws/config, in which there is none",
        ),
        (
            {"AWS_DEFAULT_REGION": ""},
            ("redrive", "--dlq", "http://127.0.0.1:9/q"),
            "no region is set: set AWS_DEFAULT_REGION, or the region of your profile",
        ),
        (
            {"AWS_ENDPOINT_URL": "foo"},
            WHERE,
            "'foo' is not an endpoint: AWS_ENDPOINT_URL and --endpoint-url are such as http://127.0.0.1:4566",
        ),
        (
            {},
            ("local", "fixtures/samples", "--out", "{folder}", "--endpoint-url", "foo"),
            "'foo' is not an endpoint: AWS_ENDPOINT_URL and --endpoint-url are such as http://127.0.0.1:4566",
        ),
        (
            {},
            ("redrive", "--dlq", "http://127.0.0.1:9/q"),
            "no connection to http://127.0.0.1:9/: check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL",
        ),
        (
            {"AWS_ACCESS_KEY_ID": ""},
            ("redrive", "--dlq", "http://127.0.0.1:9/q"),
            "there are no credentials: set AWS_PROFILE, or log in (aws sso login)",
        ),
    ],
)
def test_an_aws_that_cannot_be_asked_is_one_line_with_what_to_do(
    tmp_path: Path, environment: dict[str, str], call: tuple[str, ...], said: str
) -> None:
    ran = _aggregator(*(word.format(folder=tmp_path) for word in call), **environment)

    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"aggregator: {said}\n")


@pytest.mark.parametrize("since", ["0001-01-01", "99999999999d", "1969-12-31"])
def test_a_time_before_there_was_s3_is_as_good_as_the_first(since: str) -> None:
    assert moment(since, 1e9, option="--since") == 0
    assert _aggregator(*RECONCILE, "--since", since).stderr.startswith("aggregator: a bucket cannot be listed")


def test_a_time_that_no_calendar_has_any_more_is_as_good_as_the_last() -> None:
    assert moment("9999-12-31T23:59-14:00", 1e9, option="--until") == 253_370_764_800


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "soon"), "Invalid value for --since: 'soon' is not a time"),
        (("--since", "1d", "--until", "soon"), "Invalid value for --until: 'soon' is not a time"),
        (("--since", "1d", "--until", "2d"), "Invalid value for --since: it is not before --until"),
        (("--since", "1d", "--grace", "soon"), "Invalid value for --grace: 'soon' is not a duration"),
        (("--since", "1d", "--source", "b"), "Invalid value for --source: 'b' is not s3://bucket/…"),
    ],
)
def test_a_value_that_is_refused_is_told_with_its_option(options: tuple[str, ...], said: str) -> None:
    ran = CliRunner().invoke(app, [*RECONCILE, *options])

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert said in ran.stderr


def test_what_nobody_foresaw_is_a_bug_with_its_traceback_and_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def divide(*_: object, **__: object) -> float:
        return 1 / 0

    monkeypatch.setattr(costs, "plan", divide)

    ran = CliRunner().invoke(app, PLAN)

    *trace, last = ran.stderr.splitlines()
    assert (ran.exit_code, ran.stdout, last) == (
        BUG,
        "",
        "aggregator: unexpected error: please report it together with the traceback above",
    )
    assert (trace[0], trace[-1]) == ("Traceback (most recent call last):", "ZeroDivisionError: division by zero")


@pytest.mark.parametrize("call", [PLAN, (*PLAN, "--json"), ("stats", "fixtures/bundles", "--json"), ("--help",)])
def test_a_full_disk_is_one_line_and_no_finding(call: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        ran = _aggregator(*call, stdout=full)

    assert (ran.returncode, ran.stderr) == (
        2,
        "aggregator: no space is left on the disk: free some, or name another place\n",
    )


def test_a_reader_who_has_seen_enough_ends_it_without_a_word() -> None:
    ours, theirs = os.pipe()
    os.close(ours)

    with open(theirs, "w", encoding="utf-8") as pipe:  # noqa: PTH123 - a descriptor
        ran = _aggregator(*PLAN, stdout=pipe)

    assert (ran.returncode, ran.stderr) == (UNREAD, "")


@pytest.mark.parametrize("call", [("contract", "validate", "-"), ("bundle", "list", "-")])
def test_a_standard_input_that_is_closed_is_one_line(call: tuple[str, ...]) -> None:
    ran = _aggregator(*call, preexec_fn=lambda: os.close(0))

    assert (ran.returncode, ran.stdout) == (2, "")
    assert "there is no standard input" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_an_output_that_is_closed_is_nobodys_mistake() -> None:
    assert _aggregator(*PLAN, preexec_fn=lambda: os.close(1)).returncode == 0


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_what_a_program_reads_is_utf_8_whatever_the_locale(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "é 😀.gz").write_bytes(Path("fixtures/bundles/v1-lines.gz").read_bytes())

    ran = _aggregator("bundle", "list", "--totals", tmp_path / "é 😀.gz", PYTHONIOENCODING=encoding)

    assert ran.returncode == 0
    assert ran.stdout.endswith("/é 😀.gz\n")


_SAYING_WHEN_GUARDED = """
import signal, sys
from aggregator.__main__ import main
handle = signal.signal
def say(*given):
    signal.signal = handle
    handle(*given)
    print(end="!", flush=True)
signal.signal, sys.argv[0] = say, "a"
main()
"""


@pytest.mark.parametrize("after", [0.05, 0.1, 0.2, 0.3, 0.5])
def test_an_interrupt_ends_it_without_a_traceback_from_the_beginning(after: float) -> None:
    """What comes before is Python's own beginning, which nobody can guard; the delays only make the moment another."""
    command = [sys.executable, "-c", _SAYING_WHEN_GUARDED, "contract", "validate", "-"]
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=_environment(), **pipes) as running:
        assert running.stdout
        running.stdout.read(1)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(after)
        running.send_signal(signal.SIGINT)
        err = running.stderr.read() if running.stderr else None

    assert running.returncode in {130, -signal.SIGINT}  # a shell says 130 of both
    assert err == b""


def test_a_workload_of_empty_objects_has_a_plan() -> None:
    ran = CliRunner().invoke(app, ["plan", "--objects-per-day", "50M", "--object-size", "0"])

    assert ran.exit_code == 0
    assert "0 bytes of text" in ran.stdout


def test_the_version_is_told_and_h_is_help() -> None:
    runs = [CliRunner().invoke(app, call) for call in (["--version"], ["-h"], ["bundle", "list", "-h"])]

    assert [ran.exit_code for ran in runs] == [0, 0, 0]
    assert runs[0].stdout.split()[:2] == ["aggregator", "0.1.0"]
    assert all("Usage: " in ran.stdout for ran in runs[1:])


def _environment(**given: str) -> dict[str, str]:
    """Nobody's credentials, and an AWS that is not there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    aws = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}
    aws |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true"}
    aws |= {"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
    return {name: value for name, value in {**kept, **aws, **given}.items() if value}


def _aggregator(*arguments: object, stdout: Any = subprocess.PIPE, preexec_fn: Any = None, **environment: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "aggregator", *map(str, arguments)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        check=False,
        env=_environment(**environment),
        preexec_fn=preexec_fn,
        timeout=120,
    )
