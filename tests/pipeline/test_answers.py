"""What each answer of S3 means for an object: the table, row by row."""

import pytest
from obstore.exceptions import GenericError

from aggregator.exceptions import (
    AggregatorError,
    ArchivedObjectError,
    ForbiddenObjectError,
    MissingObjectError,
    PermanentError,
    StoreUnavailableError,
    SupersededError,
    TransientError,
    UnreadableObjectError,
)
from aggregator.pipeline.answers import Answer, answer_of, fate_of


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (301, "PermanentRedirect", UnreadableObjectError),
        (307, "TemporaryRedirect", UnreadableObjectError),
        (400, "InvalidRequest", ForbiddenObjectError),  # encrypted with a customer's key
        (400, "InvalidArgument", UnreadableObjectError),  # "Invalid version id specified"
        (400, "ExpiredToken", StoreUnavailableError),
        (400, "InvalidToken", StoreUnavailableError),
        (400, "TokenRefreshRequired", StoreUnavailableError),
        (400, "RequestTimeout", StoreUnavailableError),
        (400, "KMS.DisabledException", ForbiddenObjectError),
        (400, "KMS.KMSInvalidStateException", ForbiddenObjectError),
        (400, "KMS.NotFoundException", ForbiddenObjectError),
        (400, "KMS.ThrottlingException", StoreUnavailableError),
        (400, "KMS.KeyUnavailableException", StoreUnavailableError),
        (400, "KMS.DependencyTimeoutException", StoreUnavailableError),
        (400, "SomethingNew", UnreadableObjectError),
        (401, "401", ForbiddenObjectError),
        (403, "AccessDenied", ForbiddenObjectError),
        (403, "AllAccessDisabled", ForbiddenObjectError),
        (403, "InvalidAccessKeyId", StoreUnavailableError),
        (403, "InvalidObjectState", ArchivedObjectError),
        (403, "RequestTimeTooSkewed", StoreUnavailableError),
        (403, "SignatureDoesNotMatch", StoreUnavailableError),
        (403, "403", ForbiddenObjectError),
        (404, "NoSuchKey", MissingObjectError),
        (404, "NoSuchBucket", MissingObjectError),
        (404, "NoSuchVersion", MissingObjectError),
        (404, "404", MissingObjectError),
        (405, "MethodNotAllowed", UnreadableObjectError),  # the version that was announced is a delete marker
        (408, "408", StoreUnavailableError),
        (409, "OperationAborted", StoreUnavailableError),
        (410, "410", MissingObjectError),
        (416, "InvalidRange", StoreUnavailableError),
        (429, "429", StoreUnavailableError),
        (451, "451", UnreadableObjectError),
        (500, "InternalError", StoreUnavailableError),
        (503, "SlowDown", StoreUnavailableError),
        (503, "503", StoreUnavailableError),
        (0, "Timeout", StoreUnavailableError),
    ],
)
@pytest.mark.parametrize("pinned", [False, True])
def test_an_answer_has_one_fate(status: int, code: str, error: type[AggregatorError], pinned: bool) -> None:
    assert fate_of(Answer(status, code), pinned=pinned).error is error


def test_a_failed_condition_says_that_the_version_was_replaced_if_one_was_asked_for() -> None:
    answer = Answer(412, "PreconditionFailed")

    assert [fate_of(answer, pinned=pinned).error for pinned in (True, False)] == [
        SupersededError,
        StoreUnavailableError,
    ]


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status_is_permanent_or_passing(status: int) -> None:
    error = fate_of(Answer(status, "Unheard"), pinned=False).error

    assert issubclass(error, PermanentError) is not issubclass(error, TransientError)
    assert issubclass(error, TransientError) or status < 500


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ("Server returned non-2xx status code: 404 Not Found: <Error><Code>NoSuchKey</Code>", Answer(404, "NoSuchKey")),
        ("Server returned non-2xx status code: 403 Forbidden: ", Answer(403, "403")),
        ("Received redirect without LOCATION, this normally indicates …", Answer(301, "PermanentRedirect")),
        ("HTTP error: error sending request", Answer(0, "ConnectionError")),
        ("operation timed out", Answer(0, "Timeout")),
    ],
)
def test_what_obstore_says_is_understood(words: str, answer: Answer) -> None:
    assert answer_of(GenericError(words)) == answer
