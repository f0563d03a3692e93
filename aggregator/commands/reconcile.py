"""`aggregator reconcile`: proof that every object is in exactly one bundle, and every bundle in the archive."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from aggregator.commands.console import FINDING, json_text, progress, words
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
    from aggregator.operations.audit.reconciliation import Audit


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
    as_json: Annotated[bool, typer.Option("--json", help="Print the totals as the last JSON line.")] = False,
) -> None:
    """
    Compare a source with the ledger, the indexes of all bundles, and the archive.

    Each object should be in exactly one bundle, as it was announced, and each bundle in the archive. Every exception is
    printed as a JSON line after the totals, and the exit status is 1. Without --table the ledger is not read. Without
    --archive no copies are looked for.
    """
    now = time.time()
    bucket, prefix = address(source, option="--source")
    begin = moment(since, now, option="--since")
    end = moment(until, now, option="--until") if until else now
    seconds = duration(grace)
    if seconds is None:
        raise typer.BadParameter(f"{grace!r} is not a duration such as 1h", param_hint="--grace")
    if begin >= end:
        raise typer.BadParameter("it is not before --until", param_hint="--since")
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
            _print(audit, as_json=as_json)
    raise typer.Exit(FINDING if audit.wrong else 0)


def _print(audit: "Audit", *, as_json: bool) -> None:
    if not as_json:
        for name, count in audit.totals.items():
            print(f"{name.replace('_', ' '):<16}{count:,}")
    for finding in audit.findings():
        print(json_text(finding))
    if as_json:
        print(json_text({"totals": audit.totals}))
    elif not audit.totals["objects"]:
        words().print("no object of that source was modified in that time")
