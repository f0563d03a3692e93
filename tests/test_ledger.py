"""Tier 2: the ledger against botocore's Stubber, which refuses any call, and any parameter, that is not expected."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer
from botocore.exceptions import ReadTimeoutError
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber

from aggregator.clients import Distribution
from aggregator.core import Packer, Source, empty_bundle
from aggregator.exceptions import (
    BundleFormatError,
    InFlightError,
    LedgerUnavailableError,
    OutOfTimeError,
    StoreUnavailableError,
)
from aggregator.ledger import GRACE, Claim, Ledger, Refusal
from aggregator.planning import Outcome, Plan
from aggregator.records import Record
from aggregator.schemas import Member

NOW = 1_795_000_000
TTL = 30 * 86_400
REMAINING = 60
DEADLINE = (NOW + REMAINING + GRACE) * 1000

OURS = "2026/11/18/13/bundle-ours-1.gz"
THEIRS = "2026/11/18/12/bundle-theirs-1.gz"

ONE = Member("source", "one", 1, "e1")
TWO = Member("source", "two", 2, "e2")


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("POWERTOOLS_IDEMPOTENCY_DISABLED", raising=False)


class Bench:
    """A ledger between a stubbed DynamoDB and a stubbed S3, on a clock that stands still."""

    def __init__(self, scope: Any = "key") -> None:
        self.client, s3 = boto3.client("dynamodb"), boto3.client("s3")
        self.dynamodb, self.s3 = Stubber(self.client), Stubber(s3)
        self.now = float(NOW)
        self.ledger = Ledger(
            self.client,
            Distribution(s3, "distribution"),
            table="ledger",
            scope=scope,
            ttl=TTL,
            request_id="request-1",
            remaining=REMAINING,
            deciding=REMAINING,
            clock=lambda: self.now,
        )

    def expect_transaction(self, *writes: dict[str, Any]) -> None:
        expected = {"TransactItems": list(writes), "ClientRequestToken": ANY}
        self.dynamodb.add_response("transact_write_items", {}, expected)

    def expect_cancelled(self, *reasons: dict[str, Any], writes: Any = ANY) -> None:
        self.dynamodb.add_client_error(
            "transact_write_items",
            "TransactionCanceledException",
            modeled_fields={"CancellationReasons": list(reasons)},
            expected_params={"TransactItems": writes, "ClientRequestToken": ANY},
        )

    def expect_settled(self, asked: str, *settled: str) -> None:
        items = [{"id": _s(f"distribution#{key}"), "data": _s(json.dumps({"bundle": key}))} for key in settled]
        keys = {"Keys": [{"id": _s(f"distribution#{asked}")}], "ConsistentRead": True}
        self.dynamodb.add_response(
            "batch_get_item", {"Responses": {"ledger": items}}, {"RequestItems": {"ledger": keys}}
        )

    def expect_lookup(
        self, asked: list[str], found: dict[str, Any], *, unprocessed: list[str] | None = None, expires: int = NOW
    ) -> None:
        records = [(_s(id_), _s(json.dumps(content)), _n(expires)) for id_, content in found.items()]
        items = [{"id": id_, "data": data, "expiration": expiration} for id_, data, expiration in records]
        keys = [{"id": _s(id_)} for id_ in unprocessed or []]
        left = {"ledger": {"Keys": keys, "ConsistentRead": True}} if keys else {}
        wanted = {"Keys": [{"id": _s(id_)} for id_ in asked], "ConsistentRead": True}
        answer = {"Responses": {"ledger": items}, "UnprocessedKeys": left}
        self.dynamodb.add_response("batch_get_item", answer, {"RequestItems": {"ledger": wanted}})

    def expect_heal(self, bundle: str) -> None:
        item = {
            "id": _s(f"distribution#{bundle}"),
            "status": _s("COMPLETED"),
            "data": _s(json.dumps({"bundle": bundle, "members": 1, "healed_by": "request-1"})),
            "expiration": _n(NOW + TTL + 86_400),
        }
        self.dynamodb.add_response("put_item", {}, {"TableName": "ledger", "Item": item})

    def expect_versions(self, bundle: str, *bodies: bytes, latest: bool = True) -> None:
        versions = [
            {"Key": bundle, "VersionId": f"v{at}", "Size": len(body), "IsLatest": latest and at == 0}
            for at, body in enumerate(bodies)
        ]
        self.s3.add_response(
            "list_object_versions", {"Versions": versions}, {"Bucket": "distribution", "Prefix": bundle}
        )
        for at, body in enumerate(bodies):
            stream = StreamingBody(io.BytesIO(body), len(body))
            wanted = {
                "Bucket": "distribution",
                "Key": bundle,
                "VersionId": f"v{at}",
                "Range": f"bytes=0-{len(body) - 1}",
            }
            self.s3.add_response("get_object", {"Body": stream}, wanted)

    def expect_closing(self, bundle: str) -> None:
        wanted = {
            "Bucket": "distribution",
            "Key": bundle,
            "Body": empty_bundle(bundle, NOW, "request-1"),
            "ContentType": "application/gzip",
            "IfNoneMatch": "*",
        }
        self.s3.add_response("put_object", {}, wanted)

    def id(self, member: Member) -> str:
        return self.ledger.identity(member)

    def done(self) -> None:
        self.dynamodb.assert_no_pending_responses()
        self.s3.assert_no_pending_responses()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.dynamodb, bench.s3:
        yield bench
        bench.done()


def test_a_first_delivery_is_claimed_with_one_conditional_put_a_member(bench: Bench) -> None:
    bench.expect_transaction(bench_claim(bench, ONE), bench_claim(bench, TWO))

    claims = bench.ledger.claim([ONE, TWO], OURS)

    assert [claim.member for claim in claims.owned] == [ONE, TWO]
    assert (claims.unsure, claims.outcomes) == ([], {})


def test_a_duplicate_is_known_by_the_settle_record_of_its_bundle(bench: Bench) -> None:
    bench.expect_cancelled(_taken(bench, ONE, THEIRS, "e1"), {"Code": "None"})
    bench.expect_transaction(bench_claim(bench, TWO))
    bench.expect_settled(THEIRS, THEIRS)

    claims = bench.ledger.claim([ONE, TWO], OURS)

    assert [claim.member for claim in claims.owned] == [TWO]
    assert claims.outcomes == {bench.id(ONE): Outcome.DUPLICATE}


def test_a_duplicate_with_another_entity_tag_is_an_overwritten_object(bench: Bench) -> None:
    bench.expect_cancelled(_taken(bench, ONE, THEIRS, "older"))
    bench.expect_settled(THEIRS, THEIRS)

    claims = bench.ledger.claim([ONE], OURS)

    assert claims.outcomes == {bench.id(ONE): Outcome.OVERWRITTEN}


def test_a_concurrent_delivery_stays_on_the_queue_until_the_claim_lapses(bench: Bench) -> None:
    bench.expect_cancelled(_taken(bench, ONE, THEIRS, "e1", deadline=NOW * 1000))
    bench.expect_settled(THEIRS)

    claims = bench.ledger.claim([ONE], OURS)

    assert claims.owned == []
    assert isinstance(claims.outcomes[bench.id(ONE)], InFlightError)


def test_a_lapsed_claim_of_a_published_bundle_is_a_duplicate_and_is_healed(bench: Bench) -> None:
    bench.expect_cancelled(_taken(bench, ONE, THEIRS, "e1", deadline=NOW * 1000 - 1))
    bench.expect_settled(THEIRS)
    bench.expect_versions(THEIRS, _bundle(THEIRS, ONE))
    bench.expect_heal(THEIRS)

    claims = bench.ledger.claim([ONE], OURS)

    assert claims.outcomes == {bench.id(ONE): Outcome.DUPLICATE}


def test_a_lapsed_claim_of_a_bundle_that_a_consumer_has_deleted_is_a_duplicate_all_the_same(bench: Bench) -> None:
    bench.expect_cancelled(_taken(bench, ONE, THEIRS, "e1", deadline=NOW * 1000 - 1))
    bench.expect_settled(THEIRS)
    bench.expect_versions(THEIRS, _bundle(THEIRS, ONE), latest=False)
    bench.expect_heal(THEIRS)

    claims = bench.ledger.claim([ONE], OURS)

    assert claims.outcomes == {bench.id(ONE): Outcome.DUPLICATE}


def test_a_lapsed_claim_of_a_bundle_that_does_not_list_the_member_is_taken_over(bench: Bench) -> None:
    lapsed = _taken(bench, TWO, THEIRS, "e2", deadline=NOW * 1000 - 1)
    bench.expect_cancelled(lapsed)
    bench.expect_settled(THEIRS)
    bench.expect_versions(THEIRS, _bundle(THEIRS, ONE))
    bench.expect_heal(THEIRS)
    bench.expect_transaction(bench_claim(bench, TWO, over=_found(lapsed)))

    claims = bench.ledger.claim([TWO], OURS)

    assert [claim.member for claim in claims.owned] == [TWO]


def test_a_lapsed_claim_of_an_unpublished_bundle_is_taken_over_once_the_name_is_closed(bench: Bench) -> None:
    lapsed = _taken(bench, ONE, THEIRS, "e1", deadline=NOW * 1000 - 1)
    bench.expect_cancelled(lapsed)
    bench.expect_settled(THEIRS)
    bench.expect_versions(THEIRS)
    bench.expect_closing(THEIRS)
    bench.expect_versions(THEIRS, empty_bundle(THEIRS, NOW, "request-1"))
    bench.expect_transaction(bench_claim(bench, ONE, over=_found(lapsed)))

    claims = bench.ledger.claim([ONE], OURS)

    assert [claim.replaces for claim in claims.owned] == [_found(lapsed)]


def test_a_name_whose_empty_bundle_was_deleted_is_closed_again(bench: Bench) -> None:
    empty = empty_bundle(THEIRS, NOW, "request-1")
    bench.expect_versions(THEIRS, empty, latest=False)
    bench.expect_closing(THEIRS)
    bench.expect_versions(THEIRS, empty)

    assert bench.ledger.decide(THEIRS) == frozenset()


def test_a_bundle_that_lands_while_its_name_is_being_closed_is_published(bench: Bench) -> None:
    bench.expect_versions(THEIRS)
    bench.s3.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    bench.expect_versions(THEIRS, _bundle(THEIRS, ONE))
    bench.expect_heal(THEIRS)

    assert bench.ledger.decide(THEIRS) == {bench.id(ONE)}


def test_a_conflict_while_closing_a_name_decides_nothing(bench: Bench) -> None:
    bench.expect_versions(THEIRS)
    bench.s3.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)

    with pytest.raises(StoreUnavailableError):
        bench.ledger.decide(THEIRS)


def test_a_name_that_cannot_be_kept_closed_decides_nothing(bench: Bench) -> None:
    for _ in range(4):
        bench.expect_versions(THEIRS)
        bench.expect_closing(THEIRS)

    with pytest.raises(StoreUnavailableError):
        bench.ledger.decide(THEIRS)


def test_something_else_under_a_bundles_name_decides_nothing(bench: Bench) -> None:
    bench.expect_cancelled(_taken(bench, ONE, THEIRS, "e1", deadline=NOW * 1000 - 1))
    bench.expect_settled(THEIRS)
    bench.expect_versions(THEIRS, b"what a person put there by hand, long enough to be looked at" * 3)

    claims = bench.ledger.claim([ONE], OURS)

    assert isinstance(claims.outcomes[bench.id(ONE)], BundleFormatError)


def test_a_bundle_is_decided_once_for_all_its_lapsed_claims(bench: Bench) -> None:
    reasons = [_taken(bench, member, THEIRS, None, deadline=NOW * 1000 - 1) for member in (ONE, TWO)]
    bench.expect_cancelled(*reasons)
    bench.expect_settled(THEIRS)
    bench.expect_versions(THEIRS, _bundle(THEIRS, ONE, TWO))
    bench.dynamodb.add_response("put_item", {})

    claims = bench.ledger.claim([ONE, TWO], OURS)

    assert claims.outcomes == {bench.id(ONE): Outcome.DUPLICATE, bench.id(TWO): Outcome.DUPLICATE}


def test_a_settle_that_fails_while_healing_does_not_change_the_verdict(bench: Bench) -> None:
    bench.expect_versions(THEIRS, _bundle(THEIRS, ONE))
    bench.dynamodb.add_client_error("put_item", "InternalServerError", http_status_code=500)

    assert bench.ledger.decide(THEIRS) == {bench.id(ONE)}


def test_a_lost_answer_leaves_claims_that_are_neither_ours_nor_not_ours(bench: Bench) -> None:
    bench.dynamodb.add_client_error("transact_write_items", "InternalServerError", http_status_code=500)

    claims = bench.ledger.claim([ONE], OURS)

    assert [claim.member for claim in claims.unsure] == [ONE]
    assert isinstance(claims.outcomes[bench.id(ONE)], LedgerUnavailableError)


def test_a_timeout_is_a_lost_answer_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.client, "transact_write_items", _timing_out)

    claims = bench.ledger.claim([ONE], OURS)

    assert [claim.member for claim in claims.unsure] == [ONE]


def test_our_own_claim_is_recognised_when_it_stands_in_its_own_way(bench: Bench) -> None:
    bench.expect_cancelled(_taken(bench, ONE, OURS, "e1", deadline=DEADLINE))

    claims = bench.ledger.claim([ONE], OURS)

    assert [claim.member for claim in claims.owned] == [ONE]


def test_a_released_member_is_claimed_over_the_record_of_its_release(bench: Bench) -> None:
    released = _reason(bench, ONE, {"released": THEIRS}, NOW * 1000)
    bench.expect_cancelled(released)
    bench.expect_transaction(bench_claim(bench, ONE, over=_found(released)))

    claims = bench.ledger.claim([ONE], OURS)

    assert [claim.member for claim in claims.owned] == [ONE]


def test_a_record_that_vanished_meanwhile_is_claimed_as_if_it_had_never_been(bench: Bench) -> None:
    bench.expect_cancelled({"Code": "ConditionalCheckFailed"})
    bench.expect_transaction(bench_claim(bench, ONE))

    claims = bench.ledger.claim([ONE], OURS)

    assert [claim.member for claim in claims.owned] == [ONE]


def test_a_member_that_keeps_changing_hands_stays_on_the_queue(bench: Bench) -> None:
    for at in range(4):
        bench.expect_cancelled(_reason(bench, ONE, {"released": f"{THEIRS}{at}"}, NOW * 1000))

    claims = bench.ledger.claim([ONE], OURS)

    assert isinstance(claims.outcomes[bench.id(ONE)], InFlightError)


def test_a_conflict_with_another_transaction_is_tried_again(bench: Bench) -> None:
    bench.expect_cancelled({"Code": "TransactionConflict"}, {"Code": "None"})
    bench.expect_transaction(bench_claim(bench, ONE), bench_claim(bench, TWO))

    claims = bench.ledger.claim([ONE, TWO], OURS)

    assert [claim.member for claim in claims.owned] == [ONE, TWO]


def test_conflicts_without_end_claim_nothing_and_leave_nothing_to_release(bench: Bench) -> None:
    for _ in range(5):
        bench.expect_cancelled({"Code": "TransactionConflict"})

    claims = bench.ledger.claim([ONE], OURS)

    assert (claims.owned, claims.unsure) == ([], [])
    assert isinstance(claims.outcomes[bench.id(ONE)], LedgerUnavailableError)


def test_a_cancellation_that_came_after_a_retry_leaves_claims_unsure_because_the_first_may_yet_land(
    bench: Bench,
) -> None:
    bench.dynamodb.add_client_error(
        "transact_write_items",
        "TransactionCanceledException",
        modeled_fields={"CancellationReasons": [{"Code": "TransactionConflict"}]},
        response_meta={"RetryAttempts": 1},
    )

    claims = bench.ledger.claim([ONE], OURS)

    assert [claim.member for claim in claims.unsure] == [ONE]


def test_a_ledger_that_refuses_a_transaction_has_not_written_it(bench: Bench) -> None:
    for _ in range(5):
        bench.dynamodb.add_client_error("transact_write_items", "AccessDeniedException", http_status_code=400)

    claims = bench.ledger.claim([ONE], OURS)

    assert claims.unsure == []
    assert isinstance(claims.outcomes[bench.id(ONE)], LedgerUnavailableError)


def test_a_bundle_that_cannot_be_decided_is_asked_about_once_for_all_its_members(bench: Bench) -> None:
    reasons = [_taken(bench, member, THEIRS, None, deadline=NOW * 1000 - 1) for member in (ONE, TWO)]
    bench.expect_cancelled(*reasons)
    bench.expect_settled(THEIRS)
    for _ in range(2):
        bench.s3.add_client_error("list_object_versions", "InternalError", http_status_code=500)

    claims = bench.ledger.claim([ONE, TWO], OURS)

    assert {type(outcome) for outcome in claims.outcomes.values()} == {StoreUnavailableError}


def test_no_bundle_is_decided_when_the_time_for_it_is_over(bench: Bench) -> None:
    bench.now += REMAINING + 1
    bench.expect_cancelled(_taken(bench, ONE, THEIRS, "e1", deadline=NOW * 1000 - 1))
    bench.expect_settled(THEIRS)

    claims = bench.ledger.claim([ONE], OURS)

    assert isinstance(claims.outcomes[bench.id(ONE)], OutOfTimeError)


@pytest.mark.parametrize("unprocessed", [True, False])
def test_a_ledger_that_does_not_say_what_is_settled_sends_members_back(bench: Bench, *, unprocessed: bool) -> None:
    bench.expect_cancelled(_taken(bench, ONE, THEIRS, "e1"))
    if unprocessed:
        bench.dynamodb.add_response("batch_get_item", {"UnprocessedKeys": {"ledger": {"Keys": [{"id": _s("x")}]}}})
    else:
        bench.dynamodb.add_client_error("batch_get_item", "ThrottlingException")

    claims = bench.ledger.claim([ONE], OURS)

    assert isinstance(claims.outcomes[bench.id(ONE)], LedgerUnavailableError)


def test_a_release_overwrites_what_is_ours_and_nothing_else(bench: Bench) -> None:
    claim = _drafted(bench, ONE)
    condition = "(attribute_not_exists(#id) OR #expiration < :now) OR #data = :mine"
    values = {":now": _n(NOW), ":mine": _s(claim.data)}
    bench.expect_transaction(_put(bench, ONE, {"released": OURS}, NOW * 1000, condition, values))

    bench.ledger.release([claim])


def test_a_release_of_a_take_over_also_overwrites_the_claim_that_it_would_have_replaced(bench: Bench) -> None:
    old = Record(json.dumps({"bundle": THEIRS, "etag": "e1"}), 5, NOW + TTL)
    condition = "(#data = :old AND #deadline = :deadline) OR #data = :mine"
    claim = _drafted(bench, ONE)._replace(replaces=old)
    values = {":old": _s(old.data), ":deadline": _n(5), ":mine": _s(claim.data)}
    bench.expect_transaction(_put(bench, ONE, {"released": OURS}, NOW * 1000, condition, values))

    bench.ledger.release([claim])


def test_what_is_no_longer_ours_counts_as_released(bench: Bench) -> None:
    bench.expect_cancelled(_taken(bench, ONE, THEIRS, "e1"))

    bench.ledger.release([_drafted(bench, ONE)])


@pytest.mark.parametrize("expiration", [NOW - 1, NOW + 5, NOW + 86_399])
def test_a_release_that_finds_a_record_about_to_expire_is_not_certain(bench: Bench, expiration: int) -> None:
    taken = _taken(bench, ONE, THEIRS, "e1")
    taken["Item"]["expiration"] = _n(expiration)
    bench.expect_cancelled(taken)

    with pytest.raises(LedgerUnavailableError):
        bench.ledger.release([_drafted(bench, ONE)])


def test_a_take_over_cannot_come_late_once_what_it_would_replace_has_changed(bench: Bench) -> None:
    taken = _taken(bench, ONE, THEIRS, "e1")
    taken["Item"]["expiration"] = _n(NOW + 5)
    bench.expect_cancelled(taken)

    bench.ledger.release([_drafted(bench, ONE)._replace(replaces=Record("old", 5, NOW + 5))])


def test_a_release_that_cannot_be_confirmed_says_so(bench: Bench) -> None:
    bench.dynamodb.add_client_error("transact_write_items", "InternalServerError", http_status_code=500)

    with pytest.raises(LedgerUnavailableError):
        bench.ledger.release([_drafted(bench, ONE)])


def test_more_than_a_hundred_releases_take_several_transactions(bench: Bench) -> None:
    claims = [_drafted(bench, Member("source", f"{at}")) for at in range(101)]
    for _ in range(2):
        bench.dynamodb.add_response("transact_write_items", {})

    bench.ledger.release(claims)


def test_one_write_settles_a_bundle_and_outlives_its_claims(bench: Bench) -> None:
    item = {
        "id": _s(f"distribution#{OURS}"),
        "status": _s("COMPLETED"),
        "data": _s(json.dumps({"bundle": OURS, "members": 3})),
        "expiration": _n(NOW + TTL + 86_400),
    }
    bench.dynamodb.add_response("put_item", {}, {"TableName": "ledger", "Item": item})

    bench.ledger.settle(OURS, {"members": 3})


def test_a_settle_that_fails_says_so(bench: Bench) -> None:
    bench.dynamodb.add_client_error("put_item", "ThrottlingException")

    with pytest.raises(LedgerUnavailableError):
        bench.ledger.settle(OURS, {})


def test_why_an_envelope_was_rejected_is_kept_under_its_message_id(bench: Bench) -> None:
    content = {
        "reason": "missing_object",
        "message": "object is not there",
        "objects": ["s3://source/one"],
        "request_id": "request-1",
        "time": NOW,
    }
    item = {
        "id": _s("distribution#refused#m1"),
        "status": _s("COMPLETED"),
        "data": _s(json.dumps(content)),
        "expiration": _n(NOW + TTL),
    }
    written = {"RequestItems": {"ledger": [{"PutRequest": {"Item": item}}]}}
    bench.dynamodb.add_response("batch_write_item", {}, written)
    wanted = {"TableName": "ledger", "Key": {"id": _s("distribution#refused#m1")}}
    bench.dynamodb.add_response("get_item", {"Item": item}, wanted)
    bench.dynamodb.add_response("get_item", {})

    refusal = Refusal("m1", "missing_object", "object is not there", (ONE,))
    bench.ledger.refuse([refusal, refusal])  # a batch may hold a message twice, and DynamoDB takes a key once

    assert [bench.ledger.refused("m1"), bench.ledger.refused("m2")] == ["object is not there", None]


@pytest.mark.parametrize("answered", [True, False])
def test_refusals_that_are_not_written_say_so(bench: Bench, *, answered: bool) -> None:
    if answered:
        left = {"UnprocessedItems": {"ledger": [{"PutRequest": {"Item": {"id": _s("x")}}}]}}
        bench.dynamodb.add_response("batch_write_item", left)
    else:
        bench.dynamodb.add_client_error("batch_write_item", "ThrottlingException")

    with pytest.raises(LedgerUnavailableError):
        bench.ledger.refuse([Refusal("m1", "loop", "loop", ())])


def test_why_envelopes_were_rejected_is_looked_up_for_many_at_once(bench: Bench) -> None:
    ids = [f"distribution#refused#{name}" for name in ("m1", "m2", "m3")]
    bench.expect_lookup(ids, {ids[0]: {"reason": "loop"}}, unprocessed=[ids[2]])
    bench.expect_lookup([ids[2]], {ids[2]: {"reason": "missing_object"}})

    assert bench.ledger.refusals(["m1", "m2", "m3"]) == {"m1": {"reason": "loop"}, "m3": {"reason": "missing_object"}}


def test_a_member_is_known_as_bundled_by_its_claim_and_the_settle_record_of_its_bundle(bench: Bench) -> None:
    ids = [bench.id(ONE), bench.id(TWO)]
    names = [f"distribution#{bundle}" for bundle in (OURS, THEIRS)]
    bench.expect_lookup(ids, {ids[0]: {"bundle": OURS}, ids[1]: {"bundle": THEIRS}})
    bench.expect_lookup(names, {names[0]: {"bundle": OURS}})

    assert bench.ledger.bundled([ONE, TWO, ONE]) == {ids[0]}


@pytest.mark.parametrize("content", [{"released": OURS}, None])
def test_a_member_that_was_released_or_never_seen_is_not_known_as_bundled(bench: Bench, content: Any) -> None:
    bench.expect_lookup([bench.id(ONE)], {bench.id(ONE): content} if content else {})

    assert bench.ledger.bundled([ONE]) == frozenset()


def test_a_record_that_has_expired_says_nothing_though_dynamodb_still_has_it(bench: Bench) -> None:
    bench.expect_lookup([bench.id(ONE)], {bench.id(ONE): {"bundle": OURS}}, expires=NOW - 1)

    assert bench.ledger.bundled([ONE]) == frozenset()


@pytest.mark.parametrize("unprocessed", [True, False])
def test_a_ledger_that_cannot_be_looked_up_says_so(bench: Bench, *, unprocessed: bool) -> None:
    for _ in range(4 if unprocessed else 0):
        bench.expect_lookup([bench.id(ONE)], {}, unprocessed=[bench.id(ONE)])
    if not unprocessed:
        bench.dynamodb.add_client_error("batch_get_item", "ProvisionedThroughputExceededException")

    with pytest.raises(LedgerUnavailableError):
        bench.ledger.bundled([ONE])


def test_the_identity_of_a_member_is_its_bucket_and_key() -> None:
    ledger = Bench().ledger

    ids = [ledger.identity(Member(bucket, key, 1, "e", "v")) for bucket in ("ab", "a") for key in ("c", "bc")]

    assert len(set(ids)) == 4
    assert ledger.identity(ONE) == ledger.identity(ONE._replace(etag="other", version_id="v2", size=9))


def test_with_the_scope_version_it_is_the_version_too_or_else_the_entity_tag() -> None:
    ledger = Bench("version").ledger
    versioned = ONE._replace(version_id="v1")

    assert ledger.identity(versioned) == ledger.identity(versioned._replace(etag="whatever"))
    assert len({ledger.identity(member) for member in (ONE, ONE._replace(etag="e9"), versioned)}) == 3


def test_a_versioned_member_is_found_in_a_bundle_however_it_was_announced() -> None:
    bench = Bench("version")
    with bench.dynamodb, bench.s3:
        bench.expect_versions(THEIRS, _bundle(THEIRS, ONE._replace(version_id="v1")))
        bench.dynamodb.add_response("put_item", {})

        listed = bench.ledger.decide(THEIRS)

    announced = [ONE._replace(version_id="v1"), ONE, ONE._replace(etag=None)]
    assert listed == {bench.id(member) for member in announced}


def test_switched_off_the_ledger_claims_everything_and_calls_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_IDEMPOTENCY_DISABLED", "true")
    bench = Bench()
    with bench.dynamodb, bench.s3:
        claims = bench.ledger.claim([ONE, TWO], OURS)
        bench.ledger.release(claims.owned)
        bench.ledger.settle(OURS, {})
        bench.ledger.refuse([Refusal("m1", "loop", "loop", ())])

    assert [claim.member for claim in claims.owned] == [ONE, TWO]


def test_stock_powertools_reads_our_claims_as_its_own_records(bench: Bench) -> None:
    item = bench_claim(bench, ONE)["Put"]["Item"]
    bench.dynamodb.add_response("get_item", {"Item": item})
    stock = DynamoDBPersistenceLayer("ledger", boto3_client=bench.client)

    record = stock._get_record(bench.id(ONE))

    assert (record.status, record.in_progress_expiry_timestamp) == ("INPROGRESS", DEADLINE)
    assert record.response_json_as_dict() == {"bundle": OURS, "etag": "e1"}


def bench_claim(bench: Bench, member: Member, *, over: Record | None = None) -> dict[str, Any]:
    condition, values = "attribute_not_exists(#id) OR #expiration < :now", {":now": _n(NOW)}
    if over:
        condition = "#data = :old AND #deadline = :deadline"
        values = {":old": _s(over.data), ":deadline": _n(over.deadline)}
    return _put(bench, member, {"bundle": OURS, "etag": member.etag}, DEADLINE, condition, values)


def _put(
    bench: Bench, member: Member, data: dict[str, Any], deadline: int, condition: str, values: dict[str, Any]
) -> dict[str, Any]:
    names = {"#id": "id", "#expiration": "expiration", "#data": "data", "#deadline": "in_progress_expiration"}
    item = {
        "id": _s(bench.id(member)),
        "status": _s("INPROGRESS"),
        "data": _s(json.dumps(data)),
        "expiration": _n(NOW + TTL),
        "in_progress_expiration": _n(deadline),
    }
    return {
        "Put": {
            "TableName": "ledger",
            "Item": item,
            "ConditionExpression": condition,
            "ExpressionAttributeNames": {name: names[name] for name in names if name in condition},
            "ExpressionAttributeValues": values,
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
    }


def _taken(
    bench: Bench, member: Member, bundle: str, etag: str | None, *, deadline: int = NOW * 1000 + 1
) -> dict[str, Any]:
    return _reason(bench, member, {"bundle": bundle, "etag": etag}, deadline)


def _reason(bench: Bench, member: Member, data: dict[str, Any], deadline: int) -> dict[str, Any]:
    item = {"id": _s(bench.id(member)), "data": _s(json.dumps(data)), "in_progress_expiration": _n(deadline)}
    return {"Code": "ConditionalCheckFailed", "Item": {**item, "expiration": _n(NOW + TTL)}}


def _found(reason: dict[str, Any]) -> Record:
    return Record(reason["Item"]["data"]["S"], int(reason["Item"]["in_progress_expiration"]["N"]), NOW + TTL)


def _drafted(bench: Bench, member: Member) -> Claim:
    return Claim(member, bench.id(member), OURS, json.dumps({"bundle": OURS, "etag": member.etag}), None)


def _bundle(key: str, *members: Member) -> bytes:
    from concurrent.futures import ThreadPoolExecutor

    spool = io.BytesIO()
    with ThreadPoolExecutor(1) as executor:
        packer = Packer(spool, limit=1_000, level=1, framing="lines", executor=executor)
        for member in members:
            packer.add(Source(member, 1, member.etag, member.version_id), [b"x"])
        packer.finish(Plan(key, "2026-11-18T12:00:00Z", "request-0", members))
    return spool.getvalue()


def _timing_out(**_: Any) -> Callable[..., Any]:
    raise ReadTimeoutError(endpoint_url="http://127.0.0.1")


def _s(value: str) -> dict[str, str]:
    return {"S": value}


def _n(value: int) -> dict[str, str]:
    return {"N": str(value)}
