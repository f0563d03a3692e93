"""The workflows of GitHub: pinned, with the least permissions, and without words of strangers in a shell."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.notes import NotesError, main, notes
from tests.support import ROOT

pytestmark = pytest.mark.once

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

WRITES = {
    "release.yml/container": {"packages"},
    "release.yml/image": {"packages"},
    "release.yml/index": {"id-token"},
    "release.yml/release": {"attestations", "contents", "id-token"},
}
"""The jobs that may write, and what."""

RECIPES = set(re.findall(r"^([a-z][\w-]*)(?: [^:\n]*)?:(?: |$)", (ROOT / "Justfile").read_text("utf-8"), re.MULTILINE))

HOSTS = r"\b(?:[\w-]+\.)*(?:pypi\.org|pythonhosted\.org|npmjs\.\w+|docker\.(?:io|com)|ghcr\.io|quay\.io|gcr\.io)\b"

GOOD = """
on: {push: {}}
permissions: {contents: read}
concurrency: {group: one}
jobs:
  one:
    timeout-minutes: 1
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with: {persist-credentials: false}
      - run: .venv/bin/just lint
"""


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_gives_strangers_nothing(workflow: Path) -> None:
    assert list(_faults(workflow.read_text(encoding="utf-8"), workflow.name)) == []


def test_the_workflows_are_the_three_that_are_named_here() -> None:
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "nightly.yml", "release.yml"]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("", "", None),
        ("3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "v7", "is not pinned"),
        (" # v7.0.1", "", "is not pinned"),
        ("{push: {}}", "{pull_request_target: {}}", "trigger pull_request_target"),
        ("{push: {}}", "[push, workflow_run]", "trigger workflow_run"),
        ("permissions: {contents: read}", "env: {}", "permissions of all jobs"),
        ("permissions: {contents: read}", "permissions: write-all", "permissions of all jobs"),
        ("    timeout-minutes: 1", "    permissions: {packages: write}\n    timeout-minutes: 1", "one may write"),
        ("    timeout-minutes: 1", "    permissions: write-all\n    timeout-minutes: 1", "one may write"),
        ("    timeout-minutes: 1\n", "", "one has no time-out"),
        ("persist-credentials: false", "persist-credentials: true", "keeps credentials"),
        ("concurrency: {group: one}", "env: {}", "no concurrency group"),
        ("just lint", "just lint ${{ github.event.issue.title }}", "expression in a shell"),
        ("just lint", "just nonsense", "just nonsense is not a recipe"),
        (".venv/bin/just lint", "python -m deploy.nonsense", "deploy.nonsense is not a module"),
        (".venv/bin/just lint", ".ci/nonsense", ".ci/nonsense is not a file"),
        (".venv/bin/just lint", "curl ghcr.io", "names a host: ghcr.io"),
    ],
)
def test_a_fault_of_a_workflow_is_found(old: str, new: str, fault: str | None) -> None:
    assert old in GOOD

    found = list(_faults(GOOD.replace(old, new, 1), "good.yml"))

    assert len(found) == (fault is not None)
    assert all(str(fault) in each for each in found)


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    changelog = (
        "# Changelog\n\n## [1.1.0] - 2026-12-01\n\n### Added\n\n- one\n\n## [1.0.0]\n\n- two\n\nNext: [on](x.md).\n"
    )

    assert notes("v1.1.0", changelog, "1.1.0") == "### Added\n\n- one"
    assert notes("v1.0.0", changelog, "1.0.0") == "- two"


@pytest.mark.parametrize(
    ("tag", "changelog", "reason"),
    [
        ("v1.0.1", "## [1.0.1]\n\n- one\n", "the tag is not the version"),
        ("1.0.0", "## [1.0.0]\n\n- one\n", "the tag is not the version"),
        ("v1.0.0", "## [Unreleased]\n\n## [0.9.0]\n\n- one\n", "has no section with text"),
        ("v1.0.0", "## [1.0.0]\n\nNext: on.\n", "has no section with text"),
        ("v1.0.0", "## [Unreleased]\n\n- two\n\n## [1.0.0]\n\n- one\n", "has text under Unreleased"),
    ],
)
def test_a_tag_without_notes_is_not_released(tag: str, changelog: str, reason: str) -> None:
    with pytest.raises(NotesError, match=reason):
        notes(tag, changelog, "1.0.0")


def test_a_tag_of_another_version_ends_the_release(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["v0.0.0"]) == 2
    assert capsys.readouterr().err.startswith("notes: the tag is not the version of pyproject.toml (tag='v0.0.0'")


def test_a_release_is_rehearsed_from_its_tag_to_its_checksums(tmp_path: Path) -> None:
    """The steps that need nothing of GitHub, as the workflow has them; test_wheel.py and test_package.py build."""
    steps = {step["name"]: step for step in _steps("release.yml") if "name" in step}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    for name, target in (
        (".venv", sys.prefix),
        ("aggregator", ROOT / "aggregator"),
        ("pyproject.toml", ROOT / "pyproject.toml"),
    ):
        (tmp_path / name).symlink_to(target)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns("cdk"))
    (tmp_path / "CHANGELOG.md").write_text(f"## [Unreleased]\n\n## [{version}]\n\n- all of it\n")
    for name in ("python/a.whl", "python/a.tar.gz", "lambda/lambda-arm64.zip", "lambda/sbom.cdx.json"):
        (tmp_path / "artifacts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "artifacts" / name).write_text(name)

    for name in ("Notes", "Checksums"):
        command = ["bash", "-euo", "pipefail", "-c", steps[name]["run"]]
        environment = {"PATH": os.environ["PATH"], "GITHUB_REF_NAME": f"v{version}"}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True)

    assert (tmp_path / "notes" / "notes.md").read_text() == "- all of it\n"
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path / "files", check=True)
    assert len((tmp_path / "files" / "SHA256SUMS").read_text().splitlines()) == 4
    assert [steps[name]["run"].split()[-1] for name in ("Wheel and sdist", "Packages and layers for Lambda")] == [
        "dist",
        "layer",
    ]


def _steps(workflow: str) -> Iterator[dict[str, Any]]:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text(encoding="utf-8"))["jobs"]
    return (step for job in jobs.values() for step in job.get("steps", []))


def _faults(text: str, name: str) -> Iterator[str]:
    workflow = yaml.safe_load(text)
    triggers = workflow[True]  # YAML 1.1 reads `on` as a truth value
    yield from (f"trigger {each}" for each in triggers if each in {"pull_request_target", "workflow_run"})
    if workflow.get("permissions") not in ({}, {"contents": "read"}):
        yield "permissions of all jobs are not the least"
    if "concurrency" not in workflow:
        yield "no concurrency group"
    yield from (f"names a host: {host}" for host in re.findall(HOSTS, text))
    for line in re.findall(r"uses: (.+)", text):
        if not re.fullmatch(r"\./\S+|[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line):
            yield f"{line} is not pinned"
    for job, content in workflow["jobs"].items():
        yield from _job_faults(content, job, f"{name}/{job}")


def _job_faults(job: dict[str, Any], name: str, path: str) -> Iterator[str]:
    permissions = job.get("permissions", {})
    granted = {permissions} if isinstance(permissions, str) else {k for k, v in permissions.items() if v == "write"}
    if granted - WRITES.get(path, set()):
        yield f"{name} may write: {granted}"
    if "uses" not in job and "timeout-minutes" not in job:
        yield f"{name} has no time-out"
    for step in job.get("steps", []):
        if step.get("uses", "").startswith("actions/checkout@") and step["with"]["persist-credentials"] is not False:
            yield f"{name} keeps credentials"
        yield from _shell_faults(step.get("run", ""))


def _shell_faults(run: str) -> Iterator[str]:
    if "${{" in run:
        yield f"expression in a shell: {run}"
    for recipe in re.findall(r"\bjust ([\w-]+)", run):
        if recipe not in RECIPES:
            yield f"just {recipe} is not a recipe"
    for module in re.findall(r"-m (deploy\.\w+|aggregator\S*)", run):
        if not (ROOT / module.replace(".", "/")).with_suffix(".py").is_file():
            yield f"{module} is not a module"
    for file in re.findall(r"(?<!\S)(\.ci/\S+|[\w/]+\.lock|deploy/\w+)(?!\S)", run):
        if not (ROOT / file).is_file():
            yield f"{file} is not a file"
