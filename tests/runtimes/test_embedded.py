"""The embedded AWS starts, answers and is gone; and says what to do when it cannot be had."""

import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

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


@pytest.fixture(scope="module")
def aws() -> Iterator[EmbeddedAws]:
    """What a local run starts."""
    started = EmbeddedAws()
    with started:
        yield started


_FOREIGN = {"Origin": "https://evil.example", "Content-Type": "text/plain"}


@pytest.mark.integration
@pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS", "PUT"])
@pytest.mark.parametrize(
    "path", ["/2015-03-31/functions", "/", "/bucket/key", "/_ministack/reset", "/_ministack/config", "/health"]
)
@pytest.mark.parametrize("headers", [_FOREIGN, {"Sec-Fetch-Site": "cross-site"}, {}], ids=["origin", "fetch", "none"])
def test_a_request_of_a_page_or_of_a_neighbour_is_rejected_without_a_cors_header(
    aws: EmbeddedAws, method: str, path: str, headers: dict[str, str]
) -> None:
    status, answered = _asked(aws.endpoint_url, method, path, headers)

    assert (status, [name for name in answered if name.lower().startswith("access-control-")]) == (403, [])


@pytest.mark.integration
def test_a_page_gets_nothing_with_the_key_of_the_run_either(aws: EmbeddedAws) -> None:
    signed = {"Authorization": f"AWS4-HMAC-SHA256 Credential={aws.credentials.access_key_id}/20261128/us-east-1/s3/"}
    named = {"Host": "rebound.example", **signed}

    assert _asked(aws.endpoint_url, "GET", "/", {**signed, **_FOREIGN})[0] == 403
    assert _asked(aws.endpoint_url, "GET", "/", named)[0] == 403
    assert _asked(aws.endpoint_url, "POST", "/_ministack/reset", signed)[0] == 403


@pytest.mark.integration
def test_only_the_credentials_of_the_run_and_only_its_services_are_served(aws: EmbeddedAws) -> None:
    key, secret = aws.credentials

    assert _client("s3", aws, key, secret).list_buckets()["Buckets"] == []
    for stranger in [
        ("testing", "testing"),
        ("test", "test"),
        ("test", secret),
        ("123456789012", secret),
    ]:
        with pytest.raises(ClientError):
            _client("s3", aws, *stranger).list_buckets()
    with pytest.raises(ClientError):
        _client("lambda", aws, key, secret).list_functions()


@pytest.mark.integration
def test_it_keeps_its_state_in_a_folder_that_is_private_and_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("S3_PERSIST", "1")
    monkeypatch.setenv("S3_DATA_DIR", str(tmp_path / "elsewhere"))

    started = EmbeddedAws()
    with started:
        _client("s3", started, *started.credentials).create_bucket(Bucket="private")
        (folder,) = tmp_path.iterdir()
        mode = stat.S_IMODE(folder.stat().st_mode)

    assert (mode, list(tmp_path.iterdir())) == (0o700, [])


@pytest.mark.integration
def test_an_unguarded_one_for_tests_rejects_pages_too() -> None:
    with EmbeddedAws(guarded=False) as endpoint_url:
        status, _ = _asked(endpoint_url, "POST", "/2015-03-31/functions", _FOREIGN)

    assert status == 403


def test_pip_is_not_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__main__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InstallError):
        install()

    assert not (tmp_path / "ran").exists()


def _asked(url: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, list[str]]:
    """The status of an answer and the names of its headers."""
    address = urlsplit(url)
    with closing(HTTPConnection(address.hostname or "", address.port, timeout=10)) as connection:
        connection.request(method, path, b"{}", headers)
        answer = connection.getresponse()
        return answer.status, [name for name, _ in answer.getheaders()]


def _client(service: Any, aws: EmbeddedAws, key: str, secret: str) -> Any:
    session = boto3.Session(key, secret, region_name="us-east-1")
    return session.client(service, endpoint_url=aws.endpoint_url, config=Config(s3={"addressing_style": "path"}))


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
