"""`aggregator local`: the handler that runs in Lambda, on a folder of files."""

import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.progress import TimeRemainingColumn, TransferSpeedColumn

from aggregator.commands.console import (
    FINDING,
    bytes_in_words,
    ends_at_once,
    ends_on_interrupt,
    json_text,
    printable,
    progress,
    words,
)

if TYPE_CHECKING:
    from aggregator.runtimes.local.environment import Shell
    from aggregator.runtimes.local.files import Files
    from aggregator.runtimes.local.run import Progress, Run, Summary
    from aggregator.runtimes.local.serving import Happening

_MOST_FAILURES_SHOWN = 20

_NAMES = "--name is 2 to 50 lowercase letters, digits and hyphens, and does not begin with a hyphen"
"""What S3 and SQS take, with the longest of our endings."""


def local(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder that the bundles are written to.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of the files to aggregate; --serve needs none.")
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Keep the embedded AWS and the handler running until Ctrl-C.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="As --serve, and upload files that come or change below DIR.")
    ] = False,
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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON; with --serve, the variables.")
    ] = False,
) -> None:
    """
    Aggregate the files below DIR with the very handler that runs in Lambda.

    An AWS is started on a free port of this machine. The files are uploaded to its S3 under their relative paths, the
    notifications go through its queue to the handler, and the bundles come back under their keys. Files in the
    output folder are left out. So are bundles of earlier runs, links to folders, links out of DIR, and files whose
    names cannot be keys; each is named. A second run into a folder needs --replace or --keep. Exit status 1 says that
    some file ended in the dead-letter queue.

    The settings of the function are read from the environment. MAX_BUNDLE_INPUT_MB (100) is the most that a bundle
    holds, so a larger file is rejected: set it to more than the size of your largest file.

    With --serve, the AWS and the handler run on until Ctrl-C. The lines on standard output are for another shell: there
    every other command, awscli and boto3 find this AWS. Write them to a file (aggregator local --serve --out bundles >
    here.sh), and read it there (. ./here.sh). Bundles come to the output folder as they are made. Ctrl-C finishes what
    is on the queue, and the exit status is 0; a second one ends at once.

    With --watch, each file below DIR is uploaded when two looks, a second apart, find it unchanged. A file that changes
    after it is bundled is overwritten: a key is bundled once, so its bundle stays as it is, and this is said.
    """
    from aggregator.runtimes.local.embedded import EmbeddedAws
    from aggregator.runtimes.local.files import LocalRunError, left_out_in_words
    from aggregator.runtimes.local.run import opened

    serve = serve or watch
    _check_options(name, serve=serve, endpoint_url=endpoint_url)
    found = _files(folder, out, serve=serve, watch=watch)
    if folder and watch and log and log.resolve().is_relative_to(folder.resolve()):
        raise LocalRunError("--log FILE is in the folder that is watched: name a file elsewhere")
    earlier = _earlier(out, replace=replace, keep=keep or bool(endpoint_url))  # that AWS knows what it has bundled
    with ExitStack() as stack:
        stack.enter_context(ends_at_once())
        aws = None if endpoint_url else EmbeddedAws(say=words().print)
        endpoint = stack.enter_context(aws) if aws else endpoint_url or ""
        lines = stack.enter_context(log.open("w", encoding="utf-8", buffering=1)) if log else None
        stdout = sys.stdout  # what is printed below is a log line of the handler
        run, shell = stack.enter_context(
            opened(
                out,
                endpoint_url=endpoint,
                name=name,
                credentials=aws.credentials if aws else None,
                log=lambda line: _write_line(lines, line),
            )
        )
        summary = _aggregate(run, found.by_key, earlier)
        _print(summary, out, stdout, serve=serve, as_json=as_json)
        for line in left_out_in_words(found.left_out):
            words().print(line, markup=False)
        if serve:
            _serve(run, out, shell, stdout, watched=folder if watch else None, as_json=as_json)
    raise typer.Exit(FINDING if summary.failures and not serve else 0)


def _check_options(name: str, *, serve: bool, endpoint_url: str | None) -> None:
    from aggregator.runtimes.local.files import LocalRunError

    if endpoint_url and serve:
        raise LocalRunError(
            "--serve and --watch are for the embedded AWS: on an AWS that is already there, run aggregator worker"
        )
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{1,49}", name):
        raise LocalRunError(_NAMES)


def _files(folder: Path | None, out: Path, *, serve: bool, watch: bool) -> "Files":
    """The files to begin with; those that are watched are found later."""
    from aggregator.runtimes.local.files import Files, LocalRunError, check_folder, readable_files

    if folder and not watch:
        return readable_files(folder, out=out)
    if folder:
        check_folder(folder, out=out)
    elif watch or not serve:
        raise LocalRunError("DIR is missing: name the folder of your files, or begin without files by --serve alone")
    return Files({}, {}, [])


def _earlier(out: Path, *, replace: bool, keep: bool) -> list[Path]:
    """The bundles of an earlier run, which are to be replaced."""
    from aggregator.runtimes.local.files import LocalRunError, earlier_bundles, writable_folder

    writable_folder(out)
    earlier = [] if keep else earlier_bundles(out)
    if earlier and not replace:
        raise LocalRunError(f"{out} has bundles of an earlier run: add --replace or --keep, or name another --out")
    return earlier


def _aggregate(run: "Run", files: Mapping[str, Path], earlier: Iterable[Path]) -> "Summary":
    """
    Bundle files, with a bar: each counts once, when it is bundled, repeated or failed.

    The bundles of an earlier run go when the new ones are there.
    """
    with progress(of_bytes=True) as bar:
        bar.columns = (*bar.columns, TransferSpeedColumn(), TimeRemainingColumn())
        task = bar.add_task("starting")

        def report(seen: "Progress") -> None:
            description = f"{seen.files_done:,} of {seen.files:,} files"
            bar.update(task, description=description, completed=seen.size_done, total=seen.size)

        summary = run.aggregate(files, report)
    for path in earlier:
        path.unlink()
    return summary


def _serve(run: "Run", out: Path, shell: "Shell", stdout: TextIO, *, watched: Path | None, as_json: bool) -> None:
    """Print how the AWS is found, then say what happens until Ctrl-C."""
    from aggregator.runtimes.local.serving import serve
    from aggregator.runtimes.local.watching import Watcher

    with ExitStack() as stack:
        stop = stack.enter_context(ends_on_interrupt())
        watcher = stack.enter_context(closing(Watcher(watched, out=out, upload=run.upload))) if watched else None
        for line in [json_text(shell.variables, indent=2)] if as_json else shell.lines:
            print(line, file=stdout, flush=True)
        words().print("serving until Ctrl-C; run the lines above in another shell to try commands there")
        for happening in serve(run, out, stop, watcher):
            words().print(_line(happening), markup=False)


def _line(happening: "Happening") -> str:
    from aggregator.runtimes.local.run import Failure

    if isinstance(happening, str):
        return happening
    if isinstance(happening, Failure):
        return f"{happening.key!r}: {happening.reason}"
    noun = "member" if happening.members == 1 else "members"
    return f"{happening.path}: {happening.members:,} {noun}, {bytes_in_words(happening.size)}"


def _print(summary: "Summary", out: Path, stdout: TextIO, *, serve: bool, as_json: bool) -> None:
    if serve and not summary.files:
        return
    file = sys.stderr if serve else stdout
    if as_json and not serve:
        document = {**summary._asdict(), "failures": [failure._asdict() for failure in summary.failures]}
        print(json_text(document, indent=2), file=file)
        return
    bundles = "1 bundle" if len(summary.bundles) == 1 else f"{len(summary.bundles):,} bundles"
    for label, value in (
        ("files", f"{summary.files:,} ({bytes_in_words(summary.bytes_in)})"),
        ("bundled", f"{summary.members:,} in {bundles} ({bytes_in_words(summary.bytes_out)})"),
        ("duplicates", f"{summary.duplicates:,}"),
        ("failures", f"{len(summary.failures):,}"),
        ("seconds", f"{summary.seconds:,.1f}"),
    ):
        print(f"{label:<12}{value}", file=file)
    for bundle in summary.bundles:
        print(printable(str(out / bundle)), file=file)
    for failure in summary.failures[:_MOST_FAILURES_SHOWN]:
        words().print(_line(failure), markup=False)
    if len(summary.failures) > _MOST_FAILURES_SHOWN:
        words().print(f"and {len(summary.failures) - _MOST_FAILURES_SHOWN:,} more: --json lists them all")


def _write_line(file: TextIO | None, line: str) -> None:
    if file:
        file.write(line + "\n")
