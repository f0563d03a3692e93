"""
One process of `aggregator worker`: the handler that runs in Lambda, and the poller in front of it.

    receive ▸ handle ▸ delete, until told to stop; then what is in hand is finished, and nothing more received

A message that is not deleted comes back by itself when its visibility time-out ends, so a process may die at any
moment. By then the claims that it left must have lapsed, or the message is found in flight and loses one of its
receives. `check_options` enforces this. (A claim lapses `GRACE` seconds after its invocation's time.)
"""

import contextlib
import math
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from aggregator import app
from aggregator.aws import dynamodb_client, error_code, s3_client
from aggregator.exceptions import AggregatorError
from aggregator.pipeline.deadlines import GRACE
from aggregator.pipeline.settings import MEGABYTE, Settings, switched_off
from aggregator.pipeline.telemetry import Figure, configure_logging, watch_figures
from aggregator.pipeline.terminal import FORMATS, is_for_people
from aggregator.runtimes.gathering import Limits
from aggregator.runtimes.lines import Lines, write_at_once
from aggregator.runtimes.polling import EventSourceMapping, LocalContext, Polled
from aggregator.runtimes.visibility import BEATS

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

WAIT = 5
"""Seconds that an idle process waits for a message in one call, and so at most until it hears that it is to stop."""

THREADS = 16
"""Calls of a kind that a process makes to SQS at the same time: receives, deletes, extensions of the visibility."""

SWEPT = 2_000
"""
Messages a second that are extended or deleted at least: measured were 3,400 while the handler worked, on two cores that
were shared with other work (`benchmarks/large.py`).
"""

PATIENCE = 60.0
"""Seconds without a sign of life, but for the time that an invocation may take, after which a process is unwell."""

OVERDUE = GRACE / 2
"""
Seconds after its time when an invocation is killed: well before its claims lapse, so that who takes over from it
meets no put of it any more.
"""

HANDLING = "handling"
"""The state of a process while the handler works; one that exceeds its time then is killed, as Lambda does."""

LOG_EVENTS = {
    "poll.failed": "SQS could not be asked, or did not answer: it is asked again, ever less often, up to every 30 s",
}
"""What a process says beside the log events of `telemetry.py` and `polling.py`."""

log = structlog.get_logger()

_LIMIT = "MAX_BUNDLE_INPUT_MB"
_LONGEST_PAUSE = 30.0
_NAP = 0.2


class WorkerError(AggregatorError):
    """The worker cannot begin."""

    reason = "worker"


class Options(NamedTuple):
    """
    The options of a process.

    `seconds` is the time of an invocation, `visibility` the queue's time-out. A batch ends when its objects are
    `bundle_mb` MB, by what its messages announce; 0 is no bound. After `batches` of them a process makes room for a new
    one; 0 is never.
    """

    queue_url: str
    batch_size: int = 1_000
    window: float = 1.0
    seconds: int = 120
    visibility: int = 0
    batches: int = 0
    bundle_mb: int = 0


class Heartbeat(NamedTuple):
    """
    A sign of life: what the process does, how many seconds that may take, and what it has done so far.

    `unread` says that nobody reads its standard output any more. `in_hand` are messages that were received and are
    neither deleted nor left to come back; `answered` is when SQS last answered a receive, by the monotonic clock, 0 for
    never. `figures` are those of the invocation that has just ended.
    """

    state: str = "starting"
    allowed: float = PATIENCE
    batches: int = 0
    deleted: int = 0
    kept: int = 0
    unread: bool = False
    in_hand: int = 0
    answered: float = 0.0
    figures: tuple[Figure, ...] = ()


class Output(Lines):
    """Standard output as whole lines, until nobody reads it any more: the rest is dropped, and `unread` is called."""

    def __init__(self, unread: Callable[[], object] = lambda: None) -> None:
        self.is_read = True
        write = write_at_once(1)

        def hand_on(line: str) -> None:
            try:
                if self.is_read:
                    write(line)
            except BrokenPipeError:
                self.is_read = False
                unread()

        super().__init__(hand_on)

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return os.isatty(1)


def check_options(options: Options, *, processes: int = 1) -> Options:
    """
    The options, completed with the visibility time-out of the queue.

    Raises:
        ConfigurationError: the environment does not describe a working aggregator.
        WorkerError: queue, bucket or table are not there or not ours, messages come back before their claims lapse, or
            the bundles do not fit on the disk.
    """
    if switched_off(os.environ, "POWERTOOLS_IDEMPOTENCY_DISABLED"):
        raise WorkerError("POWERTOOLS_IDEMPOTENCY_DISABLED switches the guarantee off: remove it from the environment")
    if os.environ.get("LOG_FORMAT", "json") not in FORMATS:
        raise WorkerError("LOG_FORMAT is not known: set it to console or json, or remove it")
    settings = Settings.from_env(_environment(options))
    configure_logging(settings)
    if options.bundle_mb:
        _check_bundle(options, settings, processes)
    with _told("the queue cannot be read"):
        answer = _sqs().get_queue_attributes(QueueUrl=options.queue_url, AttributeNames=["VisibilityTimeout"])
    with _told("the bundles cannot be listed"):
        s3_client(connections=1).list_object_versions(Bucket=settings.distribution_bucket_name, MaxKeys=1)
    with _told("the ledger cannot be read"):
        nobody: Any = {settings.idempotency_table_name: {"Keys": [{"id": {"S": "worker"}}]}}
        dynamodb_client(connections=1).batch_get_item(RequestItems=nobody)
    visibility = int(answer["Attributes"]["VisibilityTimeout"])
    needed = shortest_visibility(options.seconds, options.batch_size)
    if visibility < needed:
        raise WorkerError(
            "the queue's visibility time-out is too short: raise it, or lower --seconds or --batch-size",
            visibility=visibility,
            needed=needed,
        )
    return options._replace(visibility=visibility)


def _environment(options: Options) -> dict[str, str]:
    """The environment of the handler: the bundle of a batch is as large as the option says."""
    if options.bundle_mb and not os.environ.get(_LIMIT):
        return {**os.environ, _LIMIT: str(options.bundle_mb)}
    return dict(os.environ)


def _check_bundle(options: Options, settings: Settings, processes: int) -> None:
    """
    Whether bundles may be, and can be, as large as the option says.

    Raises:
        WorkerError: the environment says another size, or the disk has no space for a bundle of each process.
    """
    if settings.max_bundle_input_mb != options.bundle_mb:
        raise WorkerError(
            f"{_LIMIT} and --bundle-mb are different: remove {_LIMIT} from the environment",
            MAX_BUNDLE_INPUT_MB=settings.max_bundle_input_mb,
            bundle_mb=options.bundle_mb,
        )
    folder = tempfile.gettempdir()
    free, needed = shutil.disk_usage(folder).free // MEGABYTE, processes * options.bundle_mb
    if free < needed:
        raise WorkerError(
            f"{folder} has no space for a bundle of each process: enlarge it, or lower --bundle-mb or --processes",
            free_MB=free,
            needed_MB=needed,
        )


@contextlib.contextmanager
def _told(message: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise WorkerError(f"{message}: {error}") from error


def shortest_visibility(seconds: int, batch_size: int = 1_000) -> int:
    """
    The shortest visibility time-out for invocations of so many seconds, with so many messages.

    When an invocation begins, its messages may have been invisible for the time between two extensions already, and for
    the time that it takes to extend all; what is left must last until its claims have lapsed.
    """
    return math.ceil((seconds + GRACE + batch_size // SWEPT) * BEATS / (BEATS - 1))


def longest(options: Options) -> float:
    """Seconds that a process takes to stop, at most: a receive, an invocation and the deletes of a batch."""
    return WAIT + options.seconds + OVERDUE + PATIENCE + options.batch_size // SWEPT


def work(options: Options, heartbeats: Connection) -> None:
    """Poll until SIGTERM, until the parent is dead, or until `options.batches` are done; tell `signs` of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which tells the parent too
    sys.stdout = Output()  # the processes of a worker share it, and what waits in a buffer may be lost
    if is_for_people(os.environ):  # who read no JSON: the figures are in the log line, and served over HTTP
        os.environ.setdefault("POWERTOOLS_METRICS_DISABLED", "true")
    os.environ.update(_environment(options))
    configure_logging(Settings.from_env(os.environ))
    _Process(options, heartbeats).run()


class _Process:
    def __init__(self, options: Options, heartbeats: Connection) -> None:
        self._options, self._heartbeats = options, heartbeats
        self._heartbeat = Heartbeat()
        self._mapping: EventSourceMapping | None = None
        self._failed = 0.0  # when a poll last failed
        self._stopping = False
        signal.signal(signal.SIGTERM, self._stop)

    def run(self) -> None:
        """Poll, until there is no going on and nothing in hand; an SQS that fails is asked ever less often."""
        failures = 0
        while True:
            try:
                self._mapping = self._mapping or self._make_mapping()
                polled = self._mapping.poll()
            except (ClientError, BotoCoreError) as error:
                failures, self._failed = failures + 1, time.monotonic()
                log.warning("poll.failed", failures=failures, fault=error_code(error))
                polled = Polled([], 0)
                self._pause(min(2.0**failures, _LONGEST_PAUSE))
            else:
                failures = 0
                self._count(polled)
            if polled == Polled([], 0) and self._ending():
                return

    def _make_mapping(self) -> EventSourceMapping:
        options = self._options
        return EventSourceMapping(
            _sqs(),
            options.queue_url,
            self._invoke,
            limits=Limits(options.batch_size, options.window, WAIT, bundle=options.bundle_mb * MEGABYTE or None),
            visibility=options.visibility,
            threads=THREADS,
            going=self._going,
            deleting=self._deleting,
        )

    def _invoke(self, event: dict[str, Any]) -> Any:
        invocation = LocalContext(
            function=os.environ["SERVICE_NAME"],
            seconds=self._options.seconds,
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
            arn=f"worker:{platform.node()}:{os.getpid()}",
        )
        self._tell(HANDLING, self._options.seconds + OVERDUE)
        figures = list[Figure]()
        try:
            with watch_figures(figures.append):
                return app.handler(event, invocation)  # type: ignore[arg-type]
        finally:
            self._deleting(figures)

    def _going(self) -> bool:
        if not self._mapping or self._mapping.answered >= self._failed:  # else no poll has succeeded since
            self._tell("polling", PATIENCE)
        return not self._ending()

    def _deleting(self, figures: Sequence[Figure] = ()) -> None:
        self._tell("deleting", PATIENCE, figures)

    def _ending(self) -> bool:
        parent = parent_process()
        enough = 0 < self._options.batches <= self._heartbeat.batches
        return self._stopping or enough or parent is None or not parent.is_alive()

    def _count(self, polled: Polled) -> None:
        deleted, kept = len(polled.deleted), polled.kept
        self._heartbeat = self._heartbeat._replace(
            batches=self._heartbeat.batches + bool(deleted or kept),
            deleted=self._heartbeat.deleted + deleted,
            kept=self._heartbeat.kept + kept,
        )

    def _tell(self, state: str, allowed: float, figures: Sequence[Figure] = ()) -> None:
        unread = isinstance(sys.stdout, Output) and not sys.stdout.is_read
        self._heartbeat = self._heartbeat._replace(
            state=state,
            allowed=allowed,
            unread=unread,
            in_hand=self._mapping.in_hand if self._mapping else 0,
            answered=self._mapping.answered if self._mapping else 0.0,
            figures=tuple(figures),
        )
        with contextlib.suppress(BrokenPipeError):  # the parent is dead, which ends us after this batch
            self._heartbeats.send(self._heartbeat)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _pause(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not self._ending():
            time.sleep(_NAP)


def _sqs() -> "SQSClient":
    config = Config(
        connect_timeout=5,
        read_timeout=WAIT + 10,
        retries={"mode": "standard", "total_max_attempts": 3},
        max_pool_connections=2 * THREADS,
    )
    return boto3.session.Session().client("sqs", config=config)
