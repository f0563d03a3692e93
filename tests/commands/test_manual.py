"""The command line explains itself: a manual at the top, an example at the end of each command, and completion."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from aggregator.commands.main import app

pytestmark = pytest.mark.once


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield from (
            _commands(command, f"{path} {name}") if hasattr(command, "commands") else [(f"{path} {name}", command)]
        )


COMMANDS = dict(_commands(typer.main.get_command(app), "aggregator"))


@pytest.mark.parametrize("path", COMMANDS)
def test_each_command_says_what_it_does_and_ends_with_an_example(path: str) -> None:
    ran = CliRunner().invoke(app, [*path.split()[1:], "--help"], env={"COLUMNS": "120"})

    assert ran.exit_code == 0
    assert (COMMANDS[path].help or "").strip().partition("\n")[0].endswith((".", ":"))
    assert f"{' '.join(ran.output.split()).rpartition('Example: ')[2]} ".startswith(f"{path} ")


def test_the_manual_says_how_all_commands_speak_and_end() -> None:
    text = " ".join(CliRunner().invoke(app, ["--help"]).output.split())

    for sentence in (
        "--json",
        "Exit status: 0, all is well.",
        "s3://bucket/key; - is standard input",
        "AWS_ENDPOINT_URL",
    ):
        assert sentence in text


@pytest.mark.parametrize("call", [(), ("bundle",), ("contract",)])
def test_no_summary_is_cut_on_a_narrow_terminal(call: tuple[str, ...]) -> None:
    group = typer.main.get_command(app)
    for name in call:
        group = group.commands[name]  # type: ignore[attr-defined]

    text = " ".join(CliRunner().invoke(app, [*call, "--help"], env={"COLUMNS": "80"}).output.split())

    for command in group.commands.values():  # type: ignore[attr-defined]
        summary = command.short_help or (command.help or "").strip().partition("\n\n")[0]
        assert f" {command.name} {' '.join(summary.split())}" in text


@pytest.mark.parametrize("path", COMMANDS)
def test_values_are_named_as_people_name_them(path: str) -> None:
    text = CliRunner().invoke(app, [*path.split()[1:], "--help"], env={"COLUMNS": "120"}).output

    assert not re.search(r"<(int|float|str|bool|path)\b", text)


def test_the_commands_stand_in_groups() -> None:
    lines = CliRunner().invoke(app, ["--help"]).output.splitlines()

    assert [line for line in lines if line in {"Try:", "Read:", "Operate:", "Contracts:"}] == [
        *("Try:", "Read:", "Operate:", "Contracts:")
    ]


@pytest.mark.parametrize(("variables", "framed"), [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_panels_in_which_brackets_are_brackets(variables: dict[str, str], framed: bool) -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-m", "aggregator", "bundle", "extract", "--help"]
    with subprocess.Popen(command, stdout=theirs, env={**os.environ, "COLUMNS": "120", **variables}) as running:
        os.close(theirs)
        text = _read(ours)
    os.close(ours)

    assert running.returncode == 0
    assert ("╭─ Options" in text, "[abc] and [!abc]" in text) == (framed, True)


def _read(terminal: int) -> str:
    """What was written to a terminal until its last user left, without colours."""
    data = b""
    with contextlib.suppress(OSError):  # what Linux says then
        while chunk := os.read(terminal, 65_536):
            data += chunk
    return re.sub(r"\x1b\[[0-9;]*m", "", data.decode())


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("aggregator bundle ver", ["verify"]),
        ("aggregator bundle verify --de", ["--deep"]),
        ("aggregator bundle cat fixtures/bundles/v1-lines.gz in/a", ["in/a.json"]),
        ("aggregator bundle cat no-such-file in/a", []),
    ],
)
def test_the_shell_completes_commands_options_and_keys(words: str, completed: list[str]) -> None:
    environment = {"_AGGREGATOR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}

    ran = CliRunner().invoke(app, [], prog_name="aggregator", env=environment)

    assert ran.output.split() == completed
