"""The statements of a template's policies."""

from typing import Any

from aggregator.operations.doctor.template import Resource
from tests.support.stack import statements


def statement(role: Resource, sid: str) -> Any:
    (statement,) = (each for each in statements(role) if each["Sid"] == sid)
    return statement


def policy(resource: Resource) -> list[Any]:
    return list(resource.properties["PolicyDocument"]["Statement"])
