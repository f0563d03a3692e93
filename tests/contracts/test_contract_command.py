"""`aggregator contract …`: what it prints, what it never prints, and its exit status."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from aggregator.commands.main import app
from aggregator.contracts import documents as documents_of_files
from aggregator.contracts.catalog import CONTRACTS, root, walk
from aggregator.contracts.documents import MAX_DOCUMENT_BYTES, Lines, documents
from aggregator.schemas import BODY
from fixtures import factories
from tests.support import ROOT

SECRET = "patients/jane-doe.json"

MINIMAL = {
    "Records": [
        {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Put",
            "s3": {"bucket": {"name": "source"}, "object": {"key": SECRET}},
        }
    ]
}

WHOLE = "bytes of the object, a whole number without a decimal point"

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments, **given: CliRunner().invoke(app, ["contract", *arguments], **given)


@pytest.fixture
def judged(run: Run, tmp_path: Path) -> Callable[..., Result]:
    """Judge one file with this content."""

    def judge(content: Any, *arguments: str, name: str = "message.json") -> Result:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (tmp_path / name).write_bytes(raw)
        return run("validate", name, *arguments)

    return judge


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
    message = _with_object(eTag=None) | {}
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
    message = _with_object(newIn2027=True)

    assert judged(message).exit_code == 1
    assert judged(message, "--profile", "consumer").exit_code == 0


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"size": 3.0}, "/Records/s3/object/size: lambda: Input should be a valid integer"),
        ({"key": "%FF"}, "/Records/0/s3/object/key: pattern: is not of the form that is asked for"),
    ],
)
def test_what_is_called_valid_is_accepted_by_the_lambda(
    judged: Callable[..., Result], fields: dict[str, Any], fault: str
) -> None:
    result = judged(_with_object(**fields))

    assert result.exit_code == 1
    assert fault.replace("/Records/s3", "/Records/0/s3") in result.stdout


@pytest.mark.parametrize("key", ["%FF", "%C3%A9" * 512 + "a"])
def test_what_the_consumer_schema_cannot_say_the_lambda_says(judged: Callable[..., Result], key: str) -> None:
    result = judged(_with_object(key=key), "--profile", "consumer")

    assert result.exit_code == 1
    assert "/Records/0/s3/object/key: " in result.stdout
    assert key not in result.stdout


def test_an_sqs_event_is_unwrapped_and_each_body_judged(judged: Callable[..., Result]) -> None:
    sns = {"Type": "Notification", "Message": json.dumps(_with_object(size=-1))}
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


def test_an_event_of_another_source_is_refused_as_the_lambda_refuses_it(judged: Callable[..., Result]) -> None:
    result = judged({"source": "my.app", "detail-type": "Something"}, "--profile", "consumer")

    assert result.stdout.startswith("message.json:1 /source: lambda: Input should be 'aws.s3'")


@pytest.mark.parametrize("number", [20, 21, 1_000])
def test_a_thousand_unknown_fields_are_told_twenty_times_and_that_there_are_more(
    number: int, judged: Callable[..., Result]
) -> None:
    result = judged(_with_object(**{f"field{at}": at for at in range(number)}))
    in_json = judged(_with_object(**{f"field{at}": at for at in range(number)}), "--format", "json")

    more = ["message.json:1 (root): more: has more than 20 faults: correct these, and check it again"]
    keywords = [fault["keyword"] for fault in json.loads(in_json.stdout)["faults"]]
    assert result.stdout.splitlines()[20:] == (more if number > 20 else [])
    assert keywords == ["additionalProperties"] * 20 + (["more"] if number > 20 else [])


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ("3.0", "lambda: Input should be a valid integer: write it without a decimal point or an exponent: 3, not 3.0"),
        ("1e2", "lambda: Input should be a valid integer: write it without a decimal point or an exponent: 3, not 3.0"),
        (
            "1e400",
            "type: is a number, must be of type integer: bytes of the object, a whole number without a decimal point",
        ),
    ],
)
def test_a_size_that_is_a_number_and_no_integer_is_called_so(
    size: str, told: str, judged: Callable[..., Result]
) -> None:
    message = json.dumps(_with_object(size=0)).replace('"size": 0', f'"size": {size}')

    result = judged(message.encode())

    assert result.stdout == f"message.json:1 /Records/0/s3/object/size: {told}\n"


@pytest.mark.parametrize("form", ["text", "json", "junit", "github"])
def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_being_told(
    form: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "bad.json").write_text("{}")
    (tmp_path / "good.json").write_text(json.dumps(MINIMAL))

    result = run("validate", "--format", form, "bad.json", "missing.json", "good.json")

    missing = "[Errno 2] No such file or directory: 'missing.json'"
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


def test_an_error_in_a_line_is_told_with_one_number_of_a_line(judged: Callable[..., Result]) -> None:
    lines = [json.dumps(MINIMAL), json.dumps(MINIMAL), '{"Records" []}']

    result = judged("\n".join(lines).encode())

    assert result.stdout.startswith("message.json:3 (root): json: is not JSON: expected `:` at column 12: ")


def test_the_lines_of_an_event_of_many_wrong_bodies_are_counted_once(
    judged: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    def noted(text: str) -> list[tuple[str, int]]:
        read.append(text)
        return [("", 1)]

    monkeypatch.setattr(documents_of_files, "_values", noted)
    event = factories.event(*["[]"] * 50)

    result = judged(json.dumps(event, indent=1).encode())

    assert (result.stderr, len(read)) == ("50 messages, 50 invalid\n", 1)


def test_a_first_line_that_is_wrong_does_not_hide_the_others(judged: Callable[..., Result]) -> None:
    lines = ["not JSON", json.dumps(MINIMAL), json.dumps(MINIMAL)]

    assert judged("\n".join(lines).encode()).stderr == "3 messages, 1 invalid\n"


def test_no_form_shows_a_value_a_key_or_a_name_that_is_none(judged: Callable[..., Result]) -> None:
    wrong = _with_object(size=SECRET, eTag=[SECRET], versionId={SECRET: SECRET}, **{SECRET: SECRET, f"{SECRET}\n": 1})
    wrong["Records"][0] |= {"eventName": SECRET, "eventVersion": SECRET, "awsRegion": 7, SECRET: {SECRET: SECRET}}
    wrong["Records"].append(SECRET)
    wrong["Records"].append({SECRET: SECRET, "eventName": SECRET})

    for form in ("text", "json", "junit", "github"):
        for profile in ("producer", "consumer"):
            told = judged(wrong, "--format", form, "--profile", profile)
            in_event = judged(factories.event(json.dumps(wrong)), "--format", form, "--profile", profile)
            assert (told.exit_code, in_event.exit_code) == (1, 1)
            assert "jane" not in told.output + in_event.output


def test_values_are_shown_if_they_are_asked_for(judged: Callable[..., Result]) -> None:
    assert f'but is "{SECRET}"' in judged(_with_object(size=SECRET), "--show-values").stdout


def test_annotations_are_those_of_github(judged: Callable[..., Result]) -> None:
    result = judged(_with_object(size="1"), "--format", "github", name="50%,a:b.json")

    assert result.stdout == (
        "::error file=50%25%2Ca%3Ab.json,line=1,title=contract%3A type::/Records/0/s3/object/size: "
        "is a string, must be of type integer: bytes of the object, a whole number without a decimal point\n"
    )


def test_junit_has_a_case_for_each_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good & <right>.json").write_text(json.dumps(MINIMAL))
    (tmp_path / "bad.json").write_text(json.dumps(_with_object(size="1")))

    result = run("validate", "--format", "junit", "good & <right>.json", "bad.json")

    suite = ET.fromstring(result.stdout)
    cases = {case.get("name"): [failure.get("message") for failure in case] for case in suite}
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    assert cases == {"good & <right>.json": [], "bad.json": ["1 fault"]}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "json: is empty"),
        (b"\n \n", "json: is empty"),
        (b"hello", "json: is not JSON"),
        (b"{", "json: is not JSON"),
        (b'{"Records": [}', "json: is not JSON"),
        (b"\xef\xbb\xbf{}", "json: begins with a byte order mark"),
        ('{"a": 1}'.encode("utf-16"), "json: begins with a byte order mark"),
        (b'{"a": "\xff"}', "json: is not JSON"),
        (b'{"a": NaN}', "json: is not JSON"),
        (b'{"a": "\\ud800"}', "json: is not JSON"),
        (b"[" * 100_000, "json: is not JSON: recursion limit exceeded"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "json: is not JSON: recursion limit exceeded"),
        (b'{"Records": ' + b"[" * 150 + b"]" * 150 + b"}", "/Records/0: type: is an array, must be of type object"),
        (b'"x' + b"x" * MAX_DOCUMENT_BYTES + b'"', "json: is longer than 16 MiB"),
        (b"[\n" + b"1,\n" * (MAX_DOCUMENT_BYTES // 3) + b"1]", "json: is longer than 16 MiB"),
        (b"7", "contract: is nothing that any contract describes"),
        (b"null", "contract: is nothing that any contract describes"),
        (b'{"Records": {}}', "/Records: type: is an object, must be of type array"),
        (b'{"Records": []}', "/Records: minItems: has fewer than 1 items"),
        (b'{"Records": [null]}', "/Records/0: type: is null, must be of type object"),
        (b'{"Type": "Notification"}', "contract: is nothing that any contract describes"),
        (b'{"Type": "Notification", "Message": "{"}', "message.json:1 /Message#: json: is not JSON"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else None,
)
def test_bad_input_is_one_clear_line(judged: Callable[..., Result], content: bytes, fault: str) -> None:
    result = judged(content)

    assert result.exit_code == 1
    assert len(result.stdout.splitlines()) == 1
    assert fault in result.stdout


def test_fifty_megabytes_of_lines_are_read_line_by_line(judged: Callable[..., Result]) -> None:
    line = json.dumps(MINIMAL | {"x": "y" * 1_000_000}).encode() + b"\n"

    result = judged(line * 50, "--profile", "consumer")

    assert (result.exit_code, result.stderr) == (0, "50 messages, 0 invalid\n")


def test_a_line_that_is_too_long_is_passed_over(judged: Callable[..., Result]) -> None:
    lines = [json.dumps(MINIMAL).encode(), b"x" * (2 * MAX_DOCUMENT_BYTES + 10), json.dumps(MINIMAL).encode()]

    result = judged(b"\n".join(lines))

    assert result.stdout.startswith("message.json:2 (root): json: is longer than 16 MiB")
    assert result.stderr == "3 messages, 1 invalid\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["validate", "no-such-file.json"], "no-such-file.json"),
        (["validate", "."], "Is a directory"),
        (["validate", "m.json", "--contract", "s4-notification"], "no contract is called 's4-notification'"),
        (["validate", "m.json", "--contract", "s3-notification@2"], "no contract is called 's3-notification@2'"),
        (["validate", "m.json", "--contract", "sqs-batch", "--profile", "producer"], "has no producer schema"),
        (["validate", "m.json", "--format", "yaml"], "yaml"),
        (["validate"], "FILE"),
        (["show", "s4"], "no contract is called 's4'"),
        (["show", "sqs-batch", "--profile", "producer"], "has no producer schema"),
        (["sample", "s4"], "no contract is called 's4'"),
        (["sample", "sqs-batch", "-n", "-1"], "-n"),
        (["export", "m.json"], "m.json"),
    ],
)
def test_a_wrong_call_is_told_in_words(run: Run, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "m.json").write_text("{}")

    result = run(*arguments)

    assert result.exit_code == 2
    assert words in result.stderr
    assert "Traceback" not in result.output


def test_a_file_that_may_not_be_read_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> io.BytesIO:
        raise PermissionError(13, "Permission denied", "message.json")

    monkeypatch.setattr(Path, "open", refuse)

    result = run("validate", "message.json")

    assert (result.exit_code, result.stderr) == (2, "aggregator: [Errno 13] Permission denied: 'message.json'\n")


def test_faults_have_the_lines_of_their_values() -> None:
    text = b'{"a": [1,\n {"b": "x,]}\\"",\n "c/d": null}],\n "": {\n"": 2}}'

    pointers = ["", "/a", "/a/0", "/a/1", "/a/1/b", "/a/1/c~1d", "/", "//", "/a/1/missing", "/no/where"]

    lines = Lines(text)

    assert [lines.of(pointer) for pointer in pointers] == [1, 1, 1, 2, 2, 3, 4, 5, 2, 1]


def test_a_document_keeps_its_line_behind_blank_ones() -> None:
    (document,) = documents(io.BytesIO(b'\n\n{\n"a":\n\n1}\n'))

    assert (document.line, document.content, document.is_line) == (3, {"a": 1}, False)


def test_judging_needs_neither_boto3_nor_powertools_nor_polyfactory() -> None:
    program = """
import sys
from aggregator.contracts.validation import Judge
Judge("producer")
heavy = {"boto3", "aws_lambda_powertools", "polyfactory", "duckdb"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def _with_object(**fields: Any) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(json.dumps(MINIMAL))
    message["Records"][0]["s3"]["object"] |= fields
    return message
