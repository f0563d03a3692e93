"""
What a producer may write: closed models, so that a misspelt field is found before the message is sent.

The Lambda reads less than this and more than this: less, because it uses a handful of these fields; more, because it
ignores what it does not know (`schemas.py`). Every message that these models accept, it accepts. They are no part of
the Lambda and are parsed with nowhere: they exist for the producer schemas and for the factories.

The fields are all those that AWS writes into an object-created notification, up to event version 2.6 (S3 user guide,
"Event message structure" and "EventBridge event message structure"). A field may be left out, but is never null.
"""

from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, StringConstraints

from aggregator.events import MAX_KEY_BYTES
from aggregator.schemas import MAX_ENCODED_KEY_CHARACTERS, BucketName, PlainKey, PrintableTag

_HEX = "[0-9A-Fa-f]"
_NEXT = f"%[89ABab]{_HEX}"
_UTF_8 = "|".join(
    (
        f"%[0-7]{_HEX}",
        f"%[Cc][2-9A-Fa-f]{_NEXT}",
        f"%[Dd]{_HEX}{_NEXT}",
        f"%[Ee]0%[ABab]{_HEX}{_NEXT}",
        f"%[Ee][1-9A-Ca-cEFef]{_NEXT}{_NEXT}",
        f"%[Ee][Dd]%[89]{_HEX}{_NEXT}",
        f"%[Ff]0%[9ABab]{_HEX}{_NEXT}{_NEXT}",
        f"%[Ff][1-3]{_NEXT}{_NEXT}{_NEXT}",
        f"%[Ff]4%8{_HEX}{_NEXT}{_NEXT}",
    )
)
"""One character of UTF-8 in percent escapes: the table of well-formed byte sequences (Unicode Standard, table 3-7)."""

_ENCODED = f"^(?:[!-$&-~]|{_UTF_8})+$"
_MOST = f"at most {MAX_KEY_BYTES:,} bytes once it is decoded"
_BYTES = f"^(?:[^%]|%{_HEX}{{2}}){{1,{MAX_KEY_BYTES}}}$"


def _check_bytes(key: str) -> str:
    if len(unquote_to_bytes(key)) > MAX_KEY_BYTES:
        raise ValueError(f"key is longer than {MAX_KEY_BYTES} bytes")
    return key


EncodedKey = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_ENCODED_KEY_CHARACTERS, pattern=_ENCODED),
    AfterValidator(_check_bytes),
    Field(json_schema_extra={"allOf": [{"description": _MOST, "pattern": _BYTES}]}),
]
"""A form-encoded key that decodes to at most 1,024 bytes of UTF-8. The second pattern counts: an escape is a byte."""

Text = Annotated[str, StringConstraints(min_length=1)]
Time = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?Z$")
]


def _absent() -> Any:
    """Stand for a field that was left out; None itself is no value of any field."""
    return None


class _Outgoing(BaseModel):
    """Nothing but what is written here."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Principal(_Outgoing):
    """Who did it, or whose it is."""

    principalId: str = Field(description="AWS's id of the principal")


class RequestParameters(_Outgoing):
    """The request that created the object."""

    sourceIPAddress: str = Field(description="address that the request came from, or a service's host name")


class ResponseElements(_Outgoing):
    """The response to that request, for AWS support."""

    request_id: str = Field(alias="x-amz-request-id", description="request id of S3")
    id_2: str = Field(default_factory=_absent, alias="x-amz-id-2", description="host id of S3")


class Bucket(_Outgoing):
    """The bucket of the object."""

    name: BucketName = Field(description="name of the bucket: 3 to 255 letters, digits, dots, dashes, underscores")
    ownerIdentity: Principal = Field(default_factory=_absent)
    arn: Text = Field(default_factory=_absent, description="ARN of the bucket")
    awsGeneratedTags: dict[str, str] = Field(default_factory=_absent, description="tags that AWS put on the bucket")


class NotifiedObject(_Outgoing):
    """The object, its key form-encoded."""

    key: EncodedKey = Field(
        description="object key, form-encoded once: a space is +, a plus is %2B, anything beyond ASCII is UTF-8 in "
        "percent escapes"
    )
    size: NonNegativeInt = Field(
        default_factory=_absent, description="bytes of the object, a whole number without a decimal point"
    )
    eTag: PrintableTag = Field(default_factory=_absent, description="entity tag, without quotes")
    versionId: PrintableTag = Field(default_factory=_absent, description="version, if the bucket is versioned")
    sequencer: Text = Field(default_factory=_absent, description="orders the events of one key")
    hasObjectAnnotation: bool = Field(default_factory=_absent, description="whether the object has an annotation")


class S3Entity(_Outgoing):
    """Bucket and object."""

    s3SchemaVersion: Text = Field(default_factory=_absent, description="version of this structure: 1.0")
    configurationId: str = Field(default_factory=_absent, description="name of the notification configuration")
    bucket: Bucket
    object: NotifiedObject


class CreatedRecord(_Outgoing):
    """A record that announces a new object."""

    eventVersion: str = Field(pattern=r"^2\.[0-9]+$", description="2.1, or a later minor version")
    eventSource: Literal["aws:s3"] = Field(description="always aws:s3")
    awsRegion: Text = Field(default_factory=_absent, description="region of the bucket")
    eventTime: Time = Field(
        default_factory=_absent, description="when the object was created: RFC 3339, UTC, ends in Z"
    )
    eventName: Literal[
        "ObjectCreated:Put", "ObjectCreated:Post", "ObjectCreated:Copy", "ObjectCreated:CompleteMultipartUpload"
    ] = Field(description="how the object was created; only objects created are aggregated")
    userIdentity: Principal = Field(default_factory=_absent)
    requestParameters: RequestParameters = Field(default_factory=_absent)
    responseElements: ResponseElements = Field(default_factory=_absent)
    s3: S3Entity


class S3Notification(_Outgoing):
    """
    What says that an object was created, in the form in which S3 says it.

    Structure: S3 user guide, "Event message structure".
    """

    Records: Annotated[list[CreatedRecord], Field(min_length=1)] = Field(description="the objects; S3 itself sends one")


class EventBridgeBucket(_Outgoing):
    """The bucket of the object."""

    name: BucketName = Field(description="name of the bucket: 3 to 255 letters, digits, dots, dashes, underscores")
    aws_generated_tags: dict[str, str] = Field(
        default_factory=_absent, alias="aws-generated-tags", description="tags that AWS put on the bucket"
    )


class EventBridgeObject(_Outgoing):
    """The object, its key as it is."""

    key: PlainKey = Field(description="object key as it is, not encoded: at most 1,024 bytes of UTF-8")
    size: NonNegativeInt = Field(
        default_factory=_absent, description="bytes of the object, a whole number without a decimal point"
    )
    etag: PrintableTag = Field(default_factory=_absent, description="entity tag, without quotes")
    version_id: PrintableTag = Field(
        default_factory=_absent, alias="version-id", description="version, if the bucket is versioned"
    )
    sequencer: Text = Field(default_factory=_absent, description="orders the events of one key")
    has_annotation: bool = Field(
        default_factory=_absent, alias="has-object-annotation", description="whether the object has an annotation"
    )


class EventBridgeDetail(_Outgoing):
    """Bucket and object."""

    version: Text = Field(default_factory=_absent, description="version of the detail: 0")
    event_version: Text = Field(
        default_factory=_absent, alias="event-version", description="version of the fields in the detail: 1.0"
    )
    bucket: EventBridgeBucket
    object: EventBridgeObject
    request_id: str = Field(default_factory=_absent, alias="request-id", description="request id of S3")
    requester: str = Field(default_factory=_absent, description="account or service that created the object")
    source_ip_address: str = Field(
        default_factory=_absent, alias="source-ip-address", description="address that the request came from"
    )
    reason: Literal["PutObject", "POST Object", "CopyObject", "CompleteMultipartUpload"] = Field(
        default_factory=_absent, description="the call that created the object"
    )


class EventBridgeNotification(_Outgoing):
    """
    What says that an object was created, in the form in which EventBridge says it.

    Structure: S3 user guide, "EventBridge event message structure".
    """

    version: Text = Field(default_factory=_absent, description="version of the envelope: 0")
    id: Text = Field(default_factory=_absent, description="id of this event")
    detail_type: Literal["Object Created"] = Field(alias="detail-type", description="always Object Created")
    source: Literal["aws.s3"] = Field(description="always aws.s3")
    account: str = Field(default_factory=_absent, description="account of the bucket")
    time: Time = Field(default_factory=_absent, description="when the object was created: RFC 3339, UTC, ends in Z")
    region: Text = Field(default_factory=_absent, description="region of the bucket")
    resources: list[str] = Field(default_factory=_absent, description="ARN of the bucket")
    detail: EventBridgeDetail
