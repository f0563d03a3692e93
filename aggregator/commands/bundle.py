"""`aggregator bundle`: list, read, prove and repack bundles, on disk or in S3."""

import shutil
import sys
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aggregator.bundles.destination import MOST_EXTRACTED
from aggregator.commands import members
from aggregator.commands.console import FINDING, bytes_in_words, print_json, print_table, printable, progress
from aggregator.commands.members import MaxBytes, counted, damage_is_a_finding, noted, say, say_fault
from aggregator.commands.options import AsJson, ExactBytes
from aggregator.exceptions import AggregatorError, BundleFormatError

if TYPE_CHECKING:
    from aggregator.bundles.bundle import Bundle
    from aggregator.operations.audit.cross_check import CrossCheck

app = typer.Typer(
    help="""
    List, read, prove and repack bundles.

    TARGET is a file, a folder (every .gz below it), s3://bucket/key, s3://bucket/prefix/ (every .gz below it), any URL
    that fsspec knows, or - for standard input. Of an object in S3 only what is needed is read. Exit status 1 says that
    a bundle is damaged, 2 that the call was wrong or that a target cannot be read.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Targets = Annotated[
    list[str], typer.Argument(metavar="TARGET...", help="Bundles: files, folders, URLs, or - for standard input.")
]
_BRIEF = ("size", "crc32", "etag", "version_id", "key")
_WIDE = 100
"""Characters of a line that has room for an eTag."""

_TOTALS = ("members", "object_size", "text_size", "size", "ratio", "target")
_CHECKED = ("verdict", "members", "size", "etags", "target", "says")
_LONG = ("size", "length", "encoding", "crc32", "etag", "version_id", "origin", "target", "bucket", "key")

_SIZES = ("size", "length", "object_size", "text_size")
"""Columns of bytes."""


@app.command("list", epilog="Example: aggregator bundle list bundle.gz")
def list_(
    targets: Targets,
    long: Annotated[bool, typer.Option("--long", "-l", help="Print all that is known of each member.")] = False,
    totals: Annotated[bool, typer.Option("--totals", help="One line per bundle instead of one per member.")] = False,
    exact: ExactBytes = False,
    as_json: AsJson = False,
) -> None:
    """
    List the members of bundles: size in S3, CRC-32, eTag, version and key.

    Totals go to standard error. A narrow terminal shows no eTags, but with --long. From S3 the tail of each bundle is
    read, in one request or two, however large it is.
    """
    from aggregator.bundles.opening import without_secrets
    from aggregator.operations.indexes import read_targets

    found, status = list[dict[str, Any]](), 0
    for target, listed in read_targets(targets, _described):
        shown = without_secrets(target)
        if isinstance(listed, Exception):
            status = max(status, say_fault(shown, listed))
        else:
            found.append({"target": shown, **listed})
    if as_json:
        print_json([listed | {"members": len(listed["members"])} if totals else listed for listed in found])
    elif totals:
        rows = [_row(listed | {"members": len(listed["members"])}, _TOTALS) for listed in found]
        print_table(_TOTALS, rows, sizes=() if exact else _SIZES)
    else:
        columns = _LONG if long else _brief(shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
        members = [{**member, "target": listed["target"]} for listed in found for member in listed["members"]]
        print_table(columns, [_row(member, columns) for member in members], sizes=() if exact else _SIZES)
    if found:
        _say_totals(found)
    raise typer.Exit(status)


app.command(epilog="Example: aggregator bundle cat bundle.gz 'orders/08/order 001.json'")(members.cat)
app.command(epilog="Example: aggregator bundle extract bundle.gz 'orders/08/*' --to files")(members.extract)


@app.command(epilog="Example: aggregator bundle verify bundle.gz")
def verify(
    targets: Targets,
    deep: Annotated[bool, typer.Option("--deep", help="Ask the ledger, the archive and the sources as well.")] = False,
    table: Annotated[str | None, typer.Option(envvar="IDEMPOTENCY_TABLE_NAME", help="The ledger, for --deep.")] = None,
    distribution: Annotated[
        str | None, typer.Option(envvar="DISTRIBUTION_BUCKET_NAME", help="Where bundles are published, for --deep.")
    ] = None,
    archive: Annotated[
        str | None, typer.Option(envvar="ARCHIVE_BUCKET_NAME", help="Where replication copies them, for --deep.")
    ] = None,
    exact: ExactBytes = False,
    as_json: AsJson = False,
) -> None:
    """
    Read bundles from end to end, and prove every byte.

    SHA-256 and CRC of the whole, CRC and length of each member, every byte of the text a member's and no member's
    twice. One line a bundle, and on to the next. eTags that are MD5s are counted; one that is not says nothing by
    itself, because objects under SSE-KMS have such eTags: --deep asks S3 how the object was encrypted. --deep also
    asks the ledger for the settle record, and for the replication status of the bundle and its copy in the archive.
    """
    from aggregator.bundles.opening import without_secrets
    from aggregator.operations.faults import explain

    cross_check = _cross_check(table, distribution, archive) if deep else None
    checked: list[dict[str, Any]] = []
    at_once = not as_json and not sys.stdout.isatty()

    def note(one: dict[str, Any]) -> None:
        checked.append(one)
        if at_once:
            print_table(_CHECKED, [_row(one, _CHECKED)])

    with progress(of_bytes=True) as bar:
        task = bar.add_task("verifying", total=None)

        def check(target: str, bundle: "Bundle") -> None:
            bar.reset(task, total=bundle.size)
            note(_checked(target, bundle, cross_check, lambda read: bar.update(task, completed=read)))

        def fail(target: str, error: Exception) -> None:
            verdict = "bad" if isinstance(error, BundleFormatError) else "unread"
            note(
                {
                    **dict.fromkeys(_CHECKED),
                    "target": target,
                    "verdict": verdict,
                    "says": without_secrets(explain(error)),
                }
            )

        status = _each(targets, check, fail)
    if as_json:
        print_json(checked)
    elif not at_once:
        print_table(_CHECKED, [_row(one, _CHECKED) for one in checked], sizes=() if exact else _SIZES)
    raise typer.Exit(max(status, FINDING if any(one["verdict"] == "bad" for one in checked) else 0))


@app.command(epilog="Example: aggregator bundle repack quiet-hour/ --out repacked.gz")
def repack(
    targets: Annotated[list[str], typer.Argument(metavar="TARGET...", help="Bundles: files, folders or URLs.")],
    out: Annotated[str, typer.Option(metavar="OUT", help="File, folder/, s3://bucket/key, or s3://bucket/prefix/.")],
    level: Annotated[int, typer.Option(min=0, max=9, help="Compression level, as COMPRESSION_LEVEL.")] = 6,
    distribution: Annotated[
        str | None, typer.Option(envvar="DISTRIBUTION_BUCKET_NAME", help="Where bundles are published: never to there.")
    ] = None,
    max_bytes: MaxBytes = MOST_EXTRACTED,
    as_json: AsJson = False,
) -> None:
    """
    Make one bundle of many, with the same members.

    The new index says which bundle each member was published in (`list --long`). The same bundles give the same bytes,
    in any order. A member that several bundles hold is taken once. The bundles themselves are not changed, and no file
    is overwritten. The command does not write to a bucket that bundles are published in or that members come from, nor
    to a folder that it reads.
    """
    from aggregator.bundles.targets import buckets_of
    from aggregator.operations import repacking

    with damage_is_a_finding(), progress(of_bytes=True) as bar:
        task = bar.add_task("reading indexes", total=None)
        plan = repacking.plan_repack(targets)
        bar.reset(
            task, description="repacking", total=sum(member.length for one in plan.inputs for member in one.entries)
        )
        place, packed = repacking.store_repacked(
            plan,
            out,
            level=level,
            published=[*filter(None, [distribution]), *buckets_of(targets)],
            targets=targets,
            max_bytes=max_bytes,
            report=lambda length: bar.advance(task, length),
        )
    if as_json:
        print_json(
            {
                "out": place,
                "bundle": packed.index.bundle,
                "bundles": len(plan.inputs),
                "members": len(packed.index.members.key),
                "duplicates": [{"bucket": one.bucket, "key": one.key} for one in plan.duplicates],
                "size": packed.size,
                "sha256": packed.sha256.hex(),
            }
        )
    else:
        print(printable(place))
        bundles, members = counted(len(plan.inputs), "bundle"), counted(len(packed.index.members.key), "member")
        say(f"{bundles} repacked: {members}, {bytes_in_words(packed.size)}")
        if plan.duplicates:
            say(f"{counted(len(plan.duplicates), 'member')} is in the bundles more than once, and is taken once")


def _each(targets: list[str], act: Callable[[str, "Bundle"], object], fail: Callable[[str, Exception], object]) -> int:
    """Do something with each bundle, whatever became of the others, under a name to show; the exit status."""
    from aggregator.bundles.opening import without_secrets
    from aggregator.bundles.targets import bundle_at, expanded

    statuses = [0]
    for given in targets:
        with noted(without_secrets(given), fail, statuses):
            for target in expanded([given]):
                shown = without_secrets(target)
                with noted(shown, fail, statuses), closing(bundle_at(target)) as bundle:
                    act(shown, bundle)
    return max(statuses)


def _described(bundle: "Bundle") -> dict[str, Any]:
    """All that a bundle's index says, as --json prints it; sizes in bytes."""
    index = bundle.index
    return {
        "bundle": index.bundle,
        "created": index.created,
        "request_id": index.request_id,
        "framing": index.framing,
        "size": bundle.size,
        "text_size": index.text_size,
        "object_size": sum(member.size for member in bundle),
        "ratio": round(index.text_size / bundle.size, 2),
        "repacked": [origin.model_dump() for origin in bundle.origins],
        "members": [
            {
                **{name: getattr(member, name) for name in ("bucket", "key", "version_id", "etag", "size", "encoding")},
                "start": member.start,
                "length": member.length,
                "crc32": f"{member.crc32:08x}",
                "origin": origin,
            }
            for member, origin in zip(bundle, bundle.provenance(), strict=True)
        ],
    }


def _checked(
    target: str, bundle: "Bundle", cross_check: "CrossCheck | None", report: Callable[[int], object]
) -> dict[str, Any]:
    """What verifying a bundle found, as --json prints it; sizes in bytes."""
    proof = bundle.verify(report)
    checks = cross_check.check(bundle, proof) if cross_check else []
    if proof.other_etags and not cross_check:
        say(
            f"{target}: eTags that could be an MD5 and are not the member's, as under SSE-KMS (--deep asks S3):"
            f" {len(proof.other_etags):,}"
        )
    return {
        "verdict": "bad" if any(one.verdict == "mismatch" for one in checks) else "ok",
        "members": len(bundle),
        "size": bundle.size,
        "etags": proof.etags,
        "target": target,
        "says": "; ".join(one.words for one in checks),
        "bundle": bundle.index.bundle,
        "text_size": bundle.index.text_size,
        "sha256": proof.sha256,
        "other_etags": [{"bucket": member.bucket, "key": member.key} for member in proof.other_etags],
        "checks": [one._asdict() for one in checks],
    }


def _cross_check(table: str | None, distribution: str | None, archive: str | None) -> "CrossCheck":
    from aggregator.operations.audit.cross_check import CrossCheck

    if not table or not distribution:
        raise AggregatorError("--deep takes --table and --distribution, or the variables that the function has")
    return CrossCheck.connect(table, distribution, archive)


def _say_totals(found: list[dict[str, Any]]) -> None:
    members = sum(len(listed["members"]) for listed in found)
    text, size = (sum(listed[name] for listed in found) for name in ("text_size", "size"))
    where = f" in {len(found):,} bundles" if len(found) > 1 else ""
    compressed = f"{bytes_in_words(text)} of text in {bytes_in_words(size)}, ratio {text / size:.2f}"
    say(f"{counted(members, 'member')}{where}: {compressed}")


def _brief(width: int | None) -> tuple[str, ...]:
    """The columns of the short list, on a terminal of that width if it is one: without room, eTags go first."""
    return tuple(column for column in _BRIEF if width is None or width >= _WIDE or column != "etag")


def _row(fields: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    return ["" if fields[column] is None else str(fields[column]) for column in columns]
