"""The embedded AWS starts, answers and is gone; and says what to do when it cannot be had."""

import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from aggregator.runtimes.local import embedded, packages
from aggregator.runtimes.local.embedded import EmbeddedAws, EmbeddedAwsError, install
from aggregator.runtimes.local.packages import InstallError
from tests.support.workers import until

_INSTALLING = 'while [ "$1" != --target ]; do shift; done; mkdir "$2" && cp "$4" "$2/lock"'
"""What stands for pip: it copies the lock into the folder."""


@pytest.mark.integration
def test_it_answers_on_the_loopback_and_is_gone_with_the_block() -> None:
    said: list[str] = []

    with EmbeddedAws(say=said.append) as endpoint_url:
        address = urlsplit(endpoint_url)
        with socket.create_connection((address.hostname, address.port), timeout=5):
            pass

    assert address.hostname == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.hostname, address.port), timeout=5)


@pytest.mark.integration
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_is_gone_with_the_process_that_it_is_for_however_that_ends(number: int) -> None:
    program = "import signal; from aggregator.runtimes.local.embedded import EmbeddedAws\n"
    program += "with EmbeddedAws() as url: print(url, flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        address = urlsplit(parent.stdout.readline().strip())
        parent.send_signal(number)

    until(lambda: _is_refused(address.hostname, address.port))


@pytest.mark.integration
def test_pip_installs_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said: list[str] = []

    home, again = install(said.append), install(said.append)

    assert home == again
    assert said == ["preparing the embedded AWS (once, some ten seconds)"]
    assert (home / "ministack" / "__init__.py").is_file()


def test_it_is_installed_once_and_anew_when_the_lock_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path, _INSTALLING)))
    lock, said, homes = tmp_path / "lock", list[str](), list[Path]()

    for text in ("some==1 --hash=a", "some==1 --hash=a", "some==1 --hash=b"):
        lock.write_text(text)
        homes.append(packages.install(lock, "some", called="it", say=said.append))

    assert [(home / "lock").read_text() for home in homes] == ["some==1 --hash=a"] * 2 + ["some==1 --hash=b"]
    assert said == ["preparing it (once, some ten seconds)"] * 2


def test_two_processes_may_install_it_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is held in pip until the other is there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    both = f"touch {tmp_path}/here-$$; until [ $(ls {tmp_path}/here-* | wc -l) = 2 ]; do sleep 0.01; done"
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path, f"{both}; {_INSTALLING}")))

    with ThreadPoolExecutor(2) as threads:
        homes = {future.result() for future in [threads.submit(install) for _ in range(2)]}

    assert list((tmp_path / "data-aggregator").iterdir()) == list(homes)
    assert len([path for home in homes for path in home.iterdir()]) == 1


def test_a_pip_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path, "echo first; echo 'no network' >&2; exit 1")))

    with pytest.raises(InstallError, match="the embedded AWS cannot be installed: no network"):
        install()

    assert list((tmp_path / "data-aggregator").iterdir()) == []


def test_a_child_that_dies_at_once_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "install", lambda _: tmp_path)
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path, "exit 1")))

    with pytest.raises(EmbeddedAwsError, match="ended as soon as it began"), EmbeddedAws():
        pass


def test_a_child_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "install", lambda _: tmp_path)
    monkeypatch.setattr(embedded, "_STARTED_WITHIN", 0.2)
    monkeypatch.setattr(sys, "executable", str(_script(tmp_path, "exec sleep 60")))

    with pytest.raises(EmbeddedAwsError, match="does not answer"), EmbeddedAws():
        pass


def _is_refused(host: str | None, port: int | None) -> bool:
    """Whether nobody listens there; a connection that is reset belonged to a listener that was just going."""
    try:
        with socket.create_connection((host, port), timeout=5):
            return False
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False


def _script(folder: Path, text: str) -> Path:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path
