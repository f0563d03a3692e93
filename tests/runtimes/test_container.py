"""
The container of `aggregator worker`. There is no Docker here: its file system is made by the script that the Dockerfile
runs, of this Python, and the worker runs in it, without root, against the embedded AWS.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.workers import Queue, Running, until
from tests.support.world import World

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()

pytestmark = pytest.mark.once


def test_what_the_dockerfile_copies_is_there_and_sent() -> None:
    sources = [name for line in _instructions("COPY") if "--from" not in line for name in line.split()[:-1]]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert sources == ["deploy/worker.lock", "deploy/rootfs", "aggregator"]
    assert [name for name in sources if not (ROOT / name).exists()] == []
    assert {name.split("/")[0] for name in sources} == sent


def test_the_container_is_built_from_the_lock_on_nothing_and_runs_without_root() -> None:
    (install,) = [line for line in _instructions("RUN") if "pip" in line]

    build, image = _instructions("FROM")
    assert re.fullmatch(r"python:3\.13\.\d+-slim-bookworm@sha256:[0-9a-f]{64} AS build", build)
    assert image == "scratch"
    assert {"--require-hashes", "--no-deps", "/build/worker.lock"} <= set(install.split())
    assert _instructions("USER") == ["65532:65532"]


def test_no_code_and_no_setting_is_taken_from_where_others_may_write(tmp_path: Path) -> None:
    """With a HOME in /tmp, a module of the user's site and a credential process of a profile ran."""
    environment = dict(field.split("=", 1) for line in _instructions("ENV") for field in line.split())
    module = tmp_path / f".local/lib/python3.{sys.version_info.minor}/site-packages/usercustomize.py"
    module.parent.mkdir(parents=True)
    module.write_text("print('ran')")

    done = subprocess.run(
        [sys.executable, "-c", "import sys, os; print(sys.path[0], os.path.expanduser('~'))"],
        env={**environment, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == f"{ROOT} /nonexistent\n"
    assert {environment[name] for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")} == {"/dev/null"}


@pytest.mark.chaos
@pytest.mark.integration
def test_the_worker_runs_in_the_file_system_of_the_container(world: World, tmp_path: Path) -> None:
    image = _image(tmp_path)
    queue = Queue(world)
    queue.fill(20)
    python, *entry = json.loads(_instructions("ENTRYPOINT")[0])
    assert python == "python3"
    inside = [*_entered(image), f"{sys.base_prefix}/bin/python3", *entry[: entry.index("--health")]]
    environment = {
        **world.environment,
        "PYTHONPATH": str(tmp_path / "app"),
        "LD_LIBRARY_PATH": f"{sys.base_prefix}/lib",
    }

    with Running(
        queue, command=inside, env={**environment, "HOME": "/nonexistent", "PATH": os.environ["PATH"]}
    ) as running:
        until(lambda: queue.left() == (0, 0))
        status = running.ends()

    assert status == 0
    assert world.published() == {key: [body] for key, body in queue.objects.items()}
    assert [path.name for path in image.rglob("*") if path.name in {"sh", "bash", "pip", "apt"}] == []


def test_the_file_system_is_the_same_whatever_the_checkout_and_the_clock(tmp_path: Path) -> None:
    prefix, app = tmp_path / "python", tmp_path / "app"
    for name in ("python/bin", "python/lib/python3.13/__pycache__", "app/aggregator"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(Path(sys.executable).resolve(), prefix / "bin" / "python3.13")
    (prefix / "bin" / "python3").symlink_to("python3.13")
    source, compiled = prefix / "lib/python3.13/os.py", prefix / "lib/python3.13/__pycache__/os.cpython-313.pyc"
    files = [source, compiled, app / "aggregator" / "app.py"]

    listings = []
    for time, mode, umask in ((1_600_000_000, 0o644, 0o022), (1_700_000_000, 0o600, 0o077)):
        for path in files:
            path.write_text("a = 1\n")
            path.chmod(mode)
            os.utime(path, (time, time))
        os.utime(source, (1_500_000_000, 1_500_000_000))  # the base image's, and named by what is compiled of it
        image = tmp_path / str(time)
        command = ["sh", str(ROOT / "deploy" / "rootfs"), str(prefix), str(app), str(image)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1650000000"}
        subprocess.run(command, check=True, stderr=subprocess.PIPE, umask=umask, env=environment)
        listings.append(_listing(image))

    one, other = listings
    assert one == other
    assert {time for time, *_ in one.values()} == {1_500_000_000, 1_650_000_000}
    assert one[str(source)[1:]][:2] == (1_500_000_000, 0o100644)
    assert one["tmp"][1] == 0o041777


def _listing(image: Path) -> dict[str, tuple[int, int, bytes]]:
    """The time, the mode and the bytes of everything in a file system."""
    listing = {}
    for path in [image, *image.rglob("*")]:
        status = path.lstat()
        body = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        listing[str(path.relative_to(image))] = int(status.st_mtime), status.st_mode, body
    return listing


def _image(folder: Path) -> Path:
    """The file system, made as the Dockerfile makes it."""
    app, image = folder / "app", folder / "image"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--no-compile",
    ]
    command += ["--disable-pip-version-check", "--target", str(app), "-r", str(ROOT / "deploy" / "worker.lock")]
    subprocess.run(command, check=True, stderr=subprocess.PIPE)
    shutil.copytree(ROOT / "aggregator", app / "aggregator", ignore=shutil.ignore_patterns("__pycache__"))
    compiling = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(app)]
    subprocess.run([sys.executable, "-P", *compiling], check=True)
    script = str(ROOT / "deploy" / "rootfs")
    subprocess.run(["sh", script, sys.base_prefix, str(app), str(image)], check=True, stderr=subprocess.PIPE)
    return image


def _entered(image: Path) -> list[str]:
    """The command that runs another with the image as its root."""
    if os.geteuid() == 0:
        return ["chroot", "--userspec=65532:65532", str(image)]
    entering = ["unshare", "--map-root-user", "chroot", str(image)]
    if subprocess.run(["unshare", "--map-root-user", "true"], check=False, capture_output=True).returncode:
        pytest.skip("neither root nor user namespaces: nothing can be given another root here")
    return entering


def _instructions(name: str) -> list[str]:
    """What follows each instruction of that name."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, flags=re.MULTILINE)
