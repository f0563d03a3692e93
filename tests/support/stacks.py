"""What the doctor says of a stack."""

import time

from aggregator.operations.doctor import facts_from_aws as deployment
from aggregator.operations.doctor import places
from aggregator.operations.doctor.checks import Finding, diagnose
from tests.support.stack import Stack


def findings_of(stack: Stack, *, probe: bool = True) -> list[Finding]:
    return diagnose(deployment.facts(places.of_stack(stack.name), probe=probe, now=time.time))
