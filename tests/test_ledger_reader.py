"""The auditor finds the records and the bundles that the handler wrote, by rules of its own."""

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.audit.ledger_reader import LedgerReader
from aggregator.audit.listings import prefixes
from aggregator.clients import Distribution
from aggregator.ledger import Ledger
from aggregator.schemas import Member

HOUR = 3_600.0


@pytest.mark.parametrize("scope", ["key", "version"])
@given(bucket=st.text(), key=st.text(min_size=1), version=st.none() | st.text(min_size=1), etag=st.none() | st.text())
def test_an_id_is_the_one_that_the_ledger_gives(
    scope: Literal["key", "version"], bucket: str, key: str, version: str | None, etag: str | None
) -> None:
    client: Any = object()  # nothing is asked
    reader = LedgerReader(client, table="t", distribution="d", scope=scope, now=0)
    ledger = Ledger(
        client,
        Distribution(client, "d"),
        table="t",
        scope=scope,
        ttl=1,
        request_id="r",
        remaining=0,
        deciding=0,
        clock=lambda: 0.0,
    )

    ids = reader.ids(bucket, key, version, etag)

    assert ids[0] == ledger.identity(Member(bucket, key, None, etag, version))
    assert set(ids) == {
        ledger.identity(Member(bucket, key, None, *told)) for told in ((etag, version), (etag, None), (None, None))
    }


def test_the_prefixes_of_a_time_are_its_hours_and_one_on_either_side() -> None:
    assert prefixes(23 * HOUR, 24 * HOUR + 1) == [
        "1970/01/01/22/", "1970/01/01/23/", "1970/01/02/00/", "1970/01/02/01/"
    ]  # fmt: skip


@pytest.mark.parametrize(("days", "form", "count"), [(7, 4, 171), (8, 3, 9), (400, 3, 401), (401, 1, 2)])
def test_a_long_time_is_listed_by_the_day_or_the_year(days: int, form: int, count: int) -> None:
    found = prefixes(HOUR, HOUR + days * 24 * HOUR)

    assert (len(found), {name.count("/") for name in found}) == (count, {form})
    assert found == sorted(set(found))
