"""Bundles whose index costs a reader more than their bytes, if it lets them; and a reader with bounds."""

import hashlib
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aggregator.bundles.layout import END, FOOTER, FOOTER_ID, HEADER, INDEX_ID, MAGIC, empty_member
from tests.support import ROOT

COLUMNS = ("bucket", "key", "version_id", "etag", "size", "encoding", "start", "length", "crc32")

_MEASURED = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[3]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from aggregator.exceptions import AggregatorError
from aggregator.reader import Bundle
def peak():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
def said(path):
    try:
        with Bundle.open(path) as bundle:
            for member, chunks in bundle.walk():
                for chunk in chunks:
                    pass
    except AggregatorError as error:
        return str(error)[:300]
    return ""
said(sys.argv[1])
before = peak(), time.process_time()
words = said(sys.argv[2])
print(json.dumps([words, peak() - before[0], time.process_time() - before[1]]))
"""


class Cost(NamedTuple):
    """What a reader said of a bundle, the bytes of memory and the seconds of a processor that it took."""

    said: str
    memory: int
    seconds: float


def cost_of(honest: Path, bomb: Path, *, most: int) -> Cost:
    """What it costs to open and read `bomb`, after `honest`, in a process of `most` bytes of address space."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(honest), str(bomb), str(most)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    return Cost(*json.loads(done.stdout))


def index_bombs(honest: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    """Names and texts of indexes that a reader must not pay for; `honest` is the index of a bundle."""
    yield from _of_marks(honest)
    yield from _of_size(honest)
    yield from _of_values(honest)


def _of_marks(honest: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    """What is slow to count or to parse."""
    yield "escaped quotes without an end", b'{"a": [' + b"0," * 900_000 + b'"' + b'\\"' * 2_500_000
    yield "escapes at the end", b"," * 900_000 + b'"' + b"\\" * 5_000_000
    yield "many commas", _changed(honest, later=[0] * 5_000_000)
    yield "many commas in strings", _changed(honest, later=["," * 50_000] * 400)
    yield "many empty arrays", _nested(honest, b"[]," * 3_000_000)
    yield "many nested arrays", _nested(honest, (b"[" * 150 + b"]" * 150 + b",") * 5_000)
    yield "many objects", _nested(honest, b'{"a":{"b":{}}},' * 400_000)
    yield "strings without commas", b'"a"' * 6_000_000
    yield "nesting", b"[" * 20_000_000
    yield "nested objects", b'{"a":' * 4_000_000


def _of_size(honest: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    """What is one large thing."""
    yield "one huge string", _changed(honest, later="x" * 24_000_000)
    yield "one huge key", _members(honest, 1, key=["x" * 24_000_000])
    yield "one huge key of four bytes a letter", _members(honest, 1, key=["😀" + "x" * 22_000_000])
    yield "one huge name", _changed(honest, **{"x" * 24_000_000: 1})
    yield "one huge bundle name", _changed(honest, bundle="x" * 24_000_000)
    yield "one huge number", _changed(honest, text_size="@").replace(b'"@"', b"9" * 24_000_000)
    yield "one huge unknown number", _changed(honest, later="@").replace(b'"@"', b"9" * 24_000_000)
    yield "one huge fraction", _changed(honest, later="@").replace(b'"@"', b"0." + b"9" * 24_000_000)
    yield "spaces", b" " * 24_000_000 + _changed(honest)
    yield "a deflate bomb", b" " * 900_000_000


def _of_values(honest: dict[str, object]) -> Iterator[tuple[str, bytes]]:
    """What is many values."""
    yield "members without end", _members(honest, 622_000)
    yield "members with large numbers", _members(honest, 80_000, size=[2**40 + n for n in range(80_000)])
    alike = dict.fromkeys(("bucket", "size", "start", "length"), [2**40] * 86_000)
    yield "members alike", _members(honest, 86_000, **alike)
    yield "blocks", _changed(honest, blocks=[2**40 + n for n in range(779_000)])
    yield "buckets", _changed(honest, buckets=[f"b{n}" for n in range(779_000)])
    yield "objects for a number", _nested(honest, b'{"a":1},' * 390_000, name="text_size")
    origin = {"bundle": "", "created": "", "request_id": "", "sha256": "", "members": 0}
    yield "origins", _changed(honest, repacked=[origin] * 130_000)
    yield "origins that are empty", _changed(honest, repacked=[{}] * 790_000)


def text_bomb(block_size: int, blocks: int) -> bytes:
    """A bundle of one member, whose blocks are zeros."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = deflate.compress(bytes(block_size)) + deflate.flush(zlib.Z_FULL_FLUSH)
    size, crc = block_size * blocks, zlib.crc32(bytes(block_size * blocks))
    at = len(HEADER) + len(block) * blocks + len(END) + 8
    member = {"bucket": 0, "key": "k", "version_id": None, "etag": None, "size": size, "encoding": None, "start": 0}
    index = {
        **dict.fromkeys(("bundle", "request_id"), "b"),
        "format": "aggregator-bundle",
        "version": 1,
        "created": "2026-11-23T11:54:56Z",
        "framing": "none",
        "text_size": size,
        "block_size": block_size,
        "blocks": [len(block)] * blocks,
        "buckets": ["s"],
        "members": {name: [value] for name, value in {**member, "length": size, "crc32": crc}.items()},
    }
    text = json.dumps(index).encode()
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = deflate.compress(text) + deflate.flush()
    body = HEADER + block * blocks + END + struct.pack("<II", crc, size) + empty_member(INDEX_ID, deflated)
    facts = (at, len(body) - at, len(deflated), len(text), hashlib.sha256(body).digest())
    return body + empty_member(FOOTER_ID, FOOTER.pack(MAGIC, *facts))


def _changed(honest: dict[str, object], **fields: object) -> bytes:
    return json.dumps({**honest, **fields}).encode()


def _nested(honest: dict[str, object], text: bytes, *, name: str = "later") -> bytes:
    return _changed(honest, **{name: "@"}).replace(b'"@"', b"[" + text + b"0]")


def _members(honest: dict[str, object], count: int, **columns: object) -> bytes:
    members: dict[str, object] = {name: [0] * count for name in COLUMNS}
    members |= {name: [None] * count for name in ("version_id", "encoding", "etag")}
    return _changed(honest, members={**members, "key": [f"{n}" for n in range(count)], **columns})
