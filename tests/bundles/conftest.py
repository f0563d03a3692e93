"""Bundles to read."""

import random
from concurrent.futures import Executor

import pytest

from tests.support.damage import MEMBERS, pack


@pytest.fixture(scope="module")
def bundle(executor: Executor) -> bytes:
    """A bundle of `MEMBERS`, two blocks long."""
    return pack(MEMBERS, executor)


@pytest.fixture(scope="module")
def small(executor: Executor) -> bytes:
    """A bundle so small that every bit of it can be turned."""
    return pack([b"a\n", b"bb"], executor)


@pytest.fixture(scope="module")
def large(executor: Executor) -> bytes:
    """A bundle whose index is longer than the tail."""
    randoms = random.Random(4)
    return pack([b"%032x" % randoms.getrandbits(128) for _ in range(4_000)], executor)
