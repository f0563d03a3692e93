"""What indexes say of bundles, added up; and the page that shows it."""

import io
from collections.abc import Mapping
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from aggregator.commands.console import bytes_in_words
from aggregator.operations.statistics import Figures, Measured, Period, Prefix, Sizes, histogram
from aggregator.operations.statistics_page import page
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import planned
from aggregator.reader import Bundle
from aggregator.schemas import ObjectRef

BEGAN = datetime(2026, 11, 23, 7, 59, tzinfo=UTC)


def test_bundles_are_added_up_by_the_hour_and_hours_without_one_are_shown(executor: Executor) -> None:
    figures = Figures(limit=100)
    figures.add(_bundle(executor, BEGAN, {"a/1": b"x" * 49, "a/2": b"x" * 49}))
    figures.add(_bundle(executor, BEGAN + timedelta(hours=2), {"b/3": b"x" * 9}))

    first, nothing, last = figures.periods()

    assert (first.name, first.bundles, first.members, first.text, first.fill) == ("2026-11-23 07:00", 1, 2, 100, 0.98)
    assert nothing == Period("2026-11-23 08:00", 0, 0, 0, 0, None)
    assert (last.name, last.members, last.text, last.fill) == ("2026-11-23 09:00", 1, 10, 0.09)
    assert figures.ratio == 110 / figures.size


def test_an_empty_bundle_is_counted_and_nothing_else(executor: Executor) -> None:
    figures = Figures(limit=100)

    figures.add(_bundle(executor, BEGAN, {}))

    assert (figures.empty, figures.bundles, figures.periods(), figures.sizes()) == (1, [], [], None)
    assert figures.document(10)["fill"] is None


@pytest.mark.parametrize(
    ("span", "unit", "periods"),
    [(timedelta(hours=59), "hour", 60), (timedelta(hours=60), "day", 3), (timedelta(days=60), "month", 3)],
)
def test_time_is_cut_as_finely_as_can_be_read(executor: Executor, span: timedelta, unit: str, periods: int) -> None:
    figures = Figures(limit=100)
    for created in (BEGAN, BEGAN + span):
        figures.add(_bundle(executor, created, {"a": b"1"}))

    assert (figures.unit(), len(figures.periods())) == (unit, periods)
    assert sum(period.bundles for period in figures.periods()) == 2


@pytest.mark.parametrize(
    ("depth", "names"),
    [
        (0, ["s3://source/"]),
        (1, ["s3://source/a/", "s3://source/"]),
        (2, ["s3://source/a/b/", "s3://source/", "s3://source/a/"]),
    ],
)
def test_prefixes_are_counted_to_a_depth(executor: Executor, depth: int, names: list[str]) -> None:
    figures = Figures(limit=100, depth=depth)
    figures.add(_bundle(executor, BEGAN, {"a/b/1": b"1", "a/b/2": b"2", "top": b"3", "a/4": b"4"}))

    assert [prefix.name for prefix in figures.prefixes(10)] == names
    assert figures.prefixes(1) == [Prefix(names[0], 4 - depth, 4 - depth)]


def test_prefixes_with_as_many_members_are_sorted_by_name(executor: Executor) -> None:
    figures = Figures(limit=100)
    figures.add(_bundle(executor, BEGAN, {"b/1": b"1", "a/1": b"1", "c/1": b"1"}))

    assert [prefix.name for prefix in figures.prefixes(2)] == ["s3://source/a/", "s3://source/b/"]


def test_sizes_are_ranked() -> None:
    figures = Figures(limit=1)

    figures.bundles = [Measured(BEGAN, 1, size, size, size, size) for size in range(100, 0, -1)]

    assert figures.sizes() == Sizes(1, 5, 50, 95, 100)


def test_a_histogram_counts_what_lies_below_and_above_its_edges_as_well() -> None:
    assert histogram([-1, 0, 0.5, 1, 1.5, 9], [0, 1, 2]) == [3, 2, 1]


def test_the_page_loads_nothing_and_nests_rightly_whatever_a_key_says(executor: Executor) -> None:
    figures = Figures(limit=1_000)
    hostile = '<script src="https://example.com/x.js">/"><img src=x onerror=alert(1)>'
    for hours in range(30):
        figures.add(_bundle(executor, BEGAN + timedelta(hours=hours), {hostile: b"x" * hours * 30, "a/1": b"1"}))

    text = page(figures, target="s3://<b>", made="now & then", bytes_in_words=bytes_in_words, most=10)

    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.seen.isdisjoint({"script", "img", "link", "iframe", "object", "b"})
    assert tags.attributes.isdisjoint({"src", "href", "onerror"})
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert text.count("<svg") == 5 + 2


def test_the_page_of_no_bundles_is_a_page() -> None:
    text = page(Figures(limit=1), target="s3://b", made="now", bytes_in_words=bytes_in_words, most=10)

    assert text.count("<section>") == 6


class _Tags(HTMLParser):
    """The tags that are open, and those that were seen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _bundle(executor: Executor, created: datetime, members: Mapping[str, bytes]) -> Bundle:
    spool = io.BytesIO()
    packer = Packer(spool, limit=1 << 20, level=1, framing="lines", executor=executor)
    for key, body in members.items():
        packer.add(FetchedObject(ObjectRef("source", key), len(body), "e"), [body])
    packer.finish(planned((), now=created.timestamp(), request_id="r", suffix="s"))
    return Bundle.open(spool)
