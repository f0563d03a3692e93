"""
Seeded histories of several invocations on a fake AWS and a fake clock, in one process.

Each invocation runs the product's own `aggregate`, in a thread that moves only when the scheduler lets it. It stops at
every call to DynamoDB or to the distribution bucket, and the scheduler decides who goes on, how the call ends, and what
else happens in between. A call may be answered, refused, throttled or lost; its sender may die before or after it took
effect; and what was sent may land seconds after its sender gave up or died. A history is judged when every message is
acknowledged: each source lies in exactly one published bundle, among all versions ever put.

    python -m tests.simulation 4711        # tells the story of seed 4711
"""

import io
import json
import random
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from botocore.exceptions import ClientError, ReadTimeoutError

from aggregator import bundling, clients, records
from aggregator.bundling import Gathered, Work, aggregate
from aggregator.clients import Distribution
from aggregator.core import Source
from aggregator.exceptions import MissingObjectError
from aggregator.ledger import Ledger
from aggregator.planning import Outcome, Timetable
from aggregator.reader import Bundle
from aggregator.schemas import Member
from aggregator.sources import Arrival, Reading

FUNCTION_SECONDS = 60.0
VISIBILITY = 6 * FUNCTION_SECONDS
SOON, LATE = 5.0, 900.0
"""
Seconds within which lands what was sent. Where consumers delete whatever appears, empty bundles too, it lands soon:
before any claim of its sender lapses. Where they leave empty bundles alone, it may land ever so late, and a machine may
be suspended in the middle of an invocation.
"""

SKEW = 2.0
"""Most seconds by which the clock of an invocation is wrong."""

TTL = 86_400
MOST_STEPS = 3_000


class Died(BaseException):
    """The invocation is killed here."""


class Message(NamedTuple):
    """A message on the queue; several may announce one object."""

    id: str
    member: Member


class Late(NamedTuple):
    """A write on its way: when it lands, whose it is, and what it does."""

    at: float
    what: str
    land: Callable[[], object]


class Table:
    """DynamoDB, as far as the ledger uses it: one table, strongly consistent, transactions all or nothing."""

    def __init__(self, world: "History") -> None:
        self.items: dict[str, dict[str, Any]] = {}
        self._world = world

    def transact_write_items(self, puts: list[dict[str, Any]]) -> None:
        """Write all, or raise with a reason for each."""
        reasons = [self._reason(put["Put"]) for put in puts]
        if any(reason["Code"] != "None" for reason in reasons):
            raise _answered("TransactionCanceledException", 400, CancellationReasons=reasons)
        for put in puts:
            self.put_item(put["Put"]["Item"])

    def put_item(self, item: dict[str, Any]) -> None:
        """Write one."""
        self.items[item["id"]["S"]] = item

    def batch_get_item(self, keys: list[dict[str, Any]]) -> dict[str, Any]:
        """Read some."""
        found = [self.items[key["id"]["S"]] for key in keys if key["id"]["S"] in self.items]
        return {"Responses": {"ledger": found}}

    def expire(self) -> None:
        """Delete what its TTL allows, as DynamoDB does some time or other."""
        now = self._world.now
        self.items = {id_: item for id_, item in self.items.items() if int(item["expiration"]["N"]) >= now}

    def _reason(self, put: dict[str, Any]) -> dict[str, Any]:
        item = self.items.get(put["Item"]["id"]["S"])
        if _holds(put["ConditionExpression"], put, item):
            return {"Code": "None"}
        return {"Code": "ConditionalCheckFailed", **({"Item": item} if item else {})}


class Bucket:
    """The distribution bucket, versioned: what was put under a key, newest last; None is a delete marker."""

    def __init__(self) -> None:
        self.versions: dict[str, list[bytes | None]] = {}

    def put_object(self, key: str, body: bytes) -> None:
        """Put, if the newest version is none or a delete marker."""
        versions = self.versions.setdefault(key, [])
        if versions and versions[-1] is not None:
            raise _answered("PreconditionFailed", 412)
        versions.append(body)

    def delete_object(self, key: str) -> None:
        """What a consumer does who is done with a bundle."""
        if self.versions[key][-1] is not None:
            self.versions[key].append(None)

    def list_object_versions(self, key: str) -> dict[str, Any]:
        """All versions that have content."""
        versions = self.versions.get(key, [])
        return {
            "Versions": [
                {"Key": key, "VersionId": str(at), "Size": len(body), "IsLatest": at == len(versions) - 1}
                for at, body in enumerate(versions)
                if body is not None
            ]
        }

    def bundles(self) -> Iterator[Bundle]:
        """Every bundle ever put that has members."""
        for versions in self.versions.values():
            for body in versions:
                if body is not None and len(bundle := Bundle.open(io.BytesIO(body))):
                    yield bundle


class History:
    """One seed: its queue, its AWS, its clock, its story."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 1_795_000_000.0
        self.story: list[str] = []
        self.table, self.bucket = Table(self), Bucket()
        self.late: list[Late] = []
        self.sources = {f"{at}": b"x" * self.random.choice([1, 20, 40]) for at in range(self.random.randint(1, 6))}
        copies = [key for key in self.sources for _ in range(self.random.choice([1, 1, 1, 2, 3]))]
        self.waiting = {
            Message(
                f"m{at}", Member("source", key, self.random.choice([None, len(self.sources[key])]), "tag")
            ): self.now
            for at, key in enumerate(copies)
        }
        self.running: list[Invocation] = []
        self.latest = self.random.choice([SOON, LATE])
        self.trouble = self.random.choice([0.0, 0.05, 0.15, 0.3])
        self.calm = False
        if self.random.random() < 0.3:
            self._remember()

    def _remember(self) -> None:
        """Of some members there are records of long ago, which the TTL may delete in the middle of what happens."""
        old = Ledger(
            cast("Any", SimpleNamespace(meta=None)),
            Distribution(cast("Any", None), "distribution"),
            table="ledger",
            scope="key",
            ttl=TTL,
            request_id="old",
            remaining=0,
            deciding=0,
            clock=lambda: self.now - TTL,
        )
        for member in dict.fromkeys(message.member for message in self.waiting):
            said = self.random.choice([None, {"released": "old"}, {"bundle": f"old-{member.key}", "etag": "tag"}])
            if said:
                expires = int(self.now) + self.random.choice([0, 1, 2, 3, 5, 20, 400])
                put = old.put(old.identity(member), json.dumps(said), int((self.now - TTL) * 1000), "", {})
                put["Put"]["Item"]["expiration"] = {"N": str(expires)}
                self.table.put_item(put["Put"]["Item"])
                self.tell(f"of {member.key} there is a record until {expires - 1_795_000_000}: {said}")

    def tell(self, what: str) -> None:
        """Add a line to the story."""
        self.story.append(f"{self.now - 1_795_000_000:9.2f}  {what}")

    def run(self) -> Counter[str]:
        """Let it happen, until every message is acknowledged; how often each source was published."""
        for step in range(MOST_STEPS):
            self.calm = step > MOST_STEPS // 2
            if not self.waiting and not self.running:
                break
            self._step()
        for late in self.late:
            self._land(late)
        published = Counter(entry.key for bundle in self.bucket.bundles() for entry in bundle)
        if self.waiting or self.running:
            published["never acknowledged"] = len(self.waiting)
        return published

    def _step(self) -> None:
        """One thing happens: something late lands, a consumer or the TTL deletes, a batch begins, or a call is made."""
        for late in [late for late in self.late if late.at <= self.now]:
            self.late.remove(late)
            self._land(late)
        if self.random.random() < 0.05:
            self._consume()
        if self.random.random() < 0.2:
            self.table.expire()
        due = [message for message, at in self.waiting.items() if at <= self.now]
        if due and len(self.running) < 3 and self.random.random() < 0.3:
            self._begin(due)
        elif self.running:
            self.random.choice(self.running).go_on()
            self.now += self.random.choice([0.001, 0.01, 0.1, 1.0] * 10 + [30.0])
        else:
            moments = [*self.waiting.values(), *(late.at for late in self.late)]
            self.now = max(self.now + 0.01, min(moments, default=self.now)) + self.random.random()

    def _begin(self, due: list[Message]) -> None:
        batch = self.random.sample(due, self.random.randint(1, len(due)))
        for message in batch:
            soon = self.random.random() < 0.1  # SQS may deliver a message twice at once
            self.waiting[message] = self.now + (self.random.random() * 20 if soon else VISIBILITY)
        invocation = Invocation(self, f"request-{len(self.story)}", batch)
        self.tell(
            f"{invocation.name} begins with {', '.join(f'{message.id}={message.member.key}' for message in batch)}"
        )
        self.running.append(invocation)

    def _land(self, late: Late) -> None:
        try:
            late.land()
            self.tell(f"late: {late.what}")
        except ClientError as error:
            self.tell(f"late and refused ({error.response['Error']['Code']}): {late.what}")

    def _consume(self) -> None:
        keys = [
            key
            for key, versions in self.bucket.versions.items()
            if versions[-1] is not None and (self.latest == SOON or len(Bundle.open(io.BytesIO(versions[-1]))))
        ]
        if keys:
            key = self.random.choice(keys)
            self.bucket.delete_object(key)
            self.tell(f"a consumer deletes {key[-8:]}")


class Invocation:
    """One invocation, in a thread that waits for its turn at every call."""

    def __init__(self, history: History, name: str, batch: list[Message]) -> None:
        self.history, self.name, self.batch = history, name, batch
        self.ends = history.now + FUNCTION_SECONDS
        self._turn, self._yielded = threading.Semaphore(0), threading.Semaphore(0)
        self._done = False
        self._slept = 0.0
        skew = history.random.uniform(-SKEW, SKEW)
        self._clock = lambda: history.now + skew
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def go_on(self) -> None:
        """Let it run up to its next call, or to its end."""
        self._turn.release()
        self._yielded.acquire()
        if self._done:
            self._thread.join()
            self.history.running.remove(self)

    def call(self, what: str, do: Callable[[], Any], *, writes: bool) -> Any:
        """Make a call to AWS: who goes on first, and how it ends, is the history's choice."""
        self._yielded.release()
        self._turn.acquire()
        history, chance = self.history, self.history.random
        if history.latest == LATE and chance.random() < history.trouble / 10 and not history.calm:
            self._sleep(chance.choice([20.0, 80.0, 400.0, 1500.0]), what)
        if self.monotonic() > self.ends + 0.7:
            history.tell(f"{self.name} is killed by its time-out before {what}")
            raise Died
        fault = chance.random() >= history.trouble or history.calm
        how = (
            "answered"
            if fault
            else chance.choice(["dies before", "dies after", "lost", "lost after", "late", "dies late", "503"])
        )
        if how == "answered":
            return self._answer(what, do)
        history.tell(f"{self.name} {how}: {what}")
        if how in ("late", "dies late") and writes:
            history.late.append(Late(history.now + chance.uniform(0, history.latest), f"{self.name} {what}", do))
        if how in ("dies after", "lost after"):
            self._quietly(do)
        if how.startswith("dies"):
            raise Died
        if how == "503":
            raise _answered("SlowDown", 503)
        raise ReadTimeoutError(endpoint_url="lost")

    def monotonic(self) -> float:
        """Its clock that stands still while its machine is suspended."""
        return self.history.now - self._slept

    def _sleep(self, seconds: float, what: str) -> None:
        """Its machine is suspended; others go on."""
        begun = self.history.now
        self.history.tell(f"{self.name} sleeps for {seconds} seconds before {what}")
        while self.history.now < begun + seconds:
            self._yielded.release()
            self._turn.acquire()
        self._slept += self.history.now - begun

    def _answer(self, what: str, do: Callable[[], Any]) -> Any:
        try:
            answer = do()
        except ClientError as error:
            self.history.tell(f"{self.name} refused ({error.response['Error']['Code']}): {what}")
            raise
        self.history.tell(f"{self.name} {what}")
        return answer

    def _quietly(self, do: Callable[[], Any]) -> None:
        try:
            do()
        except ClientError as error:
            self.history.tell(f"{self.name} unheard ({error.response['Error']['Code']})")

    def _live(self) -> None:
        self._turn.acquire()
        _LIVES[threading.current_thread()] = self
        try:
            ledger, work = self._work()
            result = aggregate([message.member for message in self.batch], work)
            for message in self.batch:
                outcome = result.outcomes[ledger.identity(message.member)]
                if isinstance(outcome, Outcome):
                    self.history.waiting.pop(message, None)
            said = {message.id: _short(result.outcomes[ledger.identity(message.member)]) for message in self.batch}
            self.history.tell(f"{self.name} ends: {said}")
        except Died:
            pass
        finally:
            del _LIVES[threading.current_thread()]
            self._done = True
            self._yielded.release()

    def _work(self) -> tuple[Ledger, Work]:
        timetable = Timetable.of(self.monotonic(), FUNCTION_SECONDS, 1)
        distribution = Distribution(cast("Any", _S3(self)), "distribution")
        ledger = Ledger(
            cast("Any", _DynamoDB(self)),
            distribution,
            table="ledger",
            scope="key",
            ttl=TTL,
            request_id=self.name,
            remaining=FUNCTION_SECONDS,
            deciding=FUNCTION_SECONDS,
            clock=self._clock,
        )
        settings = SimpleNamespace(max_bundle_input=100, compression_level=1, bundle_framing="lines")
        sources = _Sources(self)
        work = Work(cast("Any", settings), self.name, timetable, cast("Any", sources), distribution, ledger, Inline())
        return ledger, work


class Inline(Executor):
    """Does at once, in the caller's thread, what it is given."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def submit(self, do: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it; the answer is there, or its error."""
        future: Future[Any] = Future()
        try:
            future.set_result(do(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Deferred(Executor):
    """Publishes a bundle when its answer is asked for: what was begun before goes on first."""

    def __init__(self) -> None:
        self._bundles: list[Gathered] = []

    def submit(self, do: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it when the answer is asked for."""
        self._bundles.append(args[0])

        class Later(Future[Any]):
            def result(self, timeout: float | None = None) -> Any:
                del timeout
                return do(*args, **kwargs)

        return Later()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """What a process leaves open when it dies, the system closes."""
        del wait, cancel_futures
        for bundle in self._bundles:
            bundle.spool.close()


class _DynamoDB:
    """The client that an invocation has of the table."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation, self._table = invocation, invocation.history.table
        self.meta = SimpleNamespace(events=SimpleNamespace(register=lambda *_: None))

    def transact_write_items(self, *, TransactItems: list[Any], ClientRequestToken: str) -> None:  # noqa: N803
        del ClientRequestToken
        chance, history = self._invocation.history.random, self._invocation.history
        names = ", ".join(put["Put"]["Item"]["data"]["S"][-30:] for put in TransactItems)
        if chance.random() < history.trouble and not history.calm:
            self._invocation.call("conflict", lambda: None, writes=False)
            reasons = [{"Code": "TransactionConflict"} for _ in TransactItems]
            raise _answered("TransactionCanceledException", 400, CancellationReasons=reasons)
        self._invocation.call(
            f"writes {len(TransactItems)}: {names}",
            lambda: self._table.transact_write_items(TransactItems),
            writes=True,
        )

    def put_item(self, *, TableName: str, Item: dict[str, Any]) -> None:  # noqa: N803
        del TableName
        self._invocation.call(f"settles {Item['id']['S'][-8:]}", lambda: self._table.put_item(Item), writes=True)

    def batch_get_item(self, *, RequestItems: dict[str, Any]) -> Any:  # noqa: N803
        keys = RequestItems["ledger"]["Keys"]
        return self._invocation.call("asks what is settled", lambda: self._table.batch_get_item(keys), writes=False)


class _S3:
    """The client that an invocation has of the distribution bucket."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation, self._bucket = invocation, invocation.history.bucket

    def put_object(self, *, Key: str, Body: Any, **_: Any) -> None:  # noqa: N803
        body = Body if isinstance(Body, bytes) else Body.read()
        what = f"closes {Key[-8:]}" if isinstance(Body, bytes) else f"puts {Key[-8:]}"
        self._invocation.call(what, lambda: self._bucket.put_object(Key, body), writes=True)

    def list_object_versions(self, *, Bucket: str, Prefix: str) -> Any:  # noqa: N803
        del Bucket
        return self._invocation.call(
            f"looks for {Prefix[-8:]}", lambda: self._bucket.list_object_versions(Prefix), writes=False
        )

    def get_object(self, *, Key: str, VersionId: str, Range: str, **_: Any) -> Any:  # noqa: N803
        first, last = (int(bound) for bound in Range.removeprefix("bytes=").split("-"))
        body = cast("bytes", self._bucket.versions[Key][int(VersionId)])[first : last + 1]
        return self._invocation.call(f"reads {Key[-8:]}", lambda: {"Body": io.BytesIO(body)}, writes=False)


class _Sources:
    """Reads sources at once; now and then one cannot be read this time."""

    def __init__(self, invocation: Invocation) -> None:
        self._invocation = invocation

    def read_ahead(self, members: Iterator[Member], stop: threading.Event) -> Iterator[Arrival]:
        """Read one after the other."""
        del stop
        history = self._invocation.history
        for member in members:
            body = history.sources[member.key]
            if history.random.random() < history.trouble and not history.calm:
                yield Arrival(member, MissingObjectError("object is not there"))
            else:
                yield Arrival(member, Reading(Source(member, len(body), "tag"), iter((body,))))


def simulate(seed: int) -> tuple[bool, History]:
    """Let the history of `seed` happen; whether each source was published once, and the history."""
    history = History(seed)
    published = history.run()
    return published == Counter(dict.fromkeys(history.sources, 1)), history


def prepare(setattr_: Callable[[Any, str, Any], object]) -> None:
    """Put the fake clock and the inline threads under the product, by `setattr_(module, name, value)`."""
    clock = SimpleNamespace(monotonic=lambda: _current().monotonic(), time=lambda: _current().history.now)
    setattr_(bundling, "time", clock)
    setattr_(bundling, "ThreadPoolExecutor", _executor)
    setattr_(records, "_pause", lambda _: None)
    setattr_(bundling, "MOST_CLAIMS", 2)
    setattr_(bundling, "token_hex", lambda _: f"{_current().history.random.getrandbits(32):08x}")
    setattr_(clients, "time", SimpleNamespace(sleep=lambda _: None))


def _executor(_: int, thread_name_prefix: str) -> Executor:
    """A bundle is put before the next one is gathered, or after it: a real one is put meanwhile."""
    if thread_name_prefix == "publish" and _current().history.random.random() < 0.5:
        return Deferred()
    return Inline()


def _current() -> Invocation:
    return _LIVES[threading.current_thread()]


_LIVES: dict[threading.Thread, Invocation] = {}


def _answered(code: str, status: int, **more: Any) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}, **more}
    return ClientError(answer, "Operation")


def _holds(condition: str, put: dict[str, Any], item: dict[str, Any] | None) -> bool:
    """Whether a condition of the ledger holds: its own small language, read by nobody else."""
    names, values = put["ExpressionAttributeNames"], put["ExpressionAttributeValues"]

    def attribute(name: str) -> Any:
        return next(iter((item or {}).get(names.get(name, ""), {"": None}).values()))

    def value(name: str) -> Any:
        return next(iter(values[name].values()))

    text = re.sub(r"attribute_not_exists\((#\w+)\)", lambda found: str(attribute(found[1]) is None), condition)
    text = re.sub(r"(#\w+) = (:\w+)", lambda found: str(attribute(found[1]) == value(found[2])), text)
    text = re.sub(
        r"(#\w+) < (:\w+)",
        lambda found: str(item is not None and int(attribute(found[1])) < int(value(found[2]))),
        text,
    )
    if not re.fullmatch(r"(True|False|AND|OR|[() ])+", text):
        raise AssertionError(f"the simulation does not know this condition: {condition}")
    return bool(eval(text.replace("AND", "and").replace("OR", "or")))


def _short(outcome: Outcome | Exception) -> str:
    return outcome.value if isinstance(outcome, Outcome) else getattr(outcome, "reason", type(outcome).__name__)


if __name__ == "__main__":
    prepare(setattr)
    fine, told = simulate(int(sys.argv[1]))
    sys.stdout.write("\n".join([*told.story, "once each" if fine else "WRONG", ""]))
