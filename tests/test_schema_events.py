"""Which events are read as creations, skipped or rejected."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aggregator.events import NO_CREATION
from aggregator.schemas import BODY, ObjectRef, unknown_events
from tests.support.messages import (
    PROPERTY,
    Shape,
    eventbridge,
    every_shape,
    faulty_fields,
    in_sns,
    members_in,
    refusal_of,
    s3,
)

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


def test_a_creation_under_the_name_of_the_configuration_is_read_as_strictly_as_any_other() -> None:
    document = s3()
    document["Records"][0] |= {"eventName": "s3:ObjectCreated:Put", "eventVersion": "3.0"}
    del document["Records"][0]["s3"]["object"]["key"]

    assert faulty_fields(json.dumps(document)) == {"eventVersion", "key"}


@pytest.mark.parametrize(("name", "kind"), SKIPPED.items())
def test_an_event_that_creates_nothing_is_skipped_whatever_else_it_says(name: str, kind: str) -> None:
    body = json.dumps({"Records": [{"eventSource": "aws:s3", "eventName": name, "eventVersion": 9, "s3": "gone"}]})

    assert members_in(body) == ()
    assert _skipped(body) == (kind,)


def test_every_event_that_is_skipped_says_where_it_is_documented_and_when_that_was_read() -> None:
    undated = [
        kind for kind, source in NO_CREATION.items() if not re.fullmatch(r"20[0-9]{2}-[01][0-9]-[0-3][0-9], .+", source)
    ]

    assert undated == []
    assert set(NO_CREATION) == {*SKIPPED.values(), *SKIPPED_TYPES}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_event_of_s3_that_is_not_known_is_refused_and_not_skipped(name: str) -> None:
    document = s3()
    document["Records"][0]["eventName"] = name

    assert refusal_of(json.dumps(document)) == [f"s3.Records.0.other.eventName: {NEITHER}"]
    assert _unknown(json.dumps(document)) == [name if name[0].isalpha() else "…"]


@pytest.mark.parametrize("kind", UNKNOWN_TYPES)
@pytest.mark.parametrize("wrap", [json.dumps, in_sns], ids=["alone", "in sns"])
def test_an_event_of_eventbridge_that_is_not_known_is_refused_and_not_skipped(
    kind: str, wrap: Callable[[dict[str, Any]], str]
) -> None:
    document = {**eventbridge(), "detail-type": kind}

    assert [fault.split(": ")[1] for fault in refusal_of(wrap(document))] == [NEITHER]
    assert _unknown(wrap(document)) == [kind]


@pytest.mark.parametrize("name", ["PutObject", "CopyObject", "CompleteMultipartUpload", "DeleteObject"])
def test_an_api_call_that_cloudtrail_tells_is_refused_and_not_skipped(name: str) -> None:
    detail = {"eventSource": "s3.amazonaws.com", "eventName": name, "requestParameters": {"bucketName": "source"}}

    body = json.dumps({"source": "aws.s3", "detail-type": "AWS API Call via CloudTrail", "detail": detail})

    assert _unknown(body) == ["AWS API Call via CloudTrail"]


def test_an_unknown_event_beside_a_creation_refuses_both() -> None:
    document = s3()
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

    assert members_in(body) == (ObjectRef("source", "in/a.json", 3, "e", None),)


@pytest.mark.parametrize(
    "body",
    [
        lambda: {**s3(), "detail-type": "Object Deleted", "source": "aws.s3"},
        lambda: {**s3(), **eventbridge()},
        lambda: {**s3(), "Type": "Notification", "Message": "{}"},
        lambda: {**eventbridge(), **json.loads(in_sns(s3()))},
        lambda: {"detail-type": "Object Deleted", "source": "aws.s3", **json.loads(in_sns(s3()))},
        lambda: {"Event": "s3:TestEvent", **s3(), **eventbridge()},
        lambda: {"Records": [], **eventbridge()},
    ],
)
@pytest.mark.parametrize("wrap", [json.dumps, in_sns], ids=["alone", "in sns"])
def test_a_body_that_is_several_notifications_at_once_is_refused(
    body: Callable[[], dict[str, Any]], wrap: Callable[[dict[str, Any]], str]
) -> None:
    assert [fault.split(": ")[1] for fault in refusal_of(wrap(body()))] == ["is several notifications at once"]


@pytest.mark.parametrize(
    "beside",
    [
        lambda: {"detail": eventbridge()["detail"]},
        lambda: {"detail": json.dumps(eventbridge()["detail"])},
        lambda: {"Message": json.dumps(s3())},
        lambda: {"Type": "Something", "Message": json.dumps(s3())},
        lambda: {"records": s3()["Records"]},
        lambda: {"body": s3()},
    ],
)
def test_a_test_event_with_half_of_a_notification_beside_it_is_refused(beside: Callable[[], dict[str, Any]]) -> None:
    body = json.dumps({"Event": "s3:TestEvent", **beside()})

    assert refusal_of(body) == ["body: is not an S3 notification, neither as such nor in EventBridge or SNS"]


def test_a_deletion_beside_a_creation_is_skipped_alone() -> None:
    document = s3()
    document["Records"].insert(0, {"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete"})

    assert members_in(json.dumps(document)) == (ObjectRef("source", "in/a.json", 3, "e", None),)


NAMES = st.sampled_from(
    [*SKIPPED, *SKIPPED_TYPES, *UNKNOWN, *UNKNOWN_TYPES, "ObjectCreated:Put", "s3:ObjectCreated:Copy", "Object Created"]
)
"""Names of events of either structure, in either."""


def _record(name: str) -> dict[str, Any]:
    return {**s3()["Records"][0], "eventName": name}


def _body(names: list[str], detail: str | None, *, test: bool, sns: bool) -> dict[str, Any]:
    """What says as many things at once as it is asked to say."""
    inner: dict[str, Any] = {"Event": "s3:TestEvent"} if test else {}
    if names:
        inner["Records"] = [_record(name) for name in names]
    if detail is not None:
        inner |= eventbridge() | {"detail-type": detail}
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
        members, skipped = members_in(body), _skipped(body)
    except ValidationError:
        return
    told = re.findall(r'"eventName[\\"]*: [\\"]*([^"\\]*)|"detail-type[\\"]*: [\\"]*([^"\\]*)', body)
    names = [name or kind for name, kind in told]
    created = [name for name in names if re.match("(s3:)?ObjectCreated:|Object Created$", name)]
    assert len(members) == len(created)
    assert set(skipped) <= {*NO_CREATION, "TestEvent"}
    assert len(members) + len(skipped) == (len(names) or 1)


def test_one_bad_record_refuses_the_notification() -> None:
    document = s3()
    document["Records"].append({"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "eventVersion": "2.1"})

    assert refusal_of(json.dumps(document)) == ["s3.Records.1.created.s3: Field required"]


@pytest.mark.parametrize("source", ["aws:sqs", "aws:S3", "aws.s3", "minio:s3", "", None, 1])
@pytest.mark.parametrize("name", ["ObjectCreated:Put", "ObjectRemoved:Delete", "s3:ObjectCreated:Put", "New"])
def test_a_record_that_is_not_from_s3_is_refused(name: str, source: object) -> None:
    document = s3()
    document["Records"][0] |= {"eventName": name, "eventSource": source}

    assert faulty_fields(json.dumps(document)) == {"eventSource"}


@pytest.mark.parametrize("name", ["", None, 1, ["ObjectCreated:Put"]])
def test_a_record_without_the_name_of_its_event_is_refused(name: object) -> None:
    document = s3()
    document["Records"][0]["eventName"] = name

    assert faulty_fields(json.dumps(document)) == {"eventName"}


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
    assert refusal_of(json.dumps({"Records": records})) == [fault]


@pytest.mark.parametrize("wrap", [json.dumps, in_sns], ids=["alone", "in sns"])
def test_the_test_event_of_s3_is_skipped_with_all_its_fields(wrap: Callable[[dict[str, Any]], str]) -> None:
    document = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-11-23T00:00:00.000Z", "Bucket": "a"}

    assert members_in(wrap(document)) == ()
    assert _skipped(wrap(document)) == ("TestEvent",)


@pytest.mark.parametrize("kind", SKIPPED_TYPES)
def test_an_eventbridge_event_that_creates_nothing_is_skipped_whatever_else_it_says(kind: str) -> None:
    body = json.dumps({"source": "aws.s3", "detail-type": kind, "detail": "gone"})

    assert members_in(body) == ()
    assert _skipped(body) == (kind,)


@pytest.mark.parametrize("source", ["aws.ec2", "aws:s3", "", None])
@pytest.mark.parametrize("kind", ["Object Created", "Object Deleted", "Something New"])
def test_an_eventbridge_event_that_is_not_from_s3_is_refused(kind: str, source: object) -> None:
    document = {**eventbridge(), "detail-type": kind, "source": source}

    assert faulty_fields(json.dumps(document)) == {"source"}


@pytest.mark.parametrize("kind", ["", None, 1, ["Object Created"]])
def test_an_eventbridge_event_without_the_name_of_its_type_is_refused(kind: object) -> None:
    document = {**eventbridge(), "detail-type": kind}

    assert faulty_fields(json.dumps(document)) == {"detail-type"}


def _skipped(body: str) -> tuple[str, ...]:
    return BODY.validate_json(body).skipped()


def _unknown(body: str) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        BODY.validate_json(body)
    return unknown_events(caught.value)
