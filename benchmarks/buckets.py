"""
The stand-in's S3: a bucket of source objects that are made when they are read, and buckets that bundles are put into.

A bundle is kept as a version, in a file if it is large, so that whether it was published can be looked up as on AWS.
"""

import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, NamedTuple, Protocol
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from benchmarks.objects import BUCKET, Object

_PIECE = 256 * 1024
_MODIFIED = "Last-Modified: Mon, 23 Nov 2026 17:00:00 GMT"
_REASONS = {
    200: "OK",
    206: "Partial Content",
    400: "Bad Request",
    404: "Not Found",
    412: "Precondition Failed",
    416: "Range Not Satisfiable",
    501: "Not Implemented",
}


class Request(NamedTuple):
    """One HTTP request; header names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: IO[bytes]


class Answer(NamedTuple):
    """One HTTP answer: its head, and its body piece by piece."""

    head: bytes
    pieces: Iterable[bytes | memoryview]


class Stored(Protocol):
    """What a bucket holds: bytes of a known size and entity tag."""

    @property
    def size(self) -> int:
        """Bytes of it."""

    @property
    def etag(self) -> str:
        """Its entity tag, without quotes."""

    def pieces(self, start: int, end: int) -> Iterator[memoryview]:
        """Its bytes from `start` up to `end`."""


class Version:
    """One version of something that was put."""

    def __init__(self, number: int, body: IO[bytes]) -> None:
        self.id = f"v{number:031d}"
        self.size = body.seek(0, io.SEEK_END)
        self.etag = f"{number:032x}"
        self._body = body

    def pieces(self, start: int, end: int) -> Iterator[memoryview]:
        """Its bytes from `start` up to `end`, at most 256 KiB at a time."""
        while start < end:
            self._body.seek(start)  # another answer may read between our pieces
            piece = self._body.read(min(_PIECE, end - start))
            yield memoryview(piece)
            start += len(piece)


class Buckets:
    """All buckets, which need not be created."""

    def __init__(self) -> None:
        self._versions: dict[tuple[str, str], list[Version]] = {}
        self._numbers = itertools.count(1)

    def answer(self, request: Request) -> Answer:
        """Answer one call of S3's, path style."""
        path, _, query = request.target.partition("?")
        bucket, _, key = path[1:].partition("/")
        if "%" in key:
            key = unquote(key)
        if request.method in ("GET", "HEAD"):
            asked = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
            if not key:
                return self._list_object_versions(bucket, asked)
            return _read(request, self._found(bucket, key, asked.get("versionId")))
        if request.method == "PUT":
            return self._put_object(bucket, key, request)
        return error(501, "NotImplemented")

    def _found(self, bucket: str, key: str, version_id: str | None) -> Stored | None:
        if bucket == BUCKET:
            return Object.named(key)
        versions = self._versions.get((bucket, key), [])
        return next((each for each in reversed(versions) if version_id in (None, each.id)), None)

    def _put_object(self, bucket: str, key: str, request: Request) -> Answer:
        if request.headers.get("content-encoding", "").startswith("aws-chunked"):
            return error(501, "NotImplemented")  # the framing would be stored in the object
        versions = self._versions.setdefault((bucket, key), [])
        if versions and request.headers.get("if-none-match") == "*":
            return error(412, "PreconditionFailed")
        versions.append(Version(next(self._numbers), request.body))
        return answer(200, f'ETag: "{versions[-1].etag}"', f"x-amz-version-id: {versions[-1].id}")

    def _list_object_versions(self, bucket: str, asked: Mapping[str, str]) -> Answer:
        if "versions" not in asked:
            return error(501, "NotImplemented")
        prefix = asked.get("prefix", "")
        listed = "".join(
            f"<Version><Key>{escape(key)}</Key><VersionId>{version.id}</VersionId>"
            f"<IsLatest>{'true' if version is versions[-1] else 'false'}</IsLatest>"
            f"<LastModified>2026-11-23T17:00:00.000Z</LastModified><ETag>&quot;{version.etag}&quot;</ETag>"
            f"<Size>{version.size}</Size><StorageClass>STANDARD</StorageClass></Version>"
            for (home, key), versions in sorted(self._versions.items())
            if home == bucket and key.startswith(prefix)
            for version in reversed(versions)
        )
        page = f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>{listed}"
        return answer(200, body=f"<ListVersionsResult>{page}</ListVersionsResult>".encode())


def _read(request: Request, stored: Stored | None) -> Answer:
    """The whole of an object, or the range that is asked for."""
    if stored is None:
        return error(404, "NoSuchKey")
    wanted = request.headers.get("if-match")
    if wanted is not None and wanted.strip('"') != stored.etag:
        return error(412, "PreconditionFailed")
    lines = [f'ETag: "{stored.etag}"', _MODIFIED, "Accept-Ranges: bytes", "Content-Type: binary/octet-stream"]
    if isinstance(stored, Version):
        lines.append(f"x-amz-version-id: {stored.id}")
    status, start, end = 200, 0, stored.size
    if "range" in request.headers:
        first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, stored.size - int(last))
        end = min(int(last) + 1, stored.size) if first and last else stored.size
        if start >= stored.size:
            return error(416, "InvalidRange")
        status = 206
        lines.append(f"Content-Range: bytes {start}-{end - 1}/{stored.size}")
    pieces = () if request.method == "HEAD" else stored.pieces(start, end)
    return Answer(_head(status, end - start, lines), pieces)


def answer(status: int, *lines: str, body: bytes = b"") -> Answer:
    """An answer with a small body."""
    return Answer(_head(status, len(body), lines), (body,) if body else ())


def error(status: int, code: str) -> Answer:
    """S3's answer to a call that it refuses."""
    return answer(status, "Content-Type: application/xml", body=f"<Error><Code>{code}</Code></Error>".encode())


def _head(status: int, length: int, lines: Iterable[str]) -> bytes:
    rows = [f"HTTP/1.1 {status} {_REASONS[status]}", f"Content-Length: {length}", "x-amz-request-id: STANDIN", *lines]
    return ("\r\n".join(rows) + "\r\n\r\n").encode()
