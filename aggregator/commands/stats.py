"""`aggregator stats`: how bundles fill over time."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aggregator.commands.console import (
    FINDING,
    bytes_in_words,
    print_json,
    print_table,
    progress,
    words,
)
from aggregator.commands.options import address
from aggregator.pipeline.settings import MEGABYTE

_LEAST_SHARE = 0.00001
"""Smaller shares are shown as smaller than this one."""

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aggregator.bundles.bundle import Bundle
    from aggregator.operations.indexes import Fault
    from aggregator.operations.statistics import Figures


def stats(
    target: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX|DIR", help="Where the bundles are.")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report with charts there.")] = None,
    limit: Annotated[
        int,
        typer.Option(
            "--max-bundle-input-mb", metavar="MB", envvar="MAX_BUNDLE_INPUT_MB", min=1, help="Size of a full bundle."
        ),
    ] = 100,
    depth: Annotated[int, typer.Option(min=0, help="How many folders of a key make a prefix.")] = 1,
    top: Annotated[int, typer.Option(min=1, help="How many prefixes are named.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """
    Show how many bundles there are over time, how full and how large, how they compress, and where members come from.

    Only listings and the tails of bundles are read, so it is cheap. Bundles that consumers have deleted count. Exit
    status 1 says that one of the files is not a bundle.
    """
    from aggregator.operations.statistics import Figures

    figures, unreadable = Figures(limit=limit * MEGABYTE, depth=depth), 0
    with progress() as bar:
        task = bar.add_task("reading indexes", total=None)
        for place, read in _bundles(target):
            bar.advance(task)
            if isinstance(read, Exception):
                unreadable += 1
                bar.console.print(f"aggregator: {place}: {read}", markup=False)
            else:
                figures.add(read)
    if html:
        _write(figures, target, html, top)
    if as_json:
        print_json({**figures.document(top), "unreadable": unreadable})
    else:
        _print(figures, unreadable, top)
    if not (figures.bundles or figures.empty or unreadable):
        words().print(f"no bundle found below {target}", markup=False)
    raise typer.Exit(FINDING if unreadable else 0)


def _bundles(target: str) -> "Iterator[tuple[str, Bundle | Fault]]":
    """Each bundle, or why a file is not one; in S3, those too that were deleted."""
    from aggregator.bundles.bundle import Bundle
    from aggregator.bundles.layout import may_be_bundle
    from aggregator.bundles.targets import files_below
    from aggregator.operations.indexes import read_indexes
    from aggregator.operations.listings import open_bundle, versions

    if target.startswith("s3://"):
        from aggregator.aws import s3_client

        (bucket, prefix), s3 = address(target, option="TARGET"), s3_client()
        listed = (one for one in versions(s3, bucket, prefix) if may_be_bundle(one.key))
        stored = read_indexes(listed, partial(open_bundle, s3), lambda bundle: bundle)
        return ((place.url, found) for place, found in stored)
    if not Path(target).is_dir():
        raise NotADirectoryError(f"{target} is not a folder")
    return read_indexes(files_below(Path(target)), Bundle.open, lambda bundle: bundle)


def _write(figures: "Figures", target: str, path: Path, top: int) -> None:
    from aggregator.operations.statistics_page import page

    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; a full bundle is {bytes_in_words(figures.limit)} of members"
    text = page(figures, target=target, made=made, bytes_in_words=bytes_in_words, most=top)
    path.write_text(text, encoding="utf-8")


def _print(figures: "Figures", unreadable: int, top: int) -> None:
    sizes, fills = figures.sizes(), figures.fills
    lines = [
        ("bundles", f"{len(figures.bundles):,}"),
        ("empty", f"{figures.empty:,}"),
        ("unreadable", f"{unreadable:,}"),
        ("members", f"{figures.members:,}"),
        ("text", bytes_in_words(figures.text)),
        ("bundled", bytes_in_words(figures.size)),
        ("compression", f"{figures.ratio:.2f}"),
    ]
    if sizes:
        lines.append(("fill", _percent(sum(fills) / len(fills))))
        lines.append(("sizes", " / ".join(map(bytes_in_words, sizes)) + "  (least, 5 %, median, 95 %, most)"))
    for name, value in lines:
        print(f"{name:<12}{value}")
    print()
    print_table(
        (figures.unit(), "bundles", "members", "text", "bundled", "fill"),
        [
            (
                one.name,
                f"{one.bundles:,}",
                f"{one.members:,}",
                bytes_in_words(one.text),
                bytes_in_words(one.size),
                _percent(one.fill),
            )
            for one in figures.periods()
        ],
    )
    print()
    print_table(
        ("prefix", "members", "bytes"),
        [(one.name, f"{one.members:,}", bytes_in_words(one.size)) for one in figures.prefixes(top)],
    )


def _percent(share: float | None) -> str:
    """A share for people: two digits that count, because bundles of small objects are far from full."""
    if share is None:
        return "-"
    if 0 < share < _LEAST_SHARE:
        return f"<{_LEAST_SHARE:.3%}"
    return f"{100 * share:.2g}%" if share < 0.1 else f"{share:.0%}"
