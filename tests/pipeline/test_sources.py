"""Reading members: what each answer of S3 means, and what is read ahead; against a small server that misbehaves."""

import gzip
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

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
    UnexpectedError,
    UnreadableObjectError,
)
from aggregator.pipeline.clients import Clients
from aggregator.pipeline.core import Reading
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.planning import Wanted
from aggregator.pipeline.readahead import Arrival, NotStarted
from aggregator.pipeline.sources import PART_SIZE, Sources, nameable
from aggregator.schemas import ObjectRef
from tests.support.world import CREDENTIALS

Serve = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request to a server of which each test says what it answers."""

    protocol_version = "HTTP/1.1"
    serve: Serve
    seen: list[str]
    untagged = False

    def do_GET(self) -> None:
        """Answer."""
        self.seen.append(self.path)
        type(self).serve(self)

    def do_HEAD(self) -> None:
        """Answer a question about the bucket, which has no body."""
        type(self).serve(self)

    def answer(self, body: bytes, *, status: int = 200, **headers: Any) -> None:
        """Answer like S3."""
        self.send_response(status)
        given = {"ETag": '"tag"', "Last-Modified": "Mon, 23 Nov 2026 14:00:00 GMT", "Content-Length": str(len(body))}
        if self.untagged:
            del given["ETag"]
        for name, value in {**given, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_range(self, body: bytes) -> None:
        """Answer with what was asked for, all of it or a range."""
        wanted = self.headers.get("Range")
        if not wanted:
            self.answer(body)
            return
        first, last = (int(bound) for bound in wanted.removeprefix("bytes=").split("-"))
        part = body[first : last + 1]
        self.answer(part, status=206, Content_Range=f"bytes {first}-{first + len(part) - 1}/{len(body)}")

    def fail(self, status: int, code: str) -> None:
        """Answer with an error like S3."""
        self.answer(f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode(), status=status)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


class Server:
    """S3, as far as a test needs it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.handler: Any = type("Handler", (Request,), {"seen": self.seen})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def serve(self, serve: Serve) -> None:
        """Answer every request with `serve`."""
        self.handler.serve = staticmethod(serve)

    def stop(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def sources(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sources]]:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    made: list[Any] = []

    def make(
        scope: Literal["key", "version"] = "key", *, limit: int = 100_000_000, window: int = 64_000_000, **times: float
    ) -> Sources:
        deadlines = Deadlines.of(time.monotonic(), 60, limit, wall=time.time())._replace(**times)
        clients = Clients.build(deadlines)
        opened = Sources(
            clients, scope=scope, decoding="auto", limit=limit, window=window, concurrency=4, deadlines=deadlines
        )
        made.extend((opened, clients))
        return opened

    yield make
    for closing in made:
        closing.close()


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
    def serve(request: Request) -> None:
        if "/eu-west-1/s3/" in request.headers["Authorization"]:
            request.answer(b"there", x_amz_bucket_region="eu-west-1")
        else:
            error = b"<Error><Code>PermanentRedirect</Code></Error>"
            request.answer(error, status=301, x_amz_bucket_region="eu-west-1")

    server.serve(serve)
    reading = sources()

    first, second = (reading.read(ObjectRef("source", key)) for _ in range(2))

    assert [b"".join(one.chunks) for one in (first, second)] == [b"there", b"there"]


@pytest.mark.parametrize("key", ["plain", "not//plain"])
def test_a_redirect_that_leads_nowhere_is_no_object(server: Server, sources: Callable[..., Sources], key: str) -> None:
    server.serve(lambda request: request.answer(b"", status=301))

    with pytest.raises(UnreadableObjectError) as caught:
        sources().read(ObjectRef("source", key))

    assert caught.value.facts["fault"] == "PermanentRedirect"


@pytest.mark.parametrize("key", ["plain", "not//plain"])
@pytest.mark.parametrize("announced", [9 * 1024 * 1024, 10, None])
def test_an_object_without_an_entity_tag_is_read_in_one_piece(
    server: Server, sources: Callable[..., Sources], key: str, announced: int | None
) -> None:
    body = random.Random(1).randbytes(9 * 1024 * 1024)

    def serve(request: Request) -> None:
        request.untagged = True
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
    assert reading.source.gzipped is decoded


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
    assert (reading.source.ref, reading.source.gzipped) == (member, False)


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


def test_every_member_arrives_once_and_its_bytes_with_it(server: Server, sources: Callable[..., Sources]) -> None:
    server.serve(lambda request: request.answer_range(request.path.encode()))
    members = [ObjectRef("source", f"{at}", size) for at, size in enumerate([1, 0, None, 10**9] * 25)]

    arrivals = list(sources(window=PART_SIZE * 6).read_ahead(_wanted(members), _going_on))

    assert sorted(arrival.wanted.ref.key for arrival in arrivals) == sorted(member.key for member in members)
    assert all(_bytes(arrival) == f"/source/{arrival.wanted.ref.key}".encode() for arrival in arrivals)


def test_what_is_read_ahead_is_bounded_in_bytes(server: Server, sources: Callable[..., Sources]) -> None:
    server.serve(lambda request: request.answer(b"x"))
    members = [ObjectRef("source", f"{at}", PART_SIZE) for at in range(8)]
    arriving = sources(window=PART_SIZE * 6).read_ahead(_wanted(members), _going_on)

    first = next(arriving)
    _until(lambda: len(server.seen) >= 2)
    threading.Event().wait(0.2)
    begun = len(server.seen)
    rest = list(arriving)

    assert begun == 2
    assert len({arrival.wanted.ref for arrival in [first, *rest]}) == 8


def test_an_object_that_is_larger_than_announced_is_not_held_in_memory(
    server: Server, sources: Callable[..., Sources]
) -> None:
    server.serve(lambda request: request.answer_range(bytes(5_000_000)))

    (arrival,) = sources().read_ahead(_wanted([ObjectRef("source", "grown", 10)]), _going_on)

    assert server.seen == ["/source/grown"]
    assert _bytes(arrival) == bytes(5_000_000)
    assert server.seen == ["/source/grown"] * 2


@pytest.mark.parametrize("size", [10, None])
def test_a_gzip_object_that_is_larger_than_announced_is_not_held_in_memory_either(
    server: Server, sources: Callable[..., Sources], size: int | None
) -> None:
    content, asked = gzip.compress(random.Random(1).randbytes(3 * PART_SIZE)), list[str | None]()

    def ranged(request: Request) -> None:
        asked.append(request.headers.get("Range"))
        request.answer_range(content)

    server.serve(ranged)

    (arrival,) = sources().read_ahead(_wanted([ObjectRef("source", "grown.gz", size)]), _going_on)

    assert asked == [None, "bytes=0-1"]
    assert _bytes(arrival) == gzip.decompress(content)


def test_a_version_that_was_asked_for_is_the_one_that_was_read_though_the_store_does_not_say(
    server: Server, sources: Callable[..., Sources]
) -> None:
    server.serve(lambda request: request.answer(b"x"))

    reading = sources(scope="version").read(ObjectRef("source", "plain", 1, "tag", "v1"))

    assert reading.source.version_id == "v1"


@pytest.mark.parametrize("header", ["Content_Disposition", "x_amz_meta_name"])
def test_a_header_that_obstore_cannot_read_hides_no_object(
    server: Server, sources: Callable[..., Sources], header: str
) -> None:
    server.serve(lambda request: request.answer(b"content", **dict[str, Any]({header: "caf\xe9"})))

    reading = sources().read(ObjectRef("source", "plain"))

    assert b"".join(reading.chunks) == b"content"


def test_what_goes_wrong_with_one_member_unforeseen_stays_with_it(
    server: Server, sources: Callable[..., Sources], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve(lambda request: request.answer(b"\x1f\x8bx"))
    monkeypatch.setattr("aggregator.pipeline.sources.decoded", _unexpected)
    members = [ObjectRef("source", "packed.gz"), ObjectRef("source", "plain")]

    arrivals = {arrival.wanted.ref.key: arrival for arrival in sources().read_ahead(_wanted(members), _going_on)}

    assert _bytes(arrivals["plain"]) == b"\x1f\x8bx"
    with pytest.raises(UnexpectedError) as caught:
        _bytes(arrivals["packed.gz"])
    assert isinstance(caught.value.__cause__, RecursionError)


def test_objects_that_are_not_begun_any_more_say_whether_there_is_enough_or_no_time(
    server: Server, sources: Callable[..., Sources]
) -> None:
    server.serve(lambda request: request.answer(b"x"))
    members = [ObjectRef("source", f"{at}") for at in range(9)]

    stopped = list(sources().read_ahead(_wanted(members), lambda: True))
    late = list(sources(read_until=time.monotonic()).read_ahead(_wanted(members), _going_on))

    assert {type(arrival.reading) for arrival in stopped} == {NotStarted}
    assert {type(arrival.reading) for arrival in late} == {OutOfTimeError}
    assert (len(stopped), len(late), server.seen) == (9, 9, [])


def test_an_error_in_a_reader_ends_the_reading_and_all_threads(server: Server, sources: Callable[..., Sources]) -> None:
    server.serve(lambda request: request.answer(b"x"))

    def members() -> Iterator[ObjectRef]:
        yield ObjectRef("source", "1")
        raise RuntimeError("unexpected")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="unexpected"):
        list(sources().read_ahead(_wanted(members()), _going_on))

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-")]
    assert threading.active_count() <= before + 2  # what the test's own server is still answering


def test_who_stops_listening_leaves_no_thread_behind(server: Server, sources: Callable[..., Sources]) -> None:
    server.serve(lambda request: request.answer(b"x"))
    members = [ObjectRef("source", f"{at}", PART_SIZE) for at in range(50)]
    arriving = sources(window=PART_SIZE * 6).read_ahead(_wanted(members), _going_on)
    next(arriving)

    arriving.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-")]


@pytest.mark.parametrize(
    "key", ["a//b", "/a", "a/", "/", "//", ".", "..", "./a", "a/.", "a/./b", "a/../b", "a\nb", "\x7f", "\x00"]
)
def test_keys_that_obstore_cannot_name_are_recognised(key: str) -> None:
    assert not nameable(key)


@pytest.mark.parametrize("key", ["a", "a/b", ".a", "a.", "..a", "a/...", "a/.b", "~", "a b", "%2F", "é", "\x80", "\\"])
def test_keys_that_obstore_can_name_are_recognised(key: str) -> None:
    assert nameable(key)


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


def _wanted(members: Iterable[ObjectRef]) -> Iterator[Wanted]:
    return (Wanted.of(member, "key") for member in members)


def _going_on() -> bool:
    return False


def _bytes(arrival: Arrival) -> bytes:
    assert isinstance(arrival.reading, Reading)
    return b"".join(arrival.reading.chunks)


def _unexpected(*_: Any) -> Iterator[bytes]:
    yield b"first"
    raise RecursionError


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition() and time.monotonic() < ends:
        threading.Event().wait(0.01)
