"""
The environment, read once per invocation into one frozen value.

Every fault is reported at once and by name, so that one look at the error is enough to fix the deployment. A variable
that is set to the empty string counts as not set: that is how templates leave an optional parameter out.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from aggregator.exceptions import ConfigurationError
from aggregator.schemas import BucketName

MEGABYTE = 1_000_000
"""Bytes in the `MB` of our settings: the SI megabyte, as S3 and Lambda price lists use it."""

SECONDS_PER_DAY = 86_400

TableName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/-]{3,1024}$")]
"""A table's name or ARN; it stands in the text of statements, between quotes."""

Source = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$")]
"""A bucket that objects may come from, and optionally how their keys begin: `objects` or `objects/in/`."""

LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(str.upper)]


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Settings(BaseModel):
    """
    What an aggregator needs to know; each field is the environment variable of that name in upper case.

    Sizes in MB are SI megabytes. `max_bundle_input_mb` stays below 5,000 because a bundle is one `PutObject`, which
    takes 5 GiB at most (S3 user guide, "Uploading objects").
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    distribution_bucket_name: BucketName = Field(description="bucket that bundles are put into")
    service_name: str = Field(description="name in logs, metrics and traces")
    idempotency_table_name: TableName = Field(description="DynamoDB table of the ledger")
    idempotency_ttl_days: int = Field(ge=1, le=3_650, description="days that a claim is remembered")
    log_level: LogLevel = Field(description="lowest level logged")
    max_bundle_input_mb: int = Field(100, ge=1, le=5_000, description="most source bytes in one bundle, in MB")
    idempotency_scope: Literal["key", "version"] = Field("key", description="what makes two objects the same member")
    bundle_framing: Literal["lines", "none"] = Field("lines", description="whether each member ends its line")
    source_decoding: Literal["auto", "none"] = Field("auto", description="whether gzip and zstd are decoded")
    binary_members: Literal["keep", "reject"] = Field("keep", description="what happens to an object that is not text")
    compression_level: int = Field(1, ge=0, le=9, description="0 to 3 are isal's levels, 4 to 9 zlib-ng's")
    read_concurrency: int = Field(128, ge=1, le=512, description="most objects read at once")
    read_window_mb: int = Field(64, ge=1, le=4_096, description="most bytes read ahead, in MB")
    ledger_writes: Literal["auto", "statements", "transactions"] = Field(
        "auto", description="how claims are written; auto probes a store that is not AWS's own"
    )
    archive_bucket_name: BucketName | None = Field(None, description="bucket that replication fills; never a source")
    source_buckets: Annotated[tuple[Source, ...] | None, BeforeValidator(_listed)] = Field(
        None,
        description="where objects may come from: buckets, each with an optional /prefix, comma-separated; empty: any",
    )

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Self:
        """
        Read the settings from `environment`, usually `os.environ`.

        Raises:
            ConfigurationError: with every fault, by the name of its variable.
        """
        given = {name: environment.get(name.upper(), "").strip() for name in cls.model_fields}
        try:
            return cls.model_validate({name: value for name, value in given.items() if value})
        except ValidationError as error:
            faults = [_fault(str(fault["loc"][0]), fault["type"], fault["msg"], given) for fault in error.errors()]
            raise ConfigurationError("the environment is not complete: " + "; ".join(faults)) from None

    def is_source(self, bucket: str, key: str) -> bool:
        """Whether an object may be bundled, by where it is."""
        places = [source.partition("/") for source in self.source_buckets or ()]
        return not places or any(bucket == name and key.startswith(prefix) for name, _, prefix in places)

    @property
    def max_bundle_input(self) -> int:
        """Most bytes of members in one bundle."""
        return self.max_bundle_input_mb * MEGABYTE

    @property
    def read_window(self) -> int:
        """Most bytes held in memory ahead of the packer."""
        return self.read_window_mb * MEGABYTE

    @property
    def ttl(self) -> int:
        """Seconds that a claim is remembered."""
        return self.idempotency_ttl_days * SECONDS_PER_DAY


def switched_off(environment: Mapping[str, str], variable: str) -> bool:
    """Whether a Powertools variable such as POWERTOOLS_METRICS_DISABLED says so, in the words that Powertools takes."""
    return environment.get(variable, "").lower() in {"1", "y", "yes", "t", "true", "on"}


def elsewhere(environment: Mapping[str, str], service: str) -> bool:
    """Whether AWS_ENDPOINT_URL, or its form for `service`, moves the service to where AWS is not."""
    endpoint = environment.get(f"AWS_ENDPOINT_URL_{service}") or environment.get("AWS_ENDPOINT_URL") or ""
    return bool(endpoint) and ".amazonaws.com" not in endpoint


def _fault(name: str, kind: str, message: str, given: Mapping[str, str]) -> str:
    if kind == "missing":
        return f"{name.upper()} is not set"
    return f"{name.upper()} is {given[name]!r}: {message[:1].lower()}{message[1:]}"
