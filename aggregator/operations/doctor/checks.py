"""
Whether a deployment keeps what the guarantee rests on: every condition, one finding each, with the fix.

What is known of the deployment comes in as facts: `deployment.py` asks AWS for them, `blueprint.py` a template. A fact
that could not be found out is `Unknown` and says why; a check that needs it is then reported as not made, never as
passed. What is known not to be there is `Missing`, and what needs it is wrong. Pure: no AWS.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, TypeVar

from aggregator.exceptions import ConfigurationError
from aggregator.pipeline.settings import MEGABYTE, SECONDS_PER_DAY, Settings

MEBIBYTE = 1_048_576

LARGEST_NOTIFICATION = 65_536
"""Bytes that a notification may have (S3 user guide, "Event message structure")."""

FEWEST_RECEIVES = 5
"""What AWS advises for a queue that Lambda reads (Lambda developer guide, "Using Lambda with Amazon SQS")."""

MOST_SKEW = 5.0
"""Seconds that a clock may be wrong: half of the grace that a claim outlives its invocation by."""

CREATED = "s3:ObjectCreated:*"

_MAKE_IT = "make it, or name the one that is meant"

T = TypeVar("T")


class Unknown(NamedTuple):
    """A fact that could not be found out, and why."""

    why: str


class Missing(Unknown):
    """A fact about something that is named and not there."""


class Function(NamedTuple):
    """The function: its time-out in seconds, its storage in MiB."""

    timeout: int
    storage: int


class EventSource(NamedTuple):
    """The event source mapping; `window` in seconds."""

    window: int
    reports_failures: bool
    enabled: bool


class Queue(NamedTuple):
    """A queue; seconds and bytes. `receives` is None where it has no dead-letter queue."""

    arn: str
    visibility: int
    retention: int
    largest_message: int
    receives: int | None


class Table(NamedTuple):
    """The ledger's table: its key as (name, kind, type), and the attribute that it expires by, if any."""

    key: tuple[tuple[str, str, str], ...]
    expires_by: str | None


class Bucket(NamedTuple):
    """A bucket of bundles; `noncurrent_days` is None if deleted versions are kept for good."""

    versioned: bool
    noncurrent_days: int | None


class Notification(NamedTuple):
    """A notification of the source bucket: to whom, of what, and of which keys; a filter of None is any."""

    queue_arn: str
    events: tuple[str, ...]
    prefix: str | None
    suffix: str | None


class Access(NamedTuple):
    """What IAM's simulation says: the actions the function lacks, and those it must not have and has."""

    missing: tuple[str, ...]
    excessive: tuple[str, ...]


class Facts(NamedTuple):
    """
    All that is known of a deployment.

    `wanted` is the notification that there must be. `replicas` are the buckets that enabled rules of the distribution
    bucket copy to, `failed_replicas` the copies that failed in the last day. `second_put` is how the endpoint answered
    a put with `If-None-Match: *` of an object that was there; `honoured` are the ways of writing the ledger whose
    conditions its store honours. `skew` is in seconds.
    """

    environment: Mapping[str, str] | Unknown
    function: Function | Unknown
    event_source: EventSource | Unknown
    queue: Queue | Unknown
    dead_letters: Queue | Unknown
    table: Table | Unknown
    source: str | Unknown
    wanted: Notification | Unknown
    notifications: Sequence[Notification] | Unknown
    distribution: Bucket | Unknown
    archive: Bucket | Unknown
    replicas: Sequence[str] | Unknown
    failed_replicas: int | Unknown
    access: Access | Unknown
    second_put: int | Unknown
    honoured: Sequence[str] | Unknown
    skew: float | Unknown


class State(Enum):
    """What a check found."""

    OK = "ok"
    WRONG = "wrong"
    NOT_CHECKED = "not checked"


class Finding(NamedTuple):
    """What one check found, in words; and the fix, if something is wrong."""

    check: str
    state: State
    says: str
    fix: str


class _UnknownFactError(Exception):
    """A check needs a fact that is not known."""

    def __init__(self, fact: Unknown) -> None:
        super().__init__(fact.why)
        self.fact = fact


def diagnose(facts: Facts) -> list[Finding]:
    """What every check says of a deployment, in the order of the checks."""
    return [_finding(check, name, fix, facts) for name, (check, fix) in CHECKS.items()]


def _finding(check: Callable[[Facts], tuple[bool, str]], name: str, fix: str, facts: Facts) -> Finding:
    try:
        well, says = check(facts)
    except _UnknownFactError as error:
        if isinstance(error.fact, Missing):
            return Finding(name, State.WRONG, str(error), _MAKE_IT)
        return Finding(name, State.NOT_CHECKED, str(error), "")
    return Finding(name, State.OK, says, "") if well else Finding(name, State.WRONG, says, fix)


def _known(fact: T | Unknown) -> T:
    if isinstance(fact, Unknown):
        raise _UnknownFactError(fact)
    return fact


def _settings(facts: Facts) -> Settings:
    try:
        return Settings.from_env(_known(facts.environment))
    except ConfigurationError as error:
        raise _UnknownFactError(Unknown(str(error))) from error


def _environment(facts: Facts) -> tuple[bool, str]:
    try:
        Settings.from_env(_known(facts.environment))
    except ConfigurationError as error:
        return False, str(error)
    return True, "every setting is there and allowed"


def _exactly_once(facts: Facts) -> tuple[bool, str]:
    off = _known(facts.environment).get("POWERTOOLS_IDEMPOTENCY_DISABLED", "")
    return not off, f"POWERTOOLS_IDEMPOTENCY_DISABLED is {off!r}" if off else "the ledger is on"


def _buckets(facts: Facts) -> tuple[bool, str]:
    settings, source = _settings(facts), _known(facts.source)
    names = [source, settings.distribution_bucket_name, settings.archive_bucket_name or ""]
    return len(set(names)) == len(names), "source {}, distribution {}, archive {}".format(
        *(name or "-" for name in names)
    )


def _visibility(facts: Facts) -> tuple[bool, str]:
    timeout, window = _known(facts.function).timeout, _known(facts.event_source).window
    visibility, least = _known(facts.queue).visibility, 6 * timeout + window
    return visibility >= least, f"{visibility} s; six time-outs of {timeout} s and a window of {window} s are {least} s"


def _memory(facts: Facts) -> tuple[bool, str]:
    days, kept = _settings(facts).idempotency_ttl_days, _redelivery(facts) / SECONDS_PER_DAY
    return (
        days > kept,
        f"members are remembered for {days} days; queue and dead-letter queue keep messages for {kept:g}",
    )


def _redelivery(facts: Facts) -> int:
    """Seconds for which a message may come back."""
    return _known(facts.queue).retention + _known(facts.dead_letters).retention


def _redrive(facts: Facts) -> tuple[bool, str]:
    receives = _known(facts.queue).receives
    if receives is None:
        return False, "the queue has no dead-letter queue: a bad message comes back until it expires"
    return receives >= FEWEST_RECEIVES, f"a message is given up after {receives} receives"


def _dead_letters(facts: Facts) -> tuple[bool, str]:
    queue, dead = _known(facts.queue).retention, _known(facts.dead_letters).retention
    days = (dead / SECONDS_PER_DAY, queue / SECONDS_PER_DAY)
    return dead >= queue, "kept for {:g} days, in the queue for {:g}; both count from when a message was sent".format(
        *days
    )


def _message_size(facts: Facts) -> tuple[bool, str]:
    most = _known(facts.queue).largest_message
    return most >= LARGEST_NOTIFICATION, f"{most} bytes; a notification may have {LARGEST_NOTIFICATION}"


def _partial_failures(facts: Facts) -> tuple[bool, str]:
    reports = _known(facts.event_source).reports_failures
    return reports, "on" if reports else "off: Lambda deletes the messages of a batch that the handler wants back"


def _invoked(facts: Facts) -> tuple[bool, str]:
    enabled = _known(facts.event_source).enabled
    return enabled, "the event source mapping is " + ("enabled" if enabled else "not enabled: nothing is bundled")


def _storage(facts: Facts) -> tuple[bool, str]:
    storage, needed = _known(facts.function).storage * MEBIBYTE, 2 * _settings(facts).max_bundle_input
    says = f"{storage // MEGABYTE} MB; one bundle is gathered while another is put, {needed // MEGABYTE} MB in all"
    return storage >= needed, says


def _table_key(facts: Facts) -> tuple[bool, str]:
    key = _known(facts.table).key
    return key == (("id", "HASH", "S"),), "the key is " + ", ".join(" ".join(part) for part in key)


def _table_ttl(facts: Facts) -> tuple[bool, str]:
    expires_by = _known(facts.table).expires_by
    return expires_by == "expiration", f"records expire by {expires_by}" if expires_by else "records never expire"


def _versioning(facts: Facts) -> tuple[bool, str]:
    versioned = _known(facts.distribution).versioned
    return versioned, "on" if versioned else "off: a bundle that a consumer deletes at once may be made again"


def _deleted_bundles(facts: Facts) -> tuple[bool, str]:
    days, kept = _known(facts.distribution).noncurrent_days, _redelivery(facts) / SECONDS_PER_DAY
    if days is None:
        return True, "deleted bundles are kept for good"
    return days > kept, f"deleted bundles are kept for {days} days; messages may come back for {kept:g}"


def _replication(facts: Facts) -> tuple[bool, str]:
    archive = _settings(facts).archive_bucket_name
    if archive is None:
        raise _UnknownFactError(Unknown("ARCHIVE_BUCKET_NAME is not set: there is no archive to look at"))
    replicas = _known(facts.replicas)
    if archive not in replicas:
        return False, f"no enabled rule copies bundles to {archive}"
    versioned = _known(facts.archive).versioned
    return versioned, f"bundles are copied to {archive}" + ("" if versioned else ", which is not versioned")


def _replicas_arrive(facts: Facts) -> tuple[bool, str]:
    failed = _known(facts.failed_replicas)
    return not failed, f"{failed} bundles failed to reach the archive in the last day"


def _notification(facts: Facts) -> tuple[bool, str]:
    wanted = _known(facts.wanted)
    ours = [each for each in _known(facts.notifications) if each.queue_arn == wanted.queue_arn]
    if not ours:
        return False, "the source bucket does not notify the queue"
    right = [
        each
        for each in ours
        if wanted.prefix in {None, each.prefix}
        and wanted.suffix in {None, each.suffix}
        and set(wanted.events) <= set(each.events)
    ]
    says = "; ".join(f"{', '.join(each.events)} of keys {each.prefix}*{each.suffix}" for each in ours)
    return bool(right), says


def _permissions(facts: Facts) -> tuple[bool, str]:
    access = _known(facts.access)
    says = [f"lacks {', '.join(access.missing)}"] if access.missing else []
    says += [f"may {', '.join(access.excessive)}"] if access.excessive else []
    return not says, "the function " + ("; ".join(says) or "may do what it must, and delete no bundle")


def _conditional_writes(facts: Facts) -> tuple[bool, str]:
    status = _known(facts.second_put)
    return status == 412, f"a second put with If-None-Match was answered {status}"


def _ledger_writes(facts: Facts) -> tuple[bool, str]:
    honoured, wanted = _known(facts.honoured), _settings(facts).ledger_writes
    says = f"LEDGER_WRITES is {wanted}; the store honours the conditions of {' and '.join(honoured) or 'neither way'}"
    return bool(honoured) if wanted == "auto" else wanted in honoured, says


def _clock(facts: Facts) -> tuple[bool, str]:
    skew = _known(facts.skew)
    return abs(skew) <= MOST_SKEW, f"this machine's clock and that of S3 differ by {abs(skew):.0f} s"


CHECKS: dict[str, tuple[Callable[[Facts], tuple[bool, str]], str]] = {
    "settings": (_environment, "set them in the function's environment; docs/operations.md lists them"),
    "ledger": (_exactly_once, "remove POWERTOOLS_IDEMPOTENCY_DISABLED from the function's environment"),
    "buckets apart": (_buckets, "give source, distribution and archive three different buckets"),
    "visibility time-out": (_visibility, "raise the queue's VisibilityTimeout, or lower the function's Timeout"),
    "idempotency time": (_memory, "raise IDEMPOTENCY_TTL_DAYS above both retentions together"),
    "redrive": (_redrive, f"set the queue's maxReceiveCount to {FEWEST_RECEIVES} or more"),
    "dead-letter retention": (_dead_letters, "raise the dead-letter queue's MessageRetentionPeriod to 14 days"),
    "message size": (_message_size, f"raise the queue's MaximumMessageSize to {LARGEST_NOTIFICATION} or more"),
    "partial failures": (_partial_failures, "set FunctionResponseTypes of the mapping to ReportBatchItemFailures"),
    "event source": (_invoked, "enable the event source mapping"),
    "storage": (_storage, "raise EphemeralStorage, or lower MAX_BUNDLE_INPUT_MB"),
    "table key": (_table_key, "make a table whose only key is id, HASH, a string (S)"),
    "table expiry": (_table_ttl, "enable the table's TTL on the attribute expiration"),
    "versioning": (_versioning, "enable versioning of the distribution bucket"),
    "deleted bundles": (_deleted_bundles, "raise NoncurrentDays of the distribution bucket's lifecycle"),
    "replication": (_replication, "enable a replication rule from the distribution bucket to a versioned archive"),
    "replicas": (_replicas_arrive, "look at the replication role and keys, then repeat them with S3 Batch Replication"),
    "notification": (_notification, "let s3:ObjectCreated:* of the right keys go to the queue"),
    "permissions": (_permissions, "give the role the statements of deploy/template.yaml, and no other"),
    "conditional writes": (_conditional_writes, "use a store that honours If-None-Match on PutObject"),
    "ledger writes": (_ledger_writes, "use DynamoDB, or set LEDGER_WRITES to a way that the store honours"),
    "clock": (_clock, "set this machine's clock by NTP"),
}
"""What is checked, in order: the check, and the fix where it finds something wrong."""
