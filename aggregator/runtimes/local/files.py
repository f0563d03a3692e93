"""The files that a local run uploads, by the key each will have."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from aggregator.bundles.layout import BUNDLE_KEY, HEADER
from aggregator.events import MAX_KEY_BYTES
from aggregator.exceptions import AggregatorError

MOST_NAMED = 20
"""Most files that are named when they are left out; the rest is counted."""

_NO_FOLDER = "there is no such folder: "


class LocalRunError(AggregatorError):
    """The run cannot begin, or got stuck."""

    reason = "local_run"


class Files(NamedTuple):
    """Files by the key each will have; what is left out, and why; a line per fault."""

    by_key: dict[str, Path]
    left_out: dict[Path, str]
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
    root, found = folder.resolve(), Files({}, {}, [])
    for path in sorted(_walk(folder, out.resolve(), found.faults)):
        with _noting(found.faults):
            if why := _why_not(path, path.relative_to(folder), root):
                found.left_out[path] = why
            elif path.is_file():
                found.by_key[_key(path.relative_to(folder))] = path
    return found


def left_out_in_words(left_out: Mapping[Path, str]) -> Iterator[str]:
    """Lines about what is left out, at most `MOST_NAMED` and one with the number of the others."""
    for path, why in islice(left_out.items(), MOST_NAMED):
        yield f"left out {path}: {why}"
    if (more := len(left_out) - MOST_NAMED) > 0:
        yield f"left out {more:,} more"


def earlier_bundles(folder: Path) -> list[Path]:
    """The bundles below `folder` that an earlier run wrote."""
    found = folder.glob("[0-9]*/[0-9]*/[0-9]*/[0-9]*/bundle-*.gz")
    return sorted(path for path in found if path.is_file())


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


def _why_not(path: Path, name: Path, root: Path) -> str | None:
    """Why what is at `path` is left out; None for a file, and for what is deleted meanwhile."""
    if not path.is_file():
        if path.is_symlink():
            return "it is a link to a folder" if path.is_dir() else "it is a link to nowhere"
        return "it is a pipe, a socket or a device" if path.exists() else None
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        return "it is a link out of DIR"
    try:
        key = _key(name)
    except UnicodeDecodeError:
        return "its name is not Unicode, so it cannot be the key of an object: rename it"
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"its path is longer than the {MAX_KEY_BYTES:,} bytes that a key may have: shorten it"
    return "it is a bundle of an earlier run" if _is_bundle(path) else None


def _key(name: Path) -> str:
    """The key of a file with that relative path, whatever encoding the locale has."""
    return os.fsencode(name.as_posix()).decode()


def _is_bundle(path: Path) -> bool:
    """Whether a file has the name of a bundle, at any depth, and begins as one."""
    if not BUNDLE_KEY.fullmatch("/".join(path.parts[-5:])):
        return False
    with path.open("rb") as file:
        return file.read(len(HEADER)) == HEADER


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
