"""
Judge messages by the published contracts, and say what is wrong without saying what is in them.

A message passes its schema first (jsonschema-rs) and then, if the Lambda would parse it, the Lambda's own model: they
say the same but for what no schema can say (docs/decisions/0009), so a message that is called valid is accepted.

A fault names the JSON Pointer of the value, the keyword of the schema that refuses it, the problem and the remedy. The
pointer of `required` and `additionalProperties` is that of the field itself. A fault quotes the schema, never the
message: names of fields are shown if they look like names, values and object keys only if they are asked for.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import islice, pairwise
from typing import Any, BinaryIO, NamedTuple

import jsonschema_rs
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from aggregator.contracts.catalog import Contract, Profile, contract, published, schema_path
from aggregator.contracts.documents import (
    Document,
    Message,
    UnreadableError,
    commas,
    documents,
    escaped,
    is_batch,
    lines_of,
    messages,
)
from aggregator.schemas import BODY, kind_of

MAX_FAULTS = 20
"""Most faults told of one message; where there are more, one with the keyword `more` says so."""

CONTRACT_OF_KIND = {"s3": "s3-notification", "eventbridge": "eventbridge-notification"}
SKIPPED_KINDS = {"test", "eventbridge-other"}
"""Kinds of messages that the Lambda takes and forgets: they announce no object."""

_TELLING = ("Records", "detail-type")
"""Fields that tell by their name alone what a message is."""

_LAST_WORD = "correct it; the schema cannot express this rule, but the Lambda rejects the message"
_ONLY_CREATIONS = "send only events that create objects, such as ObjectCreated:Put"
_WHOLE = "write it without a decimal point or an exponent: 3, not 3.0"
_OF_PYDANTIC = (
    (re.compile("^Value error, "), ""),
    (re.compile("^Field required$"), "is missing"),
    (re.compile("^(?:Input|String|List) should "), "must "),
)
"""The words of Pydantic, and ours, which are those of the schemas' faults."""

_LIMITS = {
    "minLength": "has fewer than {:,} characters",
    "maxLength": "has more than {:,} characters",
    "minItems": "has fewer than {:,} items",
    "minimum": "is less than {:,}",
    "exclusiveMinimum": "must be greater than {:,}",
    "exclusiveMaximum": "must be less than {:,}",
}
_MAX_PATTERN = 80
_MAX_SHOWN = 200
_NAME = re.compile(r"[A-Za-z0-9_:-]{1,64}")
_JSON_TYPES = {
    str: "a string",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    dict: "an object",
    list: "an array",
}


class Fault(NamedTuple):
    """One thing that is wrong: where, by which keyword, why, and what to do."""

    pointer: str
    keyword: str
    problem: str
    remedy: str


class Verdict(NamedTuple):
    """
    What is said of one message: valid if there are no faults.

    `line` is the message's line in its file, `at` the pointer of the text that holds it, `lines` those of the faults.
    """

    line: int
    at: str
    contract: str | None
    faults: tuple[Fault, ...] = ()
    lines: tuple[int, ...] = ()


MAX_LISTED = 100_000
"""Most commas of a document whose faults are listed: an error takes 2 kB, and the validator makes all at once."""

_PERHAPS_MORE = Fault(
    "", "more", f"has more than {MAX_LISTED:,} values, so one fault is shown", "correct it, and check it again"
)
_MORE = Fault("", "more", f"has more than {MAX_FAULTS} faults", "correct these, and check it again")


class Judge:
    """Judges by one contract, or by the one that each message is made for; `show_values` quotes what was found."""

    def __init__(self, profile: Profile, label: str | None = None, *, show_values: bool = False) -> None:
        self._profile = profile
        self._contract = contract(label) if label else None
        self._show_values = show_values
        if self._contract:
            schema_path(self._contract, profile)

    def file(self, stream: BinaryIO) -> Iterator[Verdict]:
        """A verdict for each message of a file."""
        for document in documents(stream):
            if isinstance(document.content, UnreadableError):
                fault = _unreadable(document.content)._replace(problem=document.content.problem_beside_its_line)
                line = document.line + document.content.line - 1
                yield Verdict(document.line, "", None, (fault,), (line,))
                continue
            judged = list(self._document(document))
            lines = iter(_lines(document, [(at, faults) for at, _, faults in judged]))
            for at, one, faults in judged:
                label = one.label if one else None
                yield Verdict(document.line, at, label, faults, tuple(islice(lines, len(faults))))

    def message(self, message: Message) -> tuple[Contract | None, tuple[Fault, ...]]:
        """The contract that a message is judged by, and its faults."""
        if isinstance(message.content, UnreadableError):
            return None, (_unreadable(message.content),)
        kind = kind_of(message.content)
        faults = _by_model(message.text) if kind in SKIPPED_KINDS else ()
        if faults and kind == "eventbridge-other":  # it is not skipped: so say all that is wrong with it
            kind = "eventbridge"
        one = self._contract or (contract(CONTRACT_OF_KIND[kind]) if kind in CONTRACT_OF_KIND else None)
        if one:
            faults = self._by_schema(one, self._profile, message.content, message.text)
            if faults and (other := _other(kind, one, message.content)):
                return one, (other,)
            return one, faults or (_by_model(message.text) if one.name in CONTRACT_OF_KIND.values() else ())
        if faults or (kind in SKIPPED_KINDS and self._profile == "consumer"):
            return None, faults
        return None, (_unknown(kind, message.content),)

    def _document(self, document: Document) -> Iterator[tuple[str, Contract | None, tuple[Fault, ...]]]:
        whole = self._contract and self._contract.name not in CONTRACT_OF_KIND.values()
        if not whole and is_batch(document.content):
            batch = contract("sqs-batch")
            if faults := self._by_schema(batch, "consumer", document.content, document.text):
                yield "", batch, faults
        found = [Message("", document.text, document.content)] if whole else messages(document.content, document.text)
        for message in found:
            yield message.at, *self.message(message)

    def _by_schema(self, one: Contract, profile: Profile, content: Any, text: str | bytes) -> tuple[Fault, ...]:
        path = schema_path(one, profile)
        if validator(path).is_valid(content):
            return ()
        is_large = commas(text) > MAX_LISTED
        errors = _first_error(path, content) if is_large else validator(path).iter_errors(content)
        faults = _first(
            fault for error in errors for fault in _faults(error, content, published(path), self._show_values)
        )
        return (*faults, _PERHAPS_MORE) if is_large else faults


def _first_error(path: str, content: Any) -> Iterator[Any]:
    """The first error of a document that has one; all at once would take 2 kB of memory each."""
    try:
        validator(path).validate(content)
    except jsonschema_rs.ValidationError as error:
        yield error


@cache
def validator(path: str) -> Any:
    """The validator of the schema at `path` below `contracts/`."""
    return jsonschema_rs.validator_for(published(path))


def faults_of(schema: Any, content: Any) -> list[tuple[str, str]]:
    """The pointer and the keyword of every fault, as they are reported."""
    return [place for error in jsonschema_rs.validator_for(schema).iter_errors(content) for place in places_of(error)]


def places_of(error: Any) -> Iterator[tuple[str, str]]:
    """The pointer and the keyword of an error of jsonschema-rs: a missing or unknown field has its own pointer."""
    keyword, steps = error.kind.name, error.instance_path
    if keyword == "required":
        yield _pointer([*steps, error.kind.property]), keyword
    elif keyword == "additionalProperties":
        yield from ((_pointer([*steps, name]), keyword) for name in error.kind.unexpected)
    else:
        yield _pointer(steps), keyword


def _lines(document: Document, judged: Iterable[tuple[str, Sequence[Fault]]]) -> list[int]:
    """The line of each fault in its file, found in one pass over the document."""
    places = [at.partition("#")[0] or fault.pointer for at, faults in judged for fault in faults]
    if document.is_line:
        return [document.line] * len(places)
    return [document.line + line - 1 for line in lines_of(document.text, places)]


def _by_model(text: str | bytes) -> tuple[Fault, ...]:
    """The Lambda's own word: what the schema cannot say, or is not there to say."""
    try:
        BODY.validate_json(text)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        return _first(
            Fault(_place(fault["loc"]), "lambda", _in_our_words(fault["msg"]), _last_word(fault)) for fault in found
        )
    return ()


def _in_our_words(said: str) -> str:
    for theirs, ours in _OF_PYDANTIC:
        said = theirs.sub(ours, said)
    return said


def _last_word(fault: ErrorDetails) -> str:
    if fault["type"] == "unknown_event":
        return _ONLY_CREATIONS
    return _WHOLE if fault["type"] == "int_type" and isinstance(fault["input"], float) else _LAST_WORD


def _first(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """The first faults, each place and keyword once, and a last one that says so where there are more."""
    found = dict[tuple[str, str], Fault]()
    for fault in faults:
        found.setdefault((fault.pointer, fault.keyword), fault)
        if len(found) > MAX_FAULTS:
            return (*islice(found.values(), MAX_FAULTS), _MORE)
    return tuple(found.values())


def _faults(error: Any, content: Any, schema: Any, show_values: bool) -> Iterator[Fault]:
    """The faults of one error of jsonschema-rs: one for each unknown field."""
    node = _node(schema, error.schema_path[:-1])
    for (pointer, keyword), name in zip(places_of(error), _named(error), strict=True):
        if keyword == "required":
            yield Fault(pointer, keyword, "is missing", f"write {name}{_content(schema, node['properties'][name])}")
        elif keyword == "additionalProperties":
            yield Fault(pointer, keyword, "is not a field of the contract", _instead(name, list(node["properties"])))
        else:
            found = _node(content, error.instance_path)  # where a number is infinite, error.instance is None
            problem = _problem(keyword, _node(schema, error.schema_path), found)
            if show_values:
                problem += f", but is {json.dumps(found)[:_MAX_SHOWN]}"
            yield Fault(pointer, keyword, problem, _corrected(schema, node, error.instance_path))


def _named(error: Any) -> Sequence[str]:
    """The fields that an error is about, or one empty name where it is about a value."""
    if error.kind.name == "required":
        return (error.kind.property,)
    return error.kind.unexpected if error.kind.name == "additionalProperties" else ("",)


def _problem(keyword: str, limit: Any, found: Any) -> str:
    match keyword:
        case "type":
            wanted = " or ".join(limit) if isinstance(limit, list) else limit
            return f"is {_JSON_TYPES.get(type(found), 'null')}, must be of type {wanted}"
        case "const" | "enum":
            return f"must be {' or '.join(json.dumps(value) for value in (limit if keyword == 'enum' else [limit]))}"
        case "pattern" if len(limit) > _MAX_PATTERN:
            return "is not of the form that is asked for"
        case "pattern":
            return f"does not match {limit}"
    return _LIMITS[keyword].format(limit)


def _corrected(schema: Any, node: Any, steps: Sequence[str | int]) -> str:
    """What to write instead of a value."""
    if _followed(schema, node).get("required"):
        return f"write an object{_content(schema, node)}"
    name = next((step for step in reversed(steps) if isinstance(step, str)), "a document")
    return f"write {name}{_content(schema, node)}"


def _content(schema: Any, node: Any) -> str:
    """What belongs into a field that is to be written: the fields of an object, the only value, or a description."""
    node = _followed(schema, node)
    if node.get("required"):
        return f" with {' and '.join(node['required'])}"
    if "const" in node:
        return f": {json.dumps(node['const'])}"
    described = node.get("description", "").partition("\n")[0]
    return f": {described}" if described else " as the contract describes it"


def _followed(schema: Any, node: Any) -> Any:
    return _node(schema, node["$ref"].split("/")[1:]) if "$ref" in node else node


def _instead(name: str, known: Sequence[str]) -> str:
    by_letters = {_letters(one): one for one in known}
    close = get_close_matches(_letters(name), by_letters, n=1)
    if close:
        return f"write {by_letters[close[0]]}"
    return "leave it out; if AWS wrote this message, judge it by the consumer profile"


def _node(schema: Any, steps: Sequence[str | int]) -> Any:
    for step in steps:
        schema = schema[step]
    return schema


def _pointer(steps: Sequence[str | int]) -> str:
    return "".join(f"/{escaped(step)}" if _NAME.fullmatch(str(step)) else "/…" for step in steps)


def _place(location: Sequence[str | int]) -> str:
    """The pointer of a place in Pydantic's words, which name the branch of each union too."""
    named = [step for before, step in pairwise(location) if isinstance(step, int) or not isinstance(before, int)]
    return _pointer(named)


def _unreadable(error: UnreadableError) -> Fault:
    return Fault("", "json", error.problem, error.remedy)


def _other(kind: str | None, one: Contract, content: Any) -> Fault | None:
    """That a message which does not fit the contract that was named is made for another one, if it is."""
    name = "sqs-batch" if is_batch(content) else CONTRACT_OF_KIND.get(kind or "", one.name)
    if name == one.name:
        return None
    is_told = {name, one.name} == set(CONTRACT_OF_KIND.values())  # the two have no field in common that tells
    if not is_told and not validator(schema_path(contract(name), "consumer")).is_valid(content):
        return None
    return Fault("", "contract", f"is an {name}", f"validate it with --contract {contract(name).label}")


def _unknown(kind: str | None, content: Any) -> Fault:
    if kind in SKIPPED_KINDS:
        return Fault("", "contract", "announces no object that was created", "the Lambda would skip it: do not send it")
    if kind == "several":
        return Fault("", "contract", "is several notifications at once", "send each of them as a message of its own")
    meant = {_letters(name): name for name in _TELLING}
    instead = (
        [meant[_letters(name)] for name in content if _letters(name) in meant] if isinstance(content, dict) else []
    )
    remedy = f"write {instead[0]}" if instead else "`aggregator contract list` names the contracts"
    return Fault("", "contract", "is nothing that any contract describes", remedy)


def _letters(name: str) -> str:
    """What is left of a name if case and punctuation do not matter."""
    return re.sub("[^a-z0-9]", "", name.lower())
