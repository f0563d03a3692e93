"""
How late an answer is: each call the same, or as S3 is late.

    delays = s3()
    next(delays)    # seconds

Half of S3's calls take 15 ms or less, one in a hundred 120 ms or more, and one in a thousand over a second. All but the
last follow a log-normal distribution. The numbers are seeded, so each run meets the same ones in the same order.
"""

import math
import random
from collections.abc import Iterator
from itertools import repeat

MEDIAN, NINETY_NINTH = 0.015, 0.120
"""Seconds."""

SLOW = 1.0
"""Seconds that a slow call takes at least."""

_ONE_IN = 1_000
_SLOWEST = 1.2
_SIGMA = math.log(NINETY_NINTH / MEDIAN) / 2.3263
"""Of the normal distribution, whose 99th percentile is 2.3263 deviations above its median."""

_SEED = 20_261_128


def even(milliseconds: float) -> Iterator[float]:
    """Every call is late by as much."""
    return repeat(milliseconds / 1000)


def s3() -> Iterator[float]:
    """Seconds by which one call after the other is late: one of each thousand is slow, at a place that is random."""
    chance = random.Random(_SEED)
    while True:
        slow = chance.randrange(_ONE_IN)
        for at in range(_ONE_IN):
            if at == slow:
                yield chance.uniform(SLOW, _SLOWEST)
            else:
                yield min(chance.lognormvariate(math.log(MEDIAN), _SIGMA), SLOW - 0.001)
