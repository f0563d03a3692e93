"""All but the worker runs on Windows and macOS too, as far as Linux can show it."""

import ast
import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import ROOT
from tests.support.world import World

PACKAGE = ROOT / "aggregator"
UNIX_MODULES = {"curses", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
UNIX_OS = """
    O_CLOEXEC O_DIRECTORY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC chown confstr fchmod fchown fork forkpty
    getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getsid getuid killpg lchown
    lockf major minor mkfifo mknod nice openpty pathconf posix_fadvise posix_fallocate posix_spawn pread
    preadv pwrite pwritev sched_getaffinity sched_setaffinity sendfile setegid seteuid setgid setpgid
    setsid setuid statvfs sync sysconf uname wait wait3 wait4
"""
UNIX_SIGNAL = "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 SIGUSR2 alarm pthread_kill setitimer"
"""Names that Python's documentation marks as available on Unix only; some of them are not on macOS either."""
UNIX_NAMES = {f"os.{name}" for name in UNIX_OS.split()} | {f"signal.{name}" for name in UNIX_SIGNAL.split()}

LINUX = PACKAGE / "runtimes" / "worker"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if LINUX not in path.parents]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_uses_nothing_that_only_unix_has(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }

    assert imported & UNIX_MODULES == set()
    assert used & UNIX_NAMES == set()


@pytest.mark.integration
@pytest.mark.parametrize("error", [AttributeError, TypeError])
def test_where_memory_cannot_be_given_back_the_handler_answers(
    world: World, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def library(*_: Any) -> None:
        raise error

    world.put("a", b"1")
    with monkeypatch.context() as patch:
        patch.setattr(ctypes, "CDLL", library)
        stayed = world.deliver(["a"])

    assert stayed == set()
    assert world.published() == {"a": [b"1"]}


PROGRAM = f"""
import asyncio, multiprocessing, os, shutil, subprocess, sys, tempfile  # Python has its own ways on each platform
for name in {UNIX_OS.split()!r}:
    if hasattr(os, name) and name != "statvfs":  # shutil.disk_usage needs it here
        delattr(os, name)
os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks = set(), {{os.stat}}, set()
sys.modules.update(dict.fromkeys({sorted(UNIX_MODULES - {"posix"})!r}))
import ctypes
ctypes.CDLL = lambda name, *_, known=ctypes.CDLL, **__: known(name) if name else known(())
from aggregator.commands.main import main
main()
"""


@pytest.mark.once  # the standard library of each Python takes other names for granted here
@pytest.mark.integration
def test_the_commands_run_without_what_only_unix_has(tmp_path: Path) -> None:
    files, out = tmp_path / "files", tmp_path / "out"
    files.mkdir()
    (files / "a.json").write_bytes(b"{}")

    def aggregator(*arguments: object) -> str:
        command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "in 1 bundle" in aggregator("local", files, "--out", out)
    (bundle,) = out.rglob("bundle-*.gz")
    assert "a.json" in aggregator("bundle", "list", bundle)
    assert aggregator("bundle", "verify", bundle)
    aggregator("bundle", "extract", bundle, "--to", tmp_path / "extracted")
    assert [path.read_bytes() for path in (tmp_path / "extracted").rglob("a.json")] == [b"{}"]
    assert aggregator("bundle", "repack", out, "--out", tmp_path / "repacked")
    assert aggregator("stats", out)
    assert aggregator("contract", "list")
