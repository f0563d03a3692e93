"""
Tier 2: records as the first version wrote them, byte for byte, are read by this one.

The literals are copies: no code of today makes them. They never change; a new form of a record gains a literal.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from aggregator.exceptions import InFlightError
from aggregator.pipeline.outcomes import Outcome
from aggregator.pipeline.planning import identity
from aggregator.schemas import ObjectRef
from tests.support.stubs import NOW, OURS, THEIRS, TTL, Bench, bundle_of

pytestmark = pytest.mark.usefixtures("credentials")

ONE = ObjectRef("source", "one", 1, "e1")
ID = "b209e96c28c7a00fcf1fef2608e2d0eca0de5add74946259a590e964a8909899"


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.dynamodb, bench.s3:
        yield bench
        bench.done()


@pytest.mark.parametrize(
    ("ref", "scope", "id_"),
    [
        (ONE, "key", ID),
        (ONE._replace(version_id="v1"), "key", ID),
        (ONE._replace(version_id="v1"), "version", "07b4e4ecf6af96402b9620b167cb319db3b988d0cdd6f72e544c273d05aa28bb"),
        (ONE, "version", "4e9d876c9da0bea7e34a7c48cc3d83633bdad11a55c2d856692ea8ea172ccde7"),
    ],
)
def test_an_object_has_the_id_that_the_first_version_gave_it(ref: ObjectRef, scope: Any, id_: str) -> None:
    assert identity(ref, scope) == id_


def test_a_claim_of_the_first_version_holds_until_it_lapses(bench: Bench) -> None:
    claim = _item('{"bundle": "2026/11/18/12/bundle-theirs-1.gz", "etag": "e1"}', NOW * 1000 + 1)
    bench.expect(bench.claiming(ONE), met={0: bench.records.found(claim)})
    bench.expect_settled(THEIRS, settled=False)

    claims = bench.ledger.claim([bench.wanted(ONE)], OURS)

    assert claims.owned == []
    assert isinstance(claims.outcomes[ID], InFlightError)


def test_a_lapsed_claim_of_the_first_version_is_resolved_by_its_bundle(bench: Bench) -> None:
    lapsed = _item('{"bundle": "2026/11/18/12/bundle-theirs-1.gz", "etag": "e1"}', NOW * 1000 - 1)
    bench.expect(bench.claiming(ONE), met={0: bench.records.found(lapsed)})
    bench.expect_settled(THEIRS, settled=False)
    bench.expect_versions(THEIRS, bundle_of(THEIRS, ONE))
    bench.expect_heal(THEIRS)

    assert bench.ledger.claim([bench.wanted(ONE)], OURS).outcomes == {ID: Outcome.DUPLICATE}


def test_a_settle_record_of_the_first_version_makes_a_duplicate(bench: Bench) -> None:
    claim = bench.records.found(_item('{"bundle": "2026/11/18/12/bundle-theirs-1.gz", "etag": "e1"}', NOW * 1000 - 1))
    settled = {
        "id": {"S": "distribution#2026/11/18/12/bundle-theirs-1.gz"},
        "status": {"S": "COMPLETED"},
        "data": {"S": '{"bundle": "2026/11/18/12/bundle-theirs-1.gz", "members": 1, "healed_by": "request-0"}'},
        "expiration": {"N": str(NOW + TTL)},
    }
    bench.expect(bench.claiming(ONE), met={0: claim})
    asked = {"ledger": {"Keys": [{"id": settled["id"]}], "ConsistentRead": True}}
    bench.dynamodb.add_response("batch_get_item", {"Responses": {"ledger": [settled]}}, {"RequestItems": asked})
    bench.expect_look_up({ID: claim})

    assert bench.ledger.claim([bench.wanted(ONE)], OURS).outcomes == {ID: Outcome.DUPLICATE}


def test_what_the_first_version_released_is_claimed(bench: Bench) -> None:
    released = bench.records.found(_item('{"released": "2026/11/18/12/bundle-theirs-1.gz"}', NOW * 1000))
    bench.expect(bench.claiming(ONE), met={0: released})
    bench.expect(bench.claiming(ONE, over=released))

    assert bench.ledger.claim([bench.wanted(ONE)], OURS).owned == [bench.claim(ONE, over=released)]


def test_this_version_writes_what_the_first_one_wrote(bench: Bench) -> None:
    """So the first version reads it, if the code is rolled back."""
    bench.expect(bench.claiming(ONE))

    (claim,) = bench.ledger.claim([bench.wanted(ONE)], OURS).owned

    written = bench.records.item(claim.wanted.id, claim.mine)
    assert written == _item('{"bundle": "2026/11/18/13/bundle-ours-1.gz", "etag": "e1"}', claim.mine.deadline)


def _item(data: str, deadline: int) -> dict[str, Any]:
    return {
        "id": {"S": f"distribution#{ID}"},
        "status": {"S": "INPROGRESS"},
        "data": {"S": data},
        "expiration": {"N": str(NOW + TTL)},
        "in_progress_expiration": {"N": str(deadline)},
    }
