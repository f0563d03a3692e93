"""`aggregator where`: which bundle holds an object, or what became of it."""

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote_plus

import typer

from aggregator.commands.console import FINDING, bytes_in_words, print_json, print_styled, style_of, words
from aggregator.commands.options import (
    ArchiveBucket,
    DistributionBucket,
    Scope,
    ScopeOption,
    address,
    moment,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aggregator.operations.audit.locating import Located

_MANY = 1_000
"""Bytes from which a larger unit is easier to read."""


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
    made from; a key may also be given as it stands in a message, encoded. Exit status 0 says that a bundle holds
    what is in the source now, and 1 that none does, or that it could not be compared. With --since, bundles are
    searched that the ledger has forgotten.
    """
    now = time.time()
    begin = moment(since, now, option="--since") if since else None
    bucket, key = address(target, option="KEY") if target.startswith("s3://") else ("", target)
    from aggregator.aws import bucket_exists, dynamodb_client, s3_client
    from aggregator.operations.audit.locating import Locations, Object, locate
    from aggregator.operations.ledger_reader import LedgerReader

    ledger = LedgerReader(dynamodb_client(), table=table, distribution=distribution_bucket, scope=scope.value, now=now)
    locations = Locations(s3_client(), distribution_bucket, archive_bucket, ledger)

    def look(key: str) -> "list[Located]":
        return locate(Object(bucket, key, version_id), locations, now=now, since=begin, rejections=rejections)

    found = _found_as_written(look, key)
    if any(one.state == "never seen" for one in found):  # which is as true of what does not exist
        for place in filter(None, (distribution_bucket, bucket)):
            bucket_exists(locations.s3, place)
    if as_json:
        print_json([_document(one) for one in found])
    else:
        _print(found)
    raise typer.Exit(0 if _all_proven(found, scope) else FINDING)


def _found_as_written(look: "Callable[[str], list[Located]]", key: str) -> "list[Located]":
    """What is known of a key, or else of the key that it encodes in a message."""
    from aggregator.exceptions import MissingObjectError

    decoded, found, missing = unquote_plus(key), [], None
    try:
        found = look(key)
    except MissingObjectError as error:
        if decoded == key:
            raise
        missing = error
    if decoded == key or any(one.state != "never seen" for one in found):
        return found
    with suppress(MissingObjectError):
        meant = look(decoded)
        if missing or any(one.state != "never seen" for one in meant):
            words().print(f"nothing is known of {key!r}: this is the key that it encodes in a message", markup=False)
            return meant
    if missing:
        raise missing
    return found


def _all_proven(found: "list[Located]", scope: Scope) -> bool:
    """Whether each object that was found, or each version of it, is proven to be in a bundle by something found."""
    proven: dict[object, bool] = {}
    for one in found:
        which = one.url if scope is Scope.KEY else (one.url, one.version_id)
        proven[which] = proven.get(which, False) or one.is_proven
    return all(proven.values())


def _document(one: "Located") -> dict[str, Any]:
    return {"object": one.url, "version_id": one.version_id, "state": one.state, **one.facts}


def _print(found: "list[Located]") -> None:
    for at, one in enumerate(found):
        if at:
            print()
        shown = {name.replace("_", " "): value for name, value in _document(one).items() if value is not None}
        width = max(12, *(len(name) + 2 for name in shown))
        for name, value in shown.items():
            print_styled(f"{name:<{width}}", _text(name, value), style_of(str(value)) if name == "state" else "")
        words().print(one.meaning, markup=False)


def _text(name: str, value: object) -> str:
    """A fact for people; a terminal shows a size in kB or MB as well."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and sys.stdout.isatty() and name in {"size", "source size"} and value >= _MANY:
        return f"{bytes_in_words(value)} ({value:,} bytes)"
    return str(value)
