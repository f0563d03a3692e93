"""
`bundle://` for fsspec: the members of a bundle as files, for every program that opens files with fsspec.

    with fsspec.open("bundle://orders/1.json::file://bundle.gz") as file:
        ...
    system = fsspec.filesystem("bundle", fo="s3://distribution/2026/11/23/14/bundle-….gz")
    system.glob("orders/*.json")

A path is the key of a member, as it stands; of several members with one key, the last. Nothing in a path is normalised,
so a path never names another member. Keys with empty parts (`/a`, `a//b`, `a/`) are files of that name in the folder
before the empty part. A key that begins with `bundle://` has no path, because fsspec removes that, and a key with `::`
has none in a chain, which fsspec splits there: both are errors. A bundle is read only.

The key that a bundle chooses never becomes the path of a local file: `get` rejects what could leave its folder.
"""

import errno
import io
import os
import weakref
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar

import fsspec  # type: ignore[import-untyped]

from aggregator.bundles.bundle import WINDOW, Bundle
from aggregator.bundles.index import Member
from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.bundles.opening import open_file
from aggregator.exceptions import AggregatorError, BundleFormatError, OpeningError

MOST_FOLDERS = 200_000
"""Most folders that one call lists: a crafted bundle has 500 in each key."""

_SCHEME = "bundle://"


class BundleFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """
    The members of one bundle as files, read only.

    Members of up to `WINDOW` bytes are proven by their CRC-32 before the first byte is handed out, larger ones when a
    file is read from its beginning to its end. A range of a larger one is not proven.
    """

    protocol: ClassVar[str] = "bundle"
    root_marker = ""
    cachable = False  # an instance holds a file open

    def __init__(
        self,
        fo: Any = "",
        target_protocol: str | None = None,
        target_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """
        Open the bundle `fo`: a path, a URL, or a file open for reading, which is not closed.

        In a chain, fsspec says how `fo` is reached: `target_protocol`, `target_options`. S3 without options is read
        with boto3, as `Bundle.open` does.

        Raises:
            BundleFormatError: the bytes are not a bundle, or not a whole one.
            OpeningError: it cannot be opened.
        """
        super().__init__(**options)
        self.bundle = _opened(fo, target_protocol, target_options or {})
        weakref.finalize(self, self.bundle.close)
        self._keys = sorted({member.key for member in self.bundle})
        self._held: tuple[Member | None, bytes] = (None, b"")  # of which a range was read last
        self._hidden = {self._strip_protocol(key) for key in self._keys if key.startswith(_SCHEME)}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """The key that a path names: what follows `bundle://`, without any other change."""
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        key = str(fsspec.utils.stringify_path(path))
        while key.startswith(_SCHEME):  # fsspec may strip a path more than once, so that must make no difference
            key = key[len(_SCHEME) :]
        return key

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """
        A member or a folder.

        Raises:
            FileNotFoundError: there is neither.
        """
        key = self._strip_protocol(path)
        if self._is_key(key):
            return self._file(key)
        folder = key.rstrip("/")
        if folder and next(self._below(folder), None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return _folder(folder)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """
        What is in a folder, in the order of names; a member alone, if it is one.

        Raises:
            FileNotFoundError: there is neither a folder nor a member.
        """
        key = self._strip_protocol(path)
        folder = key.rstrip("/")
        begin = len(folder) + bool(folder)
        found: dict[tuple[str, bool], dict[str, Any]] = {}
        for name in self._below(folder):
            part, slash, _rest = name[begin:].partition("/")
            if part and slash:
                found[name[: begin + len(part)], True] = _folder(name[: begin + len(part)])
            else:
                found[name, False] = self._file(name)
        if not found and key.strip("/"):
            found[key, False] = self.info(path)
        listed = [found[name] for name in sorted(found)]
        return listed if detail else [one["name"] for one in listed]

    def walk(
        self, path: str, maxdepth: int | None = None, topdown: bool = True, on_error: Any = "omit", **options: Any
    ) -> Iterator[tuple[str, Any, Any]]:
        """Folders, and below each its folders and files, by the names that they have there."""
        folder = self._strip_protocol(path).rstrip("/")
        detail = options.get("detail", False)
        listing = self.ls(folder) if self._is_folder(folder) else []
        begin = len(folder) + bool(folder)
        dirs, files = (
            {one["name"][begin:]: one for one in listing if (one["type"] == "directory") is wanted}
            for wanted in (True, False)
        )
        here = (folder, dirs if detail else list(dirs), files if detail else list(files))
        if topdown:
            yield here
        if maxdepth is None or maxdepth > 1:
            for name in list(here[1]):
                deeper = None if maxdepth is None else maxdepth - 1
                yield from self.walk(folder + "/" * bool(folder) + name, deeper, topdown, on_error, **options)
        if not topdown:
            yield here

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **_: Any
    ) -> Any:
        """
        All members below a folder, and the member of that name; with their folders, if `withdirs`.

        Raises:
            OpeningError: there are more folders than `MOST_FOLDERS`.
        """
        key = self._strip_protocol(path)
        folder = key.rstrip("/")
        begin = len(folder) + bool(folder)
        found = {key: self._file(key)} if self._is_key(key) else {}
        folders = {folder} if folder and self._is_folder(folder) else set[str]()
        for name in self._below(folder):
            parts = name[begin:].split("/")
            if maxdepth is None or len(parts) <= maxdepth:
                found[name] = self._file(name)
            if withdirs:
                folders.update(_folders(name, begin, parts, maxdepth))
                if len(folders) > MOST_FOLDERS:
                    raise OpeningError("the bundle has more folders than are listed", most=MOST_FOLDERS)
        if withdirs:
            found = {name: _folder(name) for name in folders} | found
        return {name: found[name] for name in sorted(found)} if detail else sorted(found)

    def glob(self, path: str, maxdepth: int | None = None, **options: Any) -> Any:
        """The members and folders that a pattern of fsspec's names; a pattern that is a key is that member alone."""
        key = self._strip_protocol(path)
        detail = options.pop("detail", False)
        if self._is_key(key):
            found = {key: self._file(key)}
        else:
            found = super().glob(key.rstrip("/"), maxdepth=maxdepth, detail=True, **options)
            if key.endswith("/"):
                found = {name: one for name, one in found.items() if one["type"] == "directory"}
        return found if detail else list(found)

    def expand_path(self, path: Any, recursive: bool = False, maxdepth: int | None = None, **options: Any) -> list[str]:
        """The paths that paths and patterns name; a pattern that is a key is that member."""
        paths = self._strip_protocol([path] if isinstance(path, (str, os.PathLike)) else list(path))
        keys = {one for one in paths if self._is_key(one)}
        others = [one for one in paths if one not in keys]
        found = set(super().expand_path(others, recursive, maxdepth, **options)) if others else set[str]()
        for key in keys if recursive else ():
            found.update(self.find(key, maxdepth, withdirs=True))
        return sorted(found | keys)

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **_: Any) -> Any:
        """
        The bytes of a member; of several, by their paths, in one pass over the bundle.

        Raises:
            FileNotFoundError: a path names no member.
            BundleFormatError: a member is damaged, and `on_error` is `raise`.
        """
        paths = self.expand_path(path, recursive)
        if not isinstance(path, list) and paths == [self._strip_protocol(path)]:
            return self.cat_file(paths[0])
        wanted: dict[Member, str] = {}
        found: dict[str, bytes | Exception] = {}
        for one in paths:
            with self._kept(one, found, on_error):
                if not self._is_only_folder(one):
                    wanted[self._member(one)] = one
        for member, chunks in self.bundle.walk(wanted):
            with self._kept(wanted[member], found, on_error):
                found[wanted[member]] = b"".join(chunks)
        return {one: found[one] for one in paths if one in found}

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """
        The bytes of a member, or a slice of them.

        Raises:
            FileNotFoundError: there is no such member.
            BundleFormatError: the bundle is damaged there.
        """
        member = self._member(path)
        begin, stop, _step = slice(start, end).indices(member.length)
        if (begin, stop) == (0, member.length):
            return self.bundle.read(member)
        if member.length <= WINDOW:
            held, data = self._held
            if held != member:
                data = self.bundle.read(member)
                self._held = (member, data)
            return data[begin:stop]
        return self.bundle.part(member, begin, max(begin, stop))

    def get_file(self, rpath: str, lpath: Any, **options: Any) -> None:
        """
        Copy a member to a local file.

        Raises:
            OpeningError: the key could name a file outside of a folder.
        """
        parts = self._strip_protocol(rpath).replace("\\", "/").split("/")
        if self._strip_protocol(rpath) and {"", ".", ".."} & set(parts):
            raise OpeningError("the key is not a safe file name: use aggregator bundle extract", key=rpath)
        super().get_file(rpath, lpath, **options)

    def created(self, path: str) -> datetime:
        """When the bundle was made."""
        self.info(path)
        return datetime.fromisoformat(self.bundle.index.created)

    def modified(self, path: str) -> datetime:
        """When the bundle was made: it never changes."""
        return self.created(path)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if mode != "rb":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
        member = self._member(path)
        if member.length <= WINDOW:
            return io.BytesIO(self.bundle.read(member))
        return io.BufferedReader(_MemberFile(self, member), BLOCK_SIZE)

    @staticmethod
    @contextmanager
    def _kept(path: str, found: dict[str, Any], on_error: str) -> Iterator[None]:
        """An error of one of several paths is raised, or left out, or kept where the bytes would be."""
        try:
            yield
        except (AggregatorError, OSError) as error:
            if on_error == "raise":
                raise
            if on_error == "return":
                found[path] = error

    def _is_key(self, key: str) -> bool:
        """
        Whether a member has this key.

        Raises:
            OpeningError: another has it after `bundle://`: they cannot be told apart.
        """
        if key in self._hidden:
            raise OpeningError("a key that begins with bundle:// has no path: use aggregator.reader", key=key)
        return key in self.bundle

    def _is_folder(self, folder: str) -> bool:
        return not folder or next(self._below(folder), None) is not None

    def _is_only_folder(self, path: str) -> bool:
        return not self._is_key(path) and self._is_folder(path.rstrip("/"))

    def _member(self, path: str) -> Member:
        key = self._strip_protocol(path)
        if self._is_key(key):
            return self.bundle.entry(key)
        number = errno.EISDIR if self._is_folder(key.rstrip("/")) else errno.ENOENT
        raise OSError(number, os.strerror(number), path)  # Python makes it an IsADirectoryError, or FileNotFoundError

    def _file(self, key: str) -> dict[str, Any]:
        member = self.bundle.entry(key)
        return {
            "name": key,
            "size": member.length,
            "type": "file",
            "bucket": member.bucket,
            "version_id": member.version_id,
            "etag": member.etag,
            "crc32": member.crc32,
        }

    def _below(self, folder: str) -> Iterator[str]:
        """The keys that begin with a folder, in their order."""
        prefix = f"{folder}/" if folder else ""
        for at in range(bisect_left(self._keys, prefix), len(self._keys)):
            if not self._keys[at].startswith(prefix):
                return
            yield self._keys[at]


class _MemberFile(io.RawIOBase):
    """A member as a seekable file; what is read from its beginning to its end without a seek is proven."""

    def __init__(self, system: BundleFileSystem, member: Member) -> None:
        self._system, self._member = system, member  # the file system closes the bundle when nothing needs it
        self._at = self._proven = self._crc = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._member.length}[whence]
        if at < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._at = at
        return at

    def readinto(self, buffer: Any) -> int:
        is_next = self._at == self._proven > 0
        data = self._system.bundle.part(self._member, self._at, self._at + min(len(buffer), BLOCK_SIZE), ahead=is_next)
        if self._at == self._proven:
            self._crc, self._proven = zlib.crc32(data, self._crc), self._proven + len(data)
            if self._proven == self._member.length and self._crc != self._member.crc32:
                raise BundleFormatError("a member is not what the index says", key=self._member.key)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _opened(source: Any, protocol: str | None, options: dict[str, Any]) -> Bundle:
    if not isinstance(source, (str, os.PathLike)) or not protocol or protocol in {"file", "local"}:
        if "fo" in options:
            raise OpeningError("a key with :: has no path in a chain: name the bundle with fo", part=str(source))
        return Bundle.open(source)
    path = str(source)
    url = path if "://" in path else f"{protocol}://{path}"
    if url.startswith("s3://") and not options:
        return Bundle.open(url)
    fetch, size, close = open_file(fsspec.filesystem(protocol, **options), path, url)
    try:
        return Bundle(fetch, size, close=close)
    except BaseException:
        close()
        raise


def _folder(name: str) -> dict[str, Any]:
    return {"name": name, "size": 0, "type": "directory"}


def _folders(name: str, begin: int, parts: list[str], maxdepth: int | None) -> Iterator[str]:
    """The folders of a key below its first `begin` characters, as far as parts have names."""
    at = begin
    for part in parts[:-1][:maxdepth]:
        if not part:
            return
        at += len(part)
        yield name[:at]
        at += 1
