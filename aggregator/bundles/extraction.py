"""
Write members of a bundle into a folder, byte for byte, and never anywhere else.

A key may say anything: `../../etc/passwd`, `/abs`, `a//b`, `CON`, a line feed, 1,024 bytes without a slash, `A` beside
`a`, `a` beside `a/b`. So each member is given a name that is safe on Linux, macOS and Windows and unlike every other,
also on a disk that ignores case or Unicode form. A name is not a command for the next tool either: `.git`, `.envrc` and
`-rf` get a letter in front, and characters that nobody sees are replaced. A key that is safe is kept; and a member is
given the same name, whichever others are extracted with it. Nothing is overwritten unless asked for, no link is
followed, and a name appears only when its bytes are complete and proven (`destination.py`).
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.destination import MOST_EXTRACTED, Destination, ExtractionError, TakenError, check_room
from aggregator.bundles.index import Member
from aggregator.exceptions import BundleFormatError

MOST_BYTES = 200
"""
Most bytes of a name between two slashes: 255 is what most file systems take, less what tells two alike apart; and HFS+
makes more of them by decomposing.
"""

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\]")
"""Control characters, and Windows' other slash."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of control, format (bidirectional, zero width) and line characters, and of halves of characters."""

_IGNORED = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]")
"""Default ignorable characters of other categories: HFS+ compares names without such (Unicode 16, section 5.21)."""

_COMMAND = re.compile(r"[.-]|git~[0-9]", re.IGNORECASE)
"""Begins a hidden file, which tools read as settings, an option, or the short name of `.git` on Windows."""

_UNSAFE_ON_WINDOWS = re.compile(r'[<>:"|?*]')
"""Rejection by Windows only (Microsoft Learn, "Naming Files, Paths, and Namespaces"); a colon opens a stream there."""

_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|clock\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?", re.IGNORECASE
)
"""Names that are devices on Windows, whatever follows a dot (the same page)."""


class Extracted(NamedTuple):
    """
    What became of a member: where it was written, whether its key had to be changed, or why it was not written.

    `is_taken` says that the fault is a file that was there before.
    """

    member: Member
    path: Path
    renamed: bool
    fault: str | None
    is_taken: bool = False


Names = Mapping[Member, tuple[str, ...]]
"""A path for each member, as its parts."""


def extract_members(
    bundle: Bundle,
    members: Iterable[Member],
    folder: Path,
    *,
    names: Names | None = None,
    overwrite: bool = False,
    max_bytes: int = MOST_EXTRACTED,
    report: Callable[[int], object] = lambda _: None,
) -> Iterator[Extracted]:
    """
    Write `members` below `folder`, which is made if it is not there; says of each what became of it, as it goes.

    A member that is damaged, or whose place is taken, does not keep the others from being written. `names` are those of
    `names_across`, if this is one of several bundles. `report` gets the length of each run of bytes written.

    Raises:
        ExtractionError: the members have more bytes than `max_bytes`, or than there is room for.
        OSError: the folder cannot be made.
    """
    wanted = list(dict.fromkeys(members))
    folder.mkdir(parents=True, exist_ok=True)
    check_room(folder, sum(member.length for member in wanted), max_bytes=max_bytes)
    if names is None:
        (names,) = names_across([bundle.entries])
    with Destination.at(folder) as destination:
        for member, chunks in bundle.walk(wanted):
            fault: str | None = None
            is_taken = False
            try:
                with destination.new_file(names[member], overwrite=overwrite) as file:
                    for chunk in chunks:
                        file.write(chunk)
                        report(len(chunk))
            except (BundleFormatError, ExtractionError) as error:
                fault, is_taken = str(error), isinstance(error, TakenError)
            except OSError as error:
                fault = error.strerror or str(error)
            path, renamed = folder.joinpath(*names[member]), "/".join(names[member]) != member.key
            yield Extracted(member, path, renamed, fault, is_taken)


def names_across(bundles: Sequence[Sequence[Member]]) -> list[Names]:
    """
    For the members of each bundle, oldest bundle first, names that no two of all of them share.

    A member of which a later bundle has the bucket and key has no name: the later bundle wins. Names are
    given in the order in which keys come first, so that keys that are known keep theirs when a bundle is added.
    """
    first, latest = dict[tuple[str, str], int](), dict[tuple[str, str], int]()
    for at, members in enumerate(bundles):
        for member in members:
            first.setdefault((member.bucket, member.key), len(first))
            latest[member.bucket, member.key] = at
    kept = [
        (at, member)
        for at, members in enumerate(bundles)
        for member in members
        if latest[member.bucket, member.key] == at
    ]
    if len(bundles) > 1:
        kept.sort(key=lambda one: first[one[1].bucket, one[1].key])
    names: list[dict[Member, tuple[str, ...]]] = [{} for _ in bundles]
    for (at, member), name in zip(kept, safe_names([member.key for _, member in kept]), strict=True):
        names[at][member] = name
    return list(names)


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
    name = _seen(_UNSAFE.sub("_", part))
    if windows:
        name = _UNSAFE_ON_WINDOWS.sub("_", name)
    kept = name.rstrip(". ")  # Windows drops them; this also takes care of "." and ".."
    name = kept + "_" * max(len(name) - len(kept), not name)
    plain = unicodedata.normalize("NFKC", name)  # a full-width dot is a dot to some
    if _DEVICE.fullmatch(plain) or _COMMAND.match(plain):
        name = "_" + name
    if len(name.encode()) > MOST_BYTES:
        digest = sha256(part.encode(errors="surrogatepass")).hexdigest()[:16]
        suffix = name[name.rfind(".") :] if 0 < len(name) - name.rfind(".") <= 10 else ""
        name = name.encode()[: MOST_BYTES - 40].decode(errors="ignore") + "~" + digest + suffix
    return name


def _seen(name: str) -> str:
    """The name, with a line for each character that nobody sees."""
    if name.isascii():
        return name
    return "".join("_" if unicodedata.category(letter) in _UNSEEN else letter for letter in _IGNORED.sub("_", name))


def _folded(name: str) -> str:
    """What is equal where case and Unicode form are ignored (Unicode 16, section 3.13, D145)."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
