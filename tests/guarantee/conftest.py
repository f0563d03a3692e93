"""What the tests of the guarantee share."""

import pytest

from tests.support.crashing import WRITES
from tests.support.world import World


@pytest.fixture(params=WRITES)
def writes(request: pytest.FixtureRequest, world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """The call that writes claims and releases, in each of the two ways."""
    monkeypatch.setenv("LEDGER_WRITES", request.param)
    return WRITES[request.param]
