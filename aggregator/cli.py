"""
The command line: noun verb, data on stdout, words on stderr, exit status 0 / 1 finding / 2 wrong call.

Each command is a module of `commands/`; what takes long to import, it imports when it is called.
"""

import typer

from aggregator.commands import bundle, local

app = typer.Typer(
    help="""
    Many small S3 objects become few large gzip bundles: nothing lost, nothing twice.

    What a command finds goes to standard output: a table on a terminal, lines with tabs between the fields elsewhere,
    and JSON with --json. Words and progress go to standard error.

    Exit status: 0, all is well. 1, something was found that a person should look at. 2, the call was wrong or could
    not be carried out; one line says why.

    AWS is reached as by every tool of AWS: credentials, AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL. What lies in S3 is
    called s3://bucket/key; - is standard input.
    """,
    epilog="Each help ends with an example. Begin with: aggregator local fixtures/samples --out bundles",
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
