"""
What the three tiers share: seeded factories, and an environment in which no test reaches a real AWS by accident.
"""

import gzip
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples
from moto.server import ThreadedMotoServer

from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import Plan
from aggregator.pipeline.settings import Settings
from aggregator.runtimes.local.embedded import EmbeddedAws
from aggregator.schemas import ObjectRef
from fixtures import factories, generate
from tests.support.world import CREDENTIALS, World

ENVIRONMENT = {
    "DISTRIBUTION_BUCKET_NAME": "distribution",
    "SERVICE_NAME": "aggregator-test",
    "IDEMPOTENCY_TABLE_NAME": "ledger",
    "IDEMPOTENCY_TTL_DAYS": "30",
    "LOG_LEVEL": "INFO",
}


# The same examples each time, however long a busy machine takes to make and to try them.
examples.register_profile("tests", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
examples.load_profile("tests")

LEFT_OUT = pytest.StashKey[dict[str, int]]()
"""How many tests were left out, by their folder."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow and exhaustive tests as well: those marked chaos")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say how long it takes, if it is all that `just test` runs."""
    options = session.config.option
    chosen = options.keyword or options.markexpr or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    terminal: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal and not chosen:
        terminal.write_line(f"this takes about {'30' if options.all else '7'} minutes on two processors")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One process more than there are processors, unless the environment says how many: tests often wait."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else (os.cpu_count() or 1) + 1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the exhaustive ones among the chosen tests, if nobody asks for them."""
    chosen = config.option.markexpr
    unasked = [mark for mark in ("chaos", "nightly") if not (config.option.all or mark in chosen)]
    left_out = [item for item in items if any(item.get_closest_marker(mark) for mark in unasked)]
    items[:] = [item for item in items if item not in left_out]
    config.stash[LEFT_OUT] = dict(Counter(item.path.parent.name for item in left_out))
    config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In a worker, which alone knows it: hand over how many tests were left out."""
    output: dict[str, Any] = getattr(session.config, "workeroutput", {})
    output["left_out"] = session.config.stash.get(LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over from a worker; all of them left out the same."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what was left out."""
    if left_out := config.stash.get(LEFT_OUT, {}):
        folders = ", ".join(f"{folder} {count}" for folder, count in sorted(left_out.items()))
        terminalreporter.write_line(f"left out: slow or exhaustive tests, which CI runs (`just test --all`): {folders}")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    factories.reseed()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and a region, so that clients can be made; they are nobody's."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def settings() -> Callable[..., Settings]:
    """Settings that are complete, but for what the test gives."""
    return lambda **given: Settings.from_env({**ENVIRONMENT, **given})


@pytest.fixture(scope="session")
def executor() -> Iterator[Executor]:
    """Threads to compress in."""
    with ThreadPoolExecutor(2) as threads:
        yield threads


@pytest.fixture(scope="session")
def samples_bundle(executor: Executor) -> bytes:
    """The bundle that the README's first command makes: all samples, what is gzip inflated."""
    spool = io.BytesIO()
    packer = Packer(spool, limit=10**9, level=6, framing="lines", executor=executor)
    for key, body in generate.samples().items():
        gzipped = key.endswith(".gz")
        source = FetchedObject(
            ObjectRef("samples", key), len(body), hashlib.md5(body).hexdigest(), encoding="gzip" if gzipped else None
        )
        packer.add(source, [gzip.decompress(body) if gzipped else body])
    packer.finish(Plan("2026/11/23/16/bundle-samples.gz", "2026-11-23T16:00:00Z", "request", ()))
    return spool.getvalue()


@pytest.fixture(scope="session")
def embedded() -> Iterator[str]:
    """The endpoint of the embedded AWS that `aggregator local` uses."""
    with EmbeddedAws(guarded=False) as endpoint_url:
        yield endpoint_url


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """The endpoint of moto's server: a second opinion, by other people, on what AWS does."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world on the embedded AWS, or on the live one that AGGREGATOR_TEST_ENDPOINT_URL names ("aws" is AWS itself)."""
    live = os.environ.get("AGGREGATOR_TEST_ENDPOINT_URL")
    if live:
        return World(monkeypatch, None if live == "aws" else live)
    return World(monkeypatch, request.getfixturevalue("embedded"))
