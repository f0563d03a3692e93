"""
What becomes of a stream of messages in Lambda's event source mapping: a seeded simulation, not a formula.

A poller gathers a batch from its first message on, until the batch size, the payload limit or the window is reached,
then its invocation runs, then it gathers again. There are five pollers at first; while messages are left over more are
added, 300 a minute, up to the maximum concurrency; those without work go (Lambda developer guide, "Configuring scaling
behavior for SQS event source mappings"). Each message goes to any of the pollers that gather, so what fills one bundle
is the traffic divided by the pollers: that is why a bundle is smaller than rate times window.

AWS does not say how fast a poller receives; `RECEIVED` is our assumption, and matters only where bundles are full.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

PAYLOAD = 6 * 1024 * 1024
"""Bytes of an invocation's event (Lambda quotas)."""

FIRST_POLLERS, MOST_POLLERS, POLLERS_A_SECOND = 5, 1_250, 300 / 60
"""Pollers at first, at most, and how many are added in a second (same page of the Lambda developer guide)."""

IN_FLIGHT = 120_000
"""Messages of a queue that are received and not yet deleted, at most (SQS developer guide, "Amazon SQS quotas")."""

LONG_POLL = 20.0
"""Seconds that a poller waits for messages in one call (SQS developer guide, "Short and long polling")."""

MOST_IN_A_CALL = 10
"""Most messages that one call receives or deletes (SQS API reference, ReceiveMessage)."""

RECEIVED = 1_000.0
"""Messages that one poller receives in a second: ten a call, ten milliseconds a call."""

_FEW = 4
"""Messages for each poller in a tick, up to which they are dealt out one by one; more are shared out evenly."""


class Mapping(NamedTuple):
    """
    An event source mapping; `window` in seconds, `message_bytes` is what a message takes of the payload.

    A worker polls in the same way; its batches have no payload limit, `fits` messages fill its bundle, and it receives
    as many as `received` a second.
    """

    batch_size: int
    window: float
    concurrency: int = MOST_POLLERS
    message_bytes: int = 1_600
    first_pollers: int = FIRST_POLLERS
    fits: int | None = None
    received: float = RECEIVED

    @property
    def most(self) -> int:
        """Most messages in a batch, by size, bundle or payload; without a window ten (Lambda API reference)."""
        if self.fits:
            return min(self.batch_size, self.fits)
        most = min(self.batch_size, PAYLOAD // self.message_bytes)
        return most if self.window else min(most, MOST_IN_A_CALL)

    @property
    def bound(self) -> str:
        """What it is that bounds a full batch."""
        if self.most == self.batch_size or not (self.window or self.fits):
            return "batch size"
        return "bundle" if self.fits else "payload"


class Stream(NamedTuple):
    """
    Messages at random (Poisson), `rate` a second in the mean.

    With `burst` 12 all of them come in the first twelfth of every `period` seconds, twelve times as fast.
    """

    rate: float
    burst: float = 1.0
    period: float = 600.0

    def at(self, moment: float) -> float:
        """Messages a second that are expected at a moment."""
        return self.rate * self.burst if moment % self.period < self.period / self.burst else 0.0


@dataclass
class Seen:
    """What was seen of a stream in `seconds`, after the warm-up; for `stalled` of them too much was in flight."""

    seconds: float
    arrived: int = 0
    batches: list[int] = field(default_factory=list)
    closed_by: Counter[str] = field(default_factory=Counter)
    receives: float = 0.0
    stalled: float = 0.0
    busy_seconds: float = 0.0
    most_running: int = 0
    most_in_flight: int = 0
    backlog: int = 0
    most_pollers: int = 0

    @property
    def handled(self) -> int:
        """Messages in all batches."""
        return sum(self.batches)

    @property
    def mean_batch(self) -> float:
        """Messages in a batch, in the mean over batches."""
        return self.handled / len(self.batches) if self.batches else 0.0

    def quantile(self, share: float) -> int:
        """So many messages, or fewer, are in that share of the batches."""
        return sorted(self.batches)[math.ceil(share * len(self.batches)) - 1] if self.batches else 0


def simulate(
    stream: Stream,
    mapping: Mapping,
    duration: Callable[[int], float],
    *,
    seconds: float,
    warm_up: float,
    seed: int,
    tick: float = 0.1,
) -> Seen:
    """
    Let `stream` come for `warm_up` and then `seconds`, in steps of `tick` seconds.

    `duration` says how many seconds an invocation with so many messages takes.
    """
    pollers = _Pollers(mapping, duration, Random(seed), tick)  # noqa: S311 - a simulation, not a secret
    for step in range(round((warm_up + seconds) / tick)):
        if step == round(warm_up / tick):
            pollers.seen = Seen(seconds)
        pollers.step(step * tick, stream.at(step * tick) * tick)
    pollers.seen.backlog = pollers.waiting
    return pollers.seen


class _Pollers:
    """All pollers of a mapping: those that have a batch open, those that have nothing yet, those that are running."""

    def __init__(self, mapping: Mapping, duration: Callable[[int], float], random: Random, tick: float) -> None:
        self._mapping, self._duration, self._random, self._tick = mapping, duration, random, tick
        self._open: list[list[float]] = []  # messages, and when the first of them came
        self._idle = min(mapping.first_pollers, mapping.concurrency)
        self._running: list[tuple[float, int]] = []  # until when, and with how many messages
        self._change = 0.0  # pollers that are to come, or to go, when there is a whole one
        self._growing = False
        self._in_flight = self._came = 0
        self.waiting = 0
        self.seen = Seen(0)

    def step(self, now: float, expected: float) -> None:
        """Go on by one tick, in which so many messages are expected to come."""
        while self._running and self._running[0][0] <= now:
            self._in_flight -= heappop(self._running)[1]
            self._idle += 1
        self._scale(growing=self.waiting > self._came)
        self._came = came = _poisson(expected, self._random)
        self.waiting += came
        self.seen.arrived += came
        self._receive(now)
        self._close(now)
        self._watch()

    def _receive(self, now: float) -> None:
        ready = self._idle + len(self._open)
        if not ready:
            return
        self.seen.receives += self._idle * self._tick / LONG_POLL
        there = min(self.waiting, IN_FLIGHT - self._in_flight)
        if there < self.waiting:
            self.seen.stalled += self._tick
        if there <= _FEW * ready:
            dealt = Counter(self._random.randrange(ready) for _ in range(there))
            shares = sorted(dealt.items())
        else:
            share, rest = divmod(min(there, round(ready * self._mapping.received * self._tick)), ready)
            shares = [(at, share + (at < rest)) for at in range(ready)]
        for at, messages in shares:
            self._take(at, messages, now)

    def _take(self, at: int, messages: int, now: float) -> None:
        """Give a poller as many messages as its batch has room for; places behind the open ones are idle ones."""
        if at >= len(self._open):
            at = len(self._open)
            self._open.append([0, now])
            self._idle -= 1
        taken = min(messages, self._mapping.most - int(self._open[at][0]))
        self._open[at][0] += taken
        self.waiting -= taken
        self._in_flight += taken
        self.seen.receives += math.ceil(taken / MOST_IN_A_CALL)

    def _close(self, now: float) -> None:
        left = []
        for batch in self._open:
            count, full = int(batch[0]), batch[0] >= self._mapping.most
            if not full and now + self._tick < batch[1] + self._mapping.window:
                left.append(batch)
                continue
            lasts = self._duration(count)
            heappush(self._running, (now + self._tick + lasts, count))
            self.seen.batches.append(count)
            self.seen.closed_by[self._mapping.bound if full else "window"] += 1
            self.seen.busy_seconds += lasts
        self._open = left

    def _scale(self, *, growing: bool) -> None:
        """
        More pollers while messages are left over; else they go, one a second, each when it has nothing in hand.

        Left over is what is more than came in the last step: the end of a batch leaves some for the next one.
        """
        pollers = self._idle + len(self._open) + len(self._running)
        if growing != self._growing:
            self._growing, self._change = growing, 0.0
        self._change += (POLLERS_A_SECOND if growing else 1.0) * self._tick
        whole = int(self._change)
        if growing:
            self._change -= whole
            self._idle += max(0, min(whole, self._mapping.concurrency - pollers))
        else:
            going = max(0, min(whole, self._idle, pollers - self._mapping.first_pollers))
            self._idle -= going
            self._change -= going
            self._change = min(self._change, float(max(1, pollers - self._mapping.first_pollers)))

    def _watch(self) -> None:
        seen, running = self.seen, len(self._running)
        seen.most_running = max(seen.most_running, running)
        seen.most_in_flight = max(seen.most_in_flight, self._in_flight)
        seen.most_pollers = max(seen.most_pollers, self._idle + len(self._open) + running)


def _poisson(mean: float, random: Random) -> int:
    """A number of arrivals; from a hundred on by the normal distribution, which is then as good."""
    if mean > 100:
        return max(0, round(random.gauss(mean, math.sqrt(mean))))
    bound, product, count = math.exp(-mean), random.random(), 0
    while product > bound:
        product *= random.random()
        count += 1
    return count
