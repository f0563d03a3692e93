"""
Whether a contract may become another one: what is proven, and who would be refused.

A schema is a set of messages. jsonschema-rs can prove that one set contains another (`covers`); its "unknown" counts as
no, so nothing passes that is not proven, and none of the labelled changes that break anyone
(`tests/support/contract_changes.py`) does.
Where there is no proof, messages are tried until one is found that was accepted and is now refused: the victim.

The promises, for each released version of the same major:

    consumer ⊇ producer               what one may write is accepted
    consumer ⊇ released producer      what one was allowed to write is still accepted
    consumer ⊇ released consumer      so is whatever else was accepted, in the fields that were known then
    consumer ∋ released examples      and every message that was shown, with fields that nobody names
    producer ⊇ released producer      and a producer's own check does not begin to fail
    released consumer ⊇ producer      what one may write now, a deployed consumer accepts
    open released producer ⊇ producer what we write (and others read) still has every field it had
    fields ⊇ released fields          no field that was read is ignored from now on

docs/decisions/0010 says why these.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jsonschema_rs

from aggregator.contracts.catalog import Contract, Profile
from aggregator.contracts.mutations import mutants, places, replaced
from aggregator.contracts.validation import places_of

Schema = dict[str, Any]
Schemas = Mapping[Profile, Schema]


class Release(NamedTuple):
    """A released version: its schemas, and messages that were valid then."""

    version: str
    schemas: Schemas
    examples: Sequence[Any]


class Break(NamedTuple):
    """A promise that is not proven: where and whom it breaks; no `victim` where none was found."""

    promise: str
    pointer: str
    victim: Any

    def __str__(self) -> str:
        if self.victim is None:
            return f"{self.promise}: not proven, and no message was found that shows it"
        return f"{self.promise}: {self.pointer}: {json.dumps(self.victim, ensure_ascii=False)}"


def breaks(one: Contract, now: Schemas, releases: Sequence[Release], examples: Sequence[Any]) -> Iterator[Break]:
    """Every promise that a contract as it is now does not provably keep."""
    if "producer" in now:
        yield from _uncovered(now["consumer"], now["producer"], "the consumer rejects what one may write", examples)
    for release in releases:
        pool = (*examples, *release.examples)
        yield from _backward(one, now, release, pool)
        if "producer" in now and (one.lambda_writes or release is releases[-1]):
            promise = f"the consumer of {release.version}, deployed, rejects what one may now write"
            yield from _uncovered(release.schemas["consumer"], now["producer"], promise, pool)
        yield from _lost(now["consumer"], release, pool)


def covers(wide: Schema, narrow: Schema) -> bool:
    """Whether it is proven that `wide` accepts all that `narrow` accepts."""
    proof = jsonschema_rs.canonicalize(wide).covers(jsonschema_rs.canonicalize(narrow))
    return proof is jsonschema_rs.canonical.Containment.YES


def closed(node: Any) -> Any:
    """The schema with every object closed to what it names; a condition asks its question as before."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    shut = {name: value if name == "if" else closed(value) for name, value in node.items()}
    if node.get("type") == "object" and "properties" in node:
        shut.setdefault("additionalProperties", False)
    return shut


def opened(node: Any) -> Any:
    """The schema with no object closed."""
    if isinstance(node, list):
        return [opened(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {name: opened(value) for name, value in node.items() if (name, value) != ("additionalProperties", False)}


def fields(schema: Schema) -> set[str]:
    """The place of every field that a schema names; items of a list share one place."""
    return set(_fields(schema, schema, ""))


def is_in(document: Any, steps: Sequence[str]) -> bool:
    """Whether a document has a field, given by the steps of its place; `*` is any item."""
    if not steps:
        return True
    if steps[0] == "*":
        return isinstance(document, list) and any(is_in(item, steps[1:]) for item in document)
    return isinstance(document, dict) and steps[0] in document and is_in(document[steps[0]], steps[1:])


def _backward(one: Contract, now: Schemas, release: Release, pool: Sequence[Any]) -> Iterator[Break]:
    version, then = release.version, release.schemas
    promise = f"the consumer rejects what {version} accepted"
    still = jsonschema_rs.validator_for(now["consumer"]).is_valid
    if not covers(now["consumer"], closed(then["consumer"])) or not all(map(still, release.examples)):
        yield _victim(now["consumer"], then["consumer"], promise, pool)
    if "producer" not in then:
        return
    promise = f"the consumer rejects what {version} let one write"
    yield from _uncovered(now["consumer"], then["producer"], promise, pool)
    if one.lambda_writes:
        promise = f"what is written lacks what {version} promised"
        yield from _uncovered(opened(then["producer"]), now["producer"], promise, pool)
    else:
        promise = f"the producer schema rejects what {version} let one write"
        yield from _uncovered(now["producer"], then["producer"], promise, pool)


def _uncovered(wide: Schema, narrow: Schema, promise: str, pool: Sequence[Any]) -> Iterator[Break]:
    if not covers(wide, narrow):
        yield _victim(wide, narrow, promise, pool)


def _victim(wide: Schema, narrow: Schema, promise: str, pool: Sequence[Any]) -> Break:
    """A message that `narrow` accepts and `wide` refuses, the plainest first."""
    accepts, refuses = jsonschema_rs.validator_for(narrow), jsonschema_rs.validator_for(wide)
    for document in _candidates(narrow, pool):
        if accepts.is_valid(document) and (error := next(refuses.iter_errors(document), None)):
            pointer, keyword = next(places_of(error))
            return Break(promise, f"{pointer or '(root)'}: {keyword}", document)
    return Break(promise, "", None)


def _candidates(schema: Schema, pool: Sequence[Any]) -> Iterator[Any]:
    """Examples, then examples with values that the schema itself suggests, then every small change of them."""
    yield from pool
    for document in pool:
        for place, _ in places(document):
            for value in _suggested(_at(schema, schema, place)):
                yield replaced(document, place, value)
    for document in pool:
        yield from (mutant.document for mutant in mutants(document))


def _suggested(node: Schema) -> Iterator[Any]:
    """Values at the limits of what a schema allows in one place."""
    yield from node.get("enum", ())
    for limit in ("minimum", "maximum"):
        if limit in node:
            yield node[limit]
    for limit in ("minLength", "maxLength"):
        if limit in node:
            yield "a" * node[limit]
    if "null" in node.get("type", ()):
        yield None


def _at(root: Schema, node: Schema, place: Sequence[str | int]) -> Schema:
    """What a schema says of one place; nothing where it says nothing."""
    node = _resolved(root, node)
    if not place:
        return node
    step, *rest = place
    inner = node.get("items", {}) if isinstance(step, int) else node.get("properties", {}).get(step, {})
    return _at(root, inner.get("then", inner), rest)


def _lost(consumer: Schema, release: Release, pool: Sequence[Any]) -> Iterator[Break]:
    """The fields that a released consumer read and this one does not."""
    for field in sorted(fields(release.schemas["consumer"]) - fields(consumer)):
        steps = field.split("/")[1:]
        victim = next((document for document in pool if is_in(document, steps)), None)
        yield Break(f"the consumer no longer reads what {release.version} read", field, victim)


def _fields(root: Schema, node: Schema, path: str) -> Iterator[str]:
    node = _resolved(root, node)
    for name, inner in node.get("properties", {}).items():
        yield f"{path}/{name}"
        yield from _fields(root, inner, f"{path}/{name}")
    for branch, step in (("then", ""), ("else", ""), ("items", "/*")):
        if branch in node:
            yield from _fields(root, node[branch], f"{path}{step}")


def _resolved(root: Schema, node: Schema) -> Schema:
    while "$ref" in node:
        target: Any = root
        for step in node["$ref"].split("/")[1:]:
            target = target[step]
        node = target
    return node
