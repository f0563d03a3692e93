"""Bytes: what is packed is what comes out, whatever fails on the way."""

import gzip
import hashlib
import io
import random
import zlib
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.bundles.index import BundleIndex, MemberColumns
from aggregator.bundles.layout import BLOCK_SIZE, END, HEADER
from aggregator.exceptions import (
    CorruptMemberError,
    OutOfTimeError,
    StoreUnavailableError,
)
from aggregator.pipeline.core import FetchedObject, Packed, compressor, empty_bundle
from aggregator.pipeline.decoding import Chunk, decoded
from aggregator.pipeline.planning import Plan, Wanted
from aggregator.reader import Bundle
from aggregator.schemas import ObjectRef
from tests.support.packing import (
    FRAMINGS,
    PLAN,
    SOURCE,
    TEXT,
    Framing,
    counted,
    cut,
    every_framing,
    failing,
    gzip_members,
    new_packer,
    pack,
    source,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LEVELS = range(10)
NOVEMBER_2026 = 1_795_434_896.789

PROPERTY = settings(deadline=None, derandomize=True, max_examples=100)

every_level = pytest.mark.parametrize("level", LEVELS)


# Sources that are gzip


@pytest.mark.parametrize(
    "data",
    [
        gzip.compress(TEXT),
        gzip.compress(TEXT[:100_000]) + gzip.compress(b"") + gzip.compress(TEXT[100_000:]),
        gzip.compress(TEXT) + bytes(1000),
        gzip.compress(TEXT[:100_000]) + bytes(7) + gzip.compress(TEXT[100_000:]),
    ],
    ids=["one member", "three members", "padded with zeros", "zeros between members"],
)
@pytest.mark.parametrize("size", [1, 7, 4_096, 10_000_000])
def test_a_gzip_source_is_decoded_however_it_is_cut(data: bytes, size: int) -> None:
    text = b"".join(decoded("gzip", SOURCE.ref, cut(data, size)))

    assert text == TEXT


@pytest.mark.parametrize("size", [1_000_003, 10_000_000])
def test_a_chunk_larger_than_any_buffer_is_decoded_to_its_end(size: int) -> None:
    text = random.Random(size).randbytes(3_000_000)

    assert b"".join(decoded("gzip", SOURCE.ref, cut(gzip.compress(text, 1), size))) == text


@PROPERTY
@given(st.lists(st.binary(max_size=2_000), max_size=5), st.integers(0, 600), st.integers(1, 700), st.booleans())
def test_any_members_padding_and_cuts_decode(texts: list[bytes], zeros: int, size: int, views: bool) -> None:
    data = b"".join(map(gzip.compress, texts)) + (bytes(zeros) if texts else b"")
    chunks = [memoryview(chunk) if views else chunk for chunk in cut(data, size)]

    text = b"".join(decoded("gzip", SOURCE.ref, [b"", *chunks, b""]))

    assert text == b"".join(texts)


def test_a_bundle_can_be_a_source_itself(executor: Executor) -> None:
    _, bundle = pack([TEXT, b"b\n"], executor)

    assert b"".join(decoded("gzip", SOURCE.ref, [bundle])) == TEXT + b"b\n"


def test_a_source_is_decoded_block_by_block_however_small_it_is() -> None:
    chunks = decoded("gzip", SOURCE.ref, [gzip.compress(bytes(5 * BLOCK_SIZE + 1))])

    assert [len(chunk) for chunk in chunks] == [BLOCK_SIZE] * 5 + [1]


def test_a_source_is_read_no_further_than_it_is_decoded() -> None:
    data = gzip.compress(random.Random(1).randbytes(8 * BLOCK_SIZE))
    taken: list[int] = []

    next(decoded("gzip", SOURCE.ref, counted(cut(data, 65_536), taken)))

    assert len(taken) < len(cut(data, 65_536)) / 2


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"plain text that is longer than a gzip header", "BadGzipFile"),
        (b"\x1f\x8b", "EOFError"),
        (bytes(10), "BadGzipFile"),
        (bytes(3) + gzip.compress(TEXT), "BadGzipFile"),
        (gzip.compress(TEXT) + b"junk", "EOFError"),
        (gzip.compress(TEXT) + b"junk that is longer than a gzip header", "BadGzipFile"),
        (gzip.compress(TEXT) + bytes(9) + b"junk", "EOFError"),
        (gzip.compress(TEXT) + gzip.compress(TEXT)[:-1], "EOFError"),
        (gzip.compress(TEXT)[:-8] + bytes(4) + gzip.compress(TEXT)[-4:], "BadGzipFile"),
        (gzip.compress(TEXT)[:-4] + bytes(4), "BadGzipFile"),
        (b"\x1f\x8b\x07" + gzip.compress(TEXT)[3:], "BadGzipFile"),
        (gzip.compress(TEXT)[:10] + b"\xff" * 40, "IsalError"),
    ],
    ids=[
        "plain text",
        "no header",
        "zeros only",
        "zeros in front",
        "short junk",
        "junk",
        "zeros and junk",
        "second member cut",
        "wrong crc",
        "wrong length",
        "unknown method",
        "no deflate",
    ],
)
def test_a_damaged_source_is_refused_without_a_word_of_its_content(data: bytes, fault: str) -> None:
    with pytest.raises(CorruptMemberError) as caught:
        list(decoded("gzip", SOURCE.ref, [data]))

    assert caught.value.args == ("object is not gzip to its end",)
    assert caught.value.facts == {"bucket": "source", "key": "in/a.json.gz", "fault": fault}


def test_a_source_is_refused_wherever_it_is_cut_off() -> None:
    data = gzip.compress(TEXT[:5_000])

    for length in range(1, len(data)):
        with pytest.raises(CorruptMemberError):
            list(decoded("gzip", SOURCE.ref, [data[:length]]))


def test_an_empty_source_is_an_empty_text() -> None:
    assert list(decoded("gzip", SOURCE.ref, [])) == []


@pytest.mark.parametrize(
    "error",
    [StoreUnavailableError("slow down"), OutOfTimeError("late"), OSError("reset"), TimeoutError(), KeyboardInterrupt()],
)
def test_a_failure_to_read_is_no_damage_of_the_source(error: BaseException) -> None:
    chunks = decoded("gzip", SOURCE.ref, failing([gzip.compress(TEXT)[:1_000]], error))

    with pytest.raises(type(error)) as caught:
        list(chunks)

    assert caught.value is error


# Blocks


@every_level
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, BLOCK_SIZE])
@pytest.mark.parametrize("kind", ["text", "random"])
def test_a_block_is_inflated_alone(level: int, size: int, kind: str) -> None:
    block = TEXT[:size] if kind == "text" else random.Random(level).randbytes(size)
    inflate = zlib.decompressobj(-15)

    text = inflate.decompress(compressor(level)(block))

    assert (text, inflate.unused_data, inflate.eof) == (block, b"", False)


@every_level
def test_blocks_in_any_order_make_one_stream(level: int) -> None:
    randoms = random.Random(level)
    blocks = [TEXT[:BLOCK_SIZE], randoms.randbytes(BLOCK_SIZE), b"", TEXT[:17], randoms.randbytes(70_000), TEXT[1:]]
    compress = compressor(level)

    stream = b"".join(map(compress, blocks)) + END

    assert zlib.decompress(stream, -15) == b"".join(blocks)


@every_level
@pytest.mark.parametrize("size", [65_536, BLOCK_SIZE - 1, BLOCK_SIZE])
def test_random_bytes_grow_by_no_more_than_a_thousandth(level: int, size: int) -> None:
    block = random.Random(size).randbytes(size)

    assert len(compressor(level)(block)) <= size * 1.001


@every_level
def test_text_shrinks_to_less_than_a_third(level: int) -> None:
    assert len(compressor(level)(TEXT[:BLOCK_SIZE])) < BLOCK_SIZE / 3


# Packing


@pytest.mark.parametrize(
    ("framing", "members", "text"),
    [
        ("lines", [b"a", b"b"], b"a\nb\n"),
        ("lines", [b"a\n", b"b\n"], b"a\nb\n"),
        ("lines", [b"a\n\n", b"\n", b"b"], b"a\n\n\nb\n"),
        ("lines", [b"", b"a", b"", b""], b"a\n"),
        ("lines", [b"a\r\n", b"b\r"], b"a\r\nb\r\n"),
        ("lines", [b""], b""),
        ("lines", [], b""),
        ("none", [b"a", b"b\n", b"", b"c"], b"ab\nc"),
        ("none", [], b""),
    ],
)
def test_with_lines_a_member_ends_its_line_with_none_it_is_left_alone(
    framing: Framing, members: list[bytes], text: bytes, executor: Executor
) -> None:
    packed, bundle = pack(members, executor, framing=framing)

    assert gzip.decompress(bundle) == text
    assert _cut_out(text, packed) == members
    assert packed.index.text_size == len(text)


@every_framing
@pytest.mark.parametrize(
    "chunks",
    [
        [b"a\n", b"b", b"", b""],
        [b"", b"", b"a\nb"],
        [memoryview(b"a\n"), memoryview(b""), memoryview(b"b")],
        [b"a", b"\n", b"b"],
    ],
)
def test_how_a_member_is_cut_into_chunks_does_not_matter(
    framing: Framing, chunks: list[Chunk], executor: Executor
) -> None:
    _, expected = pack([b"a\nb", b"c"], executor, framing=framing)
    spool = io.BytesIO()
    packer = new_packer(spool, executor, framing=framing)

    packer.add(source(0, 3), iter(chunks))
    packer.add(source(1, 1), [b"c"])
    packer.finish(PLAN)

    assert spool.getvalue() == expected


@pytest.mark.parametrize("chunks", [[b"a\n", b""], [b"", b"a", b"\n", b"", b""]])
def test_an_empty_last_chunk_does_not_end_a_line_twice(chunks: list[bytes], executor: Executor) -> None:
    spool = io.BytesIO()
    packer = new_packer(spool, executor)

    packer.add(source(0, 2), chunks)
    packer.finish(PLAN)

    assert gzip.decompress(spool.getvalue()) == b"a\n"


@every_framing
@pytest.mark.parametrize("size", [BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE, 12 * BLOCK_SIZE + 5])
@pytest.mark.parametrize("chunk", [100_003, 20_000_000])
def test_members_about_the_size_of_blocks_are_cut_at_the_block(
    framing: Framing, size: int, chunk: int, executor: Executor
) -> None:
    members = [random.Random(n).randbytes(size - 1) + b"." for n in range(3)]
    text = b"".join(member + b"\n" * (framing == "lines") for member in members)

    packed, bundle = pack(members, executor, framing=framing, chunk=chunk)

    assert gzip.decompress(bundle) == text
    assert _cut_out(text, packed) == members
    assert _blocks(bundle, packed) == cut(text, BLOCK_SIZE)


@PROPERTY
@given(
    st.lists(st.tuples(st.integers(0, 3 * BLOCK_SIZE) | st.integers(0, 40), st.integers(0, 255)), max_size=12),
    st.sampled_from(FRAMINGS),
    st.sampled_from(LEVELS),
    st.integers(1_000, 2 * BLOCK_SIZE),
)
def test_any_members_come_out_byte_for_byte(
    executor: Executor, shapes: list[tuple[int, int]], framing: Framing, level: int, chunk: int
) -> None:
    members = [_some_bytes(size, seed) for size, seed in shapes]
    ends = [b"\n" if framing == "lines" and member and member[-1:] != b"\n" else b"" for member in members]
    text = b"".join(member + end for member, end in zip(members, ends, strict=True))

    packed, bundle = pack(members, executor, level=level, framing=framing, chunk=chunk)

    first = zlib.decompressobj(31)
    assert first.decompress(bundle) == gzip.decompress(bundle) == text
    assert first.eof
    assert _cut_out(text, packed) == members
    assert _blocks(bundle, packed) == cut(text, BLOCK_SIZE)
    assert packed.index.members.crc32 == [zlib.crc32(member) for member in members]
    Bundle.open(io.BytesIO(bundle)).verify()


@every_level
def test_the_whole_text_is_in_the_first_gzip_member(level: int, executor: Executor) -> None:
    _, bundle = pack([TEXT] * 3, executor, level=level)

    members = gzip_members(bundle)

    assert [text for _, text in members] == [TEXT * 3] + [b""] * (len(members) - 1)


@every_level
def test_the_same_members_give_the_same_bytes(level: int, executor: Executor) -> None:
    members = [TEXT, b"", random.Random(level).randbytes(BLOCK_SIZE), b"{}"] * 3

    bundles = {pack(members, executor, level=level)[1] for _ in range(5)}

    assert len(bundles) == 1


def test_the_index_says_what_was_read_not_what_was_announced(executor: Executor) -> None:
    spool = io.BytesIO()
    packer = new_packer(spool, executor)
    plan = Plan("b.gz", "2026-11-23T11:54:56Z", "request", (Wanted("not", ObjectRef("not", "packed")),))

    packer.add(FetchedObject(ObjectRef("one", "a", 9, "old", "v0"), 5, "e1", "v1"), [b"hello"])
    packer.add(
        FetchedObject(ObjectRef("two", "é\n🦊", None, None, None), 30, None, None, encoding="gzip"), [b"hello\n"]
    )
    packer.add(FetchedObject(ObjectRef("one", "", 0), 0, "e3"), [])
    packed = packer.finish(plan)

    assert packed.index == BundleIndex(
        version=1,
        bundle="b.gz",
        created="2026-11-23T11:54:56Z",
        request_id="request",
        framing="lines",
        text_size=12,
        block_size=262_144,
        blocks=packed.index.blocks,
        buckets=["one", "two"],
        members=MemberColumns(
            bucket=[0, 1, 0],
            key=["a", "é\n🦊", ""],
            version_id=["v1", None, None],
            etag=["e1", None, "e3"],
            size=[5, 30, 0],
            encoding=[None, "gzip", None],
            start=[0, 6, 12],
            length=[5, 6, 0],
            crc32=[zlib.crc32(b"hello"), zlib.crc32(b"hello\n"), 0],
        ),
    )
    assert Bundle.open(spool).index == packed.index


def test_what_is_packed_is_the_size_and_the_sha_256_of_the_file(executor: Executor) -> None:
    packed, bundle = pack([TEXT, b"b"], executor)

    assert (packed.size, packed.sha256) == (len(bundle), hashlib.sha256(bundle).digest())


def test_what_is_packed_is_known_in_the_order_of_packing(executor: Executor) -> None:
    packer = new_packer(io.BytesIO(), executor)

    packer.add(source(0, 1), [b"a"])
    packer.add(source(1, 2), [b"bb"])

    assert packer.entries == [(source(0, 1), 0, 1, zlib.crc32(b"a")), (source(1, 2), 2, 2, zlib.crc32(b"bb"))]


def test_an_empty_bundle_is_an_empty_text_and_closes_its_name() -> None:
    bundle = empty_bundle("b.gz", NOVEMBER_2026, "request")

    opened = Bundle.open(io.BytesIO(bundle))
    opened.verify()
    assert gzip.decompress(bundle) == b""
    assert list(opened) == []
    assert (opened.index.bundle, opened.index.created, opened.index.request_id, opened.index.text_size) == (
        "b.gz",
        "2026-11-23T11:54:56Z",
        "request",
        0,
    )


# Room


def test_members_fill_a_bundle_to_the_last_byte(executor: Executor) -> None:
    packer = new_packer(io.BytesIO(), executor, limit=10)

    packer.add(source(0, 4), [b"aaaa"])
    packer.add(source(1, 6), [b"bbb", b"bbb"])
    packer.add(source(2, 0), [])

    assert packer.finish(PLAN).index.members.length == [4, 6, 0]


def _cut_out(text: bytes, packed: Packed) -> list[bytes]:
    """The members, by what the index says of them."""
    columns = packed.index.members
    return [text[start : start + length] for start, length in zip(columns.start, columns.length, strict=True)]


def _blocks(bundle: bytes, packed: Packed) -> list[bytes]:
    """The text of every block, each inflated alone."""
    texts, at = [], len(HEADER)
    for size in packed.index.blocks:
        texts.append(zlib.decompressobj(-15).decompress(bundle[at : at + size]))
        at += size
    return texts


def _some_bytes(size: int, seed: int) -> bytes:
    """Random bytes, text, or zeros, with or without a newline at the end."""
    kinds: list[Callable[[], bytes]] = [
        lambda: random.Random(seed).randbytes(size),
        lambda: (TEXT * 3)[:size],
        lambda: bytes(size),
    ]
    data = kinds[seed % 3]()
    return data[:-1] + b"\n" if seed % 2 and data else data
