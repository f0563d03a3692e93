"""
The same handler on your own files: upload a folder, let notifications flow, bring the bundles back.

    folder ──PUT──▶ source bucket ──▶ queue ──▶ handler ──▶ distribution bucket ──▶ output folder
                                        └──▶ dead-letter queue ──▶ failures, with reasons

Everything runs as it does on AWS but for two things: a failed message comes back after a second, not after the
visibility time-out, and goes to the dead-letter queue after three receives.
"""

import contextlib
import io
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from aggregator import app
from aggregator.exceptions import AggregatorError
from aggregator.operations.ledger_reader import LedgerReader
from aggregator.runtimes.polling import EventSourceMapping, Invocation
from aggregator.schemas import BODY, MAX_KEY_BYTES

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient

_UPLOADERS = 8
_FUNCTION_SECONDS = 120
_RECEIVES = 3
_PATIENCE = 60.0
"""Seconds without any progress after which a run is given up."""


class LocalRunError(AggregatorError):
    """The run cannot begin, or got stuck."""

    reason = "local_run"


class Files(NamedTuple):
    """Files by the key each will have; and how many linked folders, pipes and the like were passed over."""

    by_key: dict[str, Path]
    passed_over: int


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


class Clients(NamedTuple):
    """The clients of a run, all on one endpoint."""

    s3: "S3Client"
    sqs: "SQSClient"
    dynamodb: "DynamoDBClient"


class Stack(NamedTuple):
    """The resources of a run, by name; the queues by URL."""

    source: str
    distribution: str
    table: str
    queue: str
    dead_letters: str


def readable_files(folder: Path, *, out: Path) -> Files:
    """
    The files below `folder`, by the key each will have: its relative path, with slashes; without those below `out`.

    Raises:
        LocalRunError: there is no such folder, it is empty or `out` itself, or something in it cannot be read.
    """
    if not folder.is_dir():
        raise LocalRunError("there is no such folder: " + str(folder))
    if folder.resolve() == out.resolve():
        raise LocalRunError("bundles cannot be written among the files that they are made of: name another --out")
    found, others = dict[str, Path](), 0
    try:
        for path in sorted(_walk(folder, out.resolve())):
            if path.exists() and not path.is_file():  # a link to nowhere is named when it is opened
                others += 1
                continue
            key = _key(path.relative_to(folder))
            with path.open("rb"):
                found[key] = path
    except OSError as error:
        raise LocalRunError(f"cannot read {error.filename}: {error.strerror}") from error
    if not found:
        raise LocalRunError("there are no files in " + str(folder))
    return Files(found, others)


def writable_folder(folder: Path) -> None:
    """
    Make `folder`, if it is not there.

    Raises:
        LocalRunError: it cannot be made, or nothing can be written into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".aggregator-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LocalRunError(f"cannot write to {folder}: {error.strerror}") from error


def run(
    files: Mapping[str, Path],
    out: Path,
    *,
    endpoint_url: str,
    name: str,
    invoke: "Callable[[dict[str, Any]], Invoked] | None" = None,
    log: Callable[[str], object] = lambda _: None,
    report: Callable[[Progress], object] = lambda _: None,
) -> Summary:
    """
    Aggregate `files` on the AWS at `endpoint_url` and write the bundles below `out`.

    `name` begins the name of every resource, which is made if it is not there; `invoke` runs the handler, by default in
    this process; `log` is given each line that the handler logs, `report` the progress.

    Raises:
        LocalRunError: nothing moves any more, or the AWS does not do what it is asked.
    """
    figures: Counter[str] = Counter()

    def counted(event: dict[str, Any]) -> Any:
        response, told = (invoke or _invoke)(event)
        figures.update(told)
        return response

    with _environment(endpoint_url, name), contextlib.redirect_stdout(_Lines(log)), _translated():
        clients = _clients()
        stack = _made(clients, name)
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
    clients: Clients,
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
    context: Any = Invocation(function="aggregator-local", seconds=_FUNCTION_SECONDS)
    processed = app.process(event, context)
    return Invoked(processed.response, processed.report.figures())


def _keys(body: str) -> list[str]:
    return [ref.key for ref in BODY.validate_json(body).objects()]


def _failures(clients: Clients, stack: Stack, waiting: set[str]) -> list[Failure]:
    """What has come to the dead-letter queue, with the reason that the ledger kept."""
    failures = []
    answer = clients.sqs.receive_message(QueueUrl=stack.dead_letters, MaxNumberOfMessages=10)
    messages = answer.get("Messages", [])
    refused = _ledger(clients, stack).refused([message["MessageId"] for message in messages])
    for message in messages:
        known = refused.get(message["MessageId"])
        reason = known.message if known else f"not bundled in {_RECEIVES} attempts"
        for key in _keys(message["Body"]):
            if key in waiting:
                waiting.discard(key)
                failures.append(Failure(key, reason))
        clients.sqs.delete_message(QueueUrl=stack.dead_letters, ReceiptHandle=message["ReceiptHandle"])
    return failures


def _ledger(clients: Clients, stack: Stack) -> LedgerReader:
    return LedgerReader(
        clients.dynamodb, table=stack.table, distribution=stack.distribution, scope="key", now=time.time()
    )


def _clients() -> Clients:
    session = boto3.session.Session()
    config = Config(retries={"mode": "standard", "total_max_attempts": 3}, max_pool_connections=_UPLOADERS + 2)
    path_style = config.merge(Config(s3={"addressing_style": "path"}))
    return Clients(
        session.client("s3", config=path_style),
        session.client("sqs", config=config),
        session.client("dynamodb", config=config),
    )


def _made(clients: Clients, name: str) -> Stack:
    """The resources of a run, made where they are missing."""
    dead_letters = _queue(clients.sqs, f"{name}-dead-letters", {})
    redrive = {"deadLetterTargetArn": _arn(clients.sqs, dead_letters), "maxReceiveCount": _RECEIVES}
    settings = {"VisibilityTimeout": str(6 * _FUNCTION_SECONDS), "RedrivePolicy": json.dumps(redrive)}
    queue = _queue(clients.sqs, name, settings)
    stack = Stack(f"{name}-source", f"{name}-distribution", f"{name}-ledger", queue, dead_letters)
    for bucket in (stack.source, stack.distribution):
        with _already("BucketAlreadyOwnedByYou"):
            clients.s3.create_bucket(Bucket=bucket)
    clients.s3.put_bucket_versioning(Bucket=stack.distribution, VersioningConfiguration={"Status": "Enabled"})
    with _already("ResourceInUseException"):
        make_ledger(clients.dynamodb, stack.table)
    _notify(clients, stack)
    return stack


def make_ledger(dynamodb: "DynamoDBClient", table: str) -> None:
    """Make the DynamoDB table of a ledger."""
    dynamodb.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1})


def _notify(clients: Clients, stack: Stack) -> None:
    arn = _arn(clients.sqs, stack.queue)
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn,
                "Condition": {"ArnLike": {"aws:SourceArn": f"arn:aws:s3:::{stack.source}"}},
            }
        ],
    }
    clients.sqs.set_queue_attributes(QueueUrl=stack.queue, Attributes={"Policy": json.dumps(policy)})
    clients.s3.put_bucket_notification_configuration(
        Bucket=stack.source,
        NotificationConfiguration={"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]},
    )


def _queue(sqs: "SQSClient", name: str, attributes: dict[str, str]) -> str:
    return sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]


def _arn(sqs: "SQSClient", queue_url: str) -> str:
    return sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


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


def _key(path: Path) -> str:
    """The key of a file with that relative path."""
    key = path.as_posix()
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise LocalRunError("a file's name is not Unicode, so no S3 key: " + repr(path.name)) from None
    if size > MAX_KEY_BYTES:
        raise LocalRunError(f"a file's path is longer than the {MAX_KEY_BYTES:,} bytes of an S3 key: {key}")
    return key


def _walk(folder: Path, out: Path) -> Iterator[Path]:
    """All that lies below `folder` but folders, and links to folders; nothing of `out`."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        yield from (Path(parent, name) for name in names)
        yield from (path for name in folders if (path := Path(parent, name)).is_symlink())
        folders[:] = [name for name in folders if Path(parent, name).resolve() != out]


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What the AWS at the endpoint says, as a line for people."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise LocalRunError(str(error)) from error


@contextlib.contextmanager
def _already(code: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] != code:
            raise


@contextlib.contextmanager
def _environment(endpoint_url: str, name: str) -> Iterator[None]:
    """The environment of the function; what the user has set of it is kept, but for where the function works."""
    before = dict(os.environ)
    defaults = {
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "IDEMPOTENCY_TTL_DAYS": "30",
        "LOG_LEVEL": "INFO",
        "SERVICE_NAME": name,
    }
    given = {"AWS_ENDPOINT_URL": endpoint_url, "DISTRIBUTION_BUCKET_NAME": f"{name}-distribution"}
    os.environ.update({**defaults, **before, **given, "IDEMPOTENCY_TABLE_NAME": f"{name}-ledger"})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Lines(io.TextIOBase):
    """What the handler writes to stdout, line by line."""

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log, self._rest = log, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._log(line)
        return len(text)
