"""
What a workload costs, how large its bundles get and which limit of AWS it meets first.

The arrivals are simulated (`arrivals.py`); what one object and one invocation take was measured (`FIGURES`); what they
cost is a price list with a date (`PRICES`). Nothing here asks AWS.
"""

import json
import math
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from aggregator.exceptions import AggregatorError
from aggregator.operations.capacity.arrivals import IN_FLIGHT, Mapping, Seen, Stream, simulate
from aggregator.operations.capacity.provisioning import Demand, Provisioned, provisioned

DAY = 86_400
MIB = 1024 * 1024


class PlanError(AggregatorError):
    """The workload, or the price list, is not one."""

    reason = "plan"


class Figures(NamedTuple):
    """
    What was measured, and on what; times in seconds, on one CPU.

    `latency` is what every AWS call takes at least, as in the benchmark with 20 ms on every call; `network` bytes a
    second is our assumption of what a function reads at most.
    """

    source: str = "benchmarks/RESULTS.md, 2026-11-28"
    object_cpu: float = 0.46e-3  # "Side by side", 3,000 objects of 4 KiB; reading alone takes 0.21 of it
    message_cpu: float = 0.31e-3  # a worker's receive and delete: benchmarks/large.py, two thirds of an object
    invocation: float = 0.060
    compression: float = 449 * MIB
    latency: float = 0.020
    network: float = 75 * MIB
    index_bytes: float = 40.0
    log_bytes: float = 3_000.0


FIGURES = Figures()
"""The figures of this version; change them where `benchmarks/RESULTS.md` changes."""

PRICES: Dict[str, tuple[float, str]] = {
    "lambda_request": (0.20e-6, "AWS Lambda pricing: requests"),
    "lambda_gb_second": (13.3334e-6, "AWS Lambda pricing: duration, Arm, first tier"),
    "s3_get": (0.40e-6, "Amazon S3 pricing: GET and all other requests, S3 Standard"),
    "s3_put": (5.00e-6, "Amazon S3 pricing: PUT, COPY, POST, LIST requests, S3 Standard"),
    "sqs_request": (0.40e-6, "Amazon SQS pricing: standard queues, each 64 KB one request, first tier"),
    "dynamodb_write_unit": (0.625e-6, "Amazon DynamoDB pricing: on-demand write request units, Standard class"),
    "dynamodb_read_unit": (0.125e-6, "Amazon DynamoDB pricing: on-demand read request units, Standard class"),
    "dynamodb_write_unit_hour": (0.65e-3, "Amazon DynamoDB pricing: provisioned write capacity units, Standard class"),
    "dynamodb_read_unit_hour": (0.13e-3, "Amazon DynamoDB pricing: provisioned read capacity units, Standard class"),
    "fargate_vcpu_hour": (0.03238, "AWS Fargate pricing: Linux/ARM, per vCPU per hour"),
    "fargate_gb_hour": (0.00356, "AWS Fargate pricing: Linux/ARM, per GB per hour"),
    "logs_gb": (0.50, "Amazon CloudWatch pricing: logs, collect"),
}
"""Dollars in us-east-1, and the AWS page they are from. Free tiers and discounts are left out."""

PRICES_DATE = "2026-11-23"

_READERS, _CLAIMERS, _CLAIMS = 128, 8, 25
_CLAIM_WRITES = 1
"""Write units of a claim, granted or not (DynamoDB developer guide, "DynamoDB read and write operations")."""

_DUPLICATE_READS = 2
"""Read units that tell a duplicate: its record, and once more when its bundle is known to be settled."""

_LEDGER, _WRITES, _READS = "DynamoDB", "write units", "read units"
_PART = 8 * MIB
ONE_CPU = 1_769
"""MB of memory that come with one CPU (Lambda developer guide, "Configure Lambda function memory")."""


class Workload(NamedTuple):
    """
    What comes, and how the function is set up; sizes in bytes, `memory` in MB, `window` in seconds.

    `duplicates` is the share of messages that announce what is in a bundle already.
    """

    objects_per_day: float
    object_size: float
    batch_size: int = 10_000
    window: float = 60.0
    memory: int = ONE_CPU
    concurrency: int = 10
    queues: int = 1
    burst: float = 1.0
    bundle_limit: float = 100e6
    ratio: float = 4.0
    notification_bytes: int = 1_600
    replicated: bool = False
    duplicates: float = 0.0

    @property
    def rate(self) -> float:
        """Objects a second, in the mean."""
        return self.objects_per_day / DAY

    @property
    def fresh(self) -> float:
        """Share of messages whose objects are read and bundled."""
        return 1 - self.duplicates


class Line(NamedTuple):
    """One kind of request or of time: how much of it a million objects take, and what that costs in dollars."""

    what: str
    amount: float
    unit: str
    dollars: float


class Limit(NamedTuple):
    """A limit of AWS: what is needed at the peak, what there is by default, and where AWS says so."""

    what: str
    needed: float
    default: float
    page: str

    @property
    def exceeded(self) -> bool:
        """Whether it must be raised first."""
        return self.needed > self.default


class Plan(NamedTuple):
    """
    What is to be expected of a workload.

    Members and sizes are those of one bundle, in the mean; `keeps_up` says whether the queue stays short. `provisioned`
    is what the ledger would cost by the hour; None, if its table cannot have as much.
    """

    workload: Workload
    seen: Seen
    members: float
    text_bytes: float
    bundle_bytes: float
    seconds: float
    bound: dict[str, float]
    keeps_up: bool
    lines: list[Line]
    limits: list[Limit]
    provisioned: Provisioned | None

    @property
    def dollars(self) -> float:
        """Dollars for a million objects."""
        return sum(line.dollars for line in self.lines)

    @property
    def ledger_dollars(self) -> float:
        """Dollars of them for the ledger."""
        return sum(line.dollars for line in self.lines if line.what.startswith(_LEDGER))


def duration(members: int, workload: Workload, figures: Figures = FIGURES) -> float:
    """
    Seconds that an invocation with so many members takes.

    It works, it waits for answers and it reads, all at once; whichever takes longest decides. What holds Python's lock
    gets no more than one CPU, compression gets all.
    """
    cpus = workload.memory / ONE_CPU
    read = members * workload.fresh
    size = read * workload.object_size
    work = members * figures.object_cpu / min(cpus, 1.0) + size / (figures.compression * cpus)
    parts = max(1, math.ceil(workload.object_size / _PART))
    waits = max(read * parts / _READERS, members / _CLAIMS / _CLAIMERS) * figures.latency
    publishing = 3 * figures.latency  # the first claim, the put, the settle record
    return figures.invocation / min(cpus, 1.0) + max(work, waits, size / figures.network) + publishing


def plan(
    workload: Workload,
    *,
    seed: int = 1,
    figures: Figures = FIGURES,
    prices: Dict[str, tuple[float, str]] = PRICES,
) -> Plan:
    """
    Simulate a workload and count what it takes.

    Raises:
        PlanError: nothing comes, or a single object is larger than a bundle.
    """
    check(workload)
    stream = Stream(workload.rate / workload.queues, workload.burst)
    mapping = Mapping(workload.batch_size, workload.window, workload.concurrency, workload.notification_bytes)
    seen = simulate(
        stream,
        mapping,
        lambda members: duration(members, workload, figures),
        seconds=max(1_200.0, 20 * workload.window, min(200 / stream.rate, DAY)),
        warm_up=600,
        seed=seed,
        tick=1.0 if stream.rate < 1 else 0.1,
    )
    if not seen.batches:
        raise PlanError("the simulated period contains no objects: raise --objects-per-day")
    gigabyte_seconds = seen.busy_seconds * workload.memory / 1024
    running = (
        ("Lambda invocations", len(seen.batches), "requests", "lambda_request"),
        ("Lambda time", gigabyte_seconds, "GB-seconds", "lambda_gb_second"),
    )
    return seen_plan(seen, workload, running, figures=figures, prices=prices)


def seen_plan(
    seen: Seen,
    workload: Workload,
    running: Sequence[tuple[str, float, str, str]],
    *,
    figures: Figures,
    prices: Dict[str, tuple[float, str]],
) -> Plan:
    """
    What was seen of a workload, counted.

    `running` is what it takes to run the handler, of all that was seen: what, how much, its unit and its price.
    """
    members, split = _bundle(seen, workload)
    closed = {why: count / len(seen.batches) for why, count in seen.closed_by.most_common()}
    text = members * workload.object_size
    listed = {name: price for name, (price, _) in prices.items()}
    million = 1e6 / seen.handled
    lines = [
        Line(what, amount * million, unit, amount * million * listed[name]) for what, amount, unit, name in running
    ]
    lines += _lines(seen, workload, split, figures, listed)
    return Plan(
        workload=workload,
        seen=seen,
        members=members,
        text_bytes=text,
        bundle_bytes=text / workload.ratio + members * figures.index_bytes,
        seconds=seen.busy_seconds / len(seen.batches),
        bound={"bundle limit": 1.0} if split > 1 else closed,
        keeps_up=seen.handled >= 0.97 * seen.arrived,
        lines=lines,
        limits=_limits(seen, workload),
        provisioned=_provisioned(lines, workload, listed),
    )


def priced(path: Path) -> dict[str, tuple[float, str]]:
    """
    The price list with what a JSON file says instead: an object of names and dollars.

    Raises:
        PlanError: it is not such a file.
    """
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        unknown = set(given) - set(PRICES)
        changed = {name: (float(price), str(path)) for name, price in given.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise PlanError(f"{path} is not a JSON object of names and dollars") from None
    if unknown:
        raise PlanError(f"{path} has prices of what we do not use: {', '.join(sorted(unknown))}")
    return {**PRICES, **changed}


def check(workload: Workload) -> None:
    """
    Return, if this is a workload.

    Raises:
        PlanError: nothing comes, or a single object is larger than a bundle.
    """
    if workload.objects_per_day <= 0 or workload.object_size < 0:
        raise PlanError("the number of objects must be positive, and sizes must not be negative")
    if not 0 <= workload.duplicates < 1:
        raise PlanError("some of the objects must be new")
    if workload.object_size > workload.bundle_limit:
        raise PlanError("an object is larger than a bundle may be: raise MAX_BUNDLE_INPUT_MB")


def _bundle(seen: Seen, workload: Workload) -> tuple[float, float]:
    """Members of a bundle in the mean, and bundles for a batch: a batch with more than fits makes several."""
    fits = max(1, math.floor(workload.bundle_limit / workload.object_size)) if workload.object_size else math.inf
    made = (math.ceil(batch * workload.fresh / fits) for batch in seen.batches)
    bundles = sum(max(1, number) for number in made)  # of empty objects any number fits
    return seen.handled * workload.fresh / bundles, bundles / len(seen.batches)


def _lines(seen: Seen, workload: Workload, split: float, figures: Figures, prices: Dict[str, float]) -> list[Line]:
    million = 1e6 / seen.handled
    batches = len(seen.batches) * million
    bundles = batches * split
    parts = max(1, math.ceil(workload.object_size / _PART))
    deletes = sum(math.ceil(batch / 10) for batch in seen.batches) * million
    counted = (
        ("S3 GET of members", 1e6 * workload.fresh * parts, "requests", prices["s3_get"]),
        ("S3 PUT of bundles", bundles * (2 if workload.replicated else 1), "requests", prices["s3_put"]),
        ("SQS sent by S3", 1e6, "requests", prices["sqs_request"]),
        ("SQS receives", seen.receives * million, "requests", prices["sqs_request"]),
        ("SQS deletes", deletes, "requests", prices["sqs_request"]),
        (f"{_LEDGER} claims", 1e6 * _CLAIM_WRITES, _WRITES, prices["dynamodb_write_unit"]),
        (f"{_LEDGER} settle records", bundles, _WRITES, prices["dynamodb_write_unit"]),
        (f"{_LEDGER} reads", 1e6 * workload.duplicates * _DUPLICATE_READS, _READS, prices["dynamodb_read_unit"]),
        ("CloudWatch logs", batches * figures.log_bytes / 1e9, "GB", prices["logs_gb"]),
    )
    return [Line(what, amount, unit, amount * price) for what, amount, unit, price in counted]


def _provisioned(lines: list[Line], workload: Workload, prices: Dict[str, float]) -> Provisioned | None:
    """What the ledger costs by the hour."""
    writes, reads = (sum(line.amount for line in lines if line.unit == unit) / 1e6 for unit in (_WRITES, _READS))
    demand = Demand(writes, reads, workload.rate, workload.rate * workload.burst)
    hour = {"write_price": prices["dynamodb_write_unit_hour"], "read_price": prices["dynamodb_read_unit_hour"]}
    return provisioned(demand, **hour)


def _limits(seen: Seen, workload: Workload) -> list[Limit]:
    """What is needed at the peak, against what AWS gives by default."""
    peak = workload.rate * workload.burst
    writes = _CLAIM_WRITES * peak
    return [
        Limit("concurrent invocations", seen.most_running * workload.queues, 1_000, "Lambda quotas: account, region"),
        Limit("pollers of one queue", seen.most_pollers, 1_250, "Lambda guide: scaling, SQS"),
        Limit("messages in flight in one queue", seen.most_in_flight, IN_FLIGHT, "SQS quotas"),
        Limit("S3 GETs a second under one prefix", peak, 5_500, "S3 guide: performance"),
        Limit("S3 PUTs of producers a second under one prefix", peak, 3_500, "S3 guide: performance"),
        Limit("DynamoDB write units a second, new table", writes, 4_000, "DynamoDB guide: on-demand capacity"),
        Limit("DynamoDB write units a second, table quota", writes, 40_000, "DynamoDB quotas"),
    ]
