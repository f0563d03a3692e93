"""
How the ledger's records lie in DynamoDB, and how many of them are written at once.

Their layout is that of Powertools' idempotency (id, status, expiration, in_progress_expiration, data), with its
configuration and its hashing, so that its tools read them. But Powertools replaces an expired record without asking
what it said, and settles and deletes without a condition. Our writes are transactions of conditional puts.
"""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import structlog
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.clients import answered_at_once, error_code

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_ATTEMPTS = 5

log = structlog.get_logger()


class Record(NamedTuple):
    """
    A member's record as it was found: what it says, and until when, in milliseconds since the epoch.

    From `expiration` on, in seconds since the epoch, DynamoDB may delete it.
    """

    data: str
    deadline: int
    expiration: int

    @property
    def content(self) -> dict[str, Any]:
        """`bundle` and `etag` of a claim; `released` of a claim that was given back."""
        return json.loads(self.data)  # type: ignore[no-any-return]


class Written(NamedTuple):
    """What became of writes, by id: done, refused for what was there, surely not done, or nobody knows."""

    applied: list[str]
    refused: dict[str, Record | None]
    failed: list[str]
    unsure: list[str]


class Records(DynamoDBPersistenceLayer):
    """One DynamoDB table; `prefix` keeps apart what shares it, `ttl` in seconds is how long a record is remembered."""

    def __init__(
        self, client: "DynamoDBClient", *, table: str, prefix: str, ttl: int, clock: Callable[[], float]
    ) -> None:
        super().__init__(table_name=table, boto3_client=client)
        self.configure(
            IdempotencyConfig(expires_after_seconds=ttl, hash_function="sha256", raise_on_no_idempotency_key=True),
            key_prefix=prefix,
        )
        self._clock = clock

    def put(self, id_: str, data: str, deadline: int, condition: str, values: dict[str, Any]) -> dict[str, Any]:
        """A conditional put of a member's record, for `write`; `deadline` in milliseconds since the epoch."""
        names = {
            "#id": self.key_attr,
            "#expiration": self.expiry_attr,
            "#data": self.data_attr,
            "#deadline": self.in_progress_expiry_attr,
        }
        item = self.item(id_, "INPROGRESS", data, int(self._clock()) + self.expires_after_seconds)
        item[self.in_progress_expiry_attr] = {"N": str(deadline)}
        return {
            "Put": {
                "TableName": self.table_name,
                "Item": item,
                "ConditionExpression": condition,
                "ExpressionAttributeNames": {name: names[name] for name in names if name in condition},
                "ExpressionAttributeValues": values,
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            }
        }

    def item(self, id_: str, status: str, data: str, expiration: int) -> dict[str, Any]:
        """A record as DynamoDB takes it; `expiration` in seconds since the epoch."""
        return {
            **self._get_key(id_),
            self.status_attr: {"S": status},
            self.data_attr: {"S": data},
            self.expiry_attr: {"N": str(expiration)},
        }

    def write(self, writes: Mapping[str, Any]) -> "Written":
        """Write all at once; where records stand in the way, all others."""
        pending, refused = dict(writes), dict[str, Record | None]()
        for attempt in range(_ATTEMPTS):
            if not pending:
                break
            try:
                self.client.transact_write_items(TransactItems=list(pending.values()), ClientRequestToken=str(uuid4()))
                return Written(list(pending), refused, [], [])
            except (ClientError, BotoCoreError) as error:
                taken = self._taken(list(pending), error)
                refused.update(taken)
                pending = {id_: write for id_, write in pending.items() if id_ not in taken}
                if not answered_at_once(error):
                    log.warning("ledger.unsure", members=len(pending), fault=error_code(error))
                    return Written([], refused, [], list(pending))
                if not taken:
                    _pause(attempt)
        return Written([], refused, list(pending), [])

    def _taken(self, ids: Sequence[str], error: Exception) -> dict[str, Record | None]:
        """The records that stood in the way of a transaction, which names a reason for each of its writes."""
        reasons = error.response.get("CancellationReasons", []) if isinstance(error, ClientError) else []
        return {
            id_: self._record(reason.get("Item"))
            for id_, reason in zip(ids, reasons)  # noqa: B905 - an error without reasons takes nothing
            if reason.get("Code") == "ConditionalCheckFailed"
        }

    def _record(self, item: Mapping[str, Any] | None) -> Record | None:
        if not item:
            return None
        data, deadline, expiration = self.data_attr, self.in_progress_expiry_attr, self.expiry_attr
        return Record(item[data]["S"], int(item[deadline]["N"]), int(item[expiration]["N"]))


def _pause(attempt: int) -> None:
    """Let another transaction on the same records finish: 20 to 40 ms at first, and longer each time."""
    time.sleep(0.02 * 2**attempt * random.uniform(1, 2))  # noqa: S311 - jitter, not a secret
