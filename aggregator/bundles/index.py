"""
What a bundle says of itself: its index, and the members that the index lists.

The columns of the index are a contract (contracts/bundle-index); `Member` is one row of them.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, NonNegativeInt, WithJsonSchema

from aggregator.bundles.layout import HEADER
from aggregator.exceptions import BundleFormatError

_T = TypeVar("_T")

Column = Annotated[list[_T], FailFast()]
"""A list of which only the first wrong value is told: pydantic keeps some 800 bytes of each, be they millions."""


class MemberColumns(BaseModel):
    """The members of a bundle, a column a field, all of one length, in the order in which they lie in the text."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    bucket: Column[NonNegativeInt] = Field(description="position of the member's bucket in `buckets`")
    key: Column[str] = Field(description="object key, decoded")
    version_id: Column[str | None] = Field(description="version that was read, if the bucket is versioned")
    etag: Column[str | None] = Field(description="entity tag of what was read, without quotes")
    size: Column[NonNegativeInt] = Field(description="bytes of the object in S3")
    encoding: Column[Literal["gzip"] | None] = Field(
        description="gzip if the object was decoded on the way into the bundle; `decoded` may say from what"
    )
    start: Column[NonNegativeInt] = Field(description="offset of the member in the bundle's text, in bytes")
    length: Column[NonNegativeInt] = Field(description="bytes of the member in the bundle's text")
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
    bundle: str = Field(description="key under which the bundle is published")
    created: str = Field(description="UTC time of the bundle's name, RFC 3339")
    request_id: str = Field(description="id of the invocation that made the bundle")
    framing: Literal["lines", "none"] = Field(description="lines: a member without a final newline was given one")
    text_size: NonNegativeInt = Field(description="bytes of the bundle's text")
    block_size: Annotated[int, Field(gt=0)] = Field(description="bytes of text in each block but the last")
    blocks: Column[NonNegativeInt] = Field(description="bytes of each block in the file")
    buckets: Column[str] = Field(description="the buckets of the members")
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


class Origin(BaseModel):
    """A bundle that was repacked into another, in which `members` of it lie one after the other."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    bundle: str
    created: str
    request_id: str
    sha256: str
    members: NonNegativeInt


def timestamp(now: float) -> str:
    """`now`, in seconds since the epoch, as an index says it: RFC 3339, in UTC, to the second."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}"
