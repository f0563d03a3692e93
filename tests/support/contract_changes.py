"""
Labelled changes of the contracts: each is known to break somebody or nobody, and the gate is judged by them.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aggregator.contracts.catalog import Profile, contract
from aggregator.contracts.gate.compatibility import Break, Release, Schemas, breaks

Change = Callable[[Any], None]


class Mutation(NamedTuple):
    """A change of a contract: what it does to each profile."""

    what: str
    contract: str
    changes: Mapping[Profile, Change]


class Trial(NamedTuple):
    """What the gate said of a mutation."""

    mutation: Mutation
    breaks: list[Break]


def trials(
    mutations: Sequence[Mutation], schemas: Mapping[str, Schemas], examples: Mapping[str, Sequence[Any]]
) -> list[Trial]:
    """Put mutations of these schemas to the gate, as if the schemas were released."""
    found = []
    for mutation in mutations:
        one, before = contract(mutation.contract), schemas[mutation.contract]
        after = {profile: copy.deepcopy(schema) for profile, schema in before.items()}
        for profile, change in mutation.changes.items():
            change(after[profile])
        pool = examples[mutation.contract]
        found.append(Trial(mutation, list(breaks(one, after, [Release(one.version, before, pool)], pool))))
    return found


def _put(path: str, value: Any) -> Change:
    """Put `value` at a path of the schema; steps are separated by blanks."""

    def change(schema: Any) -> None:
        *steps, last = path.split()
        for step in steps:
            schema = schema[step]
        schema[last] = value

    return change


def _drop(path: str) -> Change:
    def change(schema: Any) -> None:
        *steps, last = path.split()
        for step in steps:
            schema = schema[step]
        del schema[last]

    return change


def _drop_field(definition: str, field: str) -> Change:
    def change(schema: Any) -> None:
        owner = schema["$defs"][definition] if definition else schema
        del owner["properties"][field]
        owner["required"] = [name for name in owner.get("required", ()) if name != field]

    return change


def _rename_field(definition: str, field: str, new: str) -> Change:
    def change(schema: Any) -> None:
        owner = schema["$defs"][definition]
        owner["properties"] = {new if name == field else name: value for name, value in owner["properties"].items()}
        owner["required"] = [new if name == field else name for name in owner.get("required", ())]

    return change


def _require(definition: str, field: str, schema_of_field: Any = None) -> Change:
    def change(schema: Any) -> None:
        owner = schema["$defs"][definition]
        if schema_of_field is not None:
            owner["properties"][field] = schema_of_field
        owner["required"] = [*owner["required"], field]

    return change


def _both(change: Change) -> dict[Profile, Change]:
    return {"producer": change, "consumer": change}


def _consumer(change: Change) -> dict[Profile, Change]:
    return {"consumer": change}


def _producer(change: Change) -> dict[Profile, Change]:
    return {"producer": change}


def _inline_bucket(schema: Any) -> None:
    schema["$defs"]["S3Entity"]["properties"]["bucket"] = schema["$defs"].pop("Bucket")


def _rename_definition(schema: Any) -> None:
    schema["$defs"]["TheBucket"] = schema["$defs"].pop("Bucket")
    schema["$defs"]["S3Entity"]["properties"]["bucket"] = {"$ref": "#/$defs/TheBucket"}


_S3, _EB, _SQS, _INDEX = "s3-notification", "eventbridge-notification", "sqs-batch", "bundle-index"
_RECORD, _OBJECT = "$defs CreatedRecord properties", "$defs NotifiedObject properties"
_BUCKET, _EB_OBJECT = "$defs Bucket properties name pattern", "$defs EventBridgeObject properties"
_COLUMNS, _FRAMING = "$defs MemberColumns properties", "properties framing enum"
_WAYS = [f"ObjectCreated:{way}" for way in ("Put", "Post", "Copy", "CompleteMultipartUpload")]
_TEXT, _COUNTS = {"type": "string", "description": "new"}, {"type": "array", "items": {"type": "integer"}}

BREAKING = (
    Mutation("removes a field", _S3, _both(_drop_field("NotifiedObject", "eTag"))),
    Mutation("removes a field from the producer", _S3, _producer(_drop_field("NotifiedObject", "sequencer"))),
    Mutation("stops reading a field", _S3, _consumer(_drop_field("NotifiedObject", "versionId"))),
    Mutation("renames an optional key", _S3, _both(_rename_field("NotifiedObject", "size", "bytes"))),
    Mutation("renames a required key", _S3, _both(_rename_field("Bucket", "name", "bucketName"))),
    Mutation("renames a key of EventBridge", _EB, _both(_rename_field("EventBridgeObject", "version-id", "versionId"))),
    Mutation("tightens a pattern", _S3, _both(_put(f"{_RECORD} eventVersion pattern", r"^2\.[0-9]$"))),
    Mutation("tightens a pattern to lower case", _S3, _both(_put(_BUCKET, "^[a-z0-9._-]{3,255}$"))),
    Mutation("tightens a pattern to 63 characters", _S3, _both(_put(_BUCKET, "^[A-Za-z0-9._-]{3,63}$"))),
    Mutation(
        "closes an enum of the producer", _S3, _producer(_put(f"{_RECORD} eventName enum", ["ObjectCreated:Put"]))
    ),
    Mutation("closes the open event names", _S3, _consumer(_put(f"{_RECORD} eventName", {"enum": _WAYS}))),
    Mutation(
        "closes an enum of EventBridge",
        _EB,
        _producer(_put("$defs EventBridgeDetail properties reason enum", ["PutObject"])),
    ),
    Mutation("closes an object", _S3, _consumer(_put("$defs NotifiedObject additionalProperties", False))),
    Mutation(
        "reads a field of AWS with another type", _S3, _consumer(_put(f"{_RECORD} awsRegion", {"type": "integer"}))
    ),
    Mutation("requires what was optional", _S3, _both(_require("NotifiedObject", "size"))),
    Mutation("requires what was unknown", _S3, _consumer(_require("CreatedRecord", "awsRegion", _TEXT))),
    Mutation("requires more where nothing was created", _S3, _consumer(_require("OtherRecord", "eventVersion", _TEXT))),
    Mutation("changes a type", _S3, _both(_put(f"{_OBJECT} size", {"type": "string"}))),
    Mutation("refuses null", _S3, _consumer(_put(f"{_OBJECT} size type", "integer"))),
    Mutation("raises a minimum", _S3, _both(_put(f"{_OBJECT} size minimum", 1))),
    Mutation("sets a maximum", _S3, _both(_put(f"{_OBJECT} size maximum", 5 * 2**40))),
    Mutation("shortens a text", _S3, _consumer(_put(f"{_OBJECT} key maxLength", 1_024))),
    Mutation("lengthens a text", _EB, _both(_put(f"{_EB_OBJECT} key minLength", 2))),
    Mutation("allows one record", _S3, _both(_put("properties Records maxItems", 1))),
    Mutation("wants two records", _S3, _both(_put("properties Records minItems", 2))),
    Mutation("changes a constant", _S3, _both(_put(f"{_RECORD} eventSource const", "aws:s3v2"))),
    Mutation(
        "asks another question first",
        _S3,
        _consumer(_put("properties Records items if properties eventName pattern", "^Object")),
    ),
    Mutation(
        "lets one write what is refused", _S3, _producer(_put(f"{_RECORD} eventVersion pattern", r"^[0-9]\.[0-9]+$"))
    ),
    Mutation(
        "lets one write what the deployed refuses",
        _S3,
        _both(_put(f"{_RECORD} eventVersion pattern", r"^[23]\.[0-9]+$")),
    ),
    Mutation(
        "wants a pattern of an id",
        _SQS,
        _consumer(_put("$defs SqsRecord properties messageId pattern", "^[0-9a-f-]{36}$")),
    ),
    Mutation("requires a field of a batch", _SQS, _consumer(_require("SqsRecord", "attributes", {"type": "object"}))),
    Mutation(
        "reads a field of a batch with another type",
        _SQS,
        _consumer(_put("$defs SqsRecord properties attributes", _TEXT)),
    ),
    Mutation(
        "wants a type of what it does not know",
        _SQS,
        _consumer(_put("$defs SqsRecord additionalProperties", {"type": "string"})),
    ),
    Mutation("stops writing a column", _INDEX, _both(_drop_field("MemberColumns", "crc32"))),
    Mutation("stops writing a field that readers need not have", _INDEX, _producer(_drop_field("", "format"))),
    Mutation("renames a column", _INDEX, _both(_rename_field("MemberColumns", "etag", "eTag"))),
    Mutation("writes a new framing", _INDEX, _both(_put(_FRAMING, ["lines", "none", "crlf"]))),
    Mutation("writes longer checksums", _INDEX, _both(_put(f"{_COLUMNS} crc32 items exclusiveMaximum", 2**64))),
    Mutation("cannot read old bundles", _INDEX, _both(_require("MemberColumns", "sha256", _COUNTS))),
)
"""Changes that break a producer, a consumer, or the reader of a bundle."""

HARMLESS = (
    Mutation("only changes words", _S3, _both(_put(f"{_OBJECT} size description", "other words"))),
    Mutation("adds an optional field", _S3, _both(_put(f"{_OBJECT} storageClass", _TEXT))),
    Mutation("adds an optional field to the producer", _EB, _producer(_put(f"{_EB_OBJECT} tier", _TEXT))),
    Mutation("adds an optional field to EventBridge", _EB, _both(_put(f"{_EB_OBJECT} tier", _TEXT))),
    Mutation(
        "knows one more way to create an object",
        _S3,
        _producer(_put(f"{_RECORD} eventName enum", [*_WAYS, "ObjectCreated:Append"])),
    ),
    Mutation("accepts longer texts", _S3, _consumer(_drop(f"{_OBJECT} key maxLength"))),
    Mutation(
        "accepts another source",
        _S3,
        _consumer(_put(f"{_RECORD} eventSource", {"enum": ["aws:s3", "minio:s3"], "type": "string"})),
    ),
    Mutation(
        "accepts what was required to be there",
        _S3,
        _consumer(_put("$defs CreatedRecord required", ["eventSource", "eventName", "s3"])),
    ),
    Mutation(
        "accepts another form beside the old one",
        _S3,
        _consumer(
            _put(
                f"{_RECORD} eventVersion",
                {"type": "string", "anyOf": [{"pattern": r"^2\.[0-9]+$"}, {"pattern": r"^3\.[0-9]+$"}]},
            )
        ),
    ),
    Mutation("writes a definition in its place", _S3, _both(_inline_bucket)),
    Mutation("renames a definition", _S3, _both(_rename_definition)),
    Mutation(
        "says null in another way",
        _S3,
        _consumer(_put(f"{_OBJECT} size", {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]})),
    ),
    Mutation(
        "writes a new column",
        _INDEX,
        {"producer": _require("MemberColumns", "sequence", _COUNTS), "consumer": _put(f"{_COLUMNS} sequence", _COUNTS)},
    ),
    Mutation("reads a framing before anyone writes it", _INDEX, _consumer(_put(_FRAMING, ["lines", "none", "crlf"]))),
)
"""Changes that break nobody."""
