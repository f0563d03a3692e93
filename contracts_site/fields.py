"""The fields of a schema as a nested list: name, type, whether it is required, what it is, what it must be."""

import json
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

from contracts_site.markup import Child, prose, tag

Node = dict[str, Any]


class UnshowableError(ValueError):
    """The contracts say something that the page cannot show or check."""


LIMITS = {
    "minLength": "at least {:,} characters",
    "maxLength": "at most {:,} characters",
    "minItems": "at least {:,} items",
    "maxItems": "at most {:,} items",
    "minimum": "at least {:,}",
    "maximum": "at most {:,}",
    "exclusiveMinimum": "greater than {:,}",
    "exclusiveMaximum": "less than {:,}",
}
VALUES = {"const", "enum", "pattern"}
STRUCTURE = {"properties", "required", "additionalProperties", "items", "anyOf", "allOf", "if", "then", "else", "$ref"}
WORDS = {"type", "description", "title", "$schema", "$id", "$defs", "definitions", "$comment"}


def field_list(schema: Node) -> list[ET.Element]:
    """What a schema says, of the document as a whole and of each field."""
    return [*prose(schema.get("description", "")), *_inside(schema, schema)]


def _inside(node: Node, root: Node) -> Iterator[ET.Element]:
    """What is nested in a value: fields, items, alternatives."""
    node = _resolved(node, root)
    if "properties" in node:
        required = node.get("required", ())
        rows = [_field(name, field, name in required, root) for name, field in node["properties"].items()]
        yield tag("ul", *rows, class_="fields")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _group("Any other name", node["additionalProperties"], root)
    if "items" in node:
        item = _resolved(node["items"], root)
        yield from _rules(item, "each item ")
        yield from _inside(item, root)
    if "if" in node:
        yield from _group(f"Where {_condition(node['if'])}", node.get("then", {}), root)
        yield from _group("Elsewhere", node.get("else", {}), root)
    for number, inner in enumerate(node.get("anyOf", ()), 1):
        yield from _group(f"Alternative {number}", inner, root)


def _field(name: str, node: Node, is_required: bool, root: Node) -> ET.Element:
    node = _resolved(node, root)
    need = tag("span", "required", class_="required") if is_required else tag("span", "optional", class_="optional")
    head = tag("p", tag("code", name, class_="name"), " ", tag("span", type_of(node, root), class_="type"), " ", need)
    head.set("class", "field")
    return tag("li", head, *prose(node.get("description", "")), *_rules(node), *_inside(node, root))


def _group(title: str, node: Node, root: Node) -> Iterator[ET.Element]:
    node = _resolved(node, root)
    about = prose(node.get("description", ""))
    kind = [] if "properties" in node else [tag("p", tag("span", type_of(node, root), class_="type"))]
    yield tag("div", tag("p", title, class_="case"), *about, *kind, *_rules(node), *_inside(node, root), class_="group")


def type_of(node: Node, root: Node) -> str:
    """The type of a value in words."""
    if "type" not in node:
        return "any" if "anyOf" not in node else "one of several"
    names = node["type"] if isinstance(node["type"], list) else [node["type"]]
    if names == ["array"] and "items" in node:
        item = _resolved(node["items"], root)
        words = type_of(item, root) if "type" in item else "object"
        return f"array of {words if ' or ' in words else f'{words}s'}"
    return " or ".join(names)


def _rules(node: Node, prefix: str = "") -> Iterator[ET.Element]:
    rules = [*_constraints(node)]
    if rules:
        yield tag("ul", *(tag("li", prefix, *rule) for rule in rules), class_="rules")


def _constraints(node: Node) -> Iterator[list[Child]]:
    for word, limit in node.items():
        if word in LIMITS:
            told = LIMITS[word].format(limit)
            yield [told.removesuffix("s") if limit == 1 else told]
        elif word in VALUES:
            yield _values(word, limit)
    for inner in node.get("allOf", ()):
        about = [f"{inner['description']}: "] if "description" in inner else []
        yield from ([*about, *rule] for rule in _constraints(inner))


def _values(word: str, limit: Any) -> list[Child]:
    """What a value must match, or be one of."""
    if word == "pattern":
        return ["matches ", tag("code", limit)]
    values = limit if word == "enum" else [limit]
    codes = [child for value in values for child in (" or ", tag("code", json.dumps(value)))]
    return ["is ", *codes[1:]]


def _condition(node: Node) -> str:
    """What an `if` asks of its fields, in words."""
    return " and ".join(_asked(name, field) for name, field in node.get("properties", {}).items())


def _asked(name: str, field: Node) -> str:
    if "pattern" in field:
        return f"{name} matches {field['pattern']}"
    if "const" in field:
        return f"{name} is {json.dumps(field['const'])}"
    raise UnshowableError(f"no words for the condition on {name}")


def _resolved(node: Node, root: Node) -> Node:
    if "$ref" not in node:
        return node
    found = root
    for step in node["$ref"].split("/")[1:]:
        found = found[step]
    return _resolved(found, root)
