"""
Open a bundle where it lies: a file, an object in S3, standard input, or any URL that fsspec knows.

    with bundle_at("s3://distribution/2026/11/23/14/bundle-….gz") as bundle:
        ...

An object is read by ranges: its tail in the first request, which also tells its size, then only what is asked for, all
of the same object (`If-Match`), so that a bundle that is replaced meanwhile is never read half and half.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from aggregator.bundles.footer import TAIL_SIZE, Fetch
from aggregator.exceptions import OpeningError
from aggregator.reader import Bundle

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_COPIED = 1024 * 1024
_IN_MEMORY = 64 * 1024 * 1024

_S3 = re.compile(r"s3://(?P<bucket>[^/]+)/?(?P<key>.*?)(\?versionId=(?P<version_id>[^?&]+))?", re.DOTALL)


class Opened(NamedTuple):
    """How to read at an offset, the size in bytes, and how to close."""

    fetch: Fetch
    size: int
    close: Callable[[], None]


class Location(NamedTuple):
    """An object in S3, or all of a bucket where `key` is empty."""

    bucket: str
    key: str
    version_id: str | None = None

    @classmethod
    def parsed(cls, url: str) -> "Location":
        """
        The object that `s3://bucket/key` names; the key stands as it is, nothing in it is decoded.

        Raises:
            OpeningError: it names no bucket.
        """
        found = _S3.fullmatch(url)
        if found is None:
            raise OpeningError("no URL of an object in S3, which is s3://bucket/key", url=url)
        return cls(found["bucket"], found["key"], found["version_id"])


def standard_input() -> BinaryIO:
    """
    The bytes that come in on standard input.

    Raises:
        OpeningError: there is none, as under `<&-`.
    """
    if sys.stdin is None:
        raise OpeningError("there is no standard input")
    return sys.stdin.buffer


def bundle_at(target: str) -> Bundle:
    """
    The bundle that `target` names: a path, a URL, or `-` for standard input, which is kept until the bundle is closed.

    Raises:
        BundleFormatError: the bytes are no bundle, or not a whole one.
        BundleVersionError: the bundle is of a later version than this reader knows.
        OpeningError: the target cannot be opened.
        OSError: the file cannot be read.
    """
    if target != "-":
        return Bundle.open(target)
    stream = standard_input()
    spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed by the bundle, or right below
    try:
        while data := stream.read(_COPIED):
            spool.write(data)

        def fetch(offset: int, length: int) -> bytes:
            spool.seek(offset)
            return spool.read(length)

        return Bundle(fetch, spool.tell(), close=spool.close)
    except BaseException:
        spool.close()
        raise


def expanded(targets: Iterable[str]) -> Iterator[str]:
    """
    The bundles that `targets` name: below a folder, or an S3 prefix that ends in a slash, every `.gz`, in their order.

    Raises:
        OpeningError: a folder or prefix holds none, or cannot be listed.
    """
    for target in targets:
        if target.startswith("s3://") and Location.parsed(target).key[-1:] in {"", "/"}:
            found = _listed(Location.parsed(target))
        elif "://" not in target and Path(target).is_dir():
            found = map(str, sorted(path for path in Path(target).rglob("*.gz") if path.is_file()))
        else:
            found = iter([target])
        first = next(found, None)
        if first is None:
            raise OpeningError("there is no .gz there", target=target)
        yield first
        yield from found


def buckets_of(targets: Iterable[str]) -> set[str]:
    """The buckets of those targets that lie in S3."""
    return {Location.parsed(target).bucket for target in targets if target.startswith("s3://")}


def opened(url: str) -> Opened:
    """
    Open what a URL names.

    Raises:
        OpeningError: it cannot be opened, or what it takes is not installed.
    """
    return _object(Location.parsed(url)) if url.startswith("s3://") else _file(url)


def _object(location: Location) -> Opened:
    client = _s3()
    try:
        found = _Object(client, location)
    except OpeningError as error:
        client.close()
        if error.facts.get("fault") != "InvalidRange":  # S3's answer where there is not even a first byte
            raise
        return Opened(lambda *_: b"", 0, lambda: None)
    return Opened(found.fetch, found.size, client.close)


def _s3() -> "S3Client":
    try:
        from aggregator.aws import s3_client, translated  # noqa: PLC0415 - a local file needs no boto3
    except ModuleNotFoundError as error:
        raise OpeningError("an s3:// URL is read with boto3, which is not installed") from error
    with translated():
        return s3_client()


class _Object:
    """An object in S3 and its tail, which the first request brings together with size and eTag."""

    def __init__(self, client: "S3Client", location: Location) -> None:
        self._client, self._location = client, location
        self._where: dict[str, Any] = {"Bucket": location.bucket, "Key": location.key}
        if location.version_id:
            self._where["VersionId"] = location.version_id
        self._tail, answer = self._got(f"bytes=-{TAIL_SIZE}")
        self.size = int(answer.get("ContentRange", f"/{len(self._tail)}").rpartition("/")[2])
        self._where["IfMatch"] = answer["ETag"]

    def fetch(self, offset: int, length: int) -> bytes:
        tail_at = self.size - len(self._tail)
        if offset >= tail_at:
            return self._tail[offset - tail_at :][:length]
        return self._got(f"bytes={offset}-{min(offset + length, self.size) - 1}")[0]

    def _got(self, bounds: str) -> tuple[bytes, Any]:
        from aggregator.aws import retry_once, translated  # noqa: PLC0415 - brings boto3

        def get() -> tuple[bytes, Any]:
            answer = self._client.get_object(**self._where, Range=bounds)
            return answer["Body"].read(), answer

        with translated(target=f"s3://{self._location.bucket}/{self._location.key}"):
            return retry_once(get)


def _listed(location: Location) -> Iterator[str]:
    from aggregator.aws import translated  # noqa: PLC0415 - brings boto3

    client = _s3()
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=location.bucket, Prefix=location.key)
        with translated(target=f"s3://{location.bucket}/{location.key}"):
            for page in pages:
                for found in page.get("Contents", []):
                    if found["Key"].endswith(".gz"):
                        yield f"s3://{location.bucket}/{found['Key']}"
    finally:
        client.close()


def _file(url: str) -> Opened:
    """A file that fsspec opens, without the read-ahead that would read more than was asked for."""
    with _translated_from_fsspec(url):
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # noqa: PLC0415

        system, path = url_to_fs(url)
        file = system.open(path, "rb", cache_type="none")
        size = file.seek(0, 2)

    def fetch(offset: int, length: int) -> bytes:
        with _translated_from_fsspec(url):
            file.seek(offset)
            return bytes(file.read(length))

    return Opened(fetch, size, file.close)


@contextmanager
def _translated_from_fsspec(url: str) -> Iterator[None]:
    """
    What goes wrong in a file system of fsspec's, which raises whatever its libraries raise, as one sentence.

    Raises:
        OpeningError: with the status of an HTTP server, if there is one.
    """
    try:
        yield
    except Exception as error:
        chain = list(_chain(error))
        status = next(filter(None, (getattr(one, "status", None) for one in chain)), None)  # aiohttp's errors have one
        if status:
            sentence = _OF_STATUS.get(status, "the server refuses to answer")
            raise OpeningError(sentence, url=url, status=status) from error
        raise OpeningError(_sentence(chain), url=url) from error


_OF_STATUS = {
    **dict.fromkeys((401, 403, 407), "the server does not let this be read without the right credentials"),
    **dict.fromkeys((404, 410), "there is no such file"),
    **dict.fromkeys((429, 500, 502, 503, 504), "the server cannot answer now: try again later"),
}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those behind it: fsspec says of each failure to ask for a size that there is no such file."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _sentence(chain: list[BaseException]) -> str:
    error = next((one for one in chain if not isinstance(one, FileNotFoundError)), None)
    match error:
        case None:
            return "there is no such file"
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] == "fsspec":
            return "a URL like this is read with fsspec, which is not installed"
        case ValueError() if re.search(r"\brange|\bseek", str(error)):
            return "this server does not serve ranges: download the file first"
    return f"fsspec cannot read it: {str(error) or type(error).__name__}"
