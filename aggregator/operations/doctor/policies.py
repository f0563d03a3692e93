"""
What resource policies say: who may send to a queue, and whether a bucket enforces the commit.

A policy that holds more than is understood here is not judged: the answer is then None. Pure: no AWS.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

Statement = Mapping[str, Any]

_SOURCE_ARN, _SOURCE_ACCOUNT = "aws:sourcearn", "aws:sourceaccount"
_OPERATORS = {"ArnEquals", "ArnLike", "StringEquals", "StringLike"}


def statements(policy: str | Mapping[str, Any] | None) -> Sequence[Statement]:
    """The statements of a policy, as text or as a document; none if there is no policy."""
    document = json.loads(policy) if isinstance(policy, str) else policy or {}
    return [each for each in _listed(document.get("Statement", [])) if isinstance(each, Mapping)]


def may_send(policy: Iterable[Statement], service: str, source: str, account: str) -> bool | None:
    """Whether `service` may send for `source`, an ARN, of `account`; None if the policy is not understood."""
    answers: list[bool | None] = []
    for each in policy:
        if each.get("Effect") == "Deny":
            if not _denies_only_plain_text(each):
                return None
        elif _is_of(each, service) and _names(each, "sqs:SendMessage"):
            answers.append(_holds(each.get("Condition", {}), source, account))
    return True if True in answers else None if None in answers else False


def enforces_commit(policy: Iterable[Statement]) -> bool:
    """Whether every put that could replace an object is denied to everybody."""
    return any(_denies_replacing(each) for each in policy)


def _denies_replacing(statement: Statement) -> bool:
    conditions = statement.get("Condition", {})
    null = {name.lower(): str(value).lower() for name, value in conditions.get("Null", {}).items()}
    creating = {name.lower(): str(value).lower() for name, value in conditions.get("Bool", {}).items()}
    return (
        statement.get("Effect") == "Deny"
        and _is_everybody(statement)
        and _names(statement, "s3:PutObject")
        and any(str(resource).endswith("/*") for resource in _listed(statement.get("Resource", [])))
        and null == {"s3:if-none-match": "true"}
        and creating in ({}, {"s3:objectcreationoperation": "true"})
        and set(conditions) <= {"Null", "Bool"}
    )


def _denies_only_plain_text(statement: Statement) -> bool:
    return statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}


def _is_everybody(statement: Statement) -> bool:
    principal = statement.get("Principal")
    return principal == "*" or (isinstance(principal, Mapping) and "*" in _listed(principal.get("AWS", [])))


def _is_of(statement: Statement, service: str) -> bool:
    principal = statement.get("Principal")
    named = _listed(principal.get("Service", [])) if isinstance(principal, Mapping) else []
    return _is_everybody(statement) or service in named


def _names(statement: Statement, action: str) -> bool:
    named = [str(each).lower() for each in _listed(statement.get("Action", []))]
    return any(fnmatchcase(action.lower(), each) for each in named)


def _holds(conditions: Mapping[str, Any], source: str, account: str) -> bool | None:
    """Whether conditions on the source of a message hold; None if there are others."""
    facts = {_SOURCE_ARN: source, _SOURCE_ACCOUNT: account}
    for operator, wanted in conditions.items():
        if operator not in _OPERATORS:
            return None
        for name, values in wanted.items():
            if name.lower() not in facts:
                return None
            if not any(fnmatchcase(facts[name.lower()], str(value)) for value in _listed(values)):
                return False
    return True


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
