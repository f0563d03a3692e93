"""`aggregator backfill`: announce objects that are already there."""

import hashlib
import json
import sys
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aggregator.commands.console import FINDING, ends_on_interrupt, print_json, progress, words
from aggregator.commands.options import QueueUrl, Scope, ScopeOption, Table, WithTable, moment, require_both

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aggregator.aws import CommandClients
    from aggregator.operations.ledger_reader import LedgerReader
    from aggregator.operations.replay.backfill import Ending
    from aggregator.operations.replay.pages import Page, Position
    from aggregator.operations.replay.queues import Delivery


def backfill(
    target: Annotated[str, typer.Argument(metavar="s3://BUCKET/PREFIX", help="The objects to announce.")],
    *,
    queue_url: QueueUrl = "",
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Only what was modified then or later: 2026-11-23, 24h, 7d.")
    ] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Only what was modified before.")] = "",
    pattern: Annotated[str, typer.Option(metavar="GLOB", help="Only keys that match: '*/orders-*.json'.")] = "",
    scope: ScopeOption = Scope.KEY,
    every_version: Annotated[
        bool, typer.Option("--every-version", help="With --scope version: older versions too.")
    ] = False,
    inventory: Annotated[
        str, typer.Option(metavar="s3://…/manifest.json", help="Read an S3 Inventory report; list nothing.")
    ] = "",
    table: Table = None,
    distribution: WithTable = None,
    rate: Annotated[float | None, typer.Option(metavar="N", min=0.1, help="At most so many objects a second.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Batches of ten sent at once.")] = 16,
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the mark is kept; by default in this folder.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the notifications; send nothing.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON; with --dry-run, nothing else.")
    ] = False,
) -> None:
    """
    Announce objects that are already in S3, as if they had just been put.

    Each gets the notification that S3 would have sent, through the same queue and so the same deduplication: what is
    in a bundle does not come again. With --table and --distribution the ledger is asked first. Ctrl-C ends it; the same
    call goes on where it was. Try --dry-run first. Exit status 1 says that some object was rejected, or that there is
    more to do.
    """
    call: dict[str, object] = {"target": target, "queue": queue_url, "inventory": inventory, "pattern": pattern}
    call |= {"since": since, "until": until, "scope": scope.value, "every_version": every_version}
    with ExitStack() as stack:
        from aggregator.aws import CommandClients
        from aggregator.operations.replay import backfill as library

        stop = stack.enter_context(ends_on_interrupt())
        clients = CommandClients.build(connections=threads + 2)
        bookmark = None if dry_run else library.Bookmark(state or _default_state(call), call, now=time.time())
        began = bookmark.began if bookmark else time.time()
        choice = library.Choice(pattern or None, _moment("--since", since, began), _moment("--until", until, began))
        pages = _pages(clients, target, scope, every_version=every_version, inventory=inventory)
        ledger = _ledger(clients, target, table, distribution, scope)
        deliver = _dry(as_json) if dry_run else _outbox(clients, queue_url, threads, rate, stop, stack)
        bar = stack.enter_context(progress())
        task = bar.add_task("listed", total=None)
        ending = library.run(
            pages,
            choice,
            deliver=deliver,
            ledger=ledger,
            bookmark=bookmark,
            stop=stop,
            report=lambda totals: bar.update(task, completed=totals.listed),
        )
    _tell(ending, as_json=as_json, dry_run=dry_run)
    if bookmark and not ending.complete:
        words().print(f"not finished: the same call goes on where {bookmark.path} says", markup=False)
    raise typer.Exit(FINDING if ending.totals.rejected or not ending.complete else 0)


def _pages(
    clients: "CommandClients", target: str, scope: Scope, *, every_version: bool, inventory: str
) -> "Callable[[Position], Iterator[Page]]":
    """How to list what is meant, from a position on."""
    from aggregator.bundles.opening import s3_address
    from aggregator.operations.replay import inventories
    from aggregator.operations.replay.backfill import BackfillError
    from aggregator.operations.replay.pages import current_objects, versions

    bucket, prefix = s3_address(target)
    if every_version and scope is not Scope.VERSION:
        raise BackfillError("--every-version needs --scope version: with --scope key a key is bundled once")
    if not inventory:
        if scope is Scope.KEY:
            return partial(current_objects, clients.s3, bucket, prefix)
        return partial(versions, clients.s3, bucket, prefix, every_version=every_version)
    report = inventories.open_inventory(clients.s3, *s3_address(inventory))
    if report.manifest.sourceBucket != bucket:
        raise BackfillError("the inventory is about another bucket", bucket=report.manifest.sourceBucket)
    if scope is Scope.VERSION and not report.has("VersionId"):
        raise BackfillError("the inventory has no version ids: configure it for all versions")
    return partial(report.pages, prefix, every_version=every_version)


def _ledger(
    clients: "CommandClients", target: str, table: str | None, distribution: str | None, scope: Scope
) -> "LedgerReader | None":
    from aggregator.bundles.opening import s3_address
    from aggregator.operations.ledger_reader import LedgerReader
    from aggregator.operations.replay.backfill import BackfillError

    require_both(table, distribution)
    if s3_address(target)[0] == distribution:
        raise BackfillError("the source is the bucket that bundles go to: that would be a loop")
    return LedgerReader.open(clients, table, distribution, scope.value) if table and distribution else None


def _outbox(
    clients: "CommandClients", queue_url: str, threads: int, rate: float | None, stop: threading.Event, stack: ExitStack
) -> "Callable[[Sequence[str]], Delivery]":
    from aggregator.aws import queue_exists
    from aggregator.operations.replay.backfill import BackfillError
    from aggregator.operations.replay.queues import Outbox, require_standard

    if not queue_url:
        raise BackfillError("--queue-url is missing: it says where to send; --dry-run only shows what would be sent")
    require_standard(queue_url)
    queue_exists(clients.sqs, queue_url)
    outbox = Outbox(clients.sqs, queue_url, threads=threads, stop=stop, rate=rate)
    stack.callback(outbox.close)
    return outbox.deliver


def _dry(quiet: bool) -> "Callable[[Sequence[str]], Delivery]":
    """What prints what would be sent, or only counts it."""
    from aggregator.operations.replay.queues import Delivery

    def printed(bodies: "Sequence[str]") -> "Delivery":
        for body in () if quiet else bodies:
            print(body)
        return Delivery(list(range(len(bodies))), {}, [])

    return printed


def _default_state(call: dict[str, object]) -> Path:
    """A file for each call, so that the same call finds its mark again."""
    digest = hashlib.sha256(json.dumps(call, sort_keys=True).encode()).hexdigest()
    return Path(f"aggregator-backfill-{digest[:8]}.json")


def _moment(option: str, text: str, now: float) -> datetime | None:
    return datetime.fromtimestamp(moment(text, now, option=option), UTC) if text else None


def _tell(ending: "Ending", *, as_json: bool, dry_run: bool) -> None:
    totals = ending.totals
    figures = {
        "listed": totals.listed,
        "passed over": totals.not_selected,
        "folder markers": totals.skipped,
        "already bundled": totals.bundled,
        "would be sent" if dry_run else "sent": totals.sent,
        "rejected": totals.rejected.total(),
    }
    if as_json:
        named = {name.replace(" ", "_"): figure for name, figure in figures.items()}
        reasons = {"reasons": dict(totals.rejected), "examples": totals.examples}
        print_json({"complete": ending.complete, **named, **reasons, "error": ending.why or None})
    else:
        for label, figure in figures.items():
            print(f"{label:<17}{figure:,}", file=sys.stderr if dry_run else sys.stdout)
    if ending.complete and not totals.listed:
        words().print("no object was found there: check bucket and prefix")
    if ending.why:
        words().print(f"aggregator: {ending.why}", markup=False)
    if not as_json:
        for key, reason in totals.examples:
            words().print(f"{key!r}: {reason}", markup=False)
