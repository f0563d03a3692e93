"""`aggregator where`: which bundle holds an object, or what became of it."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aggregator.commands.console import FINDING, print_json, printable, words
from aggregator.commands.options import (
    ArchiveBucket,
    DistributionBucket,
    Scope,
    ScopeOption,
    address,
    moment,
)

if TYPE_CHECKING:
    from aggregator.operations.audit.locating import Located


def where(
    target: Annotated[str, typer.Argument(metavar="KEY|s3://BUCKET/KEY", help="The object.")],
    distribution_bucket: DistributionBucket,
    table: Annotated[str, typer.Option("--table", metavar="NAME", envvar="IDEMPOTENCY_TABLE_NAME", help="The ledger.")],
    archive_bucket: ArchiveBucket = None,
    scope: ScopeOption = Scope.KEY,
    version_id: Annotated[str | None, typer.Option(metavar="ID", help="Which version, for the scope version.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Search every bundle since then as well: 2026-11-23, 7d.")
    ] = None,
    rejections: Annotated[bool, typer.Option(help="Look for a rejection, which reads the whole table.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """
    Say which bundle holds an object, when and by which request it was made, or else what became of the object.

    It only looks; nothing is decided or healed. A KEY alone is looked for in the buckets that the latest bundles were
    made from. Exit status 1 says that it is in no bundle. With --since, bundles are searched that the ledger has
    forgotten.
    """
    now = time.time()
    begin = moment(since, now, option="--since") if since else None
    bucket, key = address(target, option="KEY") if target.startswith("s3://") else ("", target)
    from aggregator.aws import bucket_exists, dynamodb_client, s3_client
    from aggregator.operations.audit.locating import Locations, Object, locate
    from aggregator.operations.ledger_reader import LedgerReader

    ledger = LedgerReader(dynamodb_client(), table=table, distribution=distribution_bucket, scope=scope.value, now=now)
    locations = Locations(s3_client(), distribution_bucket, archive_bucket, ledger)
    found = locate(Object(bucket, key, version_id), locations, now=now, since=begin, rejections=rejections)
    if any(one.state == "never seen" for one in found):  # which is as true of what does not exist
        for place in filter(None, (distribution_bucket, bucket)):
            bucket_exists(locations.s3, place)
    if as_json:
        print_json([_document(one) for one in found])
    else:
        _print(found)
    raise typer.Exit(0 if any(one.state == "bundled" for one in found) else FINDING)


def _document(one: "Located") -> dict[str, Any]:
    return {"object": one.url, "version_id": one.version_id, "state": one.state, **one.facts}


def _print(found: "list[Located]") -> None:
    from aggregator.operations.audit.locating import MEANING

    for at, one in enumerate(found):
        if at:
            print()
        for name, value in _document(one).items():
            if value is not None:
                print(f"{name.replace('_', ' '):<12}{_text(value)}")
        words().print(MEANING[one.state], markup=False)


def _text(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else printable(str(value))
