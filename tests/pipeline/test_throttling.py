"""A request of the ledger that DynamoDB throttles as a whole has done nothing, however often it was tried."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from aggregator.pipeline.clients import Clients
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.records import Record, Records
from aggregator.pipeline.swaps import Statements, Swap, Transactions, Way, swap_all
from tests.support.world import CREDENTIALS

THROTTLED = (400, {"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "slow down"})
BROKEN = (500, {"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError", "message": "no"})
REJECTED = (400, {"__type": "com.amazonaws.dynamodb.v20120810#ValidationException", "message": "no"})
DONE: tuple[int, dict[str, Any]] = (200, {"Responses": [{}]})


class DynamoDb:
    """A DynamoDB that gives the answers that are left, one after the other, and the last for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, Any]]] = []
        self.asked = 0
        dynamodb = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Answer."""
                self.rfile.read(int(self.headers["Content-Length"]))
                dynamodb.asked += 1
                status, content = dynamodb.answers.pop(0) if len(dynamodb.answers) > 1 else dynamodb.answers[0]
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Be quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def dynamodb(monkeypatch: pytest.MonkeyPatch) -> Iterator[DynamoDb]:
    made = DynamoDb()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.server.server_port}")
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture(params=[Statements, Transactions])
def way(request: pytest.FixtureRequest, dynamodb: DynamoDb) -> Iterator[Way]:
    clients = Clients.build(Deadlines.of(time.monotonic(), 300, 10**8, wall=time.time()))
    yield request.param(Records(clients.dynamodb, table="ledger", prefix="distribution", ttl=86_400, clock=time.time))
    clients.close()


def _swap() -> Swap:
    return Swap("distribution#x", None, Record("{}", 1_900_000_000_000, 2_000_000_000))


def test_a_request_that_is_throttled_again_and_again_is_tried_again(dynamodb: DynamoDb, way: Way) -> None:
    dynamodb.answers = [THROTTLED] * 4 + [DONE]

    swapped = swap_all(way, [_swap()])

    assert (swapped.applied, swapped.in_doubt, swapped.failed) == (["distribution#x"], {}, {})


def test_a_request_that_is_throttled_for_ever_surely_did_nothing(dynamodb: DynamoDb, way: Way) -> None:
    dynamodb.answers = [THROTTLED]

    swapped = swap_all(way, [_swap()])

    assert (swapped.in_doubt, swapped.failed) == ({}, {"distribution#x": "ThrottlingException"})


@pytest.mark.parametrize("last", [THROTTLED, REJECTED])
def test_an_attempt_that_may_have_taken_effect_is_in_doubt_whatever_the_next_is_answered(
    dynamodb: DynamoDb, way: Way, last: tuple[int, dict[str, Any]]
) -> None:
    dynamodb.answers = [BROKEN, last]

    swapped = swap_all(way, [_swap()])

    assert (list(swapped.in_doubt), swapped.failed, dynamodb.asked) == (["distribution#x"], {}, 2)
