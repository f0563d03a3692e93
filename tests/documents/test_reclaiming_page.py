"""The examples of `docs/reclaiming.md` and of the command's help run, and print what the page says."""

import re
import shlex
import time

import pytest
import typer
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.operations.reclaiming import MEANING
from tests.support import ROOT
from tests.support.reclaiming import Reclaiming
from tests.support.world import World

pytestmark = [pytest.mark.integration, pytest.mark.once]

PAGE = (ROOT / "docs" / "reclaiming.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```sh\n(aggregator [^\n]*)\n```\n\n```text\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_of_the_page_and_of_the_help_print_what_the_page_says(
    world: World, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("reclaiming"))
    reclaiming = Reclaiming(world)
    reclaiming.bundle({f"08/order-{at}.json": b'{"order": %d}\n' % at * 20 for at in range(1, 4)})
    world.put("08/unannounced.json", b"{}\n")
    time.sleep(1.1)  # S3 tells whole seconds
    monkeypatch.setenv("ARCHIVE_BUCKET_NAME", reclaiming.archive)
    help_ends_with = str(typer.main.get_group(app).commands["reclaim"].epilog).removeprefix("Example: ")

    for command, printed in [(help_ends_with, EXAMPLES[0][1]), *EXAMPLES]:
        given = command.replace("s3://orders/", f"s3://{world.source}/").replace("--older-than 7d", "--older-than 0m")
        given = given.replace("--distribution bundles --archive archive", f"--archive {reclaiming.archive}")
        ran = CliRunner().invoke(app, shlex.split(given)[1:])
        assert (ran.exit_code, ran.stdout) == (0, printed), ran.output


def test_the_page_explains_each_verdict() -> None:
    named = set(re.findall(r"^\| `([^|]*?)` \|", PAGE.replace("`, `", "` |\n| `"), re.MULTILINE))

    assert named == {*MEANING, "deleted"}
