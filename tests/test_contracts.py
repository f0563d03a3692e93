"""contracts/ equals the models, and judges as they do."""

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import TypeAdapter, ValidationError

from aggregator.contracts import CONTRACTS, schema, write, written
from aggregator.reader import Bundle
from fixtures import factories, generate

CONTRACTS_FOLDER = Path(__file__).parent.parent / "contracts"
BUNDLES = Path(generate.__file__).parent / "bundles"


@pytest.mark.parametrize("path", CONTRACTS)
def test_a_published_schema_is_what_the_model_says(path: str) -> None:
    assert (CONTRACTS_FOLDER / path).read_text(encoding="utf-8") == written(path), "run `just contracts`"


def test_nothing_is_published_that_no_model_says(tmp_path: Path) -> None:
    write(tmp_path)

    assert _files(CONTRACTS_FOLDER) == _files(tmp_path) == set(CONTRACTS)


@pytest.mark.parametrize("path", CONTRACTS)
def test_a_published_schema_is_valid_and_named(path: str) -> None:
    published = schema(path)

    jsonschema_rs.meta.validate(published)
    contract, version, _ = path.split("/")
    assert published["$id"].startswith(f"urn:data-aggregator:contract:{contract}:{version}:")
    assert published["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", CONTRACTS)
def test_every_field_is_described_and_nothing_is_said_that_only_pydantic_knows(path: str) -> None:
    nodes = list(_nodes(schema(path)))

    undescribed = [
        name
        for node in nodes
        for name, field in node.get("properties", {}).items()
        if not {"description", "$ref"} & set(field) and "pattern" not in field
    ]
    assert undescribed == []
    assert not [node for node in nodes if "discriminator" in node or node.get("default", 0) is None]


@pytest.mark.parametrize("name", [name for name in generate.events() if "/s3-" in name or name.startswith("reject/")])
def test_schema_and_model_judge_an_s3_notification_alike(name: str) -> None:
    text = generate.events()[name]
    try:
        document = json.loads(text)
    except ValueError:
        document = text
    if isinstance(document, dict) and "Records" not in document:
        return  # a test event is another contract's business

    judged = jsonschema_rs.is_valid(schema("s3-notification/v1/consumer.schema.json"), document)

    only_once_decoded = name == "reject/key-is-not-utf-8.json"
    assert judged == (not name.startswith("reject/") or only_once_decoded)


def test_factories_build_what_the_schemas_accept() -> None:
    notification = json.loads(factories.body(factories.S3NotificationFactory.build()))
    eventbridge = json.loads(factories.body(factories.EventBridgeNotificationFactory.build()))
    batch = factories.event(json.dumps(notification), json.dumps(eventbridge))

    assert jsonschema_rs.is_valid(schema("s3-notification/v1/consumer.schema.json"), notification)
    assert jsonschema_rs.is_valid(schema("eventbridge-notification/v1/consumer.schema.json"), eventbridge)
    assert jsonschema_rs.is_valid(schema("sqs-batch/v1/consumer.schema.json"), batch)


@pytest.mark.parametrize("path", CONTRACTS)
def test_a_schema_and_its_model_refuse_an_empty_object(path: str) -> None:
    model, _ = CONTRACTS[path]

    assert not jsonschema_rs.is_valid(schema(path), {})
    with pytest.raises(ValidationError):
        TypeAdapter(model).validate_json("{}")


@pytest.mark.parametrize("name", [path.name for path in sorted(BUNDLES.glob("*.gz"))])
def test_the_index_of_a_golden_bundle_keeps_its_contract(name: str) -> None:
    with Bundle.open(BUNDLES / name) as bundle:
        index = bundle.index.model_dump(mode="json")

    jsonschema_rs.validate(schema("bundle-index/v1/producer.schema.json"), index)


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.schema.json")}


def _nodes(node: Any) -> Any:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from _nodes(value)
    elif isinstance(node, list):
        for value in node:
            yield from _nodes(value)
