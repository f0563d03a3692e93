"""
How much of its capacity DynamoDB counts for a read and for a write.

By its developer guide: "DynamoDB item sizes and formats", and "DynamoDB read and write operations". Pure.
"""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

Item = dict[str, dict[str, Any]]

_READ, _WRITTEN = 4_096, 1_024
"""Bytes in one read unit, and in one write unit."""


def write_units(*states: Item | None) -> int:
    """Of a write, whether its condition holds or not: the larger counts of what is there and what is to be there."""
    return max(1, *(math.ceil(item_size(item) / _WRITTEN) for item in states if item))


def read_units(item: Item | None, *, consistent: bool) -> float:
    """Of a read, whether it finds something or not; half as many if it may find what is not the latest."""
    units = max(1, math.ceil(item_size(item or {}) / _READ))
    return units if consistent else units / 2


def item_size(item: Item) -> int:
    """
    Bytes of an item, as DynamoDB counts them: names and values.

    Raises:
        KeyError: a value is neither a string nor a number.
    """
    return sum(
        len(name.encode()) + _SIZES[kind](value) for name, typed in item.items() for kind, value in typed.items()
    )


def _number_size(value: str) -> int:
    """A byte for two digits, zeros at both ends left out, and one more."""
    digits = "".join(map(str, Decimal(value).as_tuple().digits)).strip("0")
    return math.ceil(len(digits) / 2) + 1


_SIZES: dict[str, Callable[[str], int]] = {"S": lambda value: len(value.encode()), "N": _number_size}
