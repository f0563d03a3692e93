"""What `aggregator contract validate` prints of files that are wrong, in each of its forms."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import Result

from aggregator.contracts import documents as documents_of_files
from aggregator.contracts.documents import MAX_DOCUMENT_BYTES, MAX_VALUES, documents, lines_of
from aggregator.contracts.validation import MAX_LISTED
from fixtures import factories
from tests.support.contract_command import MINIMAL, SECRET, Run, with_object


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
    wrong = with_object(size=SECRET, eTag=[SECRET], versionId={SECRET: SECRET}, **{SECRET: SECRET, f"{SECRET}\n": 1})
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
    assert f'but is "{SECRET}"' in judged(with_object(size=SECRET), "--show-values").stdout


def test_annotations_are_those_of_github(judged: Callable[..., Result]) -> None:
    result = judged(with_object(size="1"), "--format", "github", name="50%,a:b.json")

    assert result.stdout == (
        "::error file=50%25%2Ca%3Ab.json,line=1,title=contract%3A type::/Records/0/s3/object/size: "
        "is a string, must be of type integer: "
        "write size: bytes of the object, a whole number without a decimal point\n"
    )


def test_junit_has_a_case_for_each_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "good & <right>.json").write_text(json.dumps(MINIMAL))
    (tmp_path / "bad.json").write_text(json.dumps(with_object(size="1")))

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
        (["validate", "."], "this is a folder, name the files in it: ."),
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

    assert lines_of(text, pointers) == [1, 1, 1, 2, 2, 3, 4, 5, 2, 1]


def test_lines_are_counted_in_linear_time_whatever_a_string_holds() -> None:
    assert lines_of(b'{"b": 1,\n "a": "' + b'\\"' * 1_000_000 + b'"}', ["/a"]) == [2]
    assert lines_of(b'"' + b'\\"' * 1_000_000, [""]) == [1]


def test_a_document_of_more_values_than_any_has_is_not_judged(judged: Callable[..., Result]) -> None:
    result = judged(b"[" + b"0," * (MAX_VALUES + 1) + b"0]")

    assert result.stdout.startswith(f"message.json:1 (root): json: has more than {MAX_VALUES:,} values")


def test_of_a_document_of_many_values_one_fault_is_shown_because_each_takes_memory(
    judged: Callable[..., Result],
) -> None:
    result = judged(b'{"Records": [' + b"0," * MAX_LISTED + b"0, 0]}")

    first, second = result.stdout.splitlines()
    assert first.startswith(
        "message.json:1 /Records/0: type: is a number, must be of type object: write an object with"
    )
    assert second == (
        "message.json:1 (root): more: has more than 100,000 values, so one fault is shown: "
        "correct it, and check it again"
    )


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
