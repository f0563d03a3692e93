"""The template, and its stack on the embedded AWS."""

import pytest

from aggregator.operations.doctor.template import Resource
from tests.support.stack import Stack, resources


@pytest.fixture(scope="module")
def made() -> dict[str, Resource]:
    """The resources that the defaults make."""
    return resources()


@pytest.fixture
def stack(embedded: str, monkeypatch: pytest.MonkeyPatch) -> Stack:
    """The stack as it is deployed, event source and all; nothing is put into its source bucket."""
    made = Stack(monkeypatch, embedded, with_event_source=True)
    made.lock_probe()
    return made
