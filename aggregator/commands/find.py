"""`aggregator find`: which bundle holds a key, or the keys that match a pattern."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aggregator.commands.console import FINDING, json_text, print_table, printable_row, progress
from aggregator.commands.members import counted, say, say_fault
from aggregator.commands.options import AsJson, ExactBytes

if TYPE_CHECKING:
    from aggregator.bundles.bundle import Bundle

_COLUMNS = ("target", "key", "size", "etag", "version_id")


def find(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="A key, or else a pattern of *, ?, [abc] and [!abc].")
    ],
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="Bundles: files, folders, s3://bucket/prefix/, URLs.")
    ],
    exact: ExactBytes = False,
    as_json: AsJson = False,
) -> None:
    """
    Find the bundles that hold a key: one line per member, with bundle, key, size in S3, eTag and version.

    Only the indexes are read, many at once: from S3 the tail of each bundle. In a bundle that has PATTERN as a key, it
    means that key. In a pattern, * also stands for slashes. Lines come as members are found; with --json, each is a
    JSON document. Exit status 1 says that nothing was found, or that a bundle is damaged; the others are still read.
    """
    from aggregator.bundles.opening import without_secrets
    from aggregator.operations.indexes import matching, read_targets

    def take(bundle: "Bundle") -> list[dict[str, Any]]:
        published = bundle.index.bundle
        return [
            {"bundle": published, **member._asdict(), "crc32": f"{member.crc32:08x}"}
            for member in matching(bundle, pattern)
        ]

    status = read = found = 0
    with _printed(as_json=as_json, exact=exact) as show, progress() as bar:
        task = bar.add_task("reading indexes", total=None)
        for target, members in read_targets(targets, take):
            bar.advance(task)
            shown = without_secrets(target)
            if isinstance(members, Exception):
                status = max(status, say_fault(shown, members))
                continue
            read, found = read + 1, found + len(members)
            for member in members:
                show({"target": shown, **member})
    if not found:
        say(f"no member has such a key: {counted(read, 'bundle')} searched")
    raise typer.Exit(max(status, 0 if found else FINDING))


@contextmanager
def _printed(*, as_json: bool, exact: bool) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Prints members as they come; on a terminal as a table at the end, whose columns are as wide as they must be."""
    rows, is_terminal = list[list[str]](), sys.stdout.isatty()

    def show(fields: dict[str, Any]) -> None:
        row = ["" if fields[name] is None else str(fields[name]) for name in _COLUMNS]
        if as_json:
            print(json_text(fields))
        elif is_terminal:
            rows.append(row)
        else:
            print(printable_row(*row))

    yield show
    if rows:
        print_table(_COLUMNS, rows, sizes=() if exact else ("size",))
