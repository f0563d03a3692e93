"""
The command line: noun verb, data on stdout, words on stderr, exit status 0 / 1 finding / 2 wrong call.

Each command is a module of `commands/`; what takes long to import, it imports when it is called.
"""

import typer

from aggregator.commands import bundle, local

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


app.add_typer(bundle.app, name="bundle", short_help="List, read, prove and repack bundles.")


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
