"""A bundle is read with few requests, and whatever is wrong with it is found and named."""

import gc
import gzip
import hashlib
import io
import json
import random
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import fsspec  # type: ignore[import-untyped]
import pytest
from pydantic import ValidationError

from aggregator.bundles.bundle import WINDOW, Bundle
from aggregator.bundles.footer import MAX_INDEX_SIZE, TAIL_SIZE
from aggregator.bundles.index import Member
from aggregator.bundles.layout import (
    BLOCK_SIZE,
    EXTRA_SIZE,
    FOOTER,
    FOOTER_ID,
    FOOTER_SIZE,
    HEADER,
    INDEX_ID,
    MAGIC,
    empty_member,
)
from aggregator.exceptions import BundleFormatError, BundleVersionError, ClosedBundleError, OpeningError
from aggregator.pipeline.core import FetchedObject, Packer, empty_bundle
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef

Change = Callable[[dict[str, Any]], object]
Framing = Literal["lines", "none"]

MEMBERS = [b"a\n", b"bb", b"", random.Random(1).randbytes(BLOCK_SIZE), b"c" * 1_000, b'{"d": 4}']

NO_BUNDLE = "not a bundle: header and footer are missing"
TRUNCATED = "truncated (or plain gzip that never was a bundle): it begins as a bundle and has no footer"
FOOTER_DAMAGED = "the footer is damaged"
ADDED = "bytes were added after the footer"
NO_FIT = "the footer does not fit the file: bytes were lost or added"
UNREADABLE = "the index cannot be read"
DISAGREE = "the columns of the index do not agree"
OTHER_SIZE = "the index does not have the size that the footer names"
OTHER_LENGTH = "the index does not have the length that the footer names"
TOO_MANY = "the index claims more than its bytes can hold"
INDEX_DAMAGED = "the index is damaged"
OTHER_SHA = "the bytes do not have the SHA-256 that the footer names"
OTHER_CRC = "a member does not have the CRC that the index names"
GAP = "members overlap, or leave a gap"
BEHIND = "a member starts after the end of the text"
OTHER_END = "the text does not end where the index begins"
OTHER_TEXT = "the text is not what the gzip trailer and the index say"
OTHER_HEADER = "the gzip header is not a bundle's"
NO_BLOCK = "a block does not inflate"
OTHER_MEMBER = "a member is not what the index says"


@pytest.fixture(scope="module")
def bundle(executor: Executor) -> bytes:
    """A bundle of `MEMBERS`, two blocks long."""
    return _pack(MEMBERS, executor)


@pytest.fixture(scope="module")
def small(executor: Executor) -> bytes:
    """A bundle so small that every bit of it can be turned."""
    return _pack([b"a\n", b"bb"], executor)


@pytest.fixture(scope="module")
def large(executor: Executor) -> bytes:
    """A bundle whose index is longer than the tail."""
    randoms = random.Random(4)
    return _pack([b"%032x" % randoms.getrandbits(128) for _ in range(4_000)], executor)


# Opening


@pytest.mark.parametrize("kind", [str, Path])
def test_a_bundle_is_opened_from_a_path(kind: Callable[[str], str | Path], tmp_path: Path, bundle: bytes) -> None:
    (tmp_path / "bundle.gz").write_bytes(bundle)

    with Bundle.open(kind(str(tmp_path / "bundle.gz"))) as opened:
        texts = [opened[key] for key in ("in/0.json", "in/5.json")]

    assert texts == [MEMBERS[0], MEMBERS[5]]


def test_a_bundle_is_opened_from_a_file_wherever_it_stands(bundle: bytes) -> None:
    file = io.BytesIO(bundle)
    file.seek(17)

    with Bundle.open(file) as opened:
        text = opened["in/4.json"]

    assert (text, opened.size) == (MEMBERS[4], len(bundle))


def test_a_bundle_is_opened_from_anything_that_reads_at_an_offset(bundle: bytes) -> None:
    closed: list[bool] = []

    with Bundle(lambda at, length: bundle[at : at + length], len(bundle), close=lambda: closed.append(True)) as opened:
        opened.verify()

    assert closed == [True]


def test_a_file_that_we_opened_is_closed_on_the_way_out(tmp_path: Path, bundle: bytes) -> None:
    (tmp_path / "bundle.gz").write_bytes(bundle)

    with Bundle.open(tmp_path / "bundle.gz") as opened:
        assert opened["in/0.json"] == MEMBERS[0]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gc.collect()
    assert caught == []


@pytest.mark.parametrize(
    "read", [Bundle.verify, lambda opened: opened["in/0.json"], lambda opened: list(opened.chunks(opened.entries[1]))]
)
def test_a_closed_bundle_is_asked_for_its_index_alone(read: Callable[[Bundle], object], bundle: bytes) -> None:
    with Bundle.open(io.BytesIO(bundle)) as opened:
        read(opened)

    assert len(list(opened)) == len(MEMBERS)
    with pytest.raises(ClosedBundleError):
        read(opened)


def test_threads_share_one_bundle(executor: Executor) -> None:
    randoms = random.Random(5)
    members = [randoms.randbytes(BLOCK_SIZE // 3) for _ in range(60)]
    opened = Bundle.open(io.BytesIO(_pack(members, executor)))

    with ThreadPoolExecutor(8) as threads:
        for order in (opened.entries, opened.entries[::-1], opened.entries[::7]):
            assert list(threads.map(opened.read, order)) == [members[opened.entries.index(entry)] for entry in order]


def test_a_file_that_was_given_stays_open(bundle: bytes) -> None:
    file = io.BytesIO(bundle)

    with Bundle.open(file):
        pass

    assert not file.closed


def test_a_file_that_is_no_bundle_is_closed_at_once(tmp_path: Path) -> None:
    (tmp_path / "bundle.gz").write_bytes(gzip.compress(bytes(1_000)))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(BundleFormatError):
            Bundle.open(tmp_path / "bundle.gz")
        gc.collect()

    assert [str(warning.message) for warning in caught] == []


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Bundle.open(tmp_path / "missing.gz")


# Reading


def test_the_members_come_in_their_order_with_all_that_is_known_of_them(executor: Executor) -> None:
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=1, framing="lines", executor=executor)
    packer.add(FetchedObject(ObjectRef("one", "a"), 5, "e1", "v1"), [b"hello"])
    packer.add(FetchedObject(ObjectRef("two", "é"), 30, None, None, gzipped=True), [bytes(BLOCK_SIZE)])
    packer.add(FetchedObject(ObjectRef("one", "c"), 1, "e3"), [b"c"])
    packed = packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))

    opened = Bundle.open(spool)

    second = len(HEADER) + packed.index.blocks[0]
    assert opened.index == packed.index
    assert list(opened) == [
        Member("one", "a", "v1", "e1", 5, None, 0, 5, zlib.crc32(b"hello"), len(HEADER), 0),
        Member("two", "é", None, None, 30, "gzip", 6, BLOCK_SIZE, zlib.crc32(bytes(BLOCK_SIZE)), len(HEADER), 6),
        Member("one", "c", None, "e3", 1, None, BLOCK_SIZE + 7, 1, zlib.crc32(b"c"), second, 7),
    ]


@pytest.mark.parametrize("framing", ["lines", "none"])
@pytest.mark.parametrize("level", [0, 1, 6])
def test_every_member_is_read_back_from_the_blocks_it_lies_in(framing: Framing, level: int, executor: Executor) -> None:
    randoms = random.Random(level)
    sizes = [1, BLOCK_SIZE - 2, BLOCK_SIZE, 3 * BLOCK_SIZE + 1, 5, BLOCK_SIZE - 5, 2 * BLOCK_SIZE, 77]
    members = [randoms.randbytes(size) for size in sizes]

    opened = Bundle.open(io.BytesIO(_pack(members, executor, framing=framing, level=level)))

    assert [opened.read(entry) for entry in opened] == members
    opened.verify()


@pytest.mark.parametrize(
    "members",
    [
        [b""],
        [b"", b"a"],
        [b"a\n", b""],
        [b"a", b"", b"b"],
        [b"a" * BLOCK_SIZE, b""],
        [b"a" * BLOCK_SIZE, b"", b"b"],
    ],
    ids=["alone", "first", "last", "between", "behind a block", "before a block"],
)
def test_an_empty_member_reads_as_nothing_wherever_it_lies(members: list[bytes], executor: Executor) -> None:
    opened = Bundle.open(io.BytesIO(_pack(members, executor, framing="none")))

    assert [opened.read(entry) for entry in opened] == members
    opened.verify()


def test_a_bundle_knows_how_many_members_it_has(bundle: bytes) -> None:
    opened = Bundle.open(io.BytesIO(bundle))

    assert len(opened) == len(list(opened)) == len(MEMBERS)
    assert not opened.is_fence


def test_a_bundle_without_members_has_none_and_says_what_it_is_for() -> None:
    opened = Bundle.open(io.BytesIO(empty_bundle("b.gz", 0, "r")))

    opened.verify()
    assert (len(opened), list(opened), opened.is_fence) == (0, [], True)


def test_of_several_versions_under_one_key_the_last_is_read(executor: Executor) -> None:
    data = _pack([b"first", b"other", b"last"], executor, keys=["a", "b", "a"])

    opened = Bundle.open(io.BytesIO(data))

    assert (opened["a"], opened["b"]) == (b"last", b"other")
    assert [opened.read(entry) for entry in opened] == [b"first", b"other", b"last"]


def test_a_member_is_told_from_others_of_its_key_by_bucket_and_version(executor: Executor) -> None:
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=1, framing="lines", executor=executor)
    for bucket, version in (("one", "v1"), ("one", "v2"), ("two", "v1"), ("two", None)):
        packer.add(FetchedObject(ObjectRef(bucket, "a"), 1, "e", version), [b"a"])
    packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))
    opened = Bundle.open(spool)

    found = [opened.entry("a", bucket="one"), opened.entry("a", version_id="v1"), opened.entry("a")]

    assert [opened.entries.index(entry) for entry in found] == [1, 2, 3]
    assert opened.entry("a", bucket="one", version_id="v1") == opened.entries[0]
    with pytest.raises(KeyError):
        opened.entry("a", bucket="two", version_id="v2")


@pytest.mark.parametrize("key", ["", "in/0", "in/0.json ", "IN/0.json"])
def test_a_key_that_no_member_has_is_a_key_error(key: str, bundle: bytes) -> None:
    opened = Bundle.open(io.BytesIO(bundle))

    with pytest.raises(KeyError) as caught:
        opened[key]

    assert caught.value.args == (key,)


def test_the_index_costs_one_read_and_each_block_another(bundle: bytes) -> None:
    fetches: list[tuple[int, int]] = []
    opened = _counted(bundle, fetches)
    blocks = opened.index.blocks

    texts = [opened.read(entry) for entry in opened]

    first, second = (len(HEADER), blocks[0]), (len(HEADER) + blocks[0], blocks[1])
    assert texts == MEMBERS
    assert fetches == [(len(bundle) - TAIL_SIZE, TAIL_SIZE), first, second]


def test_an_empty_member_costs_no_read(executor: Executor) -> None:
    fetches: list[tuple[int, int]] = []
    data = _pack([b"", b"a"], executor)
    opened = _counted(data, fetches)

    text = opened["in/0.json"]

    assert (text, fetches) == (b"", [(0, len(data))])


def test_a_member_that_fills_its_block_costs_no_other_block(executor: Executor) -> None:
    fetches: list[tuple[int, int]] = []
    opened = _counted(_pack([bytes(BLOCK_SIZE), bytes(BLOCK_SIZE), b"."], executor, framing="none"), fetches)
    blocks = opened.index.blocks

    texts = [opened.read(entry) for entry in opened.entries[:2]]

    assert texts == [bytes(BLOCK_SIZE)] * 2
    assert fetches[1:] == [(len(HEADER), blocks[0]), (len(HEADER) + blocks[0], blocks[1])]


def test_an_index_longer_than_the_tail_costs_one_read_more(large: bytes) -> None:
    fetches: list[tuple[int, int]] = []
    opened = _counted(large, fetches)
    entry = opened.entries[1_777]

    text = opened.read(entry)

    at = len(HEADER) + sum(opened.index.blocks) + len(b"\x03\x00") + 8
    assert len(text) == 32
    assert fetches == [
        (len(large) - TAIL_SIZE, TAIL_SIZE),
        (at, len(large) - TAIL_SIZE - at),
        (len(HEADER), opened.index.blocks[0]),
    ]


def test_a_bundle_smaller_than_the_tail_is_read_once(small: bytes) -> None:
    fetches: list[tuple[int, int]] = []

    _counted(small, fetches)

    assert fetches == [(0, len(small))]


def test_an_index_longer_than_the_tail_is_read_whole(large: bytes) -> None:
    opened = Bundle.open(io.BytesIO(large))

    opened.verify()
    randoms = random.Random(4)
    expected = [b"%032x" % randoms.getrandbits(128) for _ in range(4_000)]
    assert [opened.read(entry) for entry in opened.entries[::500]] == expected[::500]


def test_a_member_comes_a_block_at_a_time_and_is_proven_by_the_end(executor: Executor) -> None:
    data = _pack([b"a", random.Random(2).randbytes(3 * BLOCK_SIZE)], executor)
    opened = Bundle.open(io.BytesIO(data))

    chunks = list(opened.chunks(opened.entry("in/1.json")))

    assert [len(chunk) for chunk in chunks] == [BLOCK_SIZE - 2, BLOCK_SIZE, BLOCK_SIZE, 2]
    assert b"".join(chunks) == random.Random(2).randbytes(3 * BLOCK_SIZE)


def test_the_last_chunk_of_a_wrong_member_is_kept_back(executor: Executor) -> None:
    data = _pack([random.Random(2).randbytes(2 * BLOCK_SIZE)], executor)
    opened = Bundle.open(io.BytesIO(_with_bit_turned(data, 8 * 1_000)))
    chunks = opened.chunks(opened.entries[0])

    first = next(chunks)

    assert len(first) == BLOCK_SIZE
    with pytest.raises(BundleFormatError, match=OTHER_MEMBER):
        next(chunks)


def test_members_in_front_of_a_damaged_place_are_still_read(executor: Executor) -> None:
    members = [b"%d" % number * 5_000 for number in range(10)]
    data = _pack(members, executor)
    end = len(HEADER) + Bundle.open(io.BytesIO(data)).index.blocks[0]
    opened = Bundle.open(io.BytesIO(data[: end - 40] + b"\xff" * 40 + data[end:]))

    assert opened["in/0.json"] == members[0]
    with pytest.raises(BundleFormatError):
        opened["in/9.json"]


def test_all_members_cost_one_pass_over_the_file(executor: Executor) -> None:
    randoms = random.Random(3)
    members = [randoms.randbytes(randoms.randrange(BLOCK_SIZE)) for _ in range(100)]
    data = _pack(members, executor)
    fetches: list[tuple[int, int]] = []
    opened = _counted(data, fetches)

    texts = [b"".join(chunks) for _, chunks in opened.walk()]

    assert texts == members
    assert sum(length for _, length in fetches) < 1.05 * len(data)
    assert len(fetches) == 1 + 2  # the tail, and two windows


def test_members_far_apart_are_read_apart(executor: Executor) -> None:
    data = _pack([random.Random(n).randbytes(BLOCK_SIZE) for n in range(9)], executor)
    fetches: list[tuple[int, int]] = []
    opened = _counted(data, fetches)
    wanted = [opened.entries[7], opened.entries[1], opened.entries[2]]

    walked = [(entry.key, len(b"".join(chunks))) for entry, chunks in opened.walk(wanted)]

    assert walked == [("in/1.json", BLOCK_SIZE), ("in/2.json", BLOCK_SIZE), ("in/7.json", BLOCK_SIZE)]
    assert [at // BLOCK_SIZE for at, _ in fetches[1:]] == [1, 7]


def test_a_member_of_64_mb_is_read_in_bounded_memory(executor: Executor, tmp_path: Path) -> None:
    with (tmp_path / "large.gz").open("w+b") as spool:
        packer = Packer(spool, limit=10**9, level=1, framing="lines", executor=executor)
        packer.add(
            FetchedObject(ObjectRef("source", "large"), 64 << 20),
            (random.Random(n).randbytes(1 << 20) for n in range(64)),
        )
        packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))
    opened = Bundle.open(tmp_path / "large.gz")

    tracemalloc.start()
    length = sum(len(chunk) for chunk in opened.chunks(opened.entry("large")))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    opened.close()

    assert (length, peak < 2.5 * WINDOW) == (64 << 20, True)


def test_a_key_is_asked_for_like_in_any_mapping(bundle: bytes) -> None:
    opened = Bundle.open(io.BytesIO(bundle))

    assert ("in/0.json" in opened, "in/9.json" in opened, opened.entry("in/1.json").length) == (True, False, 2)


def test_a_file_that_gives_less_than_it_is_asked_for_is_read_all_the_same(bundle: bytes) -> None:
    class Trickling(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 1_000))

    with Bundle.open(Trickling(bundle)) as opened:
        opened.verify()

        assert [opened.read(entry) for entry in opened] == MEMBERS


def test_a_url_is_opened_with_fsspec(bundle: bytes) -> None:
    with fsspec.open("memory://reader/bundle.gz", "wb") as file:
        file.write(bundle)

    with Bundle.open("memory://reader/bundle.gz") as opened:
        opened.verify()

    with fsspec.open("memory://reader/bundle.gz", "rb") as file, Bundle.open(file) as opened:
        assert opened["in/5.json"] == MEMBERS[5]


@pytest.mark.parametrize("url", ["nowhere://bundle.gz", "s3://", "s3:///key"])
def test_a_url_that_nobody_knows_is_named(url: str) -> None:
    with pytest.raises(OpeningError) as caught:
        Bundle.open(url)

    assert caught.value.facts == {"url": url}


def test_what_a_url_takes_and_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "aggregator.aws", raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)

    with pytest.raises(OpeningError, match="read with boto3, which is not installed"):
        Bundle.open("s3://bucket/key")
    with pytest.raises(OpeningError, match="a URL like this is read with fsspec, which is not installed"):
        Bundle.open("gs://bucket/key")


# Damage by chance


def test_every_bit_of_a_small_bundle_is_guarded(small: bytes) -> None:
    unseen = [bit for bit in range(8 * len(small)) if _fault(_with_bit_turned(small, bit)) is None]

    assert unseen == []


def test_300_random_bits_of_a_bundle_are_guarded(bundle: bytes) -> None:
    bits = random.Random(20_261_123).sample(range(8 * len(bundle)), 300)

    assert [bit for bit in bits if _fault(_with_bit_turned(bundle, bit)) is None] == []


def test_random_bits_of_an_index_longer_than_the_tail_are_guarded(large: bytes) -> None:
    begin = len(large) - 2 * TAIL_SIZE
    bits = random.Random(20_261_123).sample(range(8 * begin, 8 * len(large)), 100)

    assert [bit for bit in bits if _fault(_with_bit_turned(large, bit)) is None] == []


def test_a_bundle_is_called_truncated_wherever_it_is_cut_off(small: bytes) -> None:
    faults = {_opening_fault(small[:length]) for length in range(1, len(small))}

    assert faults == {TRUNCATED}


def test_a_large_bundle_is_called_truncated_wherever_it_is_cut_off(large: bytes) -> None:
    lengths = random.Random(1).sample(range(1_000, len(large)), 200)

    assert {_opening_fault(large[:length]) for length in lengths} == {TRUNCATED}


@pytest.mark.parametrize("size", [1, 2, 1_000, TAIL_SIZE])
def test_a_bundle_without_its_first_bytes_is_refused(size: int, bundle: bytes) -> None:
    assert _opening_fault(bundle[size:]) == NO_FIT


@pytest.mark.parametrize("more", [b"\x00", b"\n", bytes(FOOTER_SIZE), bytes(TAIL_SIZE - FOOTER_SIZE)])
def test_a_bundle_with_bytes_behind_it_is_refused(more: bytes, bundle: bytes) -> None:
    assert _opening_fault(bundle + more) == ADDED


def test_a_bundle_with_more_bytes_behind_it_than_are_looked_at_is_refused(bundle: bytes) -> None:
    assert _opening_fault(bundle + bytes(TAIL_SIZE)) == TRUNCATED


def test_a_footer_with_any_bit_turned_is_called_damaged(bundle: bytes) -> None:
    sizes = range(8 * (len(bundle) - FOOTER_SIZE), 8 * len(bundle))

    faults = {_fault(_with_bit_turned(bundle, bit)) for bit in sizes}

    assert faults == {FOOTER_DAMAGED, NO_FIT, OTHER_LENGTH, OTHER_SIZE, UNREADABLE, OTHER_SHA}


@pytest.mark.parametrize("more", [b"\x00", b"\n", bytes(TAIL_SIZE + 1)])
def test_a_bundle_with_bytes_in_front_of_it_is_refused(more: bytes, bundle: bytes) -> None:
    assert _opening_fault(more + bundle) == NO_FIT


def test_two_bundles_in_one_file_are_refused(small: bytes, bundle: bytes) -> None:
    assert _opening_fault(small + bundle) == NO_FIT


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", NO_BUNDLE),
        (b"plain text", NO_BUNDLE),
        (b"plain text\n" * 100, NO_BUNDLE),
        (gzip.compress(random.Random(1).randbytes(1_000)), NO_BUNDLE),
        (gzip.compress(bytes(1_000)) + empty_member(FOOTER_ID, bytes(FOOTER.size)), FOOTER_DAMAGED),
        (gzip.compress(bytes(1_000)) + empty_member(INDEX_ID, MAGIC + bytes(FOOTER.size - len(MAGIC))), NO_BUNDLE),
        (bytes(TAIL_SIZE + 1), NO_BUNDLE),
    ],
    ids=["nothing", "short text", "text", "plain gzip", "no magic", "another name", "zeros"],
)
def test_what_is_no_bundle_is_refused(data: bytes, fault: str) -> None:
    assert _opening_fault(data) == fault


def test_a_refusal_says_how_long_the_file_is() -> None:
    with pytest.raises(BundleFormatError) as caught:
        Bundle.open(io.BytesIO(b"plain text"))

    assert caught.value.facts == {"size": 10}


def test_a_bundle_that_is_written_again_bit_by_bit_verifies(bundle: bytes) -> None:
    again = _rewritten(bundle)

    opened = Bundle.open(io.BytesIO(again))

    opened.verify()
    assert [opened.read(entry) for entry in opened] == MEMBERS


# A footer that lies


@pytest.mark.parametrize(
    ("lie", "fault"),
    [
        ({"at": 0}, NO_FIT),
        ({"at": 2**64 - 1}, NO_FIT),
        ({"length": 0}, NO_FIT),
        ({"length": 2**64 - 1}, NO_FIT),
        ({"deflated": 0}, OTHER_LENGTH),
        ({"deflated": 2**64 - 1}, OTHER_LENGTH),
        ({"inflated": 1}, UNREADABLE),
        ({"inflated": MAX_INDEX_SIZE}, OTHER_SIZE),
        ({"inflated": MAX_INDEX_SIZE + 1}, NO_FIT),
        ({"inflated": 2**32 - 1}, NO_FIT),
    ],
)
def test_a_footer_that_lies_is_named(lie: dict[str, int], fault: str, bundle: bytes) -> None:
    assert _opening_fault(_rewritten(bundle, footer=lambda fields: fields.update(lie))) == fault


def test_a_footer_that_moves_the_index_is_named(bundle: bytes) -> None:
    def moved(fields: dict[str, Any]) -> None:
        fields["at"] -= 1
        fields["length"] += 1

    assert _opening_fault(_rewritten(bundle, footer=moved)) == INDEX_DAMAGED


def test_a_footer_that_claims_all_of_the_file_as_index_is_named(large: bytes) -> None:
    def moved(fields: dict[str, Any]) -> None:
        fields["at"], fields["length"] = 0, fields["at"] + fields["length"]

    assert _opening_fault(_rewritten(large, footer=moved)) == INDEX_DAMAGED


def test_a_footer_with_another_sha_256_is_named_by_verify(bundle: bytes) -> None:
    lying = _rewritten(bundle, footer=lambda fields: fields.update(sha256=bytes(32)))

    assert _fault(lying) == OTHER_SHA


def test_an_index_larger_than_the_footer_says_is_inflated_no_further(small: bytes) -> None:
    bomb = _with_index(small, b" " * 20_000_000, footer=lambda fields: fields.update(inflated=1_000))

    assert _opening_fault(bomb) == UNREADABLE


# An index that lies


@pytest.mark.parametrize(
    "text",
    [b"", b"nonsense", b"[]", b"null", b"{}", b'{"format": "aggregator-bundle"}', b"\xff", b'{"a": "\xed\xa0\x80"}'],
)
def test_an_index_that_is_none_is_named(text: bytes, small: bytes) -> None:
    assert _opening_fault(_with_index(small, text)) == UNREADABLE


@pytest.mark.parametrize(
    "lie",
    [
        {"format": "zip"},
        {"format": "zip", "version": 2},
        {"version": 0},
        {"version": True},
        {"version": None},
        {"created": "yesterday"},
        {"created": "../../../../x-y-z:1"},
        {"created": "2026-11-23T16:00:00"},
        {"created": "2026-11-23T16:00:00Z\n"},
        {"framing": "words"},
        {"text_size": -1},
        {"block_size": 0},
        {"blocks": [-1]},
        {"blocks": None},
        {"buckets": "source"},
        {"members": None},
        {"members": {}},
    ],
)
def test_an_index_with_a_wrong_field_is_named(lie: dict[str, object], small: bytes) -> None:
    with pytest.raises(BundleFormatError, match=UNREADABLE) as caught:
        Bundle.open(io.BytesIO(_rewritten(small, index=lambda fields: fields.update(lie))))

    assert str(caught.value.facts["field"]).split(".")[0] == next(iter(lie))


def test_an_index_of_a_later_version_is_no_damage_and_asks_for_an_upgrade(small: bytes) -> None:
    later = _rewritten(small, index=lambda fields: fields.update(version=2, created=None, members=[]))

    with pytest.raises(BundleVersionError) as caught:
        Bundle.open(io.BytesIO(later))

    assert str(caught.value) == (
        "the bundle is of a later version than this reader knows: upgrade (version=2, known=1)"
    )


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00", "a\\ud83d!"])
def test_a_key_with_half_a_character_is_refused_before_anything_is_listed(half: str, small: bytes) -> None:
    text = json.dumps(Bundle.open(io.BytesIO(small)).index.model_dump()).replace("in/0.json", half)

    assert _opening_fault(_with_index(small, text.encode())) == UNREADABLE


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("bucket", -1),
        ("key", None),
        ("version_id", 1),
        ("etag", 1),
        ("size", -1),
        ("encoding", "br"),
        ("start", -1),
        ("length", -1),
        ("crc32", 2**32),
        ("crc32", -1),
    ],
)
def test_a_wrong_value_in_a_column_is_named(column: str, value: object, small: bytes) -> None:
    def wrong(fields: dict[str, Any]) -> None:
        fields["members"][column][-1] = value

    assert _opening_fault(_rewritten(small, index=wrong)) == UNREADABLE


COLUMNS = ["bucket", "key", "version_id", "etag", "size", "encoding", "start", "length", "crc32"]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_too_short_is_named(column: str, bundle: bytes) -> None:
    assert _opening_fault(_rewritten(bundle, index=lambda fields: fields["members"][column].pop())) == DISAGREE


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_too_long_is_named(column: str, bundle: bytes) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["members"][column].append(fields["members"][column][0])

    assert _opening_fault(_rewritten(bundle, index=longer)) == DISAGREE


def test_a_bucket_that_is_not_listed_is_named(bundle: bytes) -> None:
    assert _opening_fault(_rewritten(bundle, index=lambda fields: fields["buckets"].pop())) == DISAGREE


def test_fields_of_a_later_version_are_ignored(bundle: bytes) -> None:
    later = _rewritten(bundle, index=lambda fields: fields.update(colour="blue"))

    assert _fault(later) is None


@pytest.mark.parametrize(
    ("members", "fault"), [(len(MEMBERS), None), (len(MEMBERS) - 1, DISAGREE), (-1, UNREADABLE), ("x", UNREADABLE)]
)
def test_origins_that_do_not_account_for_every_member_are_named(
    members: object, fault: str | None, bundle: bytes
) -> None:
    origin = {"bundle": "b", "created": "c", "request_id": "r", "sha256": "s", "members": members}

    assert _fault(_rewritten(bundle, index=lambda fields: fields.update(repacked=[origin]))) == fault


@pytest.mark.parametrize(
    ("column", "at", "by", "fault"),
    [
        ("start", 1, -1, GAP),
        ("start", 1, 1, OTHER_CRC),
        ("start", 5, 1, GAP),
        ("start", 5, 100, GAP),
        ("start", 5, 2**40, GAP),
        ("start", 2, -2, GAP),
        ("length", 1, -1, OTHER_CRC),
        ("length", 1, 1, OTHER_CRC),
        ("length", 2, 1, OTHER_CRC),
        ("length", 5, 2, BEHIND),
        ("length", 5, 2**40, BEHIND),
        ("crc32", 0, 1, OTHER_CRC),
        ("crc32", 3, 1, OTHER_CRC),
        ("crc32", 5, -1, OTHER_CRC),
    ],
)
def test_a_member_that_is_not_where_the_index_says_is_named(
    column: str, at: int, by: int, fault: str, bundle: bytes
) -> None:
    def moved(fields: dict[str, Any]) -> None:
        fields["members"][column][at] += by

    assert _fault(_rewritten(bundle, index=moved)) == fault


@pytest.mark.parametrize("at", [1, 3, 4])
def test_text_between_members_that_belongs_to_none_is_named(at: int, bundle: bytes) -> None:
    assert _fault(_rewritten(bundle, index=lambda fields: _drop(fields, at))) == GAP


@pytest.mark.parametrize(("left", "right"), [(3, 4), (4, 5), (0, 5)])
def test_members_in_another_order_are_named(left: int, right: int, bundle: bytes) -> None:
    def swapped(fields: dict[str, Any]) -> None:
        for column in fields["members"].values():
            column[left], column[right] = column[right], column[left]

    assert _fault(_rewritten(bundle, index=swapped)) in {GAP, OTHER_CRC}


def test_a_member_that_is_listed_twice_is_named(bundle: bytes) -> None:
    def doubled(fields: dict[str, Any]) -> None:
        for column in fields["members"].values():
            column.insert(3, column[3])

    assert _fault(_rewritten(bundle, index=doubled)) == GAP


@pytest.mark.parametrize("by", [-1, 1])
def test_another_size_of_the_text_is_named(by: int, bundle: bytes) -> None:
    def resized(fields: dict[str, Any]) -> None:
        fields["text_size"] += by

    assert _fault(_rewritten(bundle, index=resized)) == OTHER_TEXT


@pytest.mark.parametrize("change", [lambda blocks: blocks.append(5), lambda blocks: blocks.pop()])
def test_blocks_that_do_not_end_where_the_text_does_are_named(
    change: Callable[[list[int]], object], bundle: bytes
) -> None:
    assert _fault(_rewritten(bundle, index=lambda fields: change(fields["blocks"]))) is not None


@pytest.mark.parametrize("by", [-1, 1, 7])
def test_a_last_block_of_another_length_is_named(by: int, bundle: bytes) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["blocks"][-1] += by

    assert _fault(_rewritten(bundle, index=longer)) == OTHER_END


@pytest.mark.parametrize(
    ("column", "value"), [("start", 0), ("start", 2**40), ("length", 1), ("length", 2**40), ("crc32", 0)]
)
def test_a_member_is_not_handed_out_where_it_is_not_what_the_index_says(column: str, value: int, bundle: bytes) -> None:
    def moved(fields: dict[str, Any]) -> None:
        fields["members"][column][4] = value

    with pytest.raises(BundleFormatError) as caught:
        Bundle.open(io.BytesIO(_rewritten(bundle, index=moved)))["in/4.json"]

    assert (caught.value.args, caught.value.facts) == ((OTHER_MEMBER,), {"key": "in/4.json"})


def test_a_member_is_not_handed_out_where_it_is_shorter_than_the_index_says(executor: Executor) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["members"]["length"][-1] += 1

    data = _pack([b"a", b"b"], executor, framing="none")

    with pytest.raises(BundleFormatError, match=OTHER_MEMBER):
        Bundle.open(io.BytesIO(_rewritten(data, index=longer)))["in/1.json"]


# Text that is not what was packed, under a SHA-256 that is right


@pytest.mark.parametrize(
    ("at", "fault"),
    [
        (0, OTHER_HEADER),
        (9, OTHER_HEADER),
        (-10, OTHER_END),
        (-8, OTHER_TEXT),
        (-5, OTHER_TEXT),
        (-4, OTHER_TEXT),
        (-1, OTHER_TEXT),
    ],
)
def test_a_header_or_trailer_that_is_wrong_under_a_right_sha_256_is_named(at: int, fault: str, bundle: bytes) -> None:
    index_at = len(HEADER) + sum(Bundle.open(io.BytesIO(bundle)).index.blocks) + 2 + 8
    place = at % index_at

    assert _fault(_rewritten(_with_bit_turned(bundle, 8 * place))) == fault


def test_a_changed_byte_of_a_member_under_a_right_sha_256_is_named(bundle: bytes) -> None:
    place = bundle.index(MEMBERS[3][1_000:1_020])

    changed = _rewritten(_with_bit_turned(bundle, 8 * place))

    assert _fault(changed) == OTHER_CRC
    with pytest.raises(BundleFormatError, match=OTHER_MEMBER):
        Bundle.open(io.BytesIO(changed))["in/3.json"]


def test_a_block_that_does_not_inflate_is_named_with_its_place(bundle: bytes) -> None:
    damaged = bundle[: len(HEADER)] + b"\xff" * 64 + bundle[len(HEADER) + 64 :]

    with pytest.raises(BundleFormatError) as caught:
        Bundle.open(io.BytesIO(damaged))["in/1.json"]

    assert (caught.value.args, caught.value.facts) == ((NO_BLOCK,), {"key": "in/1.json", "offset": len(HEADER)})


@pytest.mark.parametrize("at", [0, -1])
def test_text_before_the_first_member_or_behind_the_last_is_named(at: int, bundle: bytes) -> None:
    assert _fault(_rewritten(bundle, index=lambda fields: _drop(fields, at))) is not None


def test_a_member_of_one_byte_that_is_not_listed_is_named(executor: Executor) -> None:
    data = _pack([b"a\n", b"b", b"c\n"], executor, framing="none")

    assert _fault(_rewritten(data, index=lambda fields: _drop(fields, 1))) is not None


def test_blocks_that_begin_elsewhere_are_named_by_verify(bundle: bytes) -> None:
    def shifted(fields: dict[str, Any]) -> None:
        fields["blocks"][0] -= 100
        fields["blocks"][1] += 100

    assert _fault(_rewritten(bundle, index=shifted)) is not None


def test_another_size_of_blocks_is_named_by_verify(bundle: bytes) -> None:
    assert _fault(_rewritten(bundle, index=lambda fields: fields.update(block_size=1_000))) is not None


@pytest.mark.parametrize("size", [10**6, 2**45, 2**70])
def test_a_last_block_longer_than_the_file_is_named(size: int, bundle: bytes) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["blocks"][-1] = size

    assert _fault(_rewritten(bundle, index=longer)) is not None


def test_text_that_does_not_inflate_under_a_right_sha_256_is_named(bundle: bytes) -> None:
    damaged = bundle[: len(HEADER)] + b"\xff" * 64 + bundle[len(HEADER) + 64 :]

    assert _fault(_rewritten(damaged)) is not None


@pytest.mark.parametrize("column", ["start", "length"])
def test_a_member_of_2_to_the_70_bytes_is_named(column: str, bundle: bytes) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["members"][column][-1] = 2**70

    opened: Callable[[], Bundle] = lambda: Bundle.open(io.BytesIO(_rewritten(bundle, index=longer)))  # noqa: E731
    with pytest.raises(BundleFormatError):
        opened()[f"in/{len(MEMBERS) - 1}.json"]


def test_an_index_of_200_000_levels_is_named(small: bytes) -> None:
    assert _opening_fault(_with_index(small, b"[" * 200_000)) is not None


def test_an_index_said_to_be_empty_is_not_inflated(small: bytes) -> None:
    bomb = _with_index(small, b" " * 50_000_000, footer=lambda fields: fields.update(inflated=0))

    tracemalloc.start()
    fault = _opening_fault(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (fault, peak < 5_000_000) == (OTHER_SIZE, True)


@pytest.mark.parametrize("bomb", ['"blocks": [%s]', '"later": [%s]', '"later": {"a,b\\"": [%s]}'])
def test_an_index_of_more_values_than_its_bytes_can_hold_is_not_parsed(bomb: str, small: bytes) -> None:
    text = f"{{{bomb % ('0,' * 10_000_000 + '0')}}}".encode()
    data = _with_index(small, text)

    tracemalloc.start()
    fault = _opening_fault(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (fault, len(data) < 25_000, peak < 3 * len(text)) == (TOO_MANY, True, True)


@pytest.mark.parametrize("field", ["blocks", "repacked"])
def test_an_index_of_wrong_values_is_refused_at_the_first_of_them(field: str, small: bytes) -> None:
    """Each costs pydantic some 800 bytes: 77 kB of file took 2.1 GB."""
    index = Bundle.open(io.BytesIO(small)).index.model_dump() | {field: [None] * 90_000}

    with pytest.raises(BundleFormatError, match=UNREADABLE) as caught:
        Bundle.open(io.BytesIO(_with_index(small, json.dumps(index).encode())))

    assert isinstance(caught.value.__cause__, ValidationError)
    assert caught.value.__cause__.error_count() == 1


@pytest.mark.parametrize("prefix", ["", "x" * 1_017, "," * 1_017])
def test_as_many_members_alike_as_a_bundle_holds_are_no_bomb(prefix: str, executor: Executor) -> None:
    keys = [f"{prefix}{number:06}" for number in range(100_000 if not prefix else 20_000)]
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=1, framing="lines", executor=executor)
    for key in keys:
        packer.add(FetchedObject(ObjectRef("source", key), 0, "d41d8cd98f00b204e9800998ecf8427e"), [])
    packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))

    opened = Bundle.open(spool)

    assert [entry.key for entry in opened] == keys


def _pack(
    members: Sequence[bytes],
    executor: Executor,
    *,
    framing: Framing = "lines",
    level: int = 1,
    keys: Sequence[str] | None = None,
) -> bytes:
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=level, framing=framing, executor=executor)
    randoms = random.Random(len(members))
    for n, member in enumerate(members):
        named = ObjectRef("source", keys[n] if keys else f"in/{n}.json")
        packer.add(FetchedObject(named, len(member), f"{randoms.getrandbits(128):032x}"), [member])
    packer.finish(Plan("b.gz", "2026-11-23T11:54:56Z", "r", ()))
    return spool.getvalue()


def _counted(data: bytes, fetches: list[tuple[int, int]]) -> Bundle:
    def fetch(at: int, length: int) -> bytes:
        fetches.append((at, length))
        return data[at : at + length]

    return Bundle(fetch, len(data))


def _opening_fault(data: bytes) -> str:
    with pytest.raises(BundleFormatError) as caught:
        Bundle.open(io.BytesIO(data))
    return str(caught.value.args[0])


def _fault(data: bytes) -> str | None:
    """What opening and verifying find, if anything."""
    try:
        Bundle.open(io.BytesIO(data)).verify()
    except BundleFormatError as error:
        return str(error.args[0])
    return None


def _with_bit_turned(data: bytes, bit: int) -> bytes:
    turned = bytearray(data)
    turned[bit // 8] ^= 1 << bit % 8
    return bytes(turned)


def _unchanged(_: dict[str, Any]) -> None:
    pass


def _rewritten(data: bytes, *, index: Change = _unchanged, footer: Change = _unchanged) -> bytes:
    """The bundle with a changed index, under a footer that is right but for what `footer` changes."""
    fields = Bundle.open(io.BytesIO(data)).index.model_dump(mode="json")
    index(fields)
    return _with_index(data, json.dumps(fields).encode(), footer=footer)


def _with_index(data: bytes, text: bytes, *, footer: Change = _unchanged) -> bytes:
    at = len(HEADER) + sum(Bundle.open(io.BytesIO(data)).index.blocks) + 2 + 8
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    deflated = deflate.compress(text) + deflate.flush()
    extras = [deflated[n : n + EXTRA_SIZE] for n in range(0, len(deflated), EXTRA_SIZE)]
    body = data[:at] + b"".join(empty_member(INDEX_ID, extra) for extra in extras)
    fields: dict[str, Any] = {
        "at": at,
        "length": len(body) - at,
        "deflated": len(deflated),
        "inflated": len(text),
        "sha256": hashlib.sha256(body).digest(),
    }
    footer(fields)
    return body + empty_member(FOOTER_ID, FOOTER.pack(MAGIC, *fields.values()))


def _drop(fields: dict[str, Any], at: int) -> None:
    for column in fields["members"].values():
        del column[at]
