"""
The clients of one invocation, and the distribution bucket.

A bundle is published by one conditional put, which is the commit of everything; whether it happened can be found out
later by anyone, because every version ever put under its name is looked up, also those that a consumer has deleted.
`sources.py` reads the members. Foreign errors are translated here and there, once each.
"""

import json
import os
import time
from base64 import b64encode
from functools import cache, partial
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader

from aggregator.aws import error_code, http_status, retry_once
from aggregator.bundles.bundle import Bundle
from aggregator.bundles.index import BundleIndex
from aggregator.exceptions import AmbiguousPutError, StoreUnavailableError, UnpublishedError
from aggregator.pipeline.planning import CONNECT_TIMEOUT, Timetable
from aggregator.pipeline.settings import elsewhere

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client

CONDITION_FAILED = frozenset({"412", "PreconditionFailed"})

_INDEFINITE = frozenset({408, 409, 412, 429})
"""Answers of the 400 family that do not say that the object was refused."""

_THROTTLED = frozenset({"SlowDown", "ServiceUnavailable"})
"""What S3 says when it has not done what it was asked; the 503 of a proxy does not tell."""

_PUT_ATTEMPTS = 3


class Clients(NamedTuple):
    """
    The boto3 clients of one invocation; built once, closed at its end.

    The S3 client repeats no call by itself: a consumer may have deleted the bundle in between, and a repeated put would
    publish it again, because a delete marker counts as no object (S3 user guide, "Conditional writes").
    """

    s3: "S3Client"
    dynamodb: "DynamoDBClient"
    session: boto3.session.Session

    @classmethod
    def build(cls, timetable: Timetable) -> "Clients":
        """Clients that begin no call, and no attempt to repeat one, that may not end within the invocation."""
        session = _session()
        config = _config(timetable.put_timeout, attempts=1)
        if elsewhere(os.environ, "S3"):  # "bucket.localhost" is a name that few machines resolve
            config = config.merge(Config(s3={"addressing_style": "path"}))
        s3 = session.client("s3", config=config)
        unchecked = Config(parameter_validation=False)  # a third of what a claim costs, and DynamoDB checks anyway
        dynamodb = session.client("dynamodb", config=_config(timetable.ledger_timeout, attempts=2).merge(unchecked))
        for operation, swaps in (("TransactWriteItems", "TransactItems"), ("BatchExecuteStatement", "Statements")):
            dynamodb.meta.events.register(
                f"before-parameter-build.dynamodb.{operation}", partial(_set_aside, swaps=swaps)
            )
            dynamodb.meta.events.register(f"before-call.dynamodb.{operation}", _written_as_set_aside)
        for client in (s3, dynamodb):
            client.meta.events.register("before-send", partial(_in_time, timetable, client.meta.config))
        s3.meta.events.register("before-send.s3.PutObject", partial(_not_lapsed, timetable))
        return cls(s3, dynamodb, session)

    def close(self) -> None:
        """Close the connections."""
        self.s3.close()
        self.dynamodb.close()


class TooLateError(BotoCoreError):
    """A call is not begun, or not gone on with, because it might outlast the invocation."""

    fmt = "the invocation ends before the call is sure to"


class Version(NamedTuple):
    """One version of an object in the distribution bucket; `size` in bytes."""

    version_id: str
    size: int
    is_latest: bool


class Distribution:
    """The bucket that bundles are put into, looked up in, and whose names are fenced."""

    def __init__(self, s3: "S3Client", bucket: str) -> None:
        self.bucket = bucket
        self._s3 = s3

    def put(self, key: str, body: IO[bytes], *, size: int, sha256: bytes) -> None:
        """
        Publish a bundle under `key`, unless there is something already. This is the commit.

        Raises:
            UnpublishedError: S3 refused it, so it is not there.
            AmbiguousPutError: whether the bundle is there must be found out.
        """
        for attempt in range(_PUT_ATTEMPTS):
            body.seek(0)
            try:
                self._s3.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=body,
                    ContentLength=size,
                    ContentType="application/gzip",
                    ChecksumSHA256=b64encode(sha256).decode(),
                    IfNoneMatch="*",
                )
            except (ClientError, BotoCoreError) as error:
                status, fault = http_status(error), error_code(error)
                refused = 400 <= status < 500 and status not in _INDEFINITE
                if refused and attempt == 0:  # of a second attempt it would say nothing of the first
                    raise UnpublishedError("S3 refuses the bundle", bundle=key, fault=fault) from error
                if fault not in _THROTTLED or attempt + 1 == _PUT_ATTEMPTS or self.versions(key):
                    raise AmbiguousPutError("the put of a bundle failed", bundle=key, fault=fault) from error
                time.sleep(0.2 * 2**attempt)
            else:
                return

    def fence(self, key: str, body: bytes) -> None:
        """
        Put an empty bundle under `key`, unless there is something already; then look what is there.

        Raises:
            StoreUnavailableError: whether it is there is unknown.
        """
        try:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType="application/gzip", IfNoneMatch="*")
        except (ClientError, BotoCoreError) as error:
            if error_code(error) not in CONDITION_FAILED:
                raise StoreUnavailableError("a bundle's name could not be closed", bundle=key) from error

    def versions(self, key: str) -> list[Version]:
        """
        All versions under `key` that have content, also those behind a delete marker.

        Raises:
            StoreUnavailableError: S3 does not say.
        """
        try:
            page = retry_once(lambda: self._s3.list_object_versions(Bucket=self.bucket, Prefix=key))
        except (ClientError, BotoCoreError) as error:
            raise StoreUnavailableError(
                "a bundle could not be looked up", bundle=key, fault=error_code(error)
            ) from error
        return [
            Version(version["VersionId"], version["Size"], version["IsLatest"])
            for version in page.get("Versions", [])
            if version["Key"] == key
        ]

    def index(self, key: str, version: Version) -> BundleIndex:
        """
        The index of a bundle, read from its tail.

        Raises:
            BundleFormatError: what lies there is no bundle.
            StoreUnavailableError: it cannot be read.
        """

        def fetch(offset: int, length: int) -> bytes:
            def get() -> bytes:
                answer = self._s3.get_object(
                    Bucket=self.bucket,
                    Key=key,
                    VersionId=version.version_id,
                    Range=f"bytes={offset}-{offset + length - 1}",
                )
                body = answer["Body"].read()
                # A server may ignore a range, and answer with the whole (RFC 9110, 14.2).
                return body if len(body) <= length else body[offset : offset + length]

            try:
                return retry_once(get)
            except (ClientError, BotoCoreError) as error:
                raise StoreUnavailableError("a bundle's index could not be read", bundle=key) from error

        return Bundle(fetch, version.size).index


def _in_time(timetable: Timetable, config: Any, *, request: Any, **_: object) -> None:
    """
    Refuse an attempt that may not end within the invocation; botocore asks before each.

    Raises:
        TooLateError: nothing is sent.
    """
    if not timetable.allows(config.connect_timeout + config.read_timeout, time.monotonic()):
        raise TooLateError
    if hasattr(request.body, "read"):
        request.body = _Watched(request.body, timetable, config.read_timeout)


def _not_lapsed(timetable: Timetable, **_: object) -> None:
    """
    Refuse an attempt at a put when our claims have lapsed; botocore asks before each.

    The process, or its whole machine, has been asleep, while the monotonic clock stood still (clock_gettime(2)).

    Raises:
        TooLateError: nothing is sent.
    """
    if time.time() > timetable.lapses:
        raise TooLateError


class _Watched:
    """
    A body that breaks off its being sent when the next block, or the answer, may not arrive within the invocation.

    Each has a time-out of its own; many blocks that each just keep to it would take for ever.
    """

    def __init__(self, body: IO[bytes], timetable: Timetable, timeout: float) -> None:
        self._body, self._timetable, self._timeout = body, timetable, timeout
        self.seek, self.tell = body.seek, body.tell

    def read(self, size: int = -1) -> bytes:
        """The next block."""
        if not self._timetable.allows(self._timeout, time.monotonic()):
            raise TooLateError
        return self._body.read(size)


def _set_aside(params: dict[str, Any], context: dict[str, Any], *, swaps: str, **_: object) -> None:
    """
    Take the swaps of a request away from botocore before it looks at each value of each of them.

    What it would make of them is their JSON, key for key. A claim costs 37 µs in this way, and 74 in botocore's.
    """
    context["aggregator_body"] = json.dumps(params).encode()
    params[swaps] = []


def _written_as_set_aside(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    params["body"] = context.pop("aggregator_body")


def _config(timeout: float, *, attempts: int) -> Config:
    return Config(
        connect_timeout=min(timeout, CONNECT_TIMEOUT),
        read_timeout=timeout,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )


def _session() -> boto3.session.Session:
    """A new session; only the descriptions of AWS's services, which are files of botocore's, are not read anew."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _service_descriptions())
    return boto3.session.Session(botocore_session=session)


@cache
def _service_descriptions() -> Loader:
    """Botocore's own loader, which keeps what it has read: 65 of the 90 ms that the clients of an invocation cost."""
    return botocore.session.get_session().get_component("data_loader")  # type: ignore[no-any-return]
