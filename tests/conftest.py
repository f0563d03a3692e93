"""
What the three tiers share: seeded factories, and an environment in which no test reaches a real AWS by accident.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from aggregator.settings import Settings
from fixtures import factories

ENVIRONMENT = {
    "DISTRIBUTION_BUCKET_NAME": "distribution",
    "SERVICE_NAME": "aggregator-test",
    "IDEMPOTENCY_TABLE_NAME": "ledger",
    "IDEMPOTENCY_TTL_DAYS": "30",
    "LOG_LEVEL": "INFO",
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    factories.reseed()


@pytest.fixture
def settings() -> Callable[..., Settings]:
    """Settings that are complete, but for what the test gives."""
    return lambda **given: Settings.from_env({**ENVIRONMENT, **given})


@pytest.fixture(scope="session")
def executor() -> Iterator[Executor]:
    """Threads to compress in."""
    with ThreadPoolExecutor(2) as threads:
        yield threads
