"""What is not text is told apart by its first bytes."""

import bz2
import codecs
import gzip
import lzma
import random
import zipfile
from io import BytesIO

import pytest

from aggregator.pipeline.content import KINDS, binary_kind

LINES = b'{"order": 1, "city": "M\xc3\xbcnchen"}\n' * 3_000


def zipped() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", LINES)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (bz2.compress(LINES), "bzip2"),
        (lzma.compress(LINES), "xz"),
        (gzip.compress(LINES), "gzip"),
        (zipped(), "zip"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd"),
        (b"PAR1\x15\x04\x15\x00", "parquet"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\r", "image"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image"),
        (random.Random(3).randbytes(100), "other"),
        ("Ärger".encode("latin-1"), "other"),
        (codecs.BOM_UTF16 + "text".encode("utf-16"), "other"),
        (LINES + b"\0", None),  # beyond what is looked at
        (b"a\0b", "other"),
    ],
)
def test_what_is_not_text_has_a_kind(content: bytes, kind: str | None) -> None:
    assert binary_kind(content) == binary_kind(memoryview(content)) == kind
    assert kind is None or kind in KINDS


@pytest.mark.parametrize(
    "content", [b"", LINES, codecs.BOM_UTF8 + LINES, b"ORC,BZh\n1,2\n", b"PAR1 is a word", b"\x1b[1mbold\x1b[0m\r\n"]
)
def test_text_has_no_kind(content: bytes) -> None:
    assert binary_kind(content) is None


def test_a_character_that_is_cut_where_the_look_ends_is_text() -> None:
    for shift in range(4):
        assert binary_kind(b"x" * shift + "🦊".encode() * 20_000) is None
