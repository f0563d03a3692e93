"""
An AWS on the loopback interface: S3 with notifications, SQS and DynamoDB in one child process, gone with the block.

    with EmbeddedAws() as endpoint_url:
        ...

Only these three services are started, and only requests with the credentials of the run are answered (`server.py`). The
child gets nothing of the user's environment but where programs are found, and a folder that nobody else can read.

It is ministack, at the version and hashes of `embedded.txt`. It pins botocore to one version, which must not bind ours,
so it lives in a folder of its own in the user's cache; pip puts it there the first time (docs/decisions/0005).
The child ends when its standard input does: however its parent dies, that is closed.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from urllib.error import URLError

from aggregator.exceptions import AggregatorError
from aggregator.runtimes.local import packages

_STARTED_WITHIN = 30.0

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens a URL of this machine, for which no proxy is needed whatever the environment says."""

_SERVICES = "s3,sqs,dynamodb"

_KEPT = frozenset({"PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "SYSTEMDRIVE", "LANG", "LC_ALL", "LC_CTYPE"})
"""What the child gets of the user's environment: the rest might tell ministack what to start, and where to store."""


class Credentials(NamedTuple):
    """Credentials that the embedded AWS accepts."""

    access_key_id: str
    secret_access_key: str


class EmbeddedAwsError(AggregatorError):
    """The embedded AWS cannot be started."""

    reason = "embedded_aws"


class EmbeddedAws:
    """A context in which the embedded AWS answers; it starts empty each time."""

    def __init__(self, *, say: Callable[[str], None] = lambda _: None, guarded: bool = True) -> None:
        """
        `say` gets a line about what takes long.

        `guarded` is False in tests alone: then all services are started, and any credentials are accepted.
        """
        self._say, self._guarded = say, guarded
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = ""
        self.endpoint_url = ""
        self.credentials = Credentials(secrets.token_hex(10), secrets.token_urlsafe(30))

    def __enter__(self) -> str:
        """
        Start it; the endpoint URL for every service.

        Raises:
            InstallError: it cannot be installed.
            EmbeddedAwsError: it cannot be started.
        """
        home = install(self._say)
        port = _free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        self._folder = tempfile.mkdtemp(prefix="aggregator-")  # 0700
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-c", _program()],
            env={**self._environment(port), "PYTHONPATH": str(home)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            start_new_session=True,  # Ctrl-C is for its parent, which may still need it
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )
        try:
            self._wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self.endpoint_url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()  # nothing of it is to be kept
            self._process.communicate()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _environment(self, port: int) -> dict[str, str]:
        folder = dict.fromkeys(("HOME", "STATE_DIR", "S3_DATA_DIR", "TMPDIR", "TEMP", "TMP"), self._folder)
        environment = {name: value for name, value in os.environ.items() if name in _KEPT} | folder
        environment |= {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "LOG_LEVEL": "ERROR"}
        if not self._guarded:
            return {**environment, "AUTH": "false"}
        key, secret = self.credentials
        given = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        return {**environment, **given, "AUTH": "true", "SERVICES": _SERVICES}

    def _wait(self) -> None:
        ends = time.monotonic() + _STARTED_WITHIN
        while time.monotonic() < ends:
            if self._process is None or self._process.poll() is not None:
                raise EmbeddedAwsError("the embedded AWS ended as soon as it began: remove its folder and try again")
            try:
                with _DIRECT.open(f"{self.endpoint_url}/_ministack/health", timeout=1):
                    return
            except (URLError, OSError):
                time.sleep(0.05)
        raise EmbeddedAwsError("the embedded AWS does not answer", seconds=_STARTED_WITHIN)


def install(say: Callable[[str], None] = lambda _: None) -> Path:
    """
    The folder of the embedded AWS, installed with pip if it is not there yet.

    Raises:
        InstallError: pip is missing, or failed.
    """
    with as_file(files("aggregator.runtimes.local") / "embedded.txt") as lock:
        return packages.install(lock, "ministack", called="the embedded AWS", say=say)


def _program() -> str:
    return (files("aggregator.runtimes.local") / "server.py").read_text(encoding="utf-8")


def _free_port() -> int:
    """A free port, below those that systems give to connections: so it is still free when it is bound."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
