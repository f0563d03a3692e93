"""A bundle is read with few requests, and whatever is wrong with it is found and named."""

import gc
import gzip
import io
import random
import sys
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest

from aggregator.bundles.bundle import WINDOW, Bundle
from aggregator.bundles.footer import TAIL_SIZE
from aggregator.bundles.index import Member
from aggregator.bundles.layout import (
    BLOCK_SIZE,
    HEADER,
)
from aggregator.exceptions import BundleFormatError, ClosedBundleError, OpeningError
from aggregator.pipeline.core import FetchedObject, Packer, empty_bundle
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef
from tests.support.damage import (
    MEMBERS,
    OTHER_MEMBER,
    Framing,
    pack,
    with_bit_turned,
)

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
    opened = Bundle.open(io.BytesIO(pack(members, executor)))

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
    packer.add(FetchedObject(ObjectRef("two", "é"), 30, None, None, encoding="gzip"), [bytes(BLOCK_SIZE)])
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

    opened = Bundle.open(io.BytesIO(pack(members, executor, framing=framing, level=level)))

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
    opened = Bundle.open(io.BytesIO(pack(members, executor, framing="none")))

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
    data = pack([b"first", b"other", b"last"], executor, keys=["a", "b", "a"])

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
    data = pack([b"", b"a"], executor)
    opened = _counted(data, fetches)

    text = opened["in/0.json"]

    assert (text, fetches) == (b"", [(0, len(data))])


def test_a_member_that_fills_its_block_costs_no_other_block(executor: Executor) -> None:
    fetches: list[tuple[int, int]] = []
    opened = _counted(pack([bytes(BLOCK_SIZE), bytes(BLOCK_SIZE), b"."], executor, framing="none"), fetches)
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
    data = pack([b"a", random.Random(2).randbytes(3 * BLOCK_SIZE)], executor)
    opened = Bundle.open(io.BytesIO(data))

    chunks = list(opened.chunks(opened.entry("in/1.json")))

    assert [len(chunk) for chunk in chunks] == [BLOCK_SIZE - 2, BLOCK_SIZE, BLOCK_SIZE, 2]
    assert b"".join(chunks) == random.Random(2).randbytes(3 * BLOCK_SIZE)


def test_the_last_chunk_of_a_wrong_member_is_kept_back(executor: Executor) -> None:
    data = pack([random.Random(2).randbytes(2 * BLOCK_SIZE)], executor)
    opened = Bundle.open(io.BytesIO(with_bit_turned(data, 8 * 1_000)))
    chunks = opened.chunks(opened.entries[0])

    first = next(chunks)

    assert len(first) == BLOCK_SIZE
    with pytest.raises(BundleFormatError, match=OTHER_MEMBER):
        next(chunks)


def test_members_in_front_of_a_damaged_place_are_still_read(executor: Executor) -> None:
    members = [b"%d" % number * 5_000 for number in range(10)]
    data = pack(members, executor)
    end = len(HEADER) + Bundle.open(io.BytesIO(data)).index.blocks[0]
    opened = Bundle.open(io.BytesIO(data[: end - 40] + b"\xff" * 40 + data[end:]))

    assert opened["in/0.json"] == members[0]
    with pytest.raises(BundleFormatError):
        opened["in/9.json"]


def test_all_members_cost_one_pass_over_the_file(executor: Executor) -> None:
    randoms = random.Random(3)
    members = [randoms.randbytes(randoms.randrange(BLOCK_SIZE)) for _ in range(100)]
    data = pack(members, executor)
    fetches: list[tuple[int, int]] = []
    opened = _counted(data, fetches)

    texts = [b"".join(chunks) for _, chunks in opened.walk()]

    assert texts == members
    assert sum(length for _, length in fetches) < 1.05 * len(data)
    assert len(fetches) == 1 + 2  # the tail, and two windows


def test_members_far_apart_are_read_apart(executor: Executor) -> None:
    data = pack([random.Random(n).randbytes(BLOCK_SIZE) for n in range(9)], executor)
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


@pytest.mark.parametrize(
    ("url", "facts"),
    [
        ("nowhere://bundle.gz", {"url": "nowhere://bundle.gz"}),
        ("s3://", {"write": "s3://bucket/key"}),
        ("s3:///key", {"write": "s3://bucket/key"}),
        ("s3:/bucket/key", {"write": "s3://bucket/key"}),
    ],
)
def test_a_url_that_cannot_be_read_is_named_or_the_one_to_write(url: str, facts: dict[str, str]) -> None:
    with pytest.raises(OpeningError) as caught:
        Bundle.open(url)

    assert caught.value.facts == facts


def test_what_a_url_takes_and_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "aggregator.aws", raising=False)
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "fsspec.core", None)

    with pytest.raises(OpeningError, match="read with boto3, which is not installed"):
        Bundle.open("s3://bucket/key")
    with pytest.raises(OpeningError, match="a URL like this is read with fsspec, which is not installed"):
        Bundle.open("gs://bucket/key")


def _counted(data: bytes, fetches: list[tuple[int, int]]) -> Bundle:
    def fetch(at: int, length: int) -> bytes:
        fetches.append((at, length))
        return data[at : at + length]

    return Bundle(fetch, len(data))
