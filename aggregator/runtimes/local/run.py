"""
The same handler on your own files: upload a folder, let notifications flow, bring the bundles back.

    folder ──PUT──▶ source bucket ──▶ queue ──▶ handler ──▶ distribution bucket ──▶ output folder
                                        └──▶ dead-letter queue: failures, with reasons

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
from aggregator.aws import CommandClients, batches, is_missing
from aggregator.bundles.layout import BUNDLE_KEY
from aggregator.operations.ledger_reader import MOST_READS, LedgerReader
from aggregator.pipeline.outcomes import Outcome
from aggregator.runtimes.gathering import Record
from aggregator.runtimes.lines import Lines
from aggregator.runtimes.local.embedded import Credentials
from aggregator.runtimes.local.environment import Shell, function_environment, shell
from aggregator.runtimes.local.files import LocalRunError
from aggregator.runtimes.local.stack import Stack, make_stack
from aggregator.runtimes.polling import EventSourceMapping, LocalContext
from aggregator.schemas import BODY

if TYPE_CHECKING:
    from aggregator.operations.ledger_reader import RejectionRecord

UPLOADERS = 8

_FUNCTION_SECONDS = 120
_RECEIVES = 3
_PATIENCE = 60.0
"""Seconds without any progress after which a run is given up."""

_REMEDIES = {"oversized_member": ": set MAX_BUNDLE_INPUT_MB to more than its size in MB"}
"""What to do about a rejection, by its reason."""


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
    """How far a run is: files and their bytes, and how much of them is bundled, repeated or failed."""

    files: int
    size: int
    files_done: int
    size_done: int


class Invoked(NamedTuple):
    """What the handler answered, the figures of its report, and the objects that were bundled before they changed."""

    response: Any
    figures: Mapping[str, float]
    overwritten: Sequence[str] = ()


class Step(NamedTuple):
    """One batch: messages; keys that are acknowledged, those of them that are overwritten, and what fails for good."""

    messages: int
    acknowledged: list[str]
    overwritten: list[str]
    failures: list[Failure]


class Run:
    """The resources of a run, and the poller that invokes the handler."""

    def __init__(
        self,
        clients: CommandClients,
        stack: Stack,
        out: Path,
        invoke: Callable[[dict[str, Any]], Invoked],
    ) -> None:
        self.figures: Counter[str] = Counter()
        self.stack = stack
        self._clients, self._out, self._invoke = clients, out, invoke
        self._brought = set(self._bundles())
        self._failed, self._overwritten = list[Record](), list[str]()
        self._mapping = EventSourceMapping(clients.sqs, stack.queue, self._handle, retry_after=1)

    def poll(self) -> Step:
        """Hand one batch to the handler, if messages are there within a second."""
        self._failed, self._overwritten = [], []
        polled = self._mapping.poll()
        acknowledged = [key for body in polled.deleted for key in _keys(body)]
        return Step(len(polled.deleted) + polled.kept, acknowledged, self._overwritten, self._failures())

    def upload(self, key: str, path: Path) -> None:
        """Put a file into the source bucket."""
        with path.open("rb") as body:
            self._clients.s3.put_object(Bucket=self.stack.source, Key=key, Body=body)

    def bring(self) -> Iterator[tuple[str, int]]:
        """Write the bundles that are new below the output folder; their keys and sizes."""
        for key in self._bundles():
            if key not in self._brought and (size := self._download(key)) is not None:
                self._brought.add(key)
                yield key, size

    def waiting(self) -> int:
        """How many messages are on the queue, in hand or not."""
        names: Any = [f"ApproximateNumberOfMessages{state}" for state in ("", "NotVisible", "Delayed")]
        found: Any = self._clients.sqs.get_queue_attributes(QueueUrl=self.stack.queue, AttributeNames=names)
        return sum(map(int, found["Attributes"].values()))

    def aggregate(self, files: Mapping[str, Path], report: Callable[[Progress], object] = lambda _: None) -> Summary:
        """
        Upload `files` and bundle them, until each is bundled, repeated or failed; `report` gets the progress.

        Raises:
            LocalRunError: nothing moves any more, or the AWS does not do what it is asked.
        """
        began, sizes = time.monotonic(), {key: path.stat().st_size for key, path in files.items()}
        failures = self._aggregate(files, sizes, report)
        seconds = time.monotonic() - began
        brought = list(self.bring())
        repeated = self.figures["Duplicates"] + self.figures["Overwritten"]
        return Summary(
            len(files),
            sum(sizes.values()),
            [key for key, _ in brought],
            sum(size for _, size in brought),
            self.figures["MembersBundled"],
            repeated,
            failures,
            round(seconds, 2),
        )

    def _aggregate(
        self, files: Mapping[str, Path], sizes: Mapping[str, int], report: Callable[[Progress], object]
    ) -> list[Failure]:
        waiting, failures, moved, uploaded = set(files), list[Failure](), time.monotonic(), 0
        size, left = sum(sizes.values()), sum(sizes.values())
        with ThreadPoolExecutor(UPLOADERS) as uploaders:
            uploads = [uploaders.submit(self.upload, key, path) for key, path in files.items()]
            try:
                while waiting:
                    step = self.poll()
                    failed = [failure for failure in step.failures if failure.key in waiting]
                    gone = waiting.intersection([*step.acknowledged, *(failure.key for failure in failed)])
                    waiting -= gone
                    left -= sum(sizes[key] for key in gone)
                    failures += failed
                    before, uploaded = uploaded, sum(upload.done() and upload.result() is None for upload in uploads)
                    report(Progress(len(files), size, len(files) - len(waiting), size - left))
                    if gone or before < uploaded:
                        moved = time.monotonic()
                    elif time.monotonic() - moved > _PATIENCE:
                        raise LocalRunError("nothing has moved for a minute; files still waiting", files=len(waiting))
            finally:
                uploaders.shutdown(cancel_futures=True)
        return failures

    def _handle(self, event: dict[str, Any]) -> Any:
        """Invoke the handler, and keep in mind what its answer, or its failure, sends to the dead-letter queue."""
        last = [each for each in event["Records"] if int(each["attributes"]["ApproximateReceiveCount"]) >= _RECEIVES]
        self._failed = last
        invoked = self._invoke(event)
        kept = {failure["itemIdentifier"] for failure in invoked.response["batchItemFailures"]}
        self._failed = [record for record in last if record["messageId"] in kept]
        self._overwritten += invoked.overwritten
        self.figures.update(invoked.figures)
        return invoked.response

    def _failures(self) -> list[Failure]:
        """What goes to the dead-letter queue now, with the reason that the ledger keeps."""
        known: dict[str, RejectionRecord] = {}
        for some in batches(self._failed, MOST_READS):
            known |= self._ledger().rejections_of([record["messageId"] for record in some])
        return [
            Failure(key, _reason(known.get(record["messageId"])))
            for record in self._failed
            for key in _announced(record)
        ]

    def _ledger(self) -> LedgerReader:
        table, distribution = self.stack.table, self.stack.distribution
        dynamodb = self._clients.dynamodb
        return LedgerReader(dynamodb, table=table, distribution=distribution, scope="key", now=time.time())

    def _download(self, key: str) -> int | None:
        """The size of a bundle that is brought; None, if it was deleted since it was listed."""
        target = self._out / key
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._clients.s3.download_file(self.stack.distribution, key, str(target))
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return target.stat().st_size

    def _bundles(self) -> list[str]:
        pages = self._clients.s3.get_paginator("list_objects_v2").paginate(Bucket=self.stack.distribution)
        listed = (each["Key"] for page in pages for each in page.get("Contents", []))
        return [key for key in listed if BUNDLE_KEY.fullmatch(key)]  # so none leads out of the folder


@contextlib.contextmanager
def opened(
    out: Path,
    *,
    endpoint_url: str,
    name: str,
    credentials: Credentials | None = None,
    invoke: Callable[[dict[str, Any]], Invoked] | None = None,
    log: Callable[[str], object] = lambda _: None,
) -> Iterator[tuple[Run, Shell]]:
    """
    A run on the AWS at `endpoint_url` whose bundles come below `out`, and how a shell finds its AWS.

    `name` begins the name of every resource, which is made if it is not there; `credentials` are those of an AWS that
    was started for the run, so nothing that the environment says about another one counts; `invoke` runs the handler,
    by default in this process; `log` is given each line that the handler logs.

    Raises:
        LocalRunError: the AWS does not do what it is asked.
    """
    with (
        function_environment(endpoint_url, name, credentials) as before,
        contextlib.redirect_stdout(Lines(lambda line: log(line.rstrip("\n")))),
        _translated(),
    ):
        clients = CommandClients.build(UPLOADERS + 2, attempts=3, session=boto3.Session())
        stack = make_stack(clients, name, visibility_timeout=6 * _FUNCTION_SECONDS, receives=_RECEIVES)
        yield Run(clients, stack, out, invoke or _invoke), shell(os.environ, stack, before)


def run(
    files: Mapping[str, Path], out: Path, *, report: Callable[[Progress], object] = lambda _: None, **options: Any
) -> Summary:
    """
    Aggregate `files` and write the bundles below `out`, by a run that is `opened` with `options`.

    Raises:
        LocalRunError: nothing moves any more, or the AWS does not do what it is asked.
    """
    with opened(out, **options) as (opened_run, _):
        return opened_run.aggregate(files, report)


def _invoke(event: dict[str, Any]) -> Invoked:
    context: Any = LocalContext(function="aggregator-local", seconds=_FUNCTION_SECONDS)
    response, report = app.process(event, context)
    wanted = (each for one in report.parsed for each in one.envelope.wanted)
    overwritten = [each.ref.key for each in wanted if report.result.outcomes[each.id] is Outcome.OVERWRITTEN]
    return Invoked(response, report.figures(), overwritten)


def _keys(body: str) -> list[str]:
    return [ref.key for ref in BODY.validate_json(body).objects()]


def _announced(record: Record) -> list[str]:
    """The keys that a message announces; a name for it, if it is not a notification."""
    try:
        return _keys(record["body"])
    except ValueError:
        return [f"message {record['messageId']}"]


def _reason(rejection: "RejectionRecord | None") -> str:
    if rejection is None:
        return f"not bundled in {_RECEIVES} attempts: --log FILE shows why"
    return rejection.message + _REMEDIES.get(rejection.reason, "")


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What the AWS at the endpoint says, as a line for people."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise LocalRunError(str(error)) from error
