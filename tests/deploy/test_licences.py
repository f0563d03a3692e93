"""What the packages, the container and the action bring along may be passed on by everybody: no copyleft is in it."""

import re
import tomllib
from importlib.metadata import metadata
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import ROOT

pytestmark = pytest.mark.once

LOCKS = ["cli.lock", "otel.lock", "requirements.lock", "worker.lock"]

PERMISSIVE = {
    "0BSD", "3-Clause BSD License", "Apache", "Apache License 2.0", "Apache Software License", "Apache-2.0",
    "BSD License", "BSD-2-Clause", "BSD-3-Clause", "ISC License (ISCL)", "MIT", "MIT License",
    "MIT No Attribution License (MIT-0)", "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0",
}  # fmt: skip
"""
Licences without conditions on the code that uses what they are for, as SPDX or a classifier of PyPI names them.

MPL 2.0 has conditions on its own files; certifi is the package that has it.
"""


def _requirements(lock: str) -> list[Requirement]:
    text = (ROOT / "deploy" / lock).read_text(encoding="utf-8")
    lines = re.findall(r"^[A-Za-z0-9][^\\\n]*==[^\\\n]*", text, flags=re.MULTILINE)
    return [Requirement(line.strip()) for line in lines]


def _licences(name: str) -> list[set[str]]:
    """The licences of an installed package: of each set one may be chosen."""
    told: Any = metadata(name)
    if expression := told.get("License-Expression"):
        return [set(re.split(r" OR ", each.strip("() "))) for each in expression.split(" AND ")]
    classifiers = {each.rpartition(" :: ")[2] for each in told.get_all("Classifier", []) if each.startswith("License")}
    return [classifiers - {"OSI Approved"} or {str(told.get("License"))}]


@pytest.mark.parametrize("lock", LOCKS)
def test_what_is_locked_may_be_passed_on(lock: str) -> None:
    here = [each.name for each in _requirements(lock) if each.marker is None or each.marker.evaluate()]

    refused = {name: choices for name in here for choices in _licences(name) if not choices & PERMISSIVE}

    assert len(here) > 10
    assert refused == {}


@pytest.mark.parametrize(
    ("lock", "extra"),
    [
        ("cli.lock", "cli"),
        ("requirements.lock", None),
        ("worker.lock", "worker"),
        ("otel.lock", "otel"),
        ("../requirements.lock", "dev"),
    ],
)
def test_a_lock_has_all_that_is_needed(lock: str, extra: str | None) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *(project["optional-dependencies"][extra] if extra else [])]
    locked = {canonicalize_name(each.name) for each in _requirements(lock)}

    assert {canonicalize_name(Requirement(each).name) for each in needed} - {"data-aggregator"} <= locked
