"""Who may import whom, read from every module's imports."""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Container
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "aggregator"
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))

ROOMS = {
    "bundles": set(),
    "pipeline": {"bundles"},
    "contracts": {"bundles", "pipeline"},
    "operations": {"bundles", "pipeline"},
    "runtimes": {"bundles", "pipeline", "operations", "app"},
    "commands": {"bundles", "pipeline", "operations", "contracts", "runtimes"},
}
"""The folders of the package, from the ground up, and what each may import beside itself and what all share."""

DOORS: dict[str, set[str]] = {
    "__init__": set(),
    "app": {"bundles", "pipeline"},
    "reader": {"bundles"},
    "__main__": {"commands"},
}
"""The modules that others call us by."""

SHARED: dict[str, set[str]] = {
    "exceptions": set(),
    "events": set(),
    "schemas": {"events", "exceptions"},
    "aws": {"exceptions"},
}
"""What everybody may import, and what it may import itself."""

ONLY_IN = {
    "aws_lambda_powertools": {
        "app",
        "pipeline.records",
        "pipeline.report",
        "pipeline.telemetry",
        "runtimes.worker.exposition",
    },
    "boto3": {
        "aws",
        "pipeline.clients",
        "pipeline.connection",
        "operations.doctor",
        "runtimes.local.run",
        "runtimes.worker.process",
    },
    "botocore": {"aws", "pipeline", "operations", "runtimes", "commands"},
    "obstore": {"pipeline.connection", "pipeline.sources"},
    "urllib3": {"pipeline.sources"},  # what botocore reads bodies with, and depends on
    "isal": {"pipeline.core", "pipeline.decoding"},
    "backports": {"pipeline.decoding"},
    "compression": {"pipeline.decoding"},
    "zlib_ng": {"pipeline.core"},
    "jsonschema_rs": {"contracts"},
    "polyfactory": {"contracts"},
    "pydantic": {"bundles", "contracts", "operations.replay.inventories", "schemas", "pipeline.settings"},
    "pydantic_core": {"contracts", "schemas"},
    "opentelemetry": {"pipeline.tracing"},
    "structlog": {"app", "pipeline", "runtimes"},
    "typer": {"commands"},
    "rich": {"commands"},
    "subprocess": {"commands.version", "contracts.gate", "runtimes.local"},
    "multiprocessing": {"runtimes.worker"},
    "prometheus_client": {"runtimes.worker"},
    "yaml": {"operations.doctor.template"},
    "duckdb": {
        "operations.audit.database",
        "operations.catalog",
        "operations.replay.inventories",
        "operations.rows",
    },
    "fsspec": {"bundles.filesystem", "bundles.opening"},
}
"""Third-party packages (and subprocess), and who may import them; a package's name stands for all its modules."""

AUDITOR = {
    "operations.audit.database",
    "operations.audit.queries",
    "operations.audit.reconciliation",
    "operations.indexes",
    "operations.ledger_reader",
    "operations.listings",
    "operations.rows",
}
"""Modules that judge what the handler wrote."""

_STUBS = {
    "aws_lambda_powertools",
    "mypy_boto3_cloudwatch",
    "mypy_boto3_dynamodb",
    "mypy_boto3_iam",
    "mypy_boto3_lambda",
    "mypy_boto3_s3",
    "mypy_boto3_sqs",
    "typing_extensions",
}


@pytest.mark.parametrize("module", MODULES)
def test_a_package_is_imported_only_where_it_belongs(module: str) -> None:
    imported = {name.split(".")[0] for name in _imports(module)}

    trespasses = {package for package, homes in ONLY_IN.items() if package in imported and not _is_in(module, homes)}
    assert trespasses == set()
    assert imported - set(ONLY_IN) - set(sys.stdlib_module_names) - {"aggregator"} <= _STUBS


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_stands_below_it(module: str) -> None:
    room = module.split(".", maxsplit=1)[0]
    allowed = (
        {room, *SHARED, *ROOMS[room]} if room in ROOMS else {*SHARED, *DOORS[room]} if room in DOORS else SHARED[room]
    )

    assert {name.split(".")[0] for name in _ours(module)} <= allowed


def test_there_is_no_circle() -> None:
    graph = {module: _ours(module) & set(MODULES) for module in MODULES}

    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_the_pure_modules_know_no_aws() -> None:
    bundles = {module for module in MODULES if _is_in(module, {"bundles"})} - {"bundles.opening", "bundles.targets"}
    pure = bundles | {f"pipeline.{name}" for name in ("core", "deadlines", "outcomes", "planning", "settings")}
    pure |= {module for module in MODULES if _is_in(module, {"operations.capacity"})}

    assert [module for module in sorted(pure) if _imports(module) & {"boto3", "botocore", "aggregator.aws"}] == []


def test_a_bundle_is_read_with_nothing_but_pydantic() -> None:
    program = """
import sys
before = set(sys.modules)
from aggregator.reader import Bundle
with Bundle.open("fixtures/bundles/v1-lines.gz") as bundle:
    bundle.verify()
    assert bundle["in/a.json"] == b'{"n": 1}'
foreign = {name.split(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names) - {"aggregator"}
foreign = {name for name in foreign if not name.startswith("_")}  # what the interpreter makes for itself
assert foreign == {"annotated_types", "pydantic", "pydantic_core", "typing_extensions", "typing_inspection"}, foreign
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("module", sorted(AUDITOR))
def test_the_auditor_shares_nothing_with_what_it_judges_but_the_format_of_the_index(module: str) -> None:
    reader = {f"bundles.{name}" for name in ("bundle", "footer", "index", "opening", "targets")}
    assert _ours(module) <= AUDITOR | reader | {"aws", "exceptions"}


def test_nothing_runs_when_the_handler_is_imported() -> None:
    program = """
import os, socket, sys
os.environ.clear()
class Rejection(socket.socket):
    def connect(self, *_): raise AssertionError("connected")
socket.socket = Rejection
import aggregator.app
import gc, threading
assert threading.active_count() == 1, threading.enumerate()
assert gc.isenabled() and gc.get_freeze_count() > 100_000, gc.get_freeze_count()
assert "moto" not in sys.modules and "typer" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=PACKAGE.parent)


def test_powertools_batch_is_imported_before_pydantic_which_spares_a_cold_start_the_parser_models() -> None:
    program = """
import sys
import aggregator.app
models = [name for name in sys.modules if name.startswith("aws_lambda_powertools.utilities.parser.models")]
assert models == [], models
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_not_longer_than_a_reader_bears(module: str) -> None:
    lines = _path(module).read_text(encoding="utf-8").splitlines()

    assert len(lines) <= 450


def _path(module: str) -> Path:
    return PACKAGE / f"{module.replace('.', '/')}.py"


def _is_in(module: str, homes: Container[str]) -> bool:
    parts = module.split(".")
    return any(".".join(parts[:length]) in homes for length in range(1, len(parts) + 1))


def _ours(module: str) -> set[str]:
    """The modules of ours that a module imports, wherever in it: at its top, in a function, or for its types."""
    names = {name.removeprefix("aggregator.") for name in _imports(module) if name.startswith("aggregator.")}
    return {name if name in MODULES else name.rpartition(".")[0] or name for name in names}


def _imports(module: str) -> set[str]:
    tree = ast.parse(_path(module).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (PACKAGE.parent / (node.module or "").replace(".", "/")).is_dir():
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def test_no_test_file_is_longer_than_a_reader_bears_and_no_two_have_one_name() -> None:
    files = list((PACKAGE.parent / "tests").rglob("*.py"))
    long = [path.name for path in files if len(path.read_text(encoding="utf-8").splitlines()) > 500]
    names = Counter(path.name for path in files if path.name.startswith("test_"))

    assert long == []
    assert [name for name, count in names.items() if count > 1] == []
