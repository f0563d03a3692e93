"""
The command line: noun verb, data on stdout, words on stderr, exit status 0 / 1 finding / 2 wrong call.

Each command is a module of `commands/`; what takes long to import, it imports when it is called.
"""

import typer

from aggregator.commands import local, reconcile, stats, where

app = typer.Typer(
    help="Many small S3 objects become few large gzip bundles: nothing lost, nothing twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _main() -> None:
    """Keep `local` a command of its own while it is the only one."""


app.command(
    epilog="Example: aggregator local fixtures/samples --out bundles",
    short_help="Aggregate a folder of files on an AWS of your own.",
)(local.local)

app.command(
    epilog="Example: aggregator where s3://orders/08/order-1.json",
    short_help="Say which bundle holds an object, or what became of it.",
)(where.where)
app.command(
    epilog="Example: aggregator reconcile --source s3://orders/08/ --since 24h",
    short_help="Prove that each object is in one bundle.",
)(reconcile.reconcile)
app.command(
    epilog="Example: aggregator stats s3://bundles/2026/11/ --html stats.html",
    short_help="Show how bundles fill over time.",
)(stats.stats)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
