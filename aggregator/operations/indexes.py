"""
Many bundles by their indexes: the one way to read them, many tails at once, in the order in which they are named.

    for target, found in read_targets(["s3://distribution/2026/11/"], lambda bundle: matching(bundle, "orders/*")):
        ...

From each bundle its tail is read. Memory holds the indexes that are being read, and of the others only the part that
the caller takes. A bundle that cannot be read does not end the reading: the error comes in its place.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from aggregator.aws import THREADS
from aggregator.bundles.bundle import Bundle
from aggregator.bundles.index import Member
from aggregator.bundles.opening import Location, open_object, s3_client
from aggregator.bundles.targets import Found, bundle_at, found_at
from aggregator.exceptions import AggregatorError, BundleFormatError
from aggregator.operations.listings import in_parallel

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

P = TypeVar("P")
R = TypeVar("R")

Fault = AggregatorError | OSError
"""Why a bundle, or a folder of bundles, cannot be read."""


def read_indexes(
    places: Iterable[P],
    opened: Callable[[P], Bundle],
    take: Callable[[Bundle], R],
    *,
    faults: type[Exception] | tuple[type[Exception], ...] = BundleFormatError,
    threads: int = THREADS,
) -> Iterator[tuple[P, R | Fault]]:
    """
    Each place, and what `take` takes of the bundle there, or why that is not known.

    `opened` and `take` run in `threads` threads. An error that is not one of `faults` ends the reading.
    """

    def read(place: P) -> tuple[P, R | Fault]:
        try:
            with opened(place) as bundle:
                return place, take(bundle)
        except faults as error:
            return place, error  # type: ignore[return-value]

    return in_parallel(read, places, threads=threads)


def read_targets(
    targets: Iterable[str], take: Callable[[Bundle], R], *, wanted: Callable[[Found], bool] = lambda _: True
) -> Iterator[tuple[str, R | Fault]]:
    """
    Each bundle that `targets` name, and what `take` takes of it, or why it cannot be read, which ends nothing.

    A bundle that is not `wanted` is left out, and nothing is read of it.

    Raises:
        OpeningError: boto3 is not installed, or its configuration is wrong.
    """
    targets = list(targets)
    with opener(targets) as open_target:

        def opened(place: tuple[str, Fault | None]) -> Bundle:
            target, fault = place
            if fault:
                raise fault
            return open_target(target)

        for (target, _), found in read_indexes(
            _places(targets, wanted), opened, take, faults=(AggregatorError, OSError)
        ):
            yield target, found


@contextmanager
def opener(targets: Iterable[str]) -> Iterator[Callable[[str], Bundle]]:
    """
    A function that opens each of `targets`, in any thread; all of S3 share one client.

    Raises:
        OpeningError: boto3 is not installed, or its configuration is wrong.
    """
    s3 = s3_client() if any(target.startswith("s3://") for target in targets) else None
    try:
        yield lambda target: _bundle_in(s3, target) if s3 and target.startswith("s3://") else bundle_at(target)
    finally:
        if s3:
            s3.close()


def matching(bundle: Bundle, pattern: str) -> list[Member]:
    """The members that a pattern of `*`, `?`, `[abc]` and `[!abc]` names; a pattern that is a key names that key."""
    if pattern in bundle:
        return [member for member in bundle if member.key == pattern]
    matches = re.compile(fnmatch.translate(pattern)).match
    return [member for member in bundle if matches(member.key)]


def _places(targets: Iterable[str], wanted: Callable[[Found], bool]) -> Iterator[tuple[str, Fault | None]]:
    """The bundles that `targets` name; a target that cannot be listed, and why."""
    for given in targets:
        try:
            for found in filter(wanted, found_at([given])):
                yield found.target, None
        except (AggregatorError, OSError) as error:
            yield given, error


def _bundle_in(s3: "S3Client", target: str) -> Bundle:
    fetch, size, _ = open_object(s3, Location.parsed(target))
    return Bundle(fetch, size)
