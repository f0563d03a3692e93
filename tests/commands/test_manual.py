"""The command line explains itself: a manual at the top, an example at the end of each command, and completion."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from aggregator.commands.main import app


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
