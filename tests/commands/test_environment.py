"""Whatever the environment says, commands without AWS print the same, and those with it end in one line."""

import os
import random
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from typer.main import get_command

from aggregator.commands.main import app
from aggregator.pipeline.settings import Settings
from tests.support import ROOT

pytestmark = pytest.mark.integration

BUNDLE = "fixtures/bundles/v1-lines.gz"
EVENTS = sorted(map(str, (ROOT / "fixtures" / "events").rglob("*.json")))[:5]
LOCAL = {
    "list": ("bundle", "list", BUNDLE),
    "cat": ("bundle", "cat", BUNDLE, "in/a.json"),
    "verify": ("bundle", "verify", "--json", BUNDLE),
    "stats": ("stats", "--json", "--max-bundle-input-mb", "100", "fixtures/bundles"),
    "contracts": ("contract", "list"),
    "validate": ("contract", "validate", "--profile", "consumer", *EVENTS),
    "plan": ("plan", "--objects-per-day", "50M", "--object-size", "4KiB", "--json"),
    "template": ("doctor", "--template", "deploy/template.yaml", "--parameter", "SourceBucketName=source", "--json"),
    "version": ("--version",),
}
REMOTE = {
    "where": ("where", "s3://b/k", "--distribution", "d", "--table", "t"),
    "reconcile": ("reconcile", "--source", "s3://b", "--distribution", "d", "--since", "7d"),
    "redrive": ("redrive", "--dlq", "http://127.0.0.1:9/q"),
    "list": ("bundle", "list", "s3://b/k.gz"),
    "stats": ("stats", "s3://b/"),
}

ODD = [
    "",
    " ",
    "0",
    "no",
    "yes",
    "true",
    "-1",
    "1e999",
    "é",
    "\\",
    "/nonexistent",
    "http://127.0.0.1:9",
    "DEBUG",
    "[",
    "\x7f",
]
"""Values of which one variable or another makes something."""

OTHERS = """
    AWS_ACCESS_KEY_ID AWS_CA_BUNDLE AWS_CONFIG_FILE AWS_DEFAULT_OUTPUT AWS_DEFAULT_REGION AWS_ENDPOINT_URL
    AWS_ENDPOINT_URL_DYNAMODB AWS_ENDPOINT_URL_S3 AWS_EXECUTION_ENV AWS_IGNORE_CONFIGURED_ENDPOINT_URLS
    AWS_LAMBDA_FUNCTION_NAME AWS_LAMBDA_LOG_LEVEL AWS_MAX_ATTEMPTS AWS_PROFILE AWS_REGION
    AWS_REQUEST_CHECKSUM_CALCULATION AWS_RETRY_MODE AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN
    AWS_SHARED_CREDENTIALS_FILE AWS_STS_REGIONAL_ENDPOINTS AWS_USE_DUALSTACK_ENDPOINT AWS_USE_FIPS_ENDPOINT
    AWS_VIRTUAL_HOSTED_STYLE_REQUEST AWS_XRAY_CONTEXT_MISSING AWS_XRAY_SDK_ENABLED BOTO_CONFIG
    POWERTOOLS_DEBUG POWERTOOLS_DEV POWERTOOLS_IDEMPOTENCY_DISABLED POWERTOOLS_LOG_LEVEL POWERTOOLS_LOGGER_LOG_EVENT
    POWERTOOLS_LOGGER_SAMPLE_RATE POWERTOOLS_METRICS_DISABLED POWERTOOLS_METRICS_NAMESPACE POWERTOOLS_SERVICE_NAME
    ALL_PROXY HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy REQUESTS_CA_BUNDLE SSL_CERT_FILE CURL_CA_BUNDLE
    COLUMNS LINES TERM NO_COLOR FORCE_COLOR CLICOLOR CLICOLOR_FORCE PAGER EDITOR LANG LC_ALL LANGUAGE TZ HOME TMPDIR
    XDG_CACHE_HOME XDG_CONFIG_HOME PIP_USER PIP_TARGET PIP_REQUIRE_VIRTUALENV VIRTUAL_ENV
    TYPER_USE_RICH TYPER_STANDARD_TRACEBACK _TYPER_STANDARD_TRACEBACK DEBUG CI GITHUB_ACTIONS
"""
VARIABLES = [*(name.upper() for name in Settings.model_fields), *OTHERS.split()]
"""Our settings, and what boto3, Powertools, pip, typer, rich or a shell read."""

NAMED = {
    "SOURCE_BUCKET_NAME": "--source-bucket",
    "QUEUE_URL": "--queue-url",
    "DEAD_LETTER_QUEUE_URL": "--dlq",
    "DISTRIBUTION_BUCKET_NAME": "--distribution",
    "ARCHIVE_BUCKET_NAME": "--archive",
    "IDEMPOTENCY_TABLE_NAME": "--table",
    "IDEMPOTENCY_TTL_DAYS": "--ttl-days",
    "IDEMPOTENCY_SCOPE": "--scope",
}
"""Variables that name parts of a deployment, as `aggregator local --serve` exports them, and the option of each."""

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(1, 6))]


def _environment(seed: int) -> dict[str, str]:
    chance = random.Random(seed)
    return {name: chance.choice(ODD) for name in VARIABLES if chance.random() < 0.3}


def _run(call: tuple[str, ...], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-m", "aggregator", *call]
    return subprocess.run(
        command, env={**kept, **environment}, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )


@pytest.mark.once
def test_each_option_that_names_a_part_of_a_deployment_is_read_from_its_variable_in_every_command() -> None:
    commands = [get_command(app)]
    read = set()
    for command in commands:
        commands += getattr(command, "commands", {}).values()
        read |= {(option, one.envvar, command.name) for one in command.params for option in one.opts}

    unread = {(option, command) for option, variable, command in read if option in NAMED.values() and not variable}
    assert {(variable, option) for option, variable, _ in read if variable in NAMED} == set(NAMED.items())
    assert unread == {("--queue-url", "redrive")}  # each message goes to the queue that it came from


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """How each command ends in an environment that says nothing."""
    return {name: _run(call, {}) for name, call in LOCAL.items()}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", LOCAL)
def test_a_command_that_needs_no_aws_prints_the_same_in_any_environment(
    plain: dict[str, Any], name: str, seed: int
) -> None:
    ran, expected = _run(LOCAL[name], _environment(seed)), plain[name]

    assert expected.returncode in {0, 1}
    assert (ran.returncode, ran.stdout, ran.stderr) == (expected.returncode, expected.stdout, expected.stderr)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", REMOTE)
def test_a_command_that_cannot_ask_aws_ends_in_one_line_or_names_the_variable_that_is_wrong(
    name: str, seed: int
) -> None:
    """No AWS is there: a closed port is, which proxies and endpoints of the environment do not get around."""
    closed = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    ran = _run(REMOTE[name], {**_environment(seed), **closed, "AWS_CONFIG_FILE": os.devnull})

    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1 or "(env var: '" in ran.stderr.splitlines()[-1], ran.stderr
