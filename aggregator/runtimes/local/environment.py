"""
The environment of a local run: of the function while it runs, and of a shell in which other commands find its AWS.

Where the function works is given; what the user has set of how it works is kept.
"""

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from aggregator.runtimes.local.embedded import Credentials
from aggregator.runtimes.local.stack import Stack

_ANY = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}
_OWN = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_OURS = {"ARCHIVE_BUCKET_NAME", "IDEMPOTENCY_SCOPE"}
"""Settings that are of a deployment and not of a run."""

_EXPORTED = (
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"),
    *("DISTRIBUTION_BUCKET_NAME", "IDEMPOTENCY_TABLE_NAME", "IDEMPOTENCY_TTL_DAYS", "SERVICE_NAME", "LOG_LEVEL"),
)
"""Variables of the function that a shell needs; the last three for `aggregator worker` alone."""


class Shell(NamedTuple):
    """How a shell finds the AWS of a run: variables, and lines that set them and unset what leads elsewhere."""

    variables: dict[str, str]
    lines: Sequence[str]


@contextmanager
def function_environment(endpoint_url: str, name: str, credentials: Credentials | None) -> Iterator[Mapping[str, str]]:
    """
    While the block lasts, the environment is the function's; the block gets what it was before.

    On an AWS of our own, which has `credentials`, nothing else is kept of AWS's, Powertools' and proxies' variables,
    and no file of AWS's is read.
    """
    before, own = dict(os.environ), _of_our_own(credentials)
    os.environ.clear()
    os.environ.update({name: value for name, value in before.items() if not _is_elsewhere(name, own=own is not None)})
    for variable, value in {**(own or _ANY), "LOG_LEVEL": "INFO", "IDEMPOTENCY_TTL_DAYS": "30"}.items():
        os.environ.setdefault(variable, value)
    os.environ["AWS_ENDPOINT_URL"] = endpoint_url
    os.environ["DISTRIBUTION_BUCKET_NAME"] = f"{name}-distribution"
    os.environ["IDEMPOTENCY_TABLE_NAME"] = f"{name}-ledger"
    os.environ.setdefault("SERVICE_NAME", name)
    try:
        yield before
    finally:
        os.environ.clear()
        os.environ.update(before)


def shell(function: Mapping[str, str], stack: Stack, before: Mapping[str, str]) -> Shell:
    """How a shell whose environment is `before` finds what the environment of a function names."""
    places = {"SOURCE_BUCKET_NAME": stack.source, "QUEUE_URL": stack.queue, "DEAD_LETTER_QUEUE_URL": stack.dead_letters}
    variables = {**{name: function[name] for name in _EXPORTED}, **places}
    return Shell(variables, shell_lines(variables, before))


def shell_lines(variables: Mapping[str, str], before: Mapping[str, str]) -> Sequence[str]:
    """Lines for a POSIX shell: what of `before` leads elsewhere is unset, and `variables` are exported."""
    astray = sorted(name for name in before if _is_elsewhere(name, own=True) and name.isidentifier())
    unset = " ".join(name for name in astray if name not in variables)
    exported = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return [f"unset {unset}", *exported] if unset else exported


def _of_our_own(credentials: Credentials | None) -> dict[str, str] | None:
    if credentials is None:
        return None
    key, secret = credentials
    return {**_OWN, "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}


def _is_elsewhere(variable: str, *, own: bool) -> bool:
    """Whether a variable might lead the function, or what it reports, elsewhere."""
    if own:
        return variable.startswith(("AWS_", "POWERTOOLS_")) or variable.lower().endswith("_proxy") or variable in _OURS
    return variable.startswith("AWS_ENDPOINT_URL_") or variable in {*_OURS, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"}
