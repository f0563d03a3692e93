r"""
Rules for a schema that every validator reads alike: the subset of draft-07 and draft 2020-12 that all of them know.

Each rule was a difference once. `format`, `discriminator` and `contentSchema` are checked by some validators and passed
over by others; `\d` is ten digits to one and hundreds to another; `default: null` refuses what it offers.
"""

import re
from collections.abc import Iterator
from typing import Any

from aggregator.contracts.catalog import DRAFT_07, DRAFT_2020, Profile

KEYWORDS = {
    "$schema", "$id", "$defs", "definitions", "$ref", "$comment", "title", "description", "type", "const", "enum",
    "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "minLength", "maxLength",
    "pattern", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "anyOf", "allOf", "if", "then", "else",
}  # fmt: skip
"""What a schema may say; the list grows when every validator that we run agrees on one more."""

_NAMED = {"properties", "$defs", "definitions"}
_ESCAPES = re.compile(r"\\[dDwWsSbBpPuUxX0-9]|\(\?(?!:)")


def lint(schema: dict[str, Any], profile: Profile) -> Iterator[tuple[str, str]]:
    """The pointer and the words of every rule that a schema breaks."""
    if schema.get("$schema") not in (DRAFT_2020, DRAFT_07):
        yield "/$schema", "names another dialect"
    for pointer, node, asks in _nodes(schema, "", asks=False):
        yield from (
            (f"{pointer}/{word}", "is a keyword outside the portable subset") for word in sorted({*node} - KEYWORDS)
        )
        yield from _references(pointer, node)
        if _ESCAPES.search(node.get("pattern", "")):
            yield f"{pointer}/pattern", "uses an escape or a group that regular expression engines read differently"
        yield from _undescribed(pointer, node, asks)
        yield from _openness(pointer, node, profile, asks)


def _references(pointer: str, node: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "$ref" not in node:
        return
    if not node["$ref"].startswith("#/"):
        yield f"{pointer}/$ref", "leads out of the file"
    if len(node) > 1:
        yield f"{pointer}/$ref", "has siblings, which draft-07 passes over"


def _undescribed(pointer: str, node: dict[str, Any], asks: bool) -> Iterator[tuple[str, str]]:
    for name, field in node.get("properties", {}).items():
        if not asks and not {"description", "$ref"} & field.keys():
            yield f"{pointer}/properties/{name}", "has no description"


def _openness(pointer: str, node: dict[str, Any], profile: Profile, asks: bool) -> Iterator[tuple[str, str]]:
    others = node.get("additionalProperties", True)
    if profile == "consumer" and others is not True:
        yield f"{pointer}/additionalProperties", "closes an object of a consumer: AWS adds fields"
    if profile == "producer" and "properties" in node and others is not False and not asks:
        yield pointer, "leaves an object of a producer open: a misspelt field would pass"


def _nodes(node: Any, pointer: str, *, asks: bool) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Every subschema; `asks` where it is a condition, which judges nothing."""
    if not isinstance(node, dict):
        return
    yield pointer, node, asks
    for word, value in node.items():
        asked = asks or word == "if"
        if word in _NAMED:
            for name, inner in value.items():
                yield from _nodes(inner, f"{pointer}/{word}/{name}", asks=asked)
        elif word in {"anyOf", "allOf"}:
            for index, inner in enumerate(value):
                yield from _nodes(inner, f"{pointer}/{word}/{index}", asks=asked)
        elif word not in {"const", "enum"}:
            yield from _nodes(value, f"{pointer}/{word}", asks=asked)
