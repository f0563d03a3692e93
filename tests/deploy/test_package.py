"""The package for Lambda: what is in it, that it is the same each time, and that it runs under AWS's own client."""

import json
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aggregator.reader import Bundle
from aggregator.runtimes.local import run as local
from deploy import build as building
from deploy import sbom
from deploy.build import BuildError, build, closure
from deploy.sbom import Package, Wheel
from tests.support import ROOT
from tests.support.runtime import Function, FunctionError, client
from tests.support.world import log_lines

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
"""The package is built for the Python that the tests run on."""

pytestmark = [pytest.mark.once, pytest.mark.chaos]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Package]]:
    """Both packages and their SBOM, and the folder they are in."""
    out = tmp_path_factory.mktemp("build")
    return out, build(out, ["x86_64", "arm64"], python=PYTHON)


@pytest.fixture
def root(built: tuple[Path, list[Package]], tmp_path: Path) -> Path:
    """The package for this machine, unzipped."""
    with zipfile.ZipFile(built[0] / f"lambda-{_architecture()}.zip") as package:
        package.extractall(tmp_path / "task")
    return tmp_path / "task"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the runtime client and nothing else."""
    return client(tmp_path_factory.mktemp("client"))


def test_the_same_commit_lock_and_python_give_the_same_bytes(built: tuple[Path, list[Package]], tmp_path: Path) -> None:
    out, packages = built

    (again,) = build(tmp_path, ["arm64"], python=PYTHON)

    assert again == packages[1]
    assert (tmp_path / again.file).read_bytes() == (out / again.file).read_bytes()


def test_a_package_holds_what_the_handler_imports_and_no_command(built: tuple[Path, list[Package]]) -> None:
    for file in ("lambda-x86_64.zip", "lambda-arm64.zip"):
        with zipfile.ZipFile(built[0] / file) as package:
            names = package.namelist()

        ours = {name for name in names if name.startswith("aggregator/") and name.endswith(".py")}
        others = {name.split("/")[0].removesuffix(".py") for name in names if ".dist-info/" not in name}
        assert {_module(name) for name in ours} == closure("aggregator.app") | {"aggregator.reader"}
        assert others - {"__pycache__"} == {"aggregator", *_locked_modules()}
        services = {name.split("/")[2] for name in names if name.startswith("botocore/data/")}
        assert {name for name in services if not name.endswith(".json")} == {"s3", "dynamodb"}


def test_the_closure_of_the_handler_has_no_module_that_lambda_never_runs() -> None:
    modules = closure("aggregator.app")

    assert {"aggregator", "aggregator.app", "aggregator.pipeline.ledger", "aggregator.pipeline.core"} <= modules
    assert (
        modules
        & {
            "aggregator.commands.main",
            "aggregator.runtimes.local.run",
            "aggregator.runtimes.polling",
            "aggregator.runtimes.worker.process",
        }
        == set()
    )


def test_binaries_are_those_of_the_architecture(built: tuple[Path, list[Package]]) -> None:
    machines = {"lambda-x86_64.zip": 62, "lambda-arm64.zip": 183}  # e_machine of ELF

    for file, machine in machines.items():
        with zipfile.ZipFile(built[0] / file) as package:
            libraries = [name for name in package.namelist() if name.endswith(".so")]
            found = {int.from_bytes(package.read(name)[18:20], "little") for name in libraries}

        assert (len(libraries), found) == (7, {machine})


def test_every_module_is_compiled_and_says_where_it_is_in_lambda(root: Path) -> None:
    sources = list(root.rglob("*.py"))
    compiled = [path for path in sources if _compiled(path).is_file()]

    assert len(sources) > 500
    assert compiled == sources
    assert b"/var/task/aggregator/app.py" in _compiled(root / "aggregator" / "app.py").read_bytes()
    assert str(root.parent).encode() not in _compiled(root / "aggregator" / "app.py").read_bytes()


def test_a_package_is_small_and_a_larger_one_is_refused(
    built: tuple[Path, list[Package]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "MOST_BYTES", 10)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.py").write_text("a = 1\n")

    assert [package.size < 20_000_000 for package in built[1]] == [True, True]
    for package in built[1]:
        with zipfile.ZipFile(built[0] / package.file) as archive:
            assert (
                sum(entry.file_size for entry in archive.infolist()) < 250_000_000
            )  # what Lambda allows, layers included
    with pytest.raises(BuildError, match="the package is too large"):
        building._packed(tmp_path / "root", tmp_path / "a.zip", [])


def test_the_list_of_contents_names_every_wheel_of_the_lock_and_every_package(
    built: tuple[Path, list[Package]],
) -> None:
    document = json.loads((built[0] / "sbom.cdx.json").read_text())
    components = {component["bom-ref"]: component for component in document["components"]}
    hashes = {component["hashes"][0]["content"] for component in components.values() if "purl" in component}

    assert {(component["name"], component["version"]) for component in components.values() if "purl" in component} == {
        (name, version) for name, version, _ in _locked()
    }
    assert hashes <= {sha256 for _, _, some in _locked() for sha256 in some}
    assert [components[package.file]["hashes"][0]["content"] for package in built[1]] == [
        package.sha256 for package in built[1]
    ]


def test_the_list_of_contents_is_cyclonedx() -> None:
    wheel = Wheel("zlib-ng", "1.1.0", "zlib_ng-1.1.0-cp313-cp313-manylinux2014_x86_64.whl", "b" * 64)
    document = sbom.document([Package("lambda-x86_64.zip", 10, "a" * 64, (wheel,))], version="0.1.0")

    assert document == {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": "pkg:pypi/data-aggregator@0.1.0",
                "name": "data-aggregator",
                "version": "0.1.0",
                "purl": "pkg:pypi/data-aggregator@0.1.0",
                "licenses": [{"license": {"id": "Apache-2.0"}}],
            }
        },
        "components": [
            {
                "type": "file",
                "bom-ref": "lambda-x86_64.zip",
                "name": "lambda-x86_64.zip",
                "hashes": [{"alg": "SHA-256", "content": "a" * 64}],
            },
            {
                "type": "library",
                "bom-ref": wheel.purl,
                "name": "zlib-ng",
                "version": "1.1.0",
                "purl": f"pkg:pypi/zlib-ng@1.1.0?file_name={wheel.file}",
                "hashes": [{"alg": "SHA-256", "content": "b" * 64}],
            },
        ],
        "dependencies": [
            {"ref": "pkg:pypi/data-aggregator@0.1.0", "dependsOn": ["lambda-x86_64.zip"]},
            {"ref": "lambda-x86_64.zip", "dependsOn": [wheel.purl]},
            {"ref": wheel.purl},
        ],
    }


def test_a_python_that_is_not_there_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert building.main(["--python", "3.99"]) == 2
    assert capsys.readouterr().err == (
        "build: Python 3.99 compiles the package, and there is none: install it, or name it with --interpreter\n"
    )


@pytest.mark.integration
def test_the_package_bundles_all_under_the_runtime_client_and_the_poison_is_in_the_dead_letter_queue(
    root: Path, python: Path, embedded: str, tmp_path: Path
) -> None:
    objects = {f"in/{at:03}.json": b'{"order": %d}\n' % at for at in range(199)}
    files = _written(tmp_path / "files", {**objects, "in/poison.json.gz": b"\x1f\x8b\x08 no gzip"})
    before, said = sorted(root.rglob("*")), list[str]()

    with Function(root, python, _environment, log=said.append) as function:
        summary = local.run(
            files,
            tmp_path / "out",
            endpoint_url=embedded,
            name="packaged",
            invoke=lambda event: local.Invoked(function.invoke(event), {}),
        )

    figures = [line for line in log_lines("\n".join(said)) if line.get("message") == "invocation.finished"]
    assert _published(tmp_path / "out") == objects
    assert [sum(line[name] for line in figures) for name in ("MembersBundled", "Duplicates")] == [199, 0]
    assert [failure.key for failure in summary.failures] == ["in/poison.json.gz"]
    assert summary.failures[0].reason.startswith("object is not gzip to its end")
    assert function.cold_starts == 1
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("missing", ["zlib_ng", "botocore/data/dynamodb", "aggregator/pipeline/ledger.py"])
def test_a_package_that_lacks_something_is_noticed(root: Path, python: Path, missing: str) -> None:
    (root / missing).rename(root / "elsewhere")

    with (
        Function(root, python, lambda: {"AWS_REGION": "us-east-1", **SETTINGS}) as function,
        pytest.raises(FunctionError),
    ):
        function.invoke({"Records": []})


def test_a_layer_has_the_package_below_python(tmp_path: Path) -> None:
    (tmp_path / "root" / "aggregator").mkdir(parents=True)
    (tmp_path / "root" / "aggregator" / "app.py").write_text("a = 1\n")

    building._packed(tmp_path / "root", tmp_path / "layer.zip", [], below="python/")

    with zipfile.ZipFile(tmp_path / "layer.zip") as layer:
        assert layer.namelist() == ["python/aggregator/app.py"]


def test_a_function_with_the_layer_has_the_handler_and_the_reader(root: Path, python: Path, tmp_path: Path) -> None:
    """Lambda's runtime has /opt/python on the path, behind the function's own folder."""
    program = """
import aggregator.app, aggregator.reader
def handler(event, context):
    with aggregator.reader.Bundle.open(event) as bundle:
        return [aggregator.app.handler.__module__, aggregator.app.__file__, bundle["in/a.json"].decode()]
"""
    layer = root.rename(tmp_path / "python")
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.py").write_text(program)

    with Function(tmp_path / "task", python, lambda: {"PYTHONPATH": str(layer)}, handler="mine.handler") as function:
        answer = function.invoke(str(ROOT / "fixtures" / "bundles" / "v1-lines.gz"))

    assert answer == ["aggregator.app", str(layer / "aggregator" / "app.py"), '{"n": 1}']


def test_a_function_that_dies_or_hangs_is_replaced_by_a_cold_start(python: Path, tmp_path: Path) -> None:
    program = """
import os, time
def handler(event, context):
    if event == "die": os._exit(3)
    if event == "hang": time.sleep(600)
    if event == "raise": raise ValueError("no \\u00e9")
    if event == "talk": return "x" * 7_000_000
    return [event, context.get_remaining_time_in_millis() > 20_000]
"""
    (tmp_path / "mine.py").write_text(program)
    answers: list[Any] = []

    with Function(tmp_path, python, dict, handler="mine.handler") as function:
        for event, seconds in (
            ("a", 30),
            ("raise", 30),
            ("b", 30),
            ("die", 30),
            ("hang", 0.5),
            ("talk", 30),
            ("c", 30),
        ):
            try:
                answers.append(function.invoke(event, seconds=seconds))
            except FunctionError as error:
                answers.append(str(error).split(":")[0])

    assert answers == [["a", True], "error", ["b", True], "died", "timed out", "too large", ["c", True]]
    assert function.cold_starts == 4


SETTINGS = {
    "DISTRIBUTION_BUCKET_NAME": "distribution",
    "SERVICE_NAME": "packaged",
    "IDEMPOTENCY_TABLE_NAME": "ledger",
    "IDEMPOTENCY_TTL_DAYS": "30",
    "LOG_LEVEL": "INFO",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
}


def _environment() -> dict[str, str]:
    """What the run has set for its handler, and nothing of this machine's Python."""
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name in SETTINGS}


def _written(folder: Path, bodies: dict[str, bytes]) -> dict[str, Path]:
    files = {key: folder / key for key in bodies}
    for key, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bodies[key])
    return files


def _published(out: Path) -> dict[str, bytes]:
    """Each member's bytes, by key; none may be there twice."""
    found: dict[str, bytes] = {}
    for path in out.rglob("*.gz"):
        with Bundle.open(path) as bundle:
            bundle.verify()
            for member in bundle:
                assert member.key not in found
                found[member.key] = bundle.read(member)
    return found


def _module(name: str) -> str:
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _compiled(source: Path) -> Path:
    return source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"


def _architecture() -> str:
    return {"x86_64": "x86_64", "aarch64": "arm64"}[os.uname().machine]


def _locked() -> Iterator[tuple[str, str, set[str]]]:
    """The names, versions and hashes of the lock."""
    for entry in building.LOCKS[""].read_text().replace("\\\n", " ").splitlines():
        if "==" in entry and not entry.startswith((" ", "#")):
            name, _, rest = entry.partition("==")
            yield name, rest.split()[0], {word.removeprefix("--hash=sha256:") for word in rest.split()[1:]}


def _locked_modules() -> set[str]:
    distributions = {name.replace("-", "_") for name, _, _ in _locked()}
    return distributions - {"python_dateutil", "backports_zstd"} | {"dateutil", "backports"}
