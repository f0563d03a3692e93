"""
Replace many records at once, each only if it still is as it was seen: the one way in which an object's record changes.

    statements      one request, 25 swaps, each succeeds or fails alone       1 write unit each
    transactions    one request, 100 swaps, one that fails cancels them all   2 write units each

Statements are PartiQL: `INSERT` fails where there is a record, `UPDATE … WHERE` where it is not the one that was seen.
They do not say what they met, so that is looked up. Not every store that speaks DynamoDB's language honours their
conditions (docs/decisions/0020), and nothing is safe in one that honours none: what is not AWS itself is probed first.

A request that was not answered at once may have taken effect, or may yet: whatever it did not surely do is in doubt,
also what a second attempt was refused.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.aws import batches, error_code, had_no_effect, lost_attempts
from aggregator.exceptions import ConfigurationError, LedgerUnavailableError
from aggregator.pipeline.records import Record, Records, pause

_ATTEMPTS = 5

_MET_ANOTHER = frozenset({"DuplicateItem", "ConditionalCheckFailed"})
"""What a statement says whose condition does not hold (DynamoDB API reference, BatchStatementError)."""

_NOT_DONE = frozenset({"AccessDenied", "ItemCollectionSizeLimitExceeded", "ProvisionedThroughputExceeded"}) | {
    "RequestLimitExceeded",
    "ResourceNotFound",
    "ThrottlingError",
    "TransactionConflict",
    "ValidationError",
}
"""What a statement says that surely did nothing; after any other error, such as InternalServerError, nobody knows."""

_PROBE_SECONDS = 3_600

log = structlog.get_logger()


class Swap(NamedTuple):
    """Put `new` where `seen` was found under an id; None, where nothing was found."""

    id: str
    seen: Record | None
    new: Record


class Swapped(NamedTuple):
    """
    What became of swaps, by id: done, refused for what is there, surely not done, or nobody knows.

    Of the last two it is also told which error of AWS's is to blame.
    """

    applied: list[str]
    refused: dict[str, Record | None]
    failed: dict[str, str]
    in_doubt: dict[str, str]


class Way(Protocol):
    """A way to make swaps: `most` in one request."""

    most: int

    def request(self, swaps: Sequence[Swap]) -> Swapped:
        """Make one request; what failed surely was not done, and may be asked for again."""


def swap_all(way: Way, swaps: Sequence[Swap]) -> Swapped:
    """Make all swaps, as many in a request as the way takes; says of each what became of it, and never raises."""
    whole = Swapped([], {}, {}, {})
    for batch in batches(swaps, way.most):
        _swap(way, batch, whole)
    if whole.in_doubt:
        log.warning("ledger.in_doubt", members=len(whole.in_doubt), fault=next(iter(whole.in_doubt.values())))
    return whole


def _swap(way: Way, batch: Sequence[Swap], whole: Swapped) -> None:
    """Ask again for what surely was not done, because of a conflict or a throttle."""
    for attempt in range(_ATTEMPTS):
        answer = way.request(batch)
        whole.applied.extend(answer.applied)
        whole.refused.update(answer.refused)
        whole.in_doubt.update(answer.in_doubt)
        batch = [swap for swap in batch if swap.id in answer.failed]
        if not batch:
            return
        if not answer.refused:
            pause(attempt)
    whole.failed.update(answer.failed)


class Statements:
    """Single conditional writes, many in a request (DynamoDB API reference, BatchExecuteStatement)."""

    most = 25

    def __init__(self, records: Records) -> None:
        self._records = records
        names = records.names
        told = (names.status_attr, names.data_attr, names.expiry_attr, names.in_progress_expiry_attr)
        self._order = (names.key_attr, *told)
        seen = (names.key_attr, names.data_attr, names.in_progress_expiry_attr)
        item = ", ".join(f"'{name}': ?" for name in self._order)
        self._insert = f'INSERT INTO "{records.table}" VALUE {{{item}}}'
        changes = " ".join(f'SET "{name}" = ?' for name in told)
        unchanged = " AND ".join(f'"{name}" = ?' for name in seen)
        self._update = f'UPDATE "{records.table}" {changes} WHERE {unchanged}'

    def request(self, swaps: Sequence[Swap]) -> Swapped:
        """Each swap succeeds or fails alone."""
        statements: list[Any] = [self._statement(swap) for swap in swaps]
        try:
            answer: Any = self._records.client.batch_execute_statement(Statements=statements)
        except (ClientError, BotoCoreError) as error:
            return _unanswered(swaps, error)
        at_once = not lost_attempts(answer)
        codes = [response.get("Error", {}).get("Code") for response in answer["Responses"]]
        return self._sorted_out(list(zip(swaps, codes, strict=True)), at_once=at_once)

    def _statement(self, swap: Swap) -> dict[str, Any]:
        item = self._records.item(swap.id, swap.new)
        values = [item[name] for name in self._order]
        if swap.seen is None:
            return {"Statement": self._insert, "Parameters": values}
        seen = [values[0], {"S": swap.seen.data}, {"N": str(swap.seen.deadline)}]
        return {"Statement": self._update, "Parameters": [*values[1:], *seen]}

    def _sorted_out(self, answered: Sequence[tuple[Swap, str | None]], *, at_once: bool) -> Swapped:
        swapped = Swapped([], {}, {}, {})
        met: list[Swap] = []
        for swap, code in answered:
            if code is None:
                swapped.applied.append(swap.id)
            elif code in _MET_ANOTHER:
                met.append(swap)
            elif at_once and code in _NOT_DONE:
                swapped.failed[swap.id] = code
            else:
                swapped.in_doubt[swap.id] = code
        if met:
            self._look(met, swapped, at_once=at_once)
        return swapped

    def _look(self, met: Sequence[Swap], swapped: Swapped, *, at_once: bool) -> None:
        """See what stands in the way; if that cannot be seen, nothing was done, and it is asked for again."""
        try:
            found = self._records.look_up(swap.id for swap in met)
        except LedgerUnavailableError as error:
            ids = [swap.id for swap in met]
            (swapped.failed if at_once else swapped.in_doubt).update(dict.fromkeys(ids, str(error.facts["fault"])))
        else:
            _judge({swap: found.get(swap.id) for swap in met}, swapped, at_once=at_once)


class Transactions:
    """All or nothing; what stands in the way is named, and the others are asked for again (TransactWriteItems)."""

    most = 100

    def __init__(self, records: Records) -> None:
        self._records = records
        names = records.names
        self._absent = {"#id": names.key_attr}
        self._unchanged = {"#data": names.data_attr, "#deadline": names.in_progress_expiry_attr}

    def request(self, swaps: Sequence[Swap]) -> Swapped:
        """All swaps succeed, or none does."""
        puts: list[Any] = [{"Put": self._put(swap)} for swap in swaps]
        try:
            self._records.client.transact_write_items(TransactItems=puts, ClientRequestToken=str(uuid4()))
        except (ClientError, BotoCoreError) as error:
            return self._sorted_out(swaps, error)
        return Swapped([swap.id for swap in swaps], {}, {}, {})

    def _put(self, swap: Swap) -> dict[str, Any]:
        condition: dict[str, Any] = {
            "ConditionExpression": "attribute_not_exists(#id)",
            "ExpressionAttributeNames": self._absent,
        }
        if swap.seen is not None:
            condition = {
                "ConditionExpression": "#data = :data AND #deadline = :deadline",
                "ExpressionAttributeNames": self._unchanged,
                "ExpressionAttributeValues": {
                    ":data": {"S": swap.seen.data},
                    ":deadline": {"N": str(swap.seen.deadline)},
                },
            }
        item = self._records.item(swap.id, swap.new)
        told = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        return {"TableName": self._records.table, "Item": item, **condition, **told}

    def _sorted_out(self, swaps: Sequence[Swap], error: ClientError | BotoCoreError) -> Swapped:
        reasons: Any = error.response.get("CancellationReasons", []) if isinstance(error, ClientError) else []
        met = {
            swap: self._records.found(reason["Item"]) if reason.get("Item") else None
            for swap, reason in zip(swaps, reasons)  # noqa: B905 - an error without reasons met nothing
            if reason.get("Code") == "ConditionalCheckFailed"
        }
        swapped = _unanswered([swap for swap in swaps if swap not in met], error)
        _judge(met, swapped, at_once=had_no_effect(error))
        return swapped


class Unwritten:
    """The way of a ledger that is switched off (POWERTOOLS_IDEMPOTENCY_DISABLED): nothing is in the way of anything."""

    most = 100

    def request(self, swaps: Sequence[Swap]) -> Swapped:
        """Write nothing, and say that it is done."""
        return Swapped([swap.id for swap in swaps], {}, {}, {})


WAYS: dict[str, type[Statements] | type[Transactions]] = {"statements": Statements, "transactions": Transactions}
"""The ways that the setting LEDGER_WRITES names."""


def choose_way(records: Records, writes: Literal["auto", "statements", "transactions"]) -> Way:
    """
    The way in which the store of `records` is written: statements, unless it must be transactions.

    A store other than AWS's own is probed, once in a process: what it does not honour is not relied on.

    Raises:
        ConfigurationError: the store honours no conditions, so that nothing is safe in it.
        LedgerUnavailableError: the store does not answer.
    """
    endpoint = records.client.meta.endpoint_url
    if writes != "auto":
        return WAYS[writes](records)
    if _is_aws(endpoint):
        return Statements(records)
    if endpoint not in _PROVEN:
        _PROVEN[endpoint] = _proven(records)
    return _PROVEN[endpoint](records)


def honours(way: Way, records: Records) -> bool:
    """
    Whether a store does what `way` relies on, tried on a record of our own that expires within the hour.

    Raises:
        LedgerUnavailableError: that cannot be found out.
    """
    id_ = f"probe#{uuid4()}"
    one, two, three = (
        Record(json.dumps({"probe": number}), number, int(records.clock()) + _PROBE_SECONDS) for number in (1, 2, 3)
    )
    honoured = [
        _tried(way, Swap(id_, None, one)) == Swapped([id_], {}, {}, {}),
        _tried(way, Swap(id_, None, two)) == Swapped([], {id_: one}, {}, {}),
        _tried(way, Swap(id_, two, three)) == Swapped([], {id_: one}, {}, {}),
        _tried(way, Swap(id_, one, three)) == Swapped([id_], {}, {}, {}),
        records.look_up([id_]) == {id_: three},
    ]
    return all(honoured)


def _tried(way: Way, swap: Swap) -> Swapped:
    swapped = swap_all(way, [swap])
    for fault in (swapped.failed | swapped.in_doubt).values():
        raise LedgerUnavailableError("the store of the ledger cannot be probed", fault=fault)
    return swapped


_PROVEN: dict[str, type[Statements] | type[Transactions]] = {}
"""How the stores that this process has probed are written, by endpoint; a store does not change its ways."""


def _proven(records: Records) -> type[Statements] | type[Transactions]:
    with suppress(LedgerUnavailableError):  # it may not know them at all
        if honours(Statements(records), records):
            return Statements
    if honours(Transactions(records), records):
        return Transactions
    raise ConfigurationError(
        "the store of the ledger does not honour conditional writes, so objects would be lost or repeated in it:"
        " use DynamoDB itself, or a store that does",
        endpoint=records.client.meta.endpoint_url,
    )


def _is_aws(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))


def _judge(met: Mapping[Swap, Record | None], swapped: Swapped, *, at_once: bool) -> None:
    """What met its own content is done; what met another's is refused, or in doubt if an attempt may yet land."""
    for swap, found in met.items():
        if found is not None and found.data == swap.new.data:
            swapped.applied.append(swap.id)
        elif at_once:
            swapped.refused[swap.id] = found
        else:
            swapped.in_doubt[swap.id] = "the answer to a first attempt was lost"


def _unanswered(swaps: Iterable[Swap], error: ClientError | BotoCoreError) -> Swapped:
    """What a request did that raised: nothing, if AWS refused it the first time it was asked; else nobody knows."""
    blamed = dict.fromkeys((swap.id for swap in swaps), error_code(error))
    return Swapped([], {}, blamed, {}) if had_no_effect(error) else Swapped([], {}, {}, blamed)
