"""
Who is working on a member, and which bundles are published.

A claim names the bundle its member is meant for; one settle record per bundle decides all its claims.

    absent ──claim──▶ claimed ──settle──▶ settled
                       │   ▲
                 release   claim          a lapsed claim is decided by its bundle
                       ▼   │
                      released

The put of the bundle is the commit: a crash before it costs a repeat, a crash after it costs nothing. DynamoDB only
remembers. What holds it together (docs/decisions/0001):

- A claim's bundle is unique to one attempt, so it is also the token of ownership: nothing is changed but on condition
  that it is still ours, or still what we decided about.
- A claim whose answer was lost may yet land. So a release never deletes, it overwrites: the late claim then finds its
  member taken, and a bundle is only put when every claim that is not in it has provably been released.
- A lapsed claim is taken over only after its bundle was decided: found published, or its name closed for good.

`records.py` says how the records lie in the table. POWERTOOLS_IDEMPOTENCY_DISABLED switches the ledger off.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import structlog
from botocore.exceptions import BotoCoreError, ClientError

from aggregator.clients import Distribution, error_code
from aggregator.core import empty_bundle
from aggregator.exceptions import (
    AggregatorError,
    BundleFormatError,
    InFlightError,
    LedgerUnavailableError,
    OutOfTimeError,
    StoreUnavailableError,
)
from aggregator.planning import Outcome, runs
from aggregator.records import Record, Records
from aggregator.schemas import BundleIndex, Member
from aggregator.settings import SECONDS_PER_DAY, switched_off

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

GRACE = 10
"""Seconds that a claim outlives its invocation: Lambda has been seen to kill 0.7 s late (powertools-lambda-python
issue 4759), and what a dead invocation sent just before may land a little later still."""

MOST_CLAIMS = 100
"""Most writes in one transaction (DynamoDB API reference, TransactWriteItems)."""

MOST_REFUSALS = 25
"""Most puts in one batch (DynamoDB API reference, BatchWriteItem)."""

MOST_LOOKED_UP = 100
"""Most records read at once (DynamoDB API reference, BatchGetItem)."""

_ROUNDS = 4

log = structlog.get_logger()


class Claim(NamedTuple):
    """A claim of ours: the member, the id of its record, the bundle, what we write, and what that is to replace."""

    member: Member
    id: str
    bundle: str
    data: str
    replaces: Record | None


class Claims(NamedTuple):
    """
    What became of an attempt to claim some members.

    `owned` are ours; `unsure` may be ours, because the answer was lost; `outcomes` says of all but ours why not.
    """

    owned: list[Claim]
    unsure: list[Claim]
    outcomes: dict[str, Outcome | AggregatorError]


class Refusal(NamedTuple):
    """Why an envelope was rejected, for those who find it in the dead-letter queue."""

    message_id: str
    reason: str
    message: str
    members: tuple[Member, ...]


class Ledger(Records):
    """
    The ledger of one invocation, on one DynamoDB table.

    `prefix` keeps apart what shares a table; we use the distribution bucket, so that a member is bundled once for each.
    """

    def __init__(
        self,
        client: "DynamoDBClient",
        distribution: Distribution,
        *,
        table: str,
        scope: Literal["key", "version"],
        ttl: int,
        request_id: str,
        remaining: float,
        deciding: float,
        clock: Callable[[], float],
    ) -> None:
        """
        Take down what the invocation has to go by.

        Seconds are `ttl`, `remaining` (what is left to the invocation) and `deciding` (what is left to look after the
        claims of others); `clock` tells the seconds since the epoch.
        """
        super().__init__(client, table=table, prefix=distribution.bucket, ttl=ttl, clock=clock)
        self._distribution, self._scope, self._request_id = distribution, scope, request_id
        self._deadline = int((clock() + remaining + GRACE) * 1000)
        self._decide_until = clock() + deciding
        self._ids: dict[Member, str] = {}
        self._decisions: dict[str, frozenset[str] | AggregatorError] = {}
        self._disabled = switched_off(os.environ, "POWERTOOLS_IDEMPOTENCY_DISABLED")

    @property
    def lapsed(self) -> bool:
        """Whether our own claims have lapsed: the process, or its whole machine, has been asleep."""
        return self._clock() * 1000 > self._deadline

    def identity(self, member: Member) -> str:
        """Id of the record of `member`: members with the same id are the same member, and are bundled once."""
        known = self._ids.get(member)
        if known is None:
            data: dict[str, Any] = {"bucket": member.bucket, "key": member.key}
            if self._scope == "version":
                data["version"] = member.version_id or member.etag
            known = self._ids[member] = str(self._get_hashed_idempotency_key(data))
        return known

    def claim(self, members: Iterable[Member], bundle: str) -> Claims:
        """Claim at most `MOST_CLAIMS` members for `bundle`; says of each what became of it, and never raises."""
        todo: dict[str, tuple[Member, Record | None]] = {self.identity(member): (member, None) for member in members}
        claims = Claims([], [], {})
        if self._disabled:
            claims.owned.extend(self._draft(id_, member, bundle, None) for id_, (member, _) in todo.items())
            return claims
        for _ in range(_ROUNDS):
            drafts = {id_: self._draft(id_, member, bundle, found) for id_, (member, found) in todo.items()}
            written = self.write({id_: self._claiming(draft) for id_, draft in drafts.items()})
            claims.owned.extend(drafts[id_] for id_ in written.applied)
            claims.unsure.extend(drafts[id_] for id_ in written.unsure)
            claims.outcomes.update(_unconfirmed(drafts[id_]) for id_ in (*written.failed, *written.unsure))
            todo = self._weigh({id_: (drafts[id_], found) for id_, found in written.refused.items()}, claims)
            if not todo:
                break
        for id_, (member, _) in todo.items():
            claims.outcomes[id_] = InFlightError("member changes hands faster than we can follow", key=member.key)
        return claims

    def release(self, claims: Sequence[Claim]) -> None:
        """
        Give back claims whose member is in no bundle, those that may never have been written included.

        Raises:
            LedgerUnavailableError: it is not certain that all of them are given back.
        """
        if self._disabled:
            return
        for some in runs(claims, MOST_CLAIMS):
            written = self.write({claim.id: self._releasing(claim) for claim in some})
            fading = [claim for claim in some if self._may_yet_land(claim, written.refused.get(claim.id))]
            left = [*written.failed, *written.unsure, *fading]
            if left:
                raise LedgerUnavailableError("claims could not be released", members=len(left))

    def settle(self, bundle: str, receipt: Mapping[str, object]) -> None:
        """
        Record that `bundle` is published, and with it all its members.

        Raises:
            LedgerUnavailableError: it may not have been recorded; the arbiter will find out when it matters.
        """
        if self._disabled:
            return
        expiration = int(self._clock()) + self.expires_after_seconds + SECONDS_PER_DAY
        item = self.item(self._bundle_id(bundle), "COMPLETED", json.dumps({"bundle": bundle, **receipt}), expiration)
        try:
            self.client.put_item(TableName=self.table_name, Item=item)
        except (ClientError, BotoCoreError) as error:
            raise LedgerUnavailableError("bundle was not settled", bundle=bundle, fault=error_code(error)) from error

    def decide(self, bundle: str) -> frozenset[str]:
        """
        Ids of the members that `bundle` holds for good; none, if it was not published and now never can be.

        If there is no bundle, its name is closed with an empty one, so that a late put of a dead invocation is refused.

        Raises:
            StoreUnavailableError: cannot tell now.
            BundleFormatError: something else lies under that name.
        """
        for _ in range(_ROUNDS):
            found = self.look_up(bundle)
            if found is not None:
                return found
            self._distribution.occupy(bundle, empty_bundle(bundle, self._clock(), self._request_id))
        raise StoreUnavailableError("a bundle's name could not be closed", bundle=bundle)

    def look_up(self, bundle: str) -> frozenset[str] | None:
        """
        Ids of the members of `bundle`; none, if its name is closed; None, if there is nothing under its name.

        All versions count, also those that a consumer has deleted. A name is closed while an empty bundle lies there.

        Raises:
            StoreUnavailableError: cannot tell now.
            BundleFormatError: something else lies under that name.
        """
        versions, foreign = self._distribution.versions(bundle), None
        for version in versions:
            try:
                index = self._distribution.index(bundle, version)
            except BundleFormatError as error:
                foreign = error  # somebody wrote over it: a bundle may lie below
                continue
            if index.members.key:
                self._heal(bundle, len(index.members.key))
                return self._listed_in(index)
        if foreign:
            raise foreign
        return frozenset() if any(version.is_latest for version in versions) else None

    def _listed_in(self, index: BundleIndex) -> frozenset[str]:
        """Ids of the members of an index, by all that their notifications may have told of them."""
        columns = index.members
        rows = zip(columns.bucket, columns.key, columns.version_id, columns.etag, strict=True)
        return frozenset(
            self.identity(Member(index.buckets[bucket], key, None, *told))
            for bucket, key, version_id, etag in rows
            for told in {(etag, version_id), (etag, None), (None, None)}
        )

    def refuse(self, refusals: Sequence[Refusal]) -> None:
        """
        Leave a record of why envelopes were rejected; at most `MOST_REFUSALS` at once.

        Raises:
            LedgerUnavailableError: some were not written.
        """
        if self._disabled:
            return
        now = int(self._clock())
        items = {refusal.message_id: self._refusal(refusal, now) for refusal in refusals}  # each key once
        puts: list[Any] = [{"PutRequest": {"Item": item}} for item in items.values()]
        try:
            answer = self.client.batch_write_item(RequestItems={self.table_name: puts})
        except (ClientError, BotoCoreError) as error:
            raise LedgerUnavailableError("refusals were not recorded", fault=error_code(error)) from error
        if answer.get("UnprocessedItems"):
            raise LedgerUnavailableError("refusals were not recorded", fault="UnprocessedItems")

    def refused(self, message_id: str) -> str | None:
        """Why the envelope with that message id was rejected, if the ledger knows."""
        answer = self.client.get_item(TableName=self.table_name, Key=self._get_key(self._refusal_id(message_id)))
        item: Any = answer.get("Item")
        return str(json.loads(item[self.data_attr]["S"])["message"]) if item else None

    def refusals(self, message_ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """
        Why envelopes were rejected, by message id, of those that the ledger knows; at most `MOST_LOOKED_UP` at once.

        Raises:
            LedgerUnavailableError: the ledger does not say.
        """
        wanted = {self._refusal_id(message_id): message_id for message_id in message_ids}
        return {wanted[id_]: content for id_, content in self._looked_up(wanted).items()}

    def bundled(self, members: Iterable[Member]) -> frozenset[str]:
        """
        Ids of those of `members` that surely are in a bundle; at most `MOST_LOOKED_UP` at once. Changes nothing.

        Raises:
            LedgerUnavailableError: the ledger does not say.
        """
        claims = self._looked_up(dict.fromkeys(self.identity(member) for member in members))
        named = {id_: self._bundle_id(content["bundle"]) for id_, content in claims.items() if "bundle" in content}
        settled = self._looked_up(dict.fromkeys(named.values()))
        return frozenset(id_ for id_, bundle in named.items() if bundle in settled)

    def _looked_up(self, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What the records under `ids` say, of those that have not expired: DynamoDB may keep these for days."""
        pending: Any = {self.table_name: {"Keys": [self._get_key(id_) for id_ in ids], "ConsistentRead": True}}
        if not pending[self.table_name]["Keys"]:
            return {}
        found: list[dict[str, Any]] = []
        for _ in range(_ROUNDS):
            try:
                answer = self.client.batch_get_item(RequestItems=pending)
            except (ClientError, BotoCoreError) as error:
                raise LedgerUnavailableError("records could not be looked up", fault=error_code(error)) from error
            found += answer["Responses"].get(self.table_name, [])
            pending = answer.get("UnprocessedKeys")
            if not pending:
                live = (item for item in found if float(item[self.expiry_attr]["N"]) >= self._clock())
                return {item[self.key_attr]["S"]: json.loads(item[self.data_attr]["S"]) for item in live}
        raise LedgerUnavailableError("records could not be looked up", fault="UnprocessedKeys")

    def _weigh(
        self, found: Mapping[str, tuple[Claim, Record | None]], claims: Claims
    ) -> dict[str, tuple[Member, Record | None]]:
        """Judge members whose record stood in the way; what is to be tried once more, and over which record."""
        again: dict[str, tuple[Member, Record | None]] = {}
        foreign: dict[str, list[tuple[Claim, Record]]] = {}
        for id_, (claim, record) in found.items():
            if record is None or "released" in record.content:
                again[id_] = (claim.member, record)
            elif record.data == claim.data:
                claims.owned.append(claim)
            else:
                foreign.setdefault(record.content["bundle"], []).append((claim, record))
        settled = self._settled(foreign) if foreign else frozenset()
        for bundle, taken in foreign.items():
            for claim, record in taken:
                verdict = self._verdict(claim, record, bundle, settled)
                if verdict is None:
                    again[claim.id] = (claim.member, record)
                else:
                    claims.outcomes[claim.id] = verdict
        return again

    def _verdict(
        self, claim: Claim, record: Record, bundle: str, settled: frozenset[str] | None
    ) -> Outcome | AggregatorError | None:
        """What a member is whose record names another `bundle`; None, if it may be taken over."""
        if settled is None:
            return LedgerUnavailableError("cannot tell whether a bundle is settled", bundle=bundle)
        if bundle not in settled:
            if self._clock() * 1000 <= record.deadline:
                return InFlightError("member is being bundled by another invocation", bundle=bundle)
            members = self._decided(bundle)
            if isinstance(members, AggregatorError):
                return members
            if claim.id not in members:
                return None
        return repeated(claim.member, record.content.get("etag"))

    def _decided(self, bundle: str) -> frozenset[str] | AggregatorError:
        """What `decide` says, asked once for all members of a bundle, and not when there is no time for it."""
        if bundle not in self._decisions:
            try:
                if self._clock() > self._decide_until:
                    raise OutOfTimeError("invocation ends before the bundle can be decided", bundle=bundle)
                self._decisions[bundle] = self.decide(bundle)
                log.info("claim.decided", bundle=bundle, published=bool(self._decisions[bundle]))
            except AggregatorError as error:
                self._decisions[bundle] = error
        return self._decisions[bundle]

    def _settled(self, bundles: Iterable[str]) -> frozenset[str] | None:
        """Those of `bundles` that have a settle record; None if the ledger does not say."""
        keys = [self._get_key(self._bundle_id(bundle)) for bundle in bundles]
        request: Any = {self.table_name: {"Keys": keys, "ConsistentRead": True}}
        try:
            answer = self.client.batch_get_item(RequestItems=request)
        except (ClientError, BotoCoreError):
            return None
        if answer.get("UnprocessedKeys"):
            return None
        items = answer["Responses"].get(self.table_name, [])
        return frozenset(json.loads(item[self.data_attr]["S"])["bundle"] for item in items)

    def _heal(self, bundle: str, members: int) -> None:
        try:
            self.settle(bundle, {"members": members, "healed_by": self._request_id})
        except LedgerUnavailableError as error:
            log.warning("settle.failed", **error.facts)

    def _draft(self, id_: str, member: Member, bundle: str, replaces: Record | None) -> Claim:
        return Claim(member, id_, bundle, json.dumps({"bundle": bundle, "etag": member.etag}), replaces)

    def _claiming(self, claim: Claim) -> dict[str, Any]:
        return self.put(claim.id, claim.data, self._deadline, *self._unchanged(claim))

    def _releasing(self, claim: Claim) -> dict[str, Any]:
        """Overwrite what is ours, or what ours would have replaced: a claim that lands late finds it changed."""
        condition, values = self._unchanged(claim)
        data = json.dumps({"released": claim.bundle})
        values = {**values, ":mine": {"S": claim.data}}
        return self.put(claim.id, data, int(self._clock() * 1000), f"({condition}) OR #data = :mine", values)

    def _may_yet_land(self, claim: Claim, found: Record | None) -> bool:
        """Whether a claim that found a record in its place may come late and find it gone, because it has expired."""
        return claim.replaces is None and found is not None and found.expiration < self._clock() + SECONDS_PER_DAY

    def _unchanged(self, claim: Claim) -> tuple[str, dict[str, Any]]:
        """The condition that a record still is what we saw when we drafted `claim`."""
        if claim.replaces is None:
            return "attribute_not_exists(#id) OR #expiration < :now", {":now": {"N": str(int(self._clock()))}}
        values = {":old": {"S": claim.replaces.data}, ":deadline": {"N": str(claim.replaces.deadline)}}
        return "#data = :old AND #deadline = :deadline", values

    def _refusal(self, refusal: Refusal, now: int) -> dict[str, Any]:
        objects = [f"s3://{member.bucket}/{member.key}" for member in refusal.members[:10]]
        content = {
            "reason": refusal.reason,
            "message": refusal.message,
            "objects": objects,
            "request_id": self._request_id,
            "time": now,
        }
        return self.item(
            self._refusal_id(refusal.message_id), "COMPLETED", json.dumps(content), now + self.expires_after_seconds
        )

    def _refusal_id(self, message_id: str) -> str:
        return f"{self.function_name}#refused#{message_id}"

    def _bundle_id(self, bundle: str) -> str:
        return f"{self.function_name}#{bundle}"


def repeated(member: Member, etag: str | None) -> Outcome:
    """A duplicate of what was announced with `etag`; where the tags differ, the object has been overwritten since."""
    return Outcome.OVERWRITTEN if etag and member.etag and etag != member.etag else Outcome.DUPLICATE


def _unconfirmed(claim: Claim) -> tuple[str, AggregatorError]:
    return claim.id, LedgerUnavailableError("claim was not confirmed", key=claim.member.key)
