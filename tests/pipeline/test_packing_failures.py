"""Objects that fail half way leave nothing in the bundle; and the file, to the byte."""

import functools
import gzip
import hashlib
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from aggregator.bundles.layout import BLOCK_SIZE, END, FOOTER_SIZE, HEADER
from aggregator.exceptions import (
    CorruptMemberError,
    StoreUnavailableError,
)
from aggregator.pipeline.core import FetchedObject
from aggregator.pipeline.decoding import decoded
from aggregator.reader import Bundle
from aggregator.schemas import ObjectRef
from tests.support.packing import (
    PLAN,
    SOURCE,
    TEXT,
    Framing,
    every_framing,
    failing,
    gzip_members,
    new_packer,
    pack,
    source,
)

# Failures half way


@every_framing
@pytest.mark.parametrize("at", [0, 1, 2, 3])
@pytest.mark.parametrize("error", [StoreUnavailableError("slow down"), KeyboardInterrupt()], ids=["error", "kill"])
@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [b"half of it"],
        [TEXT[:BLOCK_SIZE]],
        [TEXT[:BLOCK_SIZE], b"."],
        [TEXT] * 4,
        [TEXT] * 40,
        [random.Random(3).randbytes(700)] * 2_000,
    ],
    ids=["at once", "small", "a block", "a block and a byte", "blocks", "many blocks", "many chunks"],
)
def test_a_member_that_fails_half_way_leaves_no_byte(
    framing: Framing, at: int, error: BaseException, chunks: list[bytes], executor: Executor
) -> None:
    members = [TEXT[:100_003], TEXT, b"c"]
    _, expected = pack(members, executor, framing=framing)
    spool = io.BytesIO()
    packer = new_packer(spool, executor, framing=framing)

    for n, member in enumerate(members[:at]):
        packer.add(source(n, len(member)), [member])
    with pytest.raises(type(error)):
        packer.add(source(99, 1), failing(chunks, error))
    for n, member in enumerate(members[at:], at):
        packer.add(source(n, len(member)), [member])
    packer.finish(PLAN)

    assert spool.getvalue() == expected
    Bundle.open(spool).verify()


def test_members_that_fail_one_after_the_other_leave_no_byte_either(executor: Executor) -> None:
    _, expected = pack([TEXT, TEXT], executor)
    spool = io.BytesIO()
    packer = new_packer(spool, executor)

    for n in range(2):
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                packer.add(source(99, 1), failing([TEXT] * 12, StoreUnavailableError("slow down")))
        packer.add(source(n, len(TEXT)), [TEXT])
    packer.finish(PLAN)

    assert spool.getvalue() == expected


def test_a_source_that_turns_out_damaged_leaves_no_byte(executor: Executor) -> None:
    _, expected = pack([TEXT, b"b"], executor)
    spool = io.BytesIO()
    packer = new_packer(spool, executor)
    damaged = gzip.compress(TEXT * 10)[:-8] + bytes(8)

    packer.add(source(0, len(TEXT)), [TEXT])
    with pytest.raises(CorruptMemberError):
        packer.add(source(99, len(damaged)), decoded("gzip", SOURCE.ref, [damaged]))
    packer.add(source(1, 1), [b"b"])
    packer.finish(PLAN)

    assert spool.getvalue() == expected


class Held(Executor):
    """Compresses nothing until `release`, or until the result is asked for, if that is allowed."""

    def __init__(self, *, patient: bool) -> None:
        self.held: list[_Block] = []
        self._patient = patient

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future = _Block(functools.partial(fn, *args, **kwargs), patient=self._patient)
        self.held.append(future)
        return future

    def release(self) -> None:
        for future in self.held:
            if not future.done():
                future.set_result(future.work())


class _Block(Future[bytes]):
    def __init__(self, work: Callable[[], bytes], *, patient: bool) -> None:
        super().__init__()
        self.work, self._patient = work, patient

    def result(self, timeout: float | None = None) -> bytes:
        if not self.done():
            assert self._patient, "this block is waited for too early"
            self.set_result(self.work())
        return super().result(timeout)


@pytest.mark.parametrize("count", range(1, 13))
def test_blocks_that_are_still_compressed_when_a_member_fails_are_kept(count: int, executor: Executor) -> None:
    members = [TEXT[:100_003], TEXT * 2, b"c"]
    _, expected = pack(members, executor)
    spool = io.BytesIO()
    packer = new_packer(spool, Held(patient=True))

    for n, member in enumerate(members[:2]):
        packer.add(source(n, len(member)), [member])
    with pytest.raises(StoreUnavailableError):
        packer.add(source(99, 1), failing([TEXT[:BLOCK_SIZE]] * count, StoreUnavailableError("slow down")))
    packer.add(source(2, 1), [members[2]])
    packer.finish(PLAN)

    assert spool.getvalue() == expected


def test_a_member_does_not_wait_for_the_blocks_of_the_one_before_it(executor: Executor) -> None:
    members = [(TEXT * 4)[: blocks * BLOCK_SIZE - 1] + b"\n" for blocks in (2, 4)]
    _, expected = pack(members, executor)
    held, spool = Held(patient=False), io.BytesIO()
    packer = new_packer(spool, held)

    def chunks() -> Iterator[bytes]:
        yield members[1][: BLOCK_SIZE * 2]
        held.release()
        yield members[1][BLOCK_SIZE * 2 :]

    packer.add(source(0, len(members[0])), [members[0]])
    packer.add(source(1, len(members[1])), chunks())
    held.release()
    packer.finish(PLAN)

    assert spool.getvalue() == expected


# The index


@pytest.mark.parametrize("count", [3_000, 8_000])
def test_the_index_costs_at_most_40_bytes_a_member(count: int, executor: Executor) -> None:
    randoms, spool = random.Random(count), io.BytesIO()
    packer = new_packer(spool, executor)
    for n in range(count):
        source = FetchedObject(
            ObjectRef("source", f"in/2026/11/23/{n:06}.json"), 4_096, f"{randoms.getrandbits(128):032x}"
        )
        packer.add(source, [randoms.randbytes(4_096)])
    packer.finish(PLAN)

    _, *index, _footer = gzip_members(spool.getvalue())

    assert sum(len(HEADER) + 2 + len(extra) + len(END) + 8 for extra, _ in index) <= 40 * count
    assert {text for _, text in index} == {b""}
    assert [len(extra) for extra, _ in index[:-1]] == [16 * 1024] * (len(index) - 1)
    assert 4 < len(index[-1][0]) <= 16 * 1024


def test_the_index_is_compact_json_behind_the_text_as_the_format_says(executor: Executor) -> None:
    spool = io.BytesIO()
    packer = new_packer(spool, executor)
    for n in range(2_000):
        packer.add(FetchedObject(ObjectRef("source", f"é/{n}"), 1), [b"a"])
    packed = packer.finish(PLAN)
    bundle = spool.getvalue()

    _, *index, (footer, _) = gzip_members(bundle)

    magic, at, length, deflated_size, inflated_size, sha256 = struct.unpack("<8sQQQI32s", footer[4:])
    deflated = b"".join(extra[4:] for extra, _ in index)
    assert [extra[:2] for extra, _ in index] == [b"AI"] * len(index)
    assert (footer[:2], magic) == (b"AF", b"AGGRBNDL")
    assert at + length + FOOTER_SIZE == len(bundle)
    assert (len(deflated), len(zlib.decompress(deflated, -15))) == (deflated_size, inflated_size)
    assert zlib.decompress(deflated, -15).decode() == packed.index.model_dump_json()
    assert sha256 == hashlib.sha256(bundle[:-FOOTER_SIZE]).digest()
