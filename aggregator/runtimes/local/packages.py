"""
Packages that must not bind our own: from a lock with hashes, into a folder of their own in the user's cache.

Such a folder goes onto the PYTHONPATH of a child process, never onto ours (docs/decisions/0005). Its name has a digest
of the lock, and a rename puts it there whole. So it never changes,
and several processes may install it at the same time.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from aggregator.exceptions import AggregatorError

_PYTHON = f"{sys.implementation.cache_tag}-{sys.platform}"

_FROM_WHERE = {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE"} | {
    *("PIP_CERT", "PIP_CLIENT_CERT", "PIP_TRUSTED_HOST", "PIP_PROXY", "PIP_KEYRING_PROVIDER"),
    *("PIP_TIMEOUT", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES", "PIP_CACHE_DIR"),
}
"""Settings of pip that say where packages come from; the others might say that they go elsewhere."""


class InstallError(AggregatorError):
    """Packages cannot be put into their folder."""

    reason = "install"


def install(lock: Path, package: str, *, called: str, say: Callable[[str], None] = lambda _: None) -> Path:
    """
    The folder of what `lock` lists, installed with pip if it is not there yet.

    `package` is the one of them that names the folder; `called` is what people call the whole.

    Raises:
        InstallError: pip is missing, or failed.
    """
    wanted = lock.read_text(encoding="utf-8")
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:8]
    home = _cache() / f"{package}-{_version(wanted, package)}-{digest}-{_PYTHON}"
    if home.is_dir():
        return home
    say(f"preparing {called} (once, some ten seconds)")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as folder:
        target = Path(folder) / package
        _pip_install(lock, target, called)
        try:
            target.replace(home)
        except OSError:
            if not home.is_dir():  # else another process was faster
                raise
    return home


def _pip_install(lock: Path, target: Path, called: str) -> None:
    command = [sys.executable, "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # -P: the working directory may be a stranger's, and have a pip of its own
    command += ["--no-user"]  # `user = true` in pip's configuration excludes a target
    command += ["--only-binary", ":all:", "--require-hashes", "--target", str(target), "--requirement", str(lock)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_") or name in _FROM_WHERE}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=kept)
    if done.returncode:
        if done.stderr.rstrip().endswith("No module named pip"):
            raise InstallError(f"{called} is installed by pip, which is missing: install data-aggregator with [local]")
        why = (done.stderr.strip() or "pip failed").splitlines()[-1]
        raise InstallError(f"{called} cannot be installed: {why}")


def _version(lock: str, package: str) -> str:
    return next(line.split("==")[1].split()[0] for line in lock.splitlines() if line.startswith(f"{package}=="))


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "data-aggregator"
