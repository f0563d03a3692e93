"""
Read messages from a file: one JSON document, or JSON lines; whole SQS events and SNS envelopes are unwrapped.

If the first line is valid JSON, the file is read as JSON Lines. Otherwise the whole file is read as one document. If
that fails too, and the second line is valid JSON, the file is read as JSON Lines with an invalid first line.

JSON is parsed by the parser that the Lambda parses with (pydantic-core's), which gives up on nesting deeper than 200
levels instead of overflowing. Nothing that is read here is ever part of an error's text.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from pydantic_core import from_json

MAX_DOCUMENT_BYTES = 16 * 2**20
"""Longest document: a batch has at most 6 MB (Lambda quotas), the index of 100,000 members some 10 MB."""

MAX_VALUES = 1_000_000
"""Most commas of a document: an index of 100,000 members has 900,000."""

_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PLACE = re.compile(r"at line ([0-9]+) column")
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[{}\[\]:,]|[^\s{}\[\]:,"]++', re.DOTALL)
"""A mark, or a value; nothing that it takes is given back, so that the time is linear."""


class UnreadableError(ValueError):
    """What stands in a document's place is none: says why, what to do, and on which line of it."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem, self.remedy = problem, remedy
        place = _PLACE.search(problem)
        self.line = int(place[1]) if place else 1

    @property
    def problem_beside_its_line(self) -> str:
        """The problem, for where the line is told beside it: no second number that counts from elsewhere."""
        return _PLACE.sub("at column", self.problem)


class Document(NamedTuple):
    """A document, its text, and the line of the file on which it begins; `content` may say why there is none."""

    line: int
    text: bytes
    content: Any | UnreadableError
    is_line: bool = True


class Message(NamedTuple):
    """A message out of a document: `at` is the pointer of the text that holds it, empty where it is the document."""

    at: str
    text: str | bytes
    content: Any | UnreadableError


def lines_of(text: bytes, pointers: Iterable[str]) -> list[int]:
    """The lines on which the values at pointers into a text begin; a pointer that leads nowhere has its parent's."""
    asked = [list(_and_parents(pointer)) for pointer in pointers]
    wanted, begins = {each for parents in asked for each in parents}, dict[str, int]()
    for pointer, line in _values(text.decode("utf-8", errors="replace")) if wanted else ():
        if pointer in wanted:
            begins[pointer] = line
    return [next(begins[each] for each in parents if each in begins) for parents in asked]


def documents(stream: BinaryIO) -> Iterator[Document]:
    """The documents of a file, in their order; what is none is yielded with the reason."""
    lines = ((number, line) for number, line in enumerate(_lines(stream), 1) if not _is_blank(line))
    first = next(lines, (1, b""))
    if not _is_unfinished(first[1]):
        yield from map(_line, chain((first,), lines))
        return
    held = list(_up_to_a_document(chain((first,), lines)))
    whole = _whole(held)
    if isinstance(whole.content, UnreadableError) and len(held) > 1 and _is_document(held[1][1]):
        yield from map(_line, chain(held, lines))
    else:
        yield whole


def commas(text: str | bytes) -> int:
    """How many values a document has, at the most, less one."""
    return text.count(",") if isinstance(text, str) else text.count(b",")


def parsed(text: str | bytes) -> Any | UnreadableError:
    """The document that a text says, or why it says none."""
    if commas(text) > MAX_VALUES:
        return UnreadableError(f"has more than {MAX_VALUES:,} values", "no message, batch or index has; split it")
    if not text.strip():
        return UnreadableError("is empty", "write one JSON document, or one on each line")
    if isinstance(text, bytes) and text.startswith(_BYTE_ORDER_MARKS):
        return UnreadableError("begins with a byte order mark", "write UTF-8 without one")
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        said = str(error).replace("expected ident", "expected true, false or null")  # the words of a parser
        return UnreadableError(f"is not JSON: {said}", "write JSON (RFC 8259) in UTF-8")


def messages(content: Any, text: bytes) -> Iterator[Message]:
    """What the queue carries of a document: itself, the bodies of an SQS event, what SNS envelopes hold."""
    if not is_batch(content):
        yield _out_of_sns(Message("", text, content))
        return
    for index, record in enumerate(content["Records"]):
        body = record.get("body") if isinstance(record, dict) else None
        if isinstance(body, str):
            yield _out_of_sns(Message(f"/Records/{index}/body", body, parsed(body)))


def is_batch(content: Any) -> bool:
    """Whether a document is an event of Lambda that SQS messages came in."""
    records = content.get("Records") if isinstance(content, dict) else None
    if not isinstance(records, list):
        return False
    return any(isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records)


def escaped(name: object) -> str:
    """A step of a JSON Pointer (RFC 6901)."""
    return str(name).replace("~", "~0").replace("/", "~1")


def _out_of_sns(message: Message) -> Message:
    """The message inside, if this is an SNS envelope around a text."""
    content = message.content
    if not (isinstance(content, dict) and content.get("Type") == "Notification"):
        return message
    inner = content.get("Message")
    if not isinstance(inner, str):
        return message
    return Message(f"{message.at}#/Message" if message.at else "/Message", inner, parsed(inner))


def _and_parents(pointer: str) -> Iterator[str]:
    """A pointer, its parent, and so on up to the document."""
    while pointer:
        yield pointer
        pointer = pointer.rpartition("/")[0]
    yield ""


def _lines(stream: BinaryIO) -> Iterator[bytes | UnreadableError]:
    """The lines of a file; one that is longer than any document is passed over."""
    while line := stream.readline(MAX_DOCUMENT_BYTES + 1):
        if len(line) <= MAX_DOCUMENT_BYTES:
            yield line.rstrip(b"\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_DOCUMENT_BYTES)
        yield _too_long()


def _line(numbered: tuple[int, bytes | UnreadableError]) -> Document:
    """A line as a document of its own."""
    number, text = numbered
    if isinstance(text, UnreadableError):
        return Document(number, b"", text)
    return Document(number, text, parsed(text))


def _up_to_a_document(
    lines: Iterable[tuple[int, bytes | UnreadableError]],
) -> Iterator[tuple[int, bytes | UnreadableError]]:
    """Lines until they are more than one document can be."""
    size = 0
    for number, line in lines:
        yield number, line
        size += MAX_DOCUMENT_BYTES if isinstance(line, UnreadableError) else len(line)
        if size > MAX_DOCUMENT_BYTES:
            return


def _is_blank(line: bytes | UnreadableError) -> bool:
    return isinstance(line, bytes) and not line.strip()


def _is_unfinished(line: bytes | UnreadableError) -> bool:
    return not isinstance(line, UnreadableError) and isinstance(parsed(line), UnreadableError)


def _is_document(line: bytes | UnreadableError) -> bool:
    return isinstance(line, bytes) and isinstance(parsed(line), dict | list)


def _whole(lines: Iterable[tuple[int, bytes | UnreadableError]]) -> Document:
    """The lines as one document."""
    begins, last, text = 0, 0, bytearray()
    for number, line in lines:
        begins, last = begins or number, last or number
        if isinstance(line, UnreadableError) or len(text) + len(line) > MAX_DOCUMENT_BYTES:
            return Document(begins, b"", _too_long(), is_line=False)
        text += b"\n" * (number - last) + line
        last = number
    return Document(begins, bytes(text), parsed(bytes(text)), is_line=False)


def _too_long() -> UnreadableError:
    return UnreadableError(
        f"is longer than {MAX_DOCUMENT_BYTES // 2**20} MiB",
        "no message, batch or index is; write one JSON document a line",
    )


def _values(text: str) -> Iterator[tuple[str, int]]:
    """The pointer and the line of every value in a JSON text; in `path`, None stands for a name that is to come."""
    path: list[str | int | None] = []
    line, at, name = 1, 0, ""
    for token in _TOKEN.finditer(text):
        line, at = line + text.count("\n", at, token.start()), token.start()
        mark = token.group()
        if mark in "}]":
            path.pop()
        elif mark == ",":
            path[-1] = path[-1] + 1 if isinstance(path[-1], int) else None
        elif mark == ":":
            path[-1] = name
        elif path and path[-1] is None:
            name = escaped(from_json(mark))
        else:
            yield "".join(f"/{step}" for step in path), line
            if mark in "{[":
                path.append(None if mark == "{" else 0)
