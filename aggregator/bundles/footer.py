"""
The end of a bundle: the footer, which says where the index is, and the index, which says all else.

Both are taken only if they are, to the bit, what a packer writes (docs/bundle-format.md). What an index claims is
bounded before it is believed: it inflates to no more than the footer says, and is parsed only if it holds no more
values than so many bytes of a packer's can, so that a crafted one costs little memory.
"""

import re
import struct
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from aggregator.bundles.index import BundleIndex, Column, Origin
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

MAX_INDEX_SIZE = 1 << 30
"""Most bytes an index may inflate to; what claims more is refused as damaged."""

MAX_BLOCK_SIZE = 64 * 1024 * 1024
"""Most bytes a block may inflate to; what claims more is refused as damaged."""

VALUES_A_BYTE = 4 * 9
"""
Most values in an index for each byte of it, deflated: four members, of nine columns.

A ratio of bytes does not tell a bomb from a bundle: 100,000 versions of an empty object with a key of 1,024 bytes
deflate to a 336th, zeros to a 1,000th. But a member takes some bytes that no other has, and at least 2.6 were measured,
of 100,000 empty objects that are called 000000, 000001 and so on.
"""

FEWEST_VALUES = 100_000
"""What an index may hold however small it is."""

SMALLEST_BLOCK_SIZE = 5
"""Bytes of an empty block in the file (RFC 1951, section 3.2.4): the sizes of blocks are values too."""

_VERSION = 1
_UNREADABLE = "the index cannot be read"
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?Z")
_SMALLEST = len(HEADER) + len(END) + 8 + FOOTER_SIZE
_FOOTER_BEGIN = empty_member(FOOTER_ID, bytes(FOOTER.size))[: FOOTER_SIZE - FOOTER.size - len(END) - 8]

Fetch = Callable[[int, int], bytes]
"""Reads so many bytes from such an offset."""

_FIELDS = TypeAdapter(dict[str, Any])
"""Parses as strictly as the Lambda does: half a character, which no key of S3's has, is refused."""

_ORIGINS = TypeAdapter(Column[Origin])


class Footer(NamedTuple):
    """What the footer names: where the index begins, its deflated bytes, and the SHA-256 of all before the footer."""

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
        if index_at + length + FOOTER_SIZE != size or inflated_size > MAX_INDEX_SIZE:
            raise BundleFormatError("the footer does not fit the file: bytes were lost or added", size=size)
        members = fetch(index_at, tail_at - index_at) + tail if index_at < tail_at else tail[index_at - tail_at :]
        deflated = _extras(members[:-FOOTER_SIZE])
        if len(deflated) != deflated_size:
            raise BundleFormatError("the index does not have the length that the footer names")
        return cls(index_at, deflated, inflated_size, sha256)

    def parsed(self) -> tuple[BundleIndex, list[Origin]]:
        """
        What the index says, and of a repacked bundle, what it was made of.

        Raises:
            BundleVersionError: it is of a later version than this reader knows.
            BundleFormatError: the index is damaged, or does not fit the file.
        """
        text = self._inflated()
        most = max(FEWEST_VALUES, VALUES_A_BYTE * len(self.deflated)) + self.index_at // SMALLEST_BLOCK_SIZE
        if _has_more_commas(text, most):
            raise BundleFormatError("the index claims more than its bytes can hold")
        try:
            fields = _FIELDS.validate_json(text)
            _check_version(fields)
            index = BundleIndex.model_validate(fields)
            origins = _ORIGINS.validate_python(fields.get("repacked", []))
        except ValidationError as error:
            raise _unreadable(error) from error
        if not _TIME.fullmatch(index.created):
            raise BundleFormatError(_UNREADABLE, field="created", problem="is not an RFC 3339 time in UTC")
        if len(HEADER) + sum(index.blocks) + len(END) + 8 != self.index_at:
            raise BundleFormatError("the text does not end where the index begins")
        most = index.block_size + 64 + index.block_size // 1024  # what does not deflate is stored, 5 bytes every 65,535
        if index.block_size > MAX_BLOCK_SIZE or max(index.blocks, default=0) > most:
            raise BundleFormatError("a block is larger than a block may be")
        if origins and sum(origin.members for origin in origins) != len(index.members.key):
            raise BundleFormatError("the columns of the index do not agree")
        return index, origins

    def _inflated(self) -> bytes:
        try:
            text = zlib.decompressobj(-zlib.MAX_WBITS).decompress(self.deflated, max(1, self.inflated_size))
        except zlib.error as error:
            raise BundleFormatError(_UNREADABLE) from error
        if len(text) != self.inflated_size:  # 0 is no limit to zlib, hence the 1
            raise BundleFormatError("the index does not have the size that the footer names")
        return text


def _has_more_commas(text: bytes, most: int) -> bool:
    """Whether more than `most` values follow others; what stands in strings is looked at only if it may matter."""
    commas = text.count(b",")
    return commas > most and commas - sum(string[0].count(b",") for string in _STRING.finditer(text)) > most


def _check_version(fields: dict[str, Any]) -> None:
    """
    Tell a bundle of the future from a damaged one.

    Raises:
        BundleVersionError: the version is one that this reader does not know.
    """
    version = fields.get("version")
    if fields.get("format") == "aggregator-bundle" and isinstance(version, int) and version > _VERSION:
        raise BundleVersionError(
            "the bundle is of a later version than this reader knows: upgrade", version=version, known=_VERSION
        )


def _unreadable(error: ValidationError) -> BundleFormatError:
    """What is wrong with an index: the first field that failed, without its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(map(str, first["loc"]))
    return BundleFormatError(_UNREADABLE, **({"field": field} if field else {}), problem=first["msg"])


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
