"""
Whether a deployment keeps what the guarantee rests on: every condition, one finding each, with the fix.

What is known of the deployment comes in as facts: `facts_from_aws.py` asks AWS for them, `facts_from_template.py` a
template. A fact that could not be found out is `Unknown` and says why; a check that needs it is then reported as not
made, never as passed. What is known not to be there is `Missing`, and what needs it is wrong. Pure: no AWS.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple, TypeVar

from aggregator.exceptions import ConfigurationError
from aggregator.operations.doctor.facts import Facts, Missing, Notification, Unknown
from aggregator.pipeline.settings import MEGABYTE, SECONDS_PER_DAY, Settings, switched_off

MEBIBYTE = 1_048_576

LARGEST_NOTIFICATION = 65_536
"""Bytes that a notification may have (S3 user guide, "Event message structure")."""

FEWEST_RECEIVES = 5
"""What AWS advises for a queue that Lambda reads (Lambda developer guide, "Using Lambda with Amazon SQS")."""

MOST_DAYS_OF_PROBE = 1
"""Days for which the copy of the doctor's probe says something about replication."""

MOST_SKEW = 5.0
"""Seconds that a clock may be wrong: half of the grace that a claim outlives its invocation by."""

CREATED = "s3:ObjectCreated:*"

EVERY_CREATION = {f"s3:ObjectCreated:{how}" for how in ("Put", "Post", "Copy", "CompleteMultipartUpload")}
"""All that CREATED stands for (S3 user guide, "Supported event types")."""

_MAKE_IT = "make it, or name the one that is meant"

T = TypeVar("T")


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
    environment, variable = _known(facts.environment), "POWERTOOLS_IDEMPOTENCY_DISABLED"
    off = switched_off(environment, variable)
    return not off, f"{variable} is {environment[variable]!r}" if off else "the ledger is on"


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
    times = "once" if receives == 1 else f"{receives} times"
    return receives >= FEWEST_RECEIVES, f"a message is given up after it was received {times}"


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
        why = ": the filter of its rule leaves bundles out" if archive in _known(facts.partial) else ""
        return False, f"no enabled rule copies all bundles to {archive}{why}"
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
    events = {event for each in ours if _covers(each, wanted) for event in each.events}
    says = "; ".join(f"{', '.join(each.events)} of keys {each.prefix}*{each.suffix}" for each in ours)
    return CREATED in events or events >= EVERY_CREATION, says


def _covers(rule: Notification, wanted: Notification) -> bool:
    """Whether a rule is for all keys that are wanted; it may be for more."""
    prefix, suffix = rule.prefix or "", rule.suffix or ""
    begins = wanted.prefix is None or wanted.prefix.startswith(prefix)
    return begins and (wanted.suffix is None or wanted.suffix.endswith(suffix))


def _way_in(facts: Facts) -> tuple[bool, str]:
    allowed = _known(facts.may_send)
    if allowed is None:
        raise _UnknownFactError(Unknown("the queue's policy has conditions that are not understood here"))
    if not allowed:
        return False, "the queue's policy does not let the source send: S3 drops the notifications, and says nothing"
    arrives = _known(facts.arrives)
    return arrives, "the queue takes notifications" + ("" if arrives else ", but the topic or rule does not send to it")


def _source(facts: Facts) -> tuple[bool, str]:
    bucket, region = _known(facts.source_bucket), _known(facts.queue).arn.split(":")[3]
    if bucket.region != region:
        return False, f"the source bucket is in {bucket.region}, the queue in {region}"
    needs = _settings(facts).idempotency_scope == "version"
    says = "versioned" if bucket.versioned else "not versioned"
    return bucket.versioned or not needs, f"the source bucket is in {region}, and {says}"


def _sources(facts: Facts) -> tuple[bool, str]:
    settings, source, prefix = _settings(facts), _known(facts.source), _known(facts.wanted).prefix or ""
    says = ", ".join(settings.source_buckets or ()) or "not set: objects may come from any bucket"
    return settings.is_source(source, prefix), f"SOURCE_BUCKETS is {says}"


def _filters(facts: Facts) -> tuple[bool, str]:
    count = _known(facts.event_source).filters
    return not count, f"{count} filters: Lambda deletes the messages that do not match" if count else "no filter"


def _runs(facts: Facts) -> tuple[bool, str]:
    function, source = _known(facts.function), _known(facts.event_source)
    if function.fault or source.problem:
        return False, function.fault or source.problem
    if function.reserved is None:
        return True, "the function may run as often as the account allows"
    return function.reserved >= (source.most or 1), (
        f"the function may run {function.reserved} times at once, its mapping wants {source.most or 'any number'}"
    )


def _commit(facts: Facts) -> tuple[bool, str]:
    enforced = _known(facts.enforced)
    return (
        enforced,
        f"the bucket's policy {'denies' if enforced else 'does not deny'} a put that could replace a bundle",
    )


def _lock(facts: Facts) -> tuple[bool, str]:
    mode = _known(facts.lock)
    return mode is not None, f"locked by default, {mode}" if mode else "not locked: a replica can be deleted"


def _probe_arrives(facts: Facts) -> tuple[bool, str]:
    replica = _known(facts.replica)
    if replica.status == "COMPLETED" and replica.days > MOST_DAYS_OF_PROBE:
        says = f"the probe was copied {replica.days:.0f} days ago: delete it, and ask again"
        raise _UnknownFactError(Unknown(says))
    if replica.status in {"", "PENDING"}:
        says = f"the probe's replication is {replica.status or 'not known'}: ask again in 15 minutes"
        raise _UnknownFactError(Unknown(says))
    if replica.status != "COMPLETED":
        return False, f"the probe's replication is {replica.status}"
    return (
        replica.lock is not None,
        f"the probe's replica is {'locked, ' + replica.lock if replica.lock else 'not locked'}",
    )


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
    "way in": (
        _way_in,
        "let the queue's policy allow sqs:SendMessage to who announces objects, as deploy/template.yaml does",
    ),
    "source bucket": (_source, "use a bucket in the queue's region, versioned if IDEMPOTENCY_SCOPE is version"),
    "sources": (_sources, "name the source bucket in SOURCE_BUCKETS"),
    "filters": (
        _filters,
        "remove FilterCriteria from the mapping, then run aggregator backfill from when it was added",
    ),
    "function state": (_runs, "make the function active, and raise its reserved concurrency to that of the mapping"),
    "commit": (_commit, "give the distribution bucket the policy of deploy/template.yaml"),
    "archive lock": (_lock, "give the archive a default retention (Object Lock)"),
    "replica": (_probe_arrives, "look at the replication role and keys, and at the archive's Object Lock"),
    "permissions": (_permissions, "give the role the statements of deploy/template.yaml, and no other"),
    "conditional writes": (_conditional_writes, "use a store that honours If-None-Match on PutObject"),
    "ledger writes": (_ledger_writes, "use DynamoDB, or set LEDGER_WRITES to a way that the store honours"),
    "clock": (_clock, "set this machine's clock by NTP"),
}
"""What is checked, in order: the check, and the fix where it finds something wrong."""
