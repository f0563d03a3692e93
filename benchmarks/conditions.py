"""
Conditions of writes, as DynamoDB judges them.

A condition is parsed once, by the grammar of the DynamoDB developer guide ("Condition and filter expressions") as far
as the ledger and Powertools use it: AND, OR, NOT, parentheses, comparisons, attribute_exists and attribute_not_exists.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import cache
from itertools import chain, repeat
from typing import Any

from benchmarks.capacity import Item
from benchmarks.refusals import RefusedError

Test = Callable[[Item, Mapping[str, str], Mapping[str, Any]], bool]

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
