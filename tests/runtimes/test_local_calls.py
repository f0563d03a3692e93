"""A call of `aggregator local` that cannot be carried out is one line, which says what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.stub import Stubber
from typer.testing import CliRunner

from aggregator.aws import CommandClients
from aggregator.bundles.layout import HEADER
from aggregator.commands.main import app
from aggregator.runtimes.local.files import LocalRunError, left_out_in_words, readable_files
from aggregator.runtimes.local.stack import make_stack


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file and an empty folder, from where commands run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.json").write_bytes(b"{}")
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--out out", "DIR is missing: name the folder of your files, or begin without files by --serve alone"),
        ("--watch --out out", "DIR is missing: name the folder of your files, or begin without files by --serve alone"),
        ("nowhere --out out", "there is no such folder: nowhere"),
        ("nowhere --watch --out out", "there is no such folder: nowhere"),
        ("files/a.json --out out", "files/a.json is a file: name the folder that it is in"),
        ("empty --out out", "there are no files in empty: name another folder, or add --watch to wait for files"),
        (
            "files --out empty/../files",
            "bundles cannot be written among the files that they are made of: name another --out",
        ),
        ("files --out files/a.json", "cannot write to files/a.json: File exists: name another --out"),
        ("files --out /proc/out", "cannot write to /proc/out: No such file or directory: name another --out"),
        (
            "files --out out --name My_Name",
            "--name is 2 to 50 lowercase letters, digits and hyphens, and does not begin with a hyphen",
        ),
        (
            "files --out out --watch --log files/handler.log",
            "--log FILE is in the folder that is watched: name a file elsewhere",
        ),
        (
            "files --out out --serve --endpoint-url http://127.0.0.1:9",
            "--serve and --watch are for the embedded AWS: on an AWS that is already there, run aggregator worker",
        ),
    ],
)
def test_a_call_that_cannot_be_carried_out_is_one_line_that_says_what_to_do(
    folder: Path, arguments: str, said: str
) -> None:
    ran = CliRunner().invoke(app, ["local", *arguments.split()])

    assert (ran.exit_code, ran.stdout, ran.stderr) == (2, "", f"aggregator: {said}\n")
    assert not (folder / "out").exists()


def test_a_file_that_cannot_be_read_says_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *_: object) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    (folder / "files" / "b.json").touch()
    monkeypatch.setattr(Path, "open", denied)

    with pytest.raises(LocalRunError) as raised:
        readable_files(Path("files"), out=folder / "out")

    said = "cannot read files/a.json: Permission denied: make it readable, or move it out of DIR (and 1 fault more)"
    assert str(raised.value) == said


def test_what_is_left_out_is_named_with_its_reason_and_the_rest_is_found(folder: Path) -> None:
    files = folder / "files"
    files.joinpath(*["e" * 250] * 5).mkdir(parents=True)
    files.joinpath(*["e" * 250] * 5, "file").touch()
    with open(os.fsencode(files) + b"/\xff", "wb"):  # noqa: PTH123 - a name that Path cannot write
        pass
    (files / "linked").symlink_to(folder / "empty")
    (files / "nowhere").symlink_to(folder / "nothing")
    (folder / "outside").touch()
    (files / "outside").symlink_to(folder / "outside")
    os.mkfifo(files / "pipe")
    for name in ("bundle-a.gz", "bundle-b.gz"):
        (files / "old/2026/11/28/19").mkdir(parents=True, exist_ok=True)
        (files / "old/2026/11/28/19" / name).write_bytes(HEADER if name == "bundle-a.gz" else b"no bundle")

    found = readable_files(Path("files"), out=files / "out")

    assert list(found.by_key) == ["a.json", "old/2026/11/28/19/bundle-b.gz"]
    assert [line.replace("e" * 250, "e") for line in left_out_in_words(found.left_out)] == [
        "left out files/e/e/e/e/e/file: its path is longer than the 1,024 bytes that a key may have: shorten it",
        "left out files/linked: it is a link to a folder",
        "left out files/nowhere: it is a link to nowhere",
        "left out files/old/2026/11/28/19/bundle-a.gz: it is a bundle of an earlier run",
        "left out files/outside: it is a link out of DIR",
        "left out files/pipe: it is a pipe, a socket or a device",
        "left out files/\udcff: its name is not Unicode, so it cannot be the key of an object: rename it",
    ]


def test_of_many_that_are_left_out_the_first_are_named() -> None:
    lines = list(left_out_in_words({Path(f"{at:02}"): "why" for at in range(1_022)}))

    assert lines[18:] == ["left out 18: why", "left out 19: why", "left out 1,002 more"]


@pytest.mark.parametrize("taken", ["bucket", "queue"])
@pytest.mark.usefixtures("credentials")
def test_a_name_that_somebody_else_has_says_to_choose_another(taken: str) -> None:
    clients = CommandClients.build()
    queue = {"QueueUrl": "http://127.0.0.1:9/q"}
    with _answering(clients) as (s3, sqs):
        if taken == "queue":
            sqs.add_client_error("create_queue", "QueueAlreadyExists")
        else:
            for call, answer in (("create_queue", queue), ("get_queue_attributes", _ARN), ("create_queue", queue)):
                sqs.add_response(call, answer)
            s3.add_client_error("create_bucket", "BucketAlreadyExists")
        with pytest.raises(LocalRunError) as raised:
            make_stack(clients, "mine", visibility_timeout=1, receives=1)

    name = "mine-source" if taken == "bucket" else "mine-dead-letters"
    assert str(raised.value) == f"the name {name} is taken: choose another --name"


_ARN = {"Attributes": {"QueueArn": "arn:aws:sqs:us-east-1:000000000000:q"}}


@contextmanager
def _answering(clients: CommandClients) -> Iterator[tuple[Stubber, Stubber]]:
    with Stubber(clients.s3) as s3, Stubber(clients.sqs) as sqs:
        yield s3, sqs
