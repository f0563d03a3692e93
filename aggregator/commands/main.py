"""
The command line: noun verb, data on stdout, words on stderr, exit status 0 / 1 finding / 2 wrong call / 70 a bug.

Each command is a module of `commands/`; what takes long to import, it imports when it is called.
"""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from aggregator.commands import (
    backfill,
    bundle,
    catalog,
    contract,
    doctor,
    find,
    local,
    plan,
    reclaim,
    reconcile,
    redrive,
    stats,
    where,
    worker,
)
from aggregator.commands.console import streams
from aggregator.commands.groups import CONTRACTS, OPERATE, READ, TRY, Group, join_words, keep_last_blank
from aggregator.commands.version import version

app = typer.Typer(
    cls=Group,
    help="""
    Many small S3 objects become few large gzip bundles: nothing lost, nothing twice.

    Results go to standard output: a table on a terminal, lines with tabs between the fields elsewhere,
    and JSON with --json. Words and progress go to standard error.

    Exit status: 0, all is well. 1, something was found that a person should look at. 2, the call was wrong or could
    not be carried out; one line says why. 70, unexpected error: please report it.

    AWS is reached as by boto3: credentials, AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL. An object in
    S3 is written s3://bucket/key; - is standard input.
    """,
    epilog="Each help ends with an example. Begin with: aggregator local fixtures/samples --out bundles",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"aggregator {version()}")
        raise typer.Exit


@app.callback()
def all_commands(
    *,
    asked: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say which version this is.")
    ] = False,
) -> None:
    """Say what holds for all commands."""


app.command(
    epilog="Example: aggregator local fixtures/samples --out bundles",
    short_help="Aggregate a folder of files on an AWS of your own.",
    rich_help_panel=TRY,
)(local.local)
app.command(
    epilog="Example: aggregator plan --objects-per-day 50M --object-size 4KiB",
    short_help="Show the cost and the limits of a workload.",
    rich_help_panel=TRY,
)(plan.plan)
app.command(
    epilog="Example: aggregator doctor --stack data-aggregator\n\n"
    "Example: aggregator doctor --template deploy/template.yaml --parameter SourceBucketName=orders",
    short_help="Check what the guarantee rests on, in a deployment or a template.",
    rich_help_panel=OPERATE,
)(doctor.doctor)
app.command(
    epilog="Example: aggregator worker --queue-url https://sqs.eu-west-1.amazonaws.com/123456789012/objects",
    short_help="Run the handler on a queue, without Lambda.",
    rich_help_panel=OPERATE,
)(worker.worker)
app.add_typer(
    contract.app,
    name="contract",
    cls=Group,
    short_help="Show the contracts, and check messages against them.",
    rich_help_panel=CONTRACTS,
)
app.add_typer(
    bundle.app,
    name="bundle",
    cls=Group,
    short_help="List, read, prove and repack bundles.",
    rich_help_panel=READ,
)
app.command(
    epilog="Example: aggregator find 'orders/08/*' s3://bundles/2026/11/",
    short_help="Find the bundles that hold a key.",
    rich_help_panel=READ,
)(find.find)
app.command(
    epilog="Example: aggregator catalog s3://bundles/2026/11/ --to catalog.parquet",
    short_help="List the members of many bundles in one file.",
    rich_help_panel=READ,
)(catalog.catalog)
app.command(
    epilog="Example: aggregator where s3://orders/08/order-1.json",
    short_help="Say which bundle holds an object, or what became of it.",
    rich_help_panel=READ,
)(where.where)
app.command(
    epilog="Example: aggregator reconcile --source s3://orders/08/ --since 24h",
    short_help="Prove that each object is in one bundle.",
    rich_help_panel=OPERATE,
)(reconcile.reconcile)
app.command(
    epilog="Example: aggregator reclaim s3://orders/08/ --older-than 7d",
    short_help="Delete source objects that are proven to be in a bundle.",
    rich_help_panel=OPERATE,
)(reclaim.reclaim)
app.command(
    epilog="Example: aggregator stats s3://bundles/2026/11/ --html stats.html",
    short_help="Show how bundles fill over time.",
    rich_help_panel=READ,
)(stats.stats)
app.command(
    epilog="Example: aggregator backfill s3://source/orders/ --dry-run",
    short_help="Announce objects that are already in S3.",
    rich_help_panel=OPERATE,
)(backfill.backfill)
app.command(
    epilog="Example: aggregator redrive --dlq https://sqs.us-east-1.amazonaws.com/123456789012/dead-letters",
    short_help="Show the dead-letter queue and why, and send messages back.",
    rich_help_panel=OPERATE,
)(redrive.redrive)


def main(ready: Callable[[], object] = lambda: None) -> None:
    """Run the command line; `ready` is called when nothing is left to be built, and an interrupt is the command's."""
    command = typer.main.get_command(app)
    keep_last_blank(os.environ)
    join_words(os.environ)
    with streams():
        ready()
        command()


if __name__ == "__main__":
    main()
