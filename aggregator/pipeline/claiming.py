"""
The claims of one bundle: requested batch by batch, a few ahead of what is being read, and no more.

    plan ──batches──▶ claimers ──claims──▶ readers take what is ours, whoever gathers takes all at the end

What is claimed too far ahead would have to be given back when the bundle is full.
"""

import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future

from aggregator.aws import batches
from aggregator.exceptions import OutOfTimeError
from aggregator.pipeline.ledger import Claims, Ledger
from aggregator.pipeline.planning import Plan, Wanted

CLAIMERS = 8
"""Requests for claims under way at once."""


class Claiming:
    """
    The claims of one bundle, request by request: a few are ahead of what is being read, and no more.

    What is `owned` is asked for by the readers, one at a time; `claims` when they are done.
    """

    def __init__(self, plan: Plan, ledger: Ledger, *, enough: Callable[[], bool], until: float) -> None:
        self._plan, self._ledger, self._enough, self._until = plan, ledger, enough, until
        self._requests: list[Future[Claims]] = []

    def owned(self, claimers: Executor) -> Generator[Wanted, None, None]:
        """The objects that are ours, as soon as they are."""
        ahead: deque[Future[Claims]] = deque()
        for batch in batches(self._plan.wanted, self._ledger.most_claims):
            ahead.append(claimers.submit(self._claim, batch))
            self._requests.append(ahead[-1])
            if len(ahead) > CLAIMERS:
                yield from (claim.wanted for claim in ahead.popleft().result().owned)
        while ahead:
            yield from (claim.wanted for claim in ahead.popleft().result().owned)

    def claims(self) -> Claims:
        """
        All that was claimed; nothing is known of a request that ended in an unexpected error.

        Its claims may stand, and name a bundle without their objects. So that bundle must not be put: `owned` raises
        the error, and the readers ask it until it ends, also when the bundle is full. Its claims lapse.
        """
        whole = Claims([], [], {})
        for request in self._requests:
            if request.exception() is None:
                claims = request.result()
                whole.owned.extend(claims.owned)
                whole.in_doubt.extend(claims.in_doubt)
                whole.outcomes.update(claims.outcomes)
        return whole

    def _claim(self, wanted: Sequence[Wanted]) -> Claims:
        if self._enough():
            return Claims([], [], {})
        if time.monotonic() > self._until:
            late = OutOfTimeError("invocation ends before the object can be claimed")
            return Claims([], [], dict.fromkeys((one.id for one in wanted), late))
        return self._ledger.claim(wanted, self._plan.bundle)
