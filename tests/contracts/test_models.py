"""contracts/ is what the models say, and a message that passes it is accepted."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import ValidationError

from aggregator.contracts import catalog as contracts
from aggregator.contracts import factories
from aggregator.contracts.catalog import CONTRACTS, Contract, contract, published, root, schema_path, walk
from aggregator.contracts.gate import agreement, examples
from aggregator.contracts.gate.checks import Gate
from aggregator.contracts.gate.publishing import catalog, generate, text, write
from aggregator.contracts.mutations import mutants
from aggregator.contracts.validation import Judge, faults_of
from aggregator.pipeline.telemetry import LOG_EVENTS, METRICS
from aggregator.pipeline.tracing import ATTRIBUTES, SPANS
from aggregator.reader import Bundle
from aggregator.runtimes import polling
from aggregator.runtimes.worker import process, supervisor
from aggregator.schemas import BODY
from fixtures import generate as fixtures
from tests.support import ROOT

FOLDER = ROOT / "contracts"
BUNDLES = Path(fixtures.__file__).parent / "bundles"
ON_THE_QUEUE = [contract("s3-notification"), contract("eventbridge-notification")]

every_contract = pytest.mark.parametrize("one", CONTRACTS, ids=lambda one: one.label)
on_the_queue = pytest.mark.parametrize("one", ON_THE_QUEUE, ids=lambda one: one.label)


@pytest.mark.parametrize("path", generate())
def test_a_published_file_is_what_the_models_say(path: str) -> None:
    assert (FOLDER / path).read_text(encoding="utf-8") == generate()[path], "run `just contracts`"


def test_the_catalogue_names_every_schema_and_example_with_its_hash() -> None:
    index = json.loads((FOLDER / "catalog.json").read_text(encoding="utf-8"))

    assert text(index) == text(catalog(FOLDER)), "run `just contracts`"
    listed = {entry["path"]: entry["sha256"] for entry in _files_of(index)}
    assert listed == {path: hashlib.sha256((FOLDER / path).read_bytes()).hexdigest() for path in listed}
    there = {path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/v*/**/*.json*")}
    assert {path for path in there if not path.endswith(".expect.json")} <= set(listed)


def test_writing_the_contracts_anew_changes_nothing(tmp_path: Path) -> None:
    _copy(tmp_path)

    write(tmp_path)

    assert _contents(tmp_path) == _contents(FOLDER)


@every_contract
def test_an_example_is_judged_as_it_is_filed_by_pointer_and_keyword(one: Contract) -> None:
    known = examples.load(FOLDER, one)

    for profile in one.profiles:
        schema = published(schema_path(one, profile))
        refused = {item.name: (item.pointer, item.keyword) for item in known.invalid if profile in item.rejected_by}
        found = {item.name: faults_of(schema, item.document) for item in known.invalid}
        assert {name: place in found[name] for name, place in refused.items()} == dict.fromkeys(refused, True)
        assert [name for name in found if found[name] and name not in refused] == []
        assert [name for name, document in known.valid.items() if faults_of(schema, document)] == []


@on_the_queue
def test_what_the_producer_schema_accepts_the_lambda_accepts(one: Contract) -> None:
    validator = jsonschema_rs.validator_for(published(schema_path(one, "producer")))
    documents = examples.load(FOLDER, one).documents

    accepted = [
        mutant.document for document in documents for mutant in mutants(document) if validator.is_valid(mutant.document)
    ]

    assert len(accepted) > 1_000
    assert [document for document in accepted if _unexpected(document)] == []


@on_the_queue
def test_what_was_valid_when_it_was_released_announces_an_object(one: Contract) -> None:
    snapshots = sorted((FOLDER / one.folder / "released").iterdir())
    lines = [line for snapshot in snapshots for line in (snapshot / "examples.jsonl").read_text("utf-8").splitlines()]

    assert lines
    assert [line for line in lines if not BODY.validate_json(line).objects()] == []


@every_contract
def test_a_sample_is_valid_by_every_profile(one: Contract) -> None:
    factories.seed(7)
    made = factories.samples(one)

    documents = [next(made) for _ in range(50)]

    for profile in one.profiles:
        validator = jsonschema_rs.validator_for(published(schema_path(one, profile)))
        assert [document for document in documents if not validator.is_valid(document)] == []


@every_contract
def test_an_invalid_sample_is_rejected_by_every_profile(one: Contract) -> None:
    factories.seed(7)
    made = factories.samples(one, invalid=True)

    documents = [next(made) for _ in range(50)]

    for profile in one.profiles:
        validator = jsonschema_rs.validator_for(published(schema_path(one, profile)))
        assert [document for document in documents if validator.is_valid(document)] == []


@on_the_queue
def test_a_sample_announces_an_object_to_the_lambda(one: Contract) -> None:
    made = factories.samples(one)

    announced = [BODY.validate_json(json.dumps(next(made))).objects() for _ in range(50)]

    assert [len(members) for members in announced] == [1] * 50


@every_contract
def test_the_same_seed_makes_the_same_samples(one: Contract) -> None:
    runs = []
    for seed in (1, 1, 2):
        factories.seed(seed)
        made = factories.samples(one)
        runs.append([next(made) for _ in range(5)])

    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("name", [path.name for path in sorted(BUNDLES.glob("*.gz"))])
def test_the_index_of_a_golden_bundle_keeps_its_contract(name: str) -> None:
    with Bundle.open(BUNDLES / name) as bundle:
        index = bundle.index.model_dump(mode="json")

    for profile in contract("bundle-index").profiles:
        assert faults_of(published(schema_path(contract("bundle-index"), profile)), index) == []


@pytest.mark.parametrize("name", [name for name in fixtures.events() if not name.startswith("batch/")])
def test_a_notification_is_judged_as_the_lambda_judges_it(name: str, tmp_path: Path) -> None:
    (tmp_path / "message").write_text(fixtures.events()[name], encoding="utf-8")

    with (tmp_path / "message").open("rb") as stream:
        verdicts = list(Judge("consumer").file(stream))

    assert [bool(verdict.faults) for verdict in verdicts] == [name.startswith("reject/")]


def test_a_corpus_is_judged_as_its_index_says(tmp_path: Path) -> None:
    index = ["file\tlayer\texpected"]
    for name, message in fixtures.events().items():
        verdict = "process" if name == "batch/sqs.json" else name.partition("/")[0]
        file = name.replace("/", "-")
        (tmp_path / file).write_text(message, encoding="utf-8")
        index.append(f"{file}\tsqs-body\t{verdict}")
    index.append("process-s3-put.json\tsqs-body\treject")
    (tmp_path / "INDEX.tsv").write_text("\n".join(index), encoding="utf-8")

    (check,) = Gate(FOLDER, tmp_path).checks(["corpus"])

    assert check.findings == ["process-s3-put.json: process, should be reject"]


@pytest.mark.skipif("AGGREGATOR_CORPUS" not in os.environ, reason="AGGREGATOR_CORPUS names no folder with INDEX.tsv")
def test_a_corpus_of_real_messages_gets_its_verdicts() -> None:
    gate = Gate(FOLDER, Path(os.environ["AGGREGATOR_CORPUS"]))

    (check,) = gate.checks(["corpus"])

    assert check.findings == []


def test_the_asyncapi_document_leads_to_schemas_that_are_there() -> None:
    document = json.loads((FOLDER / "asyncapi.json").read_text(encoding="utf-8"))

    inside = [ref for ref in _references(document) if ref.startswith("#/")]
    outside = [ref for ref in _references(document) if not ref.startswith("#/")]
    assert [ref for ref in inside if _at(document, ref.split("/")[1:]) is None] == []
    assert outside == [f"./{one.folder}/draft-07/consumer.schema.json" for one in ON_THE_QUEUE]
    assert [ref for ref in outside if not (FOLDER / ref).is_file()] == []


def test_what_alarms_build_on_is_published() -> None:
    telemetry = published("telemetry.json")

    assert telemetry["log_events"] == {
        **polling.LOG_EVENTS,
        **process.LOG_EVENTS,
        **supervisor.LOG_EVENTS,
        **LOG_EVENTS,
    }
    assert telemetry["metrics"].keys() == METRICS.keys()
    assert telemetry["spans"] == SPANS
    assert telemetry["span_attributes"].keys() == ATTRIBUTES.keys()


def test_the_shortest_message_that_the_readme_shows_is_valid() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", (FOLDER / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)

    for profile in ("producer", "consumer"):
        assert faults_of(published(f"s3-notification/v1/{profile}.schema.json"), json.loads(block)) == []


def test_an_installed_package_has_the_contracts_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "published"
    inside.mkdir()
    monkeypatch.setattr(contracts, "files", lambda _: tmp_path)

    assert root() == inside


def test_without_an_installed_package_the_contracts_are_those_of_the_checkout() -> None:
    assert root() == FOLDER


def _unexpected(document: Any) -> list[str]:
    """Why the Lambda refuses a document, but for what no schema can say."""
    try:
        BODY.validate_json(json.dumps(document))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        return [fault["msg"] for fault in faults if not any(parts(fault) for parts in agreement.PARTINGS.values())]
    return []


def _files_of(node: Any) -> Iterator[dict[str, str]]:
    if isinstance(node, dict):
        if "sha256" in node:
            yield node
        for value in node.values():
            yield from _files_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from _files_of(value)


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _at(document: Any, steps: list[str]) -> Any:
    for step in steps:
        document = document.get(step, {})
    return document or None


def _copy(folder: Path) -> None:
    for path, file in walk(FOLDER):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(file.read_bytes())


def _contents(folder: Path) -> dict[str, bytes]:
    return {path: file.read_bytes() for path, file in walk(folder)}
