"""Plans: every member into one bundle, and time enough for every step."""

from collections.abc import Iterable
from itertools import pairwise
from math import isclose
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.aws import batches
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.outcomes import Outcome, repeated
from aggregator.pipeline.planning import Plan, Wanted, bundle_key, identity, planned, split
from aggregator.schemas import ObjectRef

NOVEMBER_2026 = 1_795_434_896.789

PROPERTY = settings(deadline=None, derandomize=True, max_examples=100)


# Plans


def test_a_bundle_is_named_by_its_hour_in_utc_and_by_who_makes_it() -> None:
    assert bundle_key(NOVEMBER_2026, "request", "0a1b2c3d") == "2026/11/23/11/bundle-request-0a1b2c3d.gz"


@pytest.mark.parametrize(
    ("now", "hour"), [(0, "1970/01/01/00"), (3_599.999, "1970/01/01/00"), (3_600, "1970/01/01/01")]
)
def test_an_hour_begins_on_the_hour(now: float, hour: str) -> None:
    assert bundle_key(now, "r", "s") == f"{hour}/bundle-r-s.gz"


def test_a_plan_says_what_when_and_by_whom() -> None:
    members = tuple(Wanted(key, ObjectRef("source", key)) for key in "ab")

    plan = planned(members, now=NOVEMBER_2026, request_id="request", suffix="0a1b2c3d")

    key = "2026/11/23/11/bundle-request-0a1b2c3d.gz"
    assert plan == Plan(key, "2026-11-23T11:54:56Z", "request", members)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([0], [[0]]),
        ([10], [[10]]),
        ([4, 6], [[4, 6]]),
        ([4, 7], [[4], [7]]),
        ([4, 6, 0, 1], [[4, 6, 0], [1]]),
        ([11], [[11]]),
        ([3, 11, 3], [[3], [11], [3]]),
        ([11, 0], [[11], [0]]),
        ([None, 10, None], [[None, 10, None]]),
    ],
)
def test_members_are_cut_into_runs_of_at_most_the_limit(
    sizes: list[int | None], expected: list[list[int | None]]
) -> None:
    found = split(_sized(sizes), 10)

    assert [[one.ref.size for one in run] for run in found] == expected


@PROPERTY
@given(st.lists(st.integers(0, 200) | st.none()), st.integers(1, 150))
def test_every_member_is_in_one_run_and_no_run_could_take_the_next_one(sizes: list[int | None], limit: int) -> None:
    members = _sized(sizes)

    found = split(members, limit)

    totals = [sum(one.ref.size or 0 for one in run) for run in found]
    assert [one for run in found for one in run] == members
    assert all(total <= limit or len(run) == 1 for run, total in zip(found, totals, strict=True))
    assert all(total + (run[0].ref.size or 0) > limit for total, (_, run) in zip(totals, pairwise(found), strict=False))


# Identity


def test_an_object_is_identified_by_its_bucket_and_key() -> None:
    one = ObjectRef("source", "one", 1, "e1")

    ids = {identity(ObjectRef(bucket, key, 1, "e", "v"), "key") for bucket in ("ab", "a") for key in ("c", "bc")}

    assert len(ids) == 4
    assert identity(one, "key") == identity(one._replace(etag="other", version_id="v2", size=9), "key")


def test_with_the_scope_version_it_is_the_version_too_or_else_the_entity_tag() -> None:
    one = ObjectRef("source", "one", 1, "e1")
    versioned = one._replace(version_id="v1")

    assert identity(versioned, "version") == identity(versioned._replace(etag="whatever"), "version")
    assert len({identity(member, "version") for member in (one, one._replace(etag="e9"), versioned)}) == 3


@pytest.mark.parametrize("member", [ObjectRef("source", "é/😀", 1, "e1"), ObjectRef("source", "a", None, None, "v1")])
def test_an_id_is_hashed_as_powertools_hashes_an_idempotency_key(member: ObjectRef) -> None:
    layer = DynamoDBPersistenceLayer("ledger", boto3_client=cast("Any", SimpleNamespace(meta=None)))
    layer.configure(IdempotencyConfig(hash_function="sha256"), key_prefix="prefix")
    data: Any = {"bucket": member.bucket, "key": member.key, "version": member.version_id or member.etag}

    assert layer._get_hashed_idempotency_key(data) == f"prefix#{identity(member, 'version')}"


@pytest.mark.parametrize(
    ("etag", "known", "outcome"),
    [
        ("e1", "e1", Outcome.DUPLICATE),
        ("e1", "e2", Outcome.OVERWRITTEN),
        (None, "e2", Outcome.DUPLICATE),
        ("e1", None, Outcome.DUPLICATE),
    ],
)
def test_another_entity_tag_tells_an_overwritten_object_from_a_duplicate(
    etag: str | None, known: str | None, outcome: Outcome
) -> None:
    assert repeated(ObjectRef("source", "one", 1, etag), known) is outcome


# Time


@PROPERTY
@given(st.floats(0, 1e7), st.floats(12, 900), st.integers(1_000_000, 5_000_000_000))
def test_deadlines_keeps_its_order_and_leaves_time_to_publish(now: float, remaining: float, limit: int) -> None:
    table = Deadlines.of(now, remaining, limit, wall=0)

    publish = table.put_timeout + 3 * table.ledger_timeout
    assert now < table.read_until < table.gather_until < table.ends == now + remaining
    assert isclose(table.read_until + 2 * table.request_timeout, table.gather_until, abs_tol=1e-6)
    assert table.gather_until + publish <= table.ends + 1e-6
    assert table.gather_until - now >= remaining / 2 - 1e-6
    assert 1 <= table.request_timeout <= 10
    assert 0.8 <= table.ledger_timeout <= 5
    assert 1.5 <= table.put_timeout <= 20


@PROPERTY
@given(st.floats(0, 12), st.integers(1_000_000, 5_000_000_000))
def test_deadlines_of_too_short_an_invocation_still_ends_in_time(remaining: float, limit: int) -> None:
    table = Deadlines.of(100.0, remaining, limit, wall=0)

    assert table.read_until <= table.gather_until <= table.ends == 100 + remaining


@PROPERTY
@given(st.floats(12, 900), st.integers(1_000_000, 5_000_000_000), st.integers(1, 1_000_000_000))
def test_a_larger_bundle_leaves_no_more_time_to_gather(remaining: float, limit: int, more: int) -> None:
    smaller, larger = Deadlines.of(0, remaining, limit, wall=0), Deadlines.of(0, remaining, limit + more, wall=0)

    assert larger.gather_until <= smaller.gather_until


@pytest.mark.parametrize(
    ("remaining", "limit", "table"),
    [
        (900, 100_000_000, Deadlines(919, 939, 1000, 10, 5, 20, 1910)),
        (60, 5_000_000_000, Deadlines(122.5, 130, 160, 3.75, 5, 10, 1070)),
        (60, 100_000_000, Deadlines(135.25, 147, 160, 5.875, 13 / 6, 13 / 3, 1070)),
        (12, 100_000_000, Deadlines(104, 106, 112, 1, 1, 2, 1022)),
        (0, 100_000_000, Deadlines(98, 100, 100, 1, 0.8, 1.5, 1010)),
    ],
)
def test_deadlines_in_numbers(remaining: float, limit: int, table: Deadlines) -> None:
    assert tuple(Deadlines.of(100.0, remaining, limit, wall=1000)) == pytest.approx(tuple(table))


@pytest.mark.parametrize(
    ("seconds", "now", "allowed"),
    [(0, 99.5, True), (0, 99.6, False), (9.5, 90, True), (9.6, 90, False), (9.5, 90.1, False)],
)
def test_deadlines_allows_what_ends_before_the_invocation_closes(seconds: float, now: float, allowed: bool) -> None:
    table = Deadlines(0, 0, ends=100, request_timeout=10, ledger_timeout=5, put_timeout=20, lapses=110)

    assert table.allows(seconds, now) == allowed


@pytest.mark.parametrize(("now", "allowed"), [(0, True), (77.5, True), (77.6, False)])
def test_a_put_takes_its_time_out_and_that_of_the_connection(now: float, allowed: bool) -> None:
    table = Deadlines(0, 0, ends=100, request_timeout=10, ledger_timeout=5, put_timeout=20, lapses=110)

    assert table.allows_put(now) == allowed


@PROPERTY
@given(st.floats(12, 900), st.integers(1_000_000, 5_000_000_000))
def test_deadlines_allows_a_put_once_all_is_gathered(remaining: float, limit: int) -> None:
    table = Deadlines.of(0, remaining, limit, wall=0)

    assert table.allows_put(table.gather_until)


@pytest.mark.parametrize(
    ("values", "cut"),
    [("", []), ("a", ["a"]), ("abc", ["abc"]), ("abcd", ["abc", "d"]), ("abcdef", ["abc", "def"])],
)
def test_runs_are_of_one_size_but_the_last(values: str, cut: list[str]) -> None:
    assert list(batches(values, 3)) == cut


def _sized(sizes: Iterable[int | None]) -> list[Wanted]:
    return [Wanted.of(ObjectRef("source", f"in/{n}.json", size), "key") for n, size in enumerate(sizes)]
