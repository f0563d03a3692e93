"""
Read the ledger, and change nothing in it: who has claimed a member, what became of a bundle, what was refused.

It shares no code with the ledger that the handler writes, only the layout of the records (docs/operations.md, "What is
in the ledger"), so that reading proves writing. A record whose time is over counts as gone, as it does for the handler:
DynamoDB deletes it some days later (DynamoDB developer guide, "Using time to live").
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import bucket_exists
from aggregator.exceptions import LedgerUnavailableError

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

    from aggregator.aws import CommandClients

MOST_READS = 100
"""Most records in one batch (DynamoDB API reference, BatchGetItem)."""

_ATTEMPTS = 8


class Claim(NamedTuple):
    """
    The claim on a member: its bundle, the entity tag that was announced, when it lapses.

    `lapses` in seconds since the epoch. A claim that was `released` was given back; `bundle` is what it was meant for.
    """

    bundle: str
    etag: str | None
    lapses: float
    released: bool


class RejectionRecord(NamedTuple):
    """Why a message was rejected; `objects` are ten of those it announced, `time` is in seconds since the epoch."""

    message_id: str
    reason: str
    message: str
    objects: tuple[str, ...]
    request_id: str
    time: int


class LedgerReader:
    """The records of one distribution bucket in one table, as of `now`, in seconds since the epoch."""

    def __init__(
        self,
        client: "DynamoDBClient",
        *,
        table: str,
        distribution: str,
        scope: Literal["key", "version"],
        now: float,
    ) -> None:
        self.scope = scope
        self._client, self._table, self._distribution, self._now = client, table, distribution, now

    @classmethod
    def open(
        cls, clients: "CommandClients", table: str, distribution: str, scope: Literal["key", "version"] = "key"
    ) -> "LedgerReader":
        """
        The ledger of the bundles in the bucket `distribution`, as of now.

        Raises:
            NotFoundError: there is no such bucket, of whose bundles a ledger would know nothing.
        """
        bucket_exists(clients.s3, distribution)
        return cls(clients.dynamodb, table=table, distribution=distribution, scope=scope, now=time.time())

    def id(self, bucket: str, key: str, version_id: str | None, etag: str | None) -> str:
        """The id of the record of an object; with the scope `version`, of that version."""
        if self.scope == "key":
            return self._id({"bucket": bucket, "key": key})
        return self._id({"bucket": bucket, "key": key, "version": version_id or etag})

    def claims(self, ids: Sequence[str]) -> dict[str, Claim]:
        """
        The claims among `ids`, at most `MOST_READS`.

        Raises:
            LedgerUnavailableError: DynamoDB does not say.
        """
        return {id_: _claim(item) for id_, item in self._records(ids).items()}

    def receipts(self, bundles: Sequence[str]) -> dict[str, dict[str, Any]]:
        """
        The settle records of `bundles`, at most `MOST_READS`, by bundle.

        Raises:
            LedgerUnavailableError: DynamoDB does not say.
        """
        ids = {f"{self._distribution}#{bundle}": bundle for bundle in bundles}
        return {ids[id_]: json.loads(item["data"]["S"]) for id_, item in self._records(list(ids)).items()}

    def bundled(self, ids: Sequence[str]) -> frozenset[str]:
        """
        Those of `ids`, at most `MOST_READS`, whose object surely is in a bundle.

        A claim that was read before the settle record of its bundle proves nothing: the object may have been given back
        in between. So it is read once more (docs/decisions/0018).

        Raises:
            LedgerUnavailableError: DynamoDB does not say.
        """
        claimed = {id_: claim for id_, claim in self.claims(ids).items() if not claim.released}
        settled = self.receipts(list(dict.fromkeys(claim.bundle for claim in claimed.values())))
        named = {id_: claim for id_, claim in claimed.items() if claim.bundle in settled}
        now = self.claims(list(named))
        return frozenset(id_ for id_, claim in named.items() if now.get(id_) == claim)

    def rejections_of(self, message_ids: Sequence[str]) -> dict[str, RejectionRecord]:
        """
        Why messages were rejected, at most `MOST_READS`, by message id, of those that the ledger knows.

        Raises:
            LedgerUnavailableError: DynamoDB does not say.
        """
        ids = {f"{self._distribution}#rejected#{message_id}": message_id for message_id in message_ids}
        found = self._records(list(ids))
        return {ids[id_]: _record_of(ids[id_], json.loads(item["data"]["S"])) for id_, item in found.items()}

    def rejections(self) -> Iterator[RejectionRecord]:
        """
        All rejections. This reads the whole table: DynamoDB finds a record by nothing but its id.

        Raises:
            LedgerUnavailableError: DynamoDB does not say.
        """
        begin = f"{self._distribution}#rejected#"
        pages = self._client.get_paginator("scan").paginate(
            TableName=self._table,
            FilterExpression="begins_with(#id, :begin)",
            ExpressionAttributeNames={"#id": "id"},
            ExpressionAttributeValues={":begin": {"S": begin}},
        )
        try:
            for page in pages:
                for item in filter(self._counts, page["Items"]):
                    yield _record_of(item["id"]["S"].removeprefix(begin), json.loads(item["data"]["S"]))
        except (ClientError, BotoCoreError) as error:
            raise self._unavailable(error) from error

    def _id(self, data: Mapping[str, str | None]) -> str:
        """Powertools' id: its prefix, and the SHA-256 of the sorted JSON."""
        return f"{self._distribution}#{hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()}"

    def _records(self, ids: Sequence[str]) -> dict[str, Any]:
        if not ids:
            return {}
        found: list[Any] = []
        request: Any = {self._table: {"Keys": [{"id": {"S": id_}} for id_ in ids], "ConsistentRead": True}}
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(0.05 * 2**attempt)  # what is left over was throttled
            try:
                answer = self._client.batch_get_item(RequestItems=request)
            except (ClientError, BotoCoreError) as error:
                raise self._unavailable(error) from error
            found += answer["Responses"].get(self._table, [])
            request = answer.get("UnprocessedKeys")
            if not request:
                return {item["id"]["S"]: item for item in filter(self._counts, found)}
        raise LedgerUnavailableError("the ledger cannot be read", table=self._table, fault="UnprocessedKeys")

    def _unavailable(self, error: ClientError | BotoCoreError) -> LedgerUnavailableError:
        code = error.response.get("Error", {}).get("Code") if isinstance(error, ClientError) else None
        return LedgerUnavailableError(
            "the ledger cannot be read", table=self._table, fault=code or type(error).__name__
        )

    def _counts(self, item: Any) -> bool:
        return int(item["expiration"]["N"]) >= self._now


def _claim(item: Any) -> Claim:
    data = json.loads(item["data"]["S"])
    released = "released" in data
    lapses = int(item["in_progress_expiration"]["N"]) / 1000
    return Claim(data["released"] if released else data["bundle"], data.get("etag"), lapses, released)


def _record_of(message_id: str, data: Mapping[str, Any]) -> RejectionRecord:
    told = (data["reason"], data["message"], tuple(data["objects"]), data["request_id"], data["time"])
    return RejectionRecord(message_id, *told)
