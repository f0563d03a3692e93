"""
What the ledger costs if its capacity is provisioned, by the hour, and not paid for by the write.

Auto scaling keeps what is provisioned at the use that `TARGET` says, but begins only after two minutes above it, and
takes some more (DynamoDB developer guide, "Managing throughput capacity automatically with DynamoDB auto scaling").
Bursts are over by then, so what is provisioned must hold their peak.
"""

from typing import NamedTuple

TARGET = 0.7
"""Share of what is provisioned that auto scaling keeps in use (`deploy/template.yaml`)."""

CAPACITIES = {1_000: 50, 4_000: 200, 10_000: 500, 40_000: 2_000}
"""Most and least units a second, of reads and of writes, by the template's parameter `LedgerCapacity`."""

_HOUR = 3_600


class Demand(NamedTuple):
    """What the ledger is asked for: units for each object, objects a second in the mean and at the peak."""

    write_units: float
    read_units: float
    rate: float
    peak: float


class Provisioned(NamedTuple):
    """The parameter `LedgerCapacity`, what is then provisioned, and the dollars for a million objects."""

    most: int
    write_units: float
    read_units: float
    dollars: float


def provisioned(demand: Demand, *, write_price: float, read_price: float) -> Provisioned | None:
    """The least that holds the peak, at prices of a unit for an hour; None, if that is more than a table may have."""
    needed = [demand.peak * units / TARGET for units in (demand.write_units, demand.read_units)]
    enough = [most for most in CAPACITIES if most >= max(needed)]
    if not enough:
        return None
    most = min(enough)
    writes, reads = (max(units, CAPACITIES[most]) for units in needed)
    a_second = (writes * write_price + reads * read_price) / _HOUR
    return Provisioned(most, writes, reads, a_second / demand.rate * 1e6)
