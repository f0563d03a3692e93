"""HTML from values: every text is escaped by the serialiser, none by hand."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from xml.etree import ElementTree as ET

Child = ET.Element | str | None


def tag(name: str, *children: Child, **attributes: str) -> ET.Element:
    """An element; a trailing underscore of an attribute's name is dropped, other underscores become dashes."""
    element = ET.Element(name, {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()})
    for child in children:
        if isinstance(child, ET.Element):
            element.append(child)
        elif child and len(element):
            element[-1].tail = (element[-1].tail or "") + child
        elif child:
            element.text = (element.text or "") + child
    return element


def html(elements: Iterable[ET.Element]) -> str:
    """The elements as HTML."""
    return "\n".join(ET.tostring(element, encoding="unicode", method="html") for element in elements)


def prose(text: str) -> list[ET.Element]:
    """Paragraphs and lists of a document, with `code` and *emphasis*: as much Markdown as the contracts use."""
    found: list[ET.Element] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        for is_list, lines in groupby(block.splitlines(), _Listed()):
            words = "\n".join(lines)
            found.append(tag("ul", *_items(words)) if is_list else tag("p", *inline(" ".join(words.split()))))
    return found


def inline(text: str) -> Iterator[Child]:
    """A line of text with `code` and *emphasis*."""
    for part in re.split(r"(`[^`]+`|\*[^*]+\*)", text):
        if part.startswith("`"):
            yield tag("code", part.strip("`"))
        elif part.startswith("*") and len(part) > 2:
            yield tag("em", part.strip("*"))
        else:
            yield part


class _Listed:
    """Whether a line belongs to a list: it begins an item, or goes on with one."""

    def __init__(self) -> None:
        self._inside = False

    def __call__(self, line: str) -> bool:
        self._inside = line.startswith("- ") or (self._inside and line.startswith("  "))
        return self._inside


def _items(words: str) -> Iterator[ET.Element]:
    for item in re.split(r"^- ", words, flags=re.MULTILINE)[1:]:
        yield tag("li", *inline(" ".join(item.split())))
