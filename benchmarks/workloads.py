"""What is measured: batches by number and size of their objects, and who is measured on each."""

from typing import NamedTuple

KIB, MIB = 1024, 1024**2

TABLE, DISTRIBUTION = "ledger", "distribution"

SETTINGS = {
    "DISTRIBUTION_BUCKET_NAME": DISTRIBUTION,
    "SERVICE_NAME": "benchmark",
    "IDEMPOTENCY_TABLE_NAME": TABLE,
    "IDEMPOTENCY_TTL_DAYS": "30",
    "LOG_LEVEL": "INFO",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Workload(NamedTuple):
    """A batch of `objects` objects of `size` bytes, each call to AWS `latency_ms` late, measured in `rounds`."""

    name: str
    title: str
    objects: int
    size: int
    rounds: int
    contenders: tuple[str, ...] = ("ours", "textbook")
    latency_ms: float = 0
    largest_mb: int = 100

    @property
    def settings(self) -> dict[str, str]:
        """The handler's environment, but for where AWS is."""
        return {**SETTINGS, "MAX_BUNDLE_INPUT_MB": str(self.largest_mb)}


ALL = ("ours", "textbook", "smart_open", "s3fs", "obstore")
LIMITED = ("ours", "textbook", "obstore")

WORKLOADS = (
    Workload("small-300", "300 objects of 4 KiB", 300, 4 * KIB, 5, ("ours",)),
    Workload("small-1000", "1,000 objects of 4 KiB", 1_000, 4 * KIB, 5, ALL),
    Workload("small-3000", "3,000 objects of 4 KiB", 3_000, 4 * KIB, 3),
    Workload("medium-200", "200 objects of 1 MiB", 200, MIB, 3, LIMITED, largest_mb=1_000),
    Workload("large-10", "10 objects of 100 MiB", 10, 100 * MIB, 2, LIMITED, largest_mb=1_100),
    Workload("latency-1000", "1,000 objects of 4 KiB, every call 20 ms late", 1_000, 4 * KIB, 2, latency_ms=20),
    Workload("huge-1", "one object of 4 GB", 1, 4_000_000_000, 1, ("ours",), largest_mb=5_000),
)
