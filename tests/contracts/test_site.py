"""The page checks as `aggregator contract validate` does, and the build fails for what it cannot check or show."""

import json
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from aggregator.contracts.catalog import CONTRACTS, DRAFT_07, DRAFT_2020, Contract, Profile, published, schema_path
from aggregator.contracts.gate.examples import load
from aggregator.contracts.gate.lint import KEYWORDS
from aggregator.contracts.mutations import VALUES, mutants
from aggregator.contracts.validation import MAX_FAULTS, Judge, faults_of
from aggregator.events import NO_CREATION
from contracts_site import fields, validators
from contracts_site.fields import UnshowableError
from contracts_site.page import as_checked, judge_data, judge_scripts, page
from contracts_site.validators import MissingToolError, are_tools_here, compile_validators, without_references
from tests.support import ROOT

FOLDER = ROOT / "contracts"
DRIVER = ROOT / "tests/support/judge_by_the_page.mjs"
SAMPLE = 3_000
"""How many mutants of each contract both check."""
SPOILT = 200
"""How many documents with several changes both check."""

node_is_here = pytest.mark.skipif(
    not are_tools_here(), reason="ajv is not installed: npm ci --prefix contracts/snippets/node"
)


class Call(NamedTuple):
    """What both are asked: a text, and how to check it."""

    profile: Profile
    label: str | None
    text: str


@pytest.mark.once
@node_is_here
@pytest.mark.parametrize("one", CONTRACTS, ids=lambda one: one.name)
def test_the_page_and_the_command_line_say_the_same_of_every_example_and_its_mutants(
    one: Contract, tmp_path: Path
) -> None:
    examples = load(FOLDER, one).documents
    changed = [mutant.document for example in examples for mutant in mutants(example)]
    documents = [*examples, *random.Random(0).sample(changed, min(SAMPLE, len(changed)))]

    calls = [Call(profile, one.label, json.dumps(document)) for document in documents for profile in one.profiles]

    _assert_agreement(calls, tmp_path)


@pytest.mark.once
@pytest.mark.chaos
@node_is_here
@pytest.mark.parametrize("one", CONTRACTS, ids=lambda one: one.name)
def test_the_page_lists_many_faults_in_the_order_of_the_command_line(one: Contract, tmp_path: Path) -> None:
    dice = random.Random(0)
    examples = load(FOLDER, one).documents

    documents = [_spoilt(dice.choice(examples), dice) for _ in range(SPOILT)]
    calls = [Call(profile, one.label, json.dumps(document)) for document in documents for profile in one.profiles]

    _assert_agreement(calls, tmp_path)


def _spoilt(document: Any, dice: random.Random) -> Any:
    """The document with several changes."""
    for _ in range(6):
        if not (changes := [mutant.document for mutant in mutants(document)]):
            break
        document = dice.choice([one for one in dice.sample(changes, 5) if one])
    return document


@pytest.mark.once
@node_is_here
def test_the_page_unwraps_and_reads_what_the_command_line_does(tmp_path: Path) -> None:
    good = json.dumps(_example("s3-notification", "put"))
    bad = json.dumps(_example("eventbridge-notification", "put") | {"sauce": 1, "a b": 2}, indent=1)
    sns = json.dumps({"Type": "Notification", "Message": bad})
    batch = json.dumps({"Records": [_sqs(good), _sqs(bad), _sqs(sns), _sqs("{"), _sqs(""), _sqs("[" * 999)]}, indent=2)
    texts = [
        good, bad, sns, batch, f"\n\n{bad}\n\n", f"{good}\n{json.dumps(json.loads(bad))}\n\nx\n",
        f"{bad}{good}", _object("size", 10**400), _object("size", -(10**400)),
        json.dumps({"Records": [_sqs(good), {"eventSource": "aws:sqs"}, 7]}),
        json.dumps({"Event": "s3:TestEvent"}), json.dumps({"detail-type": "Object Deleted", "source": "aws.s3"}),
        json.dumps({"detail-type": 5}), json.dumps({"Type": "Notification", "Message": 5}), "{}", "[]", "null", "",
        _object("key", "%C3"), _object("key", "%zz%"), _object("key", "%C3é"), _object("key", "é%A9"),
        _object("key", "%e2%82%ac+" * 340), _object("key", "%e2%82%ac+" * 250), _object("size", 3.0),
        _object("size", 10**300), _object("etag", "constructor"), _object("__proto__", {"key": 1}),
        _object("key", "🦊" * 1024), _object("key", "🦊" * 256),
        good.replace('"Records"', '"Records": [], "Records"', 1), good.replace('": ', '":\n').replace("]", "]\n"),
        bad.replace("{", '{ "sauce": 1,\n\n', 1), f"x\n{good}\n", "{\n[1]\n",
    ]  # fmt: skip

    calls = [Call(profile, None, text) for text in texts for profile in ("producer", "consumer")]

    _assert_agreement(calls, tmp_path)


def _changed_event(**fields: Any) -> str:
    """A deletion and a creation in one notification, with other fields in the creation or beside both."""
    document = json.loads(json.dumps(published("s3-notification/v1/examples/valid/put.json")))
    record = document["Records"][0]
    document["Records"].insert(0, {"eventSource": "aws:s3", "eventName": "ObjectRemoved:Delete"})
    record.update({name: value for name, value in fields.items() if name in record})
    document.update({name.replace("_", "-"): value for name, value in fields.items() if name not in record})
    return json.dumps(document)


NAMES = [
    *NO_CREATION,
    "ObjectCreated:Put",
    "ObjectCreated:",
    "ObjectTagging:Put",
    "s3:ObjectTagging:Put",
    "PutObject",
    "s3:ObjectCreated:Put",
    "s3:s3:ObjectCreated:Put",
    " ObjectCreated:Put",
    "s3:",
    ":",
    "toString",
    "Object Created",
]
EVENTS = [
    *(_changed_event(eventName=name) for name in NAMES),
    *(json.dumps({"source": "aws.s3", "detail-type": name}) for name in NAMES),
    json.dumps({"source": "my.app", "detail-type": "New"}), json.dumps({"source": "aws.s3", "detail-type": ""}),
    _changed_event(eventName="s3:ObjectCreated:Put", eventVersion="3.0"),
    _changed_event(eventName="s3:ObjectCreated:Put", s3={"bucket": {"name": "source"}, "object": {"key": "%C3"}}),
    _changed_event(eventName="s3:ObjectCreated:Put", s3={"bucket": {"name": ""}, "object": {"size": "1"}}),
    _changed_event(eventName="s3:ObjectCreated:Put", s3="gone"),
    _changed_event(eventName="s3:ObjectCreated:Put", eventSource="minio:s3"),
    _changed_event(detail_type="Object Deleted"), _changed_event(Type="Notification"), _changed_event(Type="Other"),
    _changed_event(Event="s3:TestEvent"), json.dumps({"Event": "s3:TestEvent", "detail": {}}),
    json.dumps({"Event": "s3:TestEvent", "records": []}), json.dumps({"Event": "s3:TestEvent", "body": {}}),
    json.dumps({"Event": "s3:TestEvent", "Message": "{}"}), json.dumps({"Event": "s3:TestEvent", "Bucket": "a"}),
    json.dumps({"Type": "Notification", "Message": "{}", "detail-type": "Object Deleted"}),
]  # fmt: skip


@pytest.mark.once
@node_is_here
def test_the_page_knows_the_same_events_by_whatever_contract_they_are_judged(tmp_path: Path) -> None:
    labels = [None, *(one.label for one in CONTRACTS if one.name.endswith("-notification"))]
    profiles: tuple[Profile, ...] = ("producer", "consumer")

    calls = [Call(profile, label, text) for text in EVENTS for profile in profiles for label in labels]

    _assert_agreement(calls, tmp_path)


NO_JSON = [
    "[" * 201 + "]" * 201, "[" * 202 + "]" * 202, "[" * 100_000, '{"a":' * 100_000, "9" * 4300, "9" * 4301, "1e400",
    '"\\ud800"', '"\\udc00"', '"\\ud83d\\ude00"', '"a\tb"', "01", "-01", "-", "1.", "1e", ".5", "+1", "tru",
    '{"a":1,}', "[1,]", "[1 2]", '{"a" 1}', "{1:2}", "NaN", "-Infinity", '"\\x"', '"\\u12g4"', '"abc', "[1]x",
    "\ufeff{}", "\u00a01", '{"a":1', "[", "{", "-0", "1E5", "\f1", '{"a":1\n,"b":x}', '[\n\n"é🦊" x', "1 2", "{,", "[,",
    f'["{chr(92)}n{chr(92) * 4_000_000}"]', "\n\n[\n1.x]", "{'a': 1}", "// no\n{}", '"\\u0000"', " \n\t ",
]  # fmt: skip


@pytest.mark.once
@node_is_here
def test_what_is_no_json_is_none_to_both_and_on_the_same_line(tmp_path: Path) -> None:
    calls = [Call("consumer", None, text) for text in NO_JSON]

    _assert_agreement(calls, tmp_path)


@pytest.mark.once
@node_is_here
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{\n  "é🦊": x}', "is not JSON: a value is expected at column 9"),
        ('{"a": 1,\n}', "is not JSON: the name of a field is expected, in double quotes at column 1"),
        ("[" * 100_000, "is not JSON: it is nested deeper than 201 levels at column 202"),
        ("1" * 5_000, "is not JSON: a number has more than 4300 digits at column 5001"),
        ("\ufeff{}", "begins with a byte order mark"),
    ],
)
def test_what_is_no_json_is_told_with_line_and_column(text: str, problem: str, tmp_path: Path) -> None:
    (verdicts,) = _by_the_page([Call("consumer", None, text)], tmp_path)

    assert [fault["problem"] for verdict in verdicts for fault in verdict["faults"]] == [problem]


KEYWORD_BY_KEYWORD: list[dict[str, Any]] = [
    {"type": "integer"}, {"type": "number"}, {"type": ["string", "null"]}, {"type": ["array", "boolean"]},
    {"const": 1}, {"const": None}, {"const": "x"}, {"enum": [0, True, "", None]}, {"enum": [1.5]},
    {"minimum": 0}, {"maximum": 1}, {"exclusiveMinimum": 0}, {"exclusiveMaximum": 1}, {"minimum": 2**53},
    {"minLength": 1}, {"maxLength": 1}, {"pattern": "^.$"}, {"pattern": "[a-z]"}, {"minItems": 1}, {"maxItems": 0},
    {"items": {"type": "null"}}, {"required": ["x", "name"]}, {"properties": {"x": {"type": "string"}}},
    {"properties": {"x": {}}, "additionalProperties": False}, {"additionalProperties": {"const": "a"}},
    {"properties": {"x": {}}, "additionalProperties": True},
    {"anyOf": [{"type": "string"}, {"minimum": 1}]}, {"allOf": [{"type": "string"}, {"minLength": 2}]},
    {"if": {"type": "string"}, "then": {"minLength": 2}, "else": {"type": "null"}},
    {"if": {"required": ["x"]}, "then": {"required": ["y"]}},
    {"$defs": {"a": {"type": "string"}}, "$ref": "#/$defs/a"},
    {"definitions": {"a": {"items": {"type": "string"}}}, "anyOf": [{"$ref": "#/definitions/a"}]},
]  # fmt: skip


@pytest.mark.once
@node_is_here
@pytest.mark.parametrize("dialect", [DRAFT_2020, DRAFT_07])
def test_each_keyword_means_to_the_page_what_it_means_to_jsonschema_rs(dialect: str, tmp_path: Path) -> None:
    schemas = {json.dumps(schema): {"$schema": dialect, **schema} for schema in KEYWORD_BY_KEYWORD}
    contracts = [as_checked(name, {"consumer": schema}) for name, schema in schemas.items()]
    calls = [Call("consumer", name, json.dumps(value)) for name in schemas for value in VALUES]

    answers = _by_the_page(calls, tmp_path, contracts)

    for call, (verdict,) in zip(calls, answers, strict=True):
        found = [(fault["pointer"], fault["keyword"]) for fault in verdict["faults"]]
        assert found == faults_of(schemas[str(call.label)], json.loads(call.text)), call


@pytest.mark.once
@node_is_here
def test_the_code_that_checks_is_the_same_at_each_build_and_needs_no_eval() -> None:
    code = judge_scripts(_contracts())

    assert code == judge_scripts(_contracts())
    assert [word for script in code for word in ("eval(", "Function(", "import(", "</script") if word in script] == []


@pytest.mark.once
@node_is_here
def test_no_page_is_built_from_a_schema_that_ajv_cannot_compile() -> None:
    with pytest.raises(
        UnshowableError, match='ajv cannot compile a schema: Error: strict mode: unknown keyword: "fewest"'
    ):
        compile_validators({"x": {"fewest": 1}})


def test_no_page_is_built_from_a_schema_that_leads_back_to_itself() -> None:
    with pytest.raises(UnshowableError, match="#/\\$defs/a leads back to itself"):
        without_references({"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"})


def test_a_build_without_ajv_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(validators, "_AJV", tmp_path / "ajv")

    with pytest.raises(MissingToolError, match=r"run `npm ci --prefix contracts/snippets/node`$"):
        page(FOLDER)


def test_every_keyword_that_a_schema_may_use_is_shown() -> None:
    assert {*fields.LIMITS, *fields.VALUES, *fields.STRUCTURE, *fields.WORDS} == KEYWORDS


def test_no_page_is_built_from_a_schema_with_a_keyword_that_the_page_does_not_know(tmp_path: Path) -> None:
    folder = tmp_path / "contracts"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("node_modules"))
    path = folder / "sqs-batch/v1/consumer.schema.json"
    path.write_text(path.read_text("utf-8").replace('"minLength": 1', '"format": "uuid"', 1), "utf-8")

    with pytest.raises(UnshowableError, match=r"SqsRecord/properties/messageId/format is a keyword outside"):
        page(folder)


def test_no_page_is_built_from_a_change_that_belongs_to_no_contract(tmp_path: Path) -> None:
    folder = tmp_path / "contracts"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("node_modules"))
    with (folder / "CHANGELOG.md").open("a", encoding="utf-8") as file:
        file.write("\n## s4-notification 1.0.0 (first)\n\n- A new one.\n")

    with pytest.raises(UnshowableError, match=r"no contract is called s4-notification"):
        page(folder)


def _assert_agreement(calls: Sequence[Call], scratch: Path) -> None:
    for call, by_page in zip(calls, _by_the_page(calls, scratch), strict=True):
        ours = _by_the_command_line(call)
        theirs = [
            (one["at"], one["contract"], [(f["line"], f["pointer"], f["keyword"]) for f in one["faults"]])
            for one in by_page
        ]
        assert [one[:2] for one in theirs] == [one[:2] for one in ours], call
        for (*_, printed), (*_, found) in zip(ours, theirs, strict=True):
            assert found[:MAX_FAULTS] == printed, call


def _by_the_command_line(call: Call) -> list[tuple[str, str | None, list[tuple[int, str, str]]]]:
    found = Judge(call.profile, call.label).file(BytesIO(call.text.encode()))
    return [
        (
            one.at,
            one.contract,
            [
                (line, fault.pointer, fault.keyword)
                for line, fault in zip(one.lines, one.faults, strict=True)
                if fault.keyword != "more"  # the page lists all
            ],
        )
        for one in found
    ]


def _by_the_page(calls: Sequence[Call], scratch: Path, contracts: list[dict[str, Any]] | None = None) -> Iterator[Any]:
    script, site = scratch / "judge.js", scratch / "data.json"
    script.write_text("\n".join(judge_scripts(contracts) if contracts else _judge()), encoding="utf-8")
    site.write_text(json.dumps(judge_data(contracts or _contracts())), encoding="utf-8")
    asked = "".join(f"{json.dumps(call)}\n" for call in calls)
    command = ["node", str(DRIVER), str(script), str(site)]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == ""
    return map(json.loads, done.stdout.splitlines())


@cache
def _judge() -> list[str]:
    return judge_scripts(_contracts())


def _contracts() -> list[dict[str, Any]]:
    return [
        as_checked(one.label, {profile: published(schema_path(one, profile)) for profile in one.profiles})
        for one in CONTRACTS
    ]


def _example(name: str, example: str) -> dict[str, Any]:
    document: dict[str, Any] = published(f"{name}/v1/examples/valid/{example}.json")
    return document


def _object(field: str, value: Any) -> str:
    """Two notifications, one a line, whose object has one field of another value."""
    s3, eventbridge = (
        json.loads(json.dumps(_example(f"{name}-notification", "put"))) for name in ("s3", "eventbridge")
    )
    s3["Records"][0]["s3"]["object"][field] = value
    eventbridge["detail"]["object"][field] = value
    return f"{json.dumps(s3)}\n{json.dumps(eventbridge)}"


def _sqs(body: str) -> dict[str, Any]:
    return {"messageId": "1", "eventSource": "aws:sqs", "body": body}
