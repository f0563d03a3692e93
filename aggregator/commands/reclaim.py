"""`aggregator reclaim`: delete source objects that are proven to be in a bundle that stays."""

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from aggregator.commands.console import (
    FINDING,
    ends_on_interrupt,
    json_text,
    print_json,
    print_table,
    progress,
    words,
)
from aggregator.commands.options import ArchiveBucket, DistributionBucket, ExactBytes, address, duration


def reclaim(
    target: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="The source objects.")],
    older_than: Annotated[str, typer.Option(metavar="DURATION", help="Only objects at least that old: 7d, 48h.")],
    distribution_bucket: DistributionBucket,
    archive_bucket: ArchiveBucket = None,
    without_archive: Annotated[
        bool, typer.Option("--without-archive", help="There is no archive: published bundles stay for good.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete. Without it nothing changes.")] = False,
    rate: Annotated[float | None, typer.Option(metavar="N", min=0.1, help="Delete at most N objects a second.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append what becomes of each object, as JSON lines.")
    ] = None,
    exact: ExactBytes = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as JSON.")] = False,
) -> None:
    """
    Delete source objects that are proven to be safe in a bundle, and no others.

    An object is safe if its bundle is in the archive as a complete copy, if its bytes were read back from that copy
    and match (CRC-32, size, eTag), and if S3 finds the same eTag or version when it deletes. Without --delete the
    command does all of this but the last step, and says what it would delete. It may be stopped at any time; the same
    call goes on. Exit status 1 says that some object could not be proven or not be deleted, or that there is more to
    do. It needs rights that the function does not have, and should not have (docs/reclaiming.md).
    """
    seconds = duration(older_than)
    if seconds is None:
        raise typer.BadParameter(f"{older_than!r} is not a duration: write 7d, 48h or 90m", param_hint="--older-than")
    if bool(archive_bucket) == without_archive:
        said = "name the bucket in which bundles stay, or say --without-archive if published bundles stay for good"
        raise typer.BadParameter(said, param_hint="--archive")
    bucket, prefix = address(target, option="s3://BUCKET/PREFIX")
    counts, sizes = Counter[str](), Counter[str]()
    with ExitStack() as stack:
        from aggregator.aws import s3_client
        from aggregator.operations import holdings, reclaiming

        now = time.time()
        stop = stack.enter_context(ends_on_interrupt())
        lines = stack.enter_context(report.open("a", encoding="utf-8")) if report else None
        bar = stack.enter_context(progress())
        task = bar.add_task("starting", total=None)
        for one in reclaiming.reclaim(
            holdings.Scope(bucket, prefix, now - seconds, now),
            holdings.Locations(s3_client(), distribution_bucket, archive_bucket),
            delete=delete,
            rate=rate,
            stop=stop,
            report=lambda doing, done: bar.update(task, description=doing, completed=done),
            say=lambda fault: words().print(fault, markup=False),
        ):
            counts[one.verdict] += 1
            sizes[one.verdict] += one.size
            if lines:
                lines.write(json_text({**one._asdict(), "verdict": _called(one.verdict, delete=delete)}) + "\n")
    _print(counts, sizes, delete=delete, exact=exact, as_json=as_json)
    if stop.is_set():
        words().print("stopped: the same call goes on with what is left")
    raise typer.Exit(FINDING if stop.is_set() or any(counts[verdict] for verdict in reclaiming.WRONG) else 0)


def _called(verdict: str, *, delete: bool) -> str:
    return ("deleted" if delete else "safe") if verdict == "safe" else verdict


def _print(counts: Counter[str], sizes: Counter[str], *, delete: bool, exact: bool, as_json: bool) -> None:
    from aggregator.operations.reclaiming import MEANING

    if as_json:
        print_json(
            {
                _called(verdict, delete=delete): {"objects": counts[verdict], "bytes": sizes[verdict]}
                for verdict in MEANING
            }
        )
        return
    print_table(
        ("verdict", "objects", "size", "says"),
        [
            (_called(verdict, delete=delete), f"{counts[verdict]:,}", str(sizes[verdict]), meaning)
            for verdict, meaning in MEANING.items()
            if counts[verdict]
        ],
        sizes=() if exact else ("size",),
    )
    if not counts:
        words().print("there are no objects below that prefix")
    elif counts["safe"] and not delete:
        words().print("nothing was deleted: add --delete to delete those that are safe")
