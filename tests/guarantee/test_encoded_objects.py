"""What the objects of a bundle are: zstd is decoded, what is not text is counted or rejected, nothing loses a byte."""

import bz2
import codecs
import gzip
import json
import sys

import pytest

from aggregator.contracts.validation import faults_of
from tests.support import ROOT
from tests.support.flow import finished
from tests.support.world import World, environment, log_lines

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.integration

TEXT = b'{"order": 1}\n' * 1_000
ZSTD = zstd.compress(TEXT)


@pytest.mark.parametrize("large", [False, True])
def test_zstd_objects_are_decoded_when_they_say_so_and_are(
    world: World, monkeypatch: pytest.MonkeyPatch, *, large: bool
) -> None:
    text = TEXT * 1_000 if large else TEXT
    data = zstd.compress(text)
    world.put_all({"named.zst": data, "a//odd.zst": data, "plain.zst": b"text\n", "unlabelled": ZSTD})
    world.put("labelled", data, ContentEncoding="zstd")

    stayed = world.deliver(["named.zst", "a//odd.zst", "plain.zst", "unlabelled", "labelled"])

    assert stayed == set()
    assert world.published() == {
        "named.zst": [text],
        "a//odd.zst": [text],
        "plain.zst": [b"text\n"],
        "unlabelled": [ZSTD],
        "labelled": [text],
    }
    with environment(monkeypatch, SOURCE_DECODING="none"):
        world.put("kept.zst", ZSTD)
        world.deliver(["kept.zst"])
    assert world.published()["kept.zst"] == [ZSTD]


def test_zstd_objects_that_are_damaged_or_too_large_are_rejected_alone(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = {
        "good.zst": ZSTD,
        "cut.zst": ZSTD[:-1],
        "junk.zst": ZSTD + b"junk",
        "bomb.zst": zstd.compress(bytes(2**24)),
    }
    world.put_all(objects)

    with environment(monkeypatch, MAX_BUNDLE_INPUT_MB="1"):
        stayed = world.deliver(objects)

    assert stayed == {"cut.zst", "junk.zst", "bomb.zst"}
    assert world.published() == {"good.zst": [TEXT]}
    assert finished(capsys)["reasons"] == {"corrupt_member": 2, "oversized_member": 1}


def test_a_bundle_with_zstd_objects_is_one_that_released_readers_accept(world: World) -> None:
    world.put_all({"a.zst": ZSTD, "b.gz": gzip.compress(TEXT), "c": b"plain\n"})
    world.deliver(["a.zst", "b.gz", "c"])

    (bundle,) = world.bundles()

    bundle.verify()
    encodings = {entry.key: entry.encoding for entry in bundle}
    index = json.loads(bundle.index.model_dump_json())
    released = json.loads((ROOT / "contracts/bundle-index/v1/released/1.0.0/consumer.schema.json").read_text("utf-8"))
    assert encodings == {"a.zst": "zstd", "b.gz": "gzip", "c": None}
    assert faults_of(released, index) == []
    assert [coding is None for coding in index["members"]["encoding"]] == [
        key == "c" for key in index["members"]["key"]
    ]


def test_members_that_are_not_text_are_kept_and_counted_by_kind(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = {"a.json": TEXT, "b.bz2": bz2.compress(TEXT), "c.bin": b"\0\1\2", "d.bz2": bz2.compress(b"d")}
    world.put_all(objects)

    stayed = world.deliver(objects)

    lines = log_lines(capsys.readouterr().out)
    counted = {line["kind"]: line["BinaryMembers"] for line in lines if "BinaryMembers" in line}
    said = next(line for line in lines if line.get("message") == "binary.bundled")
    assert stayed == set()
    assert world.published() == {key: [body] for key, body in objects.items()}
    assert counted == {"bzip2": [2.0], "other": [1.0]}
    assert said["kinds"] == {"bzip2": 2, "other": 1}
    assert said["example"] in objects


def test_members_that_are_not_text_are_rejected_if_the_setting_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = {"a.json": TEXT, "b.bz2": bz2.compress(TEXT), "c.zst": zstd.compress(b"\0"), "empty": b""}
    world.put_all(objects)

    with environment(monkeypatch, BINARY_MEMBERS="reject"):
        stayed = world.deliver(objects)

    told = finished(capsys)
    assert stayed == {"b.bz2", "c.zst"}
    assert world.published() == {"a.json": [TEXT], "empty": [b""]}
    assert (told["Rejected"], told["reasons"], told["binary"]) == (2, {"binary_content": 2}, {})


def test_a_byte_order_mark_stays_in_the_member(world: World) -> None:
    objects = {"a": codecs.BOM_UTF8 + TEXT, "b": codecs.BOM_UTF8, "c": TEXT}
    world.put_all(objects)

    world.deliver(objects)

    assert world.published() == {key: [body] for key, body in objects.items()}
    (bundle,) = world.bundles()
    assert bundle.verify().etags == 3
