"""
The end of a bundle: the footer, which says where the index is, and the index, which says all else.

Both are taken only if they are, to the bit, what a packer writes (docs/bundle-format.md). What an index claims is
bounded before it is believed, by the size of the file: how many bytes it inflates to, how many values are parsed, how
much text its blocks hold. So a crafted one costs time that is linear in the file, and memory that is `64 MiB` and a
small multiple of the file (tests/bundles/test_bombs.py).
"""

import re
import struct
import zlib
from collections.abc import Callable
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aggregator.bundles.index import BundleIndex, Column, Origin, check_members
from aggregator.bundles.layout import (
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
from aggregator.exceptions import BundleFormatError, BundleVersionError

TAIL_SIZE = 64 * 1024
"""Bytes read from the end at first: footer and index of a bundle of some 1,500 members."""

MAX_BLOCK_SIZE = 16 * 1024 * 1024
"""Most bytes of text in a block; what claims more is rejected as damaged."""

MAX_INDEX_IN_FILE, MAX_INDEX_SIZE = 256 * 1024 * 1024, 1 << 30
"""Most bytes of an index, in the file and inflated, however large the file is."""

INDEX_BYTES, INDEX_BYTES_A_BYTE = 24 * 1024 * 1024, 16
"""
Most bytes that an index inflates to: so many, and so many for each byte of the file.

A ratio alone does not tell a bomb from a bundle: 20,000 empty objects whose keys have 1,017 bytes in common deflate to
a 336th. Lambda's 6 MB of messages hold the keys of a bundle, so the first part is enough for those.
"""

INDEX_VALUES, BYTES_A_VALUE = 780_000, 2
"""
Most values of an index: so many, and one for so many bytes of the file.

The members that deflate best are empty objects called 000000, 000001 and so on: nine values in 2.6 bytes. 100,000 of
those are read. Any other member takes 18 bytes and more, of text, eTag and key.
"""

INDEX_GROUPS, BYTES_A_GROUP = 10_000, 32
"""Most arrays and objects in an index, likewise: an origin is one, and has a SHA-256."""

INDEX_STRING = 64 * 1024
"""Most bytes of a string in a large index: a key of 1,024 bytes, each of them escaped, takes 6,144."""

_LARGE = 4 * 1024 * 1024
"""Bytes of an index that may be one string without harm."""

MOST_DEFLATED = 1_032
"""Bytes of text that one byte of deflate holds at most: a match of 258 bytes takes two bits (RFC 1951)."""

_STEP = 4096
"""Deflated bytes that are inflated at once."""

_VERSION = 1
_UNREADABLE = "the index cannot be read"
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
"""A string, also one without an end. Nothing that it takes is given back, so that the time is linear."""

_SMALLEST = len(HEADER) + len(END) + 8 + FOOTER_SIZE
_FOOTER_BEGIN = empty_member(FOOTER_ID, bytes(FOOTER.size))[: FOOTER_SIZE - FOOTER.size - len(END) - 8]

Fetch = Callable[[int, int], bytes]
"""Reads so many bytes from such an offset."""


class _Repacked(BundleIndex):
    """An index, and what its bundle was made of."""

    repacked: Column[Origin] = Field(default_factory=list)


class _Version(BaseModel):
    """The fields that no version of the format changes."""

    model_config = ConfigDict(extra="ignore", strict=True)

    format: Literal["aggregator-bundle"]
    version: int


class Footer(NamedTuple):
    """What the footer names: where the index begins, its deflated bytes, and the SHA-256 of all before the footer."""

    size: int
    index_at: int
    deflated: bytes
    inflated_size: int
    sha256: bytes

    @classmethod
    def read(cls, fetch: Fetch, size: int) -> "Footer":
        """
        Read footer and index of the file of `size` bytes; one read if `TAIL_SIZE` holds them, two if not.

        Raises:
            BundleFormatError: the bytes are not a bundle, or not a whole one.
        """
        tail_at = max(0, size - TAIL_SIZE)
        tail = fetch(tail_at, size - tail_at)
        footer = tail[-FOOTER_SIZE:]
        payload = footer[EMPTY_MEMBER_SIZE - len(END) - 8 : -len(END) - 8]
        if size < _SMALLEST or footer != empty_member(FOOTER_ID, payload) or payload[: len(MAGIC)] != MAGIC:
            raise _no_footer(fetch, size, tail)
        _, index_at, length, deflated_size, inflated_size, sha256 = FOOTER.unpack(payload)
        if index_at + length + FOOTER_SIZE != size or inflated_size > most_index_bytes(size):
            raise BundleFormatError("the footer does not fit the file: bytes were lost or added", size=size)
        if length > MAX_INDEX_IN_FILE:
            raise BundleFormatError("the index is larger than any index is", size=length)
        members = fetch(index_at, tail_at - index_at) + tail if index_at < tail_at else tail[index_at - tail_at :]
        deflated = _extras(members[:-FOOTER_SIZE])
        if len(deflated) != deflated_size:
            raise BundleFormatError("the index does not have the length that the footer names")
        return cls(size, index_at, deflated, inflated_size, sha256)

    def parsed(self) -> tuple[BundleIndex, list[Origin]]:
        """
        What the index says, and of a repacked bundle, what it was made of.

        Raises:
            BundleVersionError: it is of a later version than this reader knows.
            BundleFormatError: the index is damaged, or does not fit the file.
        """
        text = self._inflated()
        if not _is_bounded(text, values=most_index_values(self.size), groups=most_index_groups(self.size)):
            raise BundleFormatError("the index claims more than its bytes can hold")
        try:
            found = _Repacked.model_validate_json(text)
        except ValidationError as error:
            _check_version(text)
            raise _unreadable(error) from error
        if found.version > _VERSION:
            _check_version(text)
        index = BundleIndex.model_construct(**{name: getattr(found, name) for name in BundleIndex.model_fields})
        if len(HEADER) + sum(index.blocks) + len(END) + 8 != self.index_at:
            raise BundleFormatError("the text does not end where the index begins")
        most = index.block_size + 64 + index.block_size // 1024  # what does not deflate is stored, 5 bytes every 65,535
        if index.block_size > MAX_BLOCK_SIZE or max(index.blocks, default=0) > most:
            raise BundleFormatError("a block is larger than a block may be")
        if index.text_size > min(len(index.blocks) * index.block_size, MOST_DEFLATED * self.index_at):
            raise BundleFormatError("the index claims more text than its blocks can hold", text_size=index.text_size)
        if found.repacked and sum(origin.members for origin in found.repacked) != len(index.members.key):
            raise BundleFormatError("the columns of the index do not agree")
        check_members(index)
        return index, found.repacked

    def _inflated(self) -> bytearray:
        inflate, text = zlib.decompressobj(-zlib.MAX_WBITS), bytearray()
        try:
            for at in range(0, len(self.deflated), _STEP):  # so that no second copy of the text is made
                text += inflate.decompress(self.deflated[at : at + _STEP], self.inflated_size - len(text) + 1)
                if len(text) > self.inflated_size:
                    break
        except zlib.error as error:
            raise BundleFormatError(_UNREADABLE) from error
        if len(text) != self.inflated_size:
            raise BundleFormatError("the index does not have the size that the footer names")
        return text


def most_index_bytes(size: int) -> int:
    """Most bytes that the index of a file of `size` bytes inflates to."""
    return min(INDEX_BYTES + INDEX_BYTES_A_BYTE * size, MAX_INDEX_SIZE)


def most_index_values(size: int) -> int:
    """Most values in the index of a file of `size` bytes."""
    return INDEX_VALUES + size // BYTES_A_VALUE


def most_index_groups(size: int) -> int:
    """Most arrays and objects in the index of a file of `size` bytes."""
    return INDEX_GROUPS + size // BYTES_A_GROUP


def _is_bounded(text: bytearray, *, values: int, groups: int) -> bool:
    """Whether a JSON text has no more values and groups, and no huge string; strings are looked at if they matter."""
    commas, openings = _marks(text, 0, len(text))
    if commas <= values and openings <= groups and len(text) <= _LARGE:
        return True
    for strings, string in enumerate(_STRING.finditer(text)):
        begin, end = string.span()
        if end - begin > INDEX_STRING or strings > 2 * values:  # a string is a value or a name
            return False
        in_string = _marks(text, begin, end)
        commas, openings = commas - in_string[0], openings - in_string[1]
    return commas <= values and openings <= groups


def _marks(text: bytearray, begin: int, end: int) -> tuple[int, int]:
    """Commas, and beginnings of arrays and objects, in a part of a text: each value but the first follows a comma."""
    return text.count(b",", begin, end), text.count(b"[", begin, end) + text.count(b"{", begin, end)


def _check_version(text: bytearray) -> None:
    """
    Tell a bundle of the future from a damaged one.

    Raises:
        BundleVersionError: the version is one that this reader does not know.
    """
    try:
        version = _Version.model_validate_json(text).version
    except ValidationError:
        return
    if version > _VERSION:
        raise BundleVersionError(
            "the bundle is of a later version than this reader knows: upgrade", version=version, known=_VERSION
        )


def _unreadable(error: ValidationError) -> BundleFormatError:
    """What is wrong with an index: the first field that failed, without its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    return BundleFormatError(
        _UNREADABLE, **({"field": field} if field else {}), problem=first["msg"].removeprefix("Value error, ")
    )


def _no_footer(fetch: Fetch, size: int, tail: bytes) -> BundleFormatError:
    """What is wrong with a file that does not end in a footer."""
    head = tail[: len(HEADER)] if len(tail) == size else fetch(0, len(HEADER))
    begins = bool(head) and HEADER.startswith(head)
    magic_at = tail.rfind(MAGIC)
    behind = len(tail) - magic_at - (FOOTER_SIZE - len(_FOOTER_BEGIN)) if magic_at >= 0 else -1
    if (begins and behind == 0) or tail[-FOOTER_SIZE:].startswith(_FOOTER_BEGIN):
        return BundleFormatError("the footer is damaged", size=size)
    if begins and behind > 0:
        return BundleFormatError("bytes were added after the footer", size=size)
    if begins:
        return BundleFormatError(
            "truncated (or plain gzip that never was a bundle): it begins as a bundle and has no footer", size=size
        )
    return BundleFormatError("not a bundle: header and footer are missing", size=size)


def _extras(members: bytes) -> bytes:
    """What the index members carry, provided that they are, to the bit, what a packer writes."""
    parts, at = [], 0
    while at < len(members):
        length = struct.unpack_from("<H", members, at + 14)[0] if len(members) - at > EMPTY_MEMBER_SIZE else 0
        extra = members[at + 16 : at + 16 + length]
        whole = empty_member(INDEX_ID, extra)
        if not members.startswith(whole, at):
            raise BundleFormatError("the index is damaged")
        parts.append(extra)
        at += len(whole)
    return b"".join(parts)
