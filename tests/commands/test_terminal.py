"""Whatever strangers chose, nothing that is printed commands a terminal, and no URL shows a secret."""

import json
import subprocess
import sys
from concurrent.futures import Executor
from pathlib import Path

import pytest

from aggregator.bundles.opening import without_secrets
from aggregator.commands.console import json_text, printable_row, to_people
from tests.support.damage import pack

EVIL = "a\x1b]0;x\x07\x9b31m\x85\x7f\u202egpj\u2066\u200b\u2028\U000e0041.json"


def test_json_is_escaped_and_says_the_same() -> None:
    text = json_text({EVIL: [EVIL, "é", "日本", "\t\n"]}, indent=2)

    assert json.loads(text) == {EVIL: [EVIL, "é", "日本", "\t\n"]}
    assert _hidden(text) == ""
    assert "日本" in text


def test_words_and_rows_are_escaped() -> None:
    assert _hidden(to_people(EVIL)) == _hidden(printable_row(EVIL, EVIL).replace("\t", "")) == ""


@pytest.mark.parametrize(
    "form", [["list"], ["list", "--json"], ["list", "--long"], ["verify", "--json"], ["list", "--totals"]]
)
def test_no_form_of_a_bundle_prints_what_commands_a_terminal(
    form: list[str], tmp_path: Path, executor: Executor
) -> None:
    path = tmp_path / f"{EVIL}.gz"
    path.write_bytes(pack([b"a", b"b"], executor, keys=[EVIL, "b"]))

    done = subprocess.run(
        [sys.executable, "-m", "aggregator", "bundle", *form, str(path)], capture_output=True, check=False
    )

    assert done.returncode == 0
    assert _hidden((done.stdout + done.stderr).decode().replace("\t", "")) == ""


def test_an_error_about_a_file_prints_nothing_that_commands_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / f"{EVIL}.gz"
    path.write_bytes(b"no bundle")

    for command in (["bundle", "list"], ["stats"], ["bundle", "cat"]):
        arguments = [*command, str(path), *(["key"] if command[-1] == "cat" else [])]
        done = subprocess.run([sys.executable, "-m", "aggregator", *arguments], capture_output=True, check=False)
        assert _hidden((done.stdout + done.stderr).decode().replace("\t", "")) == ""


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:secret@host/b.gz", "https://***@host/b.gz"),
        ("error at 'ftp://me:secret@host/b.gz'", "error at 'ftp://***@host/b.gz'"),
        (
            "https://host/b.gz?X-Amz-Credential=AKIA%2F1&a=b&X-Amz-Security-Token=t&X-Amz-Signature=0f",
            "https://host/b.gz?X-Amz-Credential=***&a=b&X-Amz-Security-Token=***&X-Amz-Signature=***",
        ),
        (
            "https://host/b.gz?AWSAccessKeyId=A&Signature=s%3D&Expires=1",
            "https://host/b.gz?AWSAccessKeyId=***&Signature=***&Expires=1",
        ),
        ("https://host/b?sv=1&sig=abc", "https://host/b?sv=1&sig=***"),
        ("s3://bucket/a@b/c?versionId=1", "s3://bucket/a@b/c?versionId=1"),
        ("https://host/a@b", "https://host/a@b"),
    ],
)
def test_a_url_shows_no_secret(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


def test_a_command_that_fails_shows_no_secret_of_its_url() -> None:
    url = "http://me:secret@127.0.0.1:9/b.gz?X-Amz-Signature=secret"

    for form in (["list"], ["list", "--json"], ["verify", "--json"], ["verify"]):
        done = subprocess.run(
            [sys.executable, "-m", "aggregator", "bundle", *form, url], capture_output=True, check=False
        )
        assert b"secret" not in done.stdout + done.stderr


def _hidden(text: str) -> str:
    return "".join(letter for letter in text if not letter.isprintable() and letter != "\n")
