"""
Write `contracts/` from the models: `just contracts`; a test fails when that changes a file.

The schemas are draft 2020-12 in the subset that draft-07 shares and every validator understands, so that the draft-07
twin says the same (docs/decisions/0009). Examples, README and CHANGELOG are written by people, and only listed here.
`python -m aggregator.contracts.gate.publishing contracts --release` snapshots each version that is not released yet.
"""

import argparse
import ast
import hashlib
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode

from aggregator import schemas
from aggregator.bundles.index import BundleIndex
from aggregator.contracts import producers
from aggregator.contracts.catalog import CONTRACTS, DRAFT_07, DRAFT_2020, Contract, ContractError, Profile, contract
from aggregator.contracts.gate.compatibility import closed
from aggregator.pipeline.telemetry import DIMENSIONS, METRICS, NAMESPACE
from aggregator.pipeline.tracing import ATTRIBUTES, SPANS


class Source(NamedTuple):
    """A model and how it is read: what it accepts (`validation`), or what it writes (`serialization`)."""

    model: type[BaseModel]
    mode: JsonSchemaMode = "validation"


SOURCES: dict[tuple[str, Profile], Source] = {
    ("s3-notification", "producer"): Source(producers.S3Notification),
    ("s3-notification", "consumer"): Source(schemas.S3Notification),
    ("eventbridge-notification", "producer"): Source(producers.EventBridgeNotification),
    ("eventbridge-notification", "consumer"): Source(schemas.EventBridgeNotification),
    ("sqs-batch", "consumer"): Source(schemas.SqsBatch),
    ("bundle-index", "producer"): Source(BundleIndex, "serialization"),
    ("bundle-index", "consumer"): Source(BundleIndex),
}

ON_THE_QUEUE = ("s3-notification", "eventbridge-notification")
"""The contracts of what lies on the source queue."""


_PACKAGE = Path(schemas.__file__).parent


def generate() -> dict[str, str]:
    """The text of every generated file but the catalogue, by its path below `contracts/`."""
    texts = {"asyncapi.json": text(asyncapi()), "telemetry.json": text(telemetry())}
    for one in CONTRACTS:
        for profile in one.profiles:
            document = schema(one, profile)
            texts[f"{one.folder}/{profile}.schema.json"] = text(document)
            texts[f"{one.folder}/draft-07/{profile}.schema.json"] = text(twin(document))
    return texts


def schema(one: Contract, profile: Profile) -> dict[str, Any]:
    """The JSON Schema of a profile (draft 2020-12), from its model."""
    model, mode = SOURCES[one.name, profile]
    generated: dict[str, Any] = model.model_json_schema(by_alias=True, mode=mode, schema_generator=_Portable)
    if profile == "producer":
        generated = closed(generated)
    return {
        "$schema": DRAFT_2020,
        "$id": f"urn:data-aggregator:contract:{one.name}:v{one.major}:{profile}",
        "title": f"{one.name} v{one.major}, {profile}",
        **generated,
    }


def twin(document: dict[str, Any]) -> dict[str, Any]:
    """The same schema in draft-07: another dialect, and `definitions` for `$defs`."""
    moved = json.loads(json.dumps(document).replace('"#/$defs/', '"#/definitions/'))
    return {
        ("definitions" if name == "$defs" else name): value
        for name, value in (moved | {"$schema": DRAFT_07, "$id": f"{document['$id']}:draft-07"}).items()
    }


def telemetry() -> dict[str, Any]:
    """Names that alarms and dashboards build on, of log events, metrics, spans and attributes, and what they mean."""
    return {
        "namespace": NAMESPACE,
        "log_events": {name: meaning for events in log_events().values() for name, meaning in events.items()},
        "metrics": {
            name: {
                "unit": unit.value,
                "dimensions": ["service", *([DIMENSIONS[name]] if name in DIMENSIONS else [])],
                "description": meaning,
            }
            for name, (unit, meaning) in METRICS.items()
        },
        "spans": dict(SPANS),
        "span_attributes": {
            name: {"spans": spans.split(", "), "description": meaning} for name, (spans, meaning) in ATTRIBUTES.items()
        },
    }


def log_events() -> dict[str, dict[str, str]]:
    """The `LOG_EVENTS` of each module that has some, by its path; read from the source, so that none is forgotten."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and any(
                isinstance(to, ast.Name) and to.id == "LOG_EVENTS" for to in node.targets
            ):
                found[path.relative_to(_PACKAGE).as_posix()] = ast.literal_eval(node.value)
    return found


def asyncapi() -> dict[str, Any]:
    """The queue and its messages, as an AsyncAPI 3.0 document (whose tools must read draft-07)."""
    channel = "#/channels/notifications"
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Data aggregator",
            "version": "1.0.0",
            "description": "Many small S3 objects become few large gzip bundles; producers announce them on a queue.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "notifications": {
                "address": None,
                "title": "The source queue",
                "description": "An SQS queue; its name is the deployment's. A body is one of these messages, or an SNS "
                "envelope (Type: Notification) whose Message is the text of one.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in ON_THE_QUEUE},
            }
        },
        "operations": {
            "aggregate": {
                "action": "receive",
                "channel": {"$ref": channel},
                "summary": "The announced objects go into a bundle, each once.",
                "messages": [{"$ref": f"{channel}/messages/{name}"} for name in ON_THE_QUEUE],
            }
        },
        "components": {"messages": {name: _message(contract(name)) for name in ON_THE_QUEUE}},
    }


def text(document: Any) -> str:
    """A JSON document as it is committed, to the byte."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def catalog(folder: Path) -> dict[str, Any]:
    """The index for machines: ids, files and hashes of every contract below `folder`, which holds all but the index."""
    return {
        "contracts": [_entry(one, folder) for one in CONTRACTS],
        "documents": {name: _file(folder / f"{name}.json", folder) for name in ("asyncapi", "telemetry")},
    }


def write(folder: Path) -> None:
    """Write what is generated below `folder`."""
    for path, content in generate().items():
        _save(folder / path, content)
    _save(folder / "catalog.json", text(catalog(folder)))


def release(folder: Path) -> list[str]:
    """Snapshot every version that is not released yet; the names of those that now are."""
    fresh = [one for one in CONTRACTS if not (folder / one.folder / "released" / one.version).exists()]
    for one in fresh:
        base = folder / one.folder / "released" / one.version
        for profile in one.profiles:
            document = schema(one, profile)
            document["$id"] = f"urn:data-aggregator:contract:{one.name}:v{one.version}:{profile}"
            _save(base / f"{profile}.schema.json", text(document))
        examples = sorted((folder / one.folder / "examples" / "valid").glob("*.json"))
        lines = [json.dumps(json.loads(path.read_text("utf-8")), ensure_ascii=False) for path in examples]
        _save(base / "examples.jsonl", "".join(f"{line}\n" for line in lines))
    write(folder)
    return [f"{one.name} {one.version}" for one in fresh]


def _message(one: Contract) -> dict[str, Any]:
    return {
        "name": one.name,
        "title": one.label,
        "summary": one.summary,
        "contentType": "application/json",
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-07",
            "schema": {"$ref": f"./{one.folder}/draft-07/consumer.schema.json"},
        },
    }


def _entry(one: Contract, folder: Path) -> dict[str, Any]:
    base = folder / one.folder
    return {
        "name": one.name,
        "major": one.major,
        "version": one.version,
        "status": "informative" if one.profiles == ("consumer",) else "stable",
        "deprecated_after": None,
        "written_by": one.written_by,
        "summary": one.summary,
        "profiles": {profile: _profile(one, profile, folder) for profile in one.profiles},
        "examples": {
            "valid": [_file(path, folder) for path in sorted(base.glob("examples/valid/*.json"))],
            "invalid": [
                {**_file(path, folder), "expect": _file(path.with_suffix(".expect.json"), folder)["path"]}
                for path in sorted(base.glob("examples/invalid/*.json"))
                if not path.name.endswith(".expect.json")
            ],
        },
        "released": _released(one, folder),
    }


def _released(one: Contract, folder: Path) -> list[dict[str, Any]]:
    """The released versions: what the catalogue says of one once, it says for ever, so that a change is seen."""
    index = folder / "catalog.json"
    known = json.loads(index.read_text("utf-8"))["contracts"] if index.exists() else []
    kept = [entry for before in known if before["name"] == one.name for entry in before["released"]]
    versions = {entry["version"] for entry in kept}
    snapshots = sorted((folder / one.folder).glob("released/*"), key=lambda path: version_key(path.name))
    return kept + [
        {"version": snapshot.name, "files": [_file(path, folder) for path in sorted(snapshot.iterdir())]}
        for snapshot in snapshots
        if snapshot.name not in versions
    ]


def version_key(version: str) -> tuple[int, ...]:
    """
    Versions in their order: 1.10.0 comes after 1.9.0.

    Raises:
        ContractError: it is not a version.

    """
    if not re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", version):
        raise ContractError(f"{version!r} is not a version: it must be three numbers")
    return tuple(int(part) for part in version.split("."))


def _profile(one: Contract, profile: Profile, folder: Path) -> dict[str, Any]:
    current = folder / one.folder / f"{profile}.schema.json"
    older = folder / one.folder / "draft-07" / f"{profile}.schema.json"
    return {
        "id": json.loads(current.read_text("utf-8"))["$id"],
        **_file(current, folder),
        "draft-07": {"id": json.loads(older.read_text("utf-8"))["$id"], **_file(older, folder)},
    }


def _file(path: Path, folder: Path) -> dict[str, str]:
    return {"path": path.relative_to(folder).as_posix(), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def _save(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")


class _Portable(GenerateJsonSchema):
    """Leaves out what only Pydantic and OpenAPI know, and says as if/then/else what a tagged union means."""

    def generate(self, schema: Any, mode: JsonSchemaMode = "validation") -> dict[str, Any]:
        tidied: dict[str, Any] = _tidied(super().generate(schema, mode))
        return tidied

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - Pydantic's signature
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        """What we write, we always write, a default too, unless the model leaves it out on purpose (`exclude_if`)."""
        if "serialization_exclude_if" in field:
            return False
        return self.mode == "serialization" or super().field_is_required(field, total)

    def nullable_schema(self, schema: Any) -> dict[str, Any]:
        """`type: [x, null]` for one of the two: it says the same, and an error in it names its keyword."""
        inner = self.generate_inner(schema["schema"])
        if "const" in inner:
            inner["enum"] = [inner.pop("const"), None]
        elif "enum" in inner:
            inner["enum"] = [*inner["enum"], None]
        return {**inner, "type": [inner["type"], "null"]}

    def tagged_union_schema(self, schema: Any) -> dict[str, Any]:
        created, other = (self.generate_inner(schema["choices"][tag]) for tag in ("created", "other"))
        name = {"type": "string", "pattern": "^ObjectCreated:"}
        announces = {"type": "object", "required": ["eventName"], "properties": {"eventName": name}}
        return {"if": announces, "then": created, "else": other}


def _tidied(node: Any, *, named: bool = False) -> Any:
    """Without titles of classes and defaults, one paragraph a description; `named`: the keys are field names."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidied = {
        key: _tidied(value, named=key in {"properties", "$defs"} and not named)
        for key, value in node.items()
        if named or key not in {"title", "default"}
    }
    if isinstance(tidied.get("description"), str):
        tidied["description"] = tidied["description"].replace("\n", " ").replace("  ", "\n\n").strip()
    return tidied


def _main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m aggregator.contracts.gate.publishing", description=(__doc__ or "").strip()
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--release", action="store_true", help="snapshot what is not released yet")
    given = parser.parse_args()
    if given.release:
        print("\n".join(release(given.folder)) or "every version is released")  # noqa: T201
    else:
        write(given.folder)


if __name__ == "__main__":
    _main()
