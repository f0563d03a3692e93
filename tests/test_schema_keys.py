"""Keys as they travel: encoded by S3, plain in EventBridge; and bodies that are rejected."""

import json
from typing import Any
from unicodedata import normalize
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from aggregator.contracts.factories import (
    SqsRecordFactory,
)
from aggregator.schemas import ObjectRef, SqsBatch, SqsRecord, invalid_fields
from fixtures import factories
from tests.support.messages import (
    EVENTBRIDGE,
    PROPERTY,
    S3,
    SHAPES,
    Shape,
    every_shape,
    in_sns,
    members_in,
    refusal_of,
    s3,
)

SECRET = "s3cret-of-the-sender"

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300).filter(
    lambda key: len(key.encode()) <= 1024
)


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
    assert members_in(S3.body(key=encoded)) == (ObjectRef("source", key, 3, "e", None),)


@pytest.mark.parametrize("encoded", ["%FF", "%C3", "%C3%28", "%ED%A0%80", "%C0%AF", "a%80b", "%F4%90%80%80"])
def test_a_key_that_decodes_to_no_utf_8_is_refused(encoded: str) -> None:
    fault = "s3.Records.0.created.s3.object.key: Value error, key is not UTF-8 once it is decoded"

    assert refusal_of(S3.body(key=encoded)) == [fault]


@pytest.mark.parametrize("encoded", ["a" * 1025, "%C3%A9" * 511 + "abc", "é" * 512 + "a"])
def test_a_key_of_1025_bytes_is_refused_once_it_is_decoded(encoded: str) -> None:
    fault = "s3.Records.0.created.s3.object.key: Value error, key is longer than 1024 bytes"

    assert refusal_of(S3.body(key=encoded)) == [fault]


@pytest.mark.parametrize("key", ["a+b", "a%20b", "a%2Bb", "a b", "%FF", "100%", "caf\u00e9", "cafe\u0301", "🦊"])
def test_a_key_from_eventbridge_is_taken_as_it_is(key: str) -> None:
    assert members_in(EVENTBRIDGE.body(key=key)) == (ObjectRef("source", key, 3, "e", None),)


def test_composed_and_decomposed_letters_are_two_keys() -> None:
    composed, decomposed = normalize("NFC", "é"), normalize("NFD", "é")

    keys = [members_in(factories.created(key))[0].key for key in (composed, decomposed)]

    assert keys == [composed, decomposed]
    assert composed != decomposed


@PROPERTY
@given(KEYS)
def test_every_key_survives_the_way_through_s3(key: str) -> None:
    bodies = [S3.body(key=encoded) for encoded in (quote_plus(key, safe="/"), quote_plus(key), quote(key))]

    members = [members_in(body) for body in bodies]

    assert members == [(ObjectRef("source", key, 3, "e", None),)] * 3


@PROPERTY
@given(KEYS)
def test_every_key_survives_the_way_through_eventbridge_and_sns(key: str) -> None:
    body = SHAPES["eventbridge in sns"].body(key=key)

    assert members_in(body) == (ObjectRef("source", key, 3, "e", None),)


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
    assert refusal_of(body) == [f"body: Invalid JSON: {fault}"]


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
    assert refusal_of(body) == ["body: is not an S3 notification, neither as such nor in EventBridge or SNS"]


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

    assert refusal_of(body) == [f"sns.Message: {fault}"]


def test_an_sns_message_without_a_message_is_refused() -> None:
    assert refusal_of('{"Type": "Notification"}') == ["sns.Message: Field required"]


def test_an_sns_message_in_an_sns_message_is_refused() -> None:
    body = in_sns(json.loads(in_sns(s3())))

    assert [fault.split(",")[0] for fault in refusal_of(body)] == [
        "sns.Message: Input tag 'sns' found using kind_of() does not match any of the expected tags: 's3'"
    ]


@every_shape
def test_a_field_of_100_000_levels_is_refused(shape: Shape) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    body = shape.body(unknown="HERE").replace(r"\"HERE\"", deep).replace('"HERE"', deep)

    assert len(body) > 200_000
    assert [fault.split(" at line")[0].split(": ", 1)[1] for fault in refusal_of(body)] == [
        "Invalid JSON: recursion limit exceeded"
    ]


@pytest.mark.parametrize("level", ["[", '{"Records":', '{"Records":[', '[{"":'])
def test_a_body_of_100_000_levels_is_refused(level: str) -> None:
    assert refusal_of(level * 100_000)[0].startswith("body: Invalid JSON: recursion limit exceeded")


def test_a_body_with_a_lone_surrogate_is_refused() -> None:
    fault = "body: Input should be a valid string, unable to parse raw data as a unicode string"

    assert refusal_of('{"Records": "\ud800"}') == [fault]


def test_what_is_no_fault_of_a_field_is_a_fault_of_the_text() -> None:
    assert invalid_fields(UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogate")) == ["body: is not Unicode text"]


def test_no_more_than_five_faults_are_listed() -> None:
    body = json.dumps({"Records": [{"eventSource": "aws:s3"}] * 7})

    assert refusal_of(body) == [f"s3.Records.{at}.other.eventName: Field required" for at in range(5)]


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
    refusal = refusal_of(body)

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
    refusal = refusal_of(shape.body(**fields))

    assert len(refusal) == len(fields)
    assert SECRET not in repr(refusal)


def test_a_key_that_is_no_utf_8_is_not_echoed() -> None:
    refusal = refusal_of(S3.body(key=f"%FF{SECRET}"))

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
