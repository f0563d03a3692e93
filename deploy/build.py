"""
The package that Lambda runs, one for each architecture, and the list of what is in it.

    python -m deploy.build              build/lambda-x86_64.zip, build/lambda-arm64.zip, build/sbom.cdx.json
    python -m deploy.build --layer      build/layer-x86_64.zip, build/layer-arm64.zip as well

A package holds the handler, the reader and what they import, at the versions and hashes of `deploy/requirements.lock`,
compiled, and nothing else. A layer holds the same below `python/`, for functions that are not deployed by our template.
The same commit, lock and Python give the same bytes (docs/decisions/0014).
"""

import argparse
import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from aggregator.exceptions import AggregatorError
from deploy import sbom
from deploy.sbom import Package, Wheel

ROOT = Path(__file__).parent.parent
LOCKS = {"": ROOT / "deploy" / "requirements.lock", "otel": ROOT / "deploy" / "otel.lock"}
"""What a package is made of, by the extra that it is built with."""

DOORS = ("aggregator.app", "aggregator.reader")
"""The module that Lambda imports, and the one for a function that reads bundles; what they import of ours is packed."""

PYTHON = "3.13"
"""The runtime, python3.13: the one that `deploy/template.yaml` names."""

MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
"""What a wheel calls each of Lambda's architectures."""

MOST_BYTES = 20_000_000
"""A package may not be larger than this; most of a cold start that is not Python is fetching it."""

_GLIBC = 34
"""Wheels may ask for glibc 2.17 to 2.34, which Amazon Linux 2023 has (Lambda's runtimes from python3.12 on)."""

_SERVICES = ("s3", "dynamodb")
"""The services whose API descriptions botocore needs; those of the other 400 are 27 MB."""

_LEFT_OUT = (
    "bin/*",
    "*.pyi",
    "*/py.typed",
    "boto3/data/*",  # descriptions for boto3.resource, which nobody calls
    "boto3/examples/*",
    "aws_lambda_powertools/event_handler/openapi/swagger_ui/*",
    "*.dist-info/RECORD",  # METADATA and licences stay: scanners and lawyers read them
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/WHEEL",
    "*.dist-info/direct_url.json",
)

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip can tell."""


class BuildError(AggregatorError):
    """The package cannot be built."""

    reason = "build"


def build(
    out: Path,
    architectures: Sequence[str],
    *,
    python: str = PYTHON,
    interpreter: str = "",
    extra: str = "",
    layer: bool = False,
) -> list[Package]:
    """
    Write the package of each architecture for Lambda's runtime `python`, and the SBOM, into the folder `out`.

    `interpreter` is a Python of that version, which compiles; by default one is looked for. `extra` is one of `LOCKS`.
    `layer` adds the layers.

    Raises:
        BuildError: a wheel or the interpreter is missing, or a package is larger than `MOST_BYTES`.
    """
    compiler = interpreter or found(python)
    out.mkdir(parents=True, exist_ok=True)
    packages = []
    for architecture in architectures:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "root")
            wheels = _installed(root, python, MACHINES[architecture], LOCKS[extra])
            _trimmed(root)
            _add_ours(root)
            _compiled(root, compiler)
            packages.append(_packed(root, out / f"lambda-{architecture}.zip", wheels))
            if layer:
                packages.append(_packed(root, out / f"layer-{architecture}.zip", wheels, below="python/"))
    document = sbom.document(packages, version=_version())
    (out / "sbom.cdx.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return packages


def closure(module: str) -> set[str]:
    """The modules of ours that `module` imports, itself included, whether at its top or later."""
    seen: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        seen |= {name, name.rpartition(".")[0]}
        waiting |= _imported(name) - seen
    return seen


def found(python: str) -> str:
    """
    An interpreter of version `python`: this one, one on the path, or one that pyenv keeps.

    Raises:
        BuildError: there is none.
    """
    kept = Path.home().glob(f".pyenv/versions/{python}.*/bin/python3")
    for candidate in (sys.executable, f"python{python}", *map(str, sorted(kept))):
        if _says(candidate) == python:
            return candidate
    raise BuildError(
        f"Python {python} compiles the package, and there is none: install it, or name it with --interpreter"
    )


def _says(interpreter: str) -> str:
    """The version that an interpreter says it has, such as 3.13; nothing, if it does not run."""
    program = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([interpreter, "-c", program], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def _installed(root: Path, python: str, machine: str, lock: Path) -> list[Wheel]:
    """What the lock names, for another machine than this one maybe, unpacked below `root` by pip."""
    report = root.with_suffix(".json")
    command = [sys.executable, "-P", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--no-compile", "--ignore-installed"]
    command += ["--implementation", "cp", "--python-version", python, "--platform", f"manylinux2014_{machine}"]
    for minor in range(17, _GLIBC + 1):
        command += ["--platform", f"manylinux_2_{minor}_{machine}"]
    command += ["--target", str(root), "--report", str(report), "--requirement", str(lock)]
    _run(command, "the lock cannot be installed")
    return sorted(map(_wheel, json.loads(report.read_text(encoding="utf-8"))["install"]))


def _wheel(installed: dict[str, Any]) -> Wheel:
    source, metadata = installed["download_info"], installed["metadata"]
    return Wheel(
        name=re.sub(r"[-_.]+", "-", metadata["name"]).lower(),
        version=metadata["version"],
        file=source["url"].rpartition("/")[2],
        sha256=source["archive_info"]["hashes"]["sha256"],
    )


def _trimmed(root: Path) -> None:
    """Take away what the handler never reads."""
    for path in _files(root):
        name = path.relative_to(root).as_posix()
        if any(fnmatch(name, pattern) for pattern in _LEFT_OUT) or _is_foreign(name):
            path.unlink()


def _is_foreign(name: str) -> bool:
    """Whether a file describes an AWS service that the handler does not call."""
    parts = name.split("/")
    return parts[:2] == ["botocore", "data"] and len(parts) > 3 and parts[2] not in _SERVICES


def _add_ours(root: Path) -> None:
    for module in set[str]().union(*map(closure, DOORS)):
        path = _path(module)
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    shutil.copyfile(ROOT / "LICENSE", root / "aggregator" / "LICENSE")


def _compiled(root: Path, interpreter: str) -> None:
    """
    Compile all, in one order, so that no cold start does: `/var/task` cannot be written to.

    A compiled file says by a hash what it was made from, not by a time, and is not checked against it (PEP 552).
    Constant sets are written in the order of their hashes, so these are fixed.
    """
    command = [interpreter, "-P", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(root), "-p", "/var/task", str(root)]
    _run(command, "the package cannot be compiled", {"PYTHONHASHSEED": "0"})


def _packed(root: Path, path: Path, wheels: Sequence[Wheel], *, below: str = "") -> Package:
    """One zip of all below `root`, in its folder `below`: in order of names, without times, readable by all."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as package:
        for file in sorted(_files(root), key=lambda file: file.relative_to(root).as_posix()):
            entry = zipfile.ZipInfo(below + file.relative_to(root).as_posix(), _EPOCH)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o100644 << 16
            package.writestr(entry, file.read_bytes())
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise BuildError("the package is too large", file=path.name, bytes=size, limit=MOST_BYTES)
    return Package(path.name, size, hashlib.sha256(path.read_bytes()).hexdigest(), tuple(wheels))


def _imported(module: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(_path(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "aggregator":
            names.update(f"aggregator.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name for name in names if name.startswith("aggregator.")}


def _path(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _files(root: Path) -> Iterator[Path]:
    return (path for path in list(root.rglob("*")) if path.is_file())


def _version() -> str:
    """Our own version, which is said in one place."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def _run(command: Sequence[str], failure: str, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        why = ([line for line in done.stderr.splitlines() if line.startswith("ERROR")] or [done.stdout.strip()])[-1]
        raise BuildError(failure + ": " + why)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, and say what was built."""
    parser = argparse.ArgumentParser(prog="python -m deploy.build", description="Build the packages for Lambda.")
    parser.add_argument("--architecture", choices=MACHINES, action="append", help="one of them; both, if not given")
    parser.add_argument("--python", default=PYTHON, help="Lambda's runtime, such as 3.13")
    parser.add_argument("--interpreter", default="", help="a Python of that version, which compiles")
    parser.add_argument("--layer", action="store_true", help="write layers as well")
    parser.add_argument("--extra", choices=[extra for extra in LOCKS if extra], default="", help="an extra to add")
    parser.add_argument("--out", type=Path, default=ROOT / "build", help="folder to write to")
    options = parser.parse_args(arguments)
    try:
        packages = build(
            options.out,
            options.architecture or list(MACHINES),
            python=options.python,
            interpreter=options.interpreter,
            layer=options.layer,
            extra=options.extra,
        )
    except BuildError as error:
        print(f"build: {error}", file=sys.stderr)
        return 2
    for package in packages:
        print(f"{package.sha256}  {options.out / package.file}  {package.size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
