"""What the gate lets pass, and what it says when it does not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field

from aggregator.bundles.index import BundleIndex
from aggregator.contracts.catalog import CONTRACTS, Contract, ContractError, Profile, contract, published, walk
from aggregator.contracts.gate import checks as gate
from aggregator.contracts.gate import examples, lint, portability, publishing
from aggregator.contracts.gate.__main__ import main
from aggregator.contracts.gate.checks import NAMES, Gate
from aggregator.contracts.gate.publishing import Source, release, write
from tests.support import ROOT, contract_changes

pytestmark = pytest.mark.once

FOLDER = ROOT / "contracts"
S3 = "s3-notification/v1"

Edit = Callable[[Any], None]


class WithChecksum(BundleIndex):
    checksum: str | None = Field(None, description="SHA-256 of the text")


class WithoutDescription(BundleIndex):
    checksum: str | None = None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of contracts/."""
    for path, file in walk(FOLDER):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(file.read_bytes())
    return tmp_path


def test_the_program_prints_each_check_and_finds_nothing_in_this_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(str(FOLDER)) == 0

    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("  not installed: ")]
    assert [line.split()[0] for line in lines] == [name for name in NAMES if name != "corpus"]


@pytest.mark.chaos
def test_the_program_ends_with_1_where_something_is_not_proven(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = folder / S3 / "consumer.schema.json"
    schema.write_text(schema.read_text() + "\n")

    assert main(str(folder)) == 1
    assert f"  {S3}/consumer.schema.json is not what the models say" in capsys.readouterr().out


def test_the_program_ends_with_2_where_there_are_no_contracts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(str(tmp_path)) == 2
    assert "has no contracts" in capsys.readouterr().err


def test_no_change_that_breaks_somebody_passes() -> None:
    trials = contract_changes.trials(contract_changes.BREAKING, *_published())

    assert [trial.mutation.what for trial in trials if not trial.breaks] == []
    assert len(trials) >= 30


def test_every_change_that_breaks_nobody_is_proven() -> None:
    trials = contract_changes.trials(contract_changes.HARMLESS, *_published())

    assert [trial.mutation.what for trial in trials if trial.breaks] == []
    assert len(trials) >= 12


def test_a_change_that_breaks_somebody_shows_a_message_that_it_breaks() -> None:
    without_victim = {"requires more where nothing was created"}  # takes two changes of an example at once

    trials = contract_changes.trials(contract_changes.BREAKING, *_published())

    shown = {trial.mutation.what for trial in trials if any(broken.victim is not None for broken in trial.breaks)}
    assert {mutation.what for mutation in contract_changes.BREAKING} - shown == without_victim


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (
            lambda schema: schema["$defs"]["NotifiedObject"]["properties"].pop("eTag"),
            ["producer schema rejects what 1.0.0 let one write", "/Records/0/s3/object/eTag: additionalProperties"],
        ),
        (
            lambda schema: schema["$defs"]["CreatedRecord"]["properties"]["eventVersion"].update(pattern="^2\\.1$"),
            ["the consumer rejects what 1.0.0 accepted", "/Records/0/eventVersion: pattern", '"eventVersion": "2.6"'],
        ),
        (
            lambda schema: schema["$defs"]["CreatedRecord"]["properties"]["eventName"].update(
                enum=["ObjectCreated:Put"]
            ),
            ["/Records/0/eventName: enum", '"eventName": "ObjectCreated:Copy"'],
        ),
        (
            lambda schema: schema["$defs"]["NotifiedObject"]["properties"].update(
                bytes=schema["$defs"]["NotifiedObject"]["properties"].pop("size")
            ),
            ["/Records/0/s3/object/size: additionalProperties", '"size": 0'],
        ),
    ],
    ids=["removes a field", "tightens a pattern", "closes an enum", "renames a key"],
)
def test_a_break_is_rejected_by_its_pointer_and_a_victim(folder: Path, edit: Edit, words: list[str]) -> None:
    for profile in ("producer", "consumer"):
        _edit(folder / S3 / f"{profile}.schema.json", edit)

    (check,) = Gate(folder).checks(["compatibility"])

    told = "\n".join(check.findings)
    assert [word for word in words if word not in told] == []


def test_a_new_optional_field_passes_as_a_minor_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _model(monkeypatch, WithChecksum, "1.2.0")
    _entry(folder, "## bundle-index 1.2.0 (minor)")
    write(folder)

    checks = list(Gate(folder).checks(["drift", "lint", "compatibility", "version"]))

    assert [finding for check in checks for finding in check.findings] == []


@pytest.mark.parametrize(
    ("version", "heading", "finding"),
    [
        ("1.1.0", "", "1.1.0 is released and not what the models say: give the change a version of its own"),
        ("1.1.1", "## bundle-index 1.1.1 (minor)", "is a minor change since 1.1.0: the version must be 1.2.0"),
        ("1.2.0", "", "CHANGELOG.md has no entry '## bundle-index 1.2.0 (minor)'"),
        ("1.2.0", "## bundle-index 1.2.0 (patch)", "CHANGELOG.md has no entry '## bundle-index 1.2.0 (minor)'"),
    ],
)
def test_a_change_must_have_its_version_and_its_entry(
    folder: Path, monkeypatch: pytest.MonkeyPatch, version: str, heading: str, finding: str
) -> None:
    _model(monkeypatch, WithChecksum, version)
    _entry(folder, heading)
    write(folder)

    (check,) = Gate(folder).checks(["version"])

    assert check.findings == [f"bundle-index@1: {finding}"]


def test_other_words_are_a_patch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reworded(BundleIndex):
        bundle: str = Field(description="the key of the bundle")

    _model(monkeypatch, Reworded, "1.1.1")
    _entry(folder, "## bundle-index 1.1.1 (patch)")
    write(folder)

    (check,) = Gate(folder).checks(["version"])

    assert check.findings == []


def test_a_release_is_a_snapshot_that_later_versions_are_held_against(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _model(monkeypatch, WithChecksum, "1.2.0")
    _entry(folder, "## bundle-index 1.2.0 (minor)")
    write(folder)

    assert release(folder) == ["bundle-index 1.2.0"]
    _model(monkeypatch, BundleIndex, "1.3.0")
    write(folder)

    (check,) = Gate(folder).checks(["compatibility"])
    assert any("1.2.0" in finding and "/checksum" in finding for finding in check.findings), check.findings


@pytest.mark.parametrize("by", ["another text", "no file"])
def test_a_released_file_that_changed_is_found_even_after_the_catalogue_was_written_anew(folder: Path, by: str) -> None:
    path = folder / S3 / "released/1.0.0/consumer.schema.json"
    if by == "no file":
        path.with_name("examples.jsonl").unlink()
    else:
        _edit(path, lambda schema: schema.update(description="what it always said"))

    write(folder)
    (check,) = Gate(folder).checks(["version"])

    name = "examples.jsonl" if by == "no file" else "consumer.schema.json"
    assert f"s3-notification@1: {S3}/released/1.0.0/{name} was released, and is not what it was" in check.findings


def test_a_model_that_changed_alone_is_drift(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _model(monkeypatch, WithChecksum, "1.1.0")

    (check,) = Gate(folder).checks(["drift"])

    told = "is not what the models say: run `just contracts`"
    files = ("producer", "draft-07/producer", "consumer", "draft-07/consumer")
    assert check.findings == [f"bundle-index/v1/{file}.schema.json {told}" for file in files]


def test_a_schema_that_no_contract_has_is_drift(folder: Path) -> None:
    (folder / "of-old.schema.json").write_text("{}")

    (check,) = Gate(folder).checks(["drift"])

    assert check.findings == ["of-old.schema.json belongs to no contract"]


@pytest.mark.parametrize(
    ("schema", "profile", "finding"),
    [
        ({"type": "string", "pattern": r"^\d+$"}, "consumer", "/properties/a/pattern"),
        ({"type": "string", "pattern": "^(?=a)"}, "consumer", "/properties/a/pattern"),
        ({"type": "string", "pattern": r"^\p{L}$"}, "consumer", "/properties/a/pattern"),
        ({"type": "string", "format": "date-time"}, "consumer", "/properties/a/format"),
        ({"oneOf": []}, "consumer", "/properties/a/oneOf"),
        ({"$ref": "https://example.org/a"}, "consumer", "/properties/a/$ref"),
        ({"$ref": "#/$defs/a", "type": "string"}, "consumer", "/properties/a/$ref"),
        ({"type": "object", "additionalProperties": False}, "consumer", "/properties/a/additionalProperties"),
        ({"additionalProperties": {"type": "string"}}, "consumer", "/properties/a/additionalProperties"),
        ({"type": "object", "properties": {}}, "producer", "/properties/a"),
    ],
)
def test_what_validators_read_differently_is_refused(schema: Any, profile: Profile, finding: str) -> None:
    described = schema if "$ref" in schema else {**schema, "description": "a"}
    whole: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema", "properties": {"a": described}}
    whole |= {"additionalProperties": False} if profile == "producer" else {}

    assert [pointer for pointer, _ in lint.lint(whole, profile)] == [finding]


def test_a_field_without_a_word_of_description_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _model(monkeypatch, WithoutDescription, "1.2.0")
    write(folder)

    (check,) = Gate(folder).checks(["lint"])

    assert check.findings == [
        f"bundle-index@1: {profile}: /properties/checksum: has no description" for profile in ("producer", "consumer")
    ]


@pytest.mark.parametrize(
    ("name", "edit", "finding"),
    [
        ("valid/minimal.json", lambda message: message["Records"].clear(), "valid/minimal: the producer rejects it"),
        (
            "invalid/size-negative.expect.json",
            lambda expected: expected.update(keyword="type"),
            "invalid/size-negative: the producer does not report ('/Records/0/s3/object/size', 'type')",
        ),
        (
            "invalid/size-negative.expect.json",
            lambda expected: expected.update(rejected_by=["producer"]),
            "invalid/size-negative: the consumer rejects it, and its .expect.json does not say so",
        ),
        (
            "valid/annotated-object.json",
            lambda message: message["Records"][0]["s3"]["object"].pop("hasObjectAnnotation"),
            "no valid example has /Records/*/s3/object/hasObjectAnnotation",
        ),
        (
            "invalid/next-major-eventversion.json",
            lambda message: message["Records"][0].update(eventVersion=3),
            "no invalid example of the consumer fails $defs/CreatedRecord/properties/eventVersion/pattern",
        ),
    ],
)
def test_an_example_that_does_not_show_what_it_says_is_found(folder: Path, name: str, edit: Edit, finding: str) -> None:
    _edit(folder / S3 / "examples" / name, edit)

    (check,) = Gate(folder).checks(["examples"])

    assert any(found.startswith(f"s3-notification@1: {finding}") for found in check.findings), check.findings


@pytest.mark.chaos
def test_a_model_that_knows_better_than_its_schema_is_found(folder: Path) -> None:
    def loosen(schema: Any) -> None:
        del schema["$defs"]["Bucket"]["properties"]["name"]["pattern"]

    _edit(folder / S3 / "consumer.schema.json", loosen)

    (check,) = Gate(folder).checks(["agreement"])

    told = "the schema accepts what the model rejects: ('Records', 0, 'created', 's3', 'bucket', 'name')"
    assert any(told in finding for finding in check.findings)


@pytest.mark.chaos
def test_a_schema_that_is_stricter_than_its_model_is_found(folder: Path) -> None:
    _edit(folder / S3 / "producer.schema.json", lambda schema: schema["properties"]["Records"].update(maxItems=1))

    (check,) = Gate(folder).checks(["agreement"])

    assert any("the model accepts what the schema rejects: ['Records']: maxItems" in found for found in check.findings)


def test_a_twin_that_says_something_else_is_found() -> None:
    schema = published(f"{S3}/consumer.schema.json")
    twin = publishing.twin(schema)
    twin["properties"]["Records"]["minItems"] = 0

    found = list(portability.differences(schema, twin, [{"Records": []}]))

    assert found == [
        'the draft-07 twin accepts what jsonschema-rs does not: {"Records": []}',
        'python-jsonschema accepts what jsonschema-rs does not: {"Records": []}',
    ]


def test_what_is_no_schema_is_found() -> None:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:x", "type": "text"}

    (found,) = portability.differences(schema, schema, [{}])

    assert found.startswith("urn:x is not a schema of its dialect: ")


def test_a_folder_without_contracts_is_told(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="has no contracts"):
        Gate(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("consumer.schema.json", "{", "holds no JSON document"),
        ("consumer.schema.json", "[" * 100_000, "holds no JSON document"),
        ("consumer.schema.json", '{"type": "text"}', "is not a JSON Schema"),
        ("consumer.schema.json", '{"pattern": "("}', "is not a JSON Schema"),
        ("consumer.schema.json", '{"$ref": "#/nowhere"}', "is not a JSON Schema"),
        ("examples/valid/put.json", "{", "holds no JSON document"),
        ("examples/invalid/key-empty.expect.json", "[]", "without pointer, keyword or rejected_by"),
        ("released/next/consumer.schema.json", "{}", "'next' is not a version"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_told(folder: Path, name: str, content: str, words: str) -> None:
    (folder / S3 / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / S3 / name).write_text(content)

    with pytest.raises(ContractError, match=words):
        list(Gate(folder).checks(["lint", "examples", "compatibility"]))


def _published() -> tuple[dict[str, Any], dict[str, Any]]:
    schemas = {
        one.name: {profile: published(f"{one.folder}/{profile}.schema.json") for profile in one.profiles}
        for one in CONTRACTS
    }
    valid = {one.name: list(examples.load(FOLDER, one).valid.values()) for one in CONTRACTS}
    return schemas, valid


def _edit(path: Path, edit: Edit) -> None:
    document = json.loads(path.read_text(encoding="utf-8"))
    edit(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def _model(monkeypatch: pytest.MonkeyPatch, model: type[BundleIndex], version: str) -> None:
    """Let the model and the version of the bundle index be these."""
    monkeypatch.setitem(publishing.SOURCES, ("bundle-index", "producer"), Source(model, "serialization"))
    monkeypatch.setitem(publishing.SOURCES, ("bundle-index", "consumer"), Source(model))
    index = contract("bundle-index")._replace(version=version)
    others: tuple[Contract, ...] = tuple(one for one in CONTRACTS if one.name != "bundle-index")
    for module in (gate, publishing):
        monkeypatch.setattr(module, "CONTRACTS", (*others, index))


def _entry(folder: Path, heading: str) -> None:
    with (folder / "CHANGELOG.md").open("a", encoding="utf-8") as file:
        file.write(f"\n{heading}\n")
