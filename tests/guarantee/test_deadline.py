"""Whatever hangs and however slow AWS is, an invocation ends by itself in time. The tests have a clock of their own."""

import io
import random
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest

from aggregator.exceptions import AmbiguousPutError
from aggregator.pipeline import readahead, sources
from aggregator.pipeline.clients import Clients
from aggregator.pipeline.core import Packed, Packer
from aggregator.pipeline.deadlines import GRACE, Deadlines
from aggregator.pipeline.distribution import DistributionBucket
from aggregator.pipeline.planning import Plan
from aggregator.pipeline.swaps import Statements
from tests.support.faults import LOST, Call, answered, faults
from tests.support.world import World, log_lines

ERRORS = [LOST, answered(503, "SlowDown"), answered(400, "ThrottlingException")]

pytestmark = pytest.mark.integration

OBJECTS = {f"{at}": b"x" * 150_000 for at in range(12)}
MISSING = [f"missing {at}" for at in range(6)]


class Clock:
    """
    Time passes only where a call or a pause says that it took some.

    A pause of a thread that was there before is its own affair: a poller that some library left running, and that does
    nothing but pause, would let years pass.
    """

    def __init__(self) -> None:
        self.now = 1_795_000_000.0
        self._turn = threading.Lock()
        self._others = set(threading.enumerate()) - {threading.current_thread()}
        self._sleep = time.sleep

    def read(self) -> float:
        """Seconds since the epoch, which serve as seconds of a monotonic clock."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Take no time, and say that it did."""
        if threading.current_thread() in self._others:
            self._sleep(seconds)
        else:
            self.reach(self.now + seconds)

    def reach(self, moment: float) -> None:
        """Go on to `moment`, if it is not over yet."""
        with self._turn:
            self.now = max(self.now, moment)


@pytest.fixture
def poller() -> Iterator[threading.Thread]:
    """A thread that does nothing but pause."""
    over = threading.Event()

    def pause() -> None:
        while not over.is_set():
            time.sleep(0.001)

    thread = threading.Thread(target=pause)
    thread.start()
    yield thread
    over.set()
    thread.join()


@pytest.fixture
def clock(poller: threading.Thread, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    with monkeypatch.context() as patch:
        for name, instead in (("monotonic", clock.read), ("time", clock.read), ("sleep", clock.sleep)):
            patch.setattr(time, name, instead)
        for module in (sources, readahead):
            patch.setattr(module, "monotonic", clock.read)
        yield clock


@pytest.mark.parametrize("seconds", [12, 15, 30, 60, 300, 900])
def test_an_invocation_ends_by_itself_however_slow_aws_is(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    """Two bundles, nine requests for claims, three for members that are not there and so are released."""
    monkeypatch.setenv("MAX_BUNDLE_INPUT_MB", "1")
    monkeypatch.setattr(Statements, "most", 2)
    world.put_all(OBJECTS)

    late = []
    for seed in range(30):
        with monkeypatch.context() as patch:
            story = _slow(patch, clock, random.Random(seed))
            began = clock.now
            world.deliver([*OBJECTS, *MISSING], seconds=seconds)
            took = clock.now - began
        if took > seconds:
            late.append((seed, took, story))
        clock.sleep(seconds + 2 * GRACE)  # its claims have lapsed

    assert late == []
    assert world.deliver(OBJECTS) == set()
    assert world.published() == {key: [body] for key, body in OBJECTS.items()}


def test_claims_outlive_their_invocation_by_the_grace(world: World, clock: Clock) -> None:
    world.put("a", b"1")

    world.deliver(["a"], seconds=60)

    (claim,) = [record for record in world.records() if record["status"] == "INPROGRESS"]
    assert int(claim["in_progress_expiration"]) == (clock.now + 60 + GRACE) * 1000


def test_the_figures_say_where_the_time_went(
    world: World, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.put("a", b"1")
    seconds = {"BatchExecuteStatement": 1, "PutObject": 3, "PutItem": 2}

    def take(call: Call) -> None:
        clock.sleep(seconds[call.operation] if call.when == "before" else 0)

    def finish(packer: Packer, plan: Plan) -> Packed:
        clock.sleep(4)
        return finished(packer, plan)

    finished = Packer.finish
    monkeypatch.setattr(Packer, "finish", finish)
    with faults(monkeypatch, take):
        world.deliver(["a"])

    (line,) = [line for line in log_lines(capsys.readouterr().out) if line.get("message") == "invocation.finished"]
    told = {name: line[name] for name in ("GatherTime", "CloseTime", "PutTime", "SettleTime", "Duration")}
    assert told == {"GatherTime": 1000, "CloseTime": 4000, "PutTime": 3000, "SettleTime": 2000, "Duration": 10_000}


def test_a_put_that_takes_its_bundle_slowly_is_broken_off_in_time(world: World, clock: Clock) -> None:
    deadlines = Deadlines.of(clock.now, 60, 1, wall=time.time())
    s3 = Clients.build(deadlines).s3
    body = _Slow(b"x" * 5_000_000)
    s3.meta.events.register_last("before-send", lambda **_: body.become_slow(clock))

    with pytest.raises(AmbiguousPutError):
        DistributionBucket(s3, world.distribution).put(
            "slow.gz", body, size=5_000_000, sha256=sha256(body.content).digest()
        )

    assert deadlines.ends - 10 < clock.now < deadlines.ends
    assert list(world.bundles()) == []


class _Slow(io.BytesIO):
    """A body of which, once it is being sent, the other side takes 50 kB a second."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.content, self._clock = content, Clock()

    def become_slow(self, clock: Clock) -> None:
        """It is being sent."""
        self._clock = clock

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        self._clock.sleep(len(block) / 50_000)
        return block


def _slow(patch: pytest.MonkeyPatch, clock: Clock, chance: random.Random) -> list[str]:
    """Let each attempt at a call take as long as it likes within its time-outs, or run into them; what happened."""
    story: list[str] = []
    build = Clients.build
    ease = chance.random()

    def built(deadlines: Deadlines) -> Clients:
        clients = build(deadlines)
        for client in (clients.s3, clients.dynamodb):
            _watch(client, clock, chance, ease, story)
        return clients

    patch.setattr(Clients, "build", built)
    return story


def _watch(client: Any, clock: Clock, chance: random.Random, ease: float, story: list[str]) -> None:
    config = client.meta.config
    longest = config.connect_timeout + config.read_timeout
    began = threading.local()

    def begin(**_: Any) -> None:
        began.at = clock.now

    def take(event_name: str, **_: Any) -> None:
        error = chance.choice(ERRORS) if chance.random() > ease else None
        taken = longest if error is ERRORS[0] else chance.random() * longest
        story.append(f"{began.at:.1f} {event_name} takes {taken:.1f}: {error or 'fine'}")
        clock.reach(began.at + taken)
        if error:
            raise error

    client.meta.events.register_first("before-send", begin)
    client.meta.events.register_last("before-send", take)
