"""What is known of a deployment, from wherever it is known. Pure: no AWS."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Unknown(NamedTuple):
    """A fact that could not be found out, and why."""

    why: str


class Missing(Unknown):
    """A fact about something that is named and not there."""


class Function(NamedTuple):
    """The function: its time-out in seconds, its storage in MiB, what stops it, and its reserved concurrency."""

    timeout: int
    storage: int
    fault: str = ""
    reserved: int | None = None


class EventSource(NamedTuple):
    """The event source mapping: its window in seconds, its filters, its greatest concurrency, its last problem."""

    window: int
    reports_failures: bool
    enabled: bool
    filters: int = 0
    most: int | None = None
    problem: str = ""


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


class SourceBucket(NamedTuple):
    """The source bucket as it is: its region, and whether it is versioned."""

    region: str
    versioned: bool


class Replica(NamedTuple):
    """What S3 says of the doctor's probe: its age in days, whether it was copied, and the lock of its replica."""

    days: float
    status: str
    lock: str | None


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

    `wanted` is the notification that there must be. `may_send` says whether the queue takes it, None if its policy is
    not understood; `arrives`, whether a topic or rule between bucket and queue hands it on. `enforced`: whether the
    distribution bucket's policy denies puts that could replace a bundle. `lock` is the mode of the archive's default
    retention. `replicas` are the buckets that enabled rules of the distribution bucket copy all bundles to, `partial`
    those that rules with a filter copy to, `failed_replicas` the copies that failed in the last day. `second_put` is
    how the endpoint answered a put with `If-None-Match: *` of an object that was there; `honoured` are the ways of
    writing the ledger whose conditions its store honours. `skew` is in seconds.
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
    may_send: bool | Unknown | None
    arrives: bool | Unknown
    source_bucket: SourceBucket | Unknown
    enforced: bool | Unknown
    lock: str | Unknown | None
    replica: Replica | Unknown
    distribution: Bucket | Unknown
    archive: Bucket | Unknown
    replicas: Sequence[str] | Unknown
    partial: Sequence[str] | Unknown
    failed_replicas: int | Unknown
    access: Access | Unknown
    second_put: int | Unknown
    honoured: Sequence[str] | Unknown
    skew: float | Unknown
