"""
What AWS or the system answers, in words, and what a person can do about it.

    explain(error)      "there is no such queue: check the URL (--queue-url, --dlq), its account and its region"

Errors of botocore speak of operations and codes; those of the system have numbers. A command shows neither: it says
what is wrong, and names the option, variable or command that helps.
"""

import errno
import os
import re
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from aggregator.aws import error_code, http_status
from aggregator.exceptions import AggregatorError, NotFoundError, OpeningError


class Fault(NamedTuple):
    """What is wrong, and what to do; `remedy` is empty where only a person can know."""

    said: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.said}: {self.remedy}" if self.remedy else self.said


_NAMES = "check --table (IDEMPOTENCY_TABLE_NAME) and the region (AWS_DEFAULT_REGION)"
_BUCKET = "check the name in s3://…, --distribution (DISTRIBUTION_BUCKET_NAME) and --archive (ARCHIVE_BUCKET_NAME)"
_KEYS = "check AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_LOGIN = "log in again (aws sso login), or set new credentials"
_LATER = "run the command again later"
_ENDPOINT = "check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL"
_PERMISSION = "let an administrator give it to the credentials, or choose others by AWS_PROFILE"

_BY_CODE: dict[str, Fault] = {
    **dict.fromkeys(
        ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"),
        Fault("there is no such queue", "check the URL (--queue-url, --dlq), its account and its region"),
    ),
    "InvalidAddress": Fault("this is not the URL of a queue", "check --queue-url and --dlq"),
    "NoSuchBucket": Fault("there is no such bucket", _BUCKET),
    "InvalidBucketName": Fault("this is not the name of a bucket", _BUCKET),
    "NoSuchKey": Fault("there is no such object", "check the key after s3://bucket/"),
    "InvalidObjectState": Fault(
        "the object is in a storage class that has to be restored before it can be read",
        "restore it (aws s3api restore-object), then run the command again",
    ),
    "ResourceNotFoundException": Fault("there is no such table", _NAMES),
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"),
        Fault("the credentials have expired", _LOGIN),
    ),
    **dict.fromkeys(
        ("InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException", "InvalidToken"),
        Fault("AWS does not know these credentials", _KEYS),
    ),
    **dict.fromkeys(
        ("SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature", "AuthFailure"),
        Fault("the secret key does not belong to the access key", f"{_KEYS}, and the clock of this machine"),
    ),
    "RequestTimeTooSkewed": Fault("the clock of this machine is wrong", "set it, and run the command again"),
    **dict.fromkeys(
        (
            *("Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestLimitExceeded"),
            *("SlowDown", "TooManyRequestsException", "ProvisionedThroughputExceededException"),
        ),
        Fault("AWS throttles the requests", _LATER),
    ),
    "OverLimit": Fault("the queue has too many messages in flight", _LATER),
    "KMS.DisabledException": Fault("the KMS key is disabled", "enable it"),
}

_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "AccessDeniedByBucket", "AuthorizationError", "UnauthorizedOperation"}
    | {"403", "AllAccessDisabled", "KMS.AccessDeniedException", "Forbidden"}
)
_ELSEWHERE = frozenset({"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "TemporaryRedirect"}) | {
    "IllegalLocationConstraintException"
}
_DENIAL = re.compile(r"not authorized to perform: ([\w:*]+)(?: on resource: (\S+))?")
_NO_STACK = re.compile(r"Stack with id (\S+) does not exist")

_ACTIONS = {
    "HeadObject": "s3:GetObject",
    "GetObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "HeadBucket": "s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "ListObjectVersions": "s3:ListBucketVersions",
}
"""The permissions that calls to S3 need, which says only "Access Denied"."""

_BY_KIND: dict[str, Fault] = {
    "NoRegionError": Fault("no region is set", "set AWS_DEFAULT_REGION, or the region of your profile"),
    **dict.fromkeys(
        ("NoCredentialsError", "CredentialRetrievalError", "PartialCredentialsError"),
        Fault("there are no credentials", "set AWS_PROFILE, or log in (aws sso login)"),
    ),
    **dict.fromkeys(
        ("TokenRetrievalError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "SSOError", "LoginRefreshRequired"),
        Fault("the login has expired", _LOGIN),
    ),
    "InvalidRegionError": Fault("this is not a region", "check AWS_DEFAULT_REGION"),
    "ConfigParseError": Fault("the configuration of AWS cannot be read", "check ~/.aws/config and AWS_CONFIG_FILE"),
    "SSLError": Fault("the certificate of the endpoint is not valid", "check AWS_CA_BUNDLE and AWS_ENDPOINT_URL"),
    "ProxyConnectionError": Fault("the proxy does not answer", "check HTTPS_PROXY and NO_PROXY"),
    **dict.fromkeys(
        ("ConnectTimeoutError", "ReadTimeoutError", "ConnectionClosedError", "HTTPClientError"),
        Fault("AWS does not answer", _ENDPOINT),
    ),
}
"""What errors without an answer of AWS mean, by their names."""

_BY_NUMBER = {
    errno.ENOENT: Fault("there is no such file or folder", "check the path"),
    errno.EISDIR: Fault("this is a folder and not a file", "name a file in it"),
    errno.ENOTDIR: Fault("this is a file and not a folder", "name a folder"),
    errno.EACCES: Fault("no permission", "check the owner and the mode of the file"),
    errno.EPERM: Fault("no permission", "check the owner and the mode of the file"),
    errno.EROFS: Fault("the disk is read-only", "name another place"),
    errno.ENOSPC: Fault("no space is left on the disk", "free some, or name another place"),
    errno.EDQUOT: Fault("the quota of the disk is used up", "free some, or name another place"),
    errno.EEXIST: Fault("there is such a file already", "name another one"),
    errno.ENAMETOOLONG: Fault("the name is too long", "name a shorter one"),
    errno.ELOOP: Fault("too many links lead there", "name the file that they lead to"),
    errno.EMFILE: Fault("too many files are open", "raise the limit (ulimit -n)"),
    errno.EADDRINUSE: Fault("another program uses the address", "name another port"),
}


def explain(error: Exception) -> str:
    """One sentence on an expected error and what to do; nothing on an unexpected one."""
    if isinstance(error, AggregatorError):
        return _explain_ours(error)
    if is_of_aws(error):
        return str(_of_aws(error))
    return _of_system(error) if isinstance(error, OSError) else ""


def is_of_aws(error: BaseException | None) -> bool:
    """Whether botocore says so: AWS refused, did not answer, or could not even be asked."""
    if isinstance(error, ValueError) and str(error).startswith("Invalid endpoint"):
        return True  # botocore has no error of its own for it
    return isinstance(error, (BotoCoreError, ClientError, ResponseParserError))


def _explain_ours(error: AggregatorError) -> str:
    """An error of ours, with what AWS or the system said in words and not as it said it."""
    cause = error.__cause__
    if isinstance(cause, Exception) and is_of_aws(cause):  # some of which are errors of the system too
        fault = _of_aws(cause)
    elif isinstance(cause, OSError):
        fault = Fault(_of_system(cause))
    else:
        return str(error)
    message = str(error.args[0]).replace(str(cause), "").rstrip(" :")
    known = {name: value for name, value in error.facts.items() if name != "fault"}
    if not message:
        return str(AggregatorError(str(fault), **known))
    text = str(AggregatorError(message, **known))
    says_it = isinstance(error, NotFoundError) or (isinstance(error, OpeningError) and not message.startswith("AWS"))
    rest = fault.remedy if says_it else str(fault)
    return ": ".join(filter(None, (text, rest)))


def _of_aws(error: Exception) -> Fault:
    if isinstance(error, ClientError):
        return _answered(error)
    kind, known = type(error).__name__, getattr(error, "kwargs", {})
    if kind == "ProfileNotFound":
        return Fault(f"there is no profile {known.get('profile')!r}", f"AWS_PROFILE names one of {_profiles()}")
    if kind == "EndpointConnectionError":
        return Fault(f"no connection to {known.get('endpoint_url')}", _ENDPOINT)
    if kind == "ResponseParserError":
        return Fault("the answer is not one of AWS: a proxy, or a store without this service, answers", _ENDPOINT)
    if kind == "ValueError":
        url = str(error).removeprefix("Invalid endpoint: ")
        return Fault(
            f"{url!r} is not an endpoint", "AWS_ENDPOINT_URL and --endpoint-url are such as http://127.0.0.1:4566"
        )
    if kind == "ParamValidationError":
        report = " ".join(str(known.get("report", "")).split())
        return Fault("a name or a value is not one that AWS knows", report)
    return _BY_KIND.get(kind) or Fault(f"AWS cannot be asked ({kind})", f"{_ENDPOINT}, and AWS_PROFILE")


def _answered(error: ClientError) -> Fault:
    code, answer = error_code(error), error.response.get("Error", {})
    if code in _DENIED or "not authorized to perform" in answer.get("Message", ""):
        return _denied(error)
    if code in _ELSEWHERE:
        return Fault("the bucket is in another region", f"set AWS_DEFAULT_REGION to {_region(error)}")
    stack = _NO_STACK.search(answer.get("Message", ""))
    if stack:
        return Fault(f"there is no stack {stack[1]}", "check --stack, AWS_PROFILE and AWS_DEFAULT_REGION")
    if code == "404":
        return _BY_CODE["NoSuchBucket" if error.operation_name == "HeadBucket" else "NoSuchKey"]
    if code in _BY_CODE:
        return _BY_CODE[code]
    if http_status(error) >= 500:
        return Fault("AWS cannot answer now", _LATER)
    said = answer.get("Message", "").strip().rstrip(".")
    return Fault(f"AWS rejects the request ({code})" + (f": {said}" if said else ""))


def _denied(error: ClientError) -> Fault:
    """What is denied: the answer says it, or else the call."""
    found = _DENIAL.search(error.response.get("Error", {}).get("Message", ""))
    if found:
        where = f" on {found[2]}" if found[2] else ""
        return Fault(f"AWS denies {found[1]}{where}", _PERMISSION)
    return Fault(f"AWS denies {_ACTIONS.get(error.operation_name, error.operation_name)}", _PERMISSION)


def _region(error: ClientError) -> str:
    headers: Any = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    answer: Any = error.response.get("Error", {})
    return str(answer.get("Region") or headers.get("x-amz-bucket-region") or "its region")


def _profiles() -> str:
    """The profiles that there are."""
    import botocore.session  # noqa: PLC0415 - only this error needs it

    try:
        found = botocore.session.Session(profile="default").full_config.get("profiles", {})
    except BotoCoreError:
        found = {}
    return ", ".join(sorted(found)) or "~/.aws/config, in which there is none"


def _of_system(error: OSError) -> str:
    """An error of the system: the path, what is wrong with it, and what to do."""
    if error.errno is None:
        return str(error)
    fault = _BY_NUMBER.get(error.errno) or Fault((error.strerror or os.strerror(error.errno)).lower())
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes, os.PathLike)) else ""
    return f"{path}: {fault}" if path else str(fault)
