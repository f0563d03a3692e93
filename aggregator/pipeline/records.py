"""
How the ledger's records are kept in DynamoDB: many are read at once, one is put for good. `swaps.py` writes the rest.

Their layout is that of Powertools' idempotency (id, status, expiration, in_progress_expiration, data), under the names
and with the configuration of its persistence layer, so that its tools read them. But nothing is written through it:
Powertools replaces an expired record without asking what it said, and settles and deletes without a condition.
"""

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import batches, error_code
from aggregator.exceptions import LedgerUnavailableError
from aggregator.pipeline.settings import SECONDS_PER_DAY

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

MOST_READS = 100
"""Most records read at once (DynamoDB API reference, BatchGetItem)."""

_ROUNDS = 4

Item = dict[str, Any]
"""A record as DynamoDB takes it."""


class Record(NamedTuple):
    """
    An object's record: what it says, and until when, in milliseconds since the epoch.

    From `expiration` on, in seconds since the epoch, it counts as gone, and DynamoDB may delete it.
    """

    data: str
    deadline: int
    expiration: int

    @property
    def content(self) -> dict[str, Any]:
        """`bundle` and `etag` of a claim; `released` of a claim that was given back."""
        return json.loads(self.data)  # type: ignore[no-any-return]


class Records:
    """One DynamoDB table; `prefix` keeps apart what shares it, `ttl` in seconds is how long a record is remembered."""

    def __init__(
        self, client: "DynamoDBClient", *, table: str, prefix: str, ttl: int, clock: Callable[[], float]
    ) -> None:
        self.client, self.table, self.clock = client, table, clock
        self.names = DynamoDBPersistenceLayer(table_name=table, boto3_client=client)
        config = IdempotencyConfig(expires_after_seconds=ttl, hash_function="sha256", raise_on_no_idempotency_key=True)
        self.names.configure(config, key_prefix=prefix)
        self._prefix = f"{prefix}#"

    def record(self, content: Mapping[str, object], deadline: int) -> Record:
        """A new record of an object; `deadline` in milliseconds since the epoch."""
        return Record(json.dumps(content), deadline, int(self.clock()) + self.names.expires_after_seconds)

    def item(self, id_: str, record: Record) -> Item:
        """A record of an object as DynamoDB takes it."""
        return {
            **self._item(id_, "INPROGRESS", record.data, record.expiration),
            self.names.in_progress_expiry_attr: {"N": str(record.deadline)},
        }

    def completed(self, id_: str, content: Mapping[str, object], *, longer: int = 0) -> Item:
        """A record that is final, and is remembered for `longer` seconds than others."""
        expiration = int(self.clock()) + self.names.expires_after_seconds + longer
        return self._item(id_, "COMPLETED", json.dumps(content), expiration)

    def found(self, item: Item) -> Record:
        """The record that an item is."""
        deadline = item.get(self.names.in_progress_expiry_attr, {"N": "0"})["N"]
        return Record(item[self.names.data_attr]["S"], int(deadline), int(item[self.names.expiry_attr]["N"]))

    def look_up(self, ids: Iterable[str]) -> dict[str, Record]:
        """
        The records under `ids`, each as it is after this was called; those included that count as gone.

        Raises:
            LedgerUnavailableError: DynamoDB does not say.
        """
        found: dict[str, Record] = {}
        for some in batches(list(dict.fromkeys(ids)), MOST_READS):
            found |= self._look_up(some)
        return found

    def settle(self, bundle: str, receipt: Mapping[str, object]) -> None:
        """
        Write the settle record of `bundle`, which outlives its claims.

        Raises:
            LedgerUnavailableError: it may not have been written.
        """
        item = self.completed(bundle, {"bundle": bundle, **receipt}, longer=SECONDS_PER_DAY)
        with unavailable("bundle was not settled", bundle=bundle):
            self.client.put_item(TableName=self.table, Item=item)

    def _look_up(self, ids: Sequence[str]) -> dict[str, Record]:
        pending: Any = {self.table: {"Keys": [self._key(id_) for id_ in ids], "ConsistentRead": True}}
        found: dict[str, Record] = {}
        for attempt in range(_ROUNDS):
            with unavailable("records could not be looked up"):
                answer = self.client.batch_get_item(RequestItems=pending)
            for item in answer["Responses"].get(self.table, []):
                found[item[self.names.key_attr]["S"].removeprefix(self._prefix)] = self.found(item)
            pending = answer.get("UnprocessedKeys")
            if not pending:
                return found
            pause(attempt)
        raise LedgerUnavailableError("records could not be looked up", fault="UnprocessedKeys")

    def _key(self, id_: str) -> Item:
        return {self.names.key_attr: {"S": self._prefix + id_}}

    def _item(self, id_: str, status: str, data: str, expiration: int) -> Item:
        return {
            **self._key(id_),
            self.names.status_attr: {"S": status},
            self.names.data_attr: {"S": data},
            self.names.expiry_attr: {"N": str(expiration)},
        }


@contextmanager
def unavailable(message: str, **facts: object) -> Iterator[None]:
    """
    Translate what boto3 raises in the block.

    Raises:
        LedgerUnavailableError: DynamoDB did not do what it was asked, or nobody knows whether it did.
    """
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise LedgerUnavailableError(message, **facts, fault=error_code(error)) from error


def pause(attempt: int) -> None:
    """Let others finish: 20 to 40 ms at first, and twice as long each time."""
    time.sleep(0.02 * 2**attempt * random.uniform(1, 2))  # noqa: S311 - jitter, not a secret
