"""A bundle is opened where it lies, and from S3 comes no more than is needed."""

import io
import random
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import boto3
import fsspec  # type: ignore[import-untyped]
import pytest
from fsspec.implementations.memory import MemoryFileSystem  # type: ignore[import-untyped]
from typer.testing import CliRunner

from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.bundles.opening import Location
from aggregator.bundles.targets import bundle_at, expanded
from aggregator.commands.main import app
from aggregator.exceptions import BundleFormatError, OpeningError
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.reader import Bundle
from aggregator.schemas import ObjectRef
from tests.support.world import CREDENTIALS, World

MEMBERS = 5_000


class Store:
    """One object in an S3 of its own: answers ranges, notes what it answered, and does as a test says."""

    def __init__(self, path: Path) -> None:
        self.path, self.etag = path, '"one"'
        self.answered: list[int] = []
        self.breaks_off = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: Store

    def do_GET(self) -> None:
        size = self.store.path.stat().st_size
        found = re.fullmatch(r"bytes=(\d*)-(\d+)", self.headers["Range"])
        assert found
        first = int(found[1]) if found[1] else max(0, size - int(found[2]))
        last = min(int(found[2]), size - 1) if found[1] else size - 1
        if self.headers.get("If-Match", self.store.etag) != self.store.etag:
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        elif not size:
            self._answer(416, b"<Error><Code>InvalidRange</Code></Error>")
        else:
            with self.store.path.open("rb") as file:
                file.seek(first)
                body = file.read(last - first + 1)
            self._answer(206, body, ("ETag", self.store.etag), ("Content-Range", f"bytes {first}-{last}/{size}"))

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.store.answered.append(len(body))
        self.send_response_only(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.store.breaks_off:
            self.store.breaks_off -= 1
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, executor: Executor) -> Path:
    """A bundle of 5,000 members, and 300 MB."""
    path = tmp_path_factory.mktemp("large") / "bundle.gz"
    randoms = random.Random(20_261_123)
    body = randoms.randbytes(60_000)
    with path.open("w+b") as spool:
        packer = Packer(spool, limit=10**10, level=0, framing="lines", executor=executor)
        for number in range(MEMBERS):
            packer.add(
                FetchedObject(ObjectRef("source", f"in/{number:05}"), 60_000, f"{randoms.getrandbits(128):032x}"),
                [body],
            )
        packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))
    return path


@pytest.fixture
def store(large: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An S3 that holds it."""
    with Store(large) as store:
        for variable, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": store.url}.items():
            monkeypatch.setenv(variable, value)
        yield store


def test_the_list_of_a_large_bundle_costs_two_requests_and_its_index(store: Store) -> None:
    with bundle_at("s3://bucket/bundle.gz") as bundle:
        keys = [entry.key for entry in bundle]

    assert (len(keys), bundle.size > 300_000_000) == (MEMBERS, True)
    assert len(store.answered) == 2
    assert sum(store.answered) < 50 * MEMBERS


def test_one_member_of_a_large_bundle_costs_the_tail_and_one_block(store: Store) -> None:
    with bundle_at("s3://bucket/bundle.gz") as bundle:
        listed = len(store.answered)
        body = bundle["in/03000"]

    assert body == random.Random(20_261_123).randbytes(60_000)
    assert len(store.answered) == listed + 1
    assert store.answered[-1] <= BLOCK_SIZE + 64
    assert sum(store.answered) < 1_000_000


def test_a_small_bundle_costs_one_request(store: Store) -> None:
    store.path = Path("fixtures/bundles/v1-lines.gz")

    with bundle_at("s3://bucket/bundle.gz") as bundle:
        bundle.verify()

    assert store.answered == [store.path.stat().st_size]


def test_an_object_that_is_replaced_meanwhile_is_not_read_half_and_half(store: Store) -> None:
    with bundle_at("s3://bucket/bundle.gz") as bundle:
        store.etag = '"another"'

        with pytest.raises(OpeningError) as caught:
            bundle["in/00001"]

    assert str(caught.value) == (
        "the object was replaced while it was read (target='s3://bucket/bundle.gz', fault='PreconditionFailed')"
    )


def test_an_answer_that_breaks_off_is_asked_for_again(store: Store) -> None:
    store.path = Path("fixtures/bundles/v1-none.gz")
    store.breaks_off = 1

    with bundle_at("s3://bucket/bundle.gz") as bundle:
        bundle.verify()

    assert len(store.answered) == 2


def test_answers_that_always_break_off_are_one_sentence(store: Store) -> None:
    store.breaks_off = 1_000

    with pytest.raises(OpeningError, match=r"^AWS cannot be asked: "):
        bundle_at("s3://bucket/bundle.gz")


def test_an_empty_object_is_no_bundle(store: Store, tmp_path: Path) -> None:
    store.path = tmp_path / "empty"
    store.path.touch()

    with pytest.raises(BundleFormatError, match="not a bundle"):
        bundle_at("s3://bucket/empty")


@pytest.mark.parametrize("target", ["s3:/bucket/k.gz", "s3:bucket/k.gz", "s3:///bucket/k.gz", "S3://bucket/k.gz"])
def test_what_is_nearly_an_address_in_s3_is_answered_by_the_address(target: str) -> None:
    for read in (bundle_at, Bundle.open, lambda given: list(expanded([given]))):
        with pytest.raises(OpeningError, match="an address in S3 begins with s3://") as raised:
            read(target)
        assert raised.value.facts == {"write": "s3://bucket/k.gz"}


@pytest.mark.parametrize("target", ["s3://bucket", "s3://bucket/", "s3://bucket/2026/"])
@pytest.mark.usefixtures("credentials")
def test_a_prefix_is_not_read_as_a_bundle(target: str) -> None:
    with pytest.raises(OpeningError, match="this is a prefix, and not a bundle: name a bundle below it"):
        fsspec.filesystem("bundle", fo=target)


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("s3://b/k", Location("b", "k")),
        ("s3://b", Location("b", "")),
        ("s3://b/", Location("b", "")),
        ("s3://b//a/./b?c=1#d %20", Location("b", "/a/./b?c=1#d %20")),
        ("s3://b/k?versionId=3.x_", Location("b", "k", "3.x_")),
        ("s3://b/k\nl", Location("b", "k\nl")),
    ],
)
def test_a_key_in_a_url_stands_as_it_is(url: str, location: Location) -> None:
    assert Location.parsed(url) == location


def test_standard_input_is_kept_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Path("fixtures/bundles/v1-lines.gz").read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    with bundle_at("-") as bundle:
        bundle.verify()
        text = bundle["in/a.json"]

    assert text == b'{"n": 1}'


def test_standard_input_that_is_no_bundle_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"text")))

    with pytest.raises(BundleFormatError, match="not a bundle"):
        bundle_at("-")


def test_a_folder_is_every_gz_below_it(tmp_path: Path) -> None:
    for name in ("b/c.gz", "a.gz", "no.txt", "folder.gz/d.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    found = list(expanded(["-", str(tmp_path), "s3://b/k", str(tmp_path / "no.txt")]))

    inside = [str(tmp_path / name) for name in ("a.gz", "b/c.gz", "folder.gz/d.gz")]
    assert found == ["-", *inside, "s3://b/k", str(tmp_path / "no.txt")]


def test_a_folder_without_bundles_is_named(tmp_path: Path) -> None:
    with pytest.raises(OpeningError, match=re.escape("no .gz file found")):
        list(expanded([str(tmp_path)]))


class Failing(MemoryFileSystem):  # type: ignore[misc]
    """A file system of fsspec's that says what a test wants; the bytes of a file are a bundle's."""

    protocol = "failing"
    when_opened: Exception | None = None
    when_read: Exception | None = None

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        if self.when_opened:
            raise self.when_opened
        return _FailingFile(Path("fixtures/bundles/v1-lines.gz").read_bytes(), self.when_read)


class _FailingFile(io.BytesIO):
    def __init__(self, data: bytes, error: Exception | None) -> None:
        super().__init__(data)
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        if self._error:
            raise self._error
        return super().read(size)


class ClientResponseError(Exception):
    """What aiohttp raises of an answer that is none; it is no OSError."""

    def __init__(self, status: int) -> None:
        super().__init__(f"{status}, message=''")
        self.status = status


def _behind(cause: Exception) -> Exception:
    """What fsspec makes of whatever goes wrong when it asks for a size."""
    error = FileNotFoundError("failing://bundle.gz")
    error.__cause__ = cause
    return error


FAILURES = [
    (FileNotFoundError("failing://bundle.gz"), "there is no such file"),
    (_behind(ClientResponseError(404)), "there is no such file"),
    (_behind(ClientResponseError(401)), "the server does not let this be read without the right credentials"),
    (_behind(ClientResponseError(403)), "the server does not let this be read without the right credentials"),
    (_behind(ClientResponseError(500)), "the server cannot answer now: try again later"),
    (ClientResponseError(418), "the server rejects the request"),
    (_behind(ConnectionRefusedError(111, "refused")), "fsspec cannot read it: [Errno 111] refused"),
    (ValueError("Cannot seek streaming HTTP file"), "this server does not serve ranges: download the file first"),
    (
        ValueError("The HTTP server doesn't appear to support range requests."),
        "this server does not serve ranges: download the file first",
    ),
    (ImportError('HTTPFileSystem requires "requests"'), 'fsspec cannot read it: HTTPFileSystem requires "requests"'),
    (TimeoutError(), "fsspec cannot read it: TimeoutError"),
    (RuntimeError("Response payload is not completed"), "fsspec cannot read it: Response payload is not completed"),
]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Registers the file system that fails."""
    fsspec.register_implementation("failing", Failing, clobber=True)
    return monkeypatch


@pytest.mark.parametrize("when", ["when_opened", "when_read"])
@pytest.mark.parametrize(("error", "sentence"), FAILURES, ids=lambda value: repr(value)[:40])
def test_whatever_a_file_system_of_fsspecs_raises_is_one_sentence(
    error: Exception, sentence: str, when: str, failing: pytest.MonkeyPatch
) -> None:
    failing.setattr(Failing, when, error)

    with pytest.raises(OpeningError) as caught:
        Bundle.open("failing://bundle.gz")

    assert (caught.value.args[0], caught.value.facts["url"]) == (sentence, "failing://bundle.gz")


def test_a_url_that_cannot_be_read_does_not_keep_other_targets_from_being_verified(
    failing: pytest.MonkeyPatch,
) -> None:
    failing.setattr(Failing, "when_read", RuntimeError("cut"))
    good = "fixtures/bundles/v1-lines.gz"

    result = CliRunner().invoke(app, ["bundle", "verify", good, "failing://bundle.gz", good])

    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == ["ok", "unread", "ok"]
    assert result.exit_code == 2


@pytest.mark.parametrize(("variable", "value"), [("AWS_ENDPOINT_URL", "no url"), ("AWS_PROFILE", "nobody")])
def test_a_wrong_configuration_is_one_sentence(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, credential in CREDENTIALS.items():
        monkeypatch.setenv(name, credential)
    monkeypatch.setenv(variable, value)

    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(OpeningError):
        Bundle.open("s3://bucket/key")


@pytest.mark.integration
def test_a_prefix_is_every_gz_below_it_and_each_is_read_by_ranges(world: World) -> None:
    data = Path("fixtures/bundles/v1-lines.gz").read_bytes()
    for key in ("h/1.gz", "h/2.gz", "h/no.txt", "other/3.gz"):
        world.s3.put_object(Bucket=world.distribution, Key=key, Body=data)

    found = list(expanded([f"s3://{world.distribution}/h/"]))
    with Bundle.open(found[1]) as bundle:
        bundle.verify()

    assert found == [f"s3://{world.distribution}/h/{n}.gz" for n in (1, 2)]
    assert len(list(expanded([f"s3://{world.distribution}"]))) == 3


@pytest.mark.integration
def test_a_version_is_named_in_the_url(world: World) -> None:
    versions = [
        world.s3.put_object(Bucket=world.distribution, Key="b.gz", Body=Path(f"fixtures/bundles/{name}").read_bytes())
        for name in ("v1-lines.gz", "v1-none.gz")
    ]

    with Bundle.open(f"s3://{world.distribution}/b.gz?versionId={versions[0]['VersionId']}") as bundle:
        keys = [entry.key for entry in bundle]

    assert keys == ["in/a.json", "in/b c+é.json", "empty", "//x"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("s3://{bucket}/missing.gz", "there is no such object"),
        ("s3://no-such-bucket-{bucket}/b", "there is no such bucket"),
    ],
)
def test_what_is_not_in_s3_is_one_sentence(target: str, sentence: str, world: World) -> None:
    with pytest.raises(OpeningError) as caught:
        Bundle.open(target.format(bucket=world.distribution))

    assert caught.value.args == (sentence,)
