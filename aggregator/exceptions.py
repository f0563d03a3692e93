"""
What each failure means for the envelope that brought it.

    AggregatorError
    ├── ConfigurationError           the invocation cannot start: fix the environment
    ├── WrongTriggerError            the event is not an SQS batch: fix the trigger
    ├── BundleFormatError            the bytes are not a bundle, or a damaged one
    ├── BundleVersionError           the bundle is of a later version than this reader knows: upgrade
    ├── ClosedBundleError            the bundle was closed, and no more is read from it
    ├── OpeningError                 a file, an object or a URL cannot be opened or read
    ├── NotFoundError                a bucket or queue that is named does not exist
    ├── SupersededError              acknowledge: a newer version brings its own notification
    ├── PermanentError               reject: the redrive policy takes it to the dead-letter queue
    │   ├── InvalidNotificationError
    │   ├── UnknownEventError
    │   ├── LoopError
    │   ├── ForeignSourceError
    │   ├── MissingObjectError
    │   ├── ForbiddenObjectError
    │   ├── ArchivedObjectError
    │   ├── UnreadableObjectError
    │   ├── CorruptMemberError
    │   ├── BinaryContentError
    │   └── OversizedMemberError
    └── TransientError               retry: the queue brings it back
        ├── InFlightError
        ├── OutOfTimeError
        ├── BundleFullError
        ├── StoreUnavailableError
        ├── LedgerUnavailableError
        ├── UnpublishedError
        ├── AmbiguousPutError
        └── UnexpectedError

A rejected envelope and a retried one look the same to SQS (both are batch item failures); they differ in
what a person should do, so the log, the metrics and the ledger keep them apart by `reason`.
"""

from typing import ClassVar


class AggregatorError(Exception):
    """A sentence for people, facts for the log."""

    reason: ClassVar[str] = "aggregator"
    facts: dict[str, object]

    def __init__(self, message: str, **facts: object) -> None:
        super().__init__(message)
        self.facts = facts

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message} ({_listed(self.facts)})" if self.facts else message


class ConfigurationError(AggregatorError):
    """The environment does not describe a working aggregator."""

    reason = "configuration"


class WrongTriggerError(AggregatorError):
    """The handler was invoked with something that is not a batch of SQS messages."""

    reason = "wrong_trigger"


class BundleFormatError(AggregatorError):
    """What was read is not a bundle, or not a whole one."""

    reason = "bundle_format"


class BundleVersionError(AggregatorError):
    """What was read is a bundle of a later version than this reader knows."""

    reason = "bundle_version"


class ClosedBundleError(AggregatorError):
    """The bundle was closed, and something was to be read from it."""

    reason = "closed_bundle"


class SupersededError(AggregatorError):
    """The announced version has been replaced; the new one is announced by its own notification."""

    reason = "superseded"


class PermanentError(AggregatorError):
    """Trying again cannot help."""

    reason = "permanent"


class InvalidNotificationError(PermanentError):
    """The body is not JSON, not a shape we accept, or not from S3."""

    reason = "invalid_notification"


class UnknownEventError(PermanentError):
    """The event neither creates an object that we understand nor is known to create none: to skip it might lose one."""

    reason = "unknown_event"


class LoopError(PermanentError):
    """The object is in a bucket that we write to."""

    reason = "loop"


class ForeignSourceError(PermanentError):
    """The object is not in a bucket that SOURCE_BUCKETS names."""

    reason = "foreign_source"


class MissingObjectError(PermanentError):
    """S3 does not have the object (any more)."""

    reason = "missing_object"


class ForbiddenObjectError(PermanentError):
    """S3 or KMS refuses to let us read the object."""

    reason = "forbidden_object"


class ArchivedObjectError(PermanentError):
    """The object is in a storage class that must be restored before it can be read."""

    reason = "archived_object"


class UnreadableObjectError(PermanentError):
    """S3 rejects the request for the object for another reason, which no later attempt changes."""

    reason = "unreadable_object"


class CorruptMemberError(PermanentError):
    """The object says it is gzip or zstd, and cannot be decoded to its end."""

    reason = "corrupt_member"


class BinaryContentError(PermanentError):
    """The object is not text, and the setting BINARY_MEMBERS rejects such objects."""

    reason = "binary_content"


class OversizedMemberError(PermanentError):
    """The object, declared or decoded, is larger than a bundle may be."""

    reason = "oversized_member"


class TransientError(AggregatorError):
    """Trying again may help."""

    reason = "transient"


class InFlightError(TransientError):
    """Another invocation holds a claim on the member that has not lapsed."""

    reason = "in_flight"


class OutOfTimeError(TransientError):
    """The invocation ends before this member can be read."""

    reason = "out_of_time"


class BundleFullError(TransientError):
    """The member does not fit into this bundle any more; the next one takes it."""

    reason = "bundle_full"


class StoreUnavailableError(TransientError):
    """S3 throttles, times out or cannot be reached."""

    reason = "store_unavailable"


class LedgerUnavailableError(TransientError):
    """DynamoDB throttles, times out or cannot be reached; what it did is unknown."""

    reason = "ledger_unavailable"


class UnpublishedError(TransientError):
    """The bundle was not published, for certain or as far as we can tell."""

    reason = "unpublished"


class AmbiguousPutError(TransientError):
    """The put of a bundle failed in a way that does not say whether the bundle is there."""

    reason = "ambiguous_put"


class UnexpectedError(TransientError):
    """An unexpected error occurred while one object was read; its cause is logged whole."""

    reason = "unexpected"


def _listed(facts: dict[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in facts.items())


class OpeningError(AggregatorError):
    """What a target names cannot be opened, or not be read on."""

    reason = "opening"


class NotFoundError(AggregatorError):
    """Something that is named does not exist; to ask it would say that all is well."""

    reason = "not_found"
