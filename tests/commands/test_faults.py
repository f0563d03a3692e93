"""Whatever ends a command: it says so in words, and names the option, variable or command that helps."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    ProfileNotFound,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.exceptions import LedgerUnavailableError, NotFoundError, OpeningError
from aggregator.operations.faults import explain
from tests.conftest import ENVIRONMENT

pytestmark = pytest.mark.once

QUEUE = "http://127.0.0.1:9/000000000000/q"
COMMANDS = {
    "where": ["where", "s3://orders/k", "--distribution", "d", "--table", "ledger-1"],
    "reconcile": ["reconcile", "--source", "s3://orders", "--distribution", "d", "--since", "1h"],
    "stats": ["stats", "s3://bundles/"],
    "redrive": ["redrive", "--dlq", QUEUE],
    "backfill": ["backfill", "s3://orders/", "--dry-run"],
    "backfill to a queue": ["backfill", "s3://orders/", "--queue-url", QUEUE],
    "worker": ["worker", "--queue-url", QUEUE],
    "doctor": ["doctor", "--stack", "data-aggregator"],
    "reclaim": ["reclaim", "s3://orders/", "--older-than", "7d", "--distribution", "d", "--archive", "a"],
}

_DENIAL = "User: arn:aws:iam::1:user/me is not authorized to perform: sqs:GetQueueAttributes on resource: arn:aws:sqs:q"
_STACK = "Stack with id data-aggregator does not exist"


def _answer(code: str, message: str = "", status: int = 400, **more: Any) -> Callable[[str], Exception]:
    answer: Any = {"Error": {"Code": code, "Message": message, **more}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return lambda operation: ClientError(answer, operation)


FAULTS: dict[str, tuple[Callable[[str], Exception], str]] = {
    "expired": (_answer("ExpiredToken", "The security token included in the request is expired"), "aws sso login"),
    "unknown key": (_answer("InvalidClientTokenId", "The security token …"), "AWS_PROFILE"),
    "wrong secret": (
        _answer("SignatureDoesNotMatch", "The request signature we calculated …"),
        "AWS_SECRET_ACCESS_KEY",
    ),
    "denied": (_answer("AccessDenied", _DENIAL, 403), "sqs:GetQueueAttributes on arn:aws:sqs:q"),
    "denied without a word": (_answer("AccessDenied", "Access Denied", 403), "AWS_PROFILE"),
    "throttled": (_answer("ThrottlingException", "Rate exceeded"), "again later"),
    "elsewhere": (_answer("PermanentRedirect", "…", 301, Region="eu-west-1"), "AWS_DEFAULT_REGION to eu-west-1"),
    "unavailable": (_answer("InternalError", "We encountered an internal error", 500), "again later"),
    "no bucket": (_answer("NoSuchBucket", "The specified bucket does not exist", 404), "DISTRIBUTION_BUCKET_NAME"),
    "no queue": (_answer("AWS.SimpleQueueService.NonExistentQueue", "… for this wsdl version."), "--queue-url, --dlq"),
    "no table": (_answer("ResourceNotFoundException", "Requested resource not found"), "IDEMPOTENCY_TABLE_NAME"),
    "no stack": (_answer("ValidationError", _STACK), "--stack"),
    "no connection": (lambda _: EndpointConnectionError(endpoint_url="http://127.0.0.1:9/"), "AWS_ENDPOINT_URL"),
    "no answer": (lambda _: ConnectTimeoutError(endpoint_url="http://127.0.0.1:9/"), "AWS_ENDPOINT_URL"),
    "no AWS": (lambda _: ResponseParserError("invalid XML received: b'<html>'"), "AWS_ENDPOINT_URL"),
    "no region": (lambda _: NoRegionError(), "AWS_DEFAULT_REGION"),
    "no credentials": (lambda _: NoCredentialsError(), "aws sso login"),
    "no login": (lambda _: UnauthorizedSSOTokenError(), "aws sso login"),
}

RAW = re.compile(r"\[Errno|An error occurred|\.:|wsdl|Traceback|when calling the|Exception\b|fault=|None")
"""What botocore, S3, SQS or Python say, and no person should read."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("credentials")
def test_a_fault_of_aws_is_one_line_of_words_with_a_remedy(
    command: str, fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make, remedy = FAULTS[fault]

    def fail(_: object, operation: str, __: object) -> None:
        raise make(operation)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(BaseClient, "_make_api_call", fail)
    ran = CliRunner().invoke(app, COMMANDS[command], env=ENVIRONMENT if command == "worker" else {})

    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert ran.stderr.startswith("aggregator: ")
    assert not RAW.search(ran.stderr), ran.stderr
    assert remedy in ran.stderr


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOENT, "no such file or folder"),
        (errno.EISDIR, "a folder and not a file"),
        (errno.EACCES, "no permission"),
        (errno.ENOSPC, "no space is left"),
        (errno.EROFS, "read-only"),
        (errno.EBUSY, os.strerror(errno.EBUSY).lower()),
    ],
)
def test_a_fault_of_the_system_is_in_words_with_the_path(number: int, said: str) -> None:
    text = explain(OSError(number, os.strerror(number), "some/file"))

    assert text.startswith("some/file: ")
    assert said in text
    assert not RAW.search(text)


@pytest.mark.parametrize(
    "call",
    [
        ("doctor", "--template", "nope.yaml"),
        ("plan", "--objects-per-day", "1M", "--object-size", "1", "--prices", "nope.json"),
        ("local", "nope", "--out", "out"),
        ("stats", "nope"),
        ("backfill", "s3://b/", "--queue-url", QUEUE, "--state", "/nope/nope.json"),
        ("bundle", "repack", "nope", "--out", "o"),
    ],
)
@pytest.mark.usefixtures("credentials")
def test_a_file_that_is_not_there_is_named_by_every_command(
    call: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(BaseClient, "_make_api_call", lambda *_: {"Attributes": {}})

    ran = CliRunner().invoke(app, call)

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "nope" in ran.stderr
    assert not RAW.search(ran.stderr), ran.stderr


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("where", "k", "--scope", "days"), "'days' is not one of 'key', 'version'."),
        (("plan", "--queues", "x"), "--queues': it should be a valid integer, not 'x'"),
        (("plan", "--queues", "0"), "--queues': it should be greater than or equal to 1, not '0'"),
        (("wher",), "No such command 'wher'. Did you mean 'where'"),
        (("redrive", "--reson", "loop"), "Possible options: --json, --reason"),
        (("contract", "show", "s3-notificaton"), "there are s3-notification@1, eventbridge-notification@1"),
        (("contract", "show", "s3-notification", "--profile", "x"), "'x' is not one of 'producer', 'consumer'."),
    ],
)
def test_a_typo_in_a_value_lists_the_values_or_says_the_form(call: tuple[str, ...], said: str) -> None:
    ran = CliRunner().invoke(app, call)

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert "Value error" not in ran.stderr


def test_what_an_error_of_ours_knows_is_said_and_not_said_twice() -> None:
    missing = ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, "HeadBucket")
    bucket, table = (
        NotFoundError("there is no such bucket", bucket="b"),
        LedgerUnavailableError("x", table="t", fault="y"),
    )
    bucket.__cause__ = missing
    table.__cause__ = _answer("ResourceNotFoundException")("BatchGetItem")
    passed_on = OpeningError(str(missing))
    passed_on.__cause__ = missing

    assert explain(passed_on) == explain(missing)
    assert explain(bucket).startswith("there is no such bucket (bucket='b'): check the name in s3://…")
    assert explain(table).startswith("x (table='t'): there is no such table: check --table (IDEMPOTENCY_TABLE_NAME)")


def test_an_unknown_answer_is_said_with_its_code_and_words() -> None:
    text = explain(_answer("OddCode", "It is odd.")("OddCall"))

    assert text == "AWS rejects the request (OddCode): It is odd"


def test_a_profile_that_is_not_there_lists_those_that_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("[default]\n[profile dev]\nregion = eu-west-1\n", encoding="ascii")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "nosuch")

    assert explain(ProfileNotFound(profile="nosuch")) == (
        "there is no profile 'nosuch': AWS_PROFILE names one of default, dev"
    )
