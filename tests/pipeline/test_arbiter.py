"""Tier 2: whether a bundle was published, against botocore's Stubber; what the bucket says decides, nothing else."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aggregator.exceptions import BundleFormatError, OutOfTimeError, StoreUnavailableError
from aggregator.pipeline.core import empty_bundle
from aggregator.pipeline.planning import identity
from aggregator.schemas import ObjectRef
from tests.support.stubs import NOW, THEIRS, Bench, bundle_of

ONE = ObjectRef("source", "one", 1, "e1")
FOREIGN = b"what a person put there by hand, long enough to be looked at" * 3
EMPTY = empty_bundle(THEIRS, NOW, "request-1")


pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    with bench.dynamodb, bench.s3:
        yield bench
        bench.done()


def test_a_bundle_that_a_consumer_has_deleted_was_published_all_the_same(bench: Bench) -> None:
    bench.expect_versions(THEIRS, bundle_of(THEIRS, ONE), latest=False)
    bench.expect_heal(THEIRS)

    assert bench.arbiter.resolve(THEIRS) == {identity(ONE, "key")}


def test_a_bundle_that_a_consumer_has_written_over_was_published_all_the_same(bench: Bench) -> None:
    bench.expect_versions(THEIRS, FOREIGN, bundle_of(THEIRS, ONE))
    bench.expect_heal(THEIRS)

    assert bench.arbiter.resolve(THEIRS) == {identity(ONE, "key")}


def test_a_fenced_name_that_a_consumer_has_written_over_is_fenced(bench: Bench) -> None:
    """A put with If-None-Match is refused by whatever lies there."""
    bench.expect_versions(THEIRS, FOREIGN, EMPTY)

    assert bench.arbiter.look_up(THEIRS) == frozenset()


def test_a_fenced_name_whose_contents_were_all_deleted_is_fenced_again(bench: Bench) -> None:
    bench.expect_versions(THEIRS, FOREIGN, EMPTY, latest=False)
    bench.expect_fence(THEIRS)
    bench.expect_versions(THEIRS, EMPTY, FOREIGN, EMPTY)

    assert bench.arbiter.resolve(THEIRS) == frozenset()


def test_a_name_under_which_there_only_is_something_else_is_not_known_to_be_fenced(bench: Bench) -> None:
    bench.expect_versions(THEIRS, FOREIGN)

    with pytest.raises(BundleFormatError):
        bench.arbiter.look_up(THEIRS)


def test_a_bundle_that_lands_while_its_name_is_being_fenced_is_published(bench: Bench) -> None:
    bench.expect_versions(THEIRS)
    bench.s3.add_client_error("put_object", "PreconditionFailed", http_status_code=412)
    bench.expect_versions(THEIRS, bundle_of(THEIRS, ONE))
    bench.expect_heal(THEIRS)

    assert bench.arbiter.resolve(THEIRS) == {identity(ONE, "key")}


def test_a_bundle_that_landed_before_its_fence_was_deleted_is_published(bench: Bench) -> None:
    """The answer to the fence is a success, and not believed."""
    bench.expect_versions(THEIRS)
    bench.expect_fence(THEIRS)
    bench.expect_versions(THEIRS, EMPTY, bundle_of(THEIRS, ONE))
    bench.expect_heal(THEIRS)

    assert bench.arbiter.resolve(THEIRS) == {identity(ONE, "key")}


def test_a_conflict_while_a_name_is_fenced_resolves_nothing(bench: Bench) -> None:
    bench.expect_versions(THEIRS)
    bench.s3.add_client_error("put_object", "ConditionalRequestConflict", http_status_code=409)

    with pytest.raises(StoreUnavailableError):
        bench.arbiter.resolve(THEIRS)


def test_a_name_that_cannot_be_kept_fenced_resolves_nothing(bench: Bench) -> None:
    for _ in range(4):
        bench.expect_versions(THEIRS)
        bench.expect_fence(THEIRS)

    with pytest.raises(StoreUnavailableError):
        bench.arbiter.resolve(THEIRS)


def test_a_settle_that_fails_while_healing_does_not_change_the_answer(bench: Bench) -> None:
    bench.expect_versions(THEIRS, bundle_of(THEIRS, ONE))
    bench.dynamodb.add_client_error("put_item", "InternalServerError", http_status_code=500)

    assert bench.arbiter.resolve(THEIRS) == {identity(ONE, "key")}


def test_a_bundle_is_resolved_once_however_many_threads_ask(bench: Bench) -> None:
    """Four claimers meet the claims of one dead invocation at once: the usual redelivery."""
    bench.expect_versions(THEIRS, bundle_of(THEIRS, ONE))
    bench.expect_heal(THEIRS)
    together = threading.Barrier(4)

    def ask(_: int) -> frozenset[str]:
        together.wait()
        return bench.arbiter.resolve(THEIRS)

    with ThreadPoolExecutor(4) as claimers:
        answers = set(claimers.map(ask, range(4)))

    assert answers == {frozenset({identity(ONE, "key")})}


def test_what_could_not_be_found_out_is_not_asked_again(bench: Bench) -> None:
    for _ in range(2):  # one call that changes nothing is made twice
        bench.s3.add_client_error("list_object_versions", "InternalError", http_status_code=500)

    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            bench.arbiter.resolve(THEIRS)


def test_nothing_is_resolved_when_there_is_no_time_for_it(bench: Bench) -> None:
    bench.has_time = False

    with pytest.raises(OutOfTimeError):
        bench.arbiter.resolve(THEIRS)


def test_a_versioned_object_is_found_in_a_bundle_by_its_version() -> None:
    scope: Any = "version"
    bench = Bench(scope=scope)
    versioned = ONE._replace(version_id="v1")
    with bench.dynamodb, bench.s3:
        bench.expect_versions(THEIRS, bundle_of(THEIRS, versioned))
        bench.expect_heal(THEIRS)

        members = bench.arbiter.resolve(THEIRS)

    assert members == {identity(versioned, scope)}
