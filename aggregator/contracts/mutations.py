"""
One thing wrong at a time: every small change of a JSON document, without end or luck.

They find where two judges part: the schema and the model, two validators, a contract and its next version.
"""

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1.0, 1.5, -0.5, 10**30, 2**32, 2**63, 1e300,
    "", "x", "0", "10", "2.1", "3.0", "2.10", "2.", "null", "true", "\x00", "é", "\u0662.\u0661", "🦊", "a b", "a+b",
    "%", "%FF", "%C3%A9", "aws:s3", "aws.s3", "ObjectCreated:", "ObjectCreated:Put", "ObjectCreated:Get",
    "ObjectRemoved:Delete", "2026-11-23T14:00:00Z", "2026-11-23T14:00:00.123456Z",
    "2026-11-23T14:00:00+00:00", "gzip", "lines",
    [], [None], [0], [""], {}, {"x": None}, {"name": "source"}, {"key": "a"},
)  # fmt: skip
"""What is put in the place of each value."""


class Mutant(NamedTuple):
    """A document with one change: where, and what was done."""

    pointer: tuple[str | int, ...]
    change: str
    document: Any


def mutants(document: Any) -> Iterator[Mutant]:
    """Every change of one place: another value, a value bent, a field gone, misspelt or unknown, an item twice."""
    for place, value in places(document):
        for other in (*VALUES, *_bent(value)):
            if not _same(other, value):
                yield Mutant(place, f"is {_short(other)}", replaced(document, place, other))
        if isinstance(value, dict):
            yield Mutant(place, "has an unknown field", replaced(document, place, {**value, "unknown": 1}))
            for name in value:
                fewer = {key: item for key, item in value.items() if key != name}
                yield Mutant((*place, name), "is gone", replaced(document, place, fewer))
                yield Mutant(
                    (*place, name), "is misspelt", replaced(document, place, {**fewer, f"{name}_": value[name]})
                )
        if isinstance(value, list) and value:
            yield Mutant(place, "is twice as long", replaced(document, place, value * 2))


def places(document: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value of a document, and where it stands."""
    yield at, document
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for step, child in children:
        yield from places(child, (*at, step))


def replaced(document: Any, place: tuple[str | int, ...], value: Any) -> Any:
    """The document with another value in one place; it shares with the first one what did not change."""
    if not place:
        return value
    step, *rest = place
    changed = copy.copy(document)
    changed[step] = replaced(document[step], tuple(rest), value)
    return changed


def _bent(value: Any) -> tuple[Any, ...]:
    """Values that are nearly the same."""
    if isinstance(value, str):
        return (
            f"{value}\n", f" {value}", f"{value} ", value.upper(), value.lower(), f"{value}é", f"{value}0", value[:-1],
            value[:3], value * 12, value * 300, value + "a" * 1_024, value + "a" * 3_072,
        )  # fmt: skip
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value), float(value), value + 0.5, -value - 1
    return ()


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 40 else f"{shown[:36]}…"
