"""A small server that plays S3, and readers for it."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from aggregator.pipeline.clients import Clients
from aggregator.pipeline.deadlines import Deadlines
from aggregator.pipeline.sources import Sources
from tests.support.s3_server import Server
from tests.support.world import CREDENTIALS


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def sources(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Sources]]:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(name, value)
    made: list[Any] = []

    def make(
        scope: Literal["key", "version"] = "key", *, limit: int = 100_000_000, window: int = 64_000_000, **times: float
    ) -> Sources:
        deadlines = Deadlines.of(time.monotonic(), 60, limit, wall=time.time())._replace(**times)
        clients = Clients.build(deadlines)
        opened = Sources(
            clients,
            scope=scope,
            decoding="auto",
            limit=limit,
            window=window,
            concurrency=4,
            cores=2,
            deadlines=deadlines,
        )
        made.extend((opened, clients))
        return opened

    yield make
    for closing in made:
        closing.close()
