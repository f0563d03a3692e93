"""
Whether a bundle was published, found out by looking at what is under its name; and if not, that it never will be.

    a bundle with members, in any version       published: healed, and its index says whose members it holds
    an empty bundle, if something lies on top   fenced: a put with If-None-Match is refused, now and later
    neither                                     fence it with an empty bundle, and look again

Looking comes after every fence, so no answer to a put is believed: a bundle that lands meanwhile is found. All versions
count, also those that a consumer has deleted or written over (docs/decisions/0008).
"""

from collections.abc import Callable, Mapping
from threading import Lock
from typing import Literal

import structlog

from aggregator.bundles.index import BundleIndex
from aggregator.exceptions import (
    AggregatorError,
    BundleFormatError,
    LedgerUnavailableError,
    OutOfTimeError,
    StoreUnavailableError,
)
from aggregator.pipeline.core import empty_bundle
from aggregator.pipeline.distribution import DistributionBucket
from aggregator.pipeline.planning import identity
from aggregator.schemas import ObjectRef

_ROUNDS = 4

log = structlog.get_logger()

Settle = Callable[[str, Mapping[str, object]], None]
"""Records that a bundle is published; raises LedgerUnavailableError."""


class Arbiter:
    """The arbiter of one invocation, which asks about each bundle once."""

    def __init__(
        self,
        distribution: DistributionBucket,
        *,
        settle: Settle,
        scope: Literal["key", "version"],
        request_id: str,
        clock: Callable[[], float],
        has_time: Callable[[], bool],
    ) -> None:
        """`clock` tells the seconds since the epoch, `has_time` whether the invocation may still look after others."""
        self._distribution, self._settle, self._scope = distribution, settle, scope
        self._request_id, self._clock, self._has_time = request_id, clock, has_time
        self._resolved: dict[str, frozenset[str] | AggregatorError] = {}
        self._locks: dict[str, Lock] = {}

    def resolve(self, bundle: str) -> frozenset[str]:
        """
        Ids of the members that `bundle` holds for good; none, if it was not published and now never can be.

        Who asks while another thread asks about the same bundle waits for its answer.

        Raises:
            OutOfTimeError: the invocation has no time to find out.
            StoreUnavailableError: cannot tell now.
            BundleFormatError: something else is under that name.
        """
        with self._locks.setdefault(bundle, Lock()):
            if bundle not in self._resolved:
                self._resolved[bundle] = self._answer(bundle)
        answer = self._resolved[bundle]
        if isinstance(answer, AggregatorError):
            raise answer
        return answer

    def look_up(self, bundle: str) -> frozenset[str] | None:
        """
        Ids of the members of `bundle`; none, if its name is fenced; None, if a put under its name may yet succeed.

        Raises:
            StoreUnavailableError: cannot tell now.
            BundleFormatError: something else is under that name, and it is not known to be fenced.
        """
        versions = self._distribution.versions(bundle)
        foreign, fenced = None, False
        for version in versions:
            try:
                index = self._distribution.index(bundle, version)
            except BundleFormatError as error:
                foreign = error  # somebody wrote over what was there
                continue
            if index.members.key:
                self._heal(bundle, len(index.members.key))
                return self._members(index)
            fenced = True
        if foreign and not fenced:
            raise foreign
        return frozenset() if any(version.is_latest for version in versions) else None

    def _answer(self, bundle: str) -> frozenset[str] | AggregatorError:
        try:
            if not self._has_time():
                raise OutOfTimeError("the invocation ends before the bundle can be resolved", bundle=bundle)
            members = self._fenced(bundle)
        except AggregatorError as error:
            return error
        log.info("claim.resolved", bundle=bundle, published=bool(members))
        return members

    def _fenced(self, bundle: str) -> frozenset[str]:
        for _ in range(_ROUNDS):
            found = self.look_up(bundle)
            if found is not None:
                return found
            self._distribution.fence(bundle, empty_bundle(bundle, self._clock(), self._request_id))
        raise StoreUnavailableError("a bundle's name could not be fenced", bundle=bundle)

    def _members(self, index: BundleIndex) -> frozenset[str]:
        """Ids of the members of an index."""
        columns = index.members
        rows = zip(columns.bucket, columns.key, columns.etag, columns.version_id, strict=True)
        return frozenset(
            identity(ObjectRef(index.buckets[bucket], key, None, etag, version_id), self._scope)
            for bucket, key, etag, version_id in rows
        )

    def _heal(self, bundle: str, members: int) -> None:
        try:
            self._settle(bundle, {"members": members, "healed_by": self._request_id})
        except LedgerUnavailableError as error:
            log.warning("settle.failed", **error.facts)
