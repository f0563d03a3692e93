"""
The stand-in's DynamoDB: tables with a string `id`, whose conditional writes are refused exactly when they must be.

Every write goes through `_Change`: check all conditions (`conditions.py`), then apply all, or nothing; statements
(`partiql.py`) each for itself. `units` counts what AWS would charge (`capacity.py`).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.capacity import Item, read_units, write_units
from benchmarks.conditions import parsed
from benchmarks.partiql import conditional_write
from benchmarks.refusals import RefusedError

_MOST_IN_A_TRANSACTION = 100
_MOST_IN_A_BATCH_WRITE = 25
_MOST_STATEMENTS = 25
_TRANSACTIONAL = 2
"""Units in a transaction for one outside of it (DynamoDB developer guide, "DynamoDB Transactions: How it works")."""

_FAILED = {
    "Put": {"Code": "DuplicateItem", "Message": "Duplicate primary key exists in table"},
    "Update": {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"},
}
"""What a statement says whose condition does not hold (DynamoDB API reference, BatchStatementError)."""


class _Change(NamedTuple):
    """One conditional write: what the item becomes, given what it is; None is nothing."""

    table: dict[str, Item]
    id: str
    request: Mapping[str, Any]
    becomes: Callable[[Item | None], Item | None]

    def stands(self) -> bool:
        """Whether the item fulfils the condition."""
        condition = self.request.get("ConditionExpression")
        if condition is None:
            return True
        names = self.request.get("ExpressionAttributeNames", {})
        return parsed(condition)(self.table.get(self.id, {}), names, self.request.get("ExpressionAttributeValues", {}))

    def apply(self) -> None:
        """Make the change."""
        after = self.becomes(self.table.get(self.id))
        if after is None:
            self.table.pop(self.id, None)
        else:
            self.table[self.id] = after

    def units(self) -> int:
        """Write units, whether the condition holds or not."""
        before = self.table.get(self.id)
        return write_units(before, self.becomes(before))

    def reason(self) -> dict[str, Any]:
        """Why a transaction is cancelled by this change, or that it is not."""
        if self.stands():
            return {"Code": "None"}
        return {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed", **self.old()}

    def old(self) -> dict[str, Any]:
        """The item as it is, if the request wants to see it when it is refused."""
        wanted = self.request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        return {"Item": self.table[self.id]} if wanted and self.id in self.table else {}


class Tables:
    """All tables: they come into being when they are first named."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Item]] = {}
        self._done: set[str] = set()
        self.units = {"write": 0, "read": 0.0}
        self._calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "GetItem": self._get_item,
            "PutItem": self._write,
            "UpdateItem": self._write,
            "DeleteItem": self._write,
            "BatchGetItem": self._batch_get_item,
            "BatchWriteItem": self._batch_write_item,
            "TransactWriteItems": self._transact_write_items,
            "BatchExecuteStatement": self._batch_execute_statement,
        }

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """
        Answer one call.

        Raises:
            RefusedError: as DynamoDB would.
        """
        if operation not in self._calls:
            raise RefusedError("UnknownOperationException", f"the stand-in does not know {operation}")
        return self._calls[operation]({**request, "operation": operation})

    def _table(self, name: str) -> dict[str, Item]:
        return self._tables.setdefault(name, {})

    def _get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        item = self._table(request["TableName"]).get(request["Key"]["id"]["S"])
        self.units["read"] += read_units(item, consistent=request.get("ConsistentRead", False))
        return {} if item is None else {"Item": item}

    def _write(self, request: dict[str, Any]) -> dict[str, Any]:
        change = self._change(request["operation"].removesuffix("Item"), request)
        self.units["write"] += change.units()
        if not change.stands():
            raise RefusedError("ConditionalCheckFailedException", "The conditional request failed", **change.old())
        change.apply()
        return {}

    def _batch_get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        responses = {}
        for name, wanted in request["RequestItems"].items():
            found = [self._table(name).get(key["id"]["S"]) for key in wanted["Keys"]]
            consistent = wanted.get("ConsistentRead", False)
            self.units["read"] += sum(read_units(item, consistent=consistent) for item in found)
            responses[name] = [item for item in found if item is not None]
        return {"Responses": responses, "UnprocessedKeys": {}}

    def _batch_write_item(self, request: dict[str, Any]) -> dict[str, Any]:
        changes = [
            self._change(kind.removesuffix("Request"), {"TableName": name, **content})
            for name, writes in request["RequestItems"].items()
            for write in writes
            for kind, content in write.items()
        ]
        if len(changes) > _MOST_IN_A_BATCH_WRITE:
            raise RefusedError("ValidationException", "Too many items requested for the BatchWriteItem call")
        for change in changes:
            self.units["write"] += change.units()
            change.apply()
        return {"UnprocessedItems": {}}

    def _transact_write_items(self, request: dict[str, Any]) -> dict[str, Any]:
        token = request.get("ClientRequestToken")
        changes = [self._change(kind, each) for write in request["TransactItems"] for kind, each in write.items()]
        if token in self._done:
            read = (read_units(change.table.get(change.id), consistent=True) for change in changes)
            self.units["read"] += _TRANSACTIONAL * sum(read)
            return {}
        if len(changes) > _MOST_IN_A_TRANSACTION:
            raise RefusedError("ValidationException", "Member must have length less than or equal to 100")
        if len({(id(change.table), change.id) for change in changes}) < len(changes):
            message = "Transaction request cannot include multiple operations on one item"
            raise RefusedError("ValidationException", message)
        self.units["write"] += _TRANSACTIONAL * sum(change.units() for change in changes)
        if not all(change.stands() for change in changes):
            reasons = [change.reason() for change in changes]
            codes = ", ".join(reason["Code"] for reason in reasons)
            message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
            raise RefusedError("TransactionCanceledException", message, CancellationReasons=reasons)
        for change in changes:
            change.apply()
        if token:
            self._done.add(token)
        return {}

    def _batch_execute_statement(self, request: dict[str, Any]) -> dict[str, Any]:
        """Writes alone: the handler reads by other calls."""
        statements = request["Statements"]
        if not 1 <= len(statements) <= _MOST_STATEMENTS:
            raise RefusedError("ValidationException", f"Member must have length between 1 and {_MOST_STATEMENTS}")
        writes = [conditional_write(each["Statement"], each.get("Parameters", [])) for each in statements]
        changes = [self._change(kind, write) for kind, write in writes]
        if len({(id(change.table), change.id) for change in changes}) < len(changes):
            raise RefusedError("ValidationException", "Provided list of item keys contains duplicates")
        return {"Responses": [self._executed(*each) for each in zip(writes, changes, strict=True)]}

    def _executed(self, write: tuple[str, dict[str, Any]], change: _Change) -> dict[str, Any]:
        """Make one change of a batch, if its condition holds; what stands in the way is not told."""
        kind, request = write
        self.units["write"] += change.units()
        if not change.stands():
            return {"Error": _FAILED[kind], "TableName": request["TableName"]}
        change.apply()
        return {"TableName": request["TableName"]}

    def _change(self, kind: str, request: Mapping[str, Any]) -> _Change:
        table = self._table(request["TableName"])
        if kind == "Put":
            item = request["Item"]
            return _Change(table, item["id"]["S"], request, lambda _: item)
        key = request["Key"]
        if kind == "Delete":
            return _Change(table, key["id"]["S"], request, lambda _: None)
        if kind == "Update":
            return _Change(table, key["id"]["S"], request, lambda old: {**key, **(old or {}), **_assigned(request)})
        raise RefusedError("ValidationException", f"the stand-in does not know {kind}")


def _assigned(request: Mapping[str, Any]) -> Item:
    """What an update expression sets: `SET a = :b, c = :d`, and no more, is what Powertools says."""
    names, values = request.get("ExpressionAttributeNames", {}), request["ExpressionAttributeValues"]
    verb, _, assignments = request["UpdateExpression"].strip().partition(" ")
    if verb.upper() != "SET":
        raise RefusedError("ValidationException", f"the stand-in does not know {verb}")
    pairs = (assignment.split("=") for assignment in assignments.split(","))
    return {names.get(name.strip(), name.strip()): values[value.strip()] for name, value in pairs}
