"""Who may import what: the last column of the house's "one way" table, read from every module's imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "aggregator"
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))

ONLY_IN = {
    "aws_lambda_powertools": {"app", "records", "report", "telemetry"},
    "boto3": {"clients", "commands", "connection", "deployment", "local", "opening", "worker"},
    "botocore": {
        "clients",
        "commands",
        "connection",
        "deployment",
        "ledger",
        "ledger_reader",
        "listings",
        "local",
        "opening",
        "polling",
        "queues",
        "records",
        "sources",
        "worker",
    },
    "obstore": {"sources"},
    "isal": {"core"},
    "zlib_ng": {"core"},
    "jsonschema_rs": {"agreement", "containment", "examples", "portability", "validation"},
    "polyfactory": {"agreement", "factories"},
    "pydantic": {
        "agreement",
        "contracts",
        "factories",
        "indexing",
        "inventories",
        "producers",
        "publishing",
        "reader",
        "schemas",
        "settings",
        "validation",
    },
    "pydantic_core": {"agreement", "documents", "schemas"},
    "structlog": {
        "app",
        "bundling",
        "ledger",
        "polling",
        "records",
        "report",
        "supervisor",
        "telemetry",
        "worker",
    },
    "typer": {"cli", "commands"},
    "rich": {"commands"},
    "subprocess": {"embedded", "packages", "portability"},
    "multiprocessing": {"supervisor", "worker"},
    "yaml": {"template"},
    "duckdb": {"evidence", "inventories"},
    "fsspec": {"opening"},
}
"""Third-party packages (and subprocess), and the modules that may import them; `commands` stands for all of them."""

CONTRACTS = {
    "agreement",
    "containment",
    "contracts",
    "documents",
    "examples",
    "factories",
    "gate",
    "lint",
    "mutations",
    "portability",
    "producers",
    "publishing",
    "reports",
    "selftest",
    "validation",
}
"""Modules around the published contracts."""

AUDITOR = {
    "evidence",
    "ledger_reader",
    "listings",
    "reconciliation",
    "verdicts",
}
"""Modules that judge what the handler wrote."""

NOT_IN_LAMBDA = {
    "arrivals",
    "backfill",
    "blueprint",
    "cli",
    "commands",
    "connection",
    "costs",
    "dead_letters",
    "deployment",
    "diagnosis",
    "embedded",
    "evidence",
    "extraction",
    "figures",
    "figures_page",
    "health",
    "inventories",
    "ledger_reader",
    "listings",
    "local",
    "opening",
    "packages",
    "pages",
    "polling",
    "queues",
    "reconciliation",
    "repacking",
    "supervisor",
    "template",
    "verdicts",
    "whereabouts",
    "witnesses",
    "worker",
} | CONTRACTS
"""Modules that the Lambda never imports."""

PURE = {
    "arrivals",
    "blueprint",
    "core",
    "costs",
    "diagnosis",
    "exceptions",
    "figures",
    "figures_page",
    "indexing",
    "planning",
    "reader",
    "schemas",
    "settings",
    "template",
    "verdicts",
    "verification",
}
"""Modules that know no AWS."""


SEAMS = {"reader": {"opening"}}
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

    trespasses = {package for package, homes in ONLY_IN.items() if package in imported and _home(module) not in homes}
    assert trespasses == set()
    assert imported - set(ONLY_IN) - set(sys.stdlib_module_names) - {"aggregator"} <= {"mypy_boto3_s3"} | _STUBS


@pytest.mark.parametrize("module", [name for name in MODULES if _home(name) not in NOT_IN_LAMBDA])
def test_what_runs_in_lambda_imports_nothing_that_does_not(module: str) -> None:
    assert {_home(name) for name in _ours(module)} & NOT_IN_LAMBDA <= SEAMS.get(module, set())


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_imports_only_pure_modules(module: str) -> None:
    assert _ours(module) <= PURE | SEAMS.get(module, set())


def test_a_bundle_is_read_without_any_package_of_aws() -> None:
    program = """
import sys
from aggregator.reader import Bundle
with Bundle.open("fixtures/bundles/v1-lines.gz") as bundle:
    bundle.verify()
    assert bundle["in/a.json"] == b'{"n": 1}'
foreign = {"boto3", "botocore", "obstore", "aws_lambda_powertools", "fsspec", "aggregator.opening"} & set(sys.modules)
assert foreign == set(), foreign
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, cwd=PACKAGE.parent)


@pytest.mark.parametrize("module", sorted(AUDITOR))
def test_the_auditor_shares_nothing_with_what_it_judges_but_the_format_of_the_index(module: str) -> None:
    assert _ours(module) <= AUDITOR | {"exceptions", "indexing", "reader", "schemas"}


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
