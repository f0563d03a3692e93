"""
The fate of an object, by what S3 answers when it is asked for: one table, by error code, else by HTTP status.

Sources: S3 API reference, "Error responses"; KMS API reference, "Common errors" (S3 puts `KMS.` before their names). An
answer that no later attempt can change rejects the message at its first receive, with the code as the reason.
"""

import re
from typing import NamedTuple

from botocore.exceptions import ClientError

from aggregator.aws import error_code, http_status
from aggregator.exceptions import (
    AggregatorError,
    ArchivedObjectError,
    ForbiddenObjectError,
    MissingObjectError,
    StoreUnavailableError,
    SupersededError,
    UnreadableObjectError,
)


class Answer(NamedTuple):
    """What S3 answered: an HTTP status, 0 where there was no answer, and S3's error code, or the kind of failure."""

    status: int
    code: str


class Fate(NamedTuple):
    """The error that an answer becomes."""

    error: type[AggregatorError]
    message: str


GONE = Fate(MissingObjectError, "object is not there")
ARCHIVED = Fate(ArchivedObjectError, "object must be restored from its storage class first")
FORBIDDEN = Fate(ForbiddenObjectError, "object may not be read")
UNREADABLE = Fate(UnreadableObjectError, "S3 rejects the request for the object")
REPLACED = Fate(SupersededError, "object has been replaced since it was announced")
PASSING = Fate(StoreUnavailableError, "object could not be read now")

REDIRECTED = frozenset({"PermanentRedirect", "TemporaryRedirect", "IllegalLocationConstraintException"}) | {
    "AuthorizationHeaderMalformed"
}
"""Codes that say that the bucket is in another region."""

NO_SUCH_RANGE = frozenset({"416", "InvalidRange"})

BY_CODE: dict[str, Fate] = {
    **dict.fromkeys(("NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound"), GONE),
    "InvalidObjectState": ARCHIVED,
    **dict.fromkeys(("AccessDenied", "Forbidden", "AllAccessDisabled", "AccountProblem"), FORBIDDEN),
    # encrypted with a customer's key (SSE-C): "The object was stored using a form of Server Side Encryption"
    **dict.fromkeys(("InvalidRequest", "ServerSideEncryptionConfigurationNotFoundError"), FORBIDDEN),
    # clocks and credentials, which others renew
    **dict.fromkeys(("ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"), PASSING),
    **dict.fromkeys(("SignatureDoesNotMatch", "RequestTimeTooSkewed", "RequestExpired"), PASSING),
    **dict.fromkeys(("RequestTimeout", "OperationAborted", "SlowDown", "Throttling", "ThrottlingException"), PASSING),
    **dict.fromkeys(("RequestLimitExceeded", "BadDigest", "IncompleteBody"), PASSING),
    **dict.fromkeys(NO_SUCH_RANGE, PASSING),  # it was replaced by a shorter one while it was read
    # of KMS, all others are a key that may not be used: KMS.AccessDeniedException, KMS.DisabledException, …
    **dict.fromkeys(("KMS.ThrottlingException", "KMS.LimitExceededException", "KMS.RequestLimitExceeded"), PASSING),
    **dict.fromkeys(("KMS.KMSInternalException", "KMS.InternalException", "KMS.KeyUnavailableException"), PASSING),
    **dict.fromkeys(("KMS.DependencyTimeoutException", "KMS.ServiceUnavailableException"), PASSING),
}

BY_STATUS: dict[int, Fate] = {
    **dict.fromkeys((404, 410), GONE),
    **dict.fromkeys((401, 403), FORBIDDEN),
    **dict.fromkeys((408, 409, 416, 425, 429), PASSING),
}
"""Of answers whose code is not in the table; all other statuses of the 400 family are `UNREADABLE`."""

_OBSTORE = re.compile(r"non-2xx status code: (\d+).*?(?:<Code>([A-Za-z0-9.]+)</Code>|$)", re.DOTALL)
_FAILURES = (
    ("redirect without LOCATION", Answer(301, "PermanentRedirect")),
    ("timed out", Answer(0, "Timeout")),
    ("error sending request", Answer(0, "ConnectionError")),
    ("decoding response body", Answer(0, "IncompleteRead")),
    ("request or response body", Answer(0, "IncompleteRead")),
)
"""Of obstore's errors without a status: words in them, and what happened."""


def answer_of(error: Exception) -> Answer:
    """What S3 answered, by an error of boto3's or obstore's; obstore has it in the words of its errors only."""
    if isinstance(error, ClientError):
        return Answer(http_status(error), error_code(error))
    if isinstance(error, RecursionError):  # boto3 follows a redirect that names no region to itself
        return Answer(301, "PermanentRedirect")
    words = str(error)
    if found := _OBSTORE.search(words):
        return Answer(int(found[1]), found[2] or found[1])
    return next((answer for known, answer in _FAILURES if known in words), Answer(0, error_code(error)))


def fate_of(answer: Answer, *, pinned: bool) -> Fate:
    """The fate of an object; `pinned` says that one version of it was asked for."""
    status, code = answer
    if status == 412 or code == "PreconditionFailed":
        return REPLACED if pinned else PASSING
    if code in BY_CODE:
        return BY_CODE[code]
    if code.startswith("KMS."):
        return FORBIDDEN
    if status in BY_STATUS:
        return BY_STATUS[status]
    return UNREADABLE if 300 <= status < 500 else PASSING
