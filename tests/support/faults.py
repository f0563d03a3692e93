"""
Faults at the seams: what may happen before and after each boto3 call that the handler makes.

    with faults(monkeypatch, lambda call: Killed() if call.is_after("PutObject") else None):
        world.deliver("a")
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from aggregator.pipeline.clients import Clients
from aggregator.pipeline.deadlines import Deadlines

LOST = ReadTimeoutError(endpoint_url="lost")
"""The connection ends without an answer."""


class Killed(BaseException):
    """The process dies here: nothing catches this, as nothing survives SIGKILL."""


@dataclass(frozen=True)
class Call:
    """A boto3 call, its number in the invocation, and whether it is about to be made or has taken effect."""

    number: int
    operation: str
    when: Literal["before", "after"]
    parameters: Any

    def is_before(self, operation: str) -> bool:
        """Whether the call is about to be made."""
        return (self.operation, self.when) == (operation, "before")

    def is_after(self, operation: str) -> bool:
        """Whether the call has taken effect, and its answer is on its way."""
        return (self.operation, self.when) == (operation, "after")


Plan = Callable[[Call], BaseException | None]
"""Says how a call is to end, if not by itself."""


@contextmanager
def faults(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> Iterator[list[Call]]:
    """Let `plan` say of every call in the block how it ends; what was called."""
    calls: list[Call] = []
    build = Clients.build

    def built(deadlines: Deadlines) -> Clients:
        clients = build(deadlines)
        for client in (clients.s3, clients.dynamodb):
            _watch(client, plan, calls)
        return clients

    with monkeypatch.context() as patch:
        patch.setattr(Clients, "build", built)
        yield calls
    LOST.__traceback__ = LOST.__context__ = None  # it would keep all that the invocation worked with


def answered(status: int, code: str, *, retries: int = 0) -> ClientError:
    """The error of a call that AWS has answered."""
    answer: Any = {
        "Error": {"Code": code, "Message": ""},
        "ResponseMetadata": {"HTTPStatusCode": status, "RetryAttempts": retries},
    }
    return ClientError(answer, "Operation")


def _watch(client: Any, plan: Plan, calls: list[Call]) -> None:
    def before(model: Any, params: Any, **_: Any) -> None:
        call = Call(len(calls), model.name, "before", params)
        calls.append(call)
        _end(plan(call))

    def after(model: Any, **_: Any) -> None:
        _end(plan(Call(len(calls) - 1, model.name, "after", None)))

    client.meta.events.register("before-call", before)
    client.meta.events.register("after-call", after)


def _end(error: BaseException | None) -> None:
    if error is not None:
        raise error
