"""`aggregator local`: the handler that runs in Lambda, on a folder of files."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from aggregator.commands.console import FINDING, bytes_in_words, ends_at_once, print_json, printable, progress, words

if TYPE_CHECKING:
    from aggregator.runtimes.local.run import Summary

_MOST_FAILURES_SHOWN = 20


def local(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the files to aggregate.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the bundles are written to.")],
    endpoint_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Use the AWS that is already there, not the embedded one.")
    ] = None,
    name: Annotated[str, typer.Option(help="Begins the name of every bucket, queue and table.")] = "aggregator-local",
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete the bundles of an earlier run at the end.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the bundles of an earlier run beside the new ones.")
    ] = False,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the handler's log lines there.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """
    Aggregate the files below DIR with the very handler that runs in Lambda.

    An AWS is started on a free port of this machine. The files are uploaded to its S3 under their relative paths, the
    notifications go through its queue to the handler, and the bundles come back under their keys. Files in the
    output folder are left out, and so are links to folders and links out of DIR. A second run into a folder needs
    --replace or --keep. Exit status 1 says that some file ended in the dead-letter queue.
    """
    with ExitStack() as stack:
        from aggregator.runtimes.local.embedded import EmbeddedAws
        from aggregator.runtimes.local.files import LocalRunError, earlier_bundles, readable_files, writable_folder
        from aggregator.runtimes.local.run import run

        files, left_out = readable_files(folder, out=out)
        writable_folder(out)
        earlier = [] if keep or endpoint_url else earlier_bundles(out)  # that AWS knows what it has bundled already
        if earlier and not replace:
            raise LocalRunError(f"{out} has bundles of an earlier run: add --replace or --keep, or name another --out")
        stack.enter_context(ends_at_once())
        bar = stack.enter_context(progress())
        task = bar.add_task("starting", total=2 * len(files))
        aws = None if endpoint_url else EmbeddedAws(say=bar.console.print)
        endpoint = stack.enter_context(aws) if aws else endpoint_url or ""
        lines = stack.enter_context(log.open("w", encoding="utf-8")) if log else None
        summary = run(
            files,
            out,
            endpoint_url=endpoint,
            name=name,
            credentials=aws.credentials if aws else None,
            log=lambda line: _write_line(lines, line),
            report=lambda seen: bar.update(task, description="bundling", completed=seen.uploaded + seen.done),
        )
    for path in earlier:
        path.unlink()
    if as_json:
        print_json({**summary._asdict(), "failures": [failure._asdict() for failure in summary.failures]})
    else:
        _print(summary, out)
    if left_out:
        words().print(f"left out {left_out:,}: links to folders, to nowhere or out of DIR, pipes and the like")
    raise typer.Exit(FINDING if summary.failures else 0)


def _print(summary: "Summary", out: Path) -> None:
    bundles = "1 bundle" if len(summary.bundles) == 1 else f"{len(summary.bundles):,} bundles"
    for label, value in (
        ("files", f"{summary.files:,} ({bytes_in_words(summary.bytes_in)})"),
        ("bundled", f"{summary.members:,} in {bundles} ({bytes_in_words(summary.bytes_out)})"),
        ("duplicates", f"{summary.duplicates:,}"),
        ("failures", f"{len(summary.failures):,}"),
        ("seconds", f"{summary.seconds:,.1f}"),
    ):
        print(f"{label:<12}{value}")
    for bundle in summary.bundles:
        print(printable(str(out / bundle)))
    for failure in summary.failures[:_MOST_FAILURES_SHOWN]:
        words().print(f"{failure.key!r}: {failure.reason}", markup=False)
    if len(summary.failures) > _MOST_FAILURES_SHOWN:
        words().print(f"and {len(summary.failures) - _MOST_FAILURES_SHOWN:,} more: --json lists them all")


def _write_line(file: TextIO | None, line: str) -> None:
    if file:
        file.write(line + "\n")
