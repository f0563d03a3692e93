"""Tier 2 for S3: what the answers to the calls on the distribution bucket mean."""

import io
import json
import random
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ReadTimeoutError
from botocore.stub import Stubber

from aggregator.aws import error_code, had_no_effect, retry_once
from aggregator.exceptions import AmbiguousPutError, StoreUnavailableError, UnpublishedError
from aggregator.pipeline.clients import Clients
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.distribution import DistributionBucket, Version
from aggregator.pipeline.planning import planned
from aggregator.schemas import ObjectRef
from tests.support.world import CREDENTIALS

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

KEY = "2026/11/23/14/bundle-1.gz"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture
def s3() -> Iterator[Stubber]:
    with Stubber(boto3.client("s3")) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchBucket"), (400, "InvalidRequest")])
def test_a_refused_put_has_published_nothing(s3: Stubber, status: int, code: str) -> None:
    s3.add_client_error("put_object", code, http_status_code=status)

    with pytest.raises(UnpublishedError):
        _put(s3)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (412, "PreconditionFailed"),
        (409, "ConditionalRequestConflict"),
        (500, "InternalError"),
        (408, "RequestTimeout"),
        (503, "503"),  # of a proxy, which may have handed the put on
    ],
)
def test_any_other_answer_does_not_say_whether_the_bundle_is_there(s3: Stubber, status: int, code: str) -> None:
    s3.add_client_error("put_object", code, http_status_code=status)

    with pytest.raises(AmbiguousPutError) as caught:
        _put(s3)

    assert caught.value.facts == {"bundle": KEY, "fault": code}


def test_a_put_is_conditional_and_says_what_it_brings(s3: Stubber) -> None:
    body = io.BytesIO(b"bundle")
    expected = {
        "Bucket": "distribution",
        "Key": KEY,
        "Body": body,
        "ContentLength": 6,
        "ContentType": "application/gzip",
        "ChecksumSHA256": b64encode(bytes(32)).decode(),
        "IfNoneMatch": "*",
    }
    s3.add_response("put_object", {}, expected)

    _distribution(s3).put(KEY, body, size=6, sha256=bytes(32))


def test_a_question_that_aws_does_not_answer_is_asked_once_more() -> None:
    asked = list[int]()

    def ask() -> str:
        asked.append(1)
        if len(asked) == 1:
            raise ReadTimeoutError(endpoint_url="lost")
        return "answer"

    assert (retry_once(ask), len(asked)) == ("answer", 2)


def test_a_put_that_stays_throttled_is_given_up_after_three_attempts(
    s3: Stubber, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.pipeline.clients.time.sleep", lambda _: None)
    for attempt in range(3):
        s3.add_client_error("put_object", "SlowDown", http_status_code=503)
        if attempt < 2:
            s3.add_response("list_object_versions", {})

    with pytest.raises(AmbiguousPutError):
        _put(s3)


def test_a_refusal_of_a_second_attempt_says_nothing_of_the_first(s3: Stubber, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first may be carried out late, although it was answered with SlowDown: it is to be looked for."""
    monkeypatch.setattr("aggregator.pipeline.clients.time.sleep", lambda _: None)
    s3.add_client_error("put_object", "SlowDown", http_status_code=503)
    s3.add_response("list_object_versions", {})
    s3.add_client_error("put_object", "AccessDenied", http_status_code=403)

    with pytest.raises(AmbiguousPutError):
        _put(s3)


def test_a_name_that_is_occupied_already_is_as_good_as_occupied(s3: Stubber) -> None:
    s3.add_client_error("put_object", "PreconditionFailed", http_status_code=412)

    _distribution(s3).fence(KEY, b"")


def test_only_the_versions_of_the_very_name_count(s3: Stubber) -> None:
    versions: list[Any] = [
        {"Key": key, "VersionId": key, "Size": 1, "IsLatest": True} for key in (KEY, f"{KEY}.longer", f"{KEY}/below")
    ]
    s3.add_response("list_object_versions", {"Versions": versions})

    assert _distribution(s3).versions(KEY) == [Version(KEY, 1, is_latest=True)]


@pytest.mark.parametrize(
    ("operation", "look"),
    [
        ("list_object_versions", lambda distribution: distribution.versions(KEY)),
        ("get_object", lambda distribution: distribution.index(KEY, Version("v1", 1_000, is_latest=True))),
    ],
)
def test_a_look_is_taken_once_more_and_then_cannot_tell(
    s3: Stubber, operation: str, look: Callable[[DistributionBucket], object]
) -> None:
    for _ in range(2):
        s3.add_client_error(operation, "InternalError", http_status_code=500)

    with pytest.raises(StoreUnavailableError):
        look(_distribution(s3))


@pytest.mark.parametrize("obeyed", [True, False])
def test_an_index_is_read_also_from_a_server_that_ignores_ranges(*, obeyed: bool) -> None:
    spool, body = io.BytesIO(), random.Random(1).randbytes(200_000)
    with ThreadPoolExecutor(1) as executor:
        packer = Packer(spool, limit=10**6, level=1, framing="none", executor=executor)
        packer.add(FetchedObject(ObjectRef("source", "large"), len(body)), [body])
        packer.finish(planned((), now=0, request_id="r", suffix="s"))
    bundle = spool.getvalue()

    class Server:
        def get_object(self, *, Range: str, **_: object) -> Any:  # noqa: N803
            first, last = map(int, Range.removeprefix("bytes=").split("-"))
            return {"Body": io.BytesIO(bundle[first : last + 1] if obeyed else bundle)}

    index = DistributionBucket(cast("S3Client", Server()), "d").index(KEY, Version("v1", len(bundle), is_latest=True))

    assert index.members.key == ["large"]


def test_a_look_that_is_refused_is_not_taken_again(s3: Stubber) -> None:
    s3.add_client_error("list_object_versions", "AccessDenied", http_status_code=403)

    with pytest.raises(StoreUnavailableError):
        _distribution(s3).versions(KEY)


def test_only_a_first_answer_below_500_says_that_nothing_was_done() -> None:
    client = boto3.client("dynamodb")
    faults = {}
    for name, status, retries in (("first", 400, 0), ("after a retry", 400, 1), ("broken", 500, 0)):
        with Stubber(client) as stubber:
            stubber.add_client_error(
                "put_item", name, http_status_code=status, response_meta={"RetryAttempts": retries}
            )
            with pytest.raises(client.exceptions.ClientError) as caught:
                client.put_item(TableName="table", Item={})
        faults[error_code(caught.value)] = had_no_effect(caught.value)

    assert faults == {"first": True, "after a retry": False, "broken": False}
    assert not had_no_effect(ReadTimeoutError(endpoint_url="lost"))


def test_on_aws_boto3_chooses_the_address_and_nothing_is_repeated_on_s3() -> None:
    clients = Clients.build(_deadlines())

    config: Any = clients.s3.meta.config
    clients.close()
    assert clients.s3.meta.endpoint_url == "https://s3.amazonaws.com"
    assert config.s3 is None or "addressing_style" not in config.s3
    assert config.retries == {"mode": "standard", "total_max_attempts": 1}


def test_elsewhere_buckets_are_named_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store:9000")

    clients = Clients.build(_deadlines())

    config: Any = clients.s3.meta.config
    clients.close()
    assert (clients.s3.meta.endpoint_url, config.s3["addressing_style"]) == ("http://store:9000", "path")


PUT: Any = {
    "TableName": "ledger",
    "Item": {"id": {"S": "é"}, "expiration": {"N": "1"}},
    "ConditionExpression": "attribute_not_exists(id)",
}


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("TransactWriteItems", {"TransactItems": [{"Put": PUT}], "ClientRequestToken": "token"}),
        ("BatchExecuteStatement", {"Statements": [{"Statement": "INSERT", "Parameters": [{"S": "é"}, {"N": "1"}]}]}),
    ],
)
def test_swaps_are_sent_as_botocore_would_send_them(operation: str, request_: dict[str, Any]) -> None:
    ours, plain = Clients.build(_deadlines()).dynamodb, boto3.client("dynamodb")
    sent: list[tuple[Any, str]] = []

    def remember(params: Any, **_: object) -> Any:
        sent.append((json.loads(params["body"]), params["headers"]["X-Amz-Target"]))
        return type("Answer", (), {"status_code": 200})(), {}

    for client in (ours, plain):
        client.meta.events.register_last(f"before-call.dynamodb.{operation}", remember)
        getattr(client, xform_name(operation))(**request_)
        client.close()

    assert sent[0] == sent[1] == (request_, f"DynamoDB_20120810.{operation}")


def test_a_put_is_not_attempted_once_its_claims_have_lapsed_while_a_look_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first attempt is throttled; then the machine is suspended, and the monotonic clock stands still."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    deadlines = Deadlines.of(time.monotonic(), 600, 1, wall=time.time())
    clients = Clients.build(deadlines)
    attempts: list[str] = []
    now = [time.time()]

    def answer(event_name: str, **_: object) -> Any:
        attempts.append(event_name.rpartition(".")[2])
        now[0] = deadlines.lapses + 1
        if attempts[-1] == "PutObject":
            return AWSResponse("", 503, HTTPHeaders(), _Raw(b"<Error><Code>SlowDown</Code></Error>"))
        return AWSResponse("", 200, HTTPHeaders(), _Raw(b"<ListVersionsResult/>"))

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: now[0])
        patch.setattr(time, "sleep", lambda _: None)
        clients.s3.meta.events.register_last("before-send", answer)
        with pytest.raises(AmbiguousPutError) as caught:
            DistributionBucket(clients.s3, "distribution").put(KEY, io.BytesIO(b"bundle"), size=6, sha256=bytes(32))
    clients.close()

    assert attempts == ["PutObject", "ListObjectVersions"]
    assert caught.value.facts["fault"] == "TooLateError"


class _Raw(io.BytesIO):
    """What botocore reads an answer from."""

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.read()


def test_two_invocations_share_no_session_and_no_client() -> None:
    first, second = Clients.build(_deadlines()), Clients.build(_deadlines())

    first.close()
    second.close()
    assert {first.session, first.s3, first.dynamodb}.isdisjoint({second.session, second.s3, second.dynamodb})
    assert first.session.events is not second.session.events


def _deadlines() -> Deadlines:
    return Deadlines.of(0, 60, 1, wall=time.time())


def _distribution(s3: Stubber) -> DistributionBucket:
    return DistributionBucket(cast("S3Client", s3.client), "distribution")


def _put(s3: Stubber) -> None:
    _distribution(s3).put(KEY, io.BytesIO(b"bundle"), size=6, sha256=bytes(32))
