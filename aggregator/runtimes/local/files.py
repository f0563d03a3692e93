"""The files that a local run uploads, by the key each will have."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aggregator.exceptions import AggregatorError
from aggregator.schemas import MAX_KEY_BYTES


class LocalRunError(AggregatorError):
    """The run cannot begin, or got stuck."""

    reason = "local_run"


class Files(NamedTuple):
    """Files by the key each will have; how many linked folders, links to nowhere, pipes and the like are left out."""

    by_key: dict[str, Path]
    left_out: int


def readable_files(folder: Path, *, out: Path) -> Files:
    """
    The files below `folder`, by the key each will have: its relative path, with slashes; without those below `out`.

    Raises:
        LocalRunError: there is no such folder, it is empty or `out` itself, or something in it cannot be read.
    """
    if not folder.is_dir():
        raise LocalRunError("there is no such folder: " + str(folder))
    if folder.resolve() == out.resolve():
        raise LocalRunError("bundles cannot be written among the files that they are made of: name another --out")
    found, others = dict[str, Path](), 0
    try:
        for path in sorted(_walk(folder, out.resolve())):
            if not path.is_file() or (path.is_symlink() and not path.resolve().is_relative_to(folder.resolve())):
                others += 1
                continue
            key = _key(path.relative_to(folder))
            with path.open("rb"):
                found[key] = path
    except OSError as error:
        raise LocalRunError(f"cannot read {error.filename}: {error.strerror}") from error
    if not found:
        raise LocalRunError("there are no files in " + str(folder))
    return Files(found, others)


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
        raise LocalRunError(f"cannot write to {folder}: {error.strerror}") from error


def _key(path: Path) -> str:
    """The key of a file with that relative path."""
    name = os.fsencode(path.as_posix())
    try:
        key = name.decode()  # whatever encoding the locale has
    except UnicodeDecodeError:
        raise LocalRunError("a file's name is not Unicode, so not an S3 key: " + repr(path.name)) from None
    if len(name) > MAX_KEY_BYTES:
        raise LocalRunError(f"a file's path is longer than the {MAX_KEY_BYTES:,} bytes of an S3 key: {key}")
    return key


def _walk(folder: Path, out: Path) -> Iterator[Path]:
    """All that is below `folder` but folders, and links to folders; nothing of `out`."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent, name) for name in names)
        yield from (path for name in folders if (path := Path(parent, name)).is_symlink())
        folders[:] = [name for name in folders if Path(parent, name).resolve() != out]
