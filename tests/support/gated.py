"""
Several invocations at once, each in a process of its own, each held between two of its AWS calls while others go on.

    def race(stage: Stage) -> None:
        stage.send({"x": ["x"], "y": ["y"]})
        a, b = stage.process("A", ["x", "y"]), stage.process("B", ["x"])
        a.run(until=before("PutObject"))  # and there it stays
        b.run()
        a.run()

    assert play(world, {"a race": race}) == ""

A process moves only while it is told to, so the order of all calls is the test's. Each has a proxy in front of the AWS,
with a gate in it. A call held *before* is still on the wire: whoever made it may be killed, and it may land later. A
call held *after* has taken effect, and its answer is on the wire.

The stage is the queue as well: a message that any process acknowledges is gone, as SQS deletes it.
"""

import contextlib
import io
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from queue import Empty, SimpleQueue
from typing import Self
from urllib.parse import urlsplit

from aggregator.reader import Bundle
from tests.support.gates import Gates, Trouble, Where
from tests.support.matrix import OURS, environment
from tests.support.trial import Run, clock, invoke
from tests.support.world import World, sqs_record

SECONDS = 300
"""What an invocation has. Time-outs grow with it: a call may be held for five seconds before its process asks again."""

LAPSED = 400
"""Seconds after which every claim of an invocation of `SECONDS` has lapsed."""

MOST_DELIVERIES = 6

MISSING = "missing"
"""The name of an object that is not there."""

_NUMBERS = count()

_TRIES = 3

_AT_ONCE = 6
"""Stages that are played at once."""

_PATIENCE = 60
"""Seconds within which a process that is let go on comes to its gate or to its end."""


class Process:
    """One invocation; it does not begin before it is told to `run`."""

    def __init__(
        self, stage: "Stage", name: str, messages: Sequence[str], gates: Gates, *, later: float, seconds: float
    ) -> None:
        self.name, self._stage, self._messages, self._gates, self._seconds = name, stage, messages, gates, seconds
        self._clock = clock(later)
        self._thread = ThreadPoolExecutor(1)
        self._news: SimpleQueue[str] = SimpleQueue()
        self._future: Future[Run] | None = None
        self._pid, self._killed = 0, False
        self.story: list[str] = []
        self.ended = self.raised = self.impatient = False

    @property
    def calls(self) -> list[str]:
        """What it has called so far."""
        return self._gates.calls

    @property
    def bundles(self) -> list[str]:
        """The paths of the bundles that it has put so far, or has been about to."""
        pairs = zip(list(self._gates.calls), list(self._gates.paths), strict=False)
        return [path for name, path in pairs if name == "PutObject"]

    def run(self, until: Where | None = None) -> bool:
        """Let it begin, or go on with what it is held at, until `until` or to its end; whether it is held there."""
        self._gates.shut(until, self._reached)
        if self._future is None:
            self._begin()
        self.impatient |= self._gates.asked_again
        self._gates.open()
        return self._comes(until)

    def wait(self, until: Where | None = None) -> bool:
        """Leave the call that it is held at on the wire until its time-out, and the process to what it does then."""
        self._gates.shut(until, self._reached)
        return self._comes(until)

    def land(self) -> None:
        """Let the call that it was held at take effect at last; the process is not waited for."""
        self._gates.land()
        self.story.append("  what it was held at landed")

    def sleep(self, seconds: float) -> None:
        """Put its clock forward, as if its machine had been suspended."""
        self._clock.value += seconds
        self._stage.latest = max(self._stage.latest, self._clock.value)

    def kill(self) -> None:
        """Kill it; what it is held at stays on the wire."""
        self._killed = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        self._comes(None)

    def close(self) -> None:
        """End it, one way or the other."""
        if self._future is not None and not self._future.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        self._thread.shutdown()

    def _begin(self) -> None:
        event = {"Records": [sqs_record(id_, self._stage.bodies[id_]) for id_ in self._messages]}
        self._future = self._thread.submit(
            invoke,
            OURS,
            {**environment(self._stage.world, self._gates.url), "READ_CONCURRENCY": "1"},
            event,
            seconds=self._seconds,
            later=self._clock,
            started=self._started,
        )
        self._future.add_done_callback(lambda _: self._news.put("ended"))

    def _started(self, pid: int) -> None:
        self._pid = pid

    def _reached(self) -> None:
        self._news.put("held")

    def _comes(self, until: Where | None) -> bool:
        """Wait for what happens next."""
        if self.ended:
            return False
        try:
            news = self._news.get(timeout=_PATIENCE)
        except Empty:
            raise AssertionError(f"{self.name} came to nothing:\n" + self.told()) from None
        if news == "held":
            self.story.append(f"  held {until.when if until else ''} call {len(self.calls) - 1}, {self.calls[-1]}")
            return True
        self._end()
        return False

    def _end(self) -> None:
        assert self._future
        self.ended, answer = True, self._future.result().answer
        if answer is None:
            self.raised = not self._killed
            self.story.append("  raised" if self.raised else "  was killed")
            return
        failed = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
        self._stage.acknowledge(set(self._messages) - failed)
        self.story.append(f"  ended, keeps {sorted(failed)}")

    def told(self) -> str:
        """What it did, for people."""
        return "\n".join([f"{self.name}: {', '.join(self.calls)}", *self.story])


class Stage:
    """Where processes meet: objects of its own in a world that it may share, and a queue."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name, self._prefix = world, name, f"{next(_NUMBERS):04}/"
        self.bodies: dict[str, str] = {}
        self.left: set[str] = set()
        self.latest = 0.0
        self._names: dict[str, Sequence[str]] = {}
        self.processes: list[Process] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.close()
        self._stack.close()

    def send(self, messages: Mapping[str, Sequence[str]], *, size: int = 0) -> None:
        """Put the objects that messages name, all but the one called MISSING, and send the messages."""
        for id_, names in messages.items():
            for name in sorted(set(names) - {MISSING}):
                self.world.put(self._prefix + name, f"{self._prefix}{name}\n".encode().rjust(size))
            self.bodies[self._prefix + id_] = _notification(self.world, [self._prefix + name for name in names])
            self._names[self._prefix + id_] = names
            self.left.add(self._prefix + id_)

    def process(
        self,
        name: str,
        messages: Iterable[str],
        *,
        later: float = 0,
        seconds: float = SECONDS,
        troubles: Sequence[Trouble] = (),
    ) -> Process:
        """A process that has got some messages; its clock is `later` seconds ahead."""
        self.latest = max(self.latest, later)
        gates = self._stack.enter_context(Gates(self.world.environment["AWS_ENDPOINT_URL"], troubles))
        process = Process(self, name, [self._prefix + id_ for id_ in messages], gates, later=later, seconds=seconds)
        self.processes.append(process)
        return process

    def consume(self) -> None:
        """Be a consumer: fetch each bundle that was put here and has members, and delete it at once."""
        puts = {path for process in self.processes for path in process.bundles}
        for bucket, key in (urlsplit(path).path.lstrip("/").split("/", 1) for path in sorted(puts)):
            with contextlib.suppress(self.world.s3.exceptions.NoSuchKey):
                body = self.world.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                if len(Bundle.open(io.BytesIO(body))):
                    self.world.s3.delete_object(Bucket=bucket, Key=key)

    def acknowledge(self, messages: Collection[str]) -> None:
        """Delete messages from the queue, whoever else has got them."""
        self.left -= set(messages)

    @property
    def hopeful(self) -> set[str]:
        """The messages that are left and can be acknowledged: those whose objects are all there."""
        return {id_ for id_ in self.left if MISSING not in self._names[id_]}

    @property
    def keys(self) -> list[str]:
        """The objects that are to be in bundles, once each."""
        return sorted({self._prefix + name for names in self._names.values() for name in names if name != MISSING})

    @property
    def impatient(self) -> bool:
        """Whether a process has not waited where it was held, so that this was not the race that was asked for."""
        return any(process.impatient for process in self.processes)

    def told(self) -> str:
        """What happened, for people."""
        return "\n".join(process.told() for process in self.processes)


Script = Callable[[Stage], object]
"""Says which processes there are, and how far each of them goes on and when."""


def play(world: World, scripts: Mapping[str, Script]) -> str:
    """
    Play scripts, some at a time, each on a stage of its own; what went wrong, with its story: nothing, if all is well.

    What is left then is delivered, all of it together, until it is acknowledged. Now each object is in one bundle, and
    the auditor agrees. Then everything is delivered once more, which changes nothing.
    """
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        played = list(threads.map(lambda given: _played(world, *given), scripts.items()))
    stages = [stage for stages in played for stage in stages]
    latest = max(stage.latest for stage in stages)
    deliveries = _drained(world, stages, latest)
    published = _published(world)
    _, findings = world.verdict(later=latest + MOST_DELIVERIES * LAPSED)
    _delivered(world, _bodies(stages), latest + (MOST_DELIVERIES + 1) * LAPSED)
    again = _published(world)
    wrong = [str(finding) for finding in findings if "object" not in finding]
    for stage in stages:
        faults = [*_miscounted(stage, published), *_found(stage, findings), *_came_again(stage, published, again)]
        if faults:
            wrong.append(f"{stage.name}: {', '.join(faults)}\n{stage.told()}")
    return "\n\n".join([*wrong, *deliveries] if wrong else [])


def _played(world: World, name: str, script: Script) -> list[Stage]:
    """Play a script, and once more if a process would not be held: a busy machine is slower than its time-outs."""
    stages: list[Stage] = []
    for left in reversed(range(_TRIES)):
        stages.append(Stage(world, name))
        try:
            with stages[-1]:
                script(stages[-1])
        except AssertionError:
            if not left or not stages[-1].impatient:
                raise
        if not stages[-1].impatient:
            break
    return stages


def _drained(world: World, stages: Sequence[Stage], latest: float) -> list[str]:
    """Deliver what is left, each time with every claim lapsed, until it is acknowledged; the story."""
    bodies, story = _bodies(stages), list[str]()
    for delivery in range(1, MOST_DELIVERIES + 1):
        if not any(stage.hopeful for stage in stages):
            break
        left = sorted(id_ for stage in stages for id_ in stage.left)
        failed = _delivered(world, {id_: bodies[id_] for id_ in left}, latest + delivery * LAPSED)
        for stage in stages:
            stage.acknowledge(set(left) - failed)
        story.append(f"redelivered: {left}, left {sorted(failed)}")
    return story


def _bodies(stages: Iterable[Stage]) -> dict[str, str]:
    return {id_: body for stage in stages for id_, body in stage.bodies.items()}


def _published(world: World) -> Counter[str]:
    return Counter({key: len(bodies) for key, bodies in world.published().items()})


def _delivered(world: World, bodies: Mapping[str, str], later: float) -> set[str]:
    """Invoke the handler, undisturbed; the ids of the messages that stay on the queue."""
    event = {"Records": [sqs_record(id_, body) for id_, body in bodies.items()]}
    url = world.environment["AWS_ENDPOINT_URL"]
    run = invoke(OURS, environment(world, url), event, seconds=SECONDS, later=later)
    return set(bodies) if run.answer is None else {item["itemIdentifier"] for item in run.answer["batchItemFailures"]}


def _miscounted(stage: Stage, published: Counter[str]) -> Iterator[str]:
    for key in stage.keys:
        if not published[key]:
            yield f"LOST {key}"
        elif published[key] > 1:
            yield f"{published[key]} TIMES {key}"
    if stage.hopeful:
        yield f"UNACKNOWLEDGED {sorted(stage.hopeful)}"
    if any(process.raised for process in stage.processes):
        yield "RAISED"


def _came_again(stage: Stage, published: Counter[str], again: Counter[str]) -> Iterator[str]:
    for key in stage.keys:
        if published[key] and published[key] != again[key]:
            yield f"CAME AGAIN {key}"


def _found(stage: Stage, findings: Iterable[Mapping[str, str]]) -> Iterator[str]:
    """What the auditor finds wrong."""
    for finding in findings:
        if finding.get("object", "").endswith(tuple(f"/{key}" for key in stage.keys)):
            yield f"audit: {finding['finding']} {finding['object'].rpartition('/')[2]}"


def _notification(world: World, keys: Sequence[str]) -> str:
    """The body of one message with a record for each key."""
    first, *others = (json.loads(world.body(key)) for key in keys)
    first["Records"] += [record for other in others for record in other["Records"]]
    return json.dumps(first)
