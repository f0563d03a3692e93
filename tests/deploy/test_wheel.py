"""The wheel and the sdist: the same bytes from any checkout, with the contracts, and with types for who imports it."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from aggregator.contracts.catalog import walk
from tests.support import ROOT

pytestmark = pytest.mark.once

CONSUMER = """
from aggregator.reader import Bundle, Member

def largest(path: str) -> Member:
    with Bundle.open(path) as bundle:
        return max(bundle, key=lambda member: member.length)

def wrong(bundle: Bundle) -> int:
    return bundle.sha256
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What `just dist` makes of two copies of the checkout, which differ in all that a checkout may differ in."""
    one, other = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("another-one")
    _built(one, umask=0o022, environment={"TZ": "UTC", "LC_ALL": "C"})
    _built(other, umask=0o077, environment={"TZ": "Asia/Kolkata", "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "7"})
    return [one / "dist", other / "dist"]


@pytest.fixture(scope="module")
def site(built: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of an environment that has the wheel and nothing else."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (wheel,) = built[0].glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    return packages


def test_two_checkouts_give_the_same_bytes(built: list[Path]) -> None:
    one, other = ({path.name: path.read_bytes() for path in folder.glob("data*")} for folder in built)

    assert sorted(name.partition("-")[2] for name in one) == ["0.1.0-py3-none-any.whl", "0.1.0.tar.gz"]
    assert one == other


def test_the_wheel_has_the_contracts_inside_and_finds_them_there(site: Path, tmp_path: Path) -> None:
    contracts = dict(_read(ROOT / "contracts"))
    program = [sys.executable, "-m", "aggregator", "contract", "export", "out"]

    done = _run(program, cwd=tmp_path, environment={"PYTHONPATH": str(site)})

    assert (done.returncode, done.stdout) == (0, "out\n"), done.stderr
    assert dict(_read(site / "aggregator" / "published")) == contracts
    assert dict(_read(tmp_path / "out")) == contracts


def test_a_program_that_imports_the_wheel_is_checked_by_its_types(site: Path, tmp_path: Path) -> None:
    (tmp_path / "consumer.py").write_text(CONSUMER)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull]
    command += ["--python-executable", str(site.parents[2] / "bin" / "python"), "consumer.py"]

    done = _run(command, cwd=tmp_path, environment={})

    assert done.stdout.splitlines()[:-1] == [
        'consumer.py:9: error: Incompatible return value type (got "str", expected "int")  [return-value]'
    ]


@pytest.mark.nightly
def test_uvx_runs_the_commands_from_git_and_they_know_their_commit(tmp_path: Path) -> None:
    commit = _run(["git", "rev-parse", "HEAD"], cwd=ROOT, environment={}).stdout.strip()
    source = f"data-aggregator[cli] @ git+file://{ROOT}@{commit}"
    command = [sys.executable, "-m", "uv", "tool", "run", "--quiet", "--from", source, "aggregator", "--version"]

    done = _run(command, cwd=tmp_path, environment={"UV_CACHE_DIR": str(tmp_path / "cache")})

    assert (done.returncode, done.stdout.split()[2:]) == (0, ["(commit", f"{commit[:12]})"]), done.stderr


def _read(folder: Path) -> list[tuple[str, bytes]]:
    return [(path, file.read_bytes()) for path, file in walk(folder)]


def _built(folder: Path, *, umask: int, environment: dict[str, str]) -> None:
    tracked = _run(["git", "ls-files", "-z"], cwd=ROOT, environment={}).stdout.split("\0")
    for name in filter(None, tracked):
        target = folder / name
        target.parent.mkdir(mode=0o777 & ~umask, parents=True, exist_ok=True)
        target.write_bytes((ROOT / name).read_bytes())
        target.chmod((0o755 if os.access(ROOT / name, os.X_OK) else 0o644) & ~umask)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    given = {**environment, "PATH": path, "SOURCE_DATE_EPOCH": "1700000000"}
    done = _run(["just", "dist"], cwd=folder, environment=given, umask=umask)
    assert done.returncode == 0, done.stderr


def _run(
    command: list[str], *, cwd: Path, environment: dict[str, str], umask: int = -1
) -> subprocess.CompletedProcess[str]:
    whole = {**os.environ, **environment}
    return subprocess.run(command, cwd=cwd, env=whole, umask=umask, capture_output=True, text=True, check=False)
