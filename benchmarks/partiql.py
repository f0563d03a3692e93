"""
The two PartiQL statements that the ledger sends, as the conditional writes that they are.

    INSERT INTO "ledger" VALUE {'id': ?, 'data': ?, …}                          a put, if there is nothing
    UPDATE "ledger" SET "data" = ? SET … WHERE "id" = ? AND "data" = ? AND …    an update, if it is as it was seen

Every value is a parameter; spacing, quotes, the case of words and the order of attributes are free (DynamoDB developer
guide, "PartiQL - a SQL-compatible query language"). Both forms are regular, so regular expressions tell them.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from benchmarks.refusals import RefusedError

_KEY = "id"

_NAME = r'(?:"[^"]+"|\w+)'
_PAIR = r"'[^']+'\s*:\s*\?"
_EQUAL = rf"{_NAME}\s*=\s*\?"
_SET = rf"SET\s+{_EQUAL}(?:\s*,\s*{_EQUAL})*\s+"
_INSERT = re.compile(
    rf"\s*INSERT\s+INTO\s+({_NAME})\s+VALUE\s*\{{\s*({_PAIR}(?:\s*,\s*{_PAIR})*)\s*\}}\s*", re.IGNORECASE
)
_UPDATE = re.compile(
    rf"\s*UPDATE\s+({_NAME})\s+((?:{_SET})+)WHERE\s+({_EQUAL}(?:\s+AND\s+{_EQUAL})*)\s*", re.IGNORECASE
)
_INSERTED = re.compile(r"'([^']+)'\s*:")
_NAMED = re.compile(rf"({_NAME})\s*=")


class _Form(NamedTuple):
    """A statement, but for its values: what is set, and what must be so, in the order of its parameters."""

    table: str
    set: tuple[str, ...]
    seen: tuple[str, ...]


def conditional_write(statement: str, parameters: Sequence[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """
    The kind of the write, `Put` or `Update`, and its request.

    Raises:
        RefusedError: it is neither of the two statements, or has other than a parameter for each of its values.
    """
    form = _parsed(statement)
    if len(parameters) != len(form.set) + len(form.seen):
        raise RefusedError("ValidationException", "Number of parameters in request and statement don't match.")
    changed = dict(zip(form.set, parameters, strict=False))
    if not form.seen:
        absent = {"ConditionExpression": "attribute_not_exists(#id)", "ExpressionAttributeNames": {"#id": _KEY}}
        return "Put", {"TableName": form.table, "Item": changed, **absent}
    seen = dict(zip(form.seen, parameters[len(form.set) :], strict=True))
    return "Update", {"TableName": form.table, "Key": {_KEY: seen.pop(_KEY)}, **_update(changed, seen)}


def _update(changed: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    names = {f"#{at}": name for at, name in enumerate([*changed, *seen])}
    values = {f":{at}": value for at, value in enumerate([*changed.values(), *seen.values()])}
    pairs = [f"#{at} = :{at}" for at in range(len(names))]
    return {
        "UpdateExpression": "SET " + ", ".join(pairs[: len(changed)]),
        "ConditionExpression": " AND ".join(["attribute_exists(#id)", *pairs[len(changed) :]]),
        "ExpressionAttributeNames": {"#id": _KEY, **names},
        "ExpressionAttributeValues": values,
    }


@cache
def _parsed(statement: str) -> _Form:
    found = _INSERT.fullmatch(statement) or _UPDATE.fullmatch(statement)
    if found is None:
        raise _unknown(statement)
    table, *parts = found.groups()
    if len(parts) == 1:
        form = _Form(table.strip('"'), tuple(_INSERTED.findall(parts[0])), ())
    else:
        form = _Form(table.strip('"'), *(tuple(name.strip('"') for name in _NAMED.findall(part)) for part in parts))
    if not _is_keyed(form):
        raise _unknown(statement)
    return form


def _is_keyed(form: _Form) -> bool:
    """Whether a statement says once which item it is about, and nothing twice."""
    keyed, others = (form.seen, form.set) if form.seen else (form.set, ())
    twice = any(len(set(names)) < len(names) for names in (form.set, form.seen))
    return _KEY in keyed and _KEY not in others and not twice


def _unknown(statement: str) -> RefusedError:
    return RefusedError("ValidationException", f"the stand-in does not know the statement {statement}")
