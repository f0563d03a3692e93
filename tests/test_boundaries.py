"""Who may import what: the last column of the house's "one way" table, read from every module's imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "aggregator"
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))

ONLY_IN = {
    "aws_lambda_powertools": {"app", "records", "telemetry"},
    "boto3": {"clients", "deployment", "local"},
    "botocore": {"clients", "deployment", "sources", "ledger", "local", "records"},
    "obstore": {"sources"},
    "isal": {"core"},
    "zlib_ng": {"core"},
    "pydantic": {"contracts", "reader", "schemas", "settings"},
    "pydantic_core": {"schemas"},
    "structlog": {"app", "bundling", "ledger", "polling", "records", "telemetry"},
    "typer": {"cli", "commands"},
    "rich": {"commands"},
    "yaml": {"template"},
    "subprocess": {"embedded", "packages"},
}
"""Third-party packages (and subprocess), and the modules that may import them; `commands` stands for all of them."""

NOT_IN_LAMBDA = {
    "blueprint",
    "cli",
    "commands",
    "contracts",
    "deployment",
    "diagnosis",
    "embedded",
    "local",
    "packages",
    "polling",
    "template",
}
"""Modules that the Lambda never imports."""

PURE = {"blueprint", "core", "diagnosis", "planning", "exceptions", "reader", "schemas", "settings", "template"}
"""Modules that know no AWS."""


_STUBS = {
    *(f"mypy_boto3_{service}" for service in ("cloudwatch", "dynamodb", "iam", "lambda", "s3", "sqs")),
    "aws_lambda_powertools",
    "typing_extensions",
}


def _home(module: str) -> str:
    return module.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("module", MODULES)
def test_a_package_is_imported_only_where_it_belongs(module: str) -> None:
    imported = {name.split(".")[0] for name in _imports(module)}

    trespasses = {package for package, homes in ONLY_IN.items() if package in imported and _home(module) not in homes}
    assert trespasses == set()
    assert imported - set(ONLY_IN) - set(sys.stdlib_module_names) - {"aggregator"} <= _STUBS


@pytest.mark.parametrize("module", [name for name in MODULES if _home(name) not in NOT_IN_LAMBDA])
def test_what_runs_in_lambda_imports_nothing_that_does_not(module: str) -> None:
    assert {_home(name) for name in _ours(module)} & NOT_IN_LAMBDA == set()


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_imports_only_pure_modules(module: str) -> None:
    assert _ours(module) <= PURE


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
