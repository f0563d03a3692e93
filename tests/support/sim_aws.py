"""
AWS in the simulation: the ledger's table, the distribution bucket and the source bucket, which do what they are told.

Nothing fails here, and nothing is late: `sim_calls.py` has what becomes of a call on its way.
"""

import io
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple
from zlib import crc32

from botocore.exceptions import ClientError

from aggregator.bundles.index import Member
from aggregator.exceptions import BundleFormatError, SupersededError
from aggregator.pipeline.planning import Wanted
from aggregator.reader import Bundle

Item = dict[str, Any]


class Write(NamedTuple):
    """A conditional write of one record: the attributes it sets, and those it expects; None, if no record at all."""

    id: str
    sets: Item
    expects: Item | None
    replaces: bool
    """Whether the record is written anew, and not changed."""


class Table:
    """DynamoDB, as far as the ledger uses it: one table, strongly consistent."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}

    def holds(self, write: Write) -> bool:
        """Whether the condition of a write holds."""
        item = self.items.get(write.id)
        if write.expects is None:
            return item is None
        if not write.replaces and item is None:
            return False
        return all((item or {}).get(name) == value for name, value in write.expects.items())

    def apply(self, write: Write) -> None:
        kept = {} if write.replaces else self.items.get(write.id, {})
        self.items[write.id] = {**kept, **write.sets}

    def execute(self, write: Write) -> dict[str, Any]:
        """One statement of a batch: its response; the item that is in its way is not told."""
        if not self.holds(write):
            return {"Error": {"Code": "DuplicateItem" if write.expects is None else "ConditionalCheckFailed"}}
        self.apply(write)
        return {"TableName": "ledger"}

    def transact(self, writes: Sequence[Write]) -> None:
        """Write all, or raise with a reason for each."""
        reasons = [self.reason(write) for write in writes]
        if any(reason["Code"] != "None" for reason in reasons):
            raise answered("TransactionCanceledException", 400, CancellationReasons=reasons)
        for write in writes:
            self.apply(write)

    def reason(self, write: Write) -> dict[str, Any]:
        """Why a transaction is cancelled, as far as one of its writes is to blame."""
        if self.holds(write):
            return {"Code": "None"}
        item = self.items.get(write.id)
        return {"Code": "ConditionalCheckFailed", **({"Item": item} if item else {})}

    def put(self, item: Item) -> dict[str, Any]:
        """Write a record, whatever is there."""
        self.items[item["id"]["S"]] = item
        return {}

    def expire(self, now: float) -> list[str]:
        """Delete what its TTL allows, as DynamoDB does some time or other; what that was."""
        gone = [id_ for id_, item in self.items.items() if int(item["expiration"]["N"]) < now]
        for id_ in gone:
            del self.items[id_]
        return gone


class Bucket:
    """The distribution bucket, versioned: what was put under a key, newest last; None is a delete marker."""

    def __init__(self) -> None:
        self.versions: dict[str, list[bytes | None]] = {}
        self.published: list[tuple[str, list[Member]]] = []
        """Every bundle ever put that has members, and those."""

    def put(self, key: str, body: bytes) -> dict[str, Any]:
        """Put, if the newest version is none or a delete marker."""
        versions = self.versions.setdefault(key, [])
        if versions and versions[-1] is not None:
            raise answered("PreconditionFailed", 412)
        return self.overwrite(key, body)

    def overwrite(self, key: str, body: bytes) -> dict[str, Any]:
        """Put, whatever is there."""
        self.versions.setdefault(key, []).append(body)
        if entries := entries_of(body):
            self.published.append((key, entries))
        return {}

    def delete(self, key: str) -> None:
        """What a consumer does who is done with a bundle."""
        self.versions[key].append(None)

    def consumable(self, *, fences: bool) -> list[str]:
        """What a consumer may delete; `fences`, if bundles without members, too."""
        newest = ((key, versions[-1]) for key, versions in self.versions.items())
        return [key for key, body in newest if body is not None and (fences or entries_of(body))]

    def listed(self, key: str) -> dict[str, Any]:
        """All versions that have content, newest first."""
        versions = self.versions.get(key, [])
        told = [
            {"Key": key, "VersionId": str(at), "Size": len(body), "IsLatest": at == len(versions) - 1}
            for at, body in enumerate(versions)
            if body is not None
        ]
        return {"Versions": told[::-1]}

    def read(self, key: str, version_id: str, first: int, last: int) -> dict[str, Any]:
        body = self.versions[key][int(version_id)]
        assert body is not None
        return {"Body": Body(body[first : last + 1])}


class Body(io.BytesIO):
    """What is read, to be told apart by what it is."""

    def __repr__(self) -> str:
        return repr(self.getvalue())


class Content(NamedTuple):
    """What an object holds, and how S3 tells it apart; the version is None in a bucket without versions."""

    body: bytes
    etag: str
    version_id: str | None

    @property
    def crc32(self) -> int:
        return crc32(self.body)


class Store:
    """The source bucket: what each object has held, newest last."""

    def __init__(self) -> None:
        self.contents: dict[str, list[Content]] = {}

    def put(self, key: str, content: Content) -> None:
        self.contents.setdefault(key, []).append(content)

    def read(self, wanted: Wanted, *, pinned: bool) -> Content:
        """
        The current content, or if `pinned` exactly what was announced, as `Sources.read` does.

        Raises:
            SupersededError: the announced content has been replaced.
        """
        member, contents = wanted.ref, self.contents[wanted.ref.key]
        if not pinned:
            return contents[-1]
        if member.version_id:
            return next(content for content in contents if content.version_id == member.version_id)
        if contents[-1].etag != member.etag:
            raise SupersededError("object has been replaced since it was announced", key=member.key)
        return contents[-1]


def answered(code: str, status: int, **more: Any) -> ClientError:
    """An error that AWS answers with."""
    answer: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return ClientError(answer, "Operation")


def write_of(put: dict[str, Any]) -> Write:
    """A put of a transaction, whose condition is in the ledger's own small language."""
    item = put["Item"]
    names, values = put.get("ExpressionAttributeNames", {}), put.get("ExpressionAttributeValues", {})
    expects: Item | None = {}
    for term in filter(None, put.get("ConditionExpression", "").split(" AND ")):
        if re.fullmatch(r"attribute_not_exists\(#\w+\)", term):
            expects = None
        else:
            name, value = _matched(r"(#\w+) = (:\w+)", term)
            assert expects is not None
            expects[names[name]] = values[value]
    return Write(item["id"]["S"], item, expects, replaces=True)


def write_by(statement: dict[str, Any]) -> Write:
    """A PartiQL statement of the ledger's: `INSERT` of a record, or `UPDATE` of the one that was seen."""
    told, expected = _names(statement["Statement"])
    parameters: list[dict[str, Any]] = statement["Parameters"]
    sets = dict(zip(told, parameters, strict=False))
    if expected is None:
        assert len(parameters) == len(told)
        return Write(sets["id"]["S"], sets, None, replaces=True)
    expects = dict(zip(expected, parameters[len(told) :], strict=True))
    return Write(expects.pop("id")["S"], sets, expects, replaces=False)


@cache
def _names(statement: str) -> tuple[list[str], list[str] | None]:
    """The attributes whose values a statement takes as parameters: those it sets, and those it expects."""
    if statement.startswith("INSERT"):
        (item,) = _matched(r'INSERT INTO "ledger" VALUE \{(.+)\}', statement)
        return [_matched(r"'(\w+)': \?", term)[0] for term in item.split(", ")], None
    changes, condition = _matched(r'UPDATE "ledger" ((?:SET "\w+" = \? ?)+) WHERE (.+)', statement)
    return re.findall(r'SET "(\w+)"', changes), [
        _matched(r'"(\w+)" = \?', term)[0] for term in condition.split(" AND ")
    ]


def _matched(pattern: str, text: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text)
    if found is None:
        raise AssertionError(f"the simulation does not know this: {text}")
    return found.groups()


@lru_cache(1_000)
def entries_of(body: bytes) -> list[Member]:
    """The members of a bundle; none, if it is a fence or somebody else's object."""
    try:
        return list(Bundle.open(io.BytesIO(body)))
    except BundleFormatError:
        return []
