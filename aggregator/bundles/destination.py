"""
Where files are written: below one folder, without following a link, and never over a file that is there already.

    with Destination.at(folder) as destination, destination.new_file(("in", "some.json")) as file:
        file.write(b"…")

Every folder is opened from the handle of the one above it, so whoever swaps a folder for a link meanwhile wins nothing.
A file takes its name by a hard link, which fails where something has that name. Systems without such handles (Windows)
and disks without hard links look first, and then rename: there, nobody else should write to the folder.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from aggregator.exceptions import AggregatorError

MOST_EXTRACTED = 16 * 1024**3
"""Most bytes that one command writes, if nothing else is asked for."""

_HANDLES = {os.open, os.mkdir, os.link, os.unlink, os.rename, os.stat} <= os.supports_dir_fd

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EINVAL}
"""What disks say that have no hard links."""


_FOLDER, _NO_LINK = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0), getattr(os, "O_NOFOLLOW", 0)


class ExtractionError(AggregatorError):
    """A member cannot be written below the folder."""

    reason = "extraction"


class TakenError(ExtractionError):
    """There is something of that name already."""


class Destination:
    """A folder that files are written to: its path, for messages, and a handle of it where the system has those."""

    def __init__(self, path: Path, handle: int | None) -> None:
        self._path, self._handle = path, handle

    @classmethod
    @contextmanager
    def at(cls, folder: Path) -> Iterator["Destination"]:
        """
        A folder that is there; it may be a link itself.

        Raises:
            OSError: it cannot be opened.
        """
        handle = os.open(folder, _FOLDER) if _HANDLES else None
        try:
            yield cls(folder, handle)
        finally:
            if handle is not None:
                os.close(handle)

    @contextmanager
    def new_file(self, parts: Sequence[str], *, overwrite: bool = False) -> Iterator[IO[bytes]]:
        """
        A file at `parts` to be written and read; it takes its name when the block ends well, else it leaves nothing.

        Raises:
            ExtractionError: something is there already, or a link or a file has the name of a folder.
            OSError: it cannot be written.
        """
        place = self
        try:
            for part in parts[:-1]:
                outer, place = place, place.within(part)
                if outer is not self:
                    outer.close()
            with place.named(parts[-1], overwrite=overwrite) as file:
                yield file
        finally:
            if place is not self:
                place.close()

    def within(self, name: str) -> "Destination":
        """
        The folder of that name, which is made if it is not there.

        Raises:
            ExtractionError: a link or a file has that name.
            OSError: it cannot be made.
        """
        path = self._path / name
        try:
            os.mkdir(self._place(name), dir_fd=self._handle)
        except FileExistsError:
            if self._handle is None and (path.is_symlink() or not path.is_dir()):
                raise ExtractionError("a link or a file is in the way", path=str(path)) from None
        return Destination(path, None if self._handle is None else self._opened(name))

    def close(self) -> None:
        """Give the handle back."""
        if self._handle is not None:
            os.close(self._handle)

    def _opened(self, name: str) -> int:
        try:
            return os.open(name, _FOLDER | _NO_LINK, dir_fd=self._handle)
        except OSError as error:
            if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                raise
            raise ExtractionError("a link or a file is in the way", path=str(self._path / name)) from None

    @contextmanager
    def named(self, name: str, *, overwrite: bool) -> Iterator[IO[bytes]]:
        """
        A file of that name right in this folder, as `new_file`.

        Raises:
            ExtractionError: something is there already.
            OSError: it cannot be written.
        """
        part = f".{secrets.token_hex(8)}.part"
        if self._exists(name) and not overwrite:
            raise self._taken(name)
        try:
            opened = os.open(
                self._place(part),
                os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | _NO_LINK,
                0o666,
                dir_fd=self._handle,
            )
        except OSError as error:  # names the file that was asked for, not the one that it is meanwhile
            raise OSError(error.errno, error.strerror, str(self._path / name)) from error
        try:
            with open(opened, "w+b") as file:  # noqa: PTH123 - a handle, not a path
                yield file
            self._publish(part, name, overwrite=overwrite)
        except BaseException:
            self._unlink(part)
            raise

    def _publish(self, part: str, name: str, *, overwrite: bool) -> None:
        """Give the file its name."""
        source, target = self._place(part), self._place(name)
        if not overwrite and self._handle is not None:
            try:
                os.link(source, target, src_dir_fd=self._handle, dst_dir_fd=self._handle, follow_symlinks=False)
            except FileExistsError:
                raise self._taken(name) from None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            else:
                self._unlink(part)
                return
        if not overwrite and self._exists(name):
            raise self._taken(name)
        if self._handle is None:
            os.replace(source, target)  # noqa: PTH105 - beside the calls with handles
        else:
            os.rename(source, target, src_dir_fd=self._handle, dst_dir_fd=self._handle)

    def _exists(self, name: str) -> bool:
        try:
            os.stat(self._place(name), dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(self._place(name), dir_fd=self._handle)
        except FileNotFoundError:
            return

    def _taken(self, name: str) -> TakenError:
        return TakenError("the name is taken already", path=str(self._path / name))

    def _place(self, name: str) -> str:
        return name if self._handle is not None else str(self._path / name)


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[IO[bytes]]:
    """
    A file to be written and read, that takes its name when the block ends well, and leaves nothing when it does not.

    Raises:
        ExtractionError: something is there already.
        OSError: it cannot be written.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    with Destination.at(path.parent) as destination, destination.new_file([path.name], overwrite=overwrite) as file:
        yield file


def check_room(folder: Path, needed: int, *, max_bytes: int = MOST_EXTRACTED) -> None:
    """
    Return, if `needed` bytes may be written to `folder`, which is there.

    Raises:
        ExtractionError: they are more than `max_bytes`, or than the disk has.
    """
    if needed > max_bytes:
        raise ExtractionError("more bytes would be written than --max-bytes allows", bytes=needed, max_bytes=max_bytes)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ExtractionError("the disk has no room for the members", bytes=needed, free=free)
