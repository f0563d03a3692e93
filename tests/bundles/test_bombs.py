"""A crafted bundle costs its reader time linear in the file, and memory of 64 MiB and a small multiple of the file."""

import io
import sys
from pathlib import Path

import pytest

from aggregator.bundles.bundle import Bundle
from tests.support.bombs import Cost, cost_of, index_bombs, text_bomb
from tests.support.damage import with_index

MOST, MOST_A_BYTE = 64 * 1024 * 1024, 32
"""What docs/threat-model.md promises; the interpreter and its modules come on top."""

SECONDS, SECONDS_A_BYTE = 30, 1e-6
"""A bound that a loaded machine keeps, and a reader that is not linear does not."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")


@pytest.mark.chaos
def test_no_index_costs_more_than_its_file(small: bytes, tmp_path: Path) -> None:
    index, costly = Bundle.open(io.BytesIO(small)).index.model_dump(mode="json"), dict[str, Cost]()
    (tmp_path / "small").write_bytes(small)

    for name, text in index_bombs(index):
        bomb = with_index(small, text)
        (tmp_path / "bomb").write_bytes(bomb)
        cost = cost_of(tmp_path / "small", tmp_path / "bomb", most=1 << 30)
        if cost.memory > MOST + MOST_A_BYTE * len(bomb) or cost.seconds > SECONDS + SECONDS_A_BYTE * len(bomb):
            costly[name] = cost

    assert costly == {}


@pytest.mark.parametrize(("block_size", "blocks"), [(16 * 1024 * 1024, 8), (256 * 1024, 400)])
def test_no_text_costs_more_memory_than_its_file(block_size: int, blocks: int, small: bytes, tmp_path: Path) -> None:
    bomb = text_bomb(block_size, blocks)
    (tmp_path / "small").write_bytes(small)
    (tmp_path / "bomb").write_bytes(bomb)

    cost = cost_of(tmp_path / "small", tmp_path / "bomb", most=1 << 30)

    assert (cost.said, cost.memory < MOST + MOST_A_BYTE * len(bomb)) == ("", True)
    assert len(bomb) < block_size * blocks / 900
