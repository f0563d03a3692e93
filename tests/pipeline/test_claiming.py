"""A request for claims that ends unexpectedly: the bundle is not put, so no claim names a bundle without its object."""

import threading
from typing import Any

import pytest

from aggregator.pipeline.bundling import Attempt
from aggregator.pipeline.ledger import Ledger
from tests.support.world import World

pytestmark = [pytest.mark.integration, pytest.mark.once]

OBJECTS = {key: bytes(700_000) for key in "abcd"}


def test_claims_that_nobody_knows_of_keep_a_full_bundle_from_being_put(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claims took effect and name the bundle: if it were published, their objects would pass for bundled."""
    monkeypatch.setenv("MAX_BUNDLE_INPUT_MB", "1")
    world.put_all(OBJECTS)
    full, claim, take_in = threading.Event(), Ledger.claim, Attempt._take_in

    def claim_and_fail(ledger: Ledger, wanted: Any, bundle: str) -> Any:
        claims = claim(ledger, wanted, bundle)
        if "c" in {one.ref.key for one in wanted}:
            full.wait(30)
            raise RuntimeError("unexpected")
        return claims

    def note(attempt: Attempt, arrival: Any) -> None:
        take_in(attempt, arrival)
        if attempt._full:
            full.set()

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "most_claims", 2)
        patched.setattr(Ledger, "claim", claim_and_fail)
        patched.setattr(Attempt, "_take_in", note)
        stayed = world.deliver(OBJECTS)

    assert full.is_set()
    assert (stayed, list(world.bundles())) == (set(OBJECTS), [])
    world.lapse()
    assert world.deliver(OBJECTS) == set()
    assert world.published() == {key: [body] for key, body in OBJECTS.items()}
