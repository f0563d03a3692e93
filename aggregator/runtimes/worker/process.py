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
import signal
import sys
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
from aggregator.pipeline.settings import Settings, switched_off
from aggregator.pipeline.telemetry import Figure, configure_logging, watch_figures
from aggregator.pipeline.terminal import FORMATS, is_for_people
from aggregator.runtimes.lines import Lines, write_at_once
from aggregator.runtimes.polling import BEATS, EventSourceMapping, LocalContext, Polled

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient

WAIT = 5
"""Seconds that an idle process waits for a message in one call, and so at most until it hears that it is to stop."""

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

_LONGEST_PAUSE = 30.0
_NAP = 0.2


class WorkerError(AggregatorError):
    """The worker cannot begin."""

    reason = "worker"


class Options(NamedTuple):
    """
    The options of a process.

    `seconds` is the time of an invocation, `visibility` the queue's time-out. After `batches` of them a process makes
    room for a new one; 0 is never.
    """

    queue_url: str
    batch_size: int = 1_000
    window: float = 1.0
    seconds: int = 120
    visibility: int = 0
    batches: int = 0


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


def check_options(options: Options) -> Options:
    """
    The options, completed with the visibility time-out of the queue.

    Raises:
        ConfigurationError: the environment does not describe a working aggregator.
        WorkerError: queue, bucket or table are not there or not ours, or messages come back before their claims lapse.
    """
    if switched_off(os.environ, "POWERTOOLS_IDEMPOTENCY_DISABLED"):
        raise WorkerError("POWERTOOLS_IDEMPOTENCY_DISABLED switches the guarantee off: remove it from the environment")
    if os.environ.get("LOG_FORMAT", "json") not in FORMATS:
        raise WorkerError("LOG_FORMAT is not known: set it to console or json, or remove it")
    settings = Settings.from_env(os.environ)
    configure_logging(settings)
    with _told("the queue cannot be read"):
        answer = _sqs().get_queue_attributes(QueueUrl=options.queue_url, AttributeNames=["VisibilityTimeout"])
    with _told("the bundles cannot be listed"):
        s3_client(connections=1).list_object_versions(Bucket=settings.distribution_bucket_name, MaxKeys=1)
    with _told("the ledger cannot be read"):
        nobody: Any = {settings.idempotency_table_name: {"Keys": [{"id": {"S": "worker"}}]}}
        dynamodb_client(connections=1).batch_get_item(RequestItems=nobody)
    visibility, needed = int(answer["Attributes"]["VisibilityTimeout"]), shortest_visibility(options.seconds)
    if visibility < needed:
        raise WorkerError(
            "the queue's visibility time-out is too short: raise it, or lower --seconds",
            visibility=visibility,
            needed=needed,
        )
    return options._replace(visibility=visibility)


@contextlib.contextmanager
def _told(message: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise WorkerError(f"{message}: {error}") from error


def shortest_visibility(seconds: int) -> int:
    """
    The shortest visibility time-out for invocations of so many seconds.

    When an invocation begins, its messages may have been invisible for the time between two beats already; what is left
    must last until its claims have lapsed.
    """
    return math.ceil((seconds + GRACE) * BEATS / (BEATS - 1))


def longest(options: Options) -> float:
    """Seconds that a process takes to stop, at most: a receive, an invocation and a thousand deletes."""
    return WAIT + options.seconds + OVERDUE + PATIENCE


def work(options: Options, heartbeats: Connection) -> None:
    """Poll until SIGTERM, until the parent is dead, or until `options.batches` are done; tell `signs` of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which tells the parent too
    sys.stdout = Output()  # the processes of a worker share it, and what waits in a buffer may be lost
    if is_for_people(os.environ):  # who read no JSON: the figures are in the log line, and served over HTTP
        os.environ.setdefault("POWERTOOLS_METRICS_DISABLED", "true")
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
            batch_size=options.batch_size,
            window=options.window,
            wait=WAIT,
            visibility=options.visibility,
            going=self._going,
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
            self._tell("deleting", PATIENCE, figures)

    def _going(self) -> bool:
        if not self._mapping or self._mapping.answered >= self._failed:  # else no poll has succeeded since
            self._tell("polling", PATIENCE)
        return not self._ending()

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
    config = Config(connect_timeout=5, read_timeout=WAIT + 10, retries={"mode": "standard", "total_max_attempts": 3})
    return boto3.session.Session().client("sqs", config=config)
