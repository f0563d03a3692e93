"""
Write members of a bundle into a folder, byte for byte, and never anywhere else.

A key may say anything: `../../etc/passwd`, `/abs`, `a//b`, `CON`, a line feed, 1,024 bytes without a slash, `A` beside
`a`, `a` beside `a/b`. So each member is given a name that is safe on Linux, macOS and Windows and unlike every other,
also on a disk that ignores case or Unicode form. A key that is safe is kept; and a member is given the same name,
whichever others are extracted with it. Nothing is overwritten unless asked for, no link is followed, and a name appears
only when its bytes are complete and proven.
"""

import os
import re
import secrets
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, NamedTuple

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.index import Member
from aggregator.exceptions import AggregatorError, BundleFormatError

MOST_BYTES = 200
"""
Most bytes of a name between two slashes: 255 is what most file systems take, less what tells two alike apart; and HFS+
makes more of them by decomposing.
"""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")
"""Control characters, Windows' other slash, and halves of characters, which no file name may have."""

_UNSAFE_ON_WINDOWS = re.compile(r'[<>:"|?*]')
"""Rejection by Windows only (Microsoft Learn, "Naming Files, Paths, and Namespaces"); a colon opens a stream there."""

_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|clock\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?", re.IGNORECASE
)
"""Names that are devices on Windows, whatever follows a dot (the same page)."""


class ExtractionError(AggregatorError):
    """A member cannot be written below the folder."""

    reason = "extraction"


class Extracted(NamedTuple):
    """What became of a member: where it was written, whether its key had to be changed, or why it was not written."""

    entry: Member
    path: Path
    renamed: bool
    fault: str | None


def extract_members(
    bundle: Bundle,
    entries: Iterable[Member],
    folder: Path,
    *,
    overwrite: bool = False,
    report: Callable[[int], object] = lambda _: None,
) -> Iterator[Extracted]:
    """
    Write `entries` below `folder`, which is made if it is not there; says of each what became of it, as it goes.

    A member that is damaged, or whose place is taken, does not keep the others from being written. `report` is told of
    each run of bytes written how long it is.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = dict(zip(bundle.entries, safe_names([entry.key for entry in bundle.entries]), strict=True))
    for entry, chunks in bundle.walk(dict.fromkeys(entries)):
        path, fault = folder.joinpath(*names[entry]), None
        try:
            _make_folders(folder, names[entry][:-1])
            with new_file(path, overwrite=overwrite) as file:
                for chunk in chunks:
                    file.write(chunk)
                    report(len(chunk))
        except (BundleFormatError, ExtractionError) as error:
            fault = str(error)
        except OSError as error:
            fault = error.strerror or str(error)
        yield Extracted(entry, path, "/".join(names[entry]) != entry.key, fault)


def safe_names(keys: Sequence[str], *, windows: bool = os.name == "nt") -> list[tuple[str, ...]]:
    """
    A path for each of `keys`, as its parts: safe, and unlike every other, also as a folder of another.

    Of those that would meet, the first keeps its name and the next are called `name~2`, `name~3`; of those alike, which
    are versions of one object, the last.
    """
    root, last, before = _Folder(), {key: at for at, key in enumerate(keys)}, dict[str, int]()
    placed = dict[int, tuple[str, ...]]()
    for at, key in enumerate(keys):
        placed[before.get(key, last[key])] = root.place([_safe(part, windows=windows) for part in key.split("/")])
        before[key] = at
    return [placed[at] for at in range(len(keys))]


@contextmanager
def new_file(path: Path, *, overwrite: bool = False) -> Iterator[IO[bytes]]:
    """
    A file to be written and read, that takes its name when the block ends well, and leaves nothing when it does not.

    Raises:
        ExtractionError: something is there already.
        OSError: it cannot be written.
    """
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    if os.path.lexists(path) and not overwrite:
        raise ExtractionError("the name is taken already", path=str(path))
    try:
        opened = part.open("x+b")
    except OSError as error:  # tells the name that was asked for, not the one it has meanwhile
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        with opened as file:
            yield file
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class _Folder:
    """The names given in one folder: its files, and its folders by what their keys call them."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._alike: Counter[str] = Counter()
        self._folders: dict[str, tuple[str, _Folder]] = {}

    def place(self, parts: Sequence[str]) -> tuple[str, ...]:
        """The names under which to find a file at `parts`."""
        folder, names = self, list[str]()
        for part in parts[:-1]:
            name, folder = folder.within(part)
            names.append(name)
        return (*names, folder.unlike_others(parts[-1]))

    def within(self, part: str) -> "tuple[str, _Folder]":
        """The folder that `part` names in this one, and its name."""
        if part not in self._folders:
            self._folders[part] = (self.unlike_others(part), _Folder())
        return self._folders[part]

    def unlike_others(self, name: str) -> str:
        """`name`, or what is like it and not taken yet; it is taken from now on."""
        stem, dot, suffix = name.rpartition(".") if name.rfind(".") > 0 else (name, "", "")
        candidate, alike = name, _folded(name)
        while _folded(candidate) in self._taken:
            self._alike[alike] += 1
            candidate = f"{stem}~{self._alike[alike] + 1}{dot}{suffix}"
        self._taken.add(_folded(candidate))
        return candidate


def _safe(part: str, *, windows: bool) -> str:
    """A part of a key as a name that every file system takes; unchanged, if it is one."""
    name = _UNSAFE.sub("_", part)
    if windows:
        name = _UNSAFE_ON_WINDOWS.sub("_", name)
    kept = name.rstrip(". ")  # Windows drops them; this also takes care of "." and ".."
    name = kept + "_" * max(len(name) - len(kept), not name)
    if _DEVICE.fullmatch(name):
        name = "_" + name
    if len(name.encode()) > MOST_BYTES:
        digest = sha256(part.encode(errors="surrogatepass")).hexdigest()[:16]
        suffix = name[name.rfind(".") :] if 0 < len(name) - name.rfind(".") <= 10 else ""
        name = name.encode()[: MOST_BYTES - 40].decode(errors="ignore") + "~" + digest + suffix
    return name


def _folded(name: str) -> str:
    """What is equal where case and Unicode form are ignored (Unicode 16, section 3.13, D145)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _make_folders(folder: Path, parts: Sequence[str]) -> None:
    """
    Make the folders between `folder` and a file, one by one, so that none is made behind a link.

    Raises:
        ExtractionError: a link or a file is in the way.
    """
    for part in parts:
        folder /= part
        try:
            folder.mkdir()
        except FileExistsError:
            if folder.is_symlink() or not folder.is_dir():
                raise ExtractionError("a link or a file is in the way", path=str(folder)) from None
