"""
Decode objects that are gzip or zstd, a block at a time, whatever they claim about their size.

All gzip members and all zstd frames of an object are decoded. Anything else in it rejects the object: damage, a cut,
bytes after the end, a zstd dictionary, or a zstd window of more than 128 MiB, which is what `zstd -d` takes too.
"""

import io
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from isal import igzip, isal_zlib

from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.exceptions import CorruptMemberError
from aggregator.schemas import ObjectRef

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Chunk = bytes | memoryview
Encoding = Literal["gzip", "zstd"]

MAGIC_SIZE = 4
"""Bytes of an object that `recognised` looks at."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC = b"\x2a\x4d\x18"
"""The last bytes of the magic number of a skippable frame; the first is 0x50 to 0x5f (RFC 8878, 3.1.2)."""

_CODINGS: dict[str, Encoding] = {"gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}
_SUFFIXES: dict[str, Encoding] = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd"}

_PIECE_SIZE = 16 * 1024
"""Bytes given to the zstd decoder at once: it copies the rest of them after each frame, and a frame may be tiny."""

_OPTIONS: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 27}
_CORRUPT: tuple[type[Exception], ...] = (
    EOFError,
    OSError,
    isal_zlib.IsalError,  # type: ignore[assignment]
    zlib.error,
    zstd.ZstdError,
)


def announced(key: str, content_encoding: str | None) -> set[Encoding]:
    """
    What an object may be encoded with, as its Content-Encoding and its suffix say.

    Content-Encoding is a list, without regard to case, of which the last was applied last; x-gzip is gzip (RFC 9110,
    8.4.1.3). aws-chunked was the coding of the upload only, and some clients leave it there (Signature Version 4,
    "Transferring payload in multiple chunks").
    """
    codings = [coding.strip().lower() for coding in (content_encoding or "").split(",")]
    codings = [coding for coding in codings if coding not in {"", "aws-chunked", "identity"}]
    name, _, suffix = key.casefold().rpartition(".")
    claims = (_CODINGS.get(codings[-1]) if codings else None, _SUFFIXES.get(suffix) if name else None)
    return {claim for claim in claims if claim}


def recognised(head: Chunk) -> Encoding | None:
    """What an object is encoded with, as its first bytes show."""
    head = bytes(head[:MAGIC_SIZE])
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    if head == _ZSTD_MAGIC or (head[1:] == _SKIPPABLE_MAGIC and head[0] & 0xF0 == 0x50):
        return "zstd"
    return None


def decoded(encoding: Encoding, ref: ObjectRef, chunks: Iterable[Chunk]) -> Iterator[bytes]:
    """
    The decoded bytes of an object, at most a block at a time.

    Raises:
        CorruptMemberError: the object is damaged, cut off, followed by something else, or needs more than we have.
    """
    try:
        yield from _inflated(chunks) if encoding == "gzip" else _decompressed(chunks)
    except _CORRUPT as error:
        if isinstance(error, OSError) and not isinstance(error, igzip.BadGzipFile):
            raise
        fault = str(error) if isinstance(error, zstd.ZstdError) else type(error).__name__
        raise CorruptMemberError(
            f"object is not {encoding} to its end", bucket=ref.bucket, key=ref.key, fault=fault
        ) from error


def _inflated(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    stream: Any = igzip.IGzipFile(fileobj=_Chunks(chunks), mode="rb")  # type: ignore[no-untyped-call]
    while block := stream.read(BLOCK_SIZE):
        yield block


def _decompressed(chunks: Iterable[Chunk]) -> Iterator[bytes]:
    frame: zstd.ZstdDecompressor | None = None
    for piece in _pieces(chunks):
        data: Chunk = piece
        while data or (frame and not frame.needs_input):
            frame = frame or zstd.ZstdDecompressor(options=_OPTIONS)
            if block := frame.decompress(data, BLOCK_SIZE):
                yield block
            data = b""
            if frame.eof:
                data, frame = frame.unused_data, None
    if frame:
        raise EOFError


def _pieces(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    for chunk in chunks:
        for at in range(0, len(chunk), _PIECE_SIZE):
            yield chunk[at : at + _PIECE_SIZE]


class _Chunks(io.RawIOBase):
    """A readable file over an iterable of chunks."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size
