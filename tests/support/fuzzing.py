"""
Broken input, guided by the code that each input reaches, until something is found or the time is over.

    just fuzz 3600                                                 the reader of bundles, for an hour
    python -m tests.support.fuzzing messages --seconds 600         the models, and `contract validate`

The engine is libFuzzer by atheris (github.com/google/atheris): it changes inputs that reached something new. Most
bundles are changed in their index, under a footer that is right, or few changes would pass the checks of the footer.
An input is a finding if it raises an error that is not documented, or takes longer than `MOST_SECONDS` or more memory
than is promised (docs/threat-model.md). The exit status is then 77, or 70 for
time, and the input is a file in the folder.
"""

import argparse
import io
import json
import random
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import atheris
from pydantic import ValidationError

with atheris.instrument_imports(include=["aggregator"]):
    from aggregator.bundles.bundle import Bundle
    from aggregator.bundles.layout import FOOTER_SIZE
    from aggregator.contracts.validation import Judge
    from aggregator.exceptions import BundleFormatError, BundleVersionError
    from aggregator.schemas import BODY, invalid_fields

from tests.support.damage import MEMBERS, pack, read_all, with_index

Mutator = Callable[[bytes, int, random.Random], bytes]

FIXTURES = Path(__file__).parents[2] / "fixtures"
MOST_SECONDS = 10
MOST_INPUT = 64 * 1024
MOST_MEMORY, MOST_MEMORY_A_BYTE = 64 * 1024 * 1024, 32
"""Bytes that a reader takes, and bytes for each byte of its input on top."""

_NUMBERS = [-1, 0, 1, 2, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, 10**40, 0.5, 1e308]
_VALUES: list[Any] = [*_NUMBERS, None, True, "", "x" * 2_000, [], {}, [0] * 100, {"a": []}]


class MemoryFloodError(Exception):
    """An input took more memory than is promised."""


def read_message(data: bytes) -> None:
    """Parse a message as the handler does, and judge it as `contract validate` does."""
    text = data.decode(errors="replace")
    try:
        assert all(ref.bucket and ref.key for ref in BODY.validate_json(text).objects())
    except ValidationError as error:
        if not invalid_fields(error):
            raise
    for profile in ("producer", "consumer"):
        for verdict in Judge(profile, show_values=True).file(io.BytesIO(data)):
            assert len(verdict.lines) == len(verdict.faults)


def change_bundle(data: bytes, most: int, rng: random.Random) -> bytes:
    """A bundle that is changed anywhere, or in its index alone."""
    try:
        if rng.random() < 0.3:
            raise ValueError("anywhere")
        text = Bundle.open(io.BytesIO(data)).index.model_dump_json().encode()
        return with_index(data, _change_json(text, most, rng))[:most]
    except (BundleFormatError, BundleVersionError, ValueError):
        head, footer = data[:-FOOTER_SIZE], data[-FOOTER_SIZE:]
        if rng.random() < 0.2:
            return head + bytes(atheris.Mutate(footer, len(footer)))
        return bytes(atheris.Mutate(data, most))


def change_message(data: bytes, most: int, rng: random.Random) -> bytes:
    """A message that is changed as a text, or in its values."""
    try:
        return _change_json(data, most, rng)
    except ValueError:
        return bytes(atheris.Mutate(data, most))


def fuzz(read: Callable[[bytes], None], change: Mutator, seeds: list[bytes], folder: Path, seconds: int) -> None:
    """
    Read inputs for so many seconds; `folder` gets the corpus and what is found.

    Does not return: libFuzzer ends the process, with 0 if nothing was found.
    """
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
        read(seed)

    def check(data: bytes) -> None:
        before, peak = _memory()
        read(data)
        _, now = _memory()
        if now > peak and now - before > MOST_MEMORY + MOST_MEMORY_A_BYTE * len(data):
            raise MemoryFloodError(f"{len(data):,} bytes took {now - before:,} bytes of memory")

    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={seconds}",
            f"-timeout={MOST_SECONDS}",
            f"-max_len={MOST_INPUT}",
            f"-artifact_prefix={folder}/",
            "-rss_limit_mb=0",  # the interpreter's own memory and the corpus would count
            "-print_final_stats=1",
            str(corpus),
        ],
        check,
        custom_mutator=lambda data, most, seed: change(bytes(data), most, random.Random(seed)),
    )
    atheris.Fuzz()


def bundles() -> list[bytes]:
    """Bundles to begin with: made here, and those that are kept."""
    with ThreadPoolExecutor(1) as threads:
        made = [
            pack([b"a\n", b"bb"], threads),
            pack([*MEMBERS[:3], b"c" * 1_000, b'{"d": 4}'], threads),
            pack([], threads),
            pack([b"", b"x" * 70_000], threads, framing="none", keys=["é" * 500, 'a"\\,[{']),
        ]
    return made + [path.read_bytes() for path in sorted((FIXTURES / "bundles").glob("*.gz"))]


def messages() -> list[bytes]:
    """Messages to begin with."""
    return [path.read_bytes() for path in sorted((FIXTURES / "events").glob("*/*.json"))]


TARGETS: dict[str, tuple[Callable[[bytes], None], Mutator, Callable[[], list[bytes]]]] = {
    "bundles": (read_all, change_bundle, bundles),
    "messages": (read_message, change_message, messages),
}


def _change_json(data: bytes, most: int, rng: random.Random) -> bytes:
    """Change a text, or some values in it; raises ValueError if it is not JSON."""
    if rng.random() < 0.2:
        return bytes(atheris.Mutate(data, most))
    document = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        if isinstance(document, dict) and isinstance(document.get("members"), dict) and rng.random() < 0.2:
            _change_row(document["members"], rng)
        else:
            _change_value(document, rng)
    return json.dumps(document, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")[:most]


def _change_value(document: Any, rng: random.Random) -> None:
    """Walk to any place below, and set, remove, copy or double what is there."""
    at = document
    while isinstance(at, dict | list) and at:
        place = rng.choice(sorted(at) if isinstance(at, dict) else range(len(at)))
        below = at[place]
        if isinstance(below, dict | list) and below and rng.random() < 0.7:
            at = below
            continue
        kind = rng.randrange(5)
        if kind == 0:
            del at[place]
        elif kind == 1 and isinstance(at, list):
            at.insert(rng.randrange(len(at) + 1), below)
        elif kind == 2 and isinstance(below, int | float):
            at[place] = below + rng.choice([-1, 1, 255, 2**16])
        elif kind == 3 and isinstance(below, str):
            at[place] = bytes(atheris.Mutate(below.encode("utf-8", "surrogatepass"), 200)).decode(errors="replace")
        else:
            at[place] = rng.choice(_VALUES)
        return


def _change_row(columns: dict[str, Any], rng: random.Random) -> None:
    """Remove or double one member, in every column."""
    at, removes = rng.randrange(8), rng.random() < 0.5
    for column in columns.values():
        if isinstance(column, list) and at < len(column):
            column[at : at + 1] = [] if removes else [column[at]] * 2


def _memory() -> tuple[int, int]:
    """Bytes of memory, now and at most (proc(5)); `ru_maxrss` would begin with that of the process that started us."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    resident, peak = (int(status.partition(f"{name}:")[2].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return resident, peak


def main() -> None:
    """Fuzz what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.fuzzing")
    parser.add_argument("target", choices=TARGETS, nargs="?", default="bundles")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    options = parser.parse_args()
    read, change, seeds = TARGETS[options.target]
    fuzz(read, change, seeds(), options.folder / options.target, options.seconds)


if __name__ == "__main__":
    main()
