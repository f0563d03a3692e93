"""
Read a bundle from anything that can be read at an offset: its index, one member, all of them, or every byte to verify.

    with Bundle.open("bundle.gz") as bundle:
        for member in bundle:
            print(member.key, member.length)
        text = bundle["in/some.json"]

The tail of the file is enough for the index, the tail and one block for a small member. Nothing here is shared with the
packer but the format (docs/bundle-format.md), so that reading proves writing. docs/reading-bundles.md shows how.
"""

import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import IO, Self

from aggregator.bundles.footer import Fetch, Footer
from aggregator.bundles.index import BundleIndex, Member, Origin, members_of
from aggregator.bundles.layout import HEADER
from aggregator.bundles.verification import Proof, verify_bundle
from aggregator.exceptions import BundleFormatError, ClosedBundleError, OpeningError

WINDOW = 8 * 1024 * 1024
"""Bytes of the file that are read at once, and held, however large a member is."""

_APART = 256 * 1024
"""Bytes between two members that are cheaper read over than left out: a request to S3 takes some 30 ms."""


class Bundle:
    """
    A bundle, by its index. Iterate over it for its members; index it by key for a member's bytes.

    `size` is bytes of the file, `index` all that the bundle says of itself, `entries` its members in their order, and
    `origins` the bundles that were repacked into this one, none as a rule. What is held is the index (some 500 bytes a
    member), one block of text, and at most `WINDOW` bytes of the file. Threads may share one bundle; they read in turn.
    """

    size: int
    index: BundleIndex
    entries: list[Member]
    origins: list[Origin]

    def __init__(self, fetch: Fetch, size: int, *, close: Callable[[], None] = lambda: None) -> None:
        """
        Read the index of the bundle of `size` bytes that `fetch` reads; `close` is called at the end.

        Raises:
            BundleFormatError: the bytes are not a bundle, or not a whole one.
            BundleVersionError: the bundle is of a later version than this reader knows.
        """
        self.size, self._fetch, self._close = size, _Window(fetch), close
        footer = Footer.read(fetch, size)
        self._sha256 = footer.sha256
        self.index, self.origins = footer.parsed()
        self.entries = members_of(self.index)
        self._at = [len(HEADER)]
        for length in self.index.blocks:
            self._at.append(self._at[-1] + length)
        self._inflated = (-1, b"")

    @classmethod
    def open(cls, source: str | os.PathLike[str] | IO[bytes]) -> Self:
        """
        Open a bundle from a path, a URL, or a seekable file open for reading, such as one of fsspec's.

        `s3://bucket/key` is read by ranges with boto3, which finds credentials as it always does; `?versionId=…` behind
        it names a version. Every other URL is opened with fsspec. A file that was given is not closed.

        Raises:
            BundleFormatError: the bytes are not a bundle, or not a whole one.
            BundleVersionError: the bundle is of a later version than this reader knows.
            OpeningError: a URL cannot be opened or read, or what it takes is not installed (`bundles/opening.py`).
            OSError: the file cannot be read.
        """
        if isinstance(source, str) and ("://" in source or source.startswith("s3:")):
            from aggregator.bundles.opening import open_url  # noqa: PLC0415 - a path needs none of what a URL does

            fetch, size, close = open_url(source)
        elif isinstance(source, (str, os.PathLike)):
            if is_endless(Path(source)):
                raise OpeningError("this is a pipe or a device: give a file, or - for standard input", path=str(source))
            file = Path(source).open("rb")  # noqa: SIM115 - closed by the bundle, or right below
            fetch, size, close = _fetch_from(file), file.seek(0, os.SEEK_END), file.close
        else:
            fetch, size, close = _fetch_from(source), source.seek(0, os.SEEK_END), lambda: None
        try:
            return cls(fetch, size, close=close)
        except BaseException:
            close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Member]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __getitem__(self, key: str) -> bytes:
        """
        The bytes of the member called `key`; the last one, where several versions of it are in the bundle.

        Raises:
            KeyError: no member has that key.
            BundleFormatError: the bundle is damaged where the member lies.
        """
        return self.read(self.entry(key))

    @property
    def sha256(self) -> str:
        """SHA-256, in hex, of the file before its footer, as the footer names it: what tells two bundles apart."""
        return self._sha256.hex()

    @property
    def is_fence(self) -> bool:
        """
        Whether the bundle has no members, and only closes a name against a late put (docs/after-a-crash.md).

        A consumer that deletes what it has read leaves it to the lifecycle rule.
        """
        return not self.entries

    def close(self) -> None:
        """Close what the bundle was opened from, unless it was given open. Its index can still be asked."""
        self._fetch.close()
        self._close()

    def entry(self, key: str, *, bucket: str | None = None, version_id: str | None = None) -> Member:
        """
        The member called `key`; the last one, where several of that bucket and version, if they are named, have it.

        Raises:
            KeyError: no member has that key.
        """
        if bucket is None and version_id is None:
            return self._by_key[key]
        for member in reversed(self.entries):
            if member.key == key and bucket in {None, member.bucket} and version_id in {None, member.version_id}:
                return member
        raise KeyError(key)

    def read(self, member: Member) -> bytes:
        """
        The bytes of one member, `member.length` of them, as they were in S3 (inflated, where `encoding` says so).

        Raises:
            BundleFormatError: the bundle is damaged there.
            ClosedBundleError: the bundle was closed.
        """
        return b"".join(self.chunks(member))

    def chunks(self, member: Member) -> Iterator[bytes]:
        """
        The bytes of one member, at most a block (256 KiB) at a time, so that one larger than memory can be had.

        The member is proven only when the iterator has ended: its CRC-32 is compared last.

        Raises:
            BundleFormatError: the bundle is damaged there.
            ClosedBundleError: the bundle was closed.
        """
        return self._chunks(member, self._until(member.start, member.length))

    def part(self, member: Member, begin: int, end: int, *, ahead: bool = False) -> bytes:
        """
        The bytes of a member from `begin` to before `end`, as of a slice; only the blocks that hold them are read.

        If `ahead`, those after them too, up to `WINDOW`, because they are asked for next. The bytes are not proven: the
        CRC-32 of a member is of all of its bytes.

        Raises:
            BundleFormatError: the bundle is damaged there.
            ClosedBundleError: the bundle was closed.
        """
        begin, end, _ = slice(begin, end).indices(member.length)
        at, length = member.start + begin, max(end - begin, 0)
        until = self._until(member.start, member.length) if ahead else self._until(at, length)
        data = b"".join(self._pieces(member.key, at, at + length, until))
        if len(data) != length:
            raise BundleFormatError("a member is not what the index says", key=member.key)
        return data

    def walk(self, members: Iterable[Member] | None = None) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """
        Members and their `chunks`, in their order in the bundle; all, if none are named.

        Neighbours share what is read, so that all members cost one pass over the file, `WINDOW` bytes at a time.

        Raises:
            BundleFormatError: the bundle is damaged; raised by the chunks, so that others can still be had.
        """
        ordered = sorted(self.entries if members is None else members, key=lambda member: member.start)
        ends = [self._until(member.start, member.length) for member in ordered]
        for at in reversed(range(1, len(ordered))):
            if ordered[at].block - ends[at - 1] <= _APART:
                ends[at - 1] = max(ends[at - 1], ends[at])
        return ((member, self._chunks(member, end)) for member, end in zip(ordered, ends, strict=True))

    def verify(self, report: Callable[[int], object] = lambda _: None) -> Proof:
        """
        Read the whole bundle, once: any changed bit is found.

        `report` gets the number of bytes read. What the answer says of eTags is no fault: see `Proof`.

        Raises:
            BundleFormatError: says what is wrong.
            ClosedBundleError: the bundle was closed.
        """
        return verify_bundle(self._fetch, self.size, self.index, self.entries, sha256=self._sha256, report=report)

    def provenance(self) -> list[str]:
        """For each member, the key of the bundle that it was published in: this one, unless it was repacked."""
        repacked = [origin.bundle for origin in self.origins for _ in range(origin.members)]
        return repacked or [self.index.bundle] * len(self.entries)

    @cached_property
    def _by_key(self) -> dict[str, Member]:
        return {member.key: member for member in self.entries}

    def _until(self, start: int, length: int) -> int:
        """Where in the file the last block ends that holds some of this text; without text, where its block begins."""
        block = (start + length - 1) // self.index.block_size + 1 if length else start // self.index.block_size
        return self._at[min(block, len(self._at) - 1)]

    def _chunks(self, member: Member, until: int) -> Iterator[bytes]:
        crc, left = 0, member.length
        for chunk in self._pieces(member.key, member.start, member.start + member.length, until):
            crc, left = zlib.crc32(chunk, crc), left - len(chunk)
            if left or crc == member.crc32:
                yield chunk
        if left or crc != member.crc32:
            raise BundleFormatError("a member is not what the index says", key=member.key)

    def _pieces(self, key: str, at: int, end: int, until: int) -> Iterator[bytes]:
        """The text from `at` to `end`, a block at a time, as far as there is any."""
        while at < end:
            number, offset = divmod(at, self.index.block_size)
            piece = self._text(number, offset + end - at, until, key)[offset : offset + end - at]
            if not piece:
                return
            at += len(piece)
            yield piece

    def _text(self, number: int, needed: int, until: int, key: str) -> bytes:
        """The text of a block; if it does not inflate as a whole, the `needed` bytes of it that do."""
        if number >= len(self.index.blocks):
            return b""
        held, text = self._inflated
        if held == number and not self._fetch.closed:
            return text
        at, size = self._at[number], self.index.blocks[number]
        deflated = self._fetch(at, size, max(until, at + size))
        whole = _inflated(deflated, self.index.block_size)
        if whole is not None:
            self._inflated = (number, whole)
            return whole
        part = _inflated(deflated, min(needed, self.index.block_size))
        if part is None:
            raise BundleFormatError("a block does not inflate", key=key, offset=at)
        return part


class _Window:
    """The bytes of the file that were read last, so that what is near them costs no other read. Threads take turns."""

    def __init__(self, fetch: Fetch) -> None:
        self.closed = False
        self._fetch, self._at, self._held, self._lock = fetch, 0, b"", Lock()

    def __call__(self, at: int, length: int, until: int = 0) -> bytes:
        """
        `length` bytes from `at`; bytes up to `until` will be asked for next.

        Raises:
            ClosedBundleError: the window is closed.
        """
        with self._lock:
            if self.closed:
                raise ClosedBundleError("the bundle is closed")
            if not self._at <= at <= at + length <= self._at + len(self._held):
                self._at, self._held = at, self._fetch(at, max(length, min(WINDOW, until - at)))
            return self._held[at - self._at :][:length]

    def close(self) -> None:
        """Let go of what is held; nothing is read any more."""
        with self._lock:
            self.closed, self._held = True, b""


def is_endless(path: Path) -> bool:
    """Whether a path names a pipe, a socket or a device, which may keep its reader waiting for ever."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # to open it says more
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _fetch_from(file: IO[bytes]) -> Fetch:
    def fetch(offset: int, length: int) -> bytes:
        file.seek(offset)
        parts = []
        while length and (part := file.read(length)):  # an unbuffered file may give less than it was asked for
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    return fetch


def _inflated(deflated: bytes, most: int) -> bytes | None:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, most)
    except zlib.error:
        return None
