"""The examples of a contract: what they are, and whether they show all that its schemas say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs

from aggregator.contracts.catalog import Contract, ContractError, read_json
from aggregator.contracts.gate.compatibility import Schema, Schemas, fields, is_in
from aggregator.contracts.validation import faults_of

_SHOWN = ("const", "enum", "pattern")
_NEVER_FAIL = {
    # Whoever comes here has passed a condition that asks the same.
    ("$defs", "CreatedRecord", "properties", "eventName", "pattern"),
    ("$defs", "CreatedRecord", "required", "eventName"),
}


class Invalid(NamedTuple):
    """An example that must be refused: by whom, where and by which keyword."""

    name: str
    document: Any
    pointer: str
    keyword: str
    rejected_by: tuple[str, ...]


class Examples(NamedTuple):
    """The examples of one contract; the valid ones by their names."""

    valid: dict[str, Any]
    invalid: list[Invalid]

    @property
    def documents(self) -> list[Any]:
        """All of them."""
        return [*self.valid.values(), *(one.document for one in self.invalid)]


def load(folder: Path, one: Contract) -> Examples:
    """The examples of a contract below `folder`, which is `contracts/`."""
    base = folder / one.folder / "examples"
    valid = {path.stem: read_json(path) for path in sorted(base.glob("valid/*.json"))}
    names = [path for path in sorted(base.glob("invalid/*.json")) if not path.name.endswith(".expect.json")]
    return Examples(valid, [_invalid(path) for path in names])


def misjudged(examples: Examples, schemas: Schemas) -> Iterator[str]:
    """Every example that a schema judges otherwise than it is filed, and whatever no example shows."""
    for profile, schema in schemas.items():
        for name, document in examples.valid.items():
            yield from (f"valid/{name}: the {profile} rejects it: {fault}" for fault in faults_of(schema, document))
        for one in examples.invalid:
            found = faults_of(schema, one.document)
            expected = (one.pointer, one.keyword)
            if profile not in one.rejected_by and found:
                yield f"invalid/{one.name}: the {profile} rejects it, and its .expect.json does not say so: {found[0]}"
            elif profile in one.rejected_by and expected not in found:
                yield f"invalid/{one.name}: the {profile} does not report {expected}, but {found}"
        yield from _unshown(examples, profile, schema)


def _unshown(examples: Examples, profile: str, schema: Schema) -> Iterator[str]:
    validator = jsonschema_rs.validator_for(schema)
    failed = {
        place for one in examples.invalid for error in validator.iter_errors(one.document) for place in _at(error)
    }
    for place in sorted(
        set(_demands(schema, ())) - failed - (_NEVER_FAIL if profile == "consumer" else set()), key=str
    ):
        yield f"no invalid example of the {profile} fails {'/'.join(map(str, place))}"
    if profile != "producer":
        return
    for field in sorted(fields(schema)):
        if not any(is_in(document, field.split("/")[1:]) for document in examples.valid.values()):
            yield f"no valid example has {field}"


def _demands(node: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """The place of everything that an example must fail once; a condition is no demand."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _demands(item, (*path, index))
    if not isinstance(node, dict):
        return
    if "properties" in node or "type" in node:
        yield from ((*path, word) for word in _SHOWN if word in node and not isinstance(node[word], dict))
        yield from ((*path, "required", name) for name in node.get("required", ()))
    for word, inner in node.items():
        if word not in {"if", "enum", "required"}:
            yield from _demands(inner, (*path, word))


def _at(error: Any) -> Iterator[tuple[str | int, ...]]:
    place = tuple(error.schema_path)
    yield (*place, error.kind.property) if error.kind.name == "required" else place


def _invalid(path: Path) -> Invalid:
    expected = read_json(path.with_suffix(".expect.json"))
    if not isinstance(expected, dict) or not {"pointer", "keyword", "rejected_by"} <= expected.keys():
        raise ContractError(f"{path} has an .expect.json without pointer, keyword or rejected_by")
    judges = tuple(expected["rejected_by"])
    return Invalid(path.stem, read_json(path), expected["pointer"], expected["keyword"], judges)
