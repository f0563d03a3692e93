"""`aggregator reconcile`: proof that every object is in exactly one bundle, and every bundle in the archive."""

import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aggregator.commands.console import (
    FINDING,
    counted,
    json_text,
    print_styled,
    print_table,
    printable_row,
    progress,
    style_of,
    words,
)
from aggregator.commands.options import (
    ArchiveBucket,
    DistributionBucket,
    Scope,
    ScopeOption,
    Table,
    address,
    duration,
    moment,
)
from aggregator.pipeline.settings import SECONDS_PER_DAY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aggregator.operations.audit.reconciliation import Audit

_COLUMNS = ("finding", "because", "version", "other bundle", "where")

_SAID = (
    *("once", "in_flight", "overwritten", "missing", "twice", "altered", "rejected", "unrecorded"),
    *("unreplicated", "unreadable"),
)
"""The totals that the last sentence has, if they are not 0."""

_MOST_SHOWN = 1_000
"""Findings of which a terminal shows a table."""


def reconcile(
    source: Annotated[str, typer.Option(metavar="s3://BUCKET/PREFIX", help="Where the objects are.")],
    since: Annotated[str, typer.Option(metavar="TIME", help="Audit what was modified since: 2026-11-23, 24h, 7d.")],
    distribution_bucket: DistributionBucket,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="And before then.  [default: now]")] = None,
    table: Table = None,
    archive_bucket: ArchiveBucket = None,
    scope: ScopeOption = Scope.KEY,
    grace: Annotated[str, typer.Option(metavar="DURATION", help="Younger objects may still be on their way.")] = "1h",
    ttl_days: Annotated[
        int | None,
        typer.Option(metavar="DAYS", envvar="IDEMPOTENCY_TTL_DAYS", help="How long the ledger remembers."),
    ] = None,
    rejections: Annotated[
        bool, typer.Option(help="Look for the reasons of rejections, which reads the whole table.")
    ] = True,
    show: Annotated[
        list[str] | None, typer.Option(metavar="TOTAL", help="Name what this total counts; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines, the totals last.")] = False,
) -> None:
    """
    Compare a source with the ledger, the indexes of all bundles, and the archive.

    Each object should be in exactly one bundle, as it was announced, and each bundle in the archive. Every exception is
    printed after the totals, and the exit status is 1. --show names the objects or bundles of any total: once, missing,
    overwritten. Without --table the ledger is not read. Without --archive no copies are looked for.
    """
    now = time.time()
    bucket, prefix = address(source, option="--source")
    begin = moment(since, now, option="--since")
    end = moment(until, now, option="--until") if until else now
    seconds = duration(grace)
    if seconds is None:
        raise typer.BadParameter(f"{grace!r} is not a duration: write 30s, 90m, 24h or 7d", param_hint="--grace")
    if begin >= end:
        raise typer.BadParameter("it is not before --until", param_hint="--since")
    kinds = _kinds(show or [])
    with progress() as bar:
        from aggregator.aws import dynamodb_client, s3_client
        from aggregator.operations.audit.reconciliation import AuditScope, Locations
        from aggregator.operations.audit.reconciliation import reconcile as audited
        from aggregator.operations.ledger_reader import LedgerReader

        task = bar.add_task("starting", total=None)
        ledger = (
            LedgerReader(dynamodb_client(), table=table, distribution=distribution_bucket, scope=scope.value, now=now)
            if table
            else None
        )
        with audited(
            AuditScope(bucket, prefix, scope.value, begin, end, now),
            Locations(s3_client(), distribution_bucket, archive_bucket, ledger),
            grace=seconds,
            ttl=ttl_days * SECONDS_PER_DAY if ttl_days else None,
            rejections=rejections,
            report=lambda doing, done: bar.update(task, description=doing, completed=done),
        ) as audit:
            bar.stop()
            _print(audit, kinds, as_json=as_json)
    raise typer.Exit(FINDING if audit.wrong else 0)


def _kinds(show: list[str]) -> list[str]:
    """The totals that `--show` names, as an audit has them; all that are findings, if it names none."""
    from aggregator.operations.audit.queries import TOTALS
    from aggregator.operations.audit.reconciliation import WRONG

    kinds = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in show]
    for kind, name in zip(kinds, show, strict=True):
        if kind not in TOTALS:
            known = ", ".join(total.replace("_", "-") for total in TOTALS)
            raise typer.BadParameter(f"{name!r} is not a total: write {known}", param_hint="--show")
    return list(dict.fromkeys(kinds)) or list(WRONG)


def _print(audit: "Audit", kinds: list[str], *, as_json: bool) -> None:
    totals = {name.replace("_", " "): count for name, count in audit.totals.items()}
    found = audit.findings(kinds)
    if as_json:
        for one in found:
            print(json_text(one))
        print(json_text({"totals": audit.totals}))
    else:
        width = max(len(f"{count:,}") for count in totals.values()) if sys.stdout.isatty() else 0
        for name, count in totals.items():
            print_styled(f"{name:<16}", f"{count:>{width},}", style_of(name) if count else "")
        _print_found(found)
    if not audit.totals["objects"]:
        words().print("no object of that source was modified in that time")
    said = ", ".join(f"{totals[name]:,} {name}" for name in map(_spaced, _SAID) if totals[name])
    words().print(f"{counted(audit.totals['objects'], 'object')}: {said or 'nothing'}; {_ending(audit.wrong)}")


def _print_found(found: "Iterator[dict[str, Any]]") -> None:
    """What was found: a table of the first on a terminal, a line for each elsewhere."""
    if not sys.stdout.isatty():
        for one in found:
            print(printable_row(*_row(one)))
        return
    first = [_row(one) for one in islice(found, _MOST_SHOWN)]
    left = sum(1 for _ in found)
    if first:
        print()
        print_table(_COLUMNS, first)
    if left:
        words().print(f"and {left:,} more: redirect the output, or add --json, to get all")


def _row(one: "dict[str, Any]") -> tuple[str, ...]:
    """A finding; of its bundles, the one that is not its subject."""
    subject = one.get("object") or one.get("bundle", "")
    bundles = [one[name] for name in ("bundle", "other_bundle") if one.get(name, subject) != subject]
    return _spaced(one["finding"]), one.get("why", ""), one.get("version_id") or "", " ".join(bundles), subject


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _ending(wrong: int) -> str:
    return counted(wrong, "finding") if wrong else "no finding"
