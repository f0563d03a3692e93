"""Tier 2: why envelopes were rejected, written by the handler and read by the tools."""

import json
from collections.abc import Iterator

import pytest

from aggregator.exceptions import LedgerUnavailableError
from aggregator.operations.ledger_reader import LedgerReader, RejectionRecord
from aggregator.pipeline.planning import Wanted
from aggregator.pipeline.rejections import Rejection, Rejections
from aggregator.schemas import ObjectRef
from tests.support.stubs import NOW, TTL, Bench

ONE = Wanted("1", ObjectRef("source", "one"))
CONTENT = {
    "reason": "missing_object",
    "message": "object is not there",
    "objects": ["s3://source/one"],
    "request_id": "request-1",
    "time": NOW,
}
ITEM = {
    "id": {"S": "distribution#rejected#m1"},
    "status": {"S": "COMPLETED"},
    "data": {"S": json.dumps(CONTENT)},
    "expiration": {"N": str(NOW + TTL)},
}
REJECTION = Rejection("m1", "missing_object", "object is not there", (ONE,))


pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.dynamodb:
        yield bench
        bench.done()


def test_why_an_envelope_was_rejected_is_kept_under_its_message_id_and_read_again(bench: Bench) -> None:
    bench.dynamodb.add_response("batch_write_item", {}, {"RequestItems": {"ledger": [{"PutRequest": {"Item": ITEM}}]}})
    keys = [{"id": {"S": f"distribution#rejected#{name}"}} for name in ("m1", "m2")]
    wanted = {"RequestItems": {"ledger": {"Keys": keys, "ConsistentRead": True}}}
    bench.dynamodb.add_response("batch_get_item", {"Responses": {"ledger": [ITEM]}}, wanted)

    _rejections(bench).record([REJECTION, REJECTION])  # a batch may hold a message twice, and DynamoDB takes a key once

    reader = LedgerReader(bench.client, table="ledger", distribution="distribution", scope="key", now=NOW)
    told = ("missing_object", "object is not there", ("s3://source/one",), "request-1", NOW)
    assert reader.rejections_of(["m1", "m2"]) == {"m1": RejectionRecord("m1", *told)}


def test_more_rejections_than_dynamodb_takes_at_once_take_several_requests(bench: Bench) -> None:
    for _ in range(2):
        bench.dynamodb.add_response("batch_write_item", {})

    _rejections(bench).record([REJECTION._replace(message_id=f"m{at}") for at in range(26)])


def test_a_rejection_names_no_more_than_ten_objects(bench: Bench) -> None:
    many = tuple(Wanted(f"{at}", ObjectRef("source", f"{at}")) for at in range(11))
    objects = [f"s3://source/{at}" for at in range(10)]
    item = {**ITEM, "data": {"S": json.dumps({**CONTENT, "objects": objects})}}
    bench.dynamodb.add_response("batch_write_item", {}, {"RequestItems": {"ledger": [{"PutRequest": {"Item": item}}]}})

    _rejections(bench).record([REJECTION._replace(wanted=many)])


@pytest.mark.parametrize("answered", [True, False])
def test_rejections_that_are_not_written_say_so(bench: Bench, *, answered: bool) -> None:
    if answered:
        left = {"UnprocessedItems": {"ledger": [{"PutRequest": {"Item": {"id": {"S": "x"}}}}]}}
        bench.dynamodb.add_response("batch_write_item", left)
    else:
        bench.dynamodb.add_client_error("batch_write_item", "ThrottlingException")

    with pytest.raises(LedgerUnavailableError):
        _rejections(bench).record([REJECTION])


def _rejections(bench: Bench) -> Rejections:
    return Rejections(bench.records, request_id="request-1", clock=lambda: bench.now)
