"""The tree of errors: what is drawn is what is, and each error says what happens to its envelope."""

import re
from inspect import getmembers, isclass

import pytest

from aggregator import exceptions
from aggregator.exceptions import AggregatorError, OversizedMemberError, PermanentError, TransientError

TREE: dict[str, type[AggregatorError]] = {
    name: found for name, found in getmembers(exceptions, isclass) if issubclass(found, AggregatorError)
}


def test_the_tree_drawn_in_the_docstring_is_the_tree_of_classes() -> None:
    real = {name: found.__base__.__name__ for name, found in TREE.items() if found.__base__}

    drawn = _drawn(exceptions.__doc__ or "")

    assert drawn == real


def test_every_reason_is_the_name_of_its_error_and_so_no_two_are_alike() -> None:
    expected = {name: _snake_case(name.removesuffix("Error")) for name in TREE}

    reasons = {name: found.__dict__["reason"] for name, found in TREE.items()}

    assert reasons == expected


def test_every_error_says_in_one_sentence_when_it_is_raised() -> None:
    sentences = {name: found.__doc__ or "" for name, found in TREE.items()}

    unclear = {name: text for name, text in sentences.items() if not re.fullmatch(r"[A-Z][^\n]+\.", text)}

    assert unclear == {}
    assert len(set(sentences.values())) == len(TREE)


@pytest.mark.parametrize("error", TREE.values(), ids=TREE)
def test_no_error_both_rejects_and_retries(error: type[AggregatorError]) -> None:
    assert not (issubclass(error, PermanentError) and issubclass(error, TransientError))


@pytest.mark.parametrize("error", TREE.values(), ids=TREE)
def test_every_error_carries_its_sentence_and_its_facts(error: type[AggregatorError]) -> None:
    raised = error("it went wrong", key="in/a.json", size=3)

    assert (raised.args, raised.facts) == (("it went wrong",), {"key": "in/a.json", "size": 3})


def test_an_error_shows_its_facts_behind_the_sentence_in_the_order_given() -> None:
    error = OversizedMemberError("member is larger than a bundle", key="in/a.json", size=3, limit=2)

    assert str(error) == "member is larger than a bundle (key='in/a.json', size=3, limit=2)"


def test_an_error_without_facts_is_its_sentence() -> None:
    assert str(AggregatorError("it went wrong")) == "it went wrong"


def test_a_line_break_in_a_fact_does_not_break_the_line() -> None:
    assert str(AggregatorError("it went wrong", key="a\nb")) == r"it went wrong (key='a\nb')"


def _drawn(docstring: str) -> dict[str, str]:
    """The parent of each error, read off the drawing: a level is four columns deep."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in docstring.splitlines():
        if found := re.match(r"    ([ │├└─]*)([A-Z]\w+Error)\b", line):
            depth = len(found[1]) // 4
            path[depth:] = [found[2]]
            parents[found[2]] = path[depth - 1] if depth else "Exception"
    return parents


def _snake_case(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
