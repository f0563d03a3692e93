"""The options by which commands find the system, and how they read times and addresses."""

import os
import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from aggregator.exceptions import AggregatorError, OpeningError


class Scope(StrEnum):
    """What makes two objects the same member (IDEMPOTENCY_SCOPE)."""

    KEY = "key"
    VERSION = "version"


DistributionBucket = Annotated[
    str,
    typer.Option(
        "--distribution",
        metavar="NAME",
        envvar="DISTRIBUTION_BUCKET_NAME",
        help="Bucket that bundles are put into.",
    ),
]
WithTable = Annotated[
    str | None,
    typer.Option(
        "--distribution",
        metavar="NAME",
        envvar="DISTRIBUTION_BUCKET_NAME",
        help="With --table: bucket that bundles are put into.",
    ),
]
ArchiveBucket = Annotated[
    str | None,
    typer.Option(
        "--archive",
        metavar="NAME",
        envvar="ARCHIVE_BUCKET_NAME",
        help="Bucket that replication copies them to.",
    ),
]
ScopeOption = Annotated[
    Scope,
    typer.Option(
        "--scope", envvar="IDEMPOTENCY_SCOPE", help="Whether an object is known by its key, or by key and version."
    ),
]
Table = Annotated[
    str | None, typer.Option("--table", metavar="NAME", envvar="IDEMPOTENCY_TABLE_NAME", help="The ledger.")
]
QueueUrl = Annotated[
    str, typer.Option("--queue-url", metavar="URL", envvar="QUEUE_URL", help="The queue that the function reads.")
]
DeadLetterQueue = Annotated[
    str, typer.Option("--dlq", metavar="URL", envvar="DEAD_LETTER_QUEUE_URL", help="The dead-letter queue.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ExactBytes = Annotated[bool, typer.Option("--bytes", help="Print exact sizes on a terminal too, not kB and MB.")]


class OptionError(AggregatorError):
    """Options contradict each other, or one is missing."""

    reason = "option"


_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

_FIRST, _LAST = 0.0, datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""What is before counts as 1970, what is after as 9999: nothing in S3 is older or newer, and dates end there."""


def address(url: str, *, option: str) -> tuple[str, str]:
    """
    Bucket and key, or prefix, of `s3://bucket/key`, as the `option` of that name gives it.

    Raises:
        typer.BadParameter: it is not such an address.
    """
    from aggregator.bundles.opening import s3_address

    try:
        return s3_address(url)
    except OpeningError:
        raise typer.BadParameter(f"{url!r} is not s3://bucket/…", param_hint=option) from None


def require_both(table: str | None, distribution: str | None) -> None:
    """
    Return, unless only one of `--table` and `--distribution` is given, by which option or variable ever.

    Raises:
        OptionError: with the name of both.
    """
    if bool(table) == bool(distribution):
        return
    options = {
        "--table": ("IDEMPOTENCY_TABLE_NAME", table),
        "--distribution": ("DISTRIBUTION_BUCKET_NAME", distribution),
    }
    (given,) = (option for option, (_, value) in options.items() if value)
    (missing,) = set(options) - {given}
    variable, value = options[given]
    by = variable if os.environ.get(variable) == value else given
    raise OptionError(
        f"--table and --distribution belong together: {by} gives {value!r}; "
        f"give {missing} ({options[missing][0]}) too, or leave out {by}"
    )


def moment(text: str, now: float, *, option: str) -> float:
    """
    Seconds since the epoch of a time as people give it: `2026-11-23`, `2026-11-23T08:00Z`, or `90m`, `24h`, `7d` ago.

    A time without an offset is UTC, as the names of bundles are.

    Raises:
        typer.BadParameter: it is not one of these.
    """
    ago = duration(text)
    if ago is not None:
        return max(now - ago, _FIRST)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        said = f"{text!r} is not a time: write 2026-11-23, 2026-11-23T08:00Z, or 24h for a day ago"
        raise typer.BadParameter(said, param_hint=option) from None
    return min(max((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp(), _FIRST), _LAST)


def duration(text: str) -> float | None:
    """Seconds of `30s`, `90m`, `24h` or `7d`; None, if it is something else."""
    found = re.fullmatch(r"(\d{1,12})([smhd])", text)
    return int(found[1]) * _SECONDS[found[2]] if found else None
