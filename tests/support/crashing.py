"""Invocations that are killed at a call, and writes that land late."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from aggregator.pipeline.deadlines import Deadlines
from tests.support.faults import Call, Killed, Plan
from tests.support.world import World

WRITES = {"statements": "BatchExecuteStatement", "transactions": "TransactWriteItems"}

OBJECTS = {f"{at}": f"content of {at}\n".encode() for at in range(5)}
ONCE = {key: [body] for key, body in OBJECTS.items()}


def last(patch: pytest.MonkeyPatch, operation: str, when: str, error: Exception | None) -> Plan:
    """From this call on, which ends with `error`, there is no time for any other."""

    def plan(call: Call) -> Exception | None:
        if (call.operation, call.when) != (operation, when):
            return None
        patch.setattr(Deadlines, "allows", lambda *_: False)
        return error

    return plan


def run_and_kill(world: World, keys: Iterable[str]) -> bool:
    try:
        world.deliver(keys)
    except Killed:
        return True
    return False


def writes_in(call: Call) -> int:
    request = json.loads(call.parameters["body"])
    return len(request.get("TransactItems") or request["Statements"])


def land(world: World, call: Call) -> bool:
    """Let a request arrive late; whether what it writes took effect."""
    request = json.loads(call.parameters["body"])
    if call.operation == "BatchExecuteStatement":
        answer: Any = world.dynamodb.batch_execute_statement(**request)
        return not any("Error" in response for response in answer["Responses"])
    try:
        world.dynamodb.transact_write_items(**request)
    except world.dynamodb.exceptions.TransactionCanceledException:
        return False
    return True
