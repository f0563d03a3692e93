"""`aggregator catalog`: one row per member of every bundle, in a file for DuckDB and others."""

from pathlib import Path
from typing import Annotated

import typer

from aggregator.commands.console import print_json, printable, progress
from aggregator.commands.members import counted, say, say_fault
from aggregator.commands.options import AsJson


def catalog(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="Bundles: files, folders, s3://bucket/prefix/, URLs.")
    ],
    to: Annotated[
        Path, typer.Option(metavar="FILE", help="catalog.parquet, or catalog.duckdb (its table is members).")
    ],
    as_json: AsJson = False,
) -> None:
    """
    List the members of many bundles in one file: one row per member.

    Bundles that the file has already are not read again, so a second run reads only what is new. Rows of bundles that
    are gone stay. Only the indexes are read, many at once, in bounded memory. The file is replaced in one step at the
    end. Exit status 1 says that a bundle is damaged, 2 that one cannot be read: it is not in the file.
    """
    from aggregator.operations.catalog import update_catalog

    statuses = [0]
    with progress() as bar:
        task = bar.add_task("reading indexes", total=None)
        made = update_catalog(
            targets,
            to,
            fail=lambda target, error: statuses.append(say_fault(target, error)),
            report=lambda: bar.advance(task),
        )
    if as_json:
        print_json({"catalog": str(to), **made._asdict(), "failed": len(statuses) - 1})
    else:
        if made.members:
            print(printable(str(to)))
        say(
            f"{counted(made.read, 'bundle')} read, {made.known:,} known before:"
            f" {made.added:,} of {counted(made.members, 'member')} added"
        )
    raise typer.Exit(max(statuses))
