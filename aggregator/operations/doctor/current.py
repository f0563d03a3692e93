"""
What is wrong with a deployment at this moment, and the next command to type, with the deployment's own names.

The conditions of the guarantee are in `checks.py`; these findings are about today: alarms that ring, messages that
wait or were given up, bundles whose copies are late. `current_from_aws.py` asks for the facts. Pure: no AWS.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from aggregator.operations.doctor.checks import State
from aggregator.operations.doctor.facts import Unknown

LATEST_COPY = 900
"""Seconds within which S3 copies most objects (S3 user guide, "Replication Time Control")."""

RETURNS = 5 / 3
"""Visibility time-outs after which a message has waited too long, as the alarm oldest-message has it."""


class Alarm(NamedTuple):
    """An alarm of the stack: its state, since when (seconds since the epoch), and why; no state if it is not there."""

    name: str
    state: str
    since: float
    why: str


class Depth(NamedTuple):
    """How many messages a queue has; `visibility` in seconds."""

    url: str
    waiting: int
    in_flight: int
    visibility: int


class Copy(NamedTuple):
    """What S3 says of the replication of a bundle, and when the bundle was published."""

    url: str
    status: str
    published: float


class Names(NamedTuple):
    """What the parts of the deployment are called, for commands."""

    stack: str
    function: str
    mapping: str
    log: str
    table: str
    distribution: str


class Today(NamedTuple):
    """
    All that is known of this moment.

    `oldest` is the age of the oldest message in seconds, `retried` counts messages that came back in the last hour by
    reason, `rejected` those that were rejected in 14 days: a message counts each time that it is received.
    `bundles` are the last ones, the latest first, and `copies` what became of their replication.
    """

    names: Names
    alarms: Sequence[Alarm] | Unknown
    queue: Depth | Unknown
    oldest: float | Unknown | None
    retried: Mapping[str, int] | Unknown
    dead: Depth | Unknown
    rejected: Mapping[str, int] | Unknown
    bundles: Sequence[tuple[str, float]] | Unknown
    copies: Sequence[Copy] | Unknown


class Symptom(NamedTuple):
    """What is the case now, in words; and the next command, if something is wrong."""

    check: str
    state: State
    says: str
    next: str


def symptoms(today: Today, *, now: float) -> list[Symptom]:
    """What is wrong, what could not be looked at, and one line on the rest."""
    found = [*_alarms(today, now), _queue(today), _dead_letters(today), _last_bundle(today, now), _copies(today, now)]
    well = [each for each in found if each.state is State.OK]
    ill = [each for each in found if each.state is State.WRONG]
    unknown = [each for each in found if each.state is State.NOT_CHECKED]
    says = "; ".join(each.says for each in well)
    rest = [] if not well else [Symptom("now", State.OK, says if ill or unknown else f"nothing is wrong: {says}", "")]
    return ill + unknown + rest


def _alarms(today: Today, now: float) -> Iterator[Symptom]:
    if isinstance(today.alarms, Unknown):
        yield Symptom("alarms", State.NOT_CHECKED, today.alarms.why, "")
        return
    ill = [each for each in today.alarms if each.state in {"ALARM", ""}]
    for each in ill:
        kind = each.name.removeprefix(f"{today.names.stack}-")
        if not each.state:
            command = f"just drift {shlex.quote(today.names.stack)}"
            yield Symptom(kind, State.WRONG, f"the alarm {each.name} is not there", command)
            continue
        since = f"rings since {_moment(each.since)} ({_duration(now - each.since)})"
        yield Symptom(kind, State.WRONG, f"the alarm {each.name} {since}: {each.why}", _next(kind, today))
    if not ill:
        yield Symptom("alarms", State.OK, "no alarm rings", "")


def _queue(today: Today) -> Symptom:
    if isinstance(today.queue, Unknown):
        return Symptom("queue", State.NOT_CHECKED, today.queue.why, "")
    queue, oldest = today.queue, today.oldest
    says = f"{_messages(queue.waiting)} in the queue, {queue.in_flight:,} in flight"
    if not queue.waiting and not queue.in_flight:
        return Symptom("queue", State.OK, says, "")
    if isinstance(oldest, Unknown) or oldest is None:
        why = oldest.why if oldest else "CloudWatch has no figure of the last 15 minutes"
        return Symptom("queue", State.NOT_CHECKED, f"{says}; the age of the oldest is not known: {why}", "")
    says = f"{says}; the oldest waits for {_duration(oldest)}"
    if oldest <= RETURNS * queue.visibility:
        return Symptom("queue", State.OK, says, "")
    if not isinstance(today.retried, Unknown) and today.retried:
        says += f"; messages came back in the last hour for {_counts(today.retried)}"
    return Symptom("queue", State.WRONG, says, _next("oldest-message", today))


def _dead_letters(today: Today) -> Symptom:
    if isinstance(today.dead, Unknown):
        return Symptom("dead letters", State.NOT_CHECKED, today.dead.why, "")
    count = today.dead.waiting + today.dead.in_flight
    if not count:
        return Symptom("dead letters", State.OK, "no dead letters", "")
    says = f"{_messages(count)} in the dead-letter queue"
    if isinstance(today.rejected, Unknown):
        says += f"; the reasons are not known: {today.rejected.why}"
    elif today.rejected:
        says += f"; rejected in 14 days, counted at each receive: {_counts(today.rejected)}"
    command = _next("dead-letters", today)
    return Symptom("dead letters", State.WRONG, f"{says}; the next command hides them while it reads them", command)


def _last_bundle(today: Today, now: float) -> Symptom:
    if isinstance(today.bundles, Unknown):
        return Symptom("last bundle", State.NOT_CHECKED, today.bundles.why, "")
    if not today.bundles:
        return Symptom("last bundle", State.OK, "no bundle was published yet", "")
    url, published = today.bundles[0]
    return Symptom("last bundle", State.OK, f"the last bundle is {_duration(now - published)} old, {url}", "")


def _copies(today: Today, now: float) -> Symptom:
    if isinstance(today.copies, Unknown):
        return Symptom("copies", State.NOT_CHECKED, today.copies.why, "")
    copies = today.copies
    if not copies:
        return Symptom("copies", State.OK, "no copy is late", "")
    failed = [each for each in copies if each.status == "FAILED"]
    pending = [each for each in copies if each.status == "PENDING"]
    lag = now - min((each.published for each in pending), default=now)
    command = _next("replication-failures", today)
    if failed:
        says = f"replication of {len(failed)} of the last {len(copies)} bundles failed, such as {failed[0].url}"
        return Symptom("copies", State.WRONG, says, command)
    if lag > LATEST_COPY:
        says = f"{len(pending)} of the last {len(copies)} bundles wait for their copy, the first for {_duration(lag)}"
        return Symptom("copies", State.WRONG, says, command)
    silent = [each for each in copies if each.status not in {"COMPLETED", "PENDING"}]
    if silent:
        says = f"S3 gives no replication status for {len(silent)} of the last {len(copies)} bundles"
        return Symptom("copies", State.NOT_CHECKED, says, "")
    return Symptom("copies", State.OK, f"{len(copies) - len(pending)} of the last {len(copies)} bundles are copied", "")


def _next(kind: str, today: Today) -> str:
    """The command that says more about an alarm, or removes its cause; for others, the section of the runbook."""
    names = Names(*map(shlex.quote, today.names))
    known = {name: value for name, value in today.names._asdict().items() if value}
    dead = "" if isinstance(today.dead, Unknown) else shlex.quote(today.dead.url)
    ledger = f" --table {names.table} --distribution {names.distribution}" if names.table and names.distribution else ""

    def log(pattern: str) -> str:
        return f"aws logs tail {names.log} --since 1h --filter-pattern {shlex.quote(pattern)}"

    retried, rejected = log('{ $.message = "envelopes.retried" }'), log('{ $.message = "envelope.rejected" }')
    commands: dict[str, tuple[str, Callable[[], str]]] = {
        "oldest-message": ("log", lambda: retried),
        "no-progress": ("log", lambda: retried),
        "retries": ("log", lambda: retried),
        "rejections": ("log", lambda: rejected),
        "unknown-events": ("log", lambda: rejected),
        "repeats": ("log", lambda: log('{ $.message = "invocation.finished" }')),
        "function-errors": ("log", lambda: log('{ $.level = "ERROR" }')),
        "function-throttles": (
            "function",
            lambda: f"aws lambda get-function-concurrency --function-name {names.function}",
        ),
        "filtered": (
            "mapping",
            lambda: f"aws lambda update-event-source-mapping --uuid {names.mapping} --filter-criteria '{{}}'",
        ),
        "bundles": ("distribution", lambda: f"aws s3 ls s3://{names.distribution}/"),
        "replication-latency": (
            "distribution",
            lambda: f"aws s3api get-bucket-replication --bucket {names.distribution}",
        ),
        "replication-failures": (
            "distribution",
            lambda: f"aws s3api get-bucket-replication --bucket {names.distribution}",
        ),
    }
    if kind == "dead-letters" and dead:
        return f"aggregator redrive --dlq {dead}{ledger}"
    needs, command = commands.get(kind, ("", str))
    return command() if needs in known else f"read docs/operations.md, {kind}"


def _messages(count: int) -> str:
    return f"{count:,} message{'' if count == 1 else 's'}"


def _counts(counts: Mapping[str, int]) -> str:
    found = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return ", ".join(f"{reason} {count:,}" for reason, count in found)


def _moment(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
