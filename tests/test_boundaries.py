"""Who may import what: the last column of the house's "one way" table, read from every module's imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = ROOT / "aggregator"
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))

ONLY_IN = {
    "aws_lambda_powertools": {"app", "pipeline.records", "pipeline.report", "pipeline.telemetry"},
    "boto3": {
        "bundles.opening",
        "pipeline.clients",
        "commands",
        "aws",
        "operations.doctor.facts_from_aws",
        "runtimes.local.run",
        "runtimes.worker.process",
    },
    "botocore": {
        "operations",
        "bundles.opening",
        "pipeline.clients",
        "commands",
        "aws",
        "operations.doctor.facts_from_aws",
        "runtimes.local.run",
    }
    | {
        "runtimes.polling",
        "pipeline.records",
        "operations.replay.queues",
        "pipeline.sources",
        "pipeline.swaps",
        "runtimes.worker.process",
    },
    "obstore": {"pipeline.sources"},
    "urllib3": {"pipeline.sources"},  # what botocore reads bodies with, and depends on
    "isal": {"pipeline.core"},
    "zlib_ng": {"pipeline.core"},
    "jsonschema_rs": {"contracts"},
    "polyfactory": {"contracts.gate.agreement", "contracts.factories"},
    "pydantic": {"contracts", "bundles.footer", "operations.replay.inventories", "schemas", "pipeline.settings"},
    "pydantic_core": {"contracts", "schemas"},
    "structlog": {
        "app",
        "pipeline.arbiter",
        "pipeline.bundling",
        "runtimes.polling",
        "pipeline.report",
        "pipeline.swaps",
        "pipeline.telemetry",
        "runtimes",
    },
    "typer": {"commands.main", "commands"},
    "rich": {"commands"},
    "subprocess": {"contracts.gate.portability", "runtimes.local.embedded", "runtimes.local.packages"},
    "multiprocessing": {"runtimes"},
    "yaml": {"operations.doctor.template"},
    "duckdb": {"operations.audit.database", "operations.replay.inventories"},
    "fsspec": {"bundles.opening"},
}
"""Third-party packages (and subprocess), and who may import them; a package's name stands for all its modules."""

NOT_IN_LAMBDA = {
    "__main__",
    "operations",
    "commands.main",
    "commands",
    "contracts",
    "runtimes.local.embedded",
    "runtimes.local.run",
} | {
    "runtimes.local.packages",
    "runtimes.polling",
    "runtimes",
}
"""Packages and modules that the Lambda never imports."""

AUDITOR = {
    "operations.audit.database",
    "operations.ledger_reader",
    "operations.listings",
    "operations.audit.reconciliation",
    "operations.audit.queries",
}
"""Modules that judge what the handler wrote."""

PURE = {
    "pipeline.core",
    "events",
    "exceptions",
    "bundles.footer",
    "bundles.layout",
    "pipeline.planning",
    "reader",
    "schemas",
    "pipeline.settings",
    "bundles.verification",
} | {
    "operations.statistics",
    "operations.statistics_page",
    "operations.audit.queries",
    "operations.doctor.facts_from_template",
    "operations.doctor.checks",
    "operations.doctor.template",
    "operations.capacity.arrivals",
    "operations.capacity.costs",
    "operations.capacity.provisioning",
}
"""Modules that know no AWS."""

SEAMS = {"reader": {"bundles.opening"}}
"""What a module imports only when it is called for (a URL), and can do without."""

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


def _home(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_package_is_imported_only_where_it_belongs(module: str) -> None:
    imported = {name.split(".")[0] for name in _imports(module)}

    trespasses = {
        package for package, homes in ONLY_IN.items() if package in imported and not homes & {module, _home(module)}
    }
    assert trespasses == set()
    assert imported - set(ONLY_IN) - set(sys.stdlib_module_names) - {"aggregator"} <= {"mypy_boto3_s3"} | _STUBS


@pytest.mark.parametrize("module", [name for name in MODULES if _home(name) not in NOT_IN_LAMBDA])
def test_what_runs_in_lambda_imports_nothing_that_does_not(module: str) -> None:
    assert {name for name in _ours(module) - SEAMS.get(module, set()) if _home(name) in NOT_IN_LAMBDA} == set()


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_imports_only_pure_modules(module: str) -> None:
    assert _ours(module) <= PURE | SEAMS.get(module, set())


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
    assert _ours(module) <= AUDITOR | {"aws", "exceptions", "bundles.footer", "reader", "schemas"}


def test_nothing_runs_when_the_handler_is_imported() -> None:
    program = """
import os, socket, sys
os.environ.clear()
class Refused(socket.socket):
    def connect(self, *_): raise AssertionError("connected")
socket.socket = Refused
import aggregator.app
import threading
assert threading.active_count() == 1, threading.enumerate()
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


def _ours(module: str) -> set[str]:
    return {name.removeprefix("aggregator.") for name in _imports(module) if name.startswith("aggregator.")}


def _imports(module: str) -> set[str]:
    tree = ast.parse(_path(module).read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "aggregator":
            names.update(f"aggregator.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names
