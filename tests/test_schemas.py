"""
The two gates a body passes: what kind of message it is, and whether the fields we use are right.

AWS adds fields and event types without notice, so whatever we do not know is accepted; whatever we use is strict.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NamedTuple
from unicodedata import normalize
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    S3TestEventFactory,
    SnsEnvelopeFactory,
    SqsRecordFactory,
    body_of,
)
from aggregator.events import NO_CREATION
from aggregator.schemas import BODY, ObjectRef, SqsBatch, SqsRecord, invalid_fields, unknown_events
from fixtures import factories

SECRET = "s3cret-of-the-sender"

SKIPPED = {
    "ObjectRemoved:Delete": "ObjectRemoved",
    "ObjectRemoved:DeleteMarkerCreated": "ObjectRemoved",
    "ObjectRemoved:SomethingNew": "ObjectRemoved",
    "ObjectTagging:Put": "ObjectTagging",
    "ObjectTagging:Delete": "ObjectTagging",
    "ObjectAcl:Put": "ObjectAcl",
    "ObjectAnnotation:Put": "ObjectAnnotation",
    "ObjectAnnotation:Delete": "ObjectAnnotation",
    "ObjectRetention:Put": "ObjectRetention",
    "ObjectRestore:Post": "ObjectRestore",
    "ObjectRestore:Completed": "ObjectRestore",
    "ObjectRestore:Delete": "ObjectRestore",
    "LifecycleExpiration:Delete": "LifecycleExpiration",
    "LifecycleExpiration:DeleteMarkerCreated": "LifecycleExpiration",
    "LifecycleTransition": "LifecycleTransition",
    "IntelligentTiering": "IntelligentTiering",
    "Replication:OperationFailedReplication": "Replication",
    "Replication:OperationReplicatedAfterThreshold": "Replication",
    "ReducedRedundancyLostObject": "ReducedRedundancyLostObject",
    "s3:ObjectRemoved:Delete": "ObjectRemoved",
    "s3:LifecycleTransition": "LifecycleTransition",
}
"""Names of events of S3 that create no object, and the kind under which each is skipped."""

SKIPPED_TYPES = [
    "Object Deleted",
    "Object Restore Initiated",
    "Object Restore Completed",
    "Object Restore Expired",
    "Object Storage Class Changed",
    "Object Access Tier Changed",
    "Object ACL Updated",
    "Object Tags Added",
    "Object Tags Deleted",
]
"""The same, as EventBridge says them."""

UNKNOWN = [
    "Something:New",
    "ObjectCreatedElsewhere",
    "ObjectCreated",
    "objectcreated:put",
    "OBJECTCREATED:PUT",
    " ObjectCreated:Put",
    "s3:s3:ObjectCreated:Put",
    "S3:ObjectCreated:Put",
    "s3:ObjectAccessed:Get",
    "ObjectUploaded:Put",
    "ObjectRemovedAndCreated:Put",
    "ObjectRemoved ",
    "Replicationx",
    "PutObject",
    "CopyObject",
    "CompleteMultipartUpload",
    "s3:TestEvent",
    "s3:",
    "*",
]
"""Names of events that may or may not create an object."""

UNKNOWN_TYPES = [
    "AWS API Call via CloudTrail",
    "AWS Service Event via CloudTrail",
    "Async Copy Completion",
    "object created",
    "Object Created ",
    "Object Created Elsewhere",
    "ObjectCreated:Put",
    "New",
]

NEITHER = "creates no object that is understood, and is not known to create none"

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300).filter(
    lambda key: len(key.encode()) <= 1024
)

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
        named = _at(document, self.object_at)
        names = {"etag": self.etag, "version": self.version}
        named.update({names.get(name, name): value for name, value in fields.items()})
        return self.wrap(document)


def _s3() -> dict[str, Any]:
    return _document(S3NotificationFactory.build(Records=[_created("in/a.json", 3)]))


def _eventbridge() -> dict[str, Any]:
    fields: dict[str, Any] = {"key": "in/a.json", "size": 3, "etag": "e", "version-id": None}
    named = EventBridgeObjectFactory.build(**fields)
    detail = EventBridgeDetailFactory.build(bucket=BucketFactory.build(name="source"), object=named)
    return _document(EventBridgeNotificationFactory.build(detail=detail))


def _in_sns(document: dict[str, Any]) -> str:
    return json.dumps({"Type": "Notification", "Message": json.dumps(document)})


_S3_AT = ("Records", 0, "s3")
S3 = Shape(_s3, json.dumps, (*_S3_AT, "object"), (*_S3_AT, "bucket"), "eTag", "versionId")
EVENTBRIDGE = Shape(_eventbridge, json.dumps, ("detail", "object"), ("detail", "bucket"), "etag", "version-id")
SHAPES = {
    "s3": S3,
    "eventbridge": EVENTBRIDGE,
    "s3 in sns": S3._replace(wrap=_in_sns),
    "eventbridge in sns": EVENTBRIDGE._replace(wrap=_in_sns),
}

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@every_shape
def test_a_notification_names_its_member(shape: Shape) -> None:
    body = shape.body(key="in/b.json", size=17, etag="0123", version="v1")

    assert _members(body) == (ObjectRef("source", "in/b.json", 17, "0123", "v1"),)


@every_shape
def test_what_a_notification_leaves_out_is_not_given(shape: Shape) -> None:
    document = shape.document()
    _at(document, shape.object_at).clear()
    _at(document, shape.object_at)["key"] = "in/a.json"

    assert _members(shape.wrap(document)) == (ObjectRef("source", "in/a.json", None, None, None),)


@every_shape
@pytest.mark.parametrize("nothing", ["", "null", None])
def test_an_empty_or_null_version_is_none(shape: Shape, nothing: str | None) -> None:
    assert _members(shape.body(version=nothing)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


@every_shape
@pytest.mark.parametrize(
    ("announced", "etag"),
    [("abc", "abc"), ('"abc"', "abc"), ('"abc-17"', "abc-17"), ("", None), (None, None)],
)
def test_an_entity_tag_loses_its_quotes(shape: Shape, announced: str | None, etag: str | None) -> None:
    assert _members(shape.body(etag=announced)) == (ObjectRef("source", "in/a.json", 3, etag, None),)


@every_shape
@pytest.mark.parametrize("size", [0, 1, 5 * 1024**4, None])
def test_a_size_is_a_whole_number_of_bytes_or_not_given(shape: Shape, size: int | None) -> None:
    assert _members(shape.body(size=size)) == (ObjectRef("source", "in/a.json", size, "e", None),)


@every_shape
@pytest.mark.parametrize("size", [-1, "3", "", 3.0, 3.5, True, [3], {}])
def test_a_size_that_is_no_whole_number_is_refused(shape: Shape, size: object) -> None:
    assert _faulty_fields(shape.body(size=size)) == {"size"}


@every_shape
@pytest.mark.parametrize("text", ["~!az09._-", "a b", "a" * 1_024, "a" * 1_026])
def test_a_tag_or_version_is_printable_ascii(shape: Shape, text: str) -> None:
    assert _members(shape.body(etag=text, version=text)) == (ObjectRef("source", "in/a.json", 3, text, text),)


@every_shape
@pytest.mark.parametrize("field", ["etag", "version"])
@pytest.mark.parametrize("value", [1, True, ["a"], {}, "a" * 1_027, "é", "a\nb", "a\x00", "\x7f"])
def test_a_tag_or_version_that_is_none_is_refused(shape: Shape, field: str, value: object) -> None:
    names = {"etag": shape.etag, "version": shape.version}

    assert _faulty_fields(shape.body(**{field: value})) == {names[field]}


@every_shape
@pytest.mark.parametrize("key", ["", None, 1, ["a"], "a" * 1025, "é" * 513])
def test_a_key_that_is_empty_too_long_or_no_text_is_refused(shape: Shape, key: object) -> None:
    assert _faulty_fields(shape.body(key=key)) == {"key"}


@every_shape
@pytest.mark.parametrize("key", ["a", "a" * 1024, "é" * 512, "in/" + "🦊" * 255])
def test_a_key_of_at_most_1024_bytes_is_accepted(shape: Shape, key: str) -> None:
    assert _members(shape.body(key=key)) == (ObjectRef("source", key, 3, "e", None),)


@every_shape
@pytest.mark.parametrize("bucket", ["", "ab", "a" * 256, "s3://source", "a bucket", "a/b", None, 1])
def test_a_name_that_no_bucket_has_is_refused(shape: Shape, bucket: object) -> None:
    document = shape.document()
    _at(document, shape.bucket_at)["name"] = bucket

    assert _faulty_fields(shape.wrap(document)) == {"name"}


@every_shape
@pytest.mark.parametrize("missing", ["bucket", "object"])
def test_a_notification_without_bucket_or_object_is_refused(shape: Shape, missing: str) -> None:
    document = shape.document()
    del _at(document, shape.object_at[:-1])[missing]

    assert _faulty_fields(shape.wrap(document)) == {missing}


@every_shape
def test_a_notification_without_a_key_is_refused(shape: Shape) -> None:
    document = shape.document()
    del _at(document, shape.object_at)["key"]

    assert _faulty_fields(shape.wrap(document)) == {"key"}


@every_shape
def test_fields_we_do_not_know_are_accepted_at_every_depth(shape: Shape) -> None:
    document = shape.document()
    expected = _members(shape.wrap(document))

    _add_unknown_fields(document)

    assert _members(shape.wrap(document)) == expected


@every_shape
def test_of_two_values_under_one_name_the_last_counts(shape: Shape) -> None:
    body = shape.body(key="in/b.json")
    doubled = body.replace("in/b.json", 'in/a.json", "key": "in/b.json')
    if shape.wrap is _in_sns:
        doubled = body.replace("in/b.json", r"in/a.json\", \"key\": \"in/b.json")

    assert doubled != body
    assert _members(doubled) == (ObjectRef("source", "in/b.json", 3, "e", None),)


@pytest.mark.parametrize(
    ("notification", "members"),
    [(S3NotificationFactory, 1), (EventBridgeNotificationFactory, 1), (SnsEnvelopeFactory, 1), (S3TestEventFactory, 0)],
)
def test_every_message_of_the_factories_is_accepted(notification: Any, members: int) -> None:
    body = body_of(notification.build())

    assert len(_members(body)) == members


def test_all_records_of_a_notification_are_members_in_their_order() -> None:
    records = [_created(key, 3) for key in ("b", "a", "c", "a")]

    members = _members(body_of(S3NotificationFactory.build(Records=records)))

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
    document = _s3()
    document["Records"][0]["eventName"] = name

    assert _members(json.dumps(document)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


@pytest.mark.parametrize("version", ["2.0", "2.1", "2.4", "2.17"])
def test_every_minor_version_of_the_event_is_accepted(version: str) -> None:
    document = _s3()
    document["Records"][0]["eventVersion"] = version

    assert _members(json.dumps(document)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


@pytest.mark.parametrize("version", ["3.0", "1.0", "20.1", "2", "2.", "2.x", " 2.1", "", 2.1, None])
def test_another_major_version_of_the_event_is_refused(version: object) -> None:
    document = _s3()
    document["Records"][0]["eventVersion"] = version

    assert _faulty_fields(json.dumps(document)) == {"eventVersion"}


@pytest.mark.parametrize("name", ["Put", "Post", "Copy", "CompleteMultipartUpload", "PutTagging", ""])
def test_a_creation_is_one_under_the_name_that_it_has_in_the_configuration(name: str) -> None:
    document = _s3()
    document["Records"][0]["eventName"] = f"s3:ObjectCreated:{name}"

    assert _members(json.dumps(document)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


def test_a_creation_under_the_name_of_the_configuration_is_read_as_strictly_as_any_other() -> None:
    document = _s3()
    document["Records"][0] |= {"eventName": "s3:ObjectCreated:Put", "eventVersion": "3.0"}
    del document["Records"][0]["s3"]["object"]["key"]

    assert _faulty_fields(json.dumps(document)) == {"eventVersion", "key"}


@pytest.mark.parametrize(("name", "kind"), SKIPPED.items())
def test_an_event_that_creates_nothing_is_skipped_whatever_else_it_says(name: str, kind: str) -> None:
    body = json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": name, "eventVersion": 9, "s3": "gone"}]})

    assert _members(body) == ()
    assert _skipped(body) == (kind,)


def test_every_event_that_is_skipped_says_where_it_is_documented_and_when_that_was_read() -> None:
    undated = [
        kind for kind, source in NO_CREATION.items() if not re.fullmatch(r"20[0-9]{2}-[01][0-9]-[0-3][0-9], .+", source)
    ]

    assert undated == []
    assert set(NO_CREATION) == {*SKIPPED.values(), *SKIPPED_TYPES}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_event_of_s3_that_is_not_known_is_refused_and_not_skipped(name: str) -> None:
    document = _s3()
    document["Records"][0]["eventName"] = name

    assert _refusal(json.dumps(document)) == [f"s3.Records.0.other.eventName: {NEITHER}"]
    assert _unknown(json.dumps(document)) == [name if name[0].isalpha() else "…"]


@pytest.mark.parametrize("kind", UNKNOWN_TYPES)
@pytest.mark.parametrize("wrap", [json.dumps, _in_sns], ids=["alone", "in sns"])
def test_an_event_of_eventbridge_that_is_not_known_is_refused_and_not_skipped(
    kind: str, wrap: Callable[[dict[str, Any]], str]
) -> None:
    document = {**_eventbridge(), "detail-type": kind}

    assert [fault.split(": ")[1] for fault in _refusal(wrap(document))] == [NEITHER]
    assert _unknown(wrap(document)) == [kind]


@pytest.mark.parametrize("name", ["PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject"])
def test_an_api_call_that_cloudtrail_tells_is_refused_and_not_skipped(name: str) -> None:
    detail = {"eventSource": "s3.amazonaws.com", "eventName": name, "requestParameters": {"bucketName": "source"}}

    body = json.dumps({"source": "aws.s3", "detail-type": "AWS API Call via CloudTrail", "detail": detail})

    assert _unknown(body) == ["AWS API Call via CloudTrail"]


def test_an_unknown_event_beside_a_creation_refuses_both() -> None:
    document = _s3()
    document["Records"].append({"eventSource": "aws:s3", "eventName": "Something:New"})

    assert _unknown(json.dumps(document)) == ["Something:New"]


def test_the_name_of_an_unknown_event_is_told_only_if_it_looks_like_one() -> None:
    names = ["ObjectMoved:Rename", "a" * 65, "a\nb", "{}", "s3cret@example.org"]
    records = [{"eventSource": "aws:s3", "eventName": name} for name in names]

    assert _unknown(json.dumps({"Records": records})) == ["ObjectMoved:Rename", "…", "…", "…", "…"]


@pytest.mark.parametrize(
    "extra", [{"Event": "s3:TestEvent"}, {"Event": "s3:TestEvent", "Service": "Amazon S3"}, {"Event": None}]
)
@every_shape
def test_a_test_event_that_is_also_a_notification_is_the_notification(shape: Shape, extra: dict[str, Any]) -> None:
    body = json.dumps({**extra, **json.loads(shape.body())})

    assert _members(body) == (ObjectRef("source", "in/a.json", 3, "e", None),)


@pytest.mark.parametrize(
    "body",
    [
        lambda: {**_s3(), "detail-type": "Object Deleted", "source": "aws.s3"},
        lambda: {**_s3(), **_eventbridge()},
        lambda: {**_s3(), "Type": "Notification", "Message": "{}"},
        lambda: {**_eventbridge(), **json.loads(_in_sns(_s3()))},
        lambda: {"detail-type": "Object Deleted", "source": "aws.s3", **json.loads(_in_sns(_s3()))},
        lambda: {"Event": "s3:TestEvent", **_s3(), **_eventbridge()},
        lambda: {"Records": [], **_eventbridge()},
    ],
)
@pytest.mark.parametrize("wrap", [json.dumps, _in_sns], ids=["alone", "in sns"])
def test_a_body_that_is_several_notifications_at_once_is_refused(
    body: Callable[[], dict[str, Any]], wrap: Callable[[dict[str, Any]], str]
) -> None:
    assert [fault.split(": ")[1] for fault in _refusal(wrap(body()))] == ["is several notifications at once"]


@pytest.mark.parametrize(
    "beside",
    [
        lambda: {"detail": _eventbridge()["detail"]},
        lambda: {"detail": json.dumps(_eventbridge()["detail"])},
        lambda: {"Message": json.dumps(_s3())},
        lambda: {"Type": "Something", "Message": json.dumps(_s3())},
        lambda: {"records": _s3()["Records"]},
        lambda: {"body": _s3()},
    ],
)
def test_a_test_event_with_half_of_a_notification_beside_it_is_refused(beside: Callable[[], dict[str, Any]]) -> None:
    body = json.dumps({"Event": "s3:TestEvent", **beside()})

    assert _refusal(body) == ["body: is not an S3 notification, neither as such nor in EventBridge or SNS"]


def test_a_deletion_beside_a_creation_is_skipped_alone() -> None:
    document = _s3()
    document["Records"].insert(0, {"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete"})

    assert _members(json.dumps(document)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


NAMES = st.sampled_from(
    [*SKIPPED, *SKIPPED_TYPES, *UNKNOWN, *UNKNOWN_TYPES, "ObjectCreated:Put", "s3:ObjectCreated:Copy", "Object Created"]
)
"""Names of events of either structure, in either."""


def _record(name: str) -> dict[str, Any]:
    return {**_s3()["Records"][0], "eventName": name}


def _body(names: list[str], detail: str | None, *, test: bool, sns: bool) -> dict[str, Any]:
    """What says as many things at once as it is asked to say."""
    inner: dict[str, Any] = {"Event": "s3:TestEvent"} if test else {}
    if names:
        inner["Records"] = [_record(name) for name in names]
    if detail is not None:
        inner |= _eventbridge() | {"detail-type": detail}
    return {"Type": "Notification", "Message": json.dumps(inner)} if sns else inner


@PROPERTY
@given(
    st.builds(_body, st.lists(NAMES, max_size=3), st.none() | NAMES, test=st.booleans(), sns=st.booleans()),
    st.builds(_body, st.lists(NAMES, max_size=3), st.none() | NAMES, test=st.booleans(), sns=st.booleans()),
)
def test_whatever_tells_of_a_creation_is_read_or_refused_and_only_what_is_on_the_list_is_skipped(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    body = json.dumps({**other, **one})

    try:
        members, skipped = _members(body), _skipped(body)
    except ValidationError:
        return
    told = re.findall(r'"eventName[\\"]*: [\\"]*([^"\\]*)|"detail-type[\\"]*: [\\"]*([^"\\]*)', body)
    names = [name or kind for name, kind in told]
    created = [name for name in names if re.match("(s3:)?ObjectCreated:|Object Created$", name)]
    assert len(members) == len(created)
    assert set(skipped) <= {*NO_CREATION, "TestEvent"}
    assert len(members) + len(skipped) == (len(names) or 1)


def test_one_bad_record_refuses_the_notification() -> None:
    document = _s3()
    document["Records"].append({"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventVersion": "2.1"})

    assert _refusal(json.dumps(document)) == ["s3.Records.1.created.s3: Field required"]


@pytest.mark.parametrize("source", ["aws:sqs", "aws:S3", "aws.s3", "minio:s3", "", None, 1])
@pytest.mark.parametrize("name", ["ObjectCreated:Put", "ObjectRemoved:Delete", "s3:ObjectCreated:Put", "New"])
def test_a_record_that_is_not_from_s3_is_refused(name: str, source: object) -> None:
    document = _s3()
    document["Records"][0] |= {"eventName": name, "eventSource": source}

    assert _faulty_fields(json.dumps(document)) == {"eventSource"}


@pytest.mark.parametrize("name", ["", None, 1, ["ObjectCreated:Put"]])
def test_a_record_without_the_name_of_its_event_is_refused(name: object) -> None:
    document = _s3()
    document["Records"][0]["eventName"] = name

    assert _faulty_fields(json.dumps(document)) == {"eventName"}


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([], "s3.Records: List should have at least 1 item after validation, not 0"),
        (None, "s3.Records: Input should be a valid array"),
        ({}, "s3.Records: Input should be a valid array"),
        ("in/a.json", "s3.Records: Input should be a valid array"),
        ([None], "s3.Records.0.other: Input should be an object"),
        (["in/a.json"], "s3.Records.0.other: Input should be an object"),
        ([[]], "s3.Records.0.other: Input should be an object"),
    ],
)
def test_records_that_are_no_list_of_records_are_refused(records: object, fault: str) -> None:
    assert _refusal(json.dumps({"Records": records})) == [fault]


@pytest.mark.parametrize("wrap", [json.dumps, _in_sns], ids=["alone", "in sns"])
def test_the_test_event_of_s3_is_skipped_with_all_its_fields(wrap: Callable[[dict[str, Any]], str]) -> None:
    document = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-23T00:00:00.000Z", "Bucket": "a"}

    assert _members(wrap(document)) == ()
    assert _skipped(wrap(document)) == ("TestEvent",)


@pytest.mark.parametrize("kind", SKIPPED_TYPES)
def test_an_eventbridge_event_that_creates_nothing_is_skipped_whatever_else_it_says(kind: str) -> None:
    body = json.dumps({"source": "aws.s3", "detail-type": kind, "detail": "gone"})

    assert _members(body) == ()
    assert _skipped(body) == (kind,)


@pytest.mark.parametrize("source", ["aws.ec2", "aws:s3", "", None])
@pytest.mark.parametrize("kind", ["Object Created", "Object Deleted", "Something New"])
def test_an_eventbridge_event_that_is_not_from_s3_is_refused(kind: str, source: object) -> None:
    document = {**_eventbridge(), "detail-type": kind, "source": source}

    assert _faulty_fields(json.dumps(document)) == {"source"}


@pytest.mark.parametrize("kind", ["", None, 1, ["Object Created"]])
def test_an_eventbridge_event_without_the_name_of_its_type_is_refused(kind: object) -> None:
    document = {**_eventbridge(), "detail-type": kind}

    assert _faulty_fields(json.dumps(document)) == {"detail-type"}


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("a+b", "a b"),
        ("a%20b", "a b"),
        ("a%2Bb", "a+b"),
        ("a%2bb", "a+b"),
        ("a%2Fb", "a/b"),
        ("a/b", "a/b"),
        ("a%252Bb", "a%2Bb"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("caf%C3%A9", "caf\u00e9"),
        ("cafe%CC%81", "cafe\u0301"),
        ("café", "café"),
        ("%F0%9F%A6%8A.json", "🦊.json"),
        ("a%0Ab%00", "a\nb\x00"),
        ("%2E%2E/a", "../a"),
        ("%61" * 1024, "a" * 1024),
        ("%C3%A9" * 512, "é" * 512),
    ],
)
def test_a_key_from_s3_is_form_decoded_once(encoded: str, key: str) -> None:
    assert _members(S3.body(key=encoded)) == (ObjectRef("source", key, 3, "e", None),)


@pytest.mark.parametrize("encoded", ["%FF", "%C3", "%C3%28", "%ED%A0%80", "%C0%AF", "a%80b", "%F4%90%80%80"])
def test_a_key_that_decodes_to_no_utf_8_is_refused(encoded: str) -> None:
    fault = "s3.Records.0.created.s3.object.key: Value error, key is not UTF-8 once it is decoded"

    assert _refusal(S3.body(key=encoded)) == [fault]


@pytest.mark.parametrize("encoded", ["a" * 1025, "%C3%A9" * 511 + "abc", "é" * 512 + "a"])
def test_a_key_of_1025_bytes_is_refused_once_it_is_decoded(encoded: str) -> None:
    fault = "s3.Records.0.created.s3.object.key: Value error, key is longer than 1024 bytes"

    assert _refusal(S3.body(key=encoded)) == [fault]


@pytest.mark.parametrize("key", ["a+b", "a%20b", "a%2Bb", "a b", "%FF", "100%", "caf\u00e9", "cafe\u0301", "🦊"])
def test_a_key_from_eventbridge_is_taken_as_it_is(key: str) -> None:
    assert _members(EVENTBRIDGE.body(key=key)) == (ObjectRef("source", key, 3, "e", None),)


def test_composed_and_decomposed_letters_are_two_keys() -> None:
    composed, decomposed = normalize("NFC", "é"), normalize("NFD", "é")

    keys = [_members(factories.created(key))[0].key for key in (composed, decomposed)]

    assert keys == [composed, decomposed]
    assert composed != decomposed


@PROPERTY
@given(KEYS)
def test_every_key_survives_the_way_through_s3(key: str) -> None:
    bodies = [S3.body(key=encoded) for encoded in (quote_plus(key, safe="/"), quote_plus(key), quote(key))]

    members = [_members(body) for body in bodies]

    assert members == [(ObjectRef("source", key, 3, "e", None),)] * 3


@PROPERTY
@given(KEYS)
def test_every_key_survives_the_way_through_eventbridge_and_sns(key: str) -> None:
    body = SHAPES["eventbridge in sns"].body(key=key)

    assert _members(body) == (ObjectRef("source", key, 3, "e", None),)


@pytest.mark.parametrize(
    ("key", "size", "marker"),
    [("in/", 0, True), ("/", 0, True), ("in/", 1, False), ("in/", None, False), ("in", 0, False), ("in/a", 0, False)],
)
def test_a_folder_marker_ends_in_a_slash_and_is_empty(key: str, size: int | None, marker: bool) -> None:
    assert ObjectRef("source", key, size).is_folder_marker is marker


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("nonsense", "expected ident at line 1 column 2"),
        ("{'Records': []}", "key must be a string at line 1 column 2"),
        ('{"Records": [', "EOF while parsing a list at line 1 column 13"),
        ("{} {}", "trailing characters at line 1 column 4"),
        ('{"Records": [],}', "trailing comma at line 1 column 16"),
        ("\ufeff{}", "expected value at line 1 column 1"),
        ('{"Records": "\\ud800"}', "unexpected end of hex escape at line 1 column 20"),
        ('{"Records": "a\nb"}', "control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0"),
    ],
)
def test_what_is_not_json_is_refused(body: str, fault: str) -> None:
    assert _refusal(body) == [f"body: Invalid JSON: {fault}"]


@pytest.mark.parametrize(
    "body",
    [
        "null",
        "1",
        '"Records"',
        "[]",
        "{}",
        '[{"Records": []}]',
        '{"records": []}',
        '{"Event": "s3:testevent"}',
        '{"Type": "SubscriptionConfirmation", "Message": "{}"}',
        '{"Message": "{}"}',
        '{"detail_type": "Object Created"}',
    ],
)
def test_what_is_json_but_no_notification_is_refused(body: str) -> None:
    assert _refusal(body) == ["body: is not an S3 notification, neither as such nor in EventBridge or SNS"]


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        ("nonsense", "Invalid JSON: expected ident at line 1 column 2"),
        ("{}", "is not an S3 notification, neither as such nor in EventBridge or SNS"),
        ({}, "JSON input should be string, bytes or bytearray"),
        (None, "JSON input should be string, bytes or bytearray"),
    ],
)
def test_an_sns_message_around_something_else_is_refused(message: object, fault: str) -> None:
    body = json.dumps({"Type": "Notification", "Message": message})

    assert _refusal(body) == [f"sns.Message: {fault}"]


def test_an_sns_message_without_a_message_is_refused() -> None:
    assert _refusal('{"Type": "Notification"}') == ["sns.Message: Field required"]


def test_an_sns_message_in_an_sns_message_is_refused() -> None:
    body = _in_sns(json.loads(_in_sns(_s3())))

    assert [fault.split(",")[0] for fault in _refusal(body)] == [
        "sns.Message: Input tag 'sns' found using kind_of() does not match any of the expected tags: 's3'"
    ]


@every_shape
def test_a_field_of_100_000_levels_is_refused(shape: Shape) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    body = shape.body(unknown="HERE").replace(r"\"HERE\"", deep).replace('"HERE"', deep)

    assert len(body) > 200_000
    assert [fault.split(" at line")[0].split(": ", 1)[1] for fault in _refusal(body)] == [
        "Invalid JSON: recursion limit exceeded"
    ]


@pytest.mark.parametrize("level", ["[", '{"Records":', '{"Records":[', '[{"":'])
def test_a_body_of_100_000_levels_is_refused(level: str) -> None:
    assert _refusal(level * 100_000)[0].startswith("body: Invalid JSON: recursion limit exceeded")


def test_a_body_with_a_lone_surrogate_is_refused() -> None:
    fault = "body: Input should be a valid string, unable to parse raw data as a unicode string"

    assert _refusal('{"Records": "\ud800"}') == [fault]


def test_what_is_no_fault_of_a_field_is_a_fault_of_the_text() -> None:
    assert invalid_fields(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate")) == ["body: is not Unicode text"]


def test_no_more_than_five_faults_are_listed() -> None:
    body = json.dumps({"Records": [{"eventSource": "aws:s3"}] * 7})

    assert _refusal(body) == [f"s3.Records.{at}.other.eventName: Field required" for at in range(5)]


@pytest.mark.parametrize(
    "body",
    [
        SECRET,
        json.dumps(SECRET),
        json.dumps({SECRET: SECRET}),
        json.dumps({"Records": SECRET}),
        json.dumps({"Records": [SECRET]}),
        json.dumps({"Records": [{SECRET: SECRET}]}),
        json.dumps({"Records": [{"eventSource": SECRET, "eventName": SECRET}]}),
        json.dumps({"Records": [{"eventSource": SECRET, "eventName": f"ObjectCreated:{SECRET}"}]}),
        json.dumps({"Event": SECRET}),
        json.dumps({"Type": SECRET}),
        json.dumps({"Type": "Notification", "Message": SECRET}),
        json.dumps({"Type": "Notification", "Message": {SECRET: SECRET}}),
        json.dumps({"detail-type": SECRET, "source": SECRET}),
        json.dumps({"detail-type": {SECRET: SECRET}}),
        json.dumps({"Records": SECRET + "\ud800"}),
        '{"Records": "' + SECRET + "\ud800",
    ],
)
def test_a_refusal_never_echoes_the_body(body: str) -> None:
    refusal = _refusal(body)

    assert refusal
    assert SECRET not in repr(refusal)


@every_shape
@pytest.mark.parametrize(
    "fields",
    [
        {"key": SECRET * 100},
        {"key": {SECRET: SECRET}},
        {"size": SECRET},
        {"etag": [SECRET]},
        {"key": "", "size": SECRET, "etag": {SECRET: SECRET}, "version": [SECRET]},
    ],
)
def test_a_refused_field_is_not_echoed(shape: Shape, fields: dict[str, Any]) -> None:
    refusal = _refusal(shape.body(**fields))

    assert len(refusal) == len(fields)
    assert SECRET not in repr(refusal)


def test_a_key_that_is_no_utf_8_is_not_echoed() -> None:
    refusal = _refusal(S3.body(key=f"%FF{SECRET}"))

    assert len(refusal) == 1
    assert SECRET not in repr(refusal)


@pytest.mark.parametrize(
    ("field", "value"),
    [("messageId", ""), ("messageId", None), ("eventSource", "aws:sns"), ("body", None), ("body", {"Records": []})],
)
def test_an_envelope_without_id_source_or_body_is_refused(field: str, value: object) -> None:
    record = SqsRecordFactory.build().model_dump() | {field: value}

    with pytest.raises(ValidationError) as caught:
        SqsRecord.model_validate(record)

    assert [fault.split(":")[0] for fault in invalid_fields(caught.value)] == [field]


def test_a_batch_is_read_with_all_that_lambda_adds_to_it() -> None:
    event = factories.event("{}", "[]")
    for record in event["Records"]:
        record |= {"receiptHandle": "r", "attributes": {"ApproximateReceiveCount": "1"}, "awsRegion": "eu-central-1"}

    batch = SqsBatch.model_validate(event)

    assert [record.body for record in batch.Records] == ["{}", "[]"]


def _members(body: str) -> tuple[ObjectRef, ...]:
    return BODY.validate_json(body).objects()


def _skipped(body: str) -> tuple[str, ...]:
    return BODY.validate_json(body).skipped()


def _unknown(body: str) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        BODY.validate_json(body)
    return unknown_events(caught.value)


def _refusal(body: str) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        BODY.validate_json(body)
    return invalid_fields(caught.value)


def _faulty_fields(body: str) -> set[str]:
    """The last part of the place of every fault."""
    return {fault.split(":")[0].split(".")[-1] for fault in _refusal(body)}


def _document(notification: BaseModel) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(body_of(notification))
    return document


def _created(key: str, size: int) -> Any:
    named = NotifiedObjectFactory.build(key=key, size=size, eTag="e")
    return CreatedRecordFactory.build(s3=S3EntityFactory.build(bucket=BucketFactory.build(name="source"), object=named))


def _at(document: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


def _add_unknown_fields(document: Any) -> None:
    """A field that AWS has not thought of yet, in every object of the document."""
    for child in document.values() if isinstance(document, dict) else document:
        if isinstance(child, dict | list):
            _add_unknown_fields(child)
    if isinstance(document, dict):
        document["aField-of 2031"] = [{"a": None}]
