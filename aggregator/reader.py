"""
Read a bundle from anything that can be read at an offset: its index, one member, all of them, or every byte to verify.

    with Bundle.open("bundle.gz") as bundle:
        for member in bundle:
            print(member.key, member.length)
        text = bundle["in/some.json"]

The tail of the file is enough for the index, the tail and one block for a small member. Nothing here is shared with the
packer but the format (docs/bundle-format.md), so that reading proves writing.
"""

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, Self

from pydantic import ValidationError

from aggregator.core import (
    EMPTY_MEMBER_SIZE,
    END,
    FOOTER,
    FOOTER_ID,
    FOOTER_SIZE,
    HEADER,
    INDEX_ID,
    MAGIC,
    empty_member,
)
from aggregator.exceptions import BundleFormatError
from aggregator.schemas import BundleIndex

TAIL_SIZE = 64 * 1024
"""Bytes read from the end at first: footer and index of a bundle of some 1,500 members."""

MAX_INDEX_SIZE = 1 << 30
"""Most bytes an index may inflate to; what claims more is refused as damaged."""

Fetch = Callable[[int, int], bytes]
"""Reads so many bytes from such an offset."""


class Entry(NamedTuple):
    """
    A member of a bundle.

    `size` is the object's in S3, `length` the member's in the text (they differ where gzip was decoded), both in bytes.
    `block` is the offset in the file of the block in which the member starts, `offset` its place in that block's text.
    """

    bucket: str
    key: str
    version_id: str | None
    etag: str | None
    size: int
    encoding: str | None
    start: int
    length: int
    crc32: int
    block: int
    offset: int


class Bundle:
    """A bundle, by its index. Iterate over it for its members; index it by key for a member's bytes."""

    def __init__(self, fetch: Fetch, size: int, *, close: Callable[[], None] = lambda: None) -> None:
        """
        Read the index of the bundle of `size` bytes that `fetch` reads.

        Raises:
            BundleFormatError: the bytes are no bundle, or not a whole one.
        """
        self._fetch, self.size, self._close = fetch, size, close
        self._footer = _Footer.read(fetch, size)
        self.index = _index(self._footer)
        self.entries = _entries(self.index)

    @classmethod
    def open(cls, source: str | os.PathLike[str] | IO[bytes]) -> Self:
        """
        Open a bundle from a path, or from a seekable file open for reading.

        Raises:
            BundleFormatError: the bytes are no bundle, or not a whole one.
            OSError: the file cannot be read.
        """
        if not isinstance(source, (str, os.PathLike)):
            return cls(_fetch_from(source), source.seek(0, os.SEEK_END))
        file = Path(source).open("rb")  # noqa: SIM115 - closed by the bundle, or right below
        try:
            return cls(_fetch_from(file), file.seek(0, os.SEEK_END), close=file.close)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, key: str) -> bytes:
        """
        The bytes of the member called `key`; the last one, where several versions of it lie in the bundle.

        Raises:
            KeyError: no member has that key.
            BundleFormatError: the bundle is damaged where the member lies.
        """
        for entry in reversed(self.entries):
            if entry.key == key:
                return self.read(entry)
        raise KeyError(key)

    def read(self, entry: Entry) -> bytes:
        """
        The bytes of one member, read and inflated from the blocks in which it lies.

        Raises:
            BundleFormatError: the bundle is damaged there.
        """
        if not entry.length:
            return b""
        first = entry.start // self.index.block_size
        last = (entry.start + entry.length - 1) // self.index.block_size
        deflated = self._fetch(entry.block, sum(self.index.blocks[first : last + 1]))
        try:
            text = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, entry.offset + entry.length)
        except (zlib.error, OverflowError) as error:
            raise BundleFormatError("a block does not inflate", key=entry.key, offset=entry.block) from error
        member = text[entry.offset :]
        if len(member) != entry.length or zlib.crc32(member) != entry.crc32:
            raise BundleFormatError("a member is not what the index says", key=entry.key)
        return member

    def verify(self) -> None:
        """
        Read the whole bundle: any changed bit is found.

        Raises:
            BundleFormatError: says what is wrong.
        """
        self._verify_bytes()
        self._verify_text()

    def _verify_bytes(self) -> None:
        digest = hashlib.sha256()
        end = self.size - FOOTER_SIZE
        for at in range(0, end, 1 << 20):
            digest.update(self._fetch(at, min(1 << 20, end - at)))
        if digest.digest() != self._footer.sha256:
            raise BundleFormatError("the bytes do not have the SHA-256 that the footer names")

    def _verify_text(self) -> None:
        """Inflate block after block, as any gzip reader does, and hold the members against the index."""
        if self._fetch(0, len(HEADER)) != HEADER:
            raise BundleFormatError("the gzip header is not a bundle's")
        at, text = len(HEADER), _Text(self.entries, self.index.framing)
        for number, size in enumerate(self.index.blocks):
            if text.size != number * self.index.block_size:
                raise BundleFormatError("a block is not as long as the index says", offset=at)
            text.feed(self._block(at, size))
            at += size
        end, crc, length = struct.unpack("<2sII", self._fetch(at, len(END) + 8))
        if end != END:
            raise BundleFormatError("the text does not end where the index begins")
        if (crc, length) != (text.crc, text.size & 0xFFFFFFFF) or text.size != self.index.text_size:
            raise BundleFormatError("the text is not what the gzip trailer and the index say")
        text.finish()

    def _block(self, at: int, size: int) -> bytes:
        """The text of one block, inflated alone, provided that it is no longer than a block."""
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            text = inflate.decompress(self._fetch(at, size))
        except zlib.error as error:
            raise BundleFormatError("a block does not inflate", offset=at) from error
        if inflate.eof or len(text) > self.index.block_size:
            raise BundleFormatError("a block is not as long as the index says", offset=at)
        return text


class _Footer(NamedTuple):
    index_at: int
    deflated: bytes
    inflated_size: int
    sha256: bytes

    @classmethod
    def read(cls, fetch: Fetch, size: int) -> "_Footer":
        if size < len(HEADER) + len(END) + 8 + FOOTER_SIZE:
            raise BundleFormatError("too short for a bundle", size=size)
        tail_at = max(0, size - TAIL_SIZE)
        tail = fetch(tail_at, size - tail_at)
        footer = tail[-FOOTER_SIZE:]
        payload = footer[EMPTY_MEMBER_SIZE - len(END) - 8 : -len(END) - 8]
        if footer != empty_member(FOOTER_ID, payload) or payload[: len(MAGIC)] != MAGIC:
            raise BundleFormatError("no bundle, or a truncated one: the footer is missing")
        _, index_at, length, deflated_size, inflated_size, sha256 = FOOTER.unpack(payload)
        if index_at + length + FOOTER_SIZE != size or inflated_size > MAX_INDEX_SIZE:
            raise BundleFormatError("the footer does not fit the file: bytes were lost or added", size=size)
        members = tail[index_at - tail_at : -FOOTER_SIZE] if index_at >= tail_at else fetch(index_at, length)
        deflated = _extras(members)
        if len(deflated) != deflated_size:
            raise BundleFormatError("the index does not have the length that the footer names")
        return cls(index_at, deflated, inflated_size, sha256)


class _Text:
    """The text of a bundle as it goes by, held against the members that should lie in it one after the other."""

    def __init__(self, entries: list[Entry], framing: str) -> None:
        self.size = self.crc = self._end = 0
        self._gaps = (0, 1) if framing == "lines" else (0,)
        self._entries = iter(entries)
        self._entry = next(self._entries, None)
        self._member_crc = 0

    def feed(self, text: bytes) -> None:
        begin, self.size = self.size, self.size + len(text)
        self.crc = zlib.crc32(text, self.crc)
        while self._entry is not None:
            if self._entry.start - self._end not in self._gaps:
                raise BundleFormatError("members overlap, or leave a gap", key=self._entry.key)
            low, high = max(self._entry.start, begin), min(self._entry.start + self._entry.length, self.size)
            if low < high:
                self._member_crc = zlib.crc32(text[low - begin : high - begin], self._member_crc)
            if self._entry.start + self._entry.length > self.size:
                return
            self._next()

    def finish(self) -> None:
        self.feed(b"")  # the members of a bundle without a block
        if self._entry is not None:
            raise BundleFormatError("a member lies behind the end of the text", key=self._entry.key)
        if self.size - self._end not in self._gaps:
            raise BundleFormatError("text behind the last member belongs to none")

    def _next(self) -> None:
        entry = self._entry
        assert entry is not None
        if self._member_crc != entry.crc32:
            raise BundleFormatError("a member does not have the CRC that the index names", key=entry.key)
        self._entry, self._member_crc, self._end = next(self._entries, None), 0, entry.start + entry.length


def _fetch_from(file: IO[bytes]) -> Fetch:
    def fetch(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    return fetch


def _extras(members: bytes) -> bytes:
    """What the index members carry, provided that they are, to the bit, what a packer writes."""
    parts = []
    while members:
        length = struct.unpack_from("<H", members, 14)[0] if len(members) > EMPTY_MEMBER_SIZE else 0
        extra = members[16 : 16 + length]
        whole = empty_member(INDEX_ID, extra)
        if not members.startswith(whole):
            raise BundleFormatError("the index is damaged")
        parts.append(extra)
        members = members[len(whole) :]
    return b"".join(parts)


def _index(footer: _Footer) -> BundleIndex:
    try:
        inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        text = inflate.decompress(footer.deflated, max(1, footer.inflated_size))  # 0 is no limit
        if len(text) != footer.inflated_size:
            raise BundleFormatError("the index does not have the size that the footer names")
        index = BundleIndex.model_validate(json.loads(text))
    except (zlib.error, ValueError, ValidationError, RecursionError) as error:
        raise BundleFormatError("the index cannot be read") from error
    if len(HEADER) + sum(index.blocks) + len(END) + 8 != footer.index_at:
        raise BundleFormatError("the text does not end where the index begins")
    return index


def _entries(index: BundleIndex) -> list[Entry]:
    offsets = [len(HEADER)]
    for size in index.blocks:
        offsets.append(offsets[-1] + size)
    columns = index.members
    try:
        return [
            Entry(
                index.buckets[bucket],
                key,
                version_id,
                etag,
                size,
                encoding,
                start,
                length,
                crc32,
                block=offsets[min(start // index.block_size, len(index.blocks))],
                offset=start % index.block_size,
            )
            for bucket, key, version_id, etag, size, encoding, start, length, crc32 in zip(
                columns.bucket,
                columns.key,
                columns.version_id,
                columns.etag,
                columns.size,
                columns.encoding,
                columns.start,
                columns.length,
                columns.crc32,
                strict=True,
            )
        ]
    except (IndexError, ValueError) as error:
        raise BundleFormatError("the columns of the index do not agree") from error
