"""Many bundles are read at once, come in their order, and a fault of one is a value among the others."""

import threading
from pathlib import Path

import pytest

from aggregator.exceptions import BundleFormatError, OpeningError
from aggregator.operations.indexes import matching, read_indexes, read_targets
from aggregator.reader import Bundle
from tests.support.bundles import write_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with five bundles."""
    for number in range(5):
        write_bundle(tmp_path / f"{number}.gz", {f"in/{number}": b"x"})
    return tmp_path


def test_bundles_come_in_their_order_with_what_is_taken_of_them(folder: Path) -> None:
    found = list(read_targets([str(folder), str(folder / "2.gz")], lambda bundle: [member.key for member in bundle]))

    names = [*(f"{number}.gz" for number in range(5)), "2.gz"]
    assert found == [(str(folder / name), [f"in/{name[0]}"]) for name in names]


def test_a_fault_stands_where_its_bundle_would(folder: Path) -> None:
    (folder / "1.gz").write_bytes((folder / "1.gz").read_bytes()[:-1])
    (folder / "none").mkdir()

    found = dict(read_targets([str(folder / "none"), str(folder), str(folder / "9.gz")], len))

    assert [type(one) for one in found.values()] == [
        OpeningError,
        int,
        BundleFormatError,
        int,
        int,
        int,
        FileNotFoundError,
    ]
    assert next(iter(found)) == str(folder / "none")


def test_several_bundles_are_opened_at_once(folder: Path) -> None:
    """Each waits for the other: one after the other, none would come."""
    both = threading.Barrier(2, timeout=30)

    def opened(path: Path) -> Bundle:
        both.wait()
        return Bundle.open(path)

    found = list(read_indexes(sorted(folder.glob("[01].gz")), opened, len, threads=2))

    assert [members for _, members in found] == [1, 1]


def test_an_error_that_is_not_expected_ends_the_reading(folder: Path) -> None:
    def opened(path: Path) -> Bundle:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(read_indexes([folder], opened, len))


def test_a_bundle_is_closed_when_it_was_read(folder: Path) -> None:
    bundles: list[Bundle] = []

    list(read_targets([str(folder / "0.gz")], bundles.append))

    with pytest.raises(Exception, match="the bundle is closed"):
        bundles[0]["in/0"]


def test_a_pattern_that_is_a_key_is_that_key(tmp_path: Path) -> None:
    write_bundle(tmp_path / "b.gz", {"d[1]": b"", "d1": b"", "e/f": b""})

    with Bundle.open(tmp_path / "b.gz") as bundle:
        found = {
            pattern: [member.key for member in matching(bundle, pattern)] for pattern in ("d[1]", "d[2-0]", "?1", "*")
        }

    assert found == {"d[1]": ["d[1]"], "d[2-0]": [], "?1": ["d1"], "*": ["d[1]", "d1", "e/f"]}
