"""
The same handler on your own files: upload a folder, let notifications flow, bring the bundles back.

    folder ──PUT──▶ source bucket ──▶ queue ──▶ handler ──▶ distribution bucket ──▶ output folder
                                        └──▶ dead-letter queue ──▶ failures, with reasons

Everything runs as it does on AWS but for two things: a failed message comes back after a second, not after the
visibility time-out, and goes to the dead-letter queue after three receives.
"""

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aggregator import app
from aggregator.aws import CommandClients
from aggregator.operations.ledger_reader import LedgerReader
from aggregator.runtimes.lines import Lines
from aggregator.runtimes.local.embedded import Credentials
from aggregator.runtimes.local.files import LocalRunError
from aggregator.runtimes.local.stack import Stack, make_stack
from aggregator.runtimes.polling import EventSourceMapping, LocalContext
from aggregator.schemas import BODY

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_UPLOADERS = 8
_FUNCTION_SECONDS = 120
_RECEIVES = 3
_PATIENCE = 60.0
"""Seconds without any progress after which a run is given up."""


_ANY = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}
_OWN = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_OURS = {"ARCHIVE_BUCKET_NAME", "IDEMPOTENCY_SCOPE"}
"""Settings that are of a deployment and not of a run."""


class Failure(NamedTuple):
    """A file that ended in the dead-letter queue, and why."""

    key: str
    reason: str


class Summary(NamedTuple):
    """What a run did; sizes in bytes, `seconds` from the first upload to the last bundle."""

    files: int
    bytes_in: int
    bundles: list[str]
    bytes_out: int
    members: int
    duplicates: int
    failures: list[Failure]
    seconds: float


class Progress(NamedTuple):
    """How far a run is: files uploaded, and files that are bundled, repeated or failed."""

    files: int
    uploaded: int
    done: int


class Invoked(NamedTuple):
    """What the handler answered, and the figures of its report."""

    response: Any
    figures: Mapping[str, float]


def run(
    files: Mapping[str, Path],
    out: Path,
    *,
    endpoint_url: str,
    name: str,
    credentials: Credentials | None = None,
    invoke: "Callable[[dict[str, Any]], Invoked] | None" = None,
    log: Callable[[str], object] = lambda _: None,
    report: Callable[[Progress], object] = lambda _: None,
) -> Summary:
    """
    Aggregate `files` on the AWS at `endpoint_url` and write the bundles below `out`.

    `name` begins the name of every resource, which is made if it is not there; `credentials` are those of an AWS that
    was started for the run, so nothing that the environment says about another one counts; `invoke` runs the handler,
    by default in this process; `log` is given each line that the handler logs, `report` the progress.

    Raises:
        LocalRunError: nothing moves any more, or the AWS does not do what it is asked.
    """
    figures: Counter[str] = Counter()

    def counted(event: dict[str, Any]) -> Any:
        response, told = (invoke or _invoke)(event)
        figures.update(told)
        return response

    with (
        _environment(endpoint_url, name, credentials),
        contextlib.redirect_stdout(Lines(lambda line: log(line.rstrip("\n")))),
        _translated(),
    ):
        clients = CommandClients.build(_UPLOADERS + 2, attempts=3, session=boto3.Session())
        stack = make_stack(clients, name, visibility_timeout=6 * _FUNCTION_SECONDS, receives=_RECEIVES)
        began = time.monotonic()
        earlier = set(_bundles(clients.s3, stack.distribution))
        failures = _aggregate(files, clients, stack, counted, report)
        seconds = time.monotonic() - began
        bundles = [key for key in _bundles(clients.s3, stack.distribution) if key not in earlier]
        bytes_out = sum(_download(clients.s3, stack.distribution, key, out) for key in bundles)
    bytes_in = sum(path.stat().st_size for path in files.values())
    repeated = figures["Duplicates"] + figures["Overwritten"]
    return Summary(
        len(files), bytes_in, bundles, bytes_out, figures["MembersBundled"], repeated, failures, round(seconds, 2)
    )


def _aggregate(
    files: Mapping[str, Path],
    clients: CommandClients,
    stack: Stack,
    invoke: Callable[[dict[str, Any]], Any],
    report: Callable[[Progress], object],
) -> list[Failure]:
    """Upload while a poller invokes the handler, until every file is bundled, repeated or failed."""
    waiting, failures, moved = set(files), list[Failure](), time.monotonic()
    mapping = EventSourceMapping(clients.sqs, stack.queue, invoke, retry_after=1)
    with ThreadPoolExecutor(_UPLOADERS) as uploaders:
        uploads = [uploaders.submit(_upload, clients.s3, stack.source, key, path) for key, path in files.items()]
        try:
            while waiting:
                before = len(waiting)
                waiting.difference_update(*map(_keys, mapping.poll().deleted))
                failures += _failures(clients, stack, waiting)
                uploaded = [upload for upload in uploads if upload.done()]
                for upload in uploaded:
                    upload.result()
                report(Progress(len(files), len(uploaded), len(files) - len(waiting)))
                if len(waiting) < before or len(uploaded) < len(uploads):
                    moved = time.monotonic()
                elif time.monotonic() - moved > _PATIENCE:
                    raise LocalRunError("nothing has moved for a minute; files still waiting", files=len(waiting))
        finally:
            uploaders.shutdown(cancel_futures=True)
    return failures


def _invoke(event: dict[str, Any]) -> Invoked:
    context: Any = LocalContext(function="aggregator-local", seconds=_FUNCTION_SECONDS)
    processed = app.process(event, context)
    return Invoked(processed.response, processed.report.figures())


def _keys(body: str) -> list[str]:
    return [ref.key for ref in BODY.validate_json(body).objects()]


def _failures(clients: CommandClients, stack: Stack, waiting: set[str]) -> list[Failure]:
    """What has come to the dead-letter queue, with the reason that the ledger kept."""
    failures = []
    answer = clients.sqs.receive_message(QueueUrl=stack.dead_letters, MaxNumberOfMessages=10)
    messages = answer.get("Messages", [])
    refused = _ledger(clients, stack).rejections_of([message["MessageId"] for message in messages])
    for message in messages:
        known = refused.get(message["MessageId"])
        reason = known.message if known else f"not bundled in {_RECEIVES} attempts"
        for key in _keys(message["Body"]):
            if key in waiting:
                waiting.discard(key)
                failures.append(Failure(key, reason))
        clients.sqs.delete_message(QueueUrl=stack.dead_letters, ReceiptHandle=message["ReceiptHandle"])
    return failures


def _ledger(clients: CommandClients, stack: Stack) -> LedgerReader:
    return LedgerReader(
        clients.dynamodb, table=stack.table, distribution=stack.distribution, scope="key", now=time.time()
    )


def _upload(s3: "S3Client", bucket: str, key: str, path: Path) -> None:
    with path.open("rb") as body:
        s3.put_object(Bucket=bucket, Key=key, Body=body)


def _bundles(s3: "S3Client", bucket: str) -> Sequence[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [listed["Key"] for page in pages for listed in page.get("Contents", [])]


def _download(s3: "S3Client", bucket: str, key: str, out: Path) -> int:
    target = out / key
    target.parent.mkdir(parents=True, exist_ok=True)
    s3.download_file(bucket, key, str(target))
    return target.stat().st_size


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What the AWS at the endpoint says, as a line for people."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise LocalRunError(str(error)) from error


@contextlib.contextmanager
def _environment(endpoint_url: str, name: str, credentials: Credentials | None) -> Iterator[None]:
    """
    The environment of the function: where it works is given; what the user has set of how it works is kept.

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
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


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
