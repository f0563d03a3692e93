"""`aggregator contract …`: what it prints, what it never prints, and its exit status."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import Result

from aggregator.contracts.catalog import CONTRACTS, root, walk
from aggregator.schemas import BODY
from fixtures import factories
from tests.support import ROOT
from tests.support.contract_command import MINIMAL, SECRET, Run, with_object

WHOLE = "bytes of the object, a whole number without a decimal point"


def test_the_contracts_are_listed(run: Run) -> None:
    result = run("list")

    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == [one.label for one in CONTRACTS]
    assert json.loads(run("list", "--json").stdout) == json.loads((root() / "catalog.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (["s3-notification"], "s3-notification/v1/producer.schema.json"),
        (["s3-notification@1", "--profile", "consumer"], "s3-notification/v1/consumer.schema.json"),
        (["sqs-batch", "--draft-07"], "sqs-batch/v1/draft-07/consumer.schema.json"),
    ],
)
def test_a_schema_is_shown(run: Run, arguments: list[str], path: str) -> None:
    assert run("show", *arguments).stdout == (root() / path).read_text(encoding="utf-8")


def test_everything_is_exported(run: Run, tmp_path: Path) -> None:
    result = run("export", "all/of/it")

    assert result.exit_code == 0
    exported = {path: file.read_bytes() for path, file in walk(tmp_path / "all/of/it")}
    assert exported == {path: file.read_bytes() for path, file in walk(root())}


def test_samples_are_lines_that_validate(run: Run) -> None:
    lines = run("sample", "eventbridge-notification", "-n", "25", "--seed", "3").stdout

    result = run("validate", "-", input=lines)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "25 messages, 0 invalid\n")
    assert lines == run("sample", "eventbridge-notification", "-n", "25", "--seed", "3").stdout
    assert len({*lines.splitlines()}) == 25


def test_invalid_samples_are_refused_one_and_all(run: Run) -> None:
    lines = run("sample", "s3-notification", "-n", "30", "--invalid").stdout

    result = run("validate", "-", "--profile", "consumer", "--format", "json", input=lines)

    report = json.loads(result.stdout)
    assert (result.exit_code, report["messages"], report["invalid"]) == (1, 30, 30)


def test_a_fault_names_file_line_pointer_keyword_problem_and_remedy(judged: Callable[..., Result]) -> None:
    message = with_object(eTag=None) | {}
    message["Records"][0]["s3"]["object"] = {"key": SECRET, "etag": "0" * 32}

    result = judged(json.dumps(message, indent=1).encode())

    assert result.exit_code == 1
    assert result.stdout == (
        "message.json:13 /Records/0/s3/object/etag: additionalProperties: is not a field of the contract: write eTag\n"
    )
    assert result.stderr == "1 message, 1 invalid\n"


def test_the_readmes_show_what_is_printed(judged: Callable[..., Result]) -> None:
    example = root() / "s3-notification/v1/examples/invalid/etag-misspelt.json"

    result = judged(example.read_bytes())

    for readme in ("README.md", "contracts/README.md"):
        assert result.stdout in (ROOT / readme).read_text(encoding="utf-8")


def test_a_message_that_aws_wrote_is_judged_by_the_consumer(judged: Callable[..., Result]) -> None:
    message = with_object(newIn2027=True)

    assert judged(message).exit_code == 1
    assert judged(message, "--profile", "consumer").exit_code == 0


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"size": 3.0}, "/Records/s3/object/size: lambda: must be a valid integer"),
        ({"key": "%FF"}, "/Records/0/s3/object/key: pattern: is not of the form that is asked for"),
    ],
)
def test_what_is_called_valid_is_accepted_by_the_lambda(
    judged: Callable[..., Result], fields: dict[str, Any], fault: str
) -> None:
    result = judged(with_object(**fields))

    assert result.exit_code == 1
    assert fault.replace("/Records/s3", "/Records/0/s3") in result.stdout


@pytest.mark.parametrize("key", ["%FF", "%C3%A9" * 512 + "a"])
def test_what_the_consumer_schema_cannot_say_the_lambda_says(judged: Callable[..., Result], key: str) -> None:
    result = judged(with_object(key=key), "--profile", "consumer")

    assert result.exit_code == 1
    assert "/Records/0/s3/object/key: " in result.stdout
    assert key not in result.stdout


def test_an_sqs_event_is_unwrapped_and_each_body_judged(judged: Callable[..., Result]) -> None:
    sns = {"Type": "Notification", "Message": json.dumps(with_object(size=-1))}
    event = factories.event(json.dumps(MINIMAL), "not JSON", json.dumps(sns))

    result = judged(event, "--format", "json")

    faults = [(one["at"], one["pointer"], one["keyword"]) for one in json.loads(result.stdout)["faults"]]
    assert faults == [
        ("/Records/1/body", "", "json"),
        ("/Records/2/body#/Message", "/Records/0/s3/object/size", "minimum"),
    ]


def test_a_body_in_an_event_is_told_by_the_line_of_the_body(judged: Callable[..., Result]) -> None:
    event = factories.event(json.dumps(MINIMAL), "[]")
    text = json.dumps(event, indent=1)
    line = next(number for number, text in enumerate(text.splitlines(), 1) if '"body": "[]"' in text)

    result = judged(text.encode())

    assert result.stdout.startswith(f"message.json:{line} /Records/1/body#: contract: ")


def test_a_batch_that_is_none_is_told(judged: Callable[..., Result]) -> None:
    event = factories.event(json.dumps(MINIMAL))
    del event["Records"][0]["body"]

    result = judged(event)

    assert "/Records/0/body: required: is missing" in result.stdout


def test_a_contract_that_is_named_judges_whatever_comes(judged: Callable[..., Result]) -> None:
    event = factories.event(json.dumps(MINIMAL), "any text")

    assert judged(event, "--contract", "sqs-batch@1").exit_code == 0
    assert judged(MINIMAL, "--contract", "eventbridge-notification").exit_code == 1
    assert judged([], "--contract", "bundle-index").stdout.startswith("message.json:1 (root): type: is an array")


@pytest.mark.parametrize("body", [{"Event": "s3:TestEvent"}, {"source": "aws.s3", "detail-type": "Object Deleted"}])
def test_what_the_lambda_skips_may_come_but_not_be_written(judged: Callable[..., Result], body: dict[str, Any]) -> None:
    assert BODY.validate_json(json.dumps(body)).objects() == ()

    assert judged(body, "--profile", "consumer").exit_code == 0
    assert "announces no object that was created" in judged(body).stdout


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("records", "write Records"),
        ("detail_type", "write detail-type"),
        ("recrods", "`aggregator contract list` names"),
    ],
)
def test_a_name_that_is_nearly_right_is_told_from_any_other(
    name: str, remedy: str, judged: Callable[..., Result]
) -> None:
    result = judged({"x": 1, name: []})

    assert f"contract: is nothing that any contract describes: {remedy}" in result.stdout


@pytest.mark.parametrize("profile", ["producer", "consumer"])
def test_of_an_event_of_another_source_all_is_said_that_is_wrong(profile: str, judged: Callable[..., Result]) -> None:
    event = {"source": "aws.ec2", "detail-type": "EC2 Instance State-change Notification"}

    result = judged(event, "--profile", profile)

    assert [line.partition(" ")[2] for line in result.stdout.splitlines()] == [
        "/detail: required: is missing: write detail with bucket and object",
        '/source: const: must be "aws.s3": write source: "aws.s3"',
        '/detail-type: const: must be "Object Created": write detail-type: "Object Created"',
    ]


@pytest.mark.parametrize("number", [20, 21, 1_000])
def test_a_thousand_unknown_fields_are_told_twenty_times_and_that_there_are_more(
    number: int, judged: Callable[..., Result]
) -> None:
    result = judged(with_object(**{f"field{at}": at for at in range(number)}))
    in_json = judged(with_object(**{f"field{at}": at for at in range(number)}), "--format", "json")

    more = ["message.json:1 (root): more: has more than 20 faults: correct these, and check it again"]
    keywords = [fault["keyword"] for fault in json.loads(in_json.stdout)["faults"]]
    assert result.stdout.splitlines()[20:] == (more if number > 20 else [])
    assert keywords == ["additionalProperties"] * 20 + (["more"] if number > 20 else [])


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("3.0", "lambda: must be a valid integer: write it without a decimal point or an exponent: 3, not 3.0"),
        ("1e2", "lambda: must be a valid integer: write it without a decimal point or an exponent: 3, not 3.0"),
        (
            "1e400",
            "type: is a number, must be of type integer: write size: bytes of the object, a whole number without a …",
        ),
    ],
)
def test_a_size_that_is_a_number_and_no_integer_is_called_so(
    size: str, told: str, judged: Callable[..., Result]
) -> None:
    message = json.dumps(with_object(size=0)).replace('"size": 0', f'"size": {size}')

    result = judged(message.encode())

    assert result.stdout.startswith(f"message.json:1 /Records/0/s3/object/size: {told.rstrip(' …')}")


@pytest.mark.parametrize("form", ["text", "json", "junit", "github"])
def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_being_told(
    form: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "good.json").write_text(json.dumps(MINIMAL))

    result = run("validate", "--format", form, "bad.json", "missing.json", "good.json")

    missing = "no such file: missing.json"
    assert (result.exit_code, result.stderr) == (2, f"aggregator: {missing}\n2 messages, 1 invalid\n")
    assert "is nothing that any contract describes" in result.stdout
    if form == "json":
        assert json.loads(result.stdout)["unread"] == [{"file": "missing.json", "problem": missing}]
    if form == "junit":
        (error,) = ET.fromstring(result.stdout).iter("error")
        assert error.get("message") == missing


def test_where_there_is_no_standard_input_that_is_said(run: Run) -> None:
    command = [sys.executable, "-m", "aggregator", "contract", "validate", "-"]

    closed = subprocess.run(["sh", "-c", 'exec "$@" <&-', "sh", *command], capture_output=True, text=True, check=False)

    assert (closed.returncode, closed.stderr) == (2, "aggregator: there is no standard input\n")


def test_stdin_that_is_named_twice_is_empty_the_second_time(run: Run) -> None:
    result = run("validate", "-", "-", input=json.dumps(MINIMAL))

    assert (result.exit_code, result.stderr) == (1, "2 messages, 1 invalid\n")
    assert "json: is empty" in result.stdout


def test_every_line_is_a_message_of_its_own(judged: Callable[..., Result]) -> None:
    lines = [json.dumps(MINIMAL), "", "not JSON", "{}", json.dumps(MINIMAL)]

    result = judged("\n".join(lines).encode(), name="messages.jsonl")

    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [
        "messages.jsonl:3 (root)",
        "messages.jsonl:4 (root)",
    ]
    assert result.stderr == "4 messages, 2 invalid\n"


@pytest.mark.parametrize(
    "text",
    ['{"Records":\n[%s]\n}', '{"Records":\n\n[%s\n]}\n', '{"Records": [\n%s\n]\n}', '\n{\n"Records": [%s]}'],
)
def test_a_document_is_one_wherever_its_lines_end(judged: Callable[..., Result], text: str) -> None:
    result = judged((text % json.dumps(MINIMAL["Records"][0])).encode())

    assert (result.exit_code, result.stderr) == (0, "1 message, 0 invalid\n")


@pytest.mark.parametrize(
    ("message", "named", "said"),
    [
        ("s3-notification", "eventbridge-notification", "an s3-notification"),
        ("eventbridge-notification", "s3-notification", "an eventbridge-notification"),
        ("s3-notification", "bundle-index", "an s3-notification"),
        ("sqs-batch", "bundle-index", "an sqs-batch"),
    ],
)
def test_a_message_of_another_contract_is_said_to_be_one_and_nothing_else(
    run: Run, tmp_path: Path, message: str, named: str, said: str
) -> None:
    (tmp_path / "m.json").write_text(run("sample", message, "-n", "1").stdout)

    found = run("validate", "--profile", "consumer", "--contract", f"{named}@1", "m.json")

    (line,) = found.stdout.splitlines()
    assert line.endswith(f": contract: is {said}: validate it with --contract {message}@1")


def test_a_remedy_is_an_instruction(run: Run, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"detail-type": "Object Created", "detail": 5}')
    (tmp_path / "n.json").write_text('{"source": "aws.s3", "detail-type": "Object Created", "detail": {}}')

    lines = run("validate", "m.json", "n.json").stdout.splitlines()

    assert [line.partition(" ")[2] for line in lines] == [
        '/source: required: is missing: write source: "aws.s3"',
        "/detail: type: is a number, must be of type object: write an object with bucket and object",
        "/detail/bucket: required: is missing: write bucket with name",
        "/detail/object: required: is missing: write object with key",
    ]
