"""
Read objects: any object of any bucket, whole or in parts.

boto3 costs 1.4 ms of CPU an object and holds the interpreter's lock; obstore costs 0.1 ms and releases it, so obstore
reads. But it takes a session token along to wherever a store redirects, so with a token and a store that is not AWS's,
boto3 reads all. And it cannot name every S3 key: it refuses some and silently reads another object for a few (`/lead`
reads `lead`), so such keys are recognised first and read with boto3, and so is an object whose headers obstore cannot
read.

Every request is bounded in size and in time. An object larger than `PART_SIZE` is read in parts, each pinned to the
entity tag of the first answer, so that a slow, broken or replaced object costs one part and never the invocation.
"""

import re
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import chain, pairwise
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, cast

import obstore
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)
from obstore.exceptions import BaseError
from obstore.store import S3Store
from urllib3.exceptions import HTTPError

from aggregator.aws import retry_once
from aggregator.exceptions import (
    AggregatorError,
    OutOfTimeError,
    OversizedMemberError,
    StoreUnavailableError,
    UnexpectedError,
)
from aggregator.pipeline.answers import NO_SUCH_RANGE, REDIRECTED, answer_of, fate_of
from aggregator.pipeline.clients import Clients
from aggregator.pipeline.connection import connection, may_leak
from aggregator.pipeline.core import FetchedObject, Reading
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.decoding import MAGIC_SIZE, Chunk, announced, decoded, recognised
from aggregator.pipeline.planning import Wanted
from aggregator.pipeline.readahead import Arrival, Crew, ReadAhead
from aggregator.schemas import ObjectRef

if TYPE_CHECKING:
    from obstore import GetOptions

PART_SIZE = 8 * 1024 * 1024
"""Most bytes asked for in one request."""

_UNNAMEABLE = re.compile(r"[\x00-\x1f\x7f]|//|^/|/$|(^|/)\.{1,2}(/|$)")
_UNREADABLE_HEADER = "non UTF-8 characters"
"""What obstore says of an answer with, for example, a Latin-1 file name in Content-Disposition."""


def nameable(key: str) -> bool:
    """Whether obstore reads the object of this very key."""
    return _UNNAMEABLE.search(key) is None


class Sources:
    """The buckets that members are read from."""

    def __init__(
        self,
        clients: Clients,
        *,
        scope: Literal["key", "version"],
        decoding: Literal["auto", "none"],
        limit: int,
        window: int,
        concurrency: int,
        cores: float,
        deadlines: Deadlines,
    ) -> None:
        self._s3, self._scope, self._decoding, self._limit = clients.s3, scope, decoding, limit
        self._deadlines, self._concurrency, self._cores = deadlines, concurrency, cores
        self._window_size = window // 3  # what is being read is held twice while obstore puts its pieces together
        self._stores: dict[str, S3Store] = {}
        self._moved, self._moving = set[str](), Lock()
        self._session = clients.session
        self._connected = partial(connection, clients.session, timeout=timedelta(seconds=deadlines.request_timeout))
        self._connection = self._connected(clients.s3.meta.endpoint_url, clients.s3.meta.region_name)
        self._by_boto3 = may_leak(clients.session, clients.s3.meta.endpoint_url)
        self._most_parts = max(1, window // 2 // PART_SIZE)
        self._parts = ThreadPoolExecutor(self._most_parts, thread_name_prefix="part")

    def close(self) -> None:
        """End the threads that read parts."""
        self._parts.shutdown(cancel_futures=True)

    def read_ahead(self, wanted: Iterator[Wanted], enough: Callable[[], bool]) -> Generator[Arrival, None, None]:
        """Read objects until there is `enough`, and yield each as it arrives (`readahead.py`)."""
        ahead = ReadAhead(
            lambda ref, at_once: self.read(ref, at_once=at_once),
            enough=enough,
            until=self._deadlines.read_until,
            window=self._window_size,
            most=PART_SIZE,
        )
        return ahead.arrivals(wanted, Crew(self._concurrency, self._cores))

    def read(self, ref: ObjectRef, *, at_once: int = PART_SIZE) -> Reading:
        """
        Open a member, and take its bytes if they are no more than `at_once`; else they are read in parts as asked for.

        With the scope `version` exactly the announced version is read; with `key` the current one, because a newer
        notification for the same key will be dropped as a duplicate.

        Raises:
            SupersededError: the announced version has been replaced.
            PermanentError: missing, forbidden, archived, or larger than a bundle may be.
            StoreUnavailableError: S3 throttles, times out or cannot be reached; also from `chunks`.
        """
        pin = _pin(ref) if self._scope == "version" else {}
        answer = self._first(ref, pin)
        in_one_piece = not (pin or answer.etag)  # nothing would say that two parts are of the same object
        if in_one_piece and answer.is_part:
            answer = self._get(ref, {})
        if answer.size > self._limit:
            raise OversizedMemberError(
                "object is larger than a bundle may be",
                bucket=ref.bucket,
                key=ref.key,
                size=answer.size,
                limit=self._limit,
            )
        source = FetchedObject(ref, answer.size, answer.etag, answer.version_id or pin.get("version"))
        pin = pin or ({"if_match": f'"{answer.etag}"'} if answer.etag else {})
        if answer.is_part:
            head, rest = self._body(answer, ref), self._in_parts(source, pin, begin=PART_SIZE)
        elif answer.size > at_once and not in_one_piece:
            head, rest = None, self._in_parts(source, pin)
        else:
            head, rest = self._body(answer, ref), iter(())
        chunks = rest if head is None else chain((head,), rest)
        encodings = announced(ref.key, answer.encoding) if self._decoding == "auto" else set()
        if encodings:
            if head is None:  # larger than was announced: there is room for its first bytes only
                head = self._body(self._get(ref, {**pin, "range": (0, MAGIC_SIZE)}), ref)
            if (encoding := recognised(head)) and encoding in encodings:
                source = source._replace(encoding=encoding)
                return Reading(source, _guarded(decoded(encoding, ref, chunks), ref))
        return Reading(source, chunks)

    def _first(self, ref: ObjectRef, pin: Mapping[str, Any]) -> "_Answer":
        """An object, or the first part of one that is announced as larger than a part."""
        if ref.size is None or ref.size <= PART_SIZE:
            return self._get(ref, pin)
        try:
            return self._get(ref, {**pin, "range": (0, PART_SIZE)})
        except StoreUnavailableError as error:
            if error.facts["fault"] not in NO_SUCH_RANGE:
                raise
            return self._get(ref, pin)  # it is empty by now

    def _in_parts(self, source: FetchedObject, pin: Mapping[str, Any], begin: int = 0) -> Iterator[memoryview]:
        def part(bounds: tuple[int, int]) -> memoryview:
            if monotonic() > self._deadlines.read_until:
                raise OutOfTimeError("invocation ends before the object can be read", key=source.ref.key)
            return self._body(self._get(source.ref, {**pin, "range": bounds}), source.ref)

        ahead: deque[Future[memoryview]] = deque()
        try:
            for bounds in pairwise([*range(begin, source.size, PART_SIZE), source.size]):
                ahead.append(self._parts.submit(part, bounds))
                if len(ahead) >= self._most_parts:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()

    def _get(self, ref: ObjectRef, options: Mapping[str, Any]) -> "_Answer":
        try:
            if self._by_boto3 or not nameable(ref.key):
                return self._get_with_boto3(ref, options)
            try:
                return self._get_with_obstore(ref, options)
            except BaseError as error:
                if _UNREADABLE_HEADER in str(error):
                    return self._get_with_boto3(ref, options)
                if answer_of(error).code in REDIRECTED and self._move(ref.bucket):
                    return self._get_with_obstore(ref, options)
                raise
        except _FOREIGN as error:
            raise self._translated(error, ref) from error

    def _body(self, answer: "_Answer", ref: ObjectRef) -> memoryview:
        try:
            return answer.take()
        except _FOREIGN as error:
            raise self._translated(error, ref) from error

    def _get_with_obstore(self, ref: ObjectRef, options: Mapping[str, Any]) -> "_Answer":
        got = obstore.get(self._store(ref.bucket), ref.key, options=cast("GetOptions", options))
        meta, encoding = got.meta, got.attributes.get("Content-Encoding")
        is_part = got.range[1] < meta["size"]
        return _Answer(meta["size"], meta["e_tag"], meta["version"], encoding, lambda: memoryview(got.bytes()), is_part)

    def _get_with_boto3(self, ref: ObjectRef, options: Mapping[str, Any]) -> "_Answer":
        wanted: dict[str, Any] = {}
        if "if_match" in options:
            wanted["IfMatch"] = options["if_match"]
        if "version" in options:
            wanted["VersionId"] = options["version"]
        if "range" in options:
            wanted["Range"] = f"bytes={options['range'][0]}-{options['range'][1] - 1}"
        until = monotonic() + self._deadlines.request_timeout
        got = retry_once(lambda: self._s3.get_object(Bucket=ref.bucket, Key=ref.key, **wanted))
        length = got["ContentLength"]
        size = int(got["ContentRange"].rpartition("/")[2]) if "range" in options else length
        encoding, version_id = got.get("ContentEncoding"), got.get("VersionId")
        return _Answer(
            size, got.get("ETag"), version_id, encoding, lambda: _taken(got["Body"], length, until), length < size
        )

    def _translated(self, error: Exception, ref: ObjectRef) -> AggregatorError:
        """What an error of obstore or boto3 means for the object."""
        answer = answer_of(error)
        fate = fate_of(answer, pinned=self._scope == "version")
        return fate.error(fate.message, bucket=ref.bucket, key=ref.key, fault=answer.code)

    def _store(self, bucket: str) -> S3Store:
        store = self._stores.get(bucket)
        if store is None:
            store = self._stores[bucket] = S3Store(bucket, **self._connection)
        return store

    def _move(self, bucket: str) -> bool:
        """Go on reading a bucket in the region that it is in; whether it has one. The first reader finds it out."""
        with self._moving:
            if bucket in self._moved:
                return True
            region = self._region_of(bucket)
            if region in {"", self._connection["region"]}:
                return False
            with closing(self._session.client("s3", region_name=region)) as client:  # one thread at a time may make one
                endpoint = client.meta.endpoint_url
            self._stores[bucket] = S3Store(bucket, **self._connected(endpoint, region))
            self._moved.add(bucket)
            return True

    def _region_of(self, bucket: str) -> str:
        """The region of a bucket, which S3 names in every answer about it, a rejection included."""
        try:
            answer: Any = self._s3.head_bucket(Bucket=bucket)
        except ClientError as error:
            answer = error.response
        except (BotoCoreError, RecursionError):
            return ""
        return str(answer["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region", ""))


class _Answer:
    """The head of S3's answer to a get, and how to take the body."""

    __slots__ = ("encoding", "etag", "is_part", "size", "take", "version_id")

    def __init__(
        self,
        size: int,
        etag: str | None,
        version_id: str | None,
        encoding: str | None,
        take: Callable[[], memoryview],
        is_part: bool,
    ) -> None:
        self.size, self.encoding, self.take, self.is_part = size, encoding, take, is_part
        self.etag = etag.strip('"') if etag and not etag.startswith("W/") else None  # a weak one matches nothing
        self.version_id = version_id if version_id and version_id != "null" else None


_FOREIGN = (OSError, BaseError, ClientError, BotoCoreError, ValueError, RecursionError)
"""
What obstore and boto3 raise; obstore says ValueError for a key that it cannot name, and boto3 follows a redirect
without a region for as long as it can.
"""


def _taken(body: Any, length: int, until: float) -> memoryview:
    """
    All of a body that boto3 hands over, if it is here in time.

    Its own `read` waits for as much as it is asked for, and a time-out of the socket's counts for each piece again.
    """
    taken = bytearray()
    try:
        while piece := body._raw_stream.read1():  # noqa: SLF001 - what is there by now; botocore has no name for it
            taken += piece
            if monotonic() > until:
                raise ReadTimeoutError(endpoint_url="the object trickles")
    except HTTPError as error:
        raise ResponseStreamingError(error=error) from error
    finally:
        body.close()
    if len(taken) != length:
        raise IncompleteReadError(actual_bytes=len(taken), expected_bytes=length)
    return memoryview(taken)


def _guarded(chunks: Iterator[Chunk], ref: ObjectRef) -> Iterator[Chunk]:
    """The same chunks; an unexpected error in making them is this object's misfortune and not its neighbours'."""
    try:
        yield from chunks
    except AggregatorError:
        raise
    except Exception as error:
        raise UnexpectedError("object could not be decoded", bucket=ref.bucket, key=ref.key) from error


def _pin(ref: ObjectRef) -> dict[str, Any]:
    """Read exactly the version that was announced."""
    if ref.version_id:
        return {"version": ref.version_id}
    return {"if_match": f'"{ref.etag}"'} if ref.etag else {}
