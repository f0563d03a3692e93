"""What is counted and not timed: the bytes of bundles, indexes and flush points, on texts of three kinds."""

import random
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from typing import Any
from uuid import UUID

from isal import isal_zlib
from zlib_ng import zlib_ng

from aggregator.bundles.layout import BLOCK_SIZE, END, FOOTER
from aggregator.pipeline.core import FetchedObject, Packer, compressor
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef
from benchmarks.objects import BUCKET, Object, text

LEVELS = (1, 6)
"""The default level, and that of zlib."""

SIZES = (4096, 65_536, 1024 * 1024)
"""Bytes of members."""

_SEED = 20_261_123
_INDEXED = 3_000
_VERSION = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._"
_PLAN = Plan(
    "2026/11/23/17/bundle-0b5e1a52-6a3c-4b62-9d3f-3c1f0f6f2f52-5f3a9c01.gz",
    "2026-11-23T17:00:00Z",
    "0b5e1a52-6a3c-4b62-9d3f-3c1f0f6f2f52",
    (),
)


def figures(size: int = 2 * 1024 * 1024) -> dict[str, Any]:
    """Everything that is counted, on `size` bytes of each text."""
    return {
        "bundle_to_zlib_6": {name: _ratios(whole) for name, whole in texts(size).items()},
        "index_bytes": {
            "plain": _index_bytes(),
            "plain, UUIDs as keys": _index_bytes(random_keys=True),
            "versions": _index_bytes(versioned=True),
            "versions, UUIDs as keys": _index_bytes(versioned=True, random_keys=True),
        },
        "flush_points": {name: _flush_points(whole) for name, whole in texts(size).items()},
    }


def texts(size: int) -> dict[str, bytes]:
    """`size` bytes of each kind of text, seeded: orders as JSON, a web server's log, a table of numbers as CSV."""
    chance = random.Random(_SEED)
    made = {"web log": _filled(partial(_request, chance), size), "CSV": _filled(partial(_row, chance), size)}
    return {"JSON": text()[:size], **made}


def _ratios(whole: bytes) -> dict[str, dict[str, float]]:
    """Bytes of bundles, index and all, to those of zlib at level 6 over the same text: by level and size of member."""
    reference = len(zlib.compress(whole, 6, zlib.MAX_WBITS | 16))
    return {
        str(level): {str(size): len(_bundled(whole, size, level)) / reference for size in SIZES} for level in LEVELS
    }


def _bundled(whole: bytes, size: int, level: int, *, versioned: bool = False, random_keys: bool = False) -> bytes:
    """A bundle of `whole`, cut into members of `size` bytes."""
    spool, chance = BytesIO(), random.Random(_SEED)
    with ThreadPoolExecutor(1) as executor:
        packer = Packer(spool, limit=len(whole), level=level, framing="none", executor=executor)
        for number, at in enumerate(range(0, len(whole), size)):
            named = Object(number, size)
            key = f"orders/{UUID(int=chance.getrandbits(128), version=4)}.json" if random_keys else named.key
            version = "".join(chance.choices(_VERSION, k=32)) if versioned else None
            packer.add(FetchedObject(ObjectRef(BUCKET, key), size, named.etag, version), [whole[at : at + size]])
        packer.finish(_PLAN)
    return spool.getvalue()


def _index_bytes(*, versioned: bool = False, random_keys: bool = False) -> float:
    """Bytes that a bundle spends on each of its members, and not on their text."""
    size = 4096
    whole = (text() * 3)[: _INDEXED * size]
    bundle = _bundled(whole, size, 1, versioned=versioned, random_keys=random_keys)
    _, begin, *_ = FOOTER.unpack_from(bundle, len(bundle) - 8 - len(END) - FOOTER.size)
    return (len(bundle) - int(begin)) / _INDEXED


def _flush_points(whole: bytes) -> dict[str, float]:
    """By what share of its bytes a text grows if each block can be inflated alone: by level."""
    return {str(level): _in_blocks(whole, level) / _at_once(whole, level) - 1 for level in LEVELS}


def _in_blocks(whole: bytes, level: int) -> int:
    compress = compressor(level)
    return sum(len(compress(whole[at : at + BLOCK_SIZE])) for at in range(0, len(whole), BLOCK_SIZE))


def _at_once(whole: bytes, level: int) -> int:
    library: Any = isal_zlib if level <= 3 else zlib_ng
    stream = library.compressobj(level, library.DEFLATED, -library.MAX_WBITS)
    return len(stream.compress(whole)) + len(stream.flush())


def _filled(line: Callable[[], str], size: int) -> bytes:
    lines: list[bytes] = []
    while size > 0:
        lines.append(line().encode()[:size])
        size -= len(lines[-1])
    return b"".join(lines)


def _request(chance: random.Random) -> str:
    """A line of a web server's log."""
    address = ".".join(str(chance.randrange(1, 255)) for _ in range(4))
    paths = ["/", "/cart", "/checkout", f"/item/{chance.randrange(20_000)}", f"/search?q={chance.random():.4f}"]
    agents = ["Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0)", "curl/8.11"]
    answer = f"{chance.choice([200, 200, 200, 304, 404])} {chance.randrange(90_000)}"
    time = f"[23/Nov/2026:17:04:{chance.randrange(60):02} +0000]"
    return f'{address} - - {time} "GET {chance.choice(paths)} HTTP/1.1" {answer} "-" "{chance.choice(agents)}"\n'


def _row(chance: random.Random) -> str:
    """A row of a sensor's readings."""
    return f"{chance.randrange(10**6)},{chance.gauss(20, 5):.3f},{chance.gauss(1013, 9):.2f},{chance.randrange(100)}\n"
