"""`aggregator bundle cat` and `extract`: members out of one bundle, or out of all bundles below a folder or prefix."""

import fnmatch
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

import typer

from aggregator.bundles.destination import MOST_EXTRACTED, check_room
from aggregator.commands.console import (
    FINDING,
    WRONG_CALL,
    bytes_in_words,
    print_json,
    print_table,
    progress,
    to_people,
)
from aggregator.exceptions import AggregatorError, BundleFormatError

if TYPE_CHECKING:
    from aggregator.bundles.bundle import Bundle
    from aggregator.bundles.extraction import Extracted
    from aggregator.bundles.index import Member

Target = Annotated[
    str, typer.Argument(metavar="TARGET", help="Bundle or bundles: file, folder, URL, or - for standard input.")
]
MaxBytes = Annotated[
    int, typer.Option("--max-bytes", min=0, metavar="BYTES", help="Most bytes of members; more is an error.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_COMPLETED = 20
"""Bundles of a folder or prefix whose keys the shell completes: somebody waits."""

R = TypeVar("R")


class _Chosen(NamedTuple):
    """Members of a bundle, how to open it, and what it is called."""

    target: str
    members: "list[Member]"
    opened: "Callable[[], AbstractContextManager[Bundle]]"


def _keys(context: typer.Context, incomplete: str) -> list[str]:
    """The keys that the shell may complete, once the target is there."""
    from aggregator.operations.indexes import read_targets

    found = dict[str, None]()
    read = read_targets([context.params["target"]], lambda bundle: [member.key for member in bundle])
    try:
        for _, keys in islice(read, _COMPLETED):
            found |= {} if isinstance(keys, Exception) else dict.fromkeys(keys)
    except AggregatorError:
        return []
    return [key for key in found if key.startswith(incomplete)]


def cat(
    target: Target,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of the member.", autocompletion=_keys)],
    bucket: Annotated[str | None, typer.Option(metavar="NAME", help="Bucket, if several have that key.")] = None,
    version_id: Annotated[str | None, typer.Option(metavar="ID", help="Version, if there are several.")] = None,
) -> None:
    """
    Write the bytes of one member to standard output.

    Of several members with that key, the last. Of a folder or prefix, the newest bundle that holds the key. From S3 the
    tail of the bundle and the blocks of the member are read.
    """
    from aggregator.bundles.targets import bundle_at, is_folder

    def wanted(bundle: "Bundle") -> "list[Member]":
        return [
            member
            for member in bundle
            if member.key == key and bucket in {None, member.bucket} and version_id in {None, member.version_id}
        ]

    status = 0
    if is_folder(target):
        holders, status = _by_age(target, lambda bundle: bool(wanted(bundle)))
        if not any(holds for _, holds in holders):
            raise _no_member(key)
        *others, target = [place for place, holds in holders if holds]
        if others:
            say(f"{len(others) + 1:,} bundles hold that key: this is from the newest, {target}")
    with damage_is_a_finding(f"{target}: "), bundle_at(target) as bundle:
        found = wanted(bundle)
        if not found:
            raise _no_member(key)
        if len(found) > 1:
            say(f"{len(found)} members have that key: this is the last; --bucket and --version-id choose another")
        for chunk in bundle.chunks(found[-1]):
            sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
    raise typer.Exit(status)


def _no_member(key: str) -> AggregatorError:
    return AggregatorError("no member has that key: search other bundles by `aggregator find KEY TARGET`", key=key)


def extract(
    target: Target,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to; made if it is not there.")],
    patterns: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATTERN...]", help="Keys, or else patterns of *, ?, [abc] and [!abc]. All, if none is given."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
    max_bytes: MaxBytes = MOST_EXTRACTED,
    as_json: AsJson = False,
) -> None:
    """
    Write members to files below DIR, byte for byte. No key can make a file outside of DIR.

    A key that is not a safe file name, or that meets another on a disk that ignores case, is changed, and the change is
    printed. So is one that begins with a dot or a hyphen, or has invisible characters. Links below DIR are not
    followed. If several bundles of a folder or prefix hold a key, the newest bundle wins. Exit status 1 says that some
    member could not be written.
    """
    from aggregator.bundles.extraction import extract_members, names_across

    done, statuses = list["Extracted"](), [0]
    with ExitStack() as stack, progress(of_bytes=True) as bar:
        task = bar.add_task("reading indexes", total=None)
        bundles, status = _bundles(target, stack)
        statuses.append(status)
        named = _named((member.key for bundle in bundles for member in bundle.members), patterns or [])
        names = names_across([bundle.members for bundle in bundles])
        wanted = [[member for member in one.members if member.key in named] for one in bundles]
        kept = [
            [member for member in members if member in called] for members, called in zip(wanted, names, strict=True)
        ]
        size = sum(member.length for members in kept for member in members)
        to.mkdir(parents=True, exist_ok=True)
        check_room(to, size, max_bytes=max_bytes)
        bar.reset(task, description="extracting", total=size)
        for bundle, members, called in zip(bundles, kept, names, strict=True):
            if members:
                with noted(bundle.target, say_fault, statuses), bundle.opened() as opened:
                    done += extract_members(
                        opened,
                        members,
                        to,
                        names=called,
                        overwrite=overwrite,
                        max_bytes=max_bytes,
                        report=lambda length: bar.advance(task, length),
                    )
    passed_over = sum(map(len, wanted)) - sum(map(len, kept))
    failed = _print_extracted(done, passed_over, as_json=as_json)
    raise typer.Exit(max(*statuses, FINDING if failed else 0))


def _print_extracted(done: "list[Extracted]", passed_over: int, *, as_json: bool) -> bool:
    """Say what was extracted, and what was not; whether anything was not."""
    written = [one for one in done if one.fault is None]
    renamed = [(one.member.key, str(one.path)) for one in written if one.renamed]
    failed = [(one.member.key, one.fault or "") for one in done if one.fault is not None]
    size = sum(one.member.length for one in written)
    if as_json:
        print_json(
            {
                "extracted": len(written),
                "bytes": size,
                "renamed": [{"key": key, "path": path} for key, path in renamed],
                "failed": [{"key": key, "fault": fault} for key, fault in failed],
                "in_newer_bundles": passed_over,
            }
        )
        return bool(failed)
    print_table(("renamed", "to"), renamed)
    say(f"{counted(len(written), 'member')} ({bytes_in_words(size)}) extracted, {len(renamed):,} renamed")
    if passed_over:
        say(f"left out, because a newer bundle holds the same key: {counted(passed_over, 'member')}")
    taken = [one for one in done if one.is_taken]
    if taken:
        say(f"files that exist already, such as {str(taken[0].path)!r}: {len(taken):,} (--overwrite replaces them)")
    for one in done:
        if one.fault is not None and not one.is_taken:
            say(f"{one.member.key!r}: {one.fault}")
    return bool(failed)


def _bundles(target: str, stack: ExitStack) -> tuple[list[_Chosen], int]:
    """The bundles that a target names, oldest first, and the exit status so far; one alone is opened once."""
    from aggregator.bundles.targets import bundle_at, is_folder

    def opener(place: str) -> "Callable[[], AbstractContextManager[Bundle]]":
        return lambda: bundle_at(place)

    if is_folder(target):
        found, status = _by_age(target, lambda bundle: bundle.entries)
        return [_Chosen(place, members, opener(place)) for place, members in found], status
    stack.enter_context(damage_is_a_finding(f"{target}: "))
    bundle = stack.enter_context(bundle_at(target))
    return [_Chosen(target, bundle.entries, lambda: nullcontext(bundle))], 0


def _by_age(target: str, take: "Callable[[Bundle], R]") -> tuple[list[tuple[str, R]], int]:
    """Each bundle below a folder or prefix and what `take` takes of it, oldest first; faults are printed."""
    from aggregator.operations.indexes import read_targets

    def aged(bundle: "Bundle") -> tuple[datetime, R]:
        return datetime.fromisoformat(bundle.index.created), take(bundle)

    found, status = list[tuple[datetime, str, R]](), 0
    for place, read in read_targets([target], aged):
        if isinstance(read, Exception):
            status = max(status, say_fault(place, read))
        else:
            found.append((read[0], place, read[1]))
    return [(place, taken) for _, place, taken in sorted(found, key=lambda one: one[:2])], status


def _named(keys: Iterable[str], patterns: list[str]) -> set[str]:
    """The keys that the patterns name; a pattern that is a key means that key alone. All, if there are none."""
    every = set(keys)
    named = set[str]()
    for pattern in patterns:
        found = {pattern} & every or {key for key in every if fnmatch.fnmatchcase(key, pattern)}
        if not found:
            raise AggregatorError("no member has such a key", pattern=pattern)
        named |= found
    return named if patterns else every


@contextmanager
def damage_is_a_finding(where: str = "") -> Iterator[None]:
    """End the command with one line, and `FINDING` where it is the bundle that is wrong, not the call."""
    try:
        yield
    except BundleFormatError as error:
        say(f"aggregator: {where}{error}")
        raise typer.Exit(FINDING) from None


@contextmanager
def noted(target: str, fail: Callable[[str, Exception], object], statuses: list[int]) -> Iterator[None]:
    """Go on after a fault of one bundle: `fail` says it, and its exit status is added to `statuses`."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (AggregatorError, OSError) as error:
        fail(target, error)
        statuses.append(_status(error))


def say_fault(target: str, error: Exception) -> int:
    """Say why a bundle cannot be read; the exit status."""
    from aggregator.operations.faults import explain

    why = explain(error)
    say(why if why.startswith(f"{target}: ") else f"{target}: {why}")
    return _status(error)


def say(text: str) -> None:
    """A sentence to people."""
    print(to_people(text), file=sys.stderr)  # above the bar, if there is one


def counted(number: int, noun: str) -> str:
    """`1 member`, `2 members`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _status(error: Exception) -> int:
    return FINDING if isinstance(error, BundleFormatError) else WRONG_CALL
