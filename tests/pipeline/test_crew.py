"""How many readers there are: as many as wait for S3 at once, and no more than the processor can serve."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from aggregator.pipeline import readahead
from aggregator.pipeline.core import FetchedObject, Reading
from aggregator.pipeline.planning import Wanted
from aggregator.pipeline.readahead import FIRST, Crew, ReadAhead, cores
from aggregator.schemas import ObjectRef

MOST = 8 * FIRST


class Processor:
    """A clock, and what the process has used of the processor."""

    def __init__(self) -> None:
        self.now = self.used = 100.0

    def works(self, seconds: float, load: float) -> None:
        """Time passes."""
        self.now += seconds
        self.used += seconds * load


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Processor:
    processor = Processor()
    monkeypatch.setattr(readahead, "monotonic", lambda: processor.now)
    monkeypatch.setattr(readahead, "process_time", lambda: processor.used)
    return processor


def _ahead(read: Any) -> ReadAhead:
    return ReadAhead(read, enough=lambda: False, until=float("inf"), window=1_000_000, most=1)


def _wanted(count: int) -> Iterator[Wanted]:
    return (Wanted.of(ObjectRef("source", f"{number}", 1), "key") for number in range(count))


def test_a_crew_doubles_while_it_waits_and_the_processor_does_too(processor: Processor) -> None:
    crew, sizes = Crew(100, 2), []

    while crew.may_grow:
        processor.works(0.01, load=0.5)
        sizes.append((crew.more(), crew.size))

    assert sizes == [(16, 32), (32, 64), (36, 100)]


@pytest.mark.parametrize(
    ("available", "load", "grows"),
    [(2, 0.89, True), (2, 0.95, False), (2, 1.9, False), (0.5, 0.4, True), (0.5, 0.48, False)],
)
def test_a_crew_stays_as_it_is_while_the_processor_is_busy(
    processor: Processor, available: float, load: float, *, grows: bool
) -> None:
    crew = Crew(MOST, available)

    processor.works(0.01, load)

    assert (crew.more() > 0) is grows


def test_a_crew_looks_again_only_after_a_while(processor: Processor) -> None:
    crew = Crew(MOST, 2)
    processor.works(0.01, load=0)

    assert [crew.more(), crew.more()] == [FIRST, 0]


def test_a_crew_is_no_larger_than_it_may_be() -> None:
    crew = Crew(3, 2)

    assert (crew.size, crew.may_grow) == (3, False)


def test_as_many_readers_come_as_have_to_wait_at_once() -> None:
    all_at_once = threading.Barrier(MOST, timeout=60)

    def read(ref: ObjectRef, _: int) -> Reading:
        all_at_once.wait()
        return Reading(FetchedObject(ref, 1, None), iter(()))

    arrivals = list(_ahead(read).arrivals(_wanted(2 * MOST), Crew(MOST, 2)))

    assert [arrival.reading for arrival in arrivals if not isinstance(arrival.reading, Reading)] == []
    assert len({arrival.wanted.id for arrival in arrivals}) == len(arrivals) == 2 * MOST


@pytest.mark.parametrize("room", [1, FIRST, FIRST + 1])
def test_where_the_system_has_no_more_threads_those_that_there_are_read_all(
    monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    begun = list[str]()
    start = threading.Thread.start

    def started(thread: threading.Thread) -> None:
        if len(begun) == room:
            raise RuntimeError("can't start new thread")
        begun.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    meet = threading.Barrier(room, timeout=60)

    def read(ref: ObjectRef, _: int) -> Reading:
        meet.wait()
        return Reading(FetchedObject(ref, 1, None), iter(()))

    arrivals = list(_ahead(read).arrivals(_wanted(4 * room), Crew(MOST, 2)))

    assert [type(arrival.reading) for arrival in arrivals] == [Reading] * 4 * room


def test_where_the_system_has_no_thread_at_all_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)

    with pytest.raises(RuntimeError, match="new thread"):
        list(_ahead(lambda *_: None).arrivals(_wanted(1), Crew(MOST, 2)))


@pytest.mark.parametrize(("memory", "share"), [("512", 0.29), ("1769", 1.0), ("10240", 4.0), ("", 4.0), ("much", 4.0)])
def test_lambda_gives_processors_by_memory(monkeypatch: pytest.MonkeyPatch, memory: str, share: float) -> None:
    monkeypatch.setattr(readahead, "cpu_count", lambda: 4)

    assert cores({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": memory}) == pytest.approx(share, abs=0.01)
