"""Messages for the tests of the schemas, in every shape in which they come."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from pydantic import BaseModel, ValidationError

from aggregator.contracts.factories import (
    BucketFactory,
    CreatedRecordFactory,
    EventBridgeDetailFactory,
    EventBridgeNotificationFactory,
    EventBridgeObjectFactory,
    NotifiedObjectFactory,
    S3EntityFactory,
    S3NotificationFactory,
    body_of,
)
from aggregator.schemas import BODY, ObjectRef, invalid_fields

PROPERTY = settings(deadline=None, derandomize=True, max_examples=300)


class Shape(NamedTuple):
    """A way in which a notification of one object arrives."""

    document: Callable[[], dict[str, Any]]
    wrap: Callable[[dict[str, Any]], str]
    object_at: tuple[str | int, ...]
    bucket_at: tuple[str | int, ...]
    etag: str
    version: str

    def body(self, **fields: Any) -> str:
        """The body, but for these fields of its object."""
        document = self.document()
        named = at(document, self.object_at)
        names = {"etag": self.etag, "version": self.version}
        named.update({names.get(name, name): value for name, value in fields.items()})
        return self.wrap(document)


def s3() -> dict[str, Any]:
    return document(S3NotificationFactory.build(Records=[created("in/a.json", 3)]))


def eventbridge() -> dict[str, Any]:
    fields: dict[str, Any] = {"key": "in/a.json", "size": 3, "etag": "e", "version-id": None}
    named = EventBridgeObjectFactory.build(**fields)
    detail = EventBridgeDetailFactory.build(bucket=BucketFactory.build(name="source"), object=named)
    return document(EventBridgeNotificationFactory.build(detail=detail))


def in_sns(document: dict[str, Any]) -> str:
    return json.dumps({"Type": "Notification", "Message": json.dumps(document)})


S3_AT = ("Records", 0, "s3")
S3 = Shape(s3, json.dumps, (*S3_AT, "object"), (*S3_AT, "bucket"), "eTag", "versionId")
EVENTBRIDGE = Shape(eventbridge, json.dumps, ("detail", "object"), ("detail", "bucket"), "etag", "version-id")
SHAPES = {
    "s3": S3,
    "eventbridge": EVENTBRIDGE,
    "s3 in sns": S3._replace(wrap=in_sns),
    "eventbridge in sns": EVENTBRIDGE._replace(wrap=in_sns),
}

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def members_in(body: str) -> tuple[ObjectRef, ...]:
    return BODY.validate_json(body).objects()


def refusal_of(body: str) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        BODY.validate_json(body)
    return invalid_fields(caught.value)


def faulty_fields(body: str) -> set[str]:
    """The last part of the place of every fault."""
    return {fault.split(":")[0].split(".")[-1] for fault in refusal_of(body)}


def document(notification: BaseModel) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(body_of(notification))
    return document


def created(key: str, size: int) -> Any:
    named = NotifiedObjectFactory.build(key=key, size=size, eTag="e")
    return CreatedRecordFactory.build(s3=S3EntityFactory.build(bucket=BucketFactory.build(name="source"), object=named))


def at(document: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        document = document[step]
    return document
