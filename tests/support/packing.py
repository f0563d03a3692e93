"""Objects and packers for the tests of the packer."""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Literal

import pytest

from aggregator.pipeline.core import FetchedObject, Packed, Packer
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef

Framing = Literal["lines", "none"]
FRAMINGS: tuple[Framing, ...] = ("lines", "none")
PLAN = Plan("2026/11/23/11/bundle-r-s.gz", "2026-11-23T11:54:56Z", "r", ())
TEXT = b"".join(b'{"id": %d, "name": "n%d"}\n' % (n, n % 97) for n in range(12_000))
SOURCE = FetchedObject(ObjectRef("source", "in/a.json.gz"), 3, encoding="gzip")
every_framing = pytest.mark.parametrize("framing", FRAMINGS)


def new_packer(
    spool: io.BytesIO, executor: Executor, *, limit: int = 10**9, level: int = 1, framing: Framing = "lines"
) -> Packer:
    return Packer(spool, limit=limit, level=level, framing=framing, executor=executor)


def pack(
    members: Sequence[bytes],
    executor: Executor,
    *,
    limit: int = 10**9,
    level: int = 1,
    framing: Framing = "lines",
    chunk: int = 100_000_000,
) -> tuple[Packed, bytes]:
    spool = io.BytesIO()
    packer = new_packer(spool, executor, limit=limit, level=level, framing=framing)
    for n, member in enumerate(members):
        packer.add(source(n, len(member)), cut(member, chunk))
    return packer.finish(PLAN), spool.getvalue()


def source(n: int, size: int) -> FetchedObject:
    return FetchedObject(ObjectRef("source", f"in/{n}.json"), size)


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def gzip_members(data: bytes) -> list[tuple[bytes, bytes]]:
    """The extra field and the text of every gzip member, as RFC 1952 has them."""
    members = []
    while data:
        extra = data[12 : 12 + struct.unpack_from("<H", data, 10)[0]] if data[3] & 4 else b""
        inflate = zlib.decompressobj(31)
        members.append((extra, inflate.decompress(data)))
        assert inflate.eof
        data = inflate.unused_data
    return members


def failing(chunks: Iterable[bytes], error: BaseException) -> Iterator[bytes]:
    yield from chunks
    raise error


def counted(chunks: Iterable[bytes], taken: list[int]) -> Iterator[bytes]:
    for chunk in chunks:
        taken.append(len(chunk))
        yield chunk
