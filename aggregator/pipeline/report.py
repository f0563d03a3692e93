"""
What an invocation says of itself: one line for each thing that a person may act on, one with every figure, the metrics.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import structlog
from aws_lambda_powertools import Metrics

from aggregator.exceptions import AggregatorError, InFlightError, PermanentError, UnexpectedError
from aggregator.pipeline.outcomes import Outcome, Result, repeated
from aggregator.pipeline.planning import Envelope
from aggregator.pipeline.rejections import Rejection
from aggregator.pipeline.settings import Settings
from aggregator.pipeline.telemetry import add_counts, add_metric

if TYPE_CHECKING:
    from aggregator.schemas import ObjectRef

log = structlog.get_logger()


class Parsed(NamedTuple):
    """An envelope, why it could not be understood, if it could not, and the kinds of what it has that is skipped."""

    envelope: Envelope
    error: Exception | None = None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What became of a batch: of each envelope, of each object, and what was published."""

    parsed: list[Parsed]
    result: Result

    @cached_property
    def failed(self) -> list[tuple[Envelope, Exception]]:
        """The envelopes that stay on the queue, and why."""
        failures = ((one.envelope, one.error or self._failure(one.envelope)) for one in self.parsed)
        return [(envelope, failure) for envelope, failure in failures if failure]

    def rejections(self) -> list[Rejection]:
        """Why envelopes are rejected, for those who find them in the dead-letter queue."""
        return [
            Rejection(envelope.message_id, error.reason, str(error), envelope.wanted)
            for envelope, error in self.failed
            if isinstance(error, PermanentError)
        ]

    def outcomes(self) -> Counter[Outcome]:
        """How often each outcome: of several notifications for one object, one brought it in, the others repeat it."""
        return Counter(self._acknowledged())

    def skips(self) -> Counter[str]:
        """How often each kind of event was acknowledged and bundles nothing."""
        failed = {id(envelope) for envelope, _ in self.failed}
        return Counter(kind for one in self.parsed if id(one.envelope) not in failed for kind in one.skipped)

    def binary(self) -> Counter[str]:
        """How many members that are published are not text, by their kind."""
        return Counter(kind for bundle in self.result.published for kind in bundle.binary)

    def figures(self) -> dict[str, float]:
        """Every figure of the batch, by the name of its metric."""
        failed, outcomes, published = self.failed, self.outcomes(), self.result.published
        rejected = sum(isinstance(error, PermanentError) for _, error in failed)
        in_flight = sum(isinstance(error, InFlightError) for _, error in failed)
        return {
            "Envelopes": len(self.parsed),
            "MembersBundled": outcomes[Outcome.BUNDLED],
            "BundlesWritten": len(published),
            "BytesIn": sum(bundle.bytes_in for bundle in published),
            "BytesOut": sum(bundle.bytes_out for bundle in published),
            "Duplicates": outcomes[Outcome.DUPLICATE],
            "Overwritten": outcomes[Outcome.OVERWRITTEN],
            "Superseded": outcomes[Outcome.SUPERSEDED],
            "Skipped": sum(one.error is None and not one.envelope.wanted for one in self.parsed),
            "InFlight": in_flight,
            "Retried": len(failed) - rejected - in_flight,
            "Rejected": rejected,
            **{f"{phase.capitalize()}Time": round(1000 * spent) for phase, spent in self.result.seconds.items()},
        }

    def _failure(self, envelope: Envelope) -> Exception | None:
        """Why an envelope is not acknowledged: any of its objects failed; a rejection outweighs a retry."""
        outcomes = (self.result.outcomes[one.id] for one in envelope.wanted)
        failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        return min(failures, key=lambda failure: not isinstance(failure, PermanentError), default=None)

    def _acknowledged(self) -> Iterator[Outcome]:
        first: dict[str, ObjectRef] = {}
        for id_, ref in (wanted for one in self.parsed for wanted in one.envelope.wanted):
            outcome, version = self.result.outcomes[id_], self.result.identified.get(id_, id_)
            if outcome is Outcome.BUNDLED and version in first:
                yield repeated(ref, first[version].etag)
            elif isinstance(outcome, Outcome):
                first[version] = ref
                yield outcome


def tell(report: Report, settings: Settings, metrics: Metrics, began: float) -> None:
    """Log what failed and why, and close with the figures of the invocation, which began at `began` (monotonic)."""
    failed = report.failed
    _tell_rejected(failed)
    _tell_retried([error for _, error in failed if not isinstance(error, PermanentError)])
    figures = {**report.figures(), "Duration": round((time.monotonic() - began) * 1000)}
    for name, value in figures.items():
        add_metric(metrics, name, value)
    for bundle in report.result.published:
        add_metric(metrics, "FillRatio", 100 * bundle.bytes_in / settings.max_bundle_input)
    reasons = Counter(_reason(error) for _, error in failed)
    skips, binary = report.skips(), report.binary()
    add_counts("Failures", "reason", reasons, settings)
    add_counts("Skips", "kind", skips, settings)
    add_counts("BinaryMembers", "kind", binary, settings)
    log.info("invocation.finished", **figures, reasons=dict(reasons), skips=dict(skips), binary=dict(binary))


def _tell_rejected(failed: Sequence[tuple[Envelope, Exception]]) -> None:
    for envelope, error in failed:
        if isinstance(error, PermanentError):
            facts = {"objects": [one.ref.key for one in envelope.wanted], **error.facts}
            log.error(
                "envelope.rejected", message_id=envelope.message_id, reason=error.reason, why=error.args[0], **facts
            )


def _tell_retried(errors: Sequence[Exception]) -> None:
    """One line for each reason; an unexpected error is logged whole, once."""
    told: dict[str, list[Exception]] = {}
    for error in errors:
        told.setdefault(_reason(error), []).append(error)
    for reason, alike in told.items():
        log.warning("envelopes.retried", reason=reason, envelopes=len(alike), example=str(alike[-1]))
    for error in {id(error): error for error in told.get(UnexpectedError.reason, [])}.values():
        log.error("invocation.failed", exc_info=error)


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, AggregatorError) else UnexpectedError.reason
