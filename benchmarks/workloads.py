"""What is measured: batches by the number and size of their objects, and who is measured on each."""

from typing import NamedTuple

KIB, MIB = 1024, 1024**2

TABLE, DISTRIBUTION = "ledger", "distribution"

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}

AGGREGATORS = ("ours", "ours_tls", "textbook", "textbook_6", "smart_open", "s3fs")
"""Contenders that publish a bundle; the others are limits, which do a part of the work and publish nothing."""

OURS = ("ours", "ours_tls")
"""This build, over plain HTTP and over TLS."""

_PAIR = ("ours", "textbook")
_READERS = (*_PAIR, "smart_open", "s3fs")
_TRIO = (*_PAIR, "obstore")
_HEAVY = (*_PAIR, "textbook_6", "obstore", "isal")


class Workload(NamedTuple):
    """
    A batch of `objects` objects of `size` bytes; size 0 announces folder markers, which are parsed and skipped.

    It is measured `rounds` times in processes of their own, `repeat` times in each; every call is `latency_ms` late, or
    as late as S3 is. Where the textbook would take minutes, it gets the first `fewer` objects.
    """

    name: str
    title: str
    objects: int
    size: int
    contenders: tuple[str, ...]
    rounds: int
    repeat: int = 1
    latency_ms: float = 0
    latency_of_s3: bool = False
    fewer: int = 0
    largest_mb: int = 100

    @property
    def settings(self) -> dict[str, str]:
        """The handler's environment, but for where AWS is."""
        return {
            **CREDENTIALS,
            "DISTRIBUTION_BUCKET_NAME": DISTRIBUTION,
            "SERVICE_NAME": "benchmark",
            "IDEMPOTENCY_TABLE_NAME": TABLE,
            "IDEMPOTENCY_TTL_DAYS": "30",
            "LOG_LEVEL": "INFO",
            "MAX_BUNDLE_INPUT_MB": str(self.largest_mb),
            "LEDGER_WRITES": "statements",  # as on AWS: the stand-in honours what the handler would first probe
            "BENCHMARK_READERS": "128" if self.latency_ms or self.latency_of_s3 else "32",  # of the limit: the best
        }

    def objects_of(self, contender: str) -> int:
        """How many objects a contender gets."""
        return self.fewer if self.fewer and contender.startswith("textbook") else self.objects

    def quick(self) -> "Workload":
        """The same with so little of everything that it only shows that the benchmark runs."""
        size = min(self.size, 20 * MIB)
        return self._replace(objects=max(1, self.objects // 50), fewer=self.fewer // 50, size=size, rounds=1, repeat=1)


SMALL = Workload("small-1000", "1,000 objects of 4 KiB", 1_000, 4 * KIB, (*_READERS, "obstore"), rounds=3)

_LATE = (*OURS, "textbook", "obstore", "obstore_tls")

WORKLOADS = (
    Workload("small-300", "300 objects of 4 KiB", 300, 4 * KIB, ("ours",), rounds=5),
    SMALL,
    Workload("small-3000", "3,000 objects of 4 KiB", 3_000, 4 * KIB, _TRIO, rounds=3),
    Workload("small-30000", "30,000 objects of 4 KiB", 30_000, 4 * KIB, ("ours",), rounds=3),
    Workload("medium", "200 objects of 1 MiB", 200, MIB, _HEAVY, rounds=3, fewer=60, largest_mb=1_000),
    Workload("large", "10 objects of 100 MiB", 10, 100 * MIB, _HEAVY, rounds=3, fewer=1, largest_mb=1_100),
    Workload(
        "late",
        "3,000 objects of 4 KiB, every call 20 ms late",
        3_000,
        4 * KIB,
        _LATE,
        rounds=3,
        latency_ms=20,
        fewer=300,
    ),
    Workload(
        "tail",
        "3,000 objects of 4 KiB, calls as late as S3's",
        3_000,
        4 * KIB,
        ("ours", "obstore"),
        5,
        latency_of_s3=True,
    ),
    Workload(
        "wide", "1,000 objects of 128 KiB, every call 50 ms late", 1_000, 128 * KIB, ("ours",), rounds=2, latency_ms=50
    ),
    Workload("huge", "one object of 4 GB", 1, 4_000_000_000, ("ours",), rounds=1, largest_mb=5_000),
    Workload("again", "200 objects of 1 MiB, ten batches in one process", 200, MIB, ("ours",), rounds=1, repeat=10),
    Workload("first", "import, and a first invocation with 20 objects of 4 KiB", 1, 4 * KIB, _PAIR, rounds=9),
    Workload("parsing-1", "one message that is parsed and skipped", 1, 0, ("ours",), rounds=1, repeat=15),
    Workload("parsing-3000", "3,000 messages that are parsed and skipped", 3_000, 0, ("ours",), rounds=1, repeat=15),
)
