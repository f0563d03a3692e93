"""What became of objects, and of an invocation."""

from enum import Enum
from typing import NamedTuple

from aggregator.pipeline.timings import Timings
from aggregator.schemas import ObjectRef


class Outcome(Enum):
    """What becomes of a member that is acknowledged."""

    BUNDLED = "bundled"
    DUPLICATE = "duplicate"
    OVERWRITTEN = "overwritten"
    SUPERSEDED = "superseded"


def repeated(ref: ObjectRef, etag: str | None) -> Outcome:
    """A duplicate of what was announced with `etag`; where the tags differ, the object has been overwritten since."""
    return Outcome.OVERWRITTEN if etag and ref.etag and etag != ref.etag else Outcome.DUPLICATE


PHASES = ("gather", "close", "put", "settle")
"""What the time of a bundle goes into; to gather is to claim, read and pack."""

Outcomes = dict[str, Outcome | Exception]
"""What became of each object, by its id: how it was acknowledged, or why it failed."""


class Published(NamedTuple):
    """A bundle that is published; bytes of its members, its own, and the kinds of its members that are not text."""

    bundle: str
    members: int
    bytes_in: int
    bytes_out: int
    binary: tuple[str, ...] = ()


class Result(NamedTuple):
    """
    What an invocation did: the outcome of each object, the bundles published, and the timings of each bundle.

    `identified` has the id of the version that S3 answered with, for each object whose notification did not say which.
    """

    outcomes: Outcomes
    identified: dict[str, str]
    published: list[Published]
    timings: list[Timings]

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each phase, over all bundles."""
        phases = [phase for bundle in self.timings for phase in bundle.phases]
        return {name: sum(one.ended - one.began for one in phases if one.name == name) for name in PHASES}
