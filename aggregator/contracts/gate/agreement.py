"""
Whether a model and its schema say the same: on what factories build, and on every small change of every example.

They part where a schema cannot say what the model must know. `PARTINGS` is the whole list; each entry is a message that
the schema accepts and the Lambda refuses. There is none the other way round.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import jsonschema_rs
from polyfactory import Use
from polyfactory.factories.pydantic_factory import ModelFactory
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aggregator.bundles.index import timestamp
from aggregator.contracts.mutations import mutants

INSTANCES = 100
"""How many instances of each model are built."""

PARTINGS: dict[str, Callable[[ErrorDetails], bool]] = {
    # To JSON Schema 3.0 is an integer (draft 2020-12, 6.1.1); to the Lambda it is not: nobody counts half bytes.
    "a whole number with a decimal point": lambda fault: (
        fault["type"] in {"int_type", "int_from_float"}
        and isinstance(fault["input"], float)
        and fault["input"] % 1 == 0
    ),
    # maxLength counts characters, S3 bytes of UTF-8. The producer schema of S3 counts escapes, and does not part.
    "a key that is too long in bytes": lambda fault: "key is longer than" in fault["msg"],
    # Exact, the pattern would have 900 characters. The producer schema of S3 has it, and does not part.
    "a key whose escapes are not UTF-8": lambda fault: "key is not UTF-8" in fault["msg"],
    # Version 1.0.0 of the schema lets pass any event that is no creation; the Lambda skips what is on a closed list.
    "an event that is not known": lambda fault: fault["type"] == "unknown_event",
    # To version 1.0.0 of the schema s3:ObjectCreated:Put is no creation; the Lambda reads it as strictly as any other.
    "a creation under the name of the configuration": lambda fault: "prefixed" in fault["loc"],
    # Bounds of our reader, for bundles of strangers. Nothing that S3 has a name or a number for exceeds them, and a
    # schema with them would break version 1.0.0.
    "a number in an index that no reader can hold": lambda fault: str(2**63) in fault["msg"],
    "a name in an index that is longer than any of S3's": lambda fault: (
        "at most 1024 characters" in fault["msg"] or "is longer than 1,024 bytes" in fault["msg"]
    ),
    "a day in an index that no calendar has": lambda fault: fault["loc"] == ("created",),
}


GIVEN = {"created": lambda: timestamp(ModelFactory.__random__.uniform(0, 4e9))}
"""How a value is made of which the type says too little."""


def disagreements(model: type[BaseModel], schema: dict[str, Any], documents: Iterable[Any]) -> Iterator[str]:
    """Where a model and its schema part on documents, but for `PARTINGS`."""
    validator = jsonschema_rs.validator_for(schema)
    for document in documents:
        faults = _faults(model, document)
        if validator.is_valid(document):
            unknown = [fault for fault in faults if not any(parts(fault) for parts in PARTINGS.values())]
            if unknown:
                why = f"{unknown[0]['loc']}: {unknown[0]['msg']}"
                yield f"the schema accepts what the model rejects: {why}: {_shown(document)}"
        elif not faults:
            error = next(validator.iter_errors(document))
            why = f"{error.instance_path}: {error.kind.name}"
            yield f"the model accepts what the schema rejects: {why}: {_shown(document)}"


def instances(model: type[BaseModel]) -> Iterator[Any]:
    """
    Documents of a model with whatever values its types allow.

    Raises:
        RuntimeError: hardly any value that is made is a value of the model.
    """
    given = {name: Use(value) for name, value in GIVEN.items() if name in model.model_fields}
    options: dict[str, Any] = {"__randomize_collection_length__": True, "__max_collection_length__": 4, **given}
    factory = ModelFactory.create_factory(model, **options)
    built = 0
    for _ in range(100 * INSTANCES):
        with suppress(ValidationError):  # polyfactory counts characters of a key, too
            yield factory.build().model_dump(mode="json", by_alias=True, exclude_none=True)
            built += 1
        if built == INSTANCES:
            return
    raise RuntimeError(f"{model.__name__}: {built} of {INSTANCES} instances could be made")


def changed(examples: Iterable[Any]) -> Iterator[Any]:
    """Every small change of the examples."""
    return (mutant.document for example in examples for mutant in mutants(example))


def _faults(model: type[BaseModel], document: Any) -> list[ErrorDetails]:
    try:
        model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False)
    return []


def _shown(document: Any) -> str:
    return json.dumps(document)[:400]
