"""Tier 2: swaps, to the last parameter, and the probe that proves a store before it is used."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError

from aggregator.exceptions import ConfigurationError, LedgerUnavailableError
from aggregator.pipeline import swaps
from aggregator.pipeline.records import Record, Records
from aggregator.pipeline.swaps import Statements, Swap, Swapped, Transactions, choose_way, honours, swap_all
from tests.support.stubs import NOW, TTL, Bench, Means

A, B, C = (Swap(name, None, Record(f'{{"bundle": "{name}"}}', 5, NOW + TTL)) for name in "abc")
OTHER = Record('{"bundle": "other"}', 6, NOW + TTL)
SEEN = Record('{"released": "old"}', 7, NOW + TTL)


pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaps, "pause", lambda _: None)


@pytest.fixture
def statements() -> Iterator[Bench]:
    yield from _working("statements")


@pytest.fixture
def transactions() -> Iterator[Bench]:
    yield from _working("transactions")


def _working(means: Means) -> Iterator[Bench]:
    bench = Bench(means)
    with bench.dynamodb, bench.s3:
        yield bench
        bench.done()


def test_a_statement_fails_alone_and_what_it_met_is_looked_up(statements: Bench) -> None:
    update = B._replace(seen=SEEN)
    statements.expect_statements(A, update, C, codes={0: "DuplicateItem", 1: "ConditionalCheckFailed"})
    statements.expect_look_up({"a": OTHER, "b": None})

    swapped = swap_all(statements.way, [A, update, C])

    assert swapped == Swapped(["c"], {"a": OTHER, "b": None}, {}, {})


def test_statements_that_were_throttled_are_asked_for_again_alone(statements: Bench) -> None:
    statements.expect_statements(A, B, codes={1: "ThrottlingError"})
    statements.expect_statements(B)

    assert swap_all(statements.way, [A, B]) == Swapped(["a", "b"], {}, {}, {})


def test_a_statement_that_is_always_refused_has_failed_for_its_error(statements: Bench) -> None:
    for _ in range(5):
        statements.expect_statements(A, codes={0: "AccessDenied"})

    assert swap_all(statements.way, [A]) == Swapped([], {}, {"a": "AccessDenied"}, {})


@pytest.mark.parametrize("code", ["InternalServerError", "NobodyKnowsThisOneYet"])
def test_a_statement_that_failed_inside_dynamodb_or_in_a_way_that_nobody_knows_is_in_doubt(
    statements: Bench, code: str
) -> None:
    statements.expect_statements(A, B, codes={0: code})

    assert swap_all(statements.way, [A, B]) == Swapped(["b"], {}, {}, {"a": code})


def test_whatever_a_second_attempt_was_refused_is_in_doubt_because_the_first_may_yet_land(statements: Bench) -> None:
    codes = {0: "DuplicateItem", 1: "ThrottlingError", 3: "DuplicateItem"}
    d = Swap("d", None, A.new)
    statements.expect_statements(A, B, C, d, codes=codes, retries=1)
    statements.expect_look_up({"a": A.new, "d": OTHER})

    swapped = swap_all(statements.way, [A, B, C, d])

    assert (sorted(swapped.applied), swapped.refused, swapped.failed) == (["a", "c"], {}, {})
    assert sorted(swapped.in_doubt) == ["b", "d"]


@pytest.mark.parametrize("retries", [0, 1])
def test_what_statements_met_and_nobody_tells_is_asked_for_again_unless_an_attempt_may_yet_land(
    statements: Bench, retries: int
) -> None:
    statements.expect_statements(A, codes={0: "DuplicateItem"}, retries=retries)
    statements.dynamodb.add_client_error("batch_get_item", "ThrottlingException")
    if not retries:
        statements.expect_statements(A, codes={0: "DuplicateItem"})
        statements.expect_look_up({"a": OTHER})

    swapped = swap_all(statements.way, [A])

    assert swapped == (
        Swapped([], {}, {}, {"a": "ThrottlingException"}) if retries else Swapped([], {"a": OTHER}, {}, {})
    )


def test_a_transaction_names_what_it_met_and_the_others_are_asked_for_again(transactions: Bench) -> None:
    transactions.expect_cancelled(A, B, C, met={0: OTHER, 2: None})
    transactions.expect_transaction(B)

    assert swap_all(transactions.way, [A, B, C]) == Swapped(["b"], {"a": OTHER, "c": None}, {}, {})


def test_a_conflict_with_another_transaction_is_tried_again(transactions: Bench) -> None:
    transactions.dynamodb.add_client_error(
        "transact_write_items",
        "TransactionCanceledException",
        modeled_fields={"CancellationReasons": [{"Code": "TransactionConflict"}, {"Code": "None"}]},
    )
    transactions.expect_transaction(A, B)

    assert swap_all(transactions.way, [A, B]) == Swapped(["a", "b"], {}, {}, {})


def test_a_cancellation_after_a_retry_leaves_all_in_doubt_what_it_met_included(transactions: Bench) -> None:
    transactions.expect_cancelled(A, B, C, met={0: OTHER, 1: B.new}, retries=1)

    swapped = swap_all(transactions.way, [A, B, C])

    assert (swapped.applied, swapped.refused, swapped.failed) == (["b"], {}, {})
    assert sorted(swapped.in_doubt) == ["a", "c"]


@pytest.mark.parametrize("means", ["statements", "transactions"])
def test_an_answer_that_never_came_leaves_all_in_doubt(means: Means, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(means)

    def hang(**_: Any) -> Any:
        raise ReadTimeoutError(endpoint_url="http://127.0.0.1")

    monkeypatch.setattr(bench.client, "batch_execute_statement", hang)
    monkeypatch.setattr(bench.client, "transact_write_items", hang)

    assert swap_all(bench.way, [A, B]) == Swapped([], {}, {}, {"a": "ReadTimeoutError", "b": "ReadTimeoutError"})


@pytest.mark.parametrize("means", ["statements", "transactions"])
def test_no_more_swaps_are_in_a_request_than_dynamodb_takes(means: Means) -> None:
    many = [Swap(f"{at:03}", None, A.new) for at in range(101)]
    for bench in _working(means):
        for first in range(0, len(many), bench.way.most):
            bench.expect(*many[first : first + bench.way.most])

        assert swap_all(bench.way, many).applied == [swap.id for swap in many]
        assert bench.way.most == (25 if means == "statements" else 100)


def test_the_text_of_a_statement_never_holds_a_value(statements: Bench) -> None:
    evil = Swap("id'; DELETE", None, Record("' OR 1=1 --", 5, 6))
    statements.expect_statements(evil)  # compares the text, to the letter

    assert swap_all(statements.way, [evil]).applied == ["id'; DELETE"]


@pytest.mark.integration
@pytest.mark.parametrize("way", [Statements, Transactions])
def test_the_embedded_aws_honours_both_ways(embedded: str, monkeypatch: pytest.MonkeyPatch, way: Any) -> None:
    records = _store(embedded, monkeypatch)

    assert honours(way(records), records)


@pytest.mark.integration
def test_a_store_that_honours_statements_is_written_by_statements(
    embedded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = _store(embedded, monkeypatch)

    assert isinstance(choose_way(records, "auto"), Statements)


@pytest.mark.integration
def test_a_store_that_does_not_honour_statements_is_written_by_transactions(
    moto_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = _store(moto_server, monkeypatch)

    assert isinstance(choose_way(records, "auto"), Transactions)


@pytest.mark.integration
def test_a_store_that_honours_no_condition_is_refused(embedded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    records = _store(embedded, monkeypatch)
    for way in (Statements, Transactions):
        monkeypatch.setattr(way, "request", _careless(records))

    with pytest.raises(ConfigurationError, match="does not honour conditional writes"):
        choose_way(records, "auto")


@pytest.mark.integration
def test_a_store_that_says_that_it_wrote_and_did_not_is_refused(embedded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As moto's PartiQL does with an `UPDATE` whose condition does not hold."""
    records = _store(embedded, monkeypatch)
    requests = {way: way.request for way in (Statements, Transactions)}
    for way in (Statements, Transactions):
        monkeypatch.setattr(way, "request", _lying_about_updates(requests[way]))

    with pytest.raises(ConfigurationError):
        choose_way(records, "auto")


def test_a_store_that_does_not_answer_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    records = _store("http://127.0.0.1:9", monkeypatch, make=False)

    with pytest.raises(LedgerUnavailableError):
        choose_way(records, "auto")


def test_a_store_is_probed_once_in_a_process(transactions: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swaps, "_PROVEN", {"http://127.0.0.1:1": Transactions})
    monkeypatch.setattr(transactions.client.meta, "_endpoint_url", "http://127.0.0.1:1")

    assert isinstance(choose_way(transactions.records, "auto"), Transactions)


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://dynamodb.eu-central-1.amazonaws.com",
        "https://dynamodb.cn-north-1.amazonaws.com.cn",
        "https://dynamodb.eu-central-1.api.aws",
        "https://123456789012.ddb.eu-central-1.amazonaws.com",
    ],
)
def test_awss_own_dynamodb_is_written_by_statements_without_a_probe(
    transactions: Bench, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setattr(transactions.client.meta, "_endpoint_url", endpoint)

    assert isinstance(choose_way(transactions.records, "auto"), Statements)


@pytest.mark.parametrize(("writes", "way"), [("statements", Statements), ("transactions", Transactions)])
def test_the_way_that_a_setting_names_is_taken_without_a_probe(
    transactions: Bench, monkeypatch: pytest.MonkeyPatch, writes: Any, way: Any
) -> None:
    monkeypatch.setattr(transactions.client.meta, "_endpoint_url", "http://127.0.0.1:1")

    assert isinstance(choose_way(transactions.records, writes), way)


def _store(endpoint_url: str, monkeypatch: pytest.MonkeyPatch, *, make: bool = True) -> Records:
    from botocore.config import Config

    from aggregator.runtimes.local.stack import make_ledger

    monkeypatch.setattr(swaps, "_PROVEN", {})
    config = Config(connect_timeout=1, read_timeout=5, retries={"total_max_attempts": 1})
    client = boto3.client("dynamodb", endpoint_url=endpoint_url, config=config)
    table = f"probe-{uuid4().hex}"
    if make:
        make_ledger(client, table)
    return Records(client, table=table, prefix="distribution", ttl=TTL, clock=lambda: float(NOW))


def _careless(records: Records) -> Any:
    """Put whatever is asked for, as a store that reads no conditions."""

    def request(_way: Any, batch: list[Swap]) -> Swapped:
        for swap in batch:
            records.client.put_item(TableName=records.table, Item=records.item(swap.id, swap.new))
        return Swapped([swap.id for swap in batch], {}, {}, {})

    return request


def _lying_about_updates(request: Any) -> Any:
    def lie(way: Any, batch: list[Swap]) -> Swapped:
        if any(swap.seen for swap in batch):
            return Swapped([swap.id for swap in batch], {}, {}, {})
        answer: Swapped = request(way, batch)
        return answer

    return lie
