"""The auditor finds the records and the bundles that the handler wrote, by rules of its own."""

import json
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.operations.ledger_reader import LedgerReader
from aggregator.operations.listings import prefixes
from aggregator.pipeline.planning import identity
from aggregator.pipeline.records import Record
from aggregator.schemas import ObjectRef
from tests.support.stubs import NOW, OURS, THEIRS, TTL, Bench, released, theirs

HOUR = 3_600.0


@pytest.fixture
def bench(credentials: None) -> Iterator[Bench]:
    bench = Bench()
    with bench.dynamodb:
        yield bench
        bench.done()


def reader_of(bench: Bench) -> LedgerReader:
    return LedgerReader(bench.client, table="ledger", distribution="distribution", scope="key", now=NOW)


def settle_of(bundle: str) -> Record:
    return Record(json.dumps({"bundle": bundle}), 0, NOW + TTL)


@pytest.mark.parametrize("scope", ["key", "version"])
@given(bucket=st.text(), key=st.text(min_size=1), version=st.none() | st.text(min_size=1), etag=st.none() | st.text())
def test_an_id_is_the_one_that_the_ledger_gives(
    scope: Literal["key", "version"], bucket: str, key: str, version: str | None, etag: str | None
) -> None:
    client: Any = object()  # nothing is asked
    reader = LedgerReader(client, table="t", distribution="d", scope=scope, now=0)

    assert reader.id(bucket, key, version, etag) == f"d#{identity(ObjectRef(bucket, key, None, etag, version), scope)}"


def test_an_object_is_known_as_bundled_whose_claim_still_names_its_bundle_once_that_is_seen_settled(
    bench: Bench,
) -> None:
    bench.expect_look_up({"one": theirs("e"), "two": theirs("e", bundle=OURS)})
    bench.expect_look_up({THEIRS: settle_of(THEIRS), OURS: None})
    bench.expect_look_up({"one": theirs("e")})

    assert reader_of(bench).bundled(["distribution#one", "distribution#two"]) == {"distribution#one"}


@pytest.mark.parametrize("then", [released(), theirs("e", bundle=OURS), None], ids=["released", "claimed anew", "gone"])
def test_an_object_given_back_before_its_bundle_was_settled_is_not_known_as_bundled(
    bench: Bench, then: Record | None
) -> None:
    bench.expect_look_up({"one": theirs("e")})
    bench.expect_settled(THEIRS, settled=True)
    bench.expect_look_up({"one": then})

    assert reader_of(bench).bundled(["distribution#one"]) == frozenset()


@pytest.mark.parametrize("record", [released(), theirs("e")._replace(expiration=NOW - 1), None])
def test_an_object_that_was_released_or_never_seen_or_forgotten_is_not_known_as_bundled(
    bench: Bench, record: Record | None
) -> None:
    bench.expect_look_up({"one": record})

    assert reader_of(bench).bundled(["distribution#one"]) == frozenset()


def test_the_prefixes_of_a_time_are_its_hours_and_one_on_either_side() -> None:
    assert prefixes(23 * HOUR, 24 * HOUR + 1) == [
        "1970/01/01/22/", "1970/01/01/23/", "1970/01/02/00/", "1970/01/02/01/"
    ]  # fmt: skip


@pytest.mark.parametrize(("days", "form", "count"), [(7, 4, 171), (8, 3, 9), (400, 3, 401), (401, 1, 2)])
def test_a_long_time_is_listed_by_the_day_or_the_year(days: int, form: int, count: int) -> None:
    found = prefixes(HOUR, HOUR + days * 24 * HOUR)

    assert (len(found), {name.count("/") for name in found}) == (count, {form})
    assert found == sorted(set(found))
