"""`aggregator contract …`: what producers and consumers of our messages build on."""

from contextlib import nullcontext
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aggregator.commands.console import (
    FINDING,
    WRONG_CALL,
    json_text,
    mistakes_are_printed,
    print_json,
    print_table,
    words,
)
from aggregator.contracts.catalog import contract, published, root, schema_path, walk
from aggregator.contracts.reports import Format, write_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aggregator.contracts.validation import Judge, Verdict

app = typer.Typer(
    help="Show the contracts, and check messages against them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class ProfileName(StrEnum):
    """Whose schema judges."""

    producer = "producer"
    consumer = "consumer"


Name = Annotated[str, typer.Argument(metavar="NAME", help="Contract, as `contract list` names it: NAME or NAME@MAJOR.")]


@app.command(name="list", epilog="Example: aggregator contract list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="Print the whole catalogue.")] = False) -> None:
    """List the contracts: name, version, profiles, and what each is for."""
    with mistakes_are_printed():
        catalog = published("catalog.json")
        if as_json:
            print_json(catalog)
            return
        print_table(
            ("contract", "version", "status", "profiles", "for"),
            [
                (
                    f"{one['name']}@{one['major']}",
                    one["version"],
                    one["status"],
                    ", ".join(one["profiles"]),
                    one["summary"],
                )
                for one in catalog["contracts"]
            ],
        )


@app.command(epilog="Example: aggregator contract show s3-notification --profile consumer")
def show(
    name: Name,
    profile: Annotated[ProfileName | None, typer.Option(help="Which schema; the first that the contract has.")] = None,
    draft_07: Annotated[bool, typer.Option("--draft-07", help="The twin for tools that know no later draft.")] = False,
) -> None:
    """Print the JSON Schema of a contract."""
    with mistakes_are_printed():
        one = contract(name)
        path = schema_path(one, profile.value if profile else one.profiles[0])
        folder, _, file = path.rpartition("/")
        print_json(published(f"{folder}/draft-07/{file}" if draft_07 else path))


@app.command(epilog="Example: aggregator contract export contracts-of-the-aggregator")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that is written; made if it is not there.")],
) -> None:
    """
    Write all that is published below DIR: schemas, twins, examples, released versions, catalogue, documents.

    Files of the same names are overwritten; other files below DIR stay.
    """
    with mistakes_are_printed():
        files = list(walk(root()))
        for path, file in files:
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    words().print(f"{len(files):,} files", markup=False)
    print(folder)


@app.command(epilog="Example: aggregator contract validate --profile consumer notifications.jsonl")
def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Messages to judge; - is stdin.")],
    label: Annotated[
        str | None, typer.Option("--contract", metavar="NAME@MAJOR", help="Judge by this one, whatever the message is.")
    ] = None,
    profile: Annotated[
        ProfileName | None,
        typer.Option(help="producer: what one may write (if not said otherwise). consumer: what the Lambda takes."),
    ] = None,
    form: Annotated[Format, typer.Option("--format", help="How faults are printed.")] = Format.text,
    show_values: Annotated[
        bool, typer.Option("--show-values", help="Quote the values that are wrong; they may be personal.")
    ] = False,
) -> None:
    """
    Judge messages before they are sent.

    A file holds one JSON document, or one on each line: the body of a message, an SNS envelope around it, or a whole
    SQS event, of which each body is judged. A document may have 16 MiB and a million values; of one with more than
    100,000 only the first fault is shown, so that memory stays below 400 MB. Exit status: 0 all are valid, 1 some are
    not, 2 a file cannot be read; the others are judged all the same.
    """
    with mistakes_are_printed():
        from aggregator.contracts.validation import Judge

        chosen = profile.value if profile else contract(label).profiles[0] if label else "producer"
        judge = Judge(chosen, label, show_values=show_values)
        tally = write_report(form, ((name, _judged(name, judge)) for name in files), print)
    for problem in tally.unread.values():
        words().print(f"aggregator: {problem}", markup=False)
    if tally.messages or not tally.unread:
        messages = "1 message" if tally.messages == 1 else f"{tally.messages:,} messages"
        words().print(f"{messages}, {tally.invalid:,} invalid")
    raise typer.Exit(WRONG_CALL if tally.unread else FINDING if tally.invalid else 0)


@app.command(epilog="Example: aggregator contract sample s3-notification -n 3 --seed 7")
def sample(
    name: Name,
    number: Annotated[int, typer.Option("-n", metavar="N", min=0, help="How many.")] = 10,
    seed: Annotated[int, typer.Option(metavar="S", help="The same seed makes the same messages.")] = 0,
    invalid: Annotated[bool, typer.Option("--invalid", help="Messages with one thing wrong, for tests.")] = False,
) -> None:
    """Print messages of a contract, one a line: valid ones, or ones that must be rejected."""
    with mistakes_are_printed():
        from aggregator.contracts import factories

        factories.seed(seed)
        for document in islice(factories.samples(contract(name), invalid=invalid), number):
            print(json_text(document))


def _judged(name: str, judge: "Judge") -> "Iterator[Verdict]":
    from aggregator.bundles.targets import standard_input

    with nullcontext(standard_input()) if name == "-" else Path(name).open("rb") as stream:
        yield from judge.file(stream)
