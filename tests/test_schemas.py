"""
The two gates a body passes: what kind of message it is, and whether the fields we use are right.

AWS adds fields and event types without notice, so whatever we do not know is accepted; whatever we use is strict.
"""

import json
from typing import Any

import pytest

from aggregator.contracts.factories import (
    EventBridgeNotificationFactory,
    S3NotificationFactory,
    S3TestEventFactory,
    SnsEnvelopeFactory,
    body_of,
)
from aggregator.schemas import ObjectRef
from tests.support.messages import (
    Shape,
    at,
    created,
    every_shape,
    faulty_fields,
    in_sns,
    members_in,
    s3,
)


@every_shape
def test_a_notification_names_its_member(shape: Shape) -> None:
    body = shape.body(key="in/b.json", size=17, etag="0123", version="v1")

    assert members_in(body) == (ObjectRef("source", "in/b.json", 17, "0123", "v1"),)


@every_shape
def test_what_a_notification_leaves_out_is_not_given(shape: Shape) -> None:
    document = shape.document()
    at(document, shape.object_at).clear()
    at(document, shape.object_at)["key"] = "in/a.json"

    assert members_in(shape.wrap(document)) == (ObjectRef("source", "in/a.json", None, None, None),)


@every_shape
@pytest.mark.parametrize("nothing", ["", "null", None])
def test_an_empty_or_null_version_is_none(shape: Shape, nothing: str | None) -> None:
    assert members_in(shape.body(version=nothing)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


@every_shape
@pytest.mark.parametrize(
    ("announced", "etag"),
    [("abc", "abc"), ('"abc"', "abc"), ('"abc-17"', "abc-17"), ("", None), (None, None)],
)
def test_an_entity_tag_loses_its_quotes(shape: Shape, announced: str | None, etag: str | None) -> None:
    assert members_in(shape.body(etag=announced)) == (ObjectRef("source", "in/a.json", 3, etag, None),)


@every_shape
@pytest.mark.parametrize("size", [0, 1, 5 * 1024**4, None])
def test_a_size_is_a_whole_number_of_bytes_or_not_given(shape: Shape, size: int | None) -> None:
    assert members_in(shape.body(size=size)) == (ObjectRef("source", "in/a.json", size, "e", None),)


@every_shape
@pytest.mark.parametrize("size", [-1, "3", "", 3.0, 3.5, True, [3], {}])
def test_a_size_that_is_no_whole_number_is_refused(shape: Shape, size: object) -> None:
    assert faulty_fields(shape.body(size=size)) == {"size"}


@every_shape
@pytest.mark.parametrize("text", ["~!az09._-", "a b", "a" * 1_024, "a" * 1_026])
def test_a_tag_or_version_is_printable_ascii(shape: Shape, text: str) -> None:
    assert members_in(shape.body(etag=text, version=text)) == (ObjectRef("source", "in/a.json", 3, text, text),)


@every_shape
@pytest.mark.parametrize("field", ["etag", "version"])
@pytest.mark.parametrize("value", [1, True, ["a"], {}, "a" * 1_027, "é", "a\nb", "a\x00", "\x7f"])
def test_a_tag_or_version_that_is_none_is_refused(shape: Shape, field: str, value: object) -> None:
    names = {"etag": shape.etag, "version": shape.version}

    assert faulty_fields(shape.body(**{field: value})) == {names[field]}


@every_shape
@pytest.mark.parametrize("key", ["", None, 1, ["a"], "a" * 1025, "é" * 513])
def test_a_key_that_is_empty_too_long_or_no_text_is_refused(shape: Shape, key: object) -> None:
    assert faulty_fields(shape.body(key=key)) == {"key"}


@every_shape
@pytest.mark.parametrize("key", ["a", "a" * 1024, "é" * 512, "in/" + "🦊" * 255])
def test_a_key_of_at_most_1024_bytes_is_accepted(shape: Shape, key: str) -> None:
    assert members_in(shape.body(key=key)) == (ObjectRef("source", key, 3, "e", None),)


@every_shape
@pytest.mark.parametrize("bucket", ["", "ab", "a" * 256, "s3://source", "a bucket", "a/b", None, 1])
def test_a_name_that_no_bucket_has_is_refused(shape: Shape, bucket: object) -> None:
    document = shape.document()
    at(document, shape.bucket_at)["name"] = bucket

    assert faulty_fields(shape.wrap(document)) == {"name"}


@every_shape
@pytest.mark.parametrize("missing", ["bucket", "object"])
def test_a_notification_without_bucket_or_object_is_refused(shape: Shape, missing: str) -> None:
    document = shape.document()
    del at(document, shape.object_at[:-1])[missing]

    assert faulty_fields(shape.wrap(document)) == {missing}


@every_shape
def test_a_notification_without_a_key_is_refused(shape: Shape) -> None:
    document = shape.document()
    del at(document, shape.object_at)["key"]

    assert faulty_fields(shape.wrap(document)) == {"key"}


@every_shape
def test_fields_we_do_not_know_are_accepted_at_every_depth(shape: Shape) -> None:
    document = shape.document()
    expected = members_in(shape.wrap(document))

    _add_unknown_fields(document)

    assert members_in(shape.wrap(document)) == expected


@every_shape
def test_of_two_values_under_one_name_the_last_counts(shape: Shape) -> None:
    body = shape.body(key="in/b.json")
    doubled = body.replace("in/b.json", 'in/a.json", "key": "in/b.json')
    if shape.wrap is in_sns:
        doubled = body.replace("in/b.json", r"in/a.json\", \"key\": \"in/b.json")

    assert doubled != body
    assert members_in(doubled) == (ObjectRef("source", "in/b.json", 3, "e", None),)


@pytest.mark.parametrize(
    ("notification", "members"),
    [(S3NotificationFactory, 1), (EventBridgeNotificationFactory, 1), (SnsEnvelopeFactory, 1), (S3TestEventFactory, 0)],
)
def test_every_message_of_the_factories_is_accepted(notification: Any, members: int) -> None:
    body = body_of(notification.build())

    assert len(members_in(body)) == members


def test_all_records_of_a_notification_are_members_in_their_order() -> None:
    records = [created(key, 3) for key in ("b", "a", "c", "a")]

    members = members_in(body_of(S3NotificationFactory.build(Records=records)))

    assert members == tuple(ObjectRef("source", key, 3, "e", None) for key in ("b", "a", "c", "a"))


@pytest.mark.parametrize(
    "name",
    [
        "ObjectCreated:Put",
        "ObjectCreated:Post",
        "ObjectCreated:Copy",
        "ObjectCreated:CompleteMultipartUpload",
        "ObjectCreated:SomethingNew",
        "ObjectCreated:",
    ],
)
def test_every_kind_of_creation_announces_a_member_known_or_not(name: str) -> None:
    document = s3()
    document["Records"][0]["eventName"] = name

    assert members_in(json.dumps(document)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.4", "2.17"])
def test_every_minor_version_of_the_event_is_accepted(version: str) -> None:
    document = s3()
    document["Records"][0]["eventVersion"] = version

    assert members_in(json.dumps(document)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


@pytest.mark.parametrize("version", ["3.0", "1.0", "20.1", "2", "2.", "2.x", " 2.1", "", 2.1, None])
def test_another_major_version_of_the_event_is_refused(version: object) -> None:
    document = s3()
    document["Records"][0]["eventVersion"] = version

    assert faulty_fields(json.dumps(document)) == {"eventVersion"}


@pytest.mark.parametrize("name", ["Put", "Post", "Copy", "CompleteMultipartUpload", "PutTagging", ""])
def test_a_creation_is_one_under_the_name_that_it_has_in_the_configuration(name: str) -> None:
    document = s3()
    document["Records"][0]["eventName"] = f"s3:ObjectCreated:{name}"

    assert members_in(json.dumps(document)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


def _add_unknown_fields(document: Any) -> None:
    """A field that AWS has not thought of yet, in every object of the document."""
    for child in document.values() if isinstance(document, dict) else document:
        if isinstance(child, dict | list):
            _add_unknown_fields(child)
    if isinstance(document, dict):
        document["aField-of 2031"] = [{"a": None}]
