"""The simulated event source mapping does what can be worked out by hand, where it can."""

import pytest

from aggregator.operations.capacity.arrivals import IN_FLIGHT, PAYLOAD, Mapping, Seen, Stream, simulate

INSTANT = 0.0


def _seen(rate: float, mapping: Mapping, *, lasts: float = INSTANT, seconds: float = 4_000, burst: float = 1) -> Seen:
    return simulate(Stream(rate, burst), mapping, lambda _: lasts, seconds=seconds, warm_up=300, seed=7)


@pytest.mark.parametrize(("rate", "window", "pollers"), [(2, 10, 1), (5, 20, 1), (5, 20, 5), (50, 10, 5)])
def test_what_the_window_closes_holds_the_first_message_and_what_came_meanwhile(
    rate: float, window: float, pollers: int
) -> None:
    seen = _seen(rate, Mapping(10_000, window, concurrency=pollers, first_pollers=pollers))

    assert seen.mean_batch == pytest.approx(1 + rate * window / pollers, rel=0.03)
    assert set(seen.closed_by) == {"window"}


def test_messages_that_come_seldom_come_alone() -> None:
    seen = simulate(Stream(0.002), Mapping(10_000, 10), lambda _: 0.1, seconds=200_000, warm_up=0, seed=7, tick=2)

    assert seen.mean_batch == pytest.approx(1, abs=0.01)
    assert seen.handled == pytest.approx(400, rel=0.15)


def test_messages_that_come_fast_fill_every_batch() -> None:
    seen = _seen(2_000, Mapping(500, 60), seconds=600)

    assert set(seen.batches) == {500}
    assert dict(seen.closed_by) == {"batch size": len(seen.batches)}
    assert seen.handled == pytest.approx(seen.arrived, rel=0.01)


def test_the_payload_bounds_a_batch_whatever_its_size_may_be() -> None:
    seen = _seen(2_000, Mapping(10_000, 60, message_bytes=2_000), seconds=600)

    assert set(seen.batches) == {PAYLOAD // 2_000}
    assert set(seen.closed_by) == {"payload"}


def test_without_a_window_a_batch_is_what_one_call_received() -> None:
    seen = _seen(3_000, Mapping(10_000, 0), seconds=300)

    assert max(seen.batches) == 10


def test_as_many_invocations_run_as_littles_law_says() -> None:
    lasts = 8.0
    seen = _seen(400, Mapping(1_000, 5), lasts=lasts, seconds=2_000)

    assert seen.busy_seconds / seen.seconds == pytest.approx(400 / seen.mean_batch * lasts, rel=0.03)
    assert seen.most_running >= 400 / seen.mean_batch * lasts


def test_too_little_concurrency_serves_what_it_can_and_the_rest_waits() -> None:
    lasts = 10.0
    seen = _seen(500, Mapping(100, 5, concurrency=10), lasts=lasts, seconds=1_000)

    assert seen.handled / seen.seconds == pytest.approx(10 * 100 / lasts, rel=0.05)
    assert seen.backlog == pytest.approx((500 - 100) * 1_300, rel=0.05)


def test_pollers_are_added_while_messages_are_left_over_and_go_when_there_is_no_need() -> None:
    stream, mapping = Stream(200, burst=10, period=600), Mapping(100, 1, concurrency=200)
    busy = simulate(stream, mapping, lambda _: 2.0, seconds=60, warm_up=0, seed=7)
    idle = simulate(stream, mapping, lambda _: 2.0, seconds=10, warm_up=590, seed=7)

    assert busy.most_pollers > 30
    assert (idle.most_pollers, idle.backlog) == (5, 0)


def test_no_more_is_in_flight_than_sqs_allows_and_what_does_not_fit_waits() -> None:
    seen = _seen(12_000, Mapping(10_000, 60, concurrency=1_000), lasts=30.0, seconds=100)

    assert seen.most_in_flight <= IN_FLIGHT
    assert seen.stalled > 80
    assert seen.backlog > 0


def test_bursts_bring_as_many_messages_in_less_time() -> None:
    even = _seen(20, Mapping(10_000, 10), seconds=6_000)
    bursts = _seen(20, Mapping(10_000, 10), seconds=6_000, burst=12)

    assert bursts.arrived == pytest.approx(even.arrived, rel=0.05)
    assert bursts.quantile(0.5) > 5 * even.quantile(0.5)


def test_the_same_seed_tells_the_same_story_and_another_seed_another() -> None:
    told = [
        simulate(Stream(20), Mapping(1_000, 5), lambda _: 0.1, seconds=100, warm_up=10, seed=seed).batches
        for seed in (1, 1, 2)
    ]

    assert told[0] == told[1] != told[2]


def test_calls_are_counted_full_ones_and_empty_ones() -> None:
    idle = simulate(Stream(0), Mapping(1_000, 5), lambda _: 0.1, seconds=2_000, warm_up=0, seed=1, tick=1)
    full = _seen(2_000, Mapping(500, 60), seconds=600)

    assert idle.receives == pytest.approx(5 * 2_000 / 20)
    assert full.receives == pytest.approx(full.handled / 10, rel=0.35)
