"""
The contracts at our edges: the SQS envelope, the notification inside it, and the index inside a bundle.

A body passes two gates. The first asks only what kind of message this is. What is from S3 and known to create no object
(a test event, a deletion, a tagging: the closed list of `events.py`) is skipped without a look at its other fields.
Any other event that is no creation is rejected. The second gate is strict and small: of an object-created notification
it validates the fields we use and ignores the others, because AWS adds fields without notice (S3 user guide, "Event
message structure": ignore what you do not know).

What comes out is a tuple of small frozen `ObjectRef` values; thousands of retained models would cost more in garbage
collection than they cost to parse.
"""

import re
from typing import Annotated, Literal, NamedTuple, Never
from urllib.parse import unquote_plus

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Json,
    NonNegativeInt,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from aggregator.events import (
    CONFIGURATION,
    CREATION,
    CREATION_TYPE,
    MAX_KEY_BYTES,
    TEST_EVENT,
    kind_of_record,
    kind_of_type,
)

MAX_TAG_CHARACTERS = 1026
"""Longest entity tag or version: a version id has at most 1,024 bytes (S3 user guide, "Using S3 Versioning")."""

MAX_ENCODED_KEY_CHARACTERS = 3 * MAX_KEY_BYTES

_UNKNOWN = "unknown_event"
_EVENT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9 :*._-]{0,63}")


class ObjectRef(NamedTuple):
    """
    A source object as its notification announced it.

    `size` is in bytes; `etag` has no quotes; what the notification left out is None.
    """

    bucket: str
    key: str
    size: int | None = None
    etag: str | None = None
    version_id: str | None = None

    @property
    def is_folder_marker(self) -> bool:
        """Whether this is what the S3 console makes for "create folder": a key that ends in a slash, and no content."""
        return self.key.endswith("/") and self.size == 0


def _decode_key(encoded: str) -> str:
    """`application/x-www-form-urlencoded`, once and strictly: Python's default would name another object."""
    try:
        return unquote_plus(encoded, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("key is not UTF-8 once it is decoded") from None


def _check_key(key: str) -> str:
    if len(key.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"key is longer than {MAX_KEY_BYTES} bytes")
    return key


def _given(value: str | None) -> str | None:
    """Absent, null, empty and the version "null" of an unversioned object all mean: not given."""
    return None if value in (None, "", "null") else value.strip('"')


EncodedKey = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_ENCODED_KEY_CHARACTERS),
    AfterValidator(_decode_key),
    AfterValidator(_check_key),
]
PlainKey = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_BYTES), AfterValidator(_check_key)]
BucketName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{3,255}$")]
PrintableTag = Annotated[str, StringConstraints(pattern=rf"^[ -~]{{0,{MAX_TAG_CHARACTERS}}}$")]
OptionalText = Annotated[PrintableTag | None, AfterValidator(_given)]


class _Incoming(BaseModel):
    """What AWS writes: fields we do not know are ignored, for ever."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class _Message(_Incoming):
    """What may lie on the queue."""

    def objects(self) -> tuple[ObjectRef, ...]:
        """The objects announced as created."""
        return ()

    def skipped(self) -> tuple[str, ...]:
        """The kinds of the events that are known to create no object."""
        return ()


class Bucket(_Incoming):
    """The bucket of the object."""

    name: BucketName = Field(description="name of the bucket")


class NotifiedObject(_Incoming):
    """The object, as `Records[].s3.object` names it."""

    key: EncodedKey = Field(
        description="object key, form-encoded: a space is +, a plus is %2B, UTF-8 in percent escapes"
    )
    size: NonNegativeInt | None = Field(None, description="bytes of the object")
    eTag: OptionalText = Field(None, description="entity tag, without quotes")
    versionId: OptionalText = Field(None, description="version, if the bucket is versioned")


class S3Entity(_Incoming):
    """Bucket and object."""

    bucket: Bucket
    object: NotifiedObject


class CreatedRecord(_Incoming):
    """A record that announces a new object."""

    eventSource: Literal["aws:s3"] = Field(description="always aws:s3")
    eventVersion: str = Field(pattern=r"^2\.[0-9]+$", description="major version 2; minor versions only add fields")
    eventName: str = Field(
        pattern=r"^ObjectCreated:", description="ObjectCreated:Put, :Post, :Copy, and what may follow"
    )
    s3: S3Entity


class PrefixedRecord(CreatedRecord):
    """A record that announces a new object under the name of the configuration, as stores that speak S3 write it."""

    eventName: str = Field(pattern=r"^s3:ObjectCreated:", description="s3:ObjectCreated:Put, and what may follow")


class OtherRecord(_Incoming):
    """A record that announces no new object: skipped."""

    eventSource: Literal["aws:s3"] = Field(description="always aws:s3")
    eventName: str = Field(min_length=1, description="any event that is not a creation")

    @field_validator("eventName")
    @classmethod
    def _is_known(cls, name: str, info: ValidationInfo) -> str:
        return _known(name, kind_of_record(name), info, "eventSource")

    @property
    def kind(self) -> str:
        """The family of its event."""
        return str(kind_of_record(self.eventName))


def _known(name: str, kind: str | None, info: ValidationInfo, source: str) -> str:
    """The name of an event that is known to create no object; where its source is wrong, that is what is wrong."""
    if kind is None and source in info.data:
        raise PydanticCustomError(_UNKNOWN, "creates no object that is understood, and is not known to create none")
    return name


def _record_kind(record: object) -> str:
    name = record.get("eventName") if isinstance(record, dict) else getattr(record, "eventName", None)
    if not isinstance(name, str) or not name.removeprefix(CONFIGURATION).startswith(CREATION):
        return "other"
    return "created" if name.startswith(CREATION) else "prefixed"


Record = Annotated[
    Annotated[CreatedRecord, Tag("created")]
    | Annotated[PrefixedRecord, Tag("prefixed")]
    | Annotated[OtherRecord, Tag("other")],
    Discriminator(_record_kind),
]


class S3Notification(_Message):
    """
    What S3 sends to a queue when an object was created.

    Structure: S3 user guide, "Event message structure".
    """

    Records: Annotated[list[Record], Field(min_length=1)] = Field(description="the events; S3 sends one")

    def objects(self) -> tuple[ObjectRef, ...]:
        """The objects announced as created."""
        return tuple(_notified(record.s3) for record in self.Records if isinstance(record, CreatedRecord))

    def skipped(self) -> tuple[str, ...]:
        """The kinds of the events that create no object."""
        return tuple(record.kind for record in self.Records if isinstance(record, OtherRecord))


class S3TestEvent(_Message):
    """What S3 sends once when notifications are configured: skipped."""

    Event: Literal["s3:TestEvent"] = Field(description="always s3:TestEvent")

    def skipped(self) -> tuple[str, ...]:
        """The kind of a test event."""
        return (TEST_EVENT,)


class EventBridgeObject(_Incoming):
    """The object, as `detail.object` names it."""

    key: PlainKey = Field(description="object key as it is: EventBridge does not encode it")
    size: NonNegativeInt | None = Field(None, description="bytes of the object")
    etag: OptionalText = Field(None, description="entity tag, without quotes")
    version_id: OptionalText = Field(None, alias="version-id", description="version, if the bucket is versioned")


class EventBridgeDetail(_Incoming):
    """Bucket and object."""

    bucket: Bucket
    object: EventBridgeObject


class EventBridgeNotification(_Message):
    """
    What S3 sends through EventBridge when an object was created.

    Structure: S3 user guide, "EventBridge event message structure".
    """

    source: Literal["aws.s3"] = Field(description="always aws.s3")
    detail_type: Literal["Object Created"] = Field(alias="detail-type", description="always Object Created")
    detail: EventBridgeDetail

    def objects(self) -> tuple[ObjectRef, ...]:
        """The object announced as created."""
        named = self.detail.object
        return (ObjectRef(self.detail.bucket.name, named.key, named.size, named.etag, named.version_id),)


class EventBridgeOther(_Message):
    """An S3 event in EventBridge that announces no new object: skipped."""

    source: Literal["aws.s3"] = Field(description="always aws.s3")
    detail_type: str = Field(alias="detail-type", min_length=1, description="any event that is not a creation")

    @field_validator("detail_type")
    @classmethod
    def _is_known(cls, name: str, info: ValidationInfo) -> str:
        return _known(name, kind_of_type(name), info, "source")

    def skipped(self) -> tuple[str, ...]:
        """Its detail type."""
        return (self.detail_type,)


class Several(_Message):
    """A body that is several notifications at once: refused, because to read one of them would lose the others."""

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, _body: object) -> Never:
        raise PydanticCustomError("several", "is several notifications at once")


def kind_of(body: object) -> str | None:
    """
    What kind of message a body is, by the first gate; None if it is nothing of S3's.

    A test event is one only if nothing of a notification stands beside it; else the body is that notification, or none.
    """
    if not isinstance(body, dict):
        return None
    told = [field for field in ("Records", "detail-type") if field in body]
    told += ["Type"] if body.get("Type") == "Notification" else []
    match told:
        case ["Records"]:
            return "s3"
        case ["detail-type"]:
            return "eventbridge" if body["detail-type"] == CREATION_TYPE else "eventbridge-other"
        case ["Type"]:
            return "sns"
        case []:
            return "test" if body.get("Event") == "s3:TestEvent" and not any(map(_is_part, body.items())) else None
    return "several"


def _is_part(field: tuple[str, object]) -> bool:
    """Whether a field may belong to a notification: S3's test event has none of these, and nothing but texts."""
    name, value = field
    return name in {"detail", "Type", "Message"} or isinstance(value, dict | list)


Unwrapped = Annotated[
    Annotated[S3Notification, Tag("s3")]
    | Annotated[S3TestEvent, Tag("test")]
    | Annotated[EventBridgeNotification, Tag("eventbridge")]
    | Annotated[EventBridgeOther, Tag("eventbridge-other")]
    | Annotated[Several, Tag("several")],
    Discriminator(kind_of),
]


class SnsEnvelope(_Message):
    """An SNS message around a notification (without raw message delivery)."""

    Type: Literal["Notification"] = Field(description="always Notification")
    Message: Json[Unwrapped] = Field(description="the notification, as a JSON text")

    def objects(self) -> tuple[ObjectRef, ...]:
        """The objects announced as created by the notification inside."""
        return self.Message.objects()

    def skipped(self) -> tuple[str, ...]:
        """The kinds of the events that create no object in the notification inside."""
        return self.Message.skipped()


Body = Annotated[
    Annotated[S3Notification, Tag("s3")]
    | Annotated[S3TestEvent, Tag("test")]
    | Annotated[EventBridgeNotification, Tag("eventbridge")]
    | Annotated[EventBridgeOther, Tag("eventbridge-other")]
    | Annotated[SnsEnvelope, Tag("sns")]
    | Annotated[Several, Tag("several")],
    Discriminator(kind_of),
]

BODY: TypeAdapter[Body] = TypeAdapter(Body)
"""Parses the body of one SQS message into one of the notifications above."""


class SqsRecord(_Incoming):
    """One SQS message, as Lambda hands it over; the fields we use."""

    messageId: str = Field(min_length=1, description="SQS message id, which a batch item failure names")
    eventSource: Literal["aws:sqs"] = Field(description="always aws:sqs")
    body: str = Field(description="the notification, as a JSON text")


class SqsBatch(_Incoming):
    """
    What Lambda's event source mapping for SQS hands to the function.

    Structure: Lambda developer guide, "Using Lambda with Amazon SQS".
    """

    Records: list[SqsRecord] = Field(description="the messages of one batch")


def _notified(entity: S3Entity) -> ObjectRef:
    named = entity.object
    return ObjectRef(entity.bucket.name, named.key, named.size, named.eTag, named.versionId)


def invalid_fields(error: ValueError) -> list[str]:
    """Where a body fails and how, the first five places, without a word of the body itself."""
    if not isinstance(error, ValidationError):
        return ["body: is not Unicode text"]
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return [f"{'.'.join(map(str, fault['loc'])) or 'body'}: {_described(fault)}" for fault in faults[:5]]


def unknown_events(error: ValueError) -> list[str]:
    """
    The events for which a body is rejected because nobody knows whether they create an object, the first five.

    A name is told, because it says what to do, if it looks like one: it comes from whoever wrote the message.
    """
    if not isinstance(error, ValidationError):
        return []
    names = [str(fault["input"]) for fault in error.errors(include_url=False) if fault["type"] == _UNKNOWN]
    return [name if _EVENT_NAME.fullmatch(name) else "…" for name in names[:5]]


def _described(fault: ErrorDetails) -> str:
    if fault["type"] == "union_tag_not_found":
        return "is not an S3 notification, neither as such nor in EventBridge or SNS"
    return fault["msg"]
