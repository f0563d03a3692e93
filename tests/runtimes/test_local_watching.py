"""A folder that is watched: what comes and changes is uploaded once it is complete, and nothing in it ends the run."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.reader import Bundle
from aggregator.runtimes.local.watching import Watcher

pytestmark = pytest.mark.once


class Uploads:
    """What a watcher uploaded; `fault` is raised instead by the next uploads."""

    def __init__(self) -> None:
        self.done: list[tuple[str, bytes]] = []
        self.fault: Exception | None = None
        self.open = threading.Event()
        self.open.set()

    def __call__(self, key: str, path: Path) -> None:
        self.open.wait(10)
        if self.fault:
            raise self.fault
        self.done.append((key, path.read_bytes()))


class Watched:
    """A folder, its watcher, and what was uploaded."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.uploads = folder, Uploads()
        self.watcher = Watcher(folder, out=folder / "out", upload=self.uploads, every=0)

    def write(self, name: str, body: bytes) -> Path:
        """Write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return path

    def look(self, times: int = 1) -> list[str]:
        """Look so often, and let each look's uploads end; what is said."""
        said = list[str]()
        for _ in range(times):
            said += self.watcher.look()
            for _, upload in list(self.watcher._under_way.values()):
                upload.exception(10)
        return [*said, *self.watcher._finished()]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A folder that is watched."""
    folder = tmp_path / "folder"
    folder.mkdir()
    found = Watched(folder)
    yield found
    found.watcher.close()


def test_files_that_are_there_and_files_that_come_are_uploaded_once(watched: Watched) -> None:
    watched.write("before", b"1")
    watched.look(3)
    watched.write("deep/after é", b"2")
    watched.look(3)

    assert watched.uploads.done == [("before", b"1"), ("deep/after é", b"2")]


def test_a_file_that_is_being_written_waits_until_two_looks_find_it_unchanged(watched: Watched) -> None:
    for at in range(1, 4):
        watched.write("growing", b"x" * at)
        watched.look()
    assert watched.uploads.done == []

    watched.look()

    assert watched.uploads.done == [("growing", b"xxx")]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_file_that_changes_is_uploaded_again(watched: Watched, replaced: bool) -> None:
    path = watched.write("a", b"old")
    watched.look(2)
    if replaced:  # by another of the same size and time
        times = path.stat().st_atime_ns, path.stat().st_mtime_ns
        watched.write("out/a", b"new").replace(path)
        os.utime(path, ns=times)
    else:
        watched.write("a", b"newer")
    watched.look(2)

    assert [key for key, _ in watched.uploads.done] == ["a", "a"]


def test_a_file_that_changes_while_it_is_uploaded_is_uploaded_again(watched: Watched) -> None:
    watched.write("a", b"old")
    watched.uploads.open.clear()
    list(watched.watcher.look())
    list(watched.watcher.look())
    watched.write("a", b"newer")
    list(watched.watcher.look())
    watched.uploads.open.set()
    watched.look(3)

    assert watched.uploads.done[-1] == ("a", b"newer")


def test_a_file_or_folder_that_is_deleted_does_not_end_it(watched: Watched) -> None:
    gone = watched.write("deep/gone", b"1")
    watched.look()
    gone.unlink()
    gone.parent.rmdir()
    said = watched.look()
    watched.uploads.fault = FileNotFoundError(2, "No such file", "late")
    late = watched.write("late", b"2")
    said += watched.look(2)
    late.unlink()
    said += watched.look()
    watched.uploads.fault = None
    watched.write("stays", b"3")
    said += watched.look(2)

    assert (watched.uploads.done, said) == ([("stays", b"3")], [])


def test_what_cannot_be_uploaded_is_said_once_and_the_rest_is_uploaded(watched: Watched, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (watched.folder / "outside").symlink_to(tmp_path / "secret")
    (watched.folder / "nowhere").symlink_to(tmp_path / "nothing")
    with open(os.fsencode(watched.folder) + b"/\xff", "wb"):  # noqa: PTH123 - a name that Path cannot write
        pass
    watched.write("/".join(["e" * 250] * 5), b"1")
    watched.write("out/2026/11/28/16/bundle-a.gz", b"1")
    watched.write("a", b"1")

    said = watched.look(3)

    assert watched.uploads.done == [("a", b"1")]
    assert [line.rpartition("/")[2] for line in said] == [
        f"{'e' * 250}: its path is longer than the 1,024 bytes that a key may have: shorten it",
        "nowhere: it is a link to nowhere",
        "outside: it is a link out of DIR",
        "\udcff: its name is not Unicode, so it cannot be the key of an object: rename it",
    ]


def test_a_file_that_cannot_be_read_is_said_once_and_tried_until_it_can(watched: Watched) -> None:
    watched.write("a", b"1")
    watched.uploads.fault = PermissionError(13, "Permission denied", "folder/a")
    said = watched.look(4)
    watched.uploads.fault = None
    said += watched.look()

    assert said == ["cannot read folder/a, and will try again: Permission denied"]
    assert watched.uploads.done == [("a", b"1")]


def test_a_folder_that_goes_and_comes_back_is_said_once(watched: Watched) -> None:
    watched.folder.rmdir()
    said = watched.look(2)
    watched.write("a", b"1")
    said += watched.look(2)

    assert said == [f"there is no such folder: {watched.folder}"]
    assert watched.uploads.done == [("a", b"1")]


def test_an_upload_that_the_aws_rejects_ends_it(watched: Watched) -> None:
    watched.write("a", b"1")
    watched.uploads.fault = RuntimeError("no such bucket")

    with pytest.raises(RuntimeError, match="no such bucket"):
        watched.look(3)


def test_at_the_end_uploads_that_began_are_finished_and_what_is_not_uploaded_is_counted(watched: Watched) -> None:
    watched.write("a", b"1")
    watched.look()
    list(watched.watcher.look())
    watched.write("b", b"2")
    list(watched.watcher.look())
    watched.write("c", b"3")

    said = list(watched.watcher.end())

    assert watched.uploads.done == [("a", b"1")]
    assert said == ["files not uploaded: 2; run again with --replace to bundle all"]


def test_a_look_before_its_time_does_nothing(watched: Watched) -> None:
    watcher = Watcher(watched.folder, out=watched.folder / "out", upload=watched.uploads, every=3600)
    watched.write("a", b"1")

    said = [list(watcher.look()) for _ in range(3)]
    watcher.close()

    assert (said, watched.uploads.done) == ([[], [], []], [])


@pytest.mark.chaos
@pytest.mark.integration
def test_a_watched_folder_becomes_bundles_as_its_files_come_until_ctrl_c(tmp_path: Path) -> None:
    folder, out = tmp_path / "folder", tmp_path / "out"
    folder.mkdir()
    (folder / "before").write_bytes(b"1")
    command = [sys.executable, "-m", "aggregator", "local", str(folder), "--watch", "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = [process.stderr.readline() for _ in range(2)]
        (folder / "before").write_bytes(b"changed")
        (folder / "after").write_bytes(b"2")
        said += [process.stderr.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        said += process.stderr.readlines()

    bundles = [Path(line.partition(": ")[0]) for line in said if line.startswith(str(out))]
    assert process.returncode == 0
    assert [_members(bundle) for bundle in bundles] == [{"before": b"1"}, {"after": b"2"}]
    assert "'before': overwritten; a key is bundled once, so its bundle stays as it is\n" in said
    assert len(said) == len(["serving", "bundle", "overwritten", "bundle", "ending"])


def _members(path: Path) -> dict[str, bytes]:
    with Bundle.open(path) as bundle:
        return {member.key: bundle[member.key] for member in bundle}
