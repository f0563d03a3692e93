"""
The stand-in's DynamoDB: tables with a string `id`, whose conditional writes are refused exactly when they must be.

Every write goes through `_Change`: check all conditions, then apply all, or nothing. A condition is parsed once, by the
grammar of the DynamoDB developer guide ("Condition and filter expressions") as far as the ledger and Powertools use it:
AND, OR, NOT, parentheses, comparisons, attribute_exists and attribute_not_exists.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from itertools import chain, repeat
from typing import Any, NamedTuple

Item = dict[str, dict[str, Any]]
Test = Callable[[Item, Mapping[str, str], Mapping[str, Any]], bool]

_MOST_IN_A_TRANSACTION = 100
_MOST_IN_A_BATCH_WRITE = 25
_TOKENS = re.compile(r"\s*([#:]?\w+|<>|<=|>=|[=<>(),])")
_OPERAND = re.compile(r"[#:]?\w+")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class RefusedError(Exception):
    """DynamoDB's answer to a call that it refuses: the kind of the error, and what else the answer says."""

    def __init__(self, kind: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.answer = {"__type": f"com.amazonaws.dynamodb.v20120810#{kind}", "message": message, **more}


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
        self._calls: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "GetItem": self._get_item,
            "PutItem": self._write,
            "UpdateItem": self._write,
            "DeleteItem": self._write,
            "BatchGetItem": self._batch_get_item,
            "BatchWriteItem": self._batch_write_item,
            "TransactWriteItems": self._transact_write_items,
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
        return {} if item is None else {"Item": item}

    def _write(self, request: dict[str, Any]) -> dict[str, Any]:
        change = self._change(request["operation"].removesuffix("Item"), request)
        if not change.stands():
            raise RefusedError("ConditionalCheckFailedException", "The conditional request failed", **change.old())
        change.apply()
        return {}

    def _batch_get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        responses = {}
        for name, wanted in request["RequestItems"].items():
            ids = [key["id"]["S"] for key in wanted["Keys"]]
            responses[name] = [self._table(name)[id_] for id_ in ids if id_ in self._table(name)]
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
            change.apply()
        return {"UnprocessedItems": {}}

    def _transact_write_items(self, request: dict[str, Any]) -> dict[str, Any]:
        token = request.get("ClientRequestToken")
        if token in self._done:
            return {}
        changes = [self._change(kind, each) for write in request["TransactItems"] for kind, each in write.items()]
        if len(changes) > _MOST_IN_A_TRANSACTION:
            raise RefusedError("ValidationException", "Member must have length less than or equal to 100")
        if len({(id(change.table), change.id) for change in changes}) < len(changes):
            message = "Transaction request cannot include multiple operations on one item"
            raise RefusedError("ValidationException", message)
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


@cache
def parsed(condition: str) -> Test:
    """
    A function of item, names and values that says whether an item fulfils `condition`.

    Raises:
        RefusedError: it is not in the part of the grammar that we know.
    """
    tokens, at = list[str](), 0
    while condition[at:].strip():
        found = _TOKENS.match(condition, at)
        if found is None:
            raise RefusedError("ValidationException", f"Invalid ConditionExpression: {condition[at:]}")
        tokens.append(found[1])
        at = found.end()
    rest = chain(tokens, repeat(""))  # an empty token is the end
    test, after = _any(next(rest), rest)
    if after:
        raise RefusedError("ValidationException", f"Invalid ConditionExpression: unexpected {after}")
    return test


def _any(token: str, rest: Iterator[str]) -> tuple[Test, str]:
    return _joined("OR", any, _all, token, rest)


def _all(token: str, rest: Iterator[str]) -> tuple[Test, str]:
    return _joined("AND", all, _one, token, rest)


def _joined(
    word: str,
    judge: Callable[[Iterator[bool]], bool],
    part: Callable[[str, Iterator[str]], tuple[Test, str]],
    token: str,
    rest: Iterator[str],
) -> tuple[Test, str]:
    """Parts with a word between them, and the token behind the last."""
    first, token = part(token, rest)
    tests = [first]
    while token.upper() == word:
        test, token = part(next(rest), rest)
        tests.append(test)
    return (first if len(tests) == 1 else lambda *given: judge(test(*given) for test in tests)), token


def _one(token: str, rest: Iterator[str]) -> tuple[Test, str]:
    if token == "(":
        test, token = _any(next(rest), rest)
        _expect(")", token)
        return test, next(rest)
    if token.upper() == "NOT":
        negated, token = _one(next(rest), rest)
        return lambda *given: not negated(*given), token
    if token in ("attribute_exists", "attribute_not_exists"):
        _expect("(", next(rest))
        name = next(rest)
        _expect(")", next(rest))
        wanted = token == "attribute_exists"
        return lambda item, names, _: (names.get(name, name) in item) is wanted, next(rest)
    return _comparison(token, next(rest), next(rest)), next(rest)


def _comparison(left: str, sign: str, right: str) -> Test:
    """A comparison; false where an attribute is absent or the types differ, as DynamoDB has it."""
    if sign not in _COMPARISONS or not _OPERAND.fullmatch(left) or not _OPERAND.fullmatch(right):
        raise RefusedError("ValidationException", f"Invalid ConditionExpression: {left} {sign} {right}")
    compare = _COMPARISONS[sign]

    def test(item: Item, names: Mapping[str, str], values: Mapping[str, Any]) -> bool:
        a, b = _operand(left, item, names, values), _operand(right, item, names, values)
        if a is None or b is None:
            return False
        if a.keys() != b.keys():
            return sign == "<>"
        ((kind, x),), (y,) = a.items(), b.values()
        return compare(Decimal(x), Decimal(y)) if kind == "N" else compare(x, y)

    return test


def _operand(token: str, item: Item, names: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any] | None:
    if token.startswith(":"):
        if token not in values:
            raise RefusedError("ValidationException", f"an expression attribute value is not defined: {token}")
        return dict(values[token])
    return item.get(names.get(token, token))


def _expect(wanted: str, token: str) -> None:
    if token != wanted:
        raise RefusedError("ValidationException", f"Invalid ConditionExpression: {wanted} expected, not {token!r}")
