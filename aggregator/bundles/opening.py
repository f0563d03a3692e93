"""
Read at an offset from where a bundle is stored: an object in S3, or any URL that fsspec knows.

An object is read by ranges: its tail in the first request, which also says its size, then only what is asked for, all
of the same object (`If-Match`), so that a bundle that is replaced meanwhile is never read half and half.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from aggregator.bundles.footer import TAIL_SIZE, Fetch
from aggregator.exceptions import OpeningError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


_S3 = re.compile(r"s3://([^/]+)(?:/(.*))?", re.DOTALL)
_NEARLY_S3 = re.compile(r"[sS]3:(?!//[^/])/*(.*)|S3://(.*)", re.DOTALL)
_VERSIONED = re.compile(r"(.*?)(?:\?versionId=([^?&]+))?", re.DOTALL)


_USER = re.compile(r"(?<=://)[^/\s@\"']*@")
_SIGNED = re.compile(
    r"([?&](?:x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig|(?:access_)?token)=)"
    r"[^&\s\"'#)]+",
    re.IGNORECASE,
)


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
        bucket, rest = s3_address(url)
        found = _VERSIONED.fullmatch(rest)
        return cls(bucket, *found.groups()) if found else cls(bucket, rest)


def without_secrets(text: str) -> str:
    """A text in which no URL shows its password, signature or token."""
    return _SIGNED.sub(r"\1***", _USER.sub("***@", text))


def s3_address(url: str) -> tuple[str, str]:
    """
    Bucket and key, or prefix, of `s3://bucket/key`; the key stands as it is, nothing in it is decoded.

    Raises:
        OpeningError: it is not such an address.
    """
    found = _S3.fullmatch(url)
    if found is None:
        raise OpeningError("an address in S3 is s3://bucket/key", url=without_secrets(url))
    return found[1], found[2] or ""


def check_scheme(target: str) -> None:
    """
    Return, unless `target` begins nearly as an address in S3 does.

    Raises:
        OpeningError: it does.
    """
    if found := _NEARLY_S3.fullmatch(target):
        rest = found[1] or found[2] or "key"
        rest = rest if "/" in rest else f"bucket/{rest}"
        raise OpeningError("an address in S3 begins with s3://", write=without_secrets(f"s3://{rest}"))


def open_url(url: str) -> Opened:
    """
    Open what a URL names.

    Raises:
        OpeningError: it cannot be opened, or what it takes is not installed.
    """
    check_scheme(url)
    if not url.startswith("s3://"):
        return _file(url)
    client = s3_client()
    try:
        return open_object(client, Location.parsed(url))._replace(close=client.close)
    except BaseException:
        client.close()
        raise


def open_object(client: "S3Client", location: Location) -> Opened:
    """
    Open an object with a client of S3, which stays open.

    Raises:
        OpeningError: it cannot be opened.
    """
    if location.key[-1:] in {"", "/"}:
        prefix = f"s3://{location.bucket}/{location.key}"
        raise OpeningError("this is a prefix, and not a bundle: name a bundle below it", target=prefix)
    try:
        found = _Object(client, location)
    except OpeningError as error:
        fault = error.facts.get("fault")
        if fault == "NoSuchKey" and _is_prefix(client, location):
            folder = f"s3://{location.bucket}/{location.key}/"
            raise OpeningError(
                "there is no such object, but a prefix of that name: add a slash", target=folder
            ) from error
        if fault != "InvalidRange":  # S3's answer where there is not even a first byte
            raise
        return Opened(lambda *_: b"", 0, lambda: None)
    return Opened(found.fetch, found.size, lambda: None)


def _is_prefix(client: "S3Client", location: Location) -> bool:
    """Whether objects have this key and a slash as their prefix; not, if that may not be asked."""
    from aggregator.aws import translated  # noqa: PLC0415 - brings boto3

    try:
        with translated():
            found = client.list_objects_v2(Bucket=location.bucket, Prefix=f"{location.key}/", MaxKeys=1)
    except OpeningError:
        return False
    return "Contents" in found


def s3_client() -> "S3Client":
    """
    A client of S3.

    Raises:
        OpeningError: boto3 is not installed, or its configuration is wrong.
    """
    try:
        from aggregator.aws import s3_client as make_client  # noqa: PLC0415 - a local file needs no boto3
        from aggregator.aws import translated  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise OpeningError("an s3:// URL is read with boto3, which is not installed") from error
    with translated():
        return make_client()


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


def _file(url: str) -> Opened:
    with _translated_from_fsspec(url):
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]  # noqa: PLC0415

        system, path = url_to_fs(url)
    return open_file(system, path, url)


def open_file(system: Any, path: str, url: str) -> Opened:
    """
    Open a file on a file system of fsspec's, without the read-ahead that would read more than was asked for.

    Raises:
        OpeningError: it cannot be opened; `url` is what it is called.
    """
    with _translated_from_fsspec(url):
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
            sentence = _OF_STATUS.get(status, "the server rejects the request")
            raise OpeningError(sentence, url=without_secrets(url), status=status) from error
        raise OpeningError(without_secrets(_sentence(chain)), url=without_secrets(url)) from error


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
