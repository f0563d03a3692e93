"""
An AWS on the loopback interface: S3 with notifications, SQS and DynamoDB in one child process, gone with the block.

    with EmbeddedAws() as endpoint_url:
        ...

It is ministack, at the version and hashes of `embedded.txt`. It pins botocore to one version, which must not bind ours,
so it lives in a folder of its own in the user's cache; pip puts it there the first time (docs/decisions/0005).
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from types import TracebackType
from urllib.error import URLError

from aggregator.exceptions import AggregatorError

_STARTED_WITHIN = 30.0
_PYTHON = f"{sys.implementation.cache_tag}-{sys.platform}"


class EmbeddedAwsError(AggregatorError):
    """The embedded AWS cannot be installed or started."""

    reason = "embedded_aws"


class EmbeddedAws:
    """A context in which the embedded AWS answers; it starts empty each time."""

    def __init__(self, *, say: Callable[[str], None] = lambda _: None) -> None:
        """`say` is told what takes long."""
        self._say = say
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint_url = ""

    def __enter__(self) -> str:
        """
        Start it; the endpoint URL for every service.

        Raises:
            EmbeddedAwsError: it cannot be installed or started.
        """
        home = installed(self._say)
        port = _free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
        environment = {**kept, "PYTHONPATH": str(home), "GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ministack"],
            env={**environment, "LOG_LEVEL": "ERROR"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=home,
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
            self._process.wait()

    def _wait(self) -> None:
        ends = time.monotonic() + _STARTED_WITHIN
        while time.monotonic() < ends:
            if self._process is None or self._process.poll() is not None:
                raise EmbeddedAwsError("the embedded AWS ended as soon as it began: remove its folder and try again")
            try:
                with urllib.request.urlopen(f"{self.endpoint_url}/_ministack/health", timeout=1):
                    return
            except (URLError, OSError):
                time.sleep(0.05)
        raise EmbeddedAwsError("the embedded AWS does not answer", seconds=_STARTED_WITHIN)


def installed(say: Callable[[str], None] = lambda _: None) -> Path:
    """
    The folder of the embedded AWS, installed with pip if it is not there yet.

    Raises:
        EmbeddedAwsError: pip is missing, or failed.
    """
    with as_file(files("aggregator") / "embedded.txt") as lock:
        return kept_apart("ministack", lock, "the embedded AWS", say)


def kept_apart(package: str, lock: Path, name: str, say: Callable[[str], None]) -> Path:
    """
    The folder of a package whose dependencies must not bind ours, installed by its `lock` if it is not there yet.

    `name` is what people call it.

    Raises:
        EmbeddedAwsError: pip is missing, or failed.
    """
    wanted = lock.read_text()
    home = _cache() / f"{package}-{_version(wanted, package)}-{_PYTHON}"
    if (home / "installed.txt").is_file() and (home / "installed.txt").read_text() == wanted:
        return home
    say(f"preparing {name} (once, some ten seconds)")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        target = Path(folder) / package
        _pip_install(lock, target, name)
        (target / "installed.txt").write_text(wanted)
        shutil.rmtree(home, ignore_errors=True)
        try:
            target.replace(home)
        except OSError:  # somebody else was faster
            if not (home / "installed.txt").is_file():
                raise
    return home


def _pip_install(lock: Path, target: Path, name: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--require-hashes", "--target", str(target), "--requirement", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = (done.stderr.strip() or "pip failed").splitlines()[-1]
        raise EmbeddedAwsError(f"{name} cannot be installed: {why}")


def _version(lock: str, package: str) -> str:
    return next(line.split("==")[1].split()[0] for line in lock.splitlines() if line.startswith(f"{package}=="))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data-aggregator"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
