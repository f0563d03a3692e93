"""
Named incidents, and what the services and we measure while they last, minute by minute.

A stack with the template's defaults runs for an hour as on any day; then an incident begins. Messages move in cohorts:
sent together, received together, together in flight. Each quiet time (a normal day, a burst) is an incident too, of
which no alarm may go off.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

VISIBILITY, RECEIVES, CAPACITY = 17, 5, 120_000
"""Minutes that a received message is hidden, receives until it is given up, messages that are bundled in a minute."""

BEGINS = 60
"""The minute in which an incident begins, at the earliest."""

USUAL = 600
"""Messages in a minute of a normal day."""


class Fate(NamedTuple):
    """What becomes of the messages that are received in a minute, as shares of them; the rest is bundled."""

    retried: float = 0
    rejected: float = 0
    dies: bool = False
    filtered: float = 0


_ALL_BUNDLED = Fate()


@dataclass
class Incident:
    """What happens: what is sent, what becomes of it, what else fails. `later` says why it rings late."""

    name: str
    sent: Callable[[int], int] = lambda _: USUAL
    fate: Fate = _ALL_BUNDLED
    poison: int = 0
    polls: bool = True
    throttles: int = 0
    failed_replicas: int = 0
    minutes: int = 360
    later: str = ""


@dataclass
class _Cohort:
    sent: int
    count: int
    visible: int
    receives: int = 0
    poison: bool = False


@dataclass
class _Stack:
    incident: Incident
    begins: int
    waiting: list[_Cohort] = field(default_factory=list)
    dead: int = 0


def measured(incident: Incident, *, offset: int = 0) -> dict[str, list[float | None]]:
    """The series of every metric until the incident, which begins at BEGINS + offset, ends."""
    stack = _Stack(incident, BEGINS + offset)
    minutes = BEGINS + incident.minutes
    series: dict[str, list[float | None]] = defaultdict(lambda: [None] * minutes)
    for minute in range(minutes):
        for name, value in _minute(stack, minute).items():
            series[name][minute] = value
    return dict(series)


def _minute(stack: _Stack, minute: int) -> dict[str, float]:
    """What is measured in one minute; a metric of Lambda's or ours is there only if something ran."""
    incident, happens = stack.incident, minute >= stack.begins
    if count := incident.sent(minute) if happens else USUAL:
        stack.waiting.append(_Cohort(minute, count, minute))
    if incident.poison and minute == stack.begins:
        stack.waiting.append(_Cohort(minute, incident.poison, minute, poison=True))
    polls = incident.polls or not happens
    received = _received(stack, minute) if polls else []
    seen = _after(stack, received, minute, incident.fate if happens else _ALL_BUNDLED) if received else {}
    if happens and incident.throttles:
        seen["stack-function/Throttles"] = incident.throttles
    if happens and incident.failed_replicas:
        seen["stack-distribution/OperationsFailedReplication"] = incident.failed_replicas
    visible = [cohort for cohort in stack.waiting if cohort.visible <= minute]
    known = [cohort for cohort in stack.waiting if cohort.receives < 3]
    return {
        "stack-queue/ApproximateNumberOfMessagesVisible": sum(cohort.count for cohort in visible),
        "stack-queue/ApproximateAgeOfOldestMessage": 60 * max((minute - each.sent for each in known), default=0),
        **({"stack-deadletterqueue/ApproximateNumberOfMessagesVisible": stack.dead} if stack.dead else {}),
        **seen,
    }


def _received(stack: _Stack, minute: int) -> list[_Cohort]:
    """The visible messages that are received in a minute, the oldest first; what was received too often is given up."""
    visible = sorted((each for each in stack.waiting if each.visible <= minute), key=lambda each: each.sent)
    given_up = [each for each in visible if each.receives >= RECEIVES]
    stack.dead += sum(each.count for each in given_up)
    received, room = [], CAPACITY
    for cohort in visible:
        if cohort in given_up or not room:
            continue
        taken = min(cohort.count, room)
        room -= taken
        received.append(_Cohort(cohort.sent, taken, minute, cohort.receives, cohort.poison))
        cohort.count -= taken
    stack.waiting = [each for each in stack.waiting if each.count and each not in given_up]
    return received


def _after(stack: _Stack, received: list[_Cohort], minute: int, fate: Fate) -> dict[str, float]:
    """What a minute of work leaves: messages that come back, and metrics."""
    total = sum(each.count for each in received)
    filtered = sum(round(fate.filtered * each.count) for each in received)
    back = {"Retried": 0, "Rejected": 0}
    for each in received:
        rejected = each.count if each.poison else round(fate.rejected * each.count)
        retried = each.count if fate.dies else round(fate.retried * (each.count - rejected))
        back["Retried"] += retried
        back["Rejected"] += rejected
        for count, poison in ((rejected, True), (retried, False)):
            if count:
                stack.waiting.append(_Cohort(each.sent, count, minute + VISIBILITY, each.receives + 1, poison))
    seen: dict[str, float] = {"stack-functionqueue/FilteredOutEventCount": filtered} if filtered else {}
    if filtered == total:
        return seen
    seen["stack-function/Errors"] = math.ceil(total / 4_000) if fate.dies else 0
    if fate.dies:
        return seen  # what dies emits nothing
    bundled = total - filtered - sum(back.values())
    ours = {"Envelopes": total - filtered, "BundlesWritten": math.ceil(bundled / 4_000), **back}
    nothing = dict.fromkeys(("Duplicates", "Overwritten", "InFlight"), 0)
    return {**seen, **{f"ours/{name}": value for name, value in {**ours, **nothing}.items()}}


INCIDENTS = [
    Incident("the key of the bundles is disabled", fate=Fate(retried=1)),
    Incident("the ledger's table is throttled, and six of ten claims fail", fate=Fate(retried=0.6)),
    Incident("one file cannot be read (poison)", poison=1),
    Incident("five of a hundred objects are rejected, and the dead-letter queue fills", fate=Fate(rejected=0.05)),
    Incident("the deadline is too short: invocations give nine of ten objects back", fate=Fate(retried=0.9)),
    Incident("invocations die (out of memory, time-out)", fate=Fate(dies=True)),
    Incident("the event source mapping is disabled", polls=False),
    Incident("the account's concurrency is used up", polls=False, throttles=20),
    Incident("a filter is added to the event source mapping", fate=Fate(filtered=1)),
    Incident("the replication role is lost", failed_replicas=1),
    Incident(
        "the producer stops",
        sent=lambda _: 0,
        later="it looks like a quiet night; watch the producer, or the metric NumberOfMessagesSent",
    ),
    Incident(
        "the consumer of bundles stops",
        later="S3 counts objects once a day, and nothing is lost: `bundles` goes off above `BundlesAlarmCount`",
    ),
]

QUIET = [
    Incident("a normal day", sent=lambda minute: round(USUAL * (1 + math.sin(minute / 229))), minutes=1_440),
    Incident("a burst", sent=lambda minute: 300_000 if minute % 720 < 3 else USUAL, minutes=720),
    Incident("a quiet night", sent=lambda minute: int(minute % 47 == 0), minutes=600),
    Incident("a backfill of two million objects", sent=lambda minute: 200_000 if minute < BEGINS + 10 else USUAL),
    Incident("one message that is tried again in a quiet night", sent=lambda minute: int(minute == BEGINS + 90)),
]
