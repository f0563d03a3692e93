"""
Calls to AWS in the simulation: what they do there, what may become of them on the way, and the clients that make them.

A call has effects: one for each statement of a batch, one for a transaction or a put. It is attempted, by botocore up
to two times at DynamoDB and once at S3. Each effect of each attempt lands now, late or never; in the end the sender is
answered, hears nothing, or dies. Whatever can be composed of these may become of a call.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache, partial
from itertools import product
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, Protocol

from botocore.exceptions import ReadTimeoutError

from aggregator.pipeline import clients
from aggregator.pipeline.deadlines import Deadlines
from tests.support.sim_aws import Bucket, Item, Table, Write, answered, write_by, write_of


class Landing(Enum):
    """When an effect takes place."""

    NOW = "lands"
    LATE = "lands late"
    NEVER = "is lost"


class Ending(Enum):
    """What the sender of a call comes to know."""

    ANSWERED = "is answered"
    UNHEARD = "hears nothing"
    DEAD = "dies"
    THROTTLED = "is throttled"
    REFUSED = "is forbidden"
    BUSY = "is told SlowDown"
    FAILED = "is told InternalError"
    CONFLICT = "is told of a conflict"


_ERRORS = {
    Ending.THROTTLED: ("ThrottlingException", 400),
    Ending.REFUSED: ("AccessDenied", 403),
    Ending.BUSY: ("SlowDown", 503),
    Ending.FAILED: ("InternalError", 500),
    Ending.CONFLICT: ("ConditionalRequestConflict", 409),
}

Attempt = tuple[Landing, ...]
"""An attempt at a call, by the landing of each of its effects."""

Mar = tuple[str, Landing]
"""The error that one part of a call is answered with, and when that part lands all the same."""


class Fate(NamedTuple):
    """What becomes of a call; `mars` are of its parts, None where a part is well."""

    attempts: tuple[Attempt, ...]
    ending: Ending
    mars: tuple[Mar | None, ...] = ()

    def __str__(self) -> str:
        told = [" and ".join(landing.value for landing in attempt) for attempt in self.attempts]
        if self.ending is Ending.ANSWERED:
            told[-1] = ", ".join(f"{mar[0]}, which {mar[1].value}" if mar else "done" for mar in self.mars)
        return f"{self.ending.value} ({'; then '.join(filter(None, told))})"

    def error(self) -> Exception:
        """What its sender gets to see who is not answered."""
        if self.ending is Ending.UNHEARD:
            return ReadTimeoutError(endpoint_url="lost")
        error = answered(*_ERRORS[self.ending])
        error.response["ResponseMetadata"]["RetryAttempts"] = len(self.attempts) - 1
        return error


Kind = Literal["statements", "transaction", "settle", "put", "look up", "read"]
_MARS: dict[Kind, list[Mar]] = {
    "statements": [
        ("ThrottlingError", Landing.NEVER),
        ("TransactionConflict", Landing.NEVER),
        *(("InternalServerError", landing) for landing in Landing),
    ],
    "transaction": [("TransactionConflict", Landing.NEVER)],
    "look up": [("UnprocessedKeys", Landing.NEVER)],
}


@cache
def fates(kind: Kind, effects: int, parts: int) -> dict[str, list[Fate]]:
    """All that may become of a call but that it is answered at once and in full, by kinds of trouble."""
    lost, now = (Landing.NEVER,) * effects, (Landing.NOW,) * effects
    each = [lost] if kind in ("look up", "read") else list(product(Landing, repeat=effects))
    troubles = {
        "unheard": [Fate((landing,), Ending.UNHEARD) for landing in each],
        "dead": [Fate((landing,), Ending.DEAD) for landing in each],
        "failed": [Fate((landing,), Ending.FAILED) for landing in each],
    }
    if kind in _MARS:
        mars = list(product([None, *_MARS[kind]], repeat=parts))[1:]
        troubles["marred"] = [Fate((now,), Ending.ANSWERED, some) for some in mars]
    if kind == "put":
        troubles["busy"] = [Fate((landing,), Ending.BUSY) for landing in each]
        troubles["refused"] = [Fate((lost,), ending) for ending in (Ending.REFUSED, Ending.CONFLICT)]
    elif len(each) > 1:
        troubles["attempted again"] = [Fate((landing, now), Ending.ANSWERED) for landing in each]
        troubles["attempted in vain"] = [Fate((one, two), Ending.UNHEARD) for one in each for two in each]
        troubles["throttled"] = [Fate((lost,), Ending.THROTTLED)]
        troubles["throttled again"] = [Fate((landing, lost), Ending.THROTTLED) for landing in each]
    return troubles


Land = Callable[[Callable[[], Any], Landing], Any]
"""Lets an effect take place when it is to; what it answers, if that is now."""


class Call:
    """A call to AWS: what it is for the story, its effects, and what botocore asks before each attempt at it."""

    kind: Kind = "read"

    def __init__(self, what: str, effects: Sequence[Callable[[], Any]], ask: Callable[[], None]) -> None:
        self.what, self.effects, self.ask = what, effects, ask

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return self.kind not in ("look up", "read")

    @property
    def parts(self) -> int:
        """In how many parts it may be answered with an error."""
        return 1

    def answer(self, mars: Sequence[Mar | None], land: Land) -> Any:
        """Let it take place, and answer it."""
        del mars
        return land(self.effects[0], Landing.NOW)


class Settling(Call):
    kind = "settle"


class Putting(Call):
    kind = "put"


class Executing(Call):
    """A batch of statements: each succeeds or fails alone."""

    kind = "statements"

    @property
    def parts(self) -> int:
        return len(self.effects)

    def answer(self, mars: Sequence[Mar | None], land: Land) -> Any:
        responses = []
        for effect, mar in zip(self.effects, mars or [None] * self.parts, strict=True):
            response = land(effect, mar[1] if mar else Landing.NOW)
            responses.append({"Error": {"Code": mar[0]}} if mar else response)
        return {"Responses": responses}


class Transacting(Call):
    """A transaction: one effect, and if one of its parts is marred, it is cancelled."""

    kind = "transaction"

    def __init__(self, what: str, table: Table, writes: Sequence[Write], ask: Callable[[], None]) -> None:
        super().__init__(what, [partial(table.transact, writes)], ask)
        self._table, self._writes = table, writes

    @property
    def parts(self) -> int:
        return len(self._writes)

    def answer(self, mars: Sequence[Mar | None], land: Land) -> Any:
        if not any(mars):
            land(self.effects[0], Landing.NOW)
            return {}
        reasons = [
            {"Code": mar[0]} if mar else self._table.reason(write)
            for mar, write in zip(mars, self._writes, strict=True)
        ]
        raise answered("TransactionCanceledException", 400, CancellationReasons=reasons)


class LookingUp(Call):
    """Records read one after the other; those that are marred are left for the next time."""

    kind = "look up"

    def __init__(self, what: str, table: Table, keys: Sequence[Item], ask: Callable[[], None]) -> None:
        super().__init__(what, [partial(table.items.get, key["id"]["S"]) for key in keys], ask)
        self._keys = keys

    @property
    def parts(self) -> int:
        return len(self._keys)

    def answer(self, mars: Sequence[Mar | None], land: Land) -> Any:
        mars = mars or [None] * self.parts
        found = [land(effect, Landing.NOW) for effect, mar in zip(self.effects, mars, strict=True) if not mar]
        left = [key for key, mar in zip(self._keys, mars, strict=True) if mar]
        unprocessed = {"ledger": {"Keys": left, "ConsistentRead": True}} if left else {}
        return {"Responses": {"ledger": [item for item in found if item]}, "UnprocessedKeys": unprocessed}


class Caller(Protocol):
    """Who makes calls, and learns what became of them."""

    def call(self, call: Call) -> Any: ...


class DynamoDB:
    """The client that an invocation has of the table; `names` are what ids stand for."""

    def __init__(self, caller: Caller, table: Table, deadlines: Deadlines, names: Mapping[str, str]) -> None:
        self._caller, self._table, self._names = caller, table, names
        self.meta = SimpleNamespace(events=SimpleNamespace(register=lambda *_: None))
        timeout = deadlines.ledger_timeout
        config = SimpleNamespace(connect_timeout=timeout, read_timeout=timeout)
        self._ask = partial(clients._in_time, deadlines, config, request=SimpleNamespace(body=b""))

    def batch_execute_statement(self, *, Statements: list[Any]) -> Any:  # noqa: N803
        writes = [write_by(statement) for statement in Statements]
        effects = [partial(self._table.execute, write) for write in writes]
        return self._caller.call(Executing(self._told(writes), effects, self._ask))

    def transact_write_items(self, *, TransactItems: list[Any], ClientRequestToken: str) -> Any:  # noqa: N803
        del ClientRequestToken
        writes = [write_of(put["Put"]) for put in TransactItems]
        return self._caller.call(Transacting(self._told(writes), self._table, writes, self._ask))

    def put_item(self, *, TableName: str, Item: Item) -> Any:  # noqa: N803
        del TableName
        what = f"settles {short(Item['id']['S'])}"
        return self._caller.call(Settling(what, [partial(self._table.put, Item)], self._ask))

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> Any:  # noqa: N803
        keys = RequestItems["ledger"]["Keys"]
        what = f"looks up {', '.join(self._name(key['id']['S']) for key in keys)}"
        return self._caller.call(LookingUp(what, self._table, keys, self._ask))

    def _told(self, writes: Sequence[Write]) -> str:
        told = []
        for write in writes:
            ((verb, bundle), *_) = json.loads(write.sets["data"]["S"]).items()
            over = "" if write.expects is None else " over what it saw"
            told.append(f"{_VERBS[verb]} {self._name(write.id)} for {short(bundle)}{over}")
        return ", ".join(told)

    def _name(self, id_: str) -> str:
        return self._names.get(id_.removeprefix("distribution#"), short(id_))


class S3:
    """The client that an invocation has of the distribution bucket."""

    def __init__(self, caller: Caller, bucket: Bucket, deadlines: Deadlines) -> None:
        self._caller, self._bucket, self._deadlines = caller, bucket, deadlines
        timeout = deadlines.put_timeout
        self._config = SimpleNamespace(connect_timeout=timeout, read_timeout=timeout)

    def put_object(self, *, Key: str, Body: Any, IfNoneMatch: str = "", **_: Any) -> Any:  # noqa: N803
        fence = isinstance(Body, bytes)
        body = Body if fence else Body.read()
        what = f"{'fences' if fence else 'puts'} {short(Key)}"
        effect = partial(self._bucket.put if IfNoneMatch == "*" else self._bucket.overwrite, Key, body)
        return self._caller.call(Putting(what, [effect], self._ask_before_a_put))

    def list_object_versions(self, *, Bucket: str, Prefix: str) -> Any:  # noqa: N803
        del Bucket
        return self._caller.call(Call(f"looks for {short(Prefix)}", [partial(self._bucket.listed, Prefix)], self._ask))

    def get_object(self, *, Key: str, VersionId: str, Range: str, **_: Any) -> Any:  # noqa: N803
        first, last = (int(bound) for bound in Range.removeprefix("bytes=").split("-"))
        effect = partial(self._bucket.read, Key, VersionId, first, last)
        return self._caller.call(Call(f"reads {short(Key)}", [effect], self._ask))

    def _ask(self) -> None:
        clients._in_time(self._deadlines, self._config, request=SimpleNamespace(body=b""))

    def _ask_before_a_put(self) -> None:
        self._ask()
        clients._not_lapsed(self._deadlines)


_VERBS = {"bundle": "claims", "released": "releases"}


def short(key: str) -> str:
    """A bundle's key, as far as the story needs it."""
    return key.removesuffix(".gz")[-4:]
