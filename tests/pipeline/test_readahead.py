"""Objects that are read ahead of the packer, against a small server that misbehaves."""

import gzip
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from aggregator.exceptions import (
    OutOfTimeError,
    UnexpectedError,
)
from aggregator.pipeline.core import Reading
from aggregator.pipeline.planning import Wanted
from aggregator.pipeline.readahead import Arrival, NotStarted
from aggregator.pipeline.sources import PART_SIZE, Sources, nameable
from aggregator.schemas import ObjectRef
from tests.support.s3_server import Request, Server


def test_every_member_arrives_once_and_its_bytes_with_it(server: Server, sources: Callable[..., Sources]) -> None:
    server.serve(lambda request: request.answer_range(request.path.encode()))
    members = [ObjectRef("source", f"{at}", size) for at, size in enumerate([1, 0, None, 10**9] * 25)]

    arrivals = list(sources(window=PART_SIZE * 6).read_ahead(_wanted(members), _going_on))

    assert sorted(arrival.wanted.ref.key for arrival in arrivals) == sorted(member.key for member in members)
    assert all(_bytes(arrival) == f"/source/{arrival.wanted.ref.key}".encode() for arrival in arrivals)


def test_of_many_readers_one_finds_out_the_region_of_a_bucket(server: Server, sources: Callable[..., Sources]) -> None:
    asked = server.serve_in("eu-west-1")
    members = [ObjectRef("source", f"{at}", 5) for at in range(20)]

    arrivals = list(sources().read_ahead(_wanted(members), _going_on))

    assert [b"".join(arrival.reading.chunks) for arrival in arrivals if isinstance(arrival.reading, Reading)] == [
        b"there"
    ] * 20
    assert 1 <= asked.count("HEAD") <= 2  # boto3 follows its own


def test_what_is_read_ahead_is_bounded_in_bytes(server: Server, sources: Callable[..., Sources]) -> None:
    server.serve(lambda request: request.answer(b"x"))
    members = [ObjectRef("source", f"{at}", PART_SIZE) for at in range(8)]
    arriving = sources(window=PART_SIZE * 6).read_ahead(_wanted(members), _going_on)

    first = next(arriving)
    _until(lambda: len(server.seen) >= 2)
    threading.Event().wait(0.2)
    begun = len(server.seen)
    rest = list(arriving)

    assert begun == 2
    assert len({arrival.wanted.ref for arrival in [first, *rest]}) == 8


def test_an_object_that_is_larger_than_announced_is_not_held_in_memory(
    server: Server, sources: Callable[..., Sources]
) -> None:
    server.serve(lambda request: request.answer_range(bytes(5_000_000)))

    (arrival,) = sources().read_ahead(_wanted([ObjectRef("source", "grown", 10)]), _going_on)

    assert server.seen == ["/source/grown"]
    assert _bytes(arrival) == bytes(5_000_000)
    assert server.seen == ["/source/grown"] * 2


@pytest.mark.parametrize("size", [10, None])
def test_a_gzip_object_that_is_larger_than_announced_is_not_held_in_memory_either(
    server: Server, sources: Callable[..., Sources], size: int | None
) -> None:
    content, asked = gzip.compress(random.Random(1).randbytes(3 * PART_SIZE)), list[str | None]()

    def ranged(request: Request) -> None:
        asked.append(request.headers.get("Range"))
        request.answer_range(content)

    server.serve(ranged)

    (arrival,) = sources().read_ahead(_wanted([ObjectRef("source", "grown.gz", size)]), _going_on)

    assert asked == [None, "bytes=0-3"]
    assert _bytes(arrival) == gzip.decompress(content)


def test_a_version_that_was_asked_for_is_the_one_that_was_read_though_the_store_does_not_say(
    server: Server, sources: Callable[..., Sources]
) -> None:
    server.serve(lambda request: request.answer(b"x"))

    reading = sources(scope="version").read(ObjectRef("source", "plain", 1, "tag", "v1"))

    assert reading.source.version_id == "v1"


@pytest.mark.parametrize("header", ["Content_Disposition", "x_amz_meta_name"])
def test_a_header_that_obstore_cannot_read_hides_no_object(
    server: Server, sources: Callable[..., Sources], header: str
) -> None:
    server.serve(lambda request: request.answer(b"content", **dict[str, Any]({header: "caf\xe9"})))

    reading = sources().read(ObjectRef("source", "plain"))

    assert b"".join(reading.chunks) == b"content"


def test_what_goes_wrong_with_one_member_unforeseen_stays_with_it(
    server: Server, sources: Callable[..., Sources], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.serve(lambda request: request.answer(b"\x1f\x8bx"))
    monkeypatch.setattr("aggregator.pipeline.sources.decoded", _unexpected)
    members = [ObjectRef("source", "packed.gz"), ObjectRef("source", "plain")]

    arrivals = {arrival.wanted.ref.key: arrival for arrival in sources().read_ahead(_wanted(members), _going_on)}

    assert _bytes(arrivals["plain"]) == b"\x1f\x8bx"
    with pytest.raises(UnexpectedError) as caught:
        _bytes(arrivals["packed.gz"])
    assert isinstance(caught.value.__cause__, RecursionError)


def test_objects_that_are_not_begun_any_more_say_whether_there_is_enough_or_no_time(
    server: Server, sources: Callable[..., Sources]
) -> None:
    server.serve(lambda request: request.answer(b"x"))
    members = [ObjectRef("source", f"{at}") for at in range(9)]

    stopped = list(sources().read_ahead(_wanted(members), lambda: True))
    late = list(sources(read_until=time.monotonic()).read_ahead(_wanted(members), _going_on))

    assert {type(arrival.reading) for arrival in stopped} == {NotStarted}
    assert {type(arrival.reading) for arrival in late} == {OutOfTimeError}
    assert (len(stopped), len(late), server.seen) == (9, 9, [])


def test_an_error_in_a_reader_ends_the_reading_and_all_threads(server: Server, sources: Callable[..., Sources]) -> None:
    server.serve(lambda request: request.answer(b"x"))

    def members() -> Iterator[ObjectRef]:
        yield ObjectRef("source", "1")
        raise RuntimeError("unexpected")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="unexpected"):
        list(sources().read_ahead(_wanted(members()), _going_on))

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-")]
    assert threading.active_count() <= before + 2  # what the test's own server is still answering


def test_who_stops_listening_leaves_no_thread_behind(server: Server, sources: Callable[..., Sources]) -> None:
    server.serve(lambda request: request.answer(b"x"))
    members = [ObjectRef("source", f"{at}", PART_SIZE) for at in range(50)]
    arriving = sources(window=PART_SIZE * 6).read_ahead(_wanted(members), _going_on)
    next(arriving)

    arriving.close()

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-")]


@pytest.mark.parametrize(
    "key", ["a//b", "/a", "a/", "/", "//", ".", "..", "./a", "a/.", "a/./b", "a/../b", "a\nb", "\x7f", "\x00"]
)
def test_keys_that_obstore_cannot_name_are_recognised(key: str) -> None:
    assert not nameable(key)


@pytest.mark.parametrize("key", ["a", "a/b", ".a", "a.", "..a", "a/...", "a/.b", "~", "a b", "%2F", "é", "\x80", "\\"])
def test_keys_that_obstore_can_name_are_recognised(key: str) -> None:
    assert nameable(key)


def _wanted(members: Iterable[ObjectRef]) -> Iterator[Wanted]:
    return (Wanted.of(member, "key") for member in members)


def _going_on() -> bool:
    return False


def _bytes(arrival: Arrival) -> bytes:
    assert isinstance(arrival.reading, Reading)
    return b"".join(arrival.reading.chunks)


def _unexpected(*_: Any) -> Iterator[bytes]:
    yield b"first"
    raise RecursionError


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not condition() and time.monotonic() < ends:
        threading.Event().wait(0.01)
