"""Reading members: what each answer of S3 means, and what is read ahead; against a small server that misbehaves."""

import gc
import gzip
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.exceptions import (
    AggregatorError,
    ArchivedObjectError,
    ConfigurationError,
    ForbiddenObjectError,
    MissingObjectError,
    OutOfTimeError,
    OversizedMemberError,
    StoreUnavailableError,
    SupersededError,
    UnreadableObjectError,
)
from aggregator.pipeline.clients import Clients
from aggregator.pipeline.connection import may_leak
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.sources import PART_SIZE, Sources, nameable
from aggregator.schemas import ObjectRef
from tests.support.s3_server import Request, Server


@pytest.mark.parametrize("key", ["plain", "not//plain"])
@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (404, "NoSuchKey", MissingObjectError),
        (404, "NoSuchBucket", MissingObjectError),
        (403, "AccessDenied", ForbiddenObjectError),
        (403, "InvalidObjectState", ArchivedObjectError),
        (400, "KMS.DisabledException", ForbiddenObjectError),
        (400, "KMS.NotFoundException", ForbiddenObjectError),
        (412, "PreconditionFailed", StoreUnavailableError),
        (503, "SlowDown", StoreUnavailableError),
        (500, "InternalError", StoreUnavailableError),
        (400, "RequestTimeout", StoreUnavailableError),
    ],
)
def test_what_s3_answers_means_one_thing_whichever_client_asked(
    server: Server, sources: Callable[..., Sources], key: str, status: int, code: str, error: type[AggregatorError]
) -> None:
    server.serve(lambda request: request.fail(status, code))

    with pytest.raises(error) as caught:
        sources().read(ObjectRef("source", key))

    assert type(caught.value) is error
    assert caught.value.facts == {"bucket": "source", "key": key, "fault": code}


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_with_the_scope_version_a_failed_condition_means_superseded(
    server: Server, sources: Callable[..., Sources], key: str
) -> None:
    server.serve(lambda request: request.fail(412, "PreconditionFailed"))

    with pytest.raises(SupersededError):
        sources("version").read(ObjectRef("source", key, etag="older"))


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_a_bucket_of_another_region_is_read_there(server: Server, sources: Callable[..., Sources], key: str) -> None:
    server.serve_in("eu-west-1")
    reading = sources()

    first, second = (reading.read(ObjectRef("source", key)) for _ in range(2))

    assert [b"".join(one.chunks) for one in (first, second)] == [b"there", b"there"]


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_a_redirect_that_leads_nowhere_is_no_object(server: Server, sources: Callable[..., Sources], key: str) -> None:
    server.serve(lambda request: request.answer(b"", status=301))

    with pytest.raises(UnreadableObjectError) as caught:
        sources().read(ObjectRef("source", key))

    assert caught.value.facts["fault"] == "PermanentRedirect"


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # botocore leaves sockets to the collector
@pytest.mark.parametrize("status", [301, 307])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_no_redirect_takes_a_session_token_to_a_stranger(
    server: Server,
    sources: Callable[..., Sources],
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    host: str,
    key: str,
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    stranger = Server()
    stranger.serve(lambda request: request.answer(b"strange"))
    server.serve(lambda request: request.answer(b"", status=status, Location=stranger.url.replace("127.0.0.1", host)))

    try:
        with pytest.raises((UnreadableObjectError, StoreUnavailableError)):
            sources().read(ObjectRef("source", key))
    finally:
        stranger.stop()
        gc.collect()

    assert stranger.seen == []


@pytest.mark.parametrize(
    ("endpoint", "token", "leaks"),
    [
        ("https://s3.eu-west-1.amazonaws.com", "token", False),
        ("https://s3.dualstack.eu-west-1.api.aws", "token", False),
        ("https://s3.cn-north-1.amazonaws.com.cn", "token", False),
        ("https://amazonaws.com.example.org", "token", True),
        ("http://127.0.0.1:9000", "token", True),
        ("http://127.0.0.1:9000", None, False),
    ],
)
def test_only_a_token_for_a_store_that_is_not_aws_may_leak(endpoint: str, token: str | None, *, leaks: bool) -> None:
    session = boto3.session.Session("key", "secret", token)

    assert may_leak(session, endpoint) is leaks


@pytest.mark.parametrize("key", ["plain", "not//plain"])
@pytest.mark.parametrize("announced", [9 * 1024 * 1024, 10, None])
@pytest.mark.parametrize("etag", [None, 'W/"tag"'])
def test_an_object_without_a_strong_entity_tag_is_read_in_one_piece(
    server: Server, sources: Callable[..., Sources], etag: str | None, key: str, announced: int | None
) -> None:
    body = random.Random(1).randbytes(9 * 1024 * 1024)

    def serve(request: Request) -> None:
        request.etag = etag
        request.answer_range(body)

    server.serve(serve)

    reading = sources().read(ObjectRef("source", key, announced))

    assert b"".join(reading.chunks) == body
    assert reading.source.etag is None


@pytest.mark.parametrize(
    ("encoding", "decoded"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("gzip,aws-chunked", True),
        ("aws-chunked, gzip", True),
        (" gzip , ", True),
        ("identity, gzip", True),
        ("aws-chunked", False),
        ("gzip, br", False),  # which was applied last
        ("identity", False),
        ("", False),
    ],
)
def test_a_content_encoding_is_a_list(
    server: Server, sources: Callable[..., Sources], encoding: str, decoded: bool
) -> None:
    body = gzip.compress(b"text")
    server.serve(lambda request: request.answer(body, Content_Encoding=encoding))

    reading = sources().read(ObjectRef("source", "x.json"))

    assert b"".join(reading.chunks) == (b"text" if decoded else body)
    assert reading.source.encoding == ("gzip" if decoded else None)


@pytest.mark.parametrize("key", ["x.gz", "x.GZ", "x.json.gzip", "x.Gz"])
def test_a_suffix_is_a_suffix_in_any_case(server: Server, sources: Callable[..., Sources], key: str) -> None:
    server.serve(lambda request: request.answer(gzip.compress(b"text")))

    reading = sources().read(ObjectRef("source", key))

    assert b"".join(reading.chunks) == b"text"


def test_a_dead_server_is_unavailable(server: Server, sources: Callable[..., Sources]) -> None:
    reading = sources(request_timeout=0.5)
    server.serve(lambda request: request.connection.close())

    with pytest.raises(StoreUnavailableError):
        reading.read(ObjectRef("source", "plain"))


def test_an_object_that_trickles_is_given_up_in_bounded_time(server: Server, sources: Callable[..., Sources]) -> None:
    over = threading.Event()

    def trickle(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.send_header("ETag", '"tag"')
        request.send_header("Last-Modified", "Mon, 23 Nov 2026 14:00:00 GMT")
        request.end_headers()
        while not over.wait(0.05):
            try:
                request.wfile.write(b"x")
            except OSError:
                return

    server.serve(trickle)

    with pytest.raises(StoreUnavailableError):
        sources(request_timeout=0.5).read(ObjectRef("source", "plain"))

    over.set()


def test_a_body_that_breaks_off_is_read_again_from_there(server: Server, sources: Callable[..., Sources]) -> None:
    def break_off(request: Request) -> None:
        wanted = request.headers.get("Range")
        if wanted:
            request.answer(b"6789", status=206, Content_Range="bytes 5-8/9")
            return
        request.send_response(200)
        request.send_header("Content-Length", "9")
        request.send_header("ETag", '"tag"')
        request.send_header("Last-Modified", "Mon, 23 Nov 2026 14:00:00 GMT")
        request.end_headers()
        request.wfile.write(b"12345")
        request.close_connection = True

    server.serve(break_off)

    reading = sources().read(ObjectRef("source", "plain"))

    assert b"".join(reading.chunks) == b"123456789"


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_what_s3_says_of_the_object_is_kept(server: Server, sources: Callable[..., Sources], key: str) -> None:
    server.serve(lambda request: request.answer(b"content", x_amz_version_id="v1"))
    member = ObjectRef("source", key, 1, "announced", None)

    reading = sources().read(member)

    assert (reading.source.size, reading.source.etag, reading.source.version_id) == (7, "tag", "v1")
    assert (reading.source.ref, reading.source.encoding) == (member, None)


@pytest.mark.parametrize("key", ["plain", "not//plain"])
@pytest.mark.parametrize(
    ("member", "condition"),
    [
        (ObjectRef("source", "", etag="e"), 'If-Match: "e"'),
        (ObjectRef("source", "", version_id="v"), "versionId=v"),
        (ObjectRef("source", "", etag="e", version_id="v"), "versionId=v"),
    ],
)
def test_with_the_scope_version_the_announced_version_is_asked_for(
    server: Server, sources: Callable[..., Sources], key: str, member: ObjectRef, condition: str
) -> None:
    asked: list[str] = []

    def remember(request: Request) -> None:
        asked.append(f"{request.path} If-Match: {request.headers.get('If-Match')}")
        request.answer(b"content")

    server.serve(remember)

    sources("version").read(member._replace(key=key))

    assert condition in asked[0]
    assert ("versionId" in asked[0]) == ("versionId" in condition)


def test_an_object_larger_than_a_bundle_is_refused_before_it_is_read(
    server: Server, sources: Callable[..., Sources]
) -> None:
    server.serve(lambda request: request.answer(bytes(1001)))

    with pytest.raises(OversizedMemberError) as caught:
        sources(limit=1000).read(ObjectRef("source", "plain"))

    assert caught.value.facts == {"bucket": "source", "key": "plain", "size": 1001, "limit": 1000}


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_a_large_object_is_read_in_parts_that_are_pinned_to_the_first(
    server: Server, sources: Callable[..., Sources], key: str
) -> None:
    content = bytes(PART_SIZE) + b"tail"
    conditions: list[str | None] = []

    def ranged(request: Request) -> None:
        if request.headers.get("Range"):
            conditions.append(request.headers.get("If-Match"))
        request.answer_range(content)

    server.serve(ranged)

    reading = sources().read(ObjectRef("source", key))

    assert b"".join(reading.chunks) == content
    assert conditions == ['"tag"', '"tag"']


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_an_object_that_is_announced_as_large_is_asked_for_in_parts_from_the_first_byte(
    server: Server, sources: Callable[..., Sources], key: str
) -> None:
    content, asked = bytes(2 * PART_SIZE) + b"tail", list[str | None]()

    def ranged(request: Request) -> None:
        asked.append(request.headers.get("Range"))
        request.answer_range(content)

    server.serve(ranged)

    reading = sources().read(ObjectRef("source", key, len(content)))

    assert reading.source.size == len(content)
    assert b"".join(reading.chunks) == content
    assert sorted(map(str, asked)) == [
        f"bytes=0-{PART_SIZE - 1}",
        f"bytes={2 * PART_SIZE}-{2 * PART_SIZE + 3}",
        f"bytes={PART_SIZE}-{2 * PART_SIZE - 1}",
    ]


@pytest.mark.parametrize("key", ["plain", "not//plain"])
@pytest.mark.parametrize("content", [b"", b"small by now"])
def test_an_object_that_is_smaller_than_announced_is_read_whole(
    server: Server, sources: Callable[..., Sources], key: str, content: bytes
) -> None:
    def answer(request: Request) -> None:
        if request.headers.get("Range") and not content:
            request.answer(b"<Error><Code>InvalidRange</Code></Error>", status=416)
        else:
            request.answer_range(content)

    server.serve(answer)

    reading = sources().read(ObjectRef("source", key, 10**9))

    assert (reading.source.size, b"".join(reading.chunks)) == (len(content), content)


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_an_object_that_is_cut_off_on_its_way_is_not_taken_for_whole(
    server: Server, sources: Callable[..., Sources], key: str
) -> None:
    def cut_off(request: Request) -> None:
        request.answer(b"half", Content_Length="8")
        request.close_connection = True

    server.serve(cut_off)

    with pytest.raises(StoreUnavailableError):
        sources().read(ObjectRef("source", key, 8))


def test_a_part_is_not_begun_when_the_time_is_over(server: Server, sources: Callable[..., Sources]) -> None:
    server.serve(lambda request: request.answer(bytes(PART_SIZE + 1)))
    reading = sources(read_until=time.monotonic()).read(ObjectRef("source", "plain"))

    with pytest.raises(OutOfTimeError):
        list(reading.chunks)


@given(st.text(st.sampled_from("a./\n é"), min_size=1, max_size=8))
def test_a_key_is_nameable_if_and_only_if_it_stays_as_it_is_as_a_path(key: str) -> None:
    segments = key.split("/")

    assert nameable(key) == (not any(part in ("", ".", "..") for part in segments) and "\n" not in key)


def test_without_credentials_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines = Deadlines.of(0, 60, 1, wall=time.time())
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "none")
    monkeypatch.setenv("AWS_CONFIG_FILE", "none")

    with pytest.raises(ConfigurationError, match="no AWS credentials were found"):
        Sources(
            Clients.build(deadlines),
            scope="key",
            decoding="auto",
            limit=1,
            window=1,
            concurrency=1,
            cores=1,
            deadlines=deadlines,
        )


def test_a_session_token_is_handed_on(server: Server, sources: Callable[..., Sources], monkeypatch: Any) -> None:
    tokens: list[str | None] = []

    def remember(request: Request) -> None:
        tokens.append(request.headers.get("x-amz-security-token"))
        request.answer(b"x")

    server.serve(remember)
    made = sources
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")

    made().read(ObjectRef("source", "plain"))

    assert tokens == ["token"]


def test_bucket_names_stay_in_the_path_on_an_endpoint_that_is_not_aws(
    server: Server, sources: Callable[..., Sources]
) -> None:
    server.serve(lambda request: request.answer(b"x"))
    reading = sources()

    for key in ("plain", "not//plain"):
        reading.read(ObjectRef("source", key))

    assert server.seen == ["/source/plain", "/source/not//plain"]
