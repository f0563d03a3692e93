"""
Valid messages, by the models they must satisfy (polyfactory): for our tests and for those of producers.

A factory builds an object that is right in every field; a test overrides the one it is about:

    NotifiedObjectFactory.build(key="a+b", size=3)

`samples` builds what `aggregator contract sample` prints: messages by the producer models, and wrong ones made of them.
What is built after `seed` is the same every time.
"""

import json
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

from polyfactory.factories.pydantic_factory import ModelFactory
from pydantic import BaseModel

from aggregator.bundles.index import BundleIndex, MemberColumns
from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.contracts import producers
from aggregator.contracts.catalog import Contract, schema_path
from aggregator.contracts.mutations import mutants
from aggregator.contracts.validation import validator
from aggregator.schemas import (
    Bucket,
    CreatedRecord,
    EventBridgeDetail,
    EventBridgeNotification,
    EventBridgeObject,
    NotifiedObject,
    S3Entity,
    S3Notification,
    S3TestEvent,
    SnsEnvelope,
    SqsRecord,
)

_REGIONS = ("eu-central-1", "us-west-2", "ap-southeast-2")

_random = random.Random()


def seed(value: int) -> None:
    """Begin again: what is built after this follows from `value` alone."""
    _random.seed(value)
    ModelFactory.seed_random(value)


def _hex(digits: int) -> str:
    return f"{_random.getrandbits(4 * digits):0{digits}x}"


class BucketFactory(ModelFactory[Bucket]):
    """A bucket with a name as people give them."""

    @classmethod
    def name(cls) -> str:
        return f"source-{_hex(6)}"


class NotifiedObjectFactory(ModelFactory[NotifiedObject]):
    """An object of an unversioned bucket, its key form-encoded."""

    @classmethod
    def key(cls) -> str:
        return quote_plus(f"in/2026/{_hex(8)} + é.json", safe="/")

    @classmethod
    def size(cls) -> int:
        return _random.randrange(1, 65_536)

    @classmethod
    def eTag(cls) -> str:  # noqa: N802 - AWS's own name
        return _hex(32)

    versionId = None


class S3EntityFactory(ModelFactory[S3Entity]):
    """Bucket and object."""

    bucket = BucketFactory
    object = NotifiedObjectFactory


class CreatedRecordFactory(ModelFactory[CreatedRecord]):
    """A record that announces a new object."""

    eventSource = "aws:s3"
    eventVersion = "2.1"
    eventName = "ObjectCreated:Put"
    s3 = S3EntityFactory


class S3NotificationFactory(ModelFactory[S3Notification]):
    """What S3 sends: one record."""

    @classmethod
    def Records(cls) -> list[CreatedRecord]:  # noqa: N802 - AWS's own name
        return [CreatedRecordFactory.build()]


class S3TestEventFactory(ModelFactory[S3TestEvent]):
    """What S3 sends when notifications are configured."""


class EventBridgeObjectFactory(ModelFactory[EventBridgeObject]):
    """An object as EventBridge names it: the key as it is."""

    @classmethod
    def key(cls) -> str:
        return f"in/2026/{_hex(8)} + é.json"

    @classmethod
    def size(cls) -> int:
        return _random.randrange(1, 65_536)

    @classmethod
    def etag(cls) -> str:
        return _hex(32)

    version_id = None


class EventBridgeDetailFactory(ModelFactory[EventBridgeDetail]):
    """Bucket and object."""

    bucket = BucketFactory
    object = EventBridgeObjectFactory


class EventBridgeNotificationFactory(ModelFactory[EventBridgeNotification]):
    """What S3 sends through EventBridge."""

    source = "aws.s3"
    detail_type = "Object Created"
    detail = EventBridgeDetailFactory


class SnsEnvelopeFactory(ModelFactory[SnsEnvelope]):
    """An SNS message around a notification."""

    Type = "Notification"

    @classmethod
    def Message(cls) -> str:  # noqa: N802 - AWS's own name
        return body_of(S3NotificationFactory.build())


class SqsRecordFactory(ModelFactory[SqsRecord]):
    """An SQS message around a notification."""

    eventSource = "aws:sqs"

    @classmethod
    def messageId(cls) -> str:  # noqa: N802 - AWS's own name
        return _uuid()

    @classmethod
    def body(cls) -> str:
        return body_of(S3NotificationFactory.build())


def body_of(notification: BaseModel) -> str:
    """The text that a queue would carry: encoded again where AWS encodes."""
    if isinstance(notification, SnsEnvelope):
        return json.dumps({"Type": notification.Type, "Message": body_of(notification.Message)})
    document = notification.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(notification, S3Notification):
        _encode_keys(document)
    return json.dumps(document, ensure_ascii=False)


def _encode_keys(document: dict[str, Any]) -> None:
    for record in document["Records"]:
        if "s3" in record:
            record["s3"]["object"]["key"] = quote_plus(record["s3"]["object"]["key"], safe="/")


def samples(one: Contract, *, invalid: bool = False) -> Iterator[Any]:
    """Messages of a contract without end, valid ones or `invalid` ones: each a valid one with one thing wrong."""
    while True:
        document = _SAMPLES[one.name]()
        yield from _refused(one, document) if invalid else (document,)


def _refused(one: Contract, document: Any) -> list[Any]:
    """Some of the changes that make a document one that nobody accepts."""
    judge = validator(schema_path(one, "consumer"))
    wrong = [mutant.document for mutant in mutants(document) if not judge.is_valid(mutant.document)]
    return _random.sample(wrong, k=min(20, len(wrong)))


def _s3_notification() -> Any:
    return {"Records": [_record()]}


def _record() -> dict[str, Any]:
    bucket = BucketFactory.name()
    record = producers.CreatedRecord.model_validate(
        {
            "eventVersion": _random.choice(["2.1", "2.6"]),
            "eventSource": "aws:s3",
            "awsRegion": _random.choice(_REGIONS),
            "eventTime": _time(),
            "eventName": f"ObjectCreated:{_random.choice(['Put', 'Post', 'Copy', 'CompleteMultipartUpload'])}",
            "userIdentity": {"principalId": f"AWS:AIDA{_hex(12).upper()}"},
            "requestParameters": {"sourceIPAddress": f"192.0.2.{_random.randrange(256)}"},
            "responseElements": {"x-amz-request-id": _hex(16).upper(), "x-amz-id-2": _hex(32)},
            "s3": {
                "s3SchemaVersion": "1.0",
                "configurationId": "aggregator",
                "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}", "ownerIdentity": {"principalId": _hex(14)}},
                "object": _object("eTag", "versionId", quote_plus(_key(), safe="/")),
            },
        }
    )
    return record.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _eventbridge_notification() -> Any:
    bucket = BucketFactory.name()
    event = producers.EventBridgeNotification.model_validate(
        {
            "version": "0",
            "id": _uuid(),
            "detail-type": "Object Created",
            "source": "aws.s3",
            "account": "123456789012",
            "time": _time(),
            "region": _random.choice(_REGIONS),
            "resources": [f"arn:aws:s3:::{bucket}"],
            "detail": {
                "version": "0",
                "bucket": {"name": bucket},
                "object": _object("etag", "version-id", _key()),
                "request-id": _hex(16).upper(),
                "requester": "123456789012",
                "source-ip-address": f"192.0.2.{_random.randrange(256)}",
                "reason": _random.choice(["PutObject", "POST Object", "CopyObject", "CompleteMultipartUpload"]),
            },
        }
    )
    return event.model_dump(mode="json", by_alias=True, exclude_unset=True)


def _sqs_batch() -> Any:
    return {"Records": [record.model_dump() for record in SqsRecordFactory.batch(_random.randrange(1, 4))]}


def _bundle_index() -> Any:
    lengths = [_random.randrange(4_096) for _ in range(_random.randrange(6))]
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    size, number = sum(lengths), len(lengths)
    index = BundleIndex(
        bundle=f"2026/11/23/14/bundle-{_uuid()}-{_hex(8)}.gz",
        created=_time(),
        request_id=_uuid(),
        framing=_random.choice(["lines", "none"]),
        text_size=size,
        block_size=BLOCK_SIZE,
        blocks=[size // 3 + 11] if size else [],
        buckets=[BucketFactory.name()] if number else [],
        members=MemberColumns(
            bucket=[0] * number,
            key=[_key() for _ in lengths],
            version_id=[_random.choice([None, _hex(32)]) for _ in lengths],
            etag=[_hex(32) for _ in lengths],
            size=lengths,
            encoding=[_random.choice([None, "gzip"]) for _ in lengths],
            start=starts,
            length=lengths,
            crc32=[_random.getrandbits(32) for _ in lengths],
        ),
    )
    return index.model_dump(mode="json")


_SAMPLES: dict[str, Callable[[], Any]] = {
    "s3-notification": _s3_notification,
    "eventbridge-notification": _eventbridge_notification,
    "sqs-batch": _sqs_batch,
    "bundle-index": _bundle_index,
}


def _object(etag: str, version: str, key: str) -> dict[str, Any]:
    """An object as both forms name it, but for the spelling; some have a version, some have no size."""
    named = {"key": key, "size": _random.randrange(65_536), etag: _hex(32), "sequencer": _hex(18).upper()}
    if _random.random() < 0.3:
        named[version] = _hex(32)
    if _random.random() < 0.1:
        del named["size"]
    return named


def _key() -> str:
    return f"in/2026/{_hex(8)}{_random.choice(['', ' ', '+', ' é', '%'])}.json"


def _time() -> str:
    return datetime.fromtimestamp(_random.randrange(1_767_225_600, 1_798_761_600), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _uuid() -> str:
    return f"{_hex(8)}-{_hex(4)}-4{_hex(3)}-a{_hex(3)}-{_hex(12)}"
