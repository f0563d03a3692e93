"""
What a bundle says of itself: its index, and the members that the index lists.

The columns of the index are a contract (contracts/bundle-index); `Member` is one row of them.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, WithJsonSchema

from aggregator.bundles.layout import HEADER
from aggregator.events import MAX_KEY_BYTES
from aggregator.exceptions import BundleFormatError

_T = TypeVar("_T")

_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")


def _is_time(text: str) -> str:
    """
    `text`, if it is a time.

    Raises:
        ValueError: it has another form, or there is no such day or hour.
    """
    if not _TIME.fullmatch(text):
        raise ValueError("is not an RFC 3339 time in UTC")
    datetime.fromisoformat(text[:19])
    return text


def _is_key(text: str) -> str:
    """
    `text`, if it is as short as a key of S3's.

    Raises:
        ValueError: it is longer.
    """
    if len(text) * 3 > MAX_KEY_BYTES and len(text.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"is longer than {MAX_KEY_BYTES:,} bytes of UTF-8")
    return text


_STRING = WithJsonSchema({"type": "string"})
"""The bounds are of this reader, and no part of the contract: no object of S3's exceeds them."""

Count = Annotated[int, Field(ge=0, lt=2**63), WithJsonSchema({"type": "integer", "minimum": 0})]
"""A number of bytes or of things, such as a reader in any language can hold."""

Key = Annotated[str, Field(max_length=MAX_KEY_BYTES), AfterValidator(_is_key), _STRING]

Time = Annotated[str, Field(max_length=30), AfterValidator(_is_time), _STRING]

Name = Annotated[str, Field(max_length=MAX_KEY_BYTES), _STRING]
"""A bucket, version, eTag or id."""

Column = Annotated[list[_T], FailFast()]
"""A list of which only the first wrong value is told: pydantic keeps some 800 bytes of each, be they millions."""


class MemberColumns(BaseModel):
    """The members of a bundle, a column a field, all of one length, in the order in which they lie in the text."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    bucket: Column[Count] = Field(description="position of the member's bucket in `buckets`")
    key: Column[Key] = Field(description="object key, decoded")
    version_id: Column[Name | None] = Field(description="version that was read, if the bucket is versioned")
    etag: Column[Name | None] = Field(description="entity tag of what was read, without quotes")
    size: Column[Count] = Field(description="bytes of the object in S3")
    encoding: Column[Literal["gzip"] | None] = Field(
        description="gzip if the object was decoded on the way into the bundle; `decoded` may say from what"
    )
    start: Column[Count] = Field(description="offset of the member in the bundle's text, in bytes")
    length: Column[Count] = Field(description="bytes of the member in the bundle's text")
    crc32: Column[Annotated[int, Field(ge=0, lt=2**32)]] = Field(description="CRC-32 of those bytes (RFC 1952)")
    decoded: Column[Literal["gzip", "zstd"] | None] = Field(
        [],
        description="what was decoded, for every member; only if something else than gzip was",
        exclude_if=lambda column: not column,
    )


class BundleIndex(BaseModel):
    """
    What a bundle says of itself, deflated behind its text (docs/bundle-format.md).

    The text is cut into blocks of `block_size` bytes, the last one shorter, and each block can be inflated alone. Block
    `start // block_size` therefore holds a member's first byte, at offset `start % block_size`, and begins in the file
    at `HEADER_SIZE` plus the sum of the `blocks` before it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    format: Literal["aggregator-bundle"] = Field("aggregator-bundle", description="what this is an index of")
    version: Annotated[int, Field(ge=1, le=1), WithJsonSchema({"type": "integer", "const": 1})] = Field(
        1, description="version of this format"
    )  # not Literal[1], which takes true for 1
    bundle: Key = Field(description="key under which the bundle is published")
    created: Time = Field(description="UTC time of the bundle's name, RFC 3339")
    request_id: Name = Field(description="id of the invocation that made the bundle")
    framing: Literal["lines", "none"] = Field(description="lines: a member without a final newline was given one")
    text_size: Count = Field(description="bytes of the bundle's text")
    block_size: Annotated[int, Field(gt=0, lt=2**63), WithJsonSchema({"type": "integer", "exclusiveMinimum": 0})] = (
        Field(description="bytes of text in each block but the last")
    )
    blocks: Column[Count] = Field(description="bytes of each block in the file")
    buckets: Column[Name] = Field(description="the buckets of the members")
    members: MemberColumns


class Member(NamedTuple):
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


def members_of(index: BundleIndex) -> list[Member]:
    """
    The members that the columns of an index list, in their order.

    Raises:
        BundleFormatError: the columns do not agree.
    """
    offsets = [len(HEADER)]
    for size in index.blocks:
        offsets.append(offsets[-1] + size)
    columns = index.members
    try:
        return [
            Member(
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
                columns.decoded or columns.encoding,
                columns.start,
                columns.length,
                columns.crc32,
                strict=True,
            )
        ]
    except (IndexError, ValueError) as error:
        raise BundleFormatError("the columns of the index do not agree") from error


def check_members(index: BundleIndex) -> None:
    """
    Return, if every member is in the text, and starts where the one before it ends or later.

    Raises:
        BundleFormatError: a member is elsewhere: its bytes would be read again and again.
    """
    end, columns = 0, index.members
    for key, start, length in zip(columns.key, columns.start, columns.length, strict=False):
        if start < end:
            raise BundleFormatError("members overlap, or are in another order than the text", key=key)
        end = start + length
        if end > index.text_size:
            raise BundleFormatError("a member ends after the end of the text", key=key)


class Origin(BaseModel):
    """A bundle that was repacked into another, in which `members` of it lie one after the other."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    bundle: Key
    created: Name
    request_id: Name
    sha256: Name
    members: Count


def timestamp(now: float) -> str:
    """`now`, in seconds since the epoch, as an index says it: RFC 3339, in UTC, to the second."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}"
