"""
Prove a bundle: read it once, from end to end, and hold every byte against what the bundle says of itself.

SHA-256 of the file, CRC-32 and length of the text, each block inflated alone, each member's CRC-32 and length, no byte
of the text that belongs to no member or to two: one changed bit fails at least one of them.

An eTag that looks like an MD5 is compared too, where the member is as it was in S3. But a difference is no fault by
itself: objects under SSE-KMS and SSE-C have eTags that are not an MD5 and may look like one (S3 API reference,
"Object", ETag), and the index does not say how an object was encrypted. `cross_check.py` asks S3.
"""

import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from aggregator.bundles.index import BundleIndex
from aggregator.bundles.layout import END, FOOTER_SIZE, HEADER
from aggregator.exceptions import BundleFormatError

if TYPE_CHECKING:
    from aggregator.bundles.index import Member

_STEP = 1024 * 1024
_MD5 = re.compile(r"[0-9a-f]{32}")


class Proof(NamedTuple):
    """
    What a whole bundle proves beyond its own marks.

    `sha256` is the file's, in hex: S3's checksum and the settle record have the same. `etags` counts the members whose
    eTag is the MD5 of their bytes; `other_etags` are those whose eTag could be one and is not.
    """

    sha256: str
    etags: int
    other_etags: "tuple[Member, ...]"


def verify_bundle(
    fetch: Callable[[int, int, int], bytes],
    size: int,
    index: BundleIndex,
    members: "Sequence[Member]",
    *,
    sha256: bytes,
    report: Callable[[int], object],
) -> Proof:
    """
    Read a bundle of `size` bytes; `sha256` is what its footer says, `report` gets the number of bytes read.

    Raises:
        BundleFormatError: says what is wrong.
    """
    file, text = _File(fetch, size, report), _Text(members, index.framing)
    if file.read(len(HEADER)) != HEADER:
        raise BundleFormatError("the gzip header is not a bundle's")
    for number, length in enumerate(index.blocks):
        if text.size != number * index.block_size:
            raise BundleFormatError("a block is not as long as the index says", offset=file.at)
        text.feed(_inflated(file.read(length), index.block_size, file.at - length))
    end, crc, length = struct.unpack("<2sII", file.read(len(END) + 8))
    if end != END:
        raise BundleFormatError("the text does not end where the index begins")
    if (crc, length) != (text.crc, text.size & 0xFFFFFFFF) or text.size != index.text_size:
        raise BundleFormatError("the text is not what the gzip trailer and the index say")
    text.finish()
    while file.at < size - FOOTER_SIZE:
        file.read(min(_STEP, size - FOOTER_SIZE - file.at))
    if file.digest.digest() != sha256:
        raise BundleFormatError("the bytes do not have the SHA-256 that the footer names")
    file.read(FOOTER_SIZE)
    return Proof(file.digest.hexdigest(), text.etags, tuple(text.other_etags))


class _File:
    """A file read from its beginning, and its SHA-256 so far."""

    def __init__(self, fetch: Callable[[int, int, int], bytes], size: int, report: Callable[[int], object]) -> None:
        self.at, self.digest = 0, hashlib.sha256()
        self._fetch, self._size, self._report = fetch, size, report

    def read(self, length: int) -> bytes:
        data = self._fetch(self.at, length, self._size)
        if len(data) != length:
            raise BundleFormatError("the file has become shorter while it was read", offset=self.at)
        self.at += length
        self.digest.update(data)
        self._report(self.at)
        return data


class _Text:
    """The text of a bundle as it goes by, held against the members that should be in it one after the other."""

    def __init__(self, members: "Sequence[Member]", framing: str) -> None:
        self.size = self.crc = self.etags = self._end = 0
        self.other_etags: list[Member] = []
        self._gaps = (0, 1) if framing == "lines" else (0,)
        self._members = iter(members)
        self._next()

    def feed(self, text: bytes) -> None:
        begin, self.size = self.size, self.size + len(text)
        self.crc = zlib.crc32(text, self.crc)
        while self._member is not None:
            if self._member.start - self._end not in self._gaps:
                raise BundleFormatError("members overlap, or leave a gap", key=self._member.key)
            low, high = max(self._member.start, begin), min(self._member.start + self._member.length, self.size)
            if low < high:
                self._read(text[low - begin : high - begin])
            if self._member.start + self._member.length > self.size:
                return
            self._check(self._member)
            self._next()

    def finish(self) -> None:
        self.feed(b"")  # the members of a bundle without a block
        if self._member is not None:
            raise BundleFormatError("a member starts after the end of the text", key=self._member.key)
        if self.size - self._end not in self._gaps:
            raise BundleFormatError("text after the last member belongs to no member")

    def _next(self) -> None:
        self._member = next(self._members, None)
        self._member_crc = 0
        self._md5 = hashlib.md5(usedforsecurity=False) if self._member and may_be_md5(self._member) else None

    def _read(self, text: bytes) -> None:
        self._member_crc = zlib.crc32(text, self._member_crc)
        if self._md5:
            self._md5.update(text)

    def _check(self, member: "Member") -> None:
        if self._member_crc != member.crc32:
            raise BundleFormatError("a member does not have the CRC that the index names", key=member.key)
        if member.encoding is None and member.length != member.size:
            raise BundleFormatError("a member is not as long as its object was", key=member.key)
        if self._md5 and self._md5.hexdigest() == member.etag:
            self.etags += 1
        elif self._md5:
            self.other_etags.append(member)
        self._end = member.start + member.length


def _inflated(deflated: bytes, block_size: int, at: int) -> bytes:
    """The text of one block, inflated alone, provided that it is no longer than a block."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        text = inflate.decompress(deflated, block_size + 1)
    except zlib.error as error:
        raise BundleFormatError("a block does not inflate", offset=at) from error
    if inflate.eof or inflate.unconsumed_tail or len(text) > block_size:
        raise BundleFormatError("a block is not as long as the index says", offset=at)
    return text


def may_be_md5(member: "Member") -> bool:
    """Whether the eTag looks like an MD5: not that of a multipart upload (a hyphen), nor of what was decoded."""
    return member.encoding is None and _MD5.fullmatch(member.etag or "") is not None
