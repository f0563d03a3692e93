"""A damaged bundle is named for what it is: by chance, and by a footer that lies."""

import gzip
import io
import random
from typing import Any

import pytest

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.footer import INDEX_BYTES, TAIL_SIZE
from aggregator.bundles.layout import (
    FOOTER,
    FOOTER_ID,
    FOOTER_SIZE,
    INDEX_ID,
    MAGIC,
    empty_member,
)
from aggregator.exceptions import BundleFormatError
from tests.support.damage import (
    MEMBERS,
    OTHER_SIZE,
    fault_of,
    opening_fault,
    rewritten,
    with_bit_turned,
    with_index,
)

NO_BUNDLE = "not a bundle: header and footer are missing"
TRUNCATED = "truncated (or plain gzip that never was a bundle): it begins as a bundle and has no footer"
FOOTER_DAMAGED = "the footer is damaged"
ADDED = "bytes were added after the footer"
NO_FIT = "the footer does not fit the file: bytes were lost or added"
OTHER_LENGTH = "the index does not have the length that the footer names"
INDEX_DAMAGED = "the index is damaged"
OTHER_SHA = "the bytes do not have the SHA-256 that the footer names"


# Damage by chance


def test_every_bit_of_a_small_bundle_is_guarded(small: bytes) -> None:
    unseen = [bit for bit in range(8 * len(small)) if fault_of(with_bit_turned(small, bit)) is None]

    assert unseen == []


def test_300_random_bits_of_a_bundle_are_guarded(bundle: bytes) -> None:
    bits = random.Random(20_261_123).sample(range(8 * len(bundle)), 300)

    assert [bit for bit in bits if fault_of(with_bit_turned(bundle, bit)) is None] == []


def test_random_bits_of_an_index_longer_than_the_tail_are_guarded(large: bytes) -> None:
    begin = len(large) - 2 * TAIL_SIZE
    bits = random.Random(20_261_123).sample(range(8 * begin, 8 * len(large)), 100)

    assert [bit for bit in bits if fault_of(with_bit_turned(large, bit)) is None] == []


def test_a_bundle_is_called_truncated_wherever_it_is_cut_off(small: bytes) -> None:
    faults = {opening_fault(small[:length]) for length in range(1, len(small))}

    assert faults == {TRUNCATED}


def test_a_large_bundle_is_called_truncated_wherever_it_is_cut_off(large: bytes) -> None:
    lengths = random.Random(1).sample(range(1_000, len(large)), 200)

    assert {opening_fault(large[:length]) for length in lengths} == {TRUNCATED}


@pytest.mark.parametrize("size", [1, 2, 1_000, TAIL_SIZE])
def test_a_bundle_without_its_first_bytes_is_refused(size: int, bundle: bytes) -> None:
    assert opening_fault(bundle[size:]) == NO_FIT


@pytest.mark.parametrize("more", [b"\x00", b"\n", bytes(FOOTER_SIZE), bytes(TAIL_SIZE - FOOTER_SIZE)])
def test_a_bundle_with_bytes_behind_it_is_refused(more: bytes, bundle: bytes) -> None:
    assert opening_fault(bundle + more) == ADDED


def test_a_bundle_with_more_bytes_behind_it_than_are_looked_at_is_refused(bundle: bytes) -> None:
    assert opening_fault(bundle + bytes(TAIL_SIZE)) == TRUNCATED


def test_a_footer_with_any_bit_turned_is_called_damaged(bundle: bytes) -> None:
    sizes = range(8 * (len(bundle) - FOOTER_SIZE), 8 * len(bundle))

    faults = {fault_of(with_bit_turned(bundle, bit)) for bit in sizes}

    assert faults == {FOOTER_DAMAGED, NO_FIT, OTHER_LENGTH, OTHER_SIZE, OTHER_SHA}


@pytest.mark.parametrize("more", [b"\x00", b"\n", bytes(TAIL_SIZE + 1)])
def test_a_bundle_with_bytes_in_front_of_it_is_refused(more: bytes, bundle: bytes) -> None:
    assert opening_fault(more + bundle) == NO_FIT


def test_two_bundles_in_one_file_are_refused(small: bytes, bundle: bytes) -> None:
    assert opening_fault(small + bundle) == NO_FIT


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
    assert opening_fault(data) == fault


def test_a_refusal_says_how_long_the_file_is() -> None:
    with pytest.raises(BundleFormatError) as caught:
        Bundle.open(io.BytesIO(b"plain text"))

    assert caught.value.facts == {"size": 10}


def test_a_bundle_that_is_written_again_bit_by_bit_verifies(bundle: bytes) -> None:
    again = rewritten(bundle)

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
        ({"inflated": 1}, OTHER_SIZE),
        ({"inflated": INDEX_BYTES}, OTHER_SIZE),
        ({"inflated": 2 * INDEX_BYTES}, NO_FIT),
        ({"inflated": 2**32 - 1}, NO_FIT),
    ],
)
def test_a_footer_that_lies_is_named(lie: dict[str, int], fault: str, bundle: bytes) -> None:
    assert opening_fault(rewritten(bundle, footer=lambda fields: fields.update(lie))) == fault


def test_a_footer_that_moves_the_index_is_named(bundle: bytes) -> None:
    def moved(fields: dict[str, Any]) -> None:
        fields["at"] -= 1
        fields["length"] += 1

    assert opening_fault(rewritten(bundle, footer=moved)) == INDEX_DAMAGED


def test_a_footer_that_claims_all_of_the_file_as_index_is_named(large: bytes) -> None:
    def moved(fields: dict[str, Any]) -> None:
        fields["at"], fields["length"] = 0, fields["at"] + fields["length"]

    assert opening_fault(rewritten(large, footer=moved)) == INDEX_DAMAGED


def test_a_footer_with_another_sha_256_is_named_by_verify(bundle: bytes) -> None:
    lying = rewritten(bundle, footer=lambda fields: fields.update(sha256=bytes(32)))

    assert fault_of(lying) == OTHER_SHA


def test_an_index_larger_than_the_footer_says_is_inflated_no_further(small: bytes) -> None:
    bomb = with_index(small, b" " * 20_000_000, footer=lambda fields: fields.update(inflated=1_000))

    assert opening_fault(bomb) == OTHER_SIZE
