"""
What runs in the pipelines of producers: the snippets, the hook and the action.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from aggregator.contracts.catalog import CONTRACTS, Contract, Profile
from aggregator.contracts.gate import examples
from aggregator.contracts.gate.portability import ajv_differences
from tests.support import ROOT

FOLDER = ROOT / "contracts"

PROFILES = [(one, profile) for one in CONTRACTS for profile in one.profiles]

every_schema = pytest.mark.parametrize(("one", "profile"), PROFILES, ids=lambda value: getattr(value, "label", value))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node snippet, with ajv beside it."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    snippet = tmp_path_factory.mktemp("contracts") / "snippets" / "node"
    shutil.copytree(FOLDER / "snippets" / "node", snippet, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--silent", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=snippet, check=True, timeout=300)
    return snippet / "check.mjs"


@every_schema
def test_the_python_snippet_reports_what_the_examples_expect(one: Contract, profile: Profile) -> None:
    snippet = [sys.executable, str(FOLDER / "snippets" / "python" / "check.py")]

    _reports_what_is_expected(snippet, one, profile, f"{profile}.schema.json")


@pytest.mark.once
@pytest.mark.parametrize("dialect", ["", "draft-07/"])
@every_schema
def test_the_node_snippet_reports_what_the_examples_expect(
    node: Path, one: Contract, profile: Profile, dialect: str
) -> None:
    _reports_what_is_expected(["node", str(node)], one, profile, f"{dialect}{profile}.schema.json")


_PUT = "s3-notification/v1/examples/valid/put.json"
_WRONG_CALLS = [[], [_PUT], [_PUT, _PUT]]


@pytest.mark.parametrize("files", _WRONG_CALLS)
def test_the_python_snippet_without_a_schema_is_a_wrong_call(files: list[str]) -> None:
    done = _run([sys.executable, str(FOLDER / "snippets" / "python" / "check.py"), *(str(FOLDER / f) for f in files)])

    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "usage")


@pytest.mark.once
@pytest.mark.parametrize("files", _WRONG_CALLS)
def test_the_node_snippet_without_a_schema_is_a_wrong_call(node: Path, files: list[str]) -> None:
    done = _run(["node", str(node), *(str(FOLDER / f) for f in files)])

    assert (done.returncode, done.stderr.partition(":")[0]) == (2, "usage")


@pytest.mark.once
@pytest.mark.parametrize("snippet", ["python", "node"])
def test_a_snippet_says_that_a_file_is_not_json_and_goes_on(
    snippet: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    program = [sys.executable, str(FOLDER / "snippets" / "python" / "check.py")]
    if snippet == "node":
        program = ["node", str(request.getfixturevalue("node"))]
    (tmp_path / "text").write_text("hello")
    files = [str(tmp_path / "text"), str(FOLDER / "s3-notification/v1/examples/invalid/etag-misspelt.json")]

    done = _run([*program, str(FOLDER / "s3-notification/v1/producer.schema.json"), *files])

    assert done.returncode == 2
    assert done.stderr.startswith(f"{files[0]}: cannot be read as JSON: ")
    assert done.stdout.startswith(f"{files[1]} /Records/0/s3/object/")


@pytest.mark.once
def test_ajv_refuses_a_schema_that_is_not_strict(node: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"$schema": "https://json-schema.org/draft/2020-12/schema", "discriminator": {}}')

    (found,) = ajv_differences(node.parent.parent.parent, schema, [{}])

    assert found.startswith('ajv rejects the schema: Error: strict mode: unknown keyword: "discriminator"')


@pytest.mark.once
def test_what_ajv_reads_otherwise_is_found(node: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"  # a quirk: ajv calls 1e400 infinite, and no number
    schema.write_text('{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "integer"}')

    found = list(ajv_differences(node.parent.parent.parent, schema, [1, 10**400]))

    assert [line[:43] for line in found] == ["ajv refuses what jsonschema-rs does not: 10"[:43]]


def test_the_readme_shows_the_snippets_that_run() -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")

    for snippet, line in (
        ("python/check.py", "validator = jsonschema_rs.validator_for(json.loads(Path("),
        ("node/check.mjs", "validate = new "),
    ):
        assert f"`snippets/{snippet}`" in readme
        assert line in readme
        assert line in (FOLDER / "snippets" / snippet).read_text(encoding="utf-8")


def test_the_lock_of_the_node_snippet_names_no_registry() -> None:
    lock = json.loads((FOLDER / "snippets" / "node" / "package-lock.json").read_text(encoding="utf-8"))

    assert lock["packages"]["node_modules/ajv"]["version"] == "8.20.0"
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []


@pytest.mark.parametrize(("message", "status"), [("valid/minimal.json", 0), ("invalid/etag-misspelt.json", 1)])
def test_the_hook_judges_the_files_that_are_committed(message: str, status: int) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))

    done = _run([*_aggregator(hook["entry"]), str(FOLDER / "s3-notification/v1/examples" / message)])

    assert done.returncode == status, done.stdout


@pytest.mark.parametrize("name", ["m.json", "m.jsonl", "a/m.ndjson"])
def test_the_hook_sees_json_and_json_lines_and_nothing_else(name: str) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    shown = re.findall(r"```yaml\n(- repo:.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    ((example,),) = [[hook for repo in yaml.safe_load(text) for hook in repo["hooks"]] for text in shown]

    assert (hook["types"], "types_or" in hook) == (["text"], False)
    assert re.search(hook["files"], name)
    assert not re.search(hook["files"], f"{name}.txt")
    assert re.search(example["files"], f"messages/{name}")  # what a user says takes the place of what we say
    assert not re.search(example["files"], f"messages/{name}.txt")


@pytest.mark.parametrize(
    ("files", "status", "annotations", "summary"),
    [
        ("examples/valid/*.json", 0, 0, "12 messages, 0 invalid"),
        ("examples/valid/put.json examples/invalid/etag-missp[e]lt.json", 1, 1, "2 messages, 1 invalid"),
        ("examples/nowhere/*.json", 2, 0, "no such file"),
    ],
)
def test_the_action_annotates_what_is_wrong_and_fails(
    tmp_path: Path, files: str, status: int, annotations: int, summary: str
) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (step,) = [step for step in action["runs"]["steps"] if step.get("name") == "Check"]
    inputs = {name: declared.get("default", "") for name, declared in action["inputs"].items()} | {"files": files}
    given = {name: inputs[value[len("${{ inputs.") : -len(" }}")]] for name, value in step["env"].items()}
    (tmp_path / "aggregator/bin").mkdir(parents=True)
    program = tmp_path / "aggregator/bin/aggregator"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m aggregator "$@"\n')
    program.chmod(0o755)
    given |= {"RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "PYTHONPATH": str(ROOT)}

    done = _run(["bash", "-eo", "pipefail", "-c", step["run"]], cwd=FOLDER / "s3-notification/v1", env=given)

    assert done.returncode == status, done.stderr
    assert done.stdout.count("::error file=") == annotations
    assert summary in (tmp_path / "summary").read_text()


@pytest.mark.chaos
@pytest.mark.once
def test_the_action_runs_nothing_of_the_checkout_that_it_judges(tmp_path: Path) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    scripts = {step["name"]: step["run"] for step in action["runs"]["steps"] if "run" in step}
    checkout, ran = tmp_path / "checkout", tmp_path / "ran"
    for name in ("venv", "pip", "aggregator", "typer", "ensurepip"):
        (checkout / name).mkdir(parents=True)
        for module in ("__init__", "__main__"):
            (checkout / name / f"{module}.py").write_text(f"open({str(ran)!r}, 'w')")
    (checkout / "--contract=x.json").write_text("{}")
    given = {"RUNNER_TEMP": str(tmp_path), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "ACTION": str(ROOT)}
    given |= {"FILES": "*.json", "CONTRACT": "", "PROFILE": "producer"}
    given |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    installed = _run(["bash", "-eo", "pipefail", "-c", scripts["Install"]], cwd=checkout, env=given)
    judged = _run(["bash", "-eo", "pipefail", "-c", scripts["Check"]], cwd=checkout, env=given)

    assert installed.returncode == 0, installed.stderr
    assert (judged.returncode, "1 messages, 1 invalid" in judged.stderr or "1 message" in judged.stderr) == (1, True)
    assert not ran.exists()


def test_the_hook_takes_no_file_for_an_option() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))

    assert hook["entry"].split()[-1] == "--"


def test_the_action_puts_no_input_into_a_script() -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))

    assert [step["run"] for step in action["runs"]["steps"] if "${{" in step.get("run", "")] == []


def _reports_what_is_expected(snippet: list[str], one: Contract, profile: Profile, schema: str) -> None:
    base = FOLDER / one.folder
    known = examples.load(FOLDER, one)
    files = {item.name: base / "examples/invalid" / f"{item.name}.json" for item in known.invalid}
    valid = [str(base / "examples/valid" / f"{name}.json") for name in known.valid]

    accepted = _run([*snippet, str(base / schema), *valid])
    refused = _run([*snippet, str(base / schema), *map(str, files.values())])

    expected = {f"{files[item.name]} {item.pointer or '(root)'} {item.keyword}": profile for item in known.invalid}
    told = set(refused.stdout.splitlines())
    missing = [
        item.name for item, line in zip(known.invalid, expected, strict=True) if _is_missed(item, profile, line, told)
    ]
    assert (accepted.returncode, accepted.stdout, accepted.stderr) == (0, "", "")
    assert (refused.returncode, refused.stderr, missing) == (1, "", [])


def _is_missed(item: examples.Invalid, profile: Profile, line: str, told: set[str]) -> bool:
    return (line in told) != (profile in item.rejected_by)


def _aggregator(entry: str) -> list[str]:
    program, *arguments = entry.split()
    assert program == "aggregator"
    return [sys.executable, "-m", "aggregator", *arguments]


def _run(
    command: list[str], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    whole: dict[str, Any] = {**os.environ, **(env or {})}
    return subprocess.run(command, cwd=cwd, env=whole, capture_output=True, text=True, timeout=300, check=False)
