"""The files that a local run uploads, by the key each will have."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from aggregator.exceptions import AggregatorError
from aggregator.schemas import MAX_KEY_BYTES

_NO_FOLDER = "there is no such folder: "


class LocalRunError(AggregatorError):
    """The run cannot begin, or got stuck."""

    reason = "local_run"


class Files(NamedTuple):
    """Files by the key each will have; links out of the folder, pipes and the like are left out; a line per fault."""

    by_key: dict[str, Path]
    left_out: set[Path]
    faults: list[str]


def readable_files(folder: Path, *, out: Path) -> Files:
    """
    The files below `folder`, by the key each will have: its relative path, with slashes; without those below `out`.

    Raises:
        LocalRunError: the folder cannot be used (`check_folder`), is empty, or something in it cannot be read.
    """
    check_folder(folder, out=out)
    found = look(folder, out=out)
    for path in found.by_key.values():
        with _noting(found.faults):
            path.open("rb").close()
    if found.faults:
        first, more = found.faults[0], len(found.faults) - 1
        noun = "fault" if more == 1 else "faults"
        raise LocalRunError(f"{first} (and {more:,} {noun} more)" if more else first)
    if not found.by_key:
        raise LocalRunError(f"there are no files in {folder}: name another folder, or add --watch to wait for files")
    return found


def check_folder(folder: Path, *, out: Path) -> None:
    """
    Return, if `folder` can be aggregated into `out`.

    Raises:
        LocalRunError: there is no such folder, it is a file, or it is `out` itself.
    """
    if folder.is_file():
        raise LocalRunError(f"{folder} is a file: name the folder that it is in")
    if not folder.is_dir():
        raise LocalRunError(_NO_FOLDER + str(folder))
    if folder.resolve() == out.resolve():
        raise LocalRunError("bundles cannot be written among the files that they are made of: name another --out")


def look(folder: Path, *, out: Path) -> Files:
    """The files that are below `folder` now; what is deleted meanwhile is not there."""
    root, found = folder.resolve(), Files({}, set(), [])
    for path in sorted(_walk(folder, out.resolve(), found.faults)):
        with _noting(found.faults):
            if path.is_file() and (not path.is_symlink() or path.resolve().is_relative_to(root)):
                found.by_key[_key(path.relative_to(folder))] = path
            elif path.is_symlink() or path.exists():
                found.left_out.add(path)
    return found


def left_out_in_words(count: int) -> str:
    """A line about what is left out."""
    return f"left out {count:,}: links to folders, to nowhere or out of DIR, pipes and the like"


def earlier_bundles(folder: Path) -> list[Path]:
    """The bundles below `folder` that an earlier run wrote."""
    return sorted(path for path in folder.glob("[0-9]*/[0-9]*/[0-9]*/[0-9]*/bundle-*.gz") if path.is_file())


def writable_folder(folder: Path) -> None:
    """
    Make `folder`, if it is not there.

    Raises:
        LocalRunError: it cannot be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".aggregator-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LocalRunError(f"cannot write to {folder}: {error.strerror}: name another --out") from None


def _key(path: Path) -> str:
    """The key of a file with that relative path."""
    name = os.fsencode(path.as_posix())
    try:
        key = name.decode()  # whatever encoding the locale has
    except UnicodeDecodeError:
        raise LocalRunError(f"a file's name is not Unicode, so not an S3 key: rename {path.name!r}") from None
    if len(name) > MAX_KEY_BYTES:
        raise LocalRunError(f"a file's path is longer than the {MAX_KEY_BYTES:,} bytes of an S3 key: shorten {key}")
    return key


def _walk(folder: Path, out: Path, faults: list[str]) -> Iterator[Path]:
    """All that is below `folder` but folders, and links to folders; nothing of `out`."""

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            faults.append(_unreadable(error))
        elif error.filename == str(folder):
            faults.append(_NO_FOLDER + error.filename)

    for parent, folders, names in os.walk(folder, onerror=note):
        yield from (Path(parent, name) for name in names)
        yield from (path for name in folders if (path := Path(parent, name)).is_symlink())
        folders[:] = [name for name in folders if Path(parent, name).resolve() != out]


@contextmanager
def _noting(faults: list[str]) -> Iterator[None]:
    """Note a fault of one file, and go on with the next."""
    try:
        yield
    except LocalRunError as error:
        faults.append(str(error))
    except FileNotFoundError:
        pass  # deleted meanwhile
    except OSError as error:
        faults.append(_unreadable(error))


def _unreadable(error: OSError) -> str:
    return f"cannot read {error.filename}: {error.strerror}: make it readable, or move it out of DIR"
