"""Completion in the real shells: a key with blanks or other special characters is inserted as one word, as it is."""

import contextlib
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path

import pytest

from aggregator.commands.groups import keep_last_blank
from tests.support import ROOT
from tests.support.damage import pack

pytestmark = pytest.mark.once

KEYS = [
    "in/order 0.json",
    "in/order 1.json",
    "it's.json",
    "a$b c.json",
    "p (x).json",
    "star*x.json",
    "back\\slash.json",
    "time 10:30:05.json",
    "time 10:30:06.json",
    "dt=2026-11-28/a:b c.json",
]
SHOW = "aggregator() { printf '<%s>' \"$@\"; echo END; }"
"""A function of the same name, which shows what the command would get."""

SECONDS = 30.0
"""How long a shell may take."""


@pytest.fixture
def folder(tmp_path: Path, executor: Executor) -> Path:
    """A folder with a bundle, and with a command `aggregator` as pip would install it."""
    (tmp_path / "b.gz").write_bytes(pack([b"x"] * len(KEYS), executor, keys=KEYS))
    script = tmp_path / "bin" / "aggregator"
    script.parent.mkdir()
    begin = "import sys; from aggregator.__main__ import main; sys.argv[0] = 'aggregator'; main()"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{begin}" "$@"\n', encoding="ascii")
    script.chmod(0o700)
    return tmp_path


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_inserts_a_key_as_one_word(folder: Path) -> None:
    with _terminal(folder, "bash", "--norc", "--noprofile", "-i") as shell:
        shell.types(f"source {_source(folder, 'bash')}; {SHOW}\n", until="\n")
        completed = [
            shell.completes(f"aggregator bundle cat b.gz {typed}")
            for typed in ("in/order\\ 1", "'in/order 0", "it", "p", "time\\ 10:30:06", "dt=2026", "'dt=")
        ]

    assert completed[:4] == ["in/order 1.json", "in/order 0.json", "it's.json", "p (x).json"]
    assert completed[4:] == ["time 10:30:06.json", "dt=2026-11-28/a:b c.json", "dt=2026-11-28/a:b c.json"]


@pytest.mark.chaos
@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
def test_zsh_inserts_a_key_as_one_word(folder: Path) -> None:
    with _terminal(folder, "zsh", "-f", "-i") as shell:
        shell.types(
            f"autoload -Uz compinit; compinit -u -d dump; source {_source(folder, 'zsh')}; {SHOW}\n", until="\n"
        )
        completed = [shell.completes(f"aggregator bundle cat b.gz {typed}") for typed in ("in/order\\ 1", "a", "p")]

    assert completed == ["in/order 1.json", "a$b c.json", "p (x).json"]


@pytest.mark.chaos
@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
def test_fish_is_given_the_keys_as_they_are(folder: Path) -> None:
    asked = ["in/order\\\\ ", "it", "back"]
    script = "; ".join(
        [f"source {_source(folder, 'fish')}", *(f'complete -C "aggregator bundle cat b.gz {one}"' for one in asked)]
    )

    ran = subprocess.run(
        ["fish", "--no-config", "-c", script], cwd=folder, env=_environment(folder), capture_output=True, check=True
    )

    assert ran.stdout.decode().splitlines() == ["in/order 0.json", "in/order 1.json", "it's.json", "back\\slash.json"]


@pytest.mark.parametrize(
    ("typed", "kept"), [("a b\\ ", 'a b" "'), ("a b ", "a b "), ("a b\\\\ ", "a b\\\\ "), ("a b", "a b")]
)
def test_a_blank_that_ends_an_unfinished_word_is_kept(typed: str, kept: str) -> None:
    environment = {"_TYPER_COMPLETE_ARGS": typed}

    keep_last_blank(environment)

    assert environment == {"_TYPER_COMPLETE_ARGS": kept}


class Terminal:
    """A terminal with a shell, at which somebody types."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def types(self, text: str, *, until: str) -> str:
        """Type; what the terminal shows, once it has shown `until`."""
        os.write(self._descriptor, text.encode())
        data, ends = b"", time.monotonic() + SECONDS
        while until.encode() not in data:
            assert time.monotonic() < ends, data
            data += self._read(0.1)
        return data.decode(errors="replace")

    def completes(self, text: str) -> str:
        """The last word of a command whose end the tabulator completes, as the command gets it."""
        self.types(text, until=text[-1])
        self._settles(0.2)
        os.write(self._descriptor, b"\t")
        ends = time.monotonic() + SECONDS
        while not self._read(0.1):
            assert time.monotonic() < ends
        self._settles(0.3)
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.types("\n", until=">END"))
        return str(re.findall(r"<([^<>]*)>END", shown)[-1])

    def _settles(self, seconds: float) -> None:
        """Read until the terminal has shown nothing for so long."""
        while self._read(seconds):
            pass

    def _read(self, seconds: float) -> bytes:
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return b""
        with contextlib.suppress(OSError):
            return os.read(self._descriptor, 65_536)
        return b""


@contextlib.contextmanager
def _terminal(folder: Path, *command: str) -> Iterator[Terminal]:
    ours, theirs = os.openpty()
    pipes = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    with subprocess.Popen(command, cwd=folder, env=_environment(folder), start_new_session=True, **pipes) as running:  # type: ignore[call-overload]
        os.close(theirs)
        try:
            yield Terminal(ours)
        finally:
            running.kill()
            os.close(ours)


def _source(folder: Path, shell: str) -> str:
    """The script that `--show-completion` prints, as a file."""
    environment = {**_environment(folder), "_AGGREGATOR_COMPLETE": f"source_{shell}"}
    ran = subprocess.run([folder / "bin" / "aggregator"], env=environment, capture_output=True, check=True)
    (folder / f"complete.{shell}").write_bytes(ran.stdout)
    return f"complete.{shell}"


def _environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    terminal = {"TERM": "xterm", "COLUMNS": "200", "PS1": "> ", "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    return {"PATH": path, "PYTHONPATH": str(ROOT), **terminal}
