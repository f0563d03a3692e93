"""
What an invocation says of itself: one line for each thing that a person may act on, one with every figure, the metrics.

A message that is rejected goes to a dead-letter queue, which does not keep why: so that is left in the ledger, too.
"""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import structlog
from aws_lambda_powertools import Metrics

from aggregator.bundling import PHASES, Result, Work
from aggregator.exceptions import (
    AggregatorError,
    InFlightError,
    LedgerUnavailableError,
    PermanentError,
    UnforeseenError,
)
from aggregator.ledger import MOST_REFUSALS, Refusal, repeated
from aggregator.planning import Outcome, runs
from aggregator.schemas import Envelope, Member
from aggregator.telemetry import METRICS, add_failures

log = structlog.get_logger()


class Report(NamedTuple):
    """How many envelopes there were, those that could be parsed, those that failed and why, and what was bundled."""

    envelopes: int
    parsed: list[Envelope]
    failed: list[tuple[Envelope, Exception]]
    result: Result


def tell(report: Report, work: Work, metrics: Metrics, began: float) -> None:
    """Log what failed and why, leave it in the ledger, and close with the figures of the invocation."""
    rejected = [(envelope, error) for envelope, error in report.failed if isinstance(error, PermanentError)]
    retried = [error for _, error in report.failed if not isinstance(error, PermanentError)]
    for envelope, refusal in rejected:
        facts = {"objects": [member.key for member in envelope.members], **refusal.facts}
        log.error(
            "envelope.rejected", message_id=envelope.message_id, reason=refusal.reason, why=refusal.args[0], **facts
        )
    _tell_retried(retried)
    _refuse(rejected, work)
    reasons = Counter(_reason(error) for _, error in report.failed)
    figures = _figures(report, work, len(rejected), reasons[InFlightError.reason], began)
    for name, value in figures.items():
        metrics.add_metric(name, METRICS[name][0], value)
    for attempt in report.result.published:
        metrics.add_metric(
            "FillRatio", METRICS["FillRatio"][0], 100 * attempt.bytes_in / work.settings.max_bundle_input
        )
    add_failures(reasons, work.settings)
    log.info("invocation.finished", **figures, reasons=dict(reasons))


def _tell_retried(errors: Sequence[Exception]) -> None:
    """One line for each reason; an error that nobody foresaw is told whole, once."""
    told: dict[str, list[Exception]] = {}
    for error in errors:
        told.setdefault(_reason(error), []).append(error)
    for reason, alike in told.items():
        log.warning("envelopes.retried", reason=reason, envelopes=len(alike), example=str(alike[-1]))
    for error in {id(error): error for error in told.get(UnforeseenError.reason, [])}.values():
        log.error("invocation.failed", exc_info=error)


def _refuse(rejected: Sequence[tuple[Envelope, PermanentError]], work: Work) -> None:
    """A dead-letter queue does not keep why a message is there: the ledger does, if it has the time."""
    for some in runs(rejected, MOST_REFUSALS):
        refusals = [
            Refusal(envelope.message_id, error.reason, str(error), envelope.members) for envelope, error in some
        ]
        try:
            work.ledger.refuse(refusals)
        except LedgerUnavailableError as error:
            log.warning("refusals.unrecorded", **error.facts)
            return


def _figures(report: Report, work: Work, rejected: int, in_flight: int, began: float) -> dict[str, float]:
    outcomes = Counter(_outcomes(report, work))
    published = report.result.published
    seconds = {phase: sum(attempt.seconds.get(phase, 0.0) for attempt in report.result.attempts) for phase in PHASES}
    return {
        "Envelopes": report.envelopes,
        "MembersBundled": outcomes[Outcome.BUNDLED],
        "BundlesWritten": len(published),
        "BytesIn": sum(attempt.bytes_in for attempt in published),
        "BytesOut": sum(attempt.bytes_out for attempt in published),
        "Duplicates": outcomes[Outcome.DUPLICATE],
        "Overwritten": outcomes[Outcome.OVERWRITTEN],
        "Superseded": outcomes[Outcome.SUPERSEDED],
        "Skipped": sum(not envelope.members for envelope in report.parsed),
        "InFlight": in_flight,
        "Retried": len(report.failed) - rejected - in_flight,
        "Rejected": rejected,
        **{f"{phase.capitalize()}Time": round(1000 * spent) for phase, spent in seconds.items()},
        "Duration": round((time.monotonic() - began) * 1000),
    }


def _outcomes(report: Report, work: Work) -> Iterator[Outcome]:
    """The outcome of each notification: of several for one member, one brought it in and the others repeat it."""
    first: dict[str, Member] = {}
    for member in (member for envelope in report.parsed for member in envelope.members):
        id_ = work.ledger.identity(member)
        outcome = report.result.outcomes[id_]
        if outcome is Outcome.BUNDLED and id_ in first:
            yield repeated(member, first[id_].etag)
        elif isinstance(outcome, Outcome):
            first[id_] = member
            yield outcome


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, AggregatorError) else UnforeseenError.reason
