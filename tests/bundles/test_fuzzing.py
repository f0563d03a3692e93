"""
Whatever a file holds, a reader says what is wrong with it, or reads it: no other error, no hang, no flood.

`just fuzz` searches for as long as it is told (tests/support/fuzzing.py).
"""

import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.layout import FOOTER_SIZE
from tests.support.damage import MEMBERS, pack, read_all, with_index

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "tests/support/atheris.txt"

pytestmark = pytest.mark.once

has_atheris = pytest.mark.skipif(
    sys.version_info >= (3, 14) or (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="atheris has no wheel for this machine",
)

with ThreadPoolExecutor(1) as _threads:
    _SEEDS = [
        pack([b"a\n", b"bb"], _threads),
        pack(MEMBERS, _threads),
        pack([], _threads),
        pack([b"", b"x" * 70_000], _threads, framing="none", keys=["é" * 500, 'a"\\,[{']),
    ]
_INDEXES = [Bundle.open(io.BytesIO(seed)).index.model_dump(mode="json") for seed in _SEEDS]

_NUMBERS = st.sampled_from([-1, 0, 1, 2, 5, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**40]) | st.integers()
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _NUMBERS | st.floats() | st.text(max_size=20) | st.just("x" * 2_000),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
_EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from(["cut", "set", "repeat"]), st.binary(max_size=8)),
    min_size=1,
    max_size=6,
)


@st.composite
def _changed_index(draw: st.DrawFn) -> bytes:
    """A bundle whose index is another in some places, under a footer that is right."""
    number = draw(st.integers(0, len(_SEEDS) - 1))
    index = json.loads(json.dumps(_INDEXES[number]))
    for _ in range(draw(st.integers(1, 3))):
        target = index if draw(st.booleans()) else index["members"]
        if not isinstance(target, dict):
            break
        name = draw(st.sampled_from([*sorted(target), "repacked", "later"]))
        column = target.get(name)
        if isinstance(column, list) and column and draw(st.booleans()):
            column[draw(st.integers(0, len(column) - 1))] = draw(_VALUES | st.sampled_from(column))
        else:
            target[name] = draw(_VALUES)
        if not isinstance(index.get("members"), dict):
            break
    return with_index(_SEEDS[number], json.dumps(index).encode())


@st.composite
def _edited_text(draw: st.DrawFn) -> bytes:
    """A bundle whose index is broken as a text, under a footer that is right."""
    number = draw(st.integers(0, len(_SEEDS) - 1))
    return with_index(_SEEDS[number], _edited(json.dumps(_INDEXES[number]).encode(), draw(_EDITS)))


@st.composite
def _edited_file(draw: st.DrawFn) -> bytes:
    """A bundle whose bytes are changed anywhere."""
    return _edited(draw(st.sampled_from(_SEEDS)), draw(_EDITS))


@st.composite
def _edited_footer(draw: st.DrawFn) -> bytes:
    """A bundle whose footer is changed."""
    seed = draw(st.sampled_from(_SEEDS))
    return seed[:-FOOTER_SIZE] + _edited(seed[-FOOTER_SIZE:], draw(_EDITS))


_ANY = st.one_of(_changed_index(), _edited_text(), _edited_file(), _edited_footer(), st.binary(max_size=400))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(_ANY)
def test_whatever_a_file_holds_it_is_read_or_named(data: bytes) -> None:
    read_all(data)


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Runs a program in which atheris can be imported."""
    packages = tmp_path_factory.mktemp("atheris")
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages), "--requirement", str(LOCK)]
    subprocess.run([sys.executable, "-P", *install], check=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)])}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=packages, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.chaos
@has_atheris
@pytest.mark.parametrize("target", ["bundles", "messages"])
def test_the_fuzzer_finds_nothing(
    fuzz: Callable[..., "subprocess.CompletedProcess[str]"], target: str, tmp_path: Path
) -> None:
    ran = fuzz("-m", "tests.support.fuzzing", target, "--seconds", "5", "--folder", str(tmp_path))

    assert ran.returncode == 0, ran.stderr[-3_000:]
    assert int(ran.stderr.split("stat::number_of_executed_units:")[1].split()[0]) > 100


PLANTED = {
    "an error that is not documented": "raise KeyError('planted')",
    "a hang": "while True: pass",
    "a flood": "b'x' * 200_000_000",
}


@pytest.mark.chaos
@has_atheris
@pytest.mark.parametrize("fault", PLANTED.values(), ids=PLANTED)
def test_the_fuzzer_finds(fuzz: Callable[..., "subprocess.CompletedProcess[str]"], fault: str, tmp_path: Path) -> None:
    program = f"""
import io, pathlib
from tests.support import fuzzing
fuzzing.MOST_SECONDS = 5
seeds = fuzzing.bundles()
known = {{fuzzing.Bundle.open(io.BytesIO(seed)).index.request_id for seed in seeds}}
def read(data):
    fuzzing.read_all(data)
    try:
        bundle = fuzzing.Bundle.open(io.BytesIO(data))
    except Exception:
        return
    if bundle.index.request_id not in known:
        {fault}
fuzzing.fuzz(read, fuzzing.change_bundle, seeds, pathlib.Path({str(tmp_path)!r}), 150)
"""

    ran = fuzz("-c", program)

    assert ran.returncode in {70, 77}, (ran.returncode, ran.stderr[-2_000:])
    assert [path.name.split("-")[0] for path in tmp_path.glob("*-*")] in (["crash"], ["timeout"]), ran.stderr[-2_000:]


def _edited(data: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    for place, kind, piece in edits:
        at = int(place * len(data))
        if kind == "cut":
            data = data[:at] + data[at + 1 + len(piece) :]
        elif kind == "set":
            data = data[:at] + piece + data[at + len(piece) :]
        else:
            data = data[:at] + data[at : at + 64] * (1 + len(piece)) + data[at + 64 :]
    return data
