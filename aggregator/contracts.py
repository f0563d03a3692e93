"""
Publish the models at our edges as JSON Schemas: `python -m aggregator.contracts DIR` writes them below DIR.

What AWS or a producer writes and we read is a consumer schema: it is open, because AWS adds fields without notice. What
we write and others read, the index of a bundle, is a producer schema. They are draft 2020-12 in the subset that every
validator understands, and generated: a test fails when `contracts/` and the models differ.
"""

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from aggregator.schemas import BundleIndex, EventBridgeNotification, S3Notification, SqsBatch

CONTRACTS: dict[str, tuple[type[BaseModel], JsonSchemaMode]] = {
    "s3-notification/v1/consumer.schema.json": (S3Notification, "validation"),
    "eventbridge-notification/v1/consumer.schema.json": (EventBridgeNotification, "validation"),
    "sqs-batch/v1/consumer.schema.json": (SqsBatch, "validation"),
    "bundle-index/v1/producer.schema.json": (BundleIndex, "serialization"),
}
"""The schemas by their path below `contracts/`: contract, major version and profile."""


def schema(path: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) that is published at `path`, a key of `CONTRACTS`."""
    model, mode = CONTRACTS[path]
    contract, version, file = path.split("/")
    generated: dict[str, Any] = model.model_json_schema(by_alias=True, mode=mode, schema_generator=_Portable)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:data-aggregator:contract:{contract}:{version}:{file.split('.')[0]}",
        "title": contract,
        **generated,
    }


def written(path: str) -> str:
    """The text of the schema at `path`, to the byte."""
    return json.dumps(schema(path), indent=2, ensure_ascii=False) + "\n"


def write(folder: Path) -> None:
    """Write all schemas below `folder`."""
    for path in CONTRACTS:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(written(path), encoding="utf-8", newline="\n")


class _Portable(GenerateJsonSchema):
    """Leaves out what only Pydantic and OpenAPI know, and says as if/then/else what a tagged union means."""

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        tidied: dict[str, Any] = _tidied(super().generate(schema, mode))
        return tidied

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - Pydantic's signature
        return False

    def tagged_union_schema(self, schema: Any) -> dict[str, Any]:
        created, other = (self.generate_inner(schema["choices"][tag]) for tag in ("created", "other"))
        announces = {"required": ["eventName"], "properties": {"eventName": {"pattern": "^ObjectCreated:"}}}
        return {"if": {"type": "object", **announces}, "then": created, "else": other}


def _tidied(node: Any, *, named: bool = False) -> Any:
    """Without titles of classes and null defaults, one paragraph a description; `named`: the keys are field names."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    dropped = set() if named else {"title"} | ({"default"} if node.get("default", 0) is None else set())
    tidied = {
        key: _tidied(value, named=key in {"properties", "$defs"} and not named)
        for key, value in node.items()
        if key not in dropped
    }
    if isinstance(tidied.get("description"), str):
        tidied["description"] = tidied["description"].replace("\n", " ").replace("  ", "\n\n").strip()
    return tidied


if __name__ == "__main__":
    write(Path(sys.argv[1]))
