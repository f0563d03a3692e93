"""The environment: complete, within its limits, and every fault named at once."""

import pytest
from pydantic import ValidationError

from aggregator.exceptions import ConfigurationError
from aggregator.pipeline.settings import Settings, elsewhere, switched_off

REQUIRED = {
    "DISTRIBUTION_BUCKET_NAME": "bundles",
    "SERVICE_NAME": "aggregator",
    "IDEMPOTENCY_TABLE_NAME": "ledger",
    "IDEMPOTENCY_TTL_DAYS": "30",
    "LOG_LEVEL": "INFO",
}
DEFAULTS: dict[str, object] = {
    "distribution_bucket_name": "bundles",
    "service_name": "aggregator",
    "idempotency_table_name": "ledger",
    "idempotency_ttl_days": 30,
    "log_level": "INFO",
    "max_bundle_input_mb": 100,
    "idempotency_scope": "key",
    "bundle_framing": "lines",
    "source_decoding": "auto",
    "binary_members": "keep",
    "compression_level": 1,
    "read_concurrency": 128,
    "read_window_mb": 64,
    "ledger_writes": "auto",
    "archive_bucket_name": None,
    "source_buckets": None,
}
LIMITS = {
    "IDEMPOTENCY_TTL_DAYS": (1, 3_650),
    "MAX_BUNDLE_INPUT_MB": (1, 5_000),
    "COMPRESSION_LEVEL": (0, 9),
    "READ_CONCURRENCY": (1, 512),
    "READ_WINDOW_MB": (1, 4_096),
}
WORDS = {
    "LOG_LEVEL": ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
    "IDEMPOTENCY_SCOPE": ("key", "version"),
    "BUNDLE_FRAMING": ("lines", "none"),
    "SOURCE_DECODING": ("auto", "none"),
    "BINARY_MEMBERS": ("keep", "reject"),
    "LEDGER_WRITES": ("auto", "statements", "transactions"),
}


def test_what_is_not_set_has_its_default() -> None:
    settings = Settings.from_env(REQUIRED)

    assert settings.model_dump() == DEFAULTS


def test_every_setting_is_the_variable_of_its_name_in_upper_case() -> None:
    given: dict[str, object] = {
        "distribution_bucket_name": "other-bundles",
        "service_name": "other",
        "idempotency_table_name": "other-ledger",
        "idempotency_ttl_days": 7,
        "log_level": "DEBUG",
        "max_bundle_input_mb": 5,
        "idempotency_scope": "version",
        "bundle_framing": "none",
        "source_decoding": "none",
        "binary_members": "reject",
        "compression_level": 9,
        "read_concurrency": 4,
        "read_window_mb": 128,
        "ledger_writes": "transactions",
        "archive_bucket_name": "archive",
        "source_buckets": ("objects/in/",),
    }

    settings = Settings.from_env(
        {name.upper(): ",".join(value) if isinstance(value, tuple) else str(value) for name, value in given.items()}
    )

    assert settings.model_dump() == given


def test_variables_of_others_are_ignored() -> None:
    settings = Settings.from_env({**REQUIRED, "PATH": "/bin", "AWS_REGION": "eu-central-1", "compression_level": "9"})

    assert settings.model_dump() == DEFAULTS


@pytest.mark.parametrize("name", ['a" VALUE', "a'b", "a b", "ab"])
def test_the_name_of_a_table_is_no_part_of_a_statement(name: str) -> None:
    with pytest.raises(ConfigurationError, match="IDEMPOTENCY_TABLE_NAME is"):
        Settings.from_env({**REQUIRED, "IDEMPOTENCY_TABLE_NAME": name})


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_missing_variable_is_named(missing: str) -> None:
    environment = {name: value for name, value in REQUIRED.items() if name != missing}

    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environment)

    assert str(caught.value) == f"the environment is not complete: {missing} is not set"


def test_every_fault_is_reported_at_once_and_by_name() -> None:
    environment = {
        "SERVICE_NAME": "aggregator",
        "IDEMPOTENCY_TTL_DAYS": "soon",
        "LOG_LEVEL": "LOUD",
        "COMPRESSION_LEVEL": "10",
        "ARCHIVE_BUCKET_NAME": "no/bucket",
    }

    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environment)

    assert str(caught.value) == (
        "the environment is not complete: "
        "DISTRIBUTION_BUCKET_NAME is not set; "
        "IDEMPOTENCY_TABLE_NAME is not set; "
        "IDEMPOTENCY_TTL_DAYS is 'soon': input should be a valid integer, unable to parse string as an integer; "
        "LOG_LEVEL is 'LOUD': input should be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'; "
        "COMPRESSION_LEVEL is '10': input should be less than or equal to 9; "
        "ARCHIVE_BUCKET_NAME is 'no/bucket': string should match pattern '^[A-Za-z0-9._-]{3,255}$'"
    )


def test_an_empty_environment_names_every_variable_that_is_required() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({})

    faults = "; ".join(f"{name} is not set" for name in REQUIRED)
    assert str(caught.value) == f"the environment is not complete: {faults}"


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_a_blank_variable_counts_as_not_set(blank: str) -> None:
    optional = {name.upper(): blank for name in DEFAULTS if name.upper() not in REQUIRED}

    settings = Settings.from_env({**REQUIRED, **optional})

    assert settings.model_dump() == DEFAULTS


def test_a_blank_required_variable_is_missing() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({**REQUIRED, "SERVICE_NAME": " "})

    assert str(caught.value) == "the environment is not complete: SERVICE_NAME is not set"


def test_blanks_around_a_value_are_dropped() -> None:
    settings = Settings.from_env({name: f" {value}\n" for name, value in REQUIRED.items()})

    assert settings.model_dump() == DEFAULTS


@pytest.mark.parametrize("level", WORDS["LOG_LEVEL"])
def test_the_log_level_may_be_in_lower_case(level: str) -> None:
    settings = Settings.from_env({**REQUIRED, "LOG_LEVEL": level.lower()})

    assert settings.log_level == level


@pytest.mark.parametrize(("name", "word"), [(name, word) for name, words in WORDS.items() for word in words])
def test_every_word_of_a_choice_is_accepted(name: str, word: str) -> None:
    settings = Settings.from_env({**REQUIRED, name: word})

    assert getattr(settings, name.lower()) == word


@pytest.mark.parametrize("name", WORDS)
def test_a_word_that_is_no_choice_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is 'both': input should be "):
        Settings.from_env({**REQUIRED, name: "both"})


@pytest.mark.parametrize("name", ["IDEMPOTENCY_SCOPE", "BUNDLE_FRAMING", "SOURCE_DECODING", "BINARY_MEMBERS"])
def test_only_the_log_level_may_be_in_another_case(name: str) -> None:
    word = WORDS[name][0].upper()

    with pytest.raises(ConfigurationError, match=f"{name} is '{word}': input should be "):
        Settings.from_env({**REQUIRED, name: word})


@pytest.mark.parametrize(("name", "number"), [(name, number) for name, limits in LIMITS.items() for number in limits])
def test_a_number_at_its_limit_is_accepted(name: str, number: int) -> None:
    settings = Settings.from_env({**REQUIRED, name: str(number)})

    assert getattr(settings, name.lower()) == number


@pytest.mark.parametrize("name", LIMITS)
def test_a_number_below_its_limit_is_refused(name: str) -> None:
    least = LIMITS[name][0]

    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({**REQUIRED, name: str(least - 1)})

    fault = f"{name} is '{least - 1}': input should be greater than or equal to {least}"
    assert str(caught.value) == f"the environment is not complete: {fault}"


@pytest.mark.parametrize("name", LIMITS)
def test_a_number_above_its_limit_is_refused(name: str) -> None:
    most = LIMITS[name][1]

    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({**REQUIRED, name: str(most + 1)})

    fault = f"{name} is '{most + 1}': input should be less than or equal to {most}"
    assert str(caught.value) == f"the environment is not complete: {fault}"


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("text", ["many", "1.5", "1e3", "0x10", "true", "1 2"])
def test_what_is_no_whole_number_is_refused(name: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is '{text}': input should be a valid integer"):
        Settings.from_env({**REQUIRED, name: text})


@pytest.mark.parametrize("name", ["DISTRIBUTION_BUCKET_NAME", "ARCHIVE_BUCKET_NAME"])
@pytest.mark.parametrize("bucket", ["ab", "a" * 256, "s3://bucket", "a bucket", "arn:aws:s3:::bucket", "büchér"])
def test_what_is_no_name_of_a_bucket_is_refused(name: str, bucket: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} is '{bucket}': string should match pattern"):
        Settings.from_env({**REQUIRED, name: bucket})


@pytest.mark.parametrize("bucket", ["abc", "a" * 63, "my.bucket-1", "Old_Style.Bucket", "b" * 255])
def test_every_name_that_a_bucket_may_have_is_accepted(bucket: str) -> None:
    settings = Settings.from_env({**REQUIRED, "DISTRIBUTION_BUCKET_NAME": bucket, "ARCHIVE_BUCKET_NAME": bucket})

    assert (settings.distribution_bucket_name, settings.archive_bucket_name) == (bucket, bucket)


def test_a_fault_does_not_drag_the_error_of_the_parser_along() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({})

    assert (caught.value.__cause__, caught.value.__suppress_context__) == (None, True)


@pytest.mark.parametrize("name", DEFAULTS)
def test_settings_are_frozen(name: str) -> None:
    settings = Settings.from_env(REQUIRED)

    with pytest.raises(ValidationError, match="Instance is frozen"):
        setattr(settings, name, DEFAULTS[name])


def test_megabytes_are_si_and_days_have_86_400_seconds() -> None:
    given = {"MAX_BUNDLE_INPUT_MB": "5", "READ_WINDOW_MB": "7", "IDEMPOTENCY_TTL_DAYS": "2"}

    settings = Settings.from_env({**REQUIRED, **given})

    assert (settings.max_bundle_input, settings.read_window, settings.ttl) == (5_000_000, 7_000_000, 172_800)


@pytest.mark.parametrize("word", ["1", "y", "yes", "t", "true", "on", "TRUE", "True", "On"])
def test_a_variable_of_powertools_switches_off_in_every_word_that_powertools_takes(word: str) -> None:
    assert switched_off({"POWERTOOLS_METRICS_DISABLED": word}, "POWERTOOLS_METRICS_DISABLED") is True


@pytest.mark.parametrize("environment", [{}, {"A": ""}, {"A": "0"}, {"A": "false"}, {"A": "off"}, {"B": "true"}])
def test_any_other_word_leaves_it_on(environment: dict[str, str]) -> None:
    assert switched_off(environment, "A") is False


@pytest.mark.parametrize(
    ("environment", "moved"),
    [
        ({}, False),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}, True),
        ({"AWS_ENDPOINT_URL_S3": "http://store:9000"}, True),
        ({"AWS_ENDPOINT_URL_SQS": "http://queue:9324"}, False),
        ({"AWS_ENDPOINT_URL_S3": "https://s3.eu-west-1.amazonaws.com", "AWS_ENDPOINT_URL": "http://all"}, False),
    ],
)
def test_a_service_is_elsewhere_if_its_endpoint_is_not_at_aws(environment: dict[str, str], *, moved: bool) -> None:
    assert elsewhere(environment, "S3") == moved


def test_objects_come_from_the_buckets_that_are_named_and_from_below_their_prefixes() -> None:
    settings = Settings.from_env({**REQUIRED, "SOURCE_BUCKETS": "objects/in/, others"})

    places = [("objects", "in/a"), ("objects", "out/a"), ("others", "any"), ("objects-2", "in/a")]

    assert [settings.is_source(*place) for place in places] == [True, False, True, False]
    assert Settings.from_env(REQUIRED).is_source("anywhere", "any")


def test_a_source_bucket_that_cannot_be_one_is_a_fault() -> None:
    with pytest.raises(ConfigurationError, match="SOURCE_BUCKETS is 'Objects'"):
        Settings.from_env({**REQUIRED, "SOURCE_BUCKETS": "Objects"})
