"""
The commands. Data goes to stdout, words and progress to stderr; exit 0 is fine, 1 a finding, 2 a wrong call.

Commands import what they need when they run, so that `--help` is quick and an extra that is not installed is missed
only by the command that needs it.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from aggregator.exceptions import AggregatorError

if TYPE_CHECKING:
    from aggregator.local import Summary

FINDING, WRONG_CALL = 1, 2

_MOST_FAILURES_SHOWN = 20

app = typer.Typer(
    help="Many small S3 objects become few large gzip bundles: nothing lost, nothing twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _main() -> None:
    """Keep `local` a command of its own while it is the only one."""


@app.command(
    epilog="Example: aggregator local fixtures/samples --out bundles",
    short_help="Aggregate a folder of files on an AWS of your own.",
)
def local(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the files to aggregate.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the bundles are written to.")],
    endpoint_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Use the AWS that is already there, not the embedded one.")
    ] = None,
    name: Annotated[str, typer.Option(help="Begins the name of every bucket, queue and table.")] = "aggregator-local",
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the handler's log lines there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """
    Aggregate the files below DIR with the very handler that runs in Lambda.

    An AWS is started on a free port of this machine. The files are uploaded to its S3 under their relative paths, the
    notifications go through its queue to the handler, and the bundles come back under their keys. Exit status 1 says
    that some file ended in the dead-letter queue.
    """
    try:
        from aggregator import local as local_run  # noqa: PLC0415 - boto3 takes half a second
        from aggregator.embedded import EmbeddedAws  # noqa: PLC0415

        files = local_run.readable_files(folder)
        local_run.writable_folder(out)
        with ExitStack() as stack:
            bar = stack.enter_context(_progress())
            task = bar.add_task("starting", total=2 * len(files))
            endpoint = endpoint_url or stack.enter_context(EmbeddedAws(say=bar.console.print))
            lines = stack.enter_context(log.open("w", encoding="utf-8")) if log else None
            summary = local_run.run(
                files,
                out,
                endpoint_url=endpoint,
                name=name,
                log=lambda line: _write_line(lines, line),
                report=lambda seen: bar.update(task, description="bundling", completed=seen.uploaded + seen.done),
            )
    except (AggregatorError, OSError) as error:
        _refuse(error)
    _print_summary(summary, out, as_json=as_json)
    raise typer.Exit(FINDING if summary.failures else 0)


def main() -> None:
    """Run the command line."""
    app()


def _print_summary(summary: "Summary", out: Path, *, as_json: bool) -> None:
    if as_json:
        facts: dict[str, Any] = {**summary._asdict(), "failures": [failure._asdict() for failure in summary.failures]}
        print(json.dumps(facts, indent=2))
        return
    bundles = "1 bundle" if len(summary.bundles) == 1 else f"{len(summary.bundles):,} bundles"
    for label, value in (
        ("files", f"{summary.files:,} ({_size(summary.bytes_in)})"),
        ("bundled", f"{summary.members:,} in {bundles} ({_size(summary.bytes_out)})"),
        ("duplicates", f"{summary.duplicates:,}"),
        ("failures", f"{len(summary.failures):,}"),
        ("seconds", f"{summary.seconds:,.1f}"),
    ):
        print(f"{label:<12}{value}")
    for bundle in summary.bundles:
        print(out / bundle)
    words = Console(stderr=True, highlight=False, soft_wrap=True)
    for failure in summary.failures[:_MOST_FAILURES_SHOWN]:
        words.print(f"{failure.key!r}: {failure.reason}", markup=False)
    if len(summary.failures) > _MOST_FAILURES_SHOWN:
        words.print(f"and {len(summary.failures) - _MOST_FAILURES_SHOWN:,} more: --json lists them all")


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True, highlight=False)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _write_line(file: TextIO | None, line: str) -> None:
    if file:
        file.write(line + "\n")


def _refuse(error: Exception) -> NoReturn:
    print(f"aggregator: {error}", file=sys.stderr)
    raise typer.Exit(WRONG_CALL)


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1_000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1_000
    raise AssertionError


if __name__ == "__main__":
    main()
