"""What is committed under fixtures/ is what the factories make, and gets the verdict it is filed under."""

from pathlib import Path

import pytest
from aws_lambda_powertools.utilities.parser import parse
from pydantic import ValidationError

from aggregator.reader import Bundle
from aggregator.schemas import BODY, SqsBatch
from fixtures import generate

FIXTURES = Path(generate.__file__).parent


@pytest.mark.parametrize("name", generate.events())
def test_a_committed_event_is_what_the_factories_make(name: str) -> None:
    committed = (FIXTURES / "events" / name).read_text(encoding="utf-8")

    assert committed == generate.events()[name], "run `just fixtures`"


def test_no_event_is_committed_that_nothing_makes() -> None:
    committed = {path.relative_to(FIXTURES / "events").as_posix() for path in (FIXTURES / "events").rglob("*.json")}

    assert committed == set(generate.events())


@pytest.mark.parametrize("name", [name for name in generate.events() if not name.startswith("batch/")])
def test_an_event_gets_the_verdict_it_is_filed_under(name: str) -> None:
    verdict, _, _ = name.partition("/")

    assert _verdict(generate.events()[name]) == verdict


def test_a_batch_parses_whole() -> None:
    batch = SqsBatch.model_validate_json(generate.events()["batch/sqs.json"])

    assert [_verdict(record.body) for record in batch.Records] == ["process", "skip"]


def test_the_sample_files_are_what_the_generator_makes() -> None:
    folder = FIXTURES / "samples"
    committed = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    assert committed == generate.samples(), "run `just fixtures`"


@pytest.mark.parametrize("name", generate.GOLDEN)
def test_a_golden_bundle_is_read_for_ever(name: str) -> None:
    _, _, members = generate.GOLDEN[name]

    with Bundle.open(FIXTURES / "bundles" / name) as bundle:
        bundle.verify()
        read = {entry.key: bundle.read(entry) for entry in bundle}

    assert read == members
    assert bundle.index.bundle == f"2026/11/23/14/{name}"


def test_the_golden_empty_bundle_has_no_members() -> None:
    with Bundle.open(FIXTURES / "bundles" / "v1-empty.gz") as bundle:
        bundle.verify()

    assert list(bundle) == []


def test_every_golden_bundle_has_its_test() -> None:
    committed = {path.name for path in (FIXTURES / "bundles").glob("*.gz")}

    assert committed == {*generate.GOLDEN, "v1-empty.gz"}


def _verdict(body: str) -> str:
    try:
        announced = parse(event=body, model=BODY).objects()  # type: ignore[call-overload]
    except ValidationError:
        return "reject"
    return "process" if [member for member in announced if not member.is_folder_marker] else "skip"
