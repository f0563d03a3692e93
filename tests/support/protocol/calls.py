"""
The calls that an invocation makes, what they are answered, and what lies in the table and in the bucket.

Each call names the operations of boto3 that it stands for, so that a test can say whether the handler makes another.
"""

from dataclasses import dataclass
from typing import ClassVar, Final, TypeGuard

DONE, REFUSED, NOT_DONE, NO_ANSWER = "done", "refused", "not done", "no answer"
DONE_AT_LAST, REFUSED_AT_LAST = "done at last", "refused at last"
"""Answers to a second attempt of botocore's, while the first one may yet land."""

BUSY, LAPSED, UNREADABLE = "busy", "lapsed", "unreadable"
"""503 to a put; not sent, because the invocation notices that its own claims have lapsed; no answer to a question."""

OLD: Final = "old"
"""The bundle of an invocation of long ago."""

FRESH, FADING, EXPIRED = "fresh", "fading", "expired"
"""Of a record: the TTL leaves it alone for weeks; it may delete it within a day; it has expired, and may go now."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the table says of a member: claimed for a bundle, or released by it."""

    says: str
    bundle: str
    age: str = FRESH


def claimed(bundle: str) -> Record:
    """A claim's record."""
    return Record("claimed", bundle)


def released(bundle: str) -> Record:
    """The record of a claim that was given back."""
    return Record("released", bundle)


ANYTHING: Final = Record("anything", "")
"""What a swap without a condition wants to see; the protocol has none."""

Version = tuple[str, ...] | str
"""What lies under a bundle's name: a bundle, as the members in it; an empty bundle; or one of the last two."""

EMPTY: Final = ()
FOREIGN: Final = "foreign object"
DELETED: Final = "delete marker"


@dataclass(frozen=True, slots=True)
class Call:
    """A call to AWS."""

    operations: ClassVar[frozenset[str]] = frozenset()
    """What boto3 calls it; where there are two for a write, one serves AWS, and the other what resembles it."""


@dataclass(frozen=True, slots=True)
class Swap(Call):
    """Replace the record that was seen (None: no record) by a new one; refused, if another is there."""

    operations = frozenset({"BatchExecuteStatement", "TransactWriteItems"})
    member: str
    seen: Record | None
    new: Record | None


@dataclass(frozen=True, slots=True)
class ReadRecord(Call):
    """What the table says of a member."""

    operations = frozenset({"BatchGetItem"})
    member: str


@dataclass(frozen=True, slots=True)
class ReadSettleRecord(Call):
    """Whether the table says that a bundle is settled."""

    operations = frozenset({"BatchGetItem"})
    bundle: str


@dataclass(frozen=True, slots=True)
class Settle(Call):
    """Put a bundle's settle record."""

    operations = frozenset({"PutItem"})
    bundle: str


@dataclass(frozen=True, slots=True)
class ReadObject(Call):
    """Read an object into the bundle."""

    operations = frozenset({"GetObject"})
    member: str


@dataclass(frozen=True, slots=True)
class Put(Call):
    """Put a bundle, if nothing lies under its name; without members it is a fence."""

    operations = frozenset({"PutObject"})
    bundle: str
    members: tuple[str, ...]
    if_none: bool = True


@dataclass(frozen=True, slots=True)
class Look(Call):
    """List all versions under a bundle's name, and read their indexes, which never change."""

    operations = frozenset({"ListObjectVersions", "GetObject"})
    bundle: str


@dataclass(frozen=True, slots=True)
class AskClock(Call):
    """Whether the claims for a bundle have lapsed; no call to AWS."""

    bundle: str


@dataclass(frozen=True, slots=True)
class Acknowledge(Call):
    """Have the messages of some members deleted: Lambda does it, by what the handler answers."""

    operations = frozenset({"DeleteMessageBatch"})
    members: tuple[str, ...]


Write = Swap | Put | Settle


def is_bundle(version: Version) -> TypeGuard[tuple[str, ...]]:
    """Whether a version is a bundle with members."""
    return isinstance(version, tuple) and bool(version)
