"""The examples of `docs/audit.md` and of the commands' help run, and print what the page says."""

import re
import shlex
import uuid
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from aggregator.commands.main import app
from tests.support import ROOT
from tests.support.world import World

pytestmark = [pytest.mark.integration, pytest.mark.once]

PAGE = ROOT / "docs" / "audit.md"
EXAMPLES = re.findall(
    r"```sh\n(aggregator [^\n]*)\n```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL
)

_VARYING = {
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}": "ID",
    r"-[0-9a-f]{8}\.gz": "-SUFFIX.gz",
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ": "TIME",
    r"\d{4}/\d\d/\d\d/\d\d/": "HOUR/",
    r"\d{4}-\d\d-\d\d \d\d:00": "HOUR",
    r"[\d,.]+ (bytes|kB)": "SIZE",
    r"start +\d+": "start OFFSET",
    r"compression \d+\.\d\d": "compression RATIO",
}
"""What is different each time: names, moments, the order of members, and sizes, because names are compressed."""


@pytest.fixture
def orders(world: World) -> World:
    """Orders of two hours, one of them broken, one that nobody announced."""
    files = {f"{hour:02}/order-{at}.json": b'{"order": %d}\n' % at * 20 for hour in (8, 9) for at in range(1, 4)}
    broken = {"09/broken.json.gz": b"\x1f\x8b\x08 no gzip"}
    world.put_all({**files, **broken, "09/unannounced.json": b"{}\n"})
    refused = str(uuid.uuid4())
    bodies = {key: world.body(key) for key in files} | {refused: world.body(*broken)}
    assert world.deliver_bodies(bodies) == {refused}
    return world


@pytest.mark.parametrize(("command", "printed"), EXAMPLES, ids=lambda text: " ".join(text.split()[:2]))
def test_the_examples_of_the_page_print_what_it_says(orders: World, command: str, printed: str) -> None:
    assert _steady(_run(orders, command)[1]) == _steady(printed)


def test_the_page_has_an_example_of_each_command() -> None:
    assert {command.split()[1] for command, _ in EXAMPLES} == {"where", "reconcile", "stats"}


@pytest.mark.parametrize("name", ["where", "reconcile", "stats"])
def test_the_example_in_the_help_of_each_command_runs(
    orders: World, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    example = str(typer.main.get_group(app).commands[name].epilog).removeprefix("Example: ")

    status, out = _run(orders, example)

    assert example.startswith(f"aggregator {name} ")
    assert status == 0, out
    assert [path.name for path in tmp_path.iterdir()] == (["stats.html"] if "--html" in example else [])


def _run(world: World, command: str) -> tuple[int, str]:
    """Run a command line of the page in a world; what it prints, under the names that the page uses."""
    command = command.replace("s3://orders", f"s3://{world.source}")
    command = command.replace("s3://bundles/2026/11/", f"s3://{world.distribution}/")
    ran = CliRunner().invoke(app, shlex.split(command)[1:])
    return ran.exit_code, ran.stdout.replace(world.source, "orders").replace(world.distribution, "bundles")


def _steady(text: str) -> list[str]:
    """The lines of a text without what varies; of two prefixes with as many members, either may be first."""
    for varying, steady in _VARYING.items():
        text = re.sub(varying, steady, text)
    return sorted(text.splitlines(), key=lambda line: line if line.startswith("s3://") else "")
