"""
The source objects: text made from a seed when it is asked for, so that ten of 100 MiB need no more memory than one.

An object's key says its number and its size, so nothing has to be put before it can be read. Its text is a part of one
seeded text, repeated for ever: lines of JSON with ids, times, prices and words, which deflate to about a third. The
text is 128 times as long as deflate's window, so no compressor ever sees it repeat.
"""

import json
import random
import re
from collections.abc import Iterator
from functools import cache
from hashlib import md5
from typing import NamedTuple

TEXT_SIZE = 4 * 1024 * 1024
"""Bytes of text that repeat."""

LINE_SIZE = 256
"""Bytes of each line: an object whose size is a multiple of it holds whole lines."""

BUCKET = "source"

_SEED = 20_261_123
_NAME = re.compile(r"orders/2026/11/23/17/(\d{6})-(\d+)\.json")
_PIECE = 256 * 1024
_WORDS = (
    *(
        "order",
        "parcel",
        "paid",
        "late",
        "early",
        "north",
        "south",
        "customer",
        "asks",
        "for",
        "a",
        "second",
        "address",
    ),
    *(
        "before",
        "noon",
        "gift",
        "wrapped",
        "do",
        "not",
        "bend",
        "fragile",
        "leave",
        "with",
        "neighbour",
        "ring",
        "twice",
    ),
    *("return", "refund", "voucher", "applied", "stock", "reserved", "backorder", "split", "shipment", "left", "only"),
    *(
        "warehouse",
        "three",
        "loading",
        "dock",
        "seven",
        "signature",
        "required",
        "weight",
        "checked",
        "customs",
        "form",
    ),
)


class Object(NamedTuple):
    """A source object: the `number`th of its `size` in bytes."""

    number: int
    size: int

    @classmethod
    def named(cls, key: str) -> "Object | None":
        """The object that is called `key`, if there is one."""
        found = _NAME.fullmatch(key)
        return cls(int(found[1]), int(found[2])) if found else None

    @property
    def key(self) -> str:
        """Its key, dated like those of most producers."""
        return f"orders/2026/11/23/17/{self.number:06d}-{self.size}.json"

    @property
    def etag(self) -> str:
        """Its entity tag, without quotes: as that of an encrypted object, no MD5 of the content."""
        return md5(self.key.encode(), usedforsecurity=False).hexdigest()

    def pieces(self, start: int, end: int) -> Iterator[memoryview]:
        """Its bytes from `start` up to `end`, at most 256 KiB at a time."""
        endless = memoryview(text())
        first = self.number * self.size
        while start < end:
            at = (first + start) % TEXT_SIZE
            piece = endless[at : min(at + end - start, at + _PIECE, TEXT_SIZE)]
            yield piece
            start += len(piece)


@cache
def text() -> bytes:
    """The text that all objects are parts of."""
    chance = random.Random(_SEED)
    return b"".join(_line(chance, number) for number in range(TEXT_SIZE // LINE_SIZE))


def _line(chance: random.Random, number: int) -> bytes:
    order = {
        "order": f"{chance.getrandbits(48):012x}",
        "time": f"2026-11-23T17:{number // 60 % 60:02}:{number % 60:02}.{chance.randrange(1000):03}Z",
        "customer": chance.randrange(100_000),
        "country": chance.choice(["DE", "FR", "IT", "NL", "PL", "SE"]),
        "items": [{"sku": f"SKU-{chance.randrange(5_000):05}", "quantity": chance.randrange(1, 9)}],
        "total": chance.randrange(100, 100_000) / 100,
        "note": "",
    }
    room = LINE_SIZE - 1 - len(json.dumps(order))
    order["note"] = " ".join(chance.choices(_WORDS, k=room // 2))[:room]
    return json.dumps(order).encode() + b"\n"
