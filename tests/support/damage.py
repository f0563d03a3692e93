"""Bundles that are damaged or rewritten, and what a reader says of them."""

import hashlib
import io
import json
import random
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Literal

import pytest

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.layout import (
    BLOCK_SIZE,
    EXTRA_SIZE,
    FOOTER,
    FOOTER_ID,
    HEADER,
    INDEX_ID,
    MAGIC,
    empty_member,
)
from aggregator.exceptions import BundleFormatError, BundleVersionError
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef

Change = Callable[[dict[str, Any]], object]
Framing = Literal["lines", "none"]

MEMBERS = [b"a\n", b"bb", b"", random.Random(1).randbytes(BLOCK_SIZE), b"c" * 1_000, b'{"d": 4}']
UNREADABLE = "the index cannot be read"
OTHER_SIZE = "the index does not have the size that the footer names"
OTHER_MEMBER = "a member is not what the index says"


def pack(
    members: Sequence[bytes],
    executor: Executor,
    *,
    framing: Framing = "lines",
    level: int = 1,
    keys: Sequence[str] | None = None,
) -> bytes:
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=level, framing=framing, executor=executor)
    randoms = random.Random(len(members))
    for n, member in enumerate(members):
        named = ObjectRef("source", keys[n] if keys else f"in/{n}.json")
        packer.add(FetchedObject(named, len(member), f"{randoms.getrandbits(128):032x}"), [member])
    packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))
    return spool.getvalue()


def opening_fault(data: bytes) -> str:
    with pytest.raises(BundleFormatError) as caught:
        Bundle.open(io.BytesIO(data))
    return str(caught.value.args[0])


def fault_of(data: bytes) -> str | None:
    """What opening and verifying find, if anything."""
    try:
        Bundle.open(io.BytesIO(data)).verify()
    except BundleFormatError as error:
        return str(error.args[0])
    return None


def with_bit_turned(data: bytes, bit: int) -> bytes:
    turned = bytearray(data)
    turned[bit // 8] ^= 1 << bit % 8
    return bytes(turned)


def unchanged(_: dict[str, Any]) -> None:
    pass


def rewritten(data: bytes, *, index: Change = unchanged, footer: Change = unchanged) -> bytes:
    """The bundle with a changed index, under a footer that is right but for what `footer` changes."""
    fields = Bundle.open(io.BytesIO(data)).index.model_dump(mode="json")
    index(fields)
    return with_index(data, json.dumps(fields).encode(), footer=footer)


def with_index(data: bytes, text: bytes, *, footer: Change = unchanged) -> bytes:
    at = len(HEADER) + sum(Bundle.open(io.BytesIO(data)).index.blocks) + 2 + 8
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    deflated = deflate.compress(text) + deflate.flush()
    extras = [deflated[n : n + EXTRA_SIZE] for n in range(0, len(deflated), EXTRA_SIZE)]
    body = data[:at] + b"".join(empty_member(INDEX_ID, extra) for extra in extras)
    fields: dict[str, Any] = {
        "at": at,
        "length": len(body) - at,
        "deflated": len(deflated),
        "inflated": len(text),
        "sha256": hashlib.sha256(body).digest(),
    }
    footer(fields)
    return body + empty_member(FOOTER_ID, FOOTER.pack(MAGIC, *fields.values()))


def read_all(data: bytes) -> None:
    """Read all that a bundle offers; the text is no more than deflate can hold."""
    try:
        bundle = Bundle.open(io.BytesIO(data))
    except (BundleFormatError, BundleVersionError):
        return
    assert sum(member.length for member in bundle) <= 1_032 * len(data)
    assert len(bundle.provenance()) == len(bundle)
    for _, chunks in bundle.walk():
        _exhaust(chunks)
    try:
        bundle.verify()
    except BundleFormatError:
        return


def _exhaust(chunks: Any) -> None:
    try:
        for _ in chunks:
            pass
    except BundleFormatError:
        return
