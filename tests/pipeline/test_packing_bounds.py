"""How much a bundle takes: members and bundles at their limits."""

import gzip
import io
from concurrent.futures import Executor
from itertools import repeat

import pytest

from aggregator.bundles.layout import BLOCK_SIZE
from aggregator.exceptions import (
    BundleFullError,
    OversizedMemberError,
)
from aggregator.pipeline.decoding import decoded
from tests.support.packing import (
    PLAN,
    SOURCE,
    TEXT,
    counted,
    new_packer,
    pack,
    source,
)


def test_the_newlines_of_the_framing_do_not_count(executor: Executor) -> None:
    packed, _ = pack([b"a"] * 10, executor, limit=10)

    assert packed.index.text_size == 20


def test_a_member_that_does_not_fit_any_more_is_left_to_the_next_bundle(executor: Executor) -> None:
    _, expected = pack([b"aa", b"bb", b"cccccc"], executor, limit=10)
    spool = io.BytesIO()
    packer = new_packer(spool, executor, limit=10)

    packer.add(source(0, 2), [b"aa"])
    packer.add(source(1, 2), [b"bb"])
    with pytest.raises(BundleFullError) as caught:
        packer.add(source(7, 7), [b"ddddddd"])
    packer.add(source(2, 6), [b"cccccc"])
    packer.finish(PLAN)

    assert caught.value.facts == {"key": "in/7.json"}
    assert spool.getvalue() == expected


def test_a_member_in_hand_that_is_larger_than_a_bundle_is_refused(executor: Executor) -> None:
    packer = new_packer(io.BytesIO(), executor, limit=10)
    packer.add(source(0, 4), [b"aaaa"])

    with pytest.raises(OversizedMemberError) as caught:
        packer.add(source(1, 11), [b"bbbbb", b"bbbbbb"])

    assert caught.value.facts == {"key": "in/1.json", "length": 11, "limit": 10}


def test_a_member_that_never_ends_is_refused_as_soon_as_it_is_larger_than_a_bundle(executor: Executor) -> None:
    _, expected = pack([b"a"], executor, limit=5 * BLOCK_SIZE)
    spool = io.BytesIO()
    packer = new_packer(spool, executor, limit=5 * BLOCK_SIZE)
    taken: list[int] = []

    with pytest.raises(OversizedMemberError) as caught:
        packer.add(source(7, 1), counted(repeat(bytes(BLOCK_SIZE)), taken))
    packer.add(source(0, 1), [b"a"])
    packer.finish(PLAN)

    assert caught.value.facts == {"key": "in/7.json", "length": 6 * BLOCK_SIZE, "limit": 5 * BLOCK_SIZE}
    assert len(taken) == 6
    assert spool.getvalue() == expected


def test_a_member_that_is_read_while_the_bundle_fills_up_is_left_to_the_next_one(executor: Executor) -> None:
    _, expected = pack([TEXT * 4], executor, limit=len(TEXT) * 5)
    spool = io.BytesIO()
    packer = new_packer(spool, executor, limit=len(TEXT) * 5)
    taken: list[int] = []

    packer.add(source(0, len(TEXT) * 4), [TEXT] * 4)
    with pytest.raises(BundleFullError) as caught:
        packer.add(source(7, 1), counted(repeat(TEXT), taken))
    packer.finish(PLAN)

    assert caught.value.facts == {"key": "in/7.json"}
    assert len(taken) == 2
    assert spool.getvalue() == expected


def test_a_small_object_that_decodes_to_more_than_a_bundle_is_refused(executor: Executor) -> None:
    packer = new_packer(io.BytesIO(), executor, limit=1_000_000)
    bomb = gzip.compress(bytes(10_000_000))

    with pytest.raises(OversizedMemberError) as caught:
        packer.add(source(0, len(bomb)), decoded("gzip", SOURCE.ref, [bomb]))

    assert caught.value.facts == {"key": "in/0.json", "length": 4 * BLOCK_SIZE, "limit": 1_000_000}
