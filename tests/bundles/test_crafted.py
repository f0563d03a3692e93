"""An index that lies, and text that is not what was packed, under checksums that are right."""

import io
import json
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import pytest
from pydantic import ValidationError

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.layout import (
    HEADER,
)
from aggregator.exceptions import BundleFormatError, BundleVersionError
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.schemas import ObjectRef
from tests.support.damage import (
    MEMBERS,
    OTHER_MEMBER,
    OTHER_SIZE,
    UNREADABLE,
    fault_of,
    opening_fault,
    pack,
    rewritten,
    with_bit_turned,
    with_index,
)

DISAGREE = "the columns of the index do not agree"
TOO_MANY = "the index claims more than its bytes can hold"
OTHER_CRC = "a member does not have the CRC that the index names"
GAP = "members overlap, or leave a gap"
ORDER = "members overlap, or are in another order than the text"
BEHIND = "a member ends after the end of the text"
OTHER_END = "the text does not end where the index begins"
OTHER_TEXT = "the text is not what the gzip trailer and the index say"
OTHER_HEADER = "the gzip header is not a bundle's"
NO_BLOCK = "a block does not inflate"


# An index that lies


@pytest.mark.parametrize(
    "text",
    [b"", b"nonsense", b"[]", b"null", b"{}", b'{"format": "aggregator-bundle"}', b"\xff", b'{"a": "\xed\xa0\x80"}'],
)
def test_an_index_that_is_none_is_named(text: bytes, small: bytes) -> None:
    assert opening_fault(with_index(small, text)) == UNREADABLE


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
        {"created": "2026-02-30T16:00:00Z"},
        {"created": "9999-99-99T99:99:99Z"},
        {"created": "2026-11-23T16:00:00." + "0" * 50 + "Z"},
        {"text_size": 2**63},
        {"text_size": 10**400},
        {"block_size": 2**63},
        {"bundle": "x" * 1_025},
        {"request_id": "x" * 1_025},
        {"buckets": ["x" * 1_025]},
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
        Bundle.open(io.BytesIO(rewritten(small, index=lambda fields: fields.update(lie))))

    assert str(caught.value.facts["field"]).split(".")[0] == next(iter(lie))


def test_an_index_of_a_later_version_is_no_damage_and_asks_for_an_upgrade(small: bytes) -> None:
    later = rewritten(small, index=lambda fields: fields.update(version=2, created=None, members=[]))

    with pytest.raises(BundleVersionError) as caught:
        Bundle.open(io.BytesIO(later))

    assert str(caught.value) == (
        "the bundle is of a later version than this reader knows: upgrade (version=2, known=1)"
    )


@pytest.mark.parametrize("half", ["\\ud800", "\\udc00", "a\\ud83d!"])
def test_a_key_with_half_a_character_is_refused_before_anything_is_listed(half: str, small: bytes) -> None:
    text = json.dumps(Bundle.open(io.BytesIO(small)).index.model_dump()).replace("in/0.json", half)

    assert opening_fault(with_index(small, text.encode())) == UNREADABLE


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
        ("key", "x" * 1_025),
        ("key", "é" * 513),
        ("version_id", "x" * 1_025),
        ("size", 2**63),
        ("start", 2**63),
        ("length", 10**400),
        ("crc32", 2**32),
        ("crc32", -1),
    ],
)
def test_a_wrong_value_in_a_column_is_named(column: str, value: object, small: bytes) -> None:
    def wrong(fields: dict[str, Any]) -> None:
        fields["members"][column][-1] = value

    assert opening_fault(rewritten(small, index=wrong)) == UNREADABLE


def test_a_key_of_1024_bytes_is_read(small: bytes) -> None:
    def longest(fields: dict[str, Any]) -> None:
        fields["members"]["key"][-1] = "é" * 512

    assert "é" * 512 in Bundle.open(io.BytesIO(rewritten(small, index=longest)))


def test_more_text_than_the_blocks_hold_is_named(small: bytes) -> None:
    def larger(fields: dict[str, Any]) -> None:
        fields["block_size"] = fields["text_size"] = 16 * 1024 * 1024

    assert opening_fault(rewritten(small, index=larger)) == "the index claims more text than its blocks can hold"


COLUMNS = ["bucket", "key", "version_id", "etag", "size", "encoding", "start", "length", "crc32"]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_too_short_is_named(column: str, bundle: bytes) -> None:
    assert opening_fault(rewritten(bundle, index=lambda fields: fields["members"][column].pop())) == DISAGREE


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_that_is_too_long_is_named(column: str, bundle: bytes) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["members"][column].append(fields["members"][column][0])

    assert opening_fault(rewritten(bundle, index=longer)) == DISAGREE


def test_a_bucket_that_is_not_listed_is_named(bundle: bytes) -> None:
    assert opening_fault(rewritten(bundle, index=lambda fields: fields["buckets"].pop())) == DISAGREE


def test_fields_of_a_later_version_are_ignored(bundle: bytes) -> None:
    later = rewritten(bundle, index=lambda fields: fields.update(colour="blue"))

    assert fault_of(later) is None


@pytest.mark.parametrize(
    ("members", "fault"), [(len(MEMBERS), None), (len(MEMBERS) - 1, DISAGREE), (-1, UNREADABLE), ("x", UNREADABLE)]
)
def test_origins_that_do_not_account_for_every_member_are_named(
    members: object, fault: str | None, bundle: bytes
) -> None:
    origin = {"bundle": "b", "created": "c", "request_id": "r", "sha256": "s", "members": members}

    assert fault_of(rewritten(bundle, index=lambda fields: fields.update(repacked=[origin]))) == fault


@pytest.mark.parametrize(
    ("column", "at", "by", "fault"),
    [
        ("start", 1, -1, ORDER),
        ("start", 1, 1, OTHER_CRC),
        ("start", 5, 1, GAP),
        ("start", 5, 100, BEHIND),
        ("start", 5, 2**40, BEHIND),
        ("start", 2, -2, ORDER),
        ("length", 1, -1, OTHER_CRC),
        ("length", 1, 1, OTHER_CRC),
        ("length", 2, 1, ORDER),
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

    assert fault_of(rewritten(bundle, index=moved)) == fault


@pytest.mark.parametrize("at", [1, 3, 4])
def test_text_between_members_that_belongs_to_none_is_named(at: int, bundle: bytes) -> None:
    assert fault_of(rewritten(bundle, index=lambda fields: _drop(fields, at))) == GAP


@pytest.mark.parametrize(("left", "right"), [(3, 4), (4, 5), (0, 5)])
def test_members_in_another_order_are_named(left: int, right: int, bundle: bytes) -> None:
    def swapped(fields: dict[str, Any]) -> None:
        for column in fields["members"].values():
            column[left], column[right] = column[right], column[left]

    assert fault_of(rewritten(bundle, index=swapped)) == ORDER


def test_a_member_that_is_listed_twice_is_named(bundle: bytes) -> None:
    def doubled(fields: dict[str, Any]) -> None:
        for column in fields["members"].values():
            column.insert(3, column[3])

    assert fault_of(rewritten(bundle, index=doubled)) == ORDER


@pytest.mark.parametrize("by", [-1, 1])
def test_another_size_of_the_text_is_named(by: int, bundle: bytes) -> None:
    def resized(fields: dict[str, Any]) -> None:
        fields["text_size"] += by

    assert fault_of(rewritten(bundle, index=resized)) == OTHER_TEXT


@pytest.mark.parametrize("change", [lambda blocks: blocks.append(5), lambda blocks: blocks.pop()])
def test_blocks_that_do_not_end_where_the_text_does_are_named(
    change: Callable[[list[int]], object], bundle: bytes
) -> None:
    assert fault_of(rewritten(bundle, index=lambda fields: change(fields["blocks"]))) is not None


@pytest.mark.parametrize("by", [-1, 1, 7])
def test_a_last_block_of_another_length_is_named(by: int, bundle: bytes) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["blocks"][-1] += by

    assert fault_of(rewritten(bundle, index=longer)) == OTHER_END


@pytest.mark.parametrize(("column", "by"), [("start", 1), ("length", -1), ("crc32", 1)])
def test_a_member_is_not_handed_out_where_it_is_not_what_the_index_says(column: str, by: int, bundle: bytes) -> None:
    def moved(fields: dict[str, Any]) -> None:
        fields["members"][column][4] += by

    with pytest.raises(BundleFormatError) as caught:
        Bundle.open(io.BytesIO(rewritten(bundle, index=moved)))["in/4.json"]

    assert (caught.value.args, caught.value.facts) == ((OTHER_MEMBER,), {"key": "in/4.json"})


def test_a_member_is_not_handed_out_where_it_is_shorter_than_the_index_says(executor: Executor) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["members"]["length"][-1] += 1

    data = pack([b"a", b"b"], executor, framing="none")

    assert opening_fault(rewritten(data, index=longer)) == BEHIND


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

    assert fault_of(rewritten(with_bit_turned(bundle, 8 * place))) == fault


def test_a_changed_byte_of_a_member_under_a_right_sha_256_is_named(bundle: bytes) -> None:
    place = bundle.index(MEMBERS[3][1_000:1_020])

    changed = rewritten(with_bit_turned(bundle, 8 * place))

    assert fault_of(changed) == OTHER_CRC
    with pytest.raises(BundleFormatError, match=OTHER_MEMBER):
        Bundle.open(io.BytesIO(changed))["in/3.json"]


def test_a_block_that_does_not_inflate_is_named_with_its_place(bundle: bytes) -> None:
    damaged = bundle[: len(HEADER)] + b"\xff" * 64 + bundle[len(HEADER) + 64 :]

    with pytest.raises(BundleFormatError) as caught:
        Bundle.open(io.BytesIO(damaged))["in/1.json"]

    assert (caught.value.args, caught.value.facts) == ((NO_BLOCK,), {"key": "in/1.json", "offset": len(HEADER)})


@pytest.mark.parametrize("at", [0, -1])
def test_text_before_the_first_member_or_behind_the_last_is_named(at: int, bundle: bytes) -> None:
    assert fault_of(rewritten(bundle, index=lambda fields: _drop(fields, at))) is not None


def test_a_member_of_one_byte_that_is_not_listed_is_named(executor: Executor) -> None:
    data = pack([b"a\n", b"b", b"c\n"], executor, framing="none")

    assert fault_of(rewritten(data, index=lambda fields: _drop(fields, 1))) is not None


def test_blocks_that_begin_elsewhere_are_named_by_verify(bundle: bytes) -> None:
    def shifted(fields: dict[str, Any]) -> None:
        fields["blocks"][0] -= 100
        fields["blocks"][1] += 100

    assert fault_of(rewritten(bundle, index=shifted)) is not None


def test_another_size_of_blocks_is_named_by_verify(bundle: bytes) -> None:
    assert fault_of(rewritten(bundle, index=lambda fields: fields.update(block_size=1_000))) is not None


@pytest.mark.parametrize("size", [10**6, 2**45, 2**70])
def test_a_last_block_longer_than_the_file_is_named(size: int, bundle: bytes) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["blocks"][-1] = size

    assert fault_of(rewritten(bundle, index=longer)) is not None


def test_text_that_does_not_inflate_under_a_right_sha_256_is_named(bundle: bytes) -> None:
    damaged = bundle[: len(HEADER)] + b"\xff" * 64 + bundle[len(HEADER) + 64 :]

    assert fault_of(rewritten(damaged)) is not None


@pytest.mark.parametrize("column", ["start", "length"])
def test_a_member_of_2_to_the_70_bytes_is_named(column: str, bundle: bytes) -> None:
    def longer(fields: dict[str, Any]) -> None:
        fields["members"][column][-1] = 2**70

    opened: Callable[[], Bundle] = lambda: Bundle.open(io.BytesIO(rewritten(bundle, index=longer)))  # noqa: E731
    with pytest.raises(BundleFormatError):
        opened()[f"in/{len(MEMBERS) - 1}.json"]


def test_an_index_of_200_000_levels_is_named(small: bytes) -> None:
    assert opening_fault(with_index(small, b"[" * 200_000)) is not None


def test_an_index_said_to_be_empty_is_not_inflated(small: bytes) -> None:
    bomb = with_index(small, b" " * 50_000_000, footer=lambda fields: fields.update(inflated=0))

    tracemalloc.start()
    fault = opening_fault(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (fault, peak < 5_000_000) == (OTHER_SIZE, True)


@pytest.mark.parametrize("bomb", ['"blocks": [%s]', '"later": [%s]', '"later": {"a,b\\"": [%s]}'])
def test_an_index_of_more_values_than_its_bytes_can_hold_is_not_parsed(bomb: str, small: bytes) -> None:
    text = f"{{{bomb % ('0,' * 10_000_000 + '0')}}}".encode()
    data = with_index(small, text)

    tracemalloc.start()
    fault = opening_fault(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (fault, len(data) < 25_000, peak < 3 * len(text)) == (TOO_MANY, True, True)


@pytest.mark.parametrize("field", ["blocks", "repacked"])
def test_an_index_of_wrong_values_is_refused_at_the_first_of_them(field: str, small: bytes) -> None:
    """Each costs pydantic some 800 bytes: 77 kB of file took 2.1 GB."""
    index = Bundle.open(io.BytesIO(small)).index.model_dump() | {field: [None] * 90_000}

    with pytest.raises(BundleFormatError, match=UNREADABLE) as caught:
        Bundle.open(io.BytesIO(with_index(small, json.dumps(index).encode())))

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


def _drop(fields: dict[str, Any], at: int) -> None:
    for column in fields["members"].values():
        del column[at]
