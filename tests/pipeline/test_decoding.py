"""Objects that are zstd: all their frames come out, whatever they claim, and anything else rejects them."""

import itertools
import random
import struct
import sys
import time
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.exceptions import CorruptMemberError, OutOfTimeError, StoreUnavailableError
from aggregator.pipeline.decoding import announced, decoded, recognised
from aggregator.schemas import ObjectRef
from tests.support.packing import TEXT, counted, cut, failing

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

REF = ObjectRef("source", "in/a.json.zst")
FRAME = zstd.compress(TEXT)
SKIPPABLE = struct.pack("<II", 0x184D2A5F, 5) + b"notes"
EMPTY = zstd.compress(b"")
PROPERTY = settings(deadline=None, derandomize=True, max_examples=50)


def frame(text: bytes, **parameters: int) -> bytes:
    """A frame with the parameters that are given, and without its content size."""
    options = {int(zstd.CompressionParameter[name]): value for name, value in parameters.items()}
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(text) + compressor.flush()


@pytest.mark.parametrize(
    "data",
    [
        FRAME,
        zstd.compress(TEXT[:9_000]) + zstd.compress(TEXT[9_000:]),
        SKIPPABLE + FRAME,
        FRAME + SKIPPABLE,
        EMPTY + SKIPPABLE + FRAME + EMPTY,
        frame(TEXT, checksum_flag=1),
        frame(TEXT, window_log=27),
        zstd.compress(TEXT, 19),
        zstd.compress(TEXT, -5),
    ],
    ids=["frame", "two", "skippable first", "skippable last", "empty", "checksum", "large window", "19", "-5"],
)
@pytest.mark.parametrize("size", [1, 7, 16_384, 10**9])
def test_a_zstd_object_is_decoded_frame_after_frame_however_it_arrives(data: bytes, size: int) -> None:
    assert b"".join(decoded("zstd", REF, cut(data, size))) == TEXT


@PROPERTY
@given(st.lists(st.binary(max_size=300_000)), st.integers(1, 100_000), st.randoms(use_true_random=False))
def test_any_texts_come_out_of_any_frames(texts: list[bytes], size: int, randoms: random.Random) -> None:
    frames = [zstd.compress(text) + randoms.choice([b"", SKIPPABLE]) for text in texts]

    assert b"".join(decoded("zstd", REF, cut(b"".join(frames), size))) == b"".join(texts)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (FRAME + b"junk", "Unknown frame descriptor"),
        (FRAME + b"junk longer than the head of a frame", "Unknown frame descriptor"),
        (FRAME + FRAME[:-1], "EOFError"),
        (FRAME + SKIPPABLE[:-1], "EOFError"),
        (FRAME[:3], "EOFError"),
        (frame(TEXT, checksum_flag=1)[:-4] + b"\0\0\0\0", "Restored data doesn't match checksum"),
        (frame(TEXT, window_log=28), "Frame requires too much memory for decoding"),
        (
            zstd.compress(TEXT, zstd_dict=zstd.train_dict([TEXT[at : at + 100] for at in range(5_000)], 4_000)),
            "Dictionary",
        ),
    ],
    ids=["short junk", "junk", "second frame cut", "skippable cut", "magic cut", "checksum", "window", "dictionary"],
)
def test_what_cannot_be_decoded_rejects_the_object_with_the_fault(data: bytes, fault: str) -> None:
    with pytest.raises(CorruptMemberError) as caught:
        list(decoded("zstd", REF, [data]))

    assert caught.value.args == ("object is not zstd to its end",)
    assert fault in str(caught.value.facts["fault"])


def test_a_zstd_object_is_rejected_wherever_it_is_cut_off() -> None:
    data = zstd.compress(TEXT[:5_000])

    for length in range(1, len(data)):
        with pytest.raises(CorruptMemberError):
            list(decoded("zstd", REF, [data[:length]]))


def test_damage_is_a_rejection_or_another_text_and_never_another_error() -> None:
    randoms = random.Random(20)
    for _ in range(500):
        data = bytearray(FRAME[:4_000])
        for _ in range(3):
            data[randoms.randrange(len(data))] = randoms.randrange(256)

        with pytest.raises(CorruptMemberError):
            list(decoded("zstd", REF, [bytes(data)]))


def test_a_bomb_comes_out_in_blocks_and_is_read_no_further_than_asked() -> None:
    bomb = zstd.compress(bytes(50 * BLOCK_SIZE))
    taken: list[int] = []

    first = list(itertools.islice(decoded("zstd", REF, counted(cut(bomb * 9, 100), taken)), 3))

    assert max(map(len, first)) <= BLOCK_SIZE
    assert len(bomb) < 10_000
    assert sum(taken) < len(bomb)


def test_frames_without_content_cost_time_in_proportion() -> None:
    data = struct.pack("<II", 0x184D2A50, 0) * 200_000

    began = time.process_time()
    blocks = list(decoded("zstd", REF, [data]))

    assert blocks == []
    assert time.process_time() - began < 5  # 200,000 copies of the rest would be 160 GB


@pytest.mark.parametrize("error", [StoreUnavailableError("slow down"), OutOfTimeError("late"), OSError("reset")])
def test_a_failure_to_read_is_not_damage_of_the_object(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        list(decoded("zstd", REF, failing([FRAME[:100]], error)))

    assert caught.value is error


@pytest.mark.parametrize(
    ("key", "content_encoding", "encodings"),
    [
        ("a.zst", None, {"zstd"}),
        ("a.ZSTD", "", {"zstd"}),
        ("a", "zstd", {"zstd"}),
        ("a", "ZSTD, aws-chunked", {"zstd"}),
        ("a", "zstd, br", set()),
        ("a.gz", "zstd", {"gzip", "zstd"}),
        ("zst", None, set()),
        ("a.zst.txt", None, set()),
    ],
)
def test_an_encoding_is_announced_by_name_or_header(
    key: str, content_encoding: str | None, encodings: set[str]
) -> None:
    assert announced(key, content_encoding) == encodings


@pytest.mark.parametrize(
    ("head", "encoding"),
    [(FRAME, "zstd"), (SKIPPABLE, "zstd"), (FRAME[:3], None), (b"", None), (b"text", None), (b"\x1f\x8b\x08", "gzip")],
)
def test_an_encoding_is_recognised_by_its_magic_number(head: bytes, encoding: Literal["gzip", "zstd"] | None) -> None:
    assert recognised(head) == recognised(memoryview(head)) == encoding
