"""Tier 2: the ledger against a stubbed DynamoDB, call by call; what holds for both ways of writing is tested twice."""

import json
from collections.abc import Iterator

import pytest
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer

from aggregator.exceptions import (
    BundleFormatError,
    InFlightError,
    LedgerUnavailableError,
    OutOfTimeError,
    StoreUnavailableError,
)
from aggregator.pipeline.core import empty_bundle
from aggregator.pipeline.ledger import Ledger
from aggregator.pipeline.outcomes import Outcome
from aggregator.pipeline.records import Record
from aggregator.pipeline.swaps import Unwritten
from aggregator.schemas import ObjectRef
from tests.support.stubs import (
    DEADLINE,
    NOW,
    OURS,
    REMAINING,
    THEIRS,
    TTL,
    Bench,
    Means,
    bundle_of,
    released,
    settle_record,
    theirs,
)

ONE = ObjectRef("source", "one", 1, "e1")
TWO = ObjectRef("source", "two", 2, "e2")
LAPSED = NOW * 1000 - 1


pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture(params=["statements", "transactions"])
def means(request: pytest.FixtureRequest) -> Means:
    chosen: Means = request.param
    return chosen


@pytest.fixture
def bench(means: Means) -> Iterator[Bench]:
    bench = Bench(means)
    with bench.dynamodb, bench.s3:
        yield bench
        bench.done()


def test_a_first_delivery_is_claimed_with_one_conditional_write_an_object(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), bench.claiming(TWO))

    claims = bench.ledger.claim([bench.wanted(ONE), bench.wanted(TWO)], OURS)

    assert claims.owned == [bench.claim(ONE), bench.claim(TWO)]
    assert (claims.in_doubt, claims.outcomes) == ([], {})


def test_a_duplicate_is_one_whose_record_still_names_its_bundle_once_that_is_seen_settled(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), bench.claiming(TWO), met={0: theirs("e1")})
    bench.expect_settled(THEIRS, settled=True)
    bench.expect_look_up({bench.wanted(ONE).id: theirs("e1")})

    claims = bench.ledger.claim([bench.wanted(ONE), bench.wanted(TWO)], OURS)

    assert claims.owned == [bench.claim(TWO)]
    assert claims.outcomes == {bench.wanted(ONE).id: Outcome.DUPLICATE}


def test_an_object_given_back_before_its_bundle_was_settled_is_no_duplicate_but_claimed(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), met={0: theirs("e1")})
    bench.expect_settled(THEIRS, settled=True)
    bench.expect_look_up({bench.wanted(ONE).id: released()})
    bench.expect(bench.claiming(ONE, over=released()))

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.owned == [bench.claim(ONE, over=released())]
    assert claims.outcomes == {}


@pytest.mark.parametrize("now", [theirs("e1", bundle="another"), None], ids=["claimed for another", "gone"])
def test_a_record_that_changed_otherwise_counts_as_never_seen(bench: Bench, now: Record | None) -> None:
    """To claim over it would take over somebody's live claim that nobody has resolved."""
    bench.expect(bench.claiming(ONE), met={0: theirs("e1")})
    bench.expect_settled(THEIRS, settled=True)
    bench.expect_look_up({bench.wanted(ONE).id: now})
    bench.expect(bench.claiming(ONE), met={0: theirs("e1", bundle="another")})
    bench.expect_settled("another", settled=False)

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert isinstance(claims.outcomes[bench.wanted(ONE).id], InFlightError)


def test_a_bundle_known_as_settled_before_a_record_was_read_decides_that_record_at_once(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), met={0: theirs("e1")})
    bench.expect_settled(THEIRS, settled=True)
    bench.expect_look_up({bench.wanted(ONE).id: theirs("e1")})
    bench.expect(bench.claiming(TWO), met={0: theirs("e2")})

    bench.ledger.claim([bench.wanted(ONE)], OURS)
    claims = bench.ledger.claim([bench.wanted(TWO)], OURS)

    assert claims.outcomes == {bench.wanted(TWO).id: Outcome.DUPLICATE}


def test_a_duplicate_with_another_entity_tag_is_an_overwritten_object(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), met={0: theirs("older")})
    bench.expect_settled(THEIRS, settled=True)
    bench.expect_look_up({bench.wanted(ONE).id: theirs("older")})

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.outcomes == {bench.wanted(ONE).id: Outcome.OVERWRITTEN}


def test_a_concurrent_delivery_stays_on_the_queue_until_the_claim_lapses(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), met={0: theirs("e1", deadline=NOW * 1000)})
    bench.expect_settled(THEIRS, settled=False)

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.owned == []
    assert isinstance(claims.outcomes[bench.wanted(ONE).id], InFlightError)


def test_a_lapsed_claim_of_a_published_bundle_is_a_duplicate_and_is_healed(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), met={0: theirs("e1", deadline=LAPSED)})
    bench.expect_settled(THEIRS, settled=False)
    bench.expect_versions(THEIRS, bundle_of(THEIRS, ONE))
    bench.expect_heal(THEIRS)

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.outcomes == {bench.wanted(ONE).id: Outcome.DUPLICATE}


def test_a_lapsed_claim_of_a_bundle_that_does_not_list_the_object_is_taken_over(bench: Bench) -> None:
    lapsed = theirs("e2", deadline=LAPSED)
    bench.expect(bench.claiming(TWO), met={0: lapsed})
    bench.expect_settled(THEIRS, settled=False)
    bench.expect_versions(THEIRS, bundle_of(THEIRS, ONE))
    bench.expect_heal(THEIRS)
    bench.expect(bench.claiming(TWO, over=lapsed))

    claims = bench.ledger.claim([bench.wanted(TWO)], OURS)

    assert claims.owned == [bench.claim(TWO, over=lapsed)]


def test_a_lapsed_claim_of_an_unpublished_bundle_is_taken_over_once_the_name_is_fenced(bench: Bench) -> None:
    lapsed = theirs("e1", deadline=LAPSED)
    bench.expect(bench.claiming(ONE), met={0: lapsed})
    bench.expect_settled(THEIRS, settled=False)
    bench.expect_versions(THEIRS)
    bench.expect_fence(THEIRS)
    bench.expect_versions(THEIRS, empty_bundle(THEIRS, NOW, "request-1"))
    bench.expect(bench.claiming(ONE, over=lapsed))

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.owned == [bench.claim(ONE, over=lapsed)]


def test_a_take_over_of_what_changed_meanwhile_begins_anew(bench: Bench) -> None:
    lapsed = theirs("e1", deadline=LAPSED)
    bench.expect(bench.claiming(ONE), met={0: lapsed})
    bench.expect_settled(THEIRS, settled=False)
    bench.expect_versions(THEIRS, empty_bundle(THEIRS, NOW, "request-1"))
    bench.expect(bench.claiming(ONE, over=lapsed), met={0: theirs("e1", bundle="another")})
    bench.expect_settled("another", settled=False)

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert isinstance(claims.outcomes[bench.wanted(ONE).id], InFlightError)


def test_something_else_under_a_bundles_name_decides_nothing(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), met={0: theirs("e1", deadline=LAPSED)})
    bench.expect_settled(THEIRS, settled=False)
    bench.expect_versions(THEIRS, b"what a person put there by hand, long enough to be looked at" * 3)

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert isinstance(claims.outcomes[bench.wanted(ONE).id], BundleFormatError)


def test_a_bundle_that_cannot_be_resolved_is_asked_about_once_for_all_its_objects(bench: Bench) -> None:
    met = {at: theirs(None, deadline=LAPSED) for at in range(2)}
    bench.expect(bench.claiming(ONE), bench.claiming(TWO), met=met)
    bench.expect_settled(THEIRS, settled=False)
    for _ in range(2):
        bench.s3.add_client_error("list_object_versions", "InternalError", http_status_code=500)

    claims = bench.ledger.claim([bench.wanted(ONE), bench.wanted(TWO)], OURS)

    assert {type(outcome) for outcome in claims.outcomes.values()} == {StoreUnavailableError}


def test_no_bundle_is_resolved_when_the_time_for_it_is_over(bench: Bench) -> None:
    bench.has_time = False
    bench.expect(bench.claiming(ONE), met={0: theirs("e1", deadline=LAPSED)})
    bench.expect_settled(THEIRS, settled=False)

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert isinstance(claims.outcomes[bench.wanted(ONE).id], OutOfTimeError)


@pytest.mark.parametrize("asked", ["what is settled", "again"])
def test_a_ledger_that_does_not_say_what_is_settled_sends_objects_back(bench: Bench, asked: str) -> None:
    bench.expect(bench.claiming(ONE), met={0: theirs("e1")})
    if asked == "again":
        bench.expect_settled(THEIRS, settled=True)
    bench.dynamodb.add_client_error("batch_get_item", "ThrottlingException")

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert isinstance(claims.outcomes[bench.wanted(ONE).id], LedgerUnavailableError)


def test_a_lost_answer_leaves_claims_in_doubt_that_are_neither_ours_nor_not_ours(bench: Bench) -> None:
    bench.expect_error("InternalServerError", status=500)

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert (claims.owned, claims.in_doubt) == ([], [bench.claim(ONE)])
    assert isinstance(claims.outcomes[bench.wanted(ONE).id], LedgerUnavailableError)


def test_why_a_claim_was_not_made_is_told(bench: Bench) -> None:
    for _ in range(5):
        bench.expect_error("AccessDeniedException")

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    outcome = claims.outcomes[bench.wanted(ONE).id]
    assert (claims.owned, claims.in_doubt) == ([], [])
    assert isinstance(outcome, LedgerUnavailableError)
    assert outcome.facts == {"key": "one", "fault": "AccessDeniedException"}


def test_our_own_claim_is_recognised_when_it_stands_in_its_own_way(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), met={0: bench.claim(ONE).mine})

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.owned == [bench.claim(ONE)]


def test_a_released_object_is_claimed_over_the_record_of_its_release(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), met={0: released()})
    bench.expect(bench.claiming(ONE, over=released()))

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.owned == [bench.claim(ONE, over=released())]


def test_a_record_that_counts_as_gone_is_claimed_over_whatever_it_says(bench: Bench) -> None:
    old = theirs("e1")._replace(expiration=NOW - 1)
    bench.expect(bench.claiming(ONE), met={0: old})
    bench.expect(bench.claiming(ONE, over=old))

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.owned == [bench.claim(ONE, over=old)]


def test_a_record_that_vanished_meanwhile_is_claimed_as_if_it_had_never_been(bench: Bench) -> None:
    bench.expect(bench.claiming(ONE), met={0: None})
    bench.expect(bench.claiming(ONE))

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.owned == [bench.claim(ONE)]


def test_an_object_that_keeps_changing_hands_stays_on_the_queue(bench: Bench) -> None:
    seen: Record | None = None
    for at in range(4):
        found = released(f"{THEIRS}{at}")
        bench.expect(bench.claiming(ONE, over=seen), met={0: found})
        seen = found

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert isinstance(claims.outcomes[bench.wanted(ONE).id], InFlightError)


def test_a_release_overwrites_what_is_ours_and_nothing_else(bench: Bench) -> None:
    claim = bench.claim(ONE)
    bench.expect(bench.releasing(ONE, claim.mine))

    bench.ledger.release([claim])


def test_what_is_no_longer_ours_counts_as_released(bench: Bench) -> None:
    claim = bench.claim(ONE)
    bench.expect(bench.releasing(ONE, claim.mine), met={0: theirs("e1")})

    bench.ledger.release([claim])


@pytest.mark.parametrize("replaced", [None, theirs("e1", deadline=5)], ids=["nothing", "a lapsed claim"])
def test_a_claim_in_doubt_is_released_by_taking_the_place_that_it_would_have_taken(
    bench: Bench, replaced: Record | None
) -> None:
    bench.expect(bench.releasing(ONE, replaced))

    bench.ledger.release([], [bench.claim(ONE, over=replaced)])


def test_a_claim_in_doubt_that_has_landed_is_released_as_ours(bench: Bench) -> None:
    claim = bench.claim(ONE)
    bench.expect(bench.releasing(ONE, None), met={0: claim.mine})
    bench.expect(bench.releasing(ONE, claim.mine))

    bench.ledger.release([], [claim])


def test_a_claim_in_doubt_whose_place_another_has_taken_for_long_counts_as_released(bench: Bench) -> None:
    bench.expect(bench.releasing(ONE, None), met={0: theirs("e1")})

    bench.ledger.release([], [bench.claim(ONE)])


@pytest.mark.parametrize("expiration", [NOW - 1, NOW + 5, NOW + 86_399])
def test_a_release_of_a_claim_in_doubt_that_finds_a_record_about_to_expire_is_not_certain(
    bench: Bench, expiration: int
) -> None:
    bench.expect(bench.releasing(ONE, None), met={0: theirs("e1")._replace(expiration=expiration)})

    with pytest.raises(LedgerUnavailableError):
        bench.ledger.release([], [bench.claim(ONE)])


def test_a_place_that_became_free_while_a_claim_in_doubt_was_released_is_taken(bench: Bench) -> None:
    bench.expect(bench.releasing(ONE, None), met={0: None})
    bench.expect(bench.releasing(ONE, None))

    bench.ledger.release([], [bench.claim(ONE)])


def test_a_take_over_cannot_come_late_once_what_it_would_replace_has_changed(bench: Bench) -> None:
    old = Record("old", 5, NOW + 5)
    bench.expect(bench.releasing(ONE, old), met={0: theirs("e1")._replace(expiration=NOW + 5)})

    bench.ledger.release([], [bench.claim(ONE, over=old)])


def test_a_release_that_cannot_be_confirmed_says_so(bench: Bench) -> None:
    bench.expect_error("InternalServerError", status=500)

    with pytest.raises(LedgerUnavailableError):
        bench.ledger.release([bench.claim(ONE)])


def test_a_release_that_never_ends_says_so(bench: Bench) -> None:
    for _ in range(4):
        bench.expect(bench.releasing(ONE, None), met={0: None})

    with pytest.raises(LedgerUnavailableError):
        bench.ledger.release([], [bench.claim(ONE)])


def test_one_write_settles_a_bundle_and_outlives_its_claims(bench: Bench) -> None:
    item = settle_record(OURS, {"bundle": OURS, "members": 3})
    bench.dynamodb.add_response("put_item", {}, {"TableName": "ledger", "Item": item})

    bench.ledger.settle(OURS, {"members": 3})


def test_a_settle_that_fails_says_so(bench: Bench) -> None:
    bench.dynamodb.add_client_error("put_item", "ThrottlingException")

    with pytest.raises(LedgerUnavailableError):
        bench.ledger.settle(OURS, {})


def test_our_claims_have_lapsed_when_the_grace_is_over() -> None:
    bench = Bench()

    bench.now = DEADLINE / 1000
    in_time = bench.ledger.lapsed
    bench.now += 0.001

    assert (in_time, bench.ledger.lapsed) == (False, True)
    assert DEADLINE / 1000 > NOW + REMAINING


def test_switched_off_the_ledger_claims_everything_and_calls_nobody() -> None:
    bench = Bench()
    settled: list[str] = []
    ledger = Ledger(
        bench.records,
        Unwritten(),
        bench.arbiter,
        settle=lambda bundle, _: settled.append(bundle),
        lapses=DEADLINE / 1000,
        clock=lambda: bench.now,
    )
    with bench.dynamodb, bench.s3:
        claims = ledger.claim([bench.wanted(ONE), bench.wanted(TWO)], OURS)
        ledger.release(claims.owned)
        ledger.settle(OURS, {})

    assert claims.owned == [bench.claim(ONE), bench.claim(TWO)]
    assert settled == [OURS]


def test_stock_powertools_reads_our_claims_as_its_own_records() -> None:
    bench = Bench()
    item = bench.records.item(bench.wanted(ONE).id, bench.claim(ONE).mine)
    stock = DynamoDBPersistenceLayer("ledger", boto3_client=bench.client)
    with bench.dynamodb:
        bench.dynamodb.add_response("get_item", {"Item": item})
        record = stock._get_record(item["id"]["S"])

    assert (record.status, record.in_progress_expiry_timestamp) == ("INPROGRESS", DEADLINE)
    assert record.expiry_timestamp == NOW + TTL
    assert record.response_json_as_dict() == {"bundle": OURS, "etag": "e1"}
    assert json.loads(bench.claim(ONE).mine.data) == bench.claim(ONE).mine.content
