"""
Pack members into a bundle, as bytes. Pure: no AWS, no clock, no environment.

A bundle is plain gzip to everyone, and an archive to those who look (docs/bundle-format.md):

    ┌──────────── one gzip member ─────────────┐┌─ empty members ─┐┌ empty member ┐
    │ header │ block │ block │ … │ end │ CRC   ││ index in FEXTRA ││ footer       │
    └──────────────────────────────────────────┘└─────────────────┘└──────────────┘
             each block: 256 KiB of text, full flush, inflatable alone

A member that fails half way leaves no byte of itself: the spool is cut back to where the member began. The same
members in the same order give the same bytes.
"""

import hashlib
import io
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import chain
from typing import IO, Literal, NamedTuple

from isal import isal_zlib
from zlib_ng import zlib_ng

from aggregator.bundles.index import BundleIndex, MemberColumns, timestamp
from aggregator.bundles.layout import (
    BLOCK_SIZE,
    END,
    EXTRA_SIZE,
    FOOTER,
    FOOTER_ID,
    HEADER,
    INDEX_ID,
    MAGIC,
    empty_member,
)
from aggregator.exceptions import BundleFullError, OversizedMemberError
from aggregator.pipeline.decoding import Chunk, Encoding
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef

_HIGHEST_ISAL_LEVEL = 3
_INDEX_LEVEL = 6
_STORED_BLOCK_SIZE = 65_535


class FetchedObject(NamedTuple):
    """A member as it was read: what S3 said of it while it handed over the bytes."""

    ref: ObjectRef
    size: int
    etag: str | None = None
    version_id: str | None = None
    encoding: Encoding | None = None


@dataclass(frozen=True, slots=True)
class Packed:
    """A finished bundle on its spool: bytes of it, their SHA-256, and the index inside."""

    size: int
    sha256: bytes
    index: BundleIndex


def empty_bundle(bundle: str, now: float, request_id: str) -> bytes:
    """A bundle with no members, which closes the name `bundle`."""
    spool = io.BytesIO()
    plan = Plan(bundle, timestamp(now), request_id, ())
    Packer(spool, limit=0, level=1, framing="lines", executor=_NoThreads()).finish(plan)
    return spool.getvalue()


class Reading(NamedTuple):
    """A member on its way in: what S3 says of it, and its decoded bytes, in hand or part by part as asked for."""

    source: FetchedObject
    chunks: Iterator[Chunk]


class Packer:
    """
    Packs members into one bundle on `spool`, a file open for reading and writing.

    `limit` bounds the bytes of the members; `executor` compresses blocks beside the caller's thread.
    """

    most_pending = 8
    """Blocks handed to the executor and not yet written: 2 MiB, enough for the two to six cores of a Lambda."""

    def __init__(
        self, spool: IO[bytes], *, limit: int, level: int, framing: Literal["lines", "none"], executor: Executor
    ) -> None:
        self.entries: list[tuple[FetchedObject, int, int, int]] = []
        self._spool, self._limit, self._framing, self._executor = spool, limit, framing, executor
        self._compress = compressor(level)
        self._pending: deque[Future[bytes]] = deque()
        self._blocks: list[int] = []
        self._buffer = bytearray()
        self._text_size = self._crc = self._packed = 0
        self._digest = self._digest_at_mark = hashlib.sha256()
        self._marked = 0
        self._write(HEADER)

    def add(self, source: FetchedObject, chunks: Iterable[Chunk]) -> None:
        """
        Append one member, or nothing at all.

        Raises:
            OversizedMemberError: the member alone is more than a bundle may hold.
            BundleFullError: it does not fit any more.
            Exception: whatever `chunks` raises.
        """
        chunks = iter(chunks)
        head, ended = _up_to(BLOCK_SIZE, chunks)
        if ended:
            self._check_room(source, sum(map(len, head)))
            self._append(source, head)
        else:
            self._append_or_cut_back(source, chain(head, chunks))

    def finish(self, plan: Plan) -> Packed:
        """Close the bundle: the rest of the text, the index, the footer. Nothing can be added afterwards."""
        if self._buffer:
            self._submit(bytes(self._buffer))
        self._drain(0)
        self._write(END + struct.pack("<II", self._crc, self._text_size & 0xFFFFFFFF))
        index = self._index(plan)
        text = index.model_dump_json().encode()
        deflated = zlib_ng.compress(text, _INDEX_LEVEL, -zlib_ng.MAX_WBITS)
        begin = self._spool.tell()
        for at in range(0, len(deflated), EXTRA_SIZE):
            self._write(empty_member(INDEX_ID, deflated[at : at + EXTRA_SIZE]))
        length = self._spool.tell() - begin
        footer = FOOTER.pack(MAGIC, begin, length, len(deflated), len(text), self._digest.digest())
        self._write(empty_member(FOOTER_ID, footer))
        return Packed(self._spool.tell(), self._digest.digest(), index)

    def _check_room(self, source: FetchedObject, length: int) -> None:
        if length > self._limit:
            raise OversizedMemberError(
                "the object is larger than a bundle may be", key=source.ref.key, length=length, limit=self._limit
            )
        if self._packed + length > self._limit:
            raise BundleFullError("the bundle has no room left for this object", key=source.ref.key)

    def _append_or_cut_back(self, source: FetchedObject, chunks: Iterable[Chunk]) -> None:
        before, buffer = len(self._blocks) + len(self._pending), bytes(self._buffer)
        text_size, crc = self._text_size, self._crc
        self._mark_end_of(before)
        try:
            self._append(source, self._within_limits(source, chunks))
        except BaseException:
            self._cut_back_to(before)
            self._buffer, self._text_size, self._crc = bytearray(buffer), text_size, crc
            raise

    def _mark_end_of(self, blocks: int) -> None:
        """Keep the digest of so many blocks, which may not all be written yet."""
        self._marked = blocks
        if not self._pending:
            self._digest_at_mark = self._digest.copy()

    def _cut_back_to(self, blocks: int) -> None:
        """Forget the blocks after the marked ones."""
        while len(self._blocks) + len(self._pending) > blocks and self._pending:
            self._pending.pop().cancel()
        self._drain(0)
        del self._blocks[blocks:]
        self._spool.seek(len(HEADER) + sum(self._blocks))
        self._spool.truncate()
        self._digest = self._digest_at_mark

    def _within_limits(self, source: FetchedObject, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        length = 0
        for chunk in chunks:
            length += len(chunk)
            self._check_room(source, length)
            yield chunk

    def _append(self, source: FetchedObject, chunks: Iterable[Chunk]) -> None:
        start, crc, last = self._text_size, 0, b"\n"
        for chunk in chunks:
            crc = isal_zlib.crc32(chunk, crc)
            last = bytes(chunk[-1:]) or last
            self._feed(chunk)
        length = self._text_size - start
        if self._framing == "lines" and last != b"\n":
            self._feed(b"\n")
        self._packed += length
        self.entries.append((source, start, length, crc))

    def _feed(self, chunk: Chunk) -> None:
        self._crc = isal_zlib.crc32(chunk, self._crc)
        self._text_size += len(chunk)
        self._buffer += chunk
        if len(self._buffer) >= BLOCK_SIZE:
            whole = len(self._buffer) - len(self._buffer) % BLOCK_SIZE
            with memoryview(self._buffer) as view:
                for at in range(0, whole, BLOCK_SIZE):
                    self._submit(bytes(view[at : at + BLOCK_SIZE]))
            del self._buffer[:whole]

    def _submit(self, block: bytes) -> None:
        self._pending.append(self._executor.submit(self._compress, block))
        self._drain(self.most_pending)

    def _drain(self, most: int) -> None:
        while len(self._pending) > most:
            block = self._pending.popleft().result()
            self._blocks.append(len(block))
            self._write(block)
            if len(self._blocks) == self._marked:
                self._digest_at_mark = self._digest.copy()

    def _write(self, data: bytes) -> None:
        self._spool.write(data)
        self._digest.update(data)

    def _index(self, plan: Plan) -> BundleIndex:
        buckets = list(dict.fromkeys(source.ref.bucket for source, *_ in self.entries))
        position = {bucket: at for at, bucket in enumerate(buckets)}
        sources = [source for source, *_ in self.entries]
        codings = [source.encoding for source in sources]
        return BundleIndex(
            version=1,
            bundle=plan.bundle,
            created=plan.created,
            request_id=plan.request_id,
            framing=self._framing,
            text_size=self._text_size,
            block_size=BLOCK_SIZE,
            blocks=self._blocks,
            buckets=buckets,
            members=MemberColumns(
                bucket=[position[source.ref.bucket] for source in sources],
                key=[source.ref.key for source in sources],
                version_id=[source.version_id for source in sources],
                etag=[source.etag for source in sources],
                size=[source.size for source in sources],
                encoding=["gzip" if source.encoding else None for source in sources],
                start=[start for _, start, _, _ in self.entries],
                length=[length for _, _, length, _ in self.entries],
                crc32=[crc for _, _, _, crc in self.entries],
                decoded=codings if "zstd" in codings else [],
            ),
        )


def compressor(level: int) -> Callable[[bytes], bytes]:
    """
    A function that deflates one block so that it can be inflated alone; 0 to 3 are isal's levels, 4 to 9 zlib-ng's.

    Text that would grow is stored: isal's level 0 makes 22 % more of random bytes.
    """

    def compress(block: bytes) -> bytes:
        if level <= _HIGHEST_ISAL_LEVEL:
            isal = isal_zlib.compressobj(level, isal_zlib.DEFLATED, -isal_zlib.MAX_WBITS)
            deflated = isal.compress(block) + isal.flush(isal_zlib.Z_FULL_FLUSH)
        else:
            ng = zlib_ng.compressobj(level, zlib_ng.DEFLATED, -zlib_ng.MAX_WBITS)
            deflated = ng.compress(block) + ng.flush(zlib_ng.Z_FULL_FLUSH)
        return deflated if len(deflated) <= len(block) + 64 else _stored(block)

    return compress


def _stored(block: Sequence[int]) -> bytes:
    parts = []
    for at in range(0, len(block), _STORED_BLOCK_SIZE):
        part = bytes(block[at : at + _STORED_BLOCK_SIZE])
        parts.append(b"\x00" + struct.pack("<HH", len(part), len(part) ^ 0xFFFF) + part)
    return b"".join(parts)


def _up_to(size: int, chunks: Iterator[Chunk]) -> tuple[list[Chunk], bool]:
    """The first chunks, until there are more than `size` bytes; and whether that was all."""
    head: list[Chunk] = []
    for chunk in chunks:
        head.append(chunk)
        size -= len(chunk)
        if size < 0:
            return head, False
    return head, True


class _NoThreads(Executor):
    """For a bundle without blocks, of which there is nothing to compress."""
