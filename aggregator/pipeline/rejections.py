"""
Why envelopes were rejected, kept in the ledger's table: a dead-letter queue keeps a message, but not why it is there.

A rejection is written at best effort and decides nothing. `aggregator redrive` and `aggregator where` read it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from aggregator.aws import batches
from aggregator.exceptions import LedgerUnavailableError
from aggregator.pipeline.planning import Wanted
from aggregator.pipeline.records import Item, Records, unavailable

MOST_OBJECTS = 10
"""Objects that a rejection names."""

_MOST_PUTS = 25
"""Most puts in one batch (DynamoDB API reference, BatchWriteItem)."""


class Rejection(NamedTuple):
    """Why an envelope was rejected, for those who find it in the dead-letter queue."""

    message_id: str
    reason: str
    message: str
    wanted: tuple[Wanted, ...]


class Rejections:
    """The rejections of one invocation."""

    def __init__(self, records: Records, *, request_id: str, clock: Callable[[], float]) -> None:
        self._records, self._request_id, self._clock = records, request_id, clock

    def record(self, rejections: Iterable[Rejection]) -> None:
        """
        Leave a record of why envelopes were rejected.

        Raises:
            LedgerUnavailableError: some were not written.
        """
        items = {rejection.message_id: self._item(rejection) for rejection in rejections}  # a put takes each key once
        for some in batches(list(items.values()), _MOST_PUTS):
            self._put(some)

    def _put(self, items: Sequence[Item]) -> None:
        puts: list[Any] = [{"PutRequest": {"Item": item}} for item in items]
        with unavailable("rejections were not recorded"):
            answer = self._records.client.batch_write_item(RequestItems={self._records.table: puts})
        if answer.get("UnprocessedItems"):
            raise LedgerUnavailableError("rejections were not recorded", fault="UnprocessedItems")

    def _item(self, rejection: Rejection) -> Item:
        members = [one.ref for one in rejection.wanted[:MOST_OBJECTS]]
        content = {
            "reason": rejection.reason,
            "message": rejection.message,
            "objects": [f"s3://{ref.bucket}/{ref.key}" for ref in members],
            "request_id": self._request_id,
            "time": int(self._clock()),
        }
        return self._records.completed(f"rejected#{rejection.message_id}", content)
