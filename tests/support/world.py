"""
A source bucket, a distribution bucket and a ledger on some AWS, for tests that run the real handler.

    world.put("a.json", b"{}")
    assert world.deliver(["a.json"]) == set()
    assert world.published() == {"a.json": [b"{}"]}
"""

import gzip
import io
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

import boto3
import pytest
from botocore.config import Config

from aggregator import app
from aggregator.operations.audit.reconciliation import Audit, AuditScope, Locations, reconcile
from aggregator.operations.ledger_reader import LedgerReader
from aggregator.operations.listings import versions
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import planned
from aggregator.reader import Bundle
from aggregator.runtimes.local.stack import make_ledger
from aggregator.runtimes.polling import LocalContext
from aggregator.schemas import ObjectRef
from fixtures import factories

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class World:
    """Resources of its own, under names nobody else has, so that tests share an AWS and nothing else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, endpoint_url: str | None, **settings: str) -> None:
        self.name = f"agg-{uuid.uuid4().hex[:12]}"
        self.source, self.distribution, self.table = f"{self.name}-s", f"{self.name}-d", f"{self.name}-l"
        self.environment = {
            "DISTRIBUTION_BUCKET_NAME": self.distribution,
            "SERVICE_NAME": self.name,
            "IDEMPOTENCY_TABLE_NAME": self.table,
            "IDEMPOTENCY_TTL_DAYS": "30",
            "LOG_LEVEL": "INFO",
            "LEDGER_WRITES": "statements",
            **({"AWS_ENDPOINT_URL": endpoint_url, **CREDENTIALS} if endpoint_url else {}),
            **settings,
        }
        for variable, value in self.environment.items():
            monkeypatch.setenv(variable, value)
        self.s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
        self.dynamodb = boto3.client("dynamodb")
        for bucket in (self.source, self.distribution):
            self.s3.create_bucket(Bucket=bucket)
        self.s3.put_bucket_versioning(Bucket=self.distribution, VersioningConfiguration={"Status": "Enabled"})
        make_ledger(self.dynamodb, self.table)

    def put(self, key: str, body: bytes, **options: Any) -> None:
        """Put a source object."""
        self.s3.put_object(Bucket=self.source, Key=key, Body=body, **options)

    def put_all(self, objects: Mapping[str, bytes]) -> None:
        """Put many."""
        for key, body in objects.items():
            self.put(key, body)

    def body(self, key: str, **fields: Any) -> str:
        """The body of a notification for a source object."""
        fields = {"size": None, "eTag": None, **fields}
        return factories.created(key, bucket=self.source, **fields)

    def deliver(self, keys: Iterable[str], *, seconds: float = 60) -> set[str]:
        """Invoke the handler for source objects; the keys of those whose messages stay on the queue."""
        return self.deliver_bodies({key: self.body(key) for key in keys}, seconds=seconds)

    def deliver_bodies(self, bodies: Mapping[str, Any], *, seconds: float = 60) -> set[str]:
        """Invoke the handler for messages by name; the names of those that stay on the queue."""
        event = {"Records": [sqs_record(name, body) for name, body in bodies.items()]}
        answer = app.handler(event, LocalContext(function=self.name, seconds=seconds))  # type: ignore[arg-type]
        return {str(failure["itemIdentifier"]) for failure in answer["batchItemFailures"]}

    def bundles(self) -> Iterator[Bundle]:
        """All bundles ever put, also deleted ones, empty ones left out."""
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.distribution)
        for version in (version for page in pages for version in page.get("Versions", [])):
            got = self.s3.get_object(Bucket=self.distribution, Key=version["Key"], VersionId=version["VersionId"])
            bundle = Bundle.open(io.BytesIO(got["Body"].read()))
            if len(bundle):
                yield bundle

    def plant(self, bundle: str, sources: Iterable[FetchedObject], *, created: float | None = None) -> None:
        """Put a bundle that no handler made: its index says what we like, and its text is empty."""
        spool, plan = io.BytesIO(), planned((), now=created or time.time(), request_id="planted", suffix="")
        with ThreadPoolExecutor(1) as executor:
            packer = Packer(spool, limit=1 << 30, level=1, framing="none", executor=executor)
            for source in sources:
                packer.add(source, [b""])
            packer.finish(plan._replace(bundle=bundle))
        self.s3.put_object(Bucket=self.distribution, Key=bundle, Body=spool.getvalue())

    def remove_bundles(self) -> None:
        """Remove all versions of all bundles for good, as a lifecycle rule does."""
        for stored in list(versions(self.s3, self.distribution)):
            self.s3.delete_object(Bucket=stored.bucket, Key=stored.key, VersionId=str(stored.version_id))

    def replicate(self) -> str:
        """Copy what lies in the distribution bucket to an archive bucket, as replication does; its name."""
        archive = f"{self.name}-a"
        self.s3.create_bucket(Bucket=archive)
        self.s3.put_bucket_versioning(Bucket=archive, VersioningConfiguration={"Status": "Enabled"})
        for stored in versions(self.s3, self.distribution):
            copied: Any = {"Bucket": stored.bucket, "Key": stored.key, "VersionId": stored.version_id}
            self.s3.copy_object(Bucket=archive, Key=stored.key, CopySource=copied)
        return archive

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """The boto3 calls made in the block, by this world or by clients that are built meanwhile."""
        seen: list[str] = []

        def note(model: Any, **_: Any) -> None:
            seen.append(model.name)

        with self.hooked(note):
            yield seen

    @contextmanager
    def hooked(self, hook: Callable[..., None]) -> Iterator[None]:
        """Call `hook` before each boto3 call in the block, by this world or by clients that are built meanwhile."""
        assert boto3.DEFAULT_SESSION
        emitters = [self.s3.meta.events, self.dynamodb.meta.events, boto3.DEFAULT_SESSION.events]
        for emitter in emitters:
            emitter.register("before-call", hook)
        try:
            yield
        finally:
            for emitter in emitters:
                emitter.unregister("before-call", hook)

    def published(self) -> dict[str, list[bytes]]:
        """What lies in bundles, by key: each member's bytes, as often as it was published."""
        found: dict[str, list[bytes]] = defaultdict(list)
        for bundle in self.bundles():
            bundle.verify()
            for entry in bundle:
                found[entry.key].append(bundle.read(entry))
        return dict(found)

    def published_lines(self, objects: Mapping[str, bytes]) -> dict[str, list[bytes]]:
        """The same of bundles without an index, by the line that each object is."""
        found: dict[str, list[bytes]] = defaultdict(list)
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.distribution)
        for version in (version for page in pages for version in page.get("Versions", [])):
            got = self.s3.get_object(Bucket=self.distribution, Key=version["Key"], VersionId=version["VersionId"])
            text = gzip.decompress(got["Body"].read())
            for key, body in objects.items():
                found[key] += [body] * text.count(body)
        return dict(found)

    def reader(self, scope: Literal["key", "version"], now: float) -> LedgerReader:
        """The ledger, to be read as of `now`."""
        return LedgerReader(self.dynamodb, table=self.table, distribution=self.distribution, scope=scope, now=now)

    def gives_back(self, key: str) -> Callable[[], None]:
        """What the invocation that has claimed `key` may do next: give it back, put its bundle without it, settle."""
        (claim,) = [
            record
            for record in self.records()
            if record["id"] == self.reader("key", 0).id(self.source, key, None, None)
        ]
        bundle = json.loads(claim["data"])["bundle"]
        settle = {"status": "COMPLETED", "data": json.dumps({"bundle": bundle}), "expiration": claim["expiration"]}

        def go_on() -> None:
            self.write({**claim, "data": json.dumps({"released": bundle})})
            self.plant(bundle, [FetchedObject(ObjectRef(self.source, "another"), 1, "tag")])
            self.write({"id": f"{self.distribution}#{bundle}", **settle})

        return go_on

    def write(self, record: Mapping[str, str]) -> None:
        """Write a record of the ledger, as `records` shows it."""
        numbers = {"expiration", "in_progress_expiration"}
        item = {name: {"N" if name in numbers else "S": value} for name, value in record.items()}
        self.dynamodb.put_item(TableName=self.table, Item=item)

    def audit(self, *, later: float = 0, grace: float = 0, **given: Any) -> Audit:
        """What the auditor finds, `later` seconds from now, of all that was put."""
        now = time.time() + later
        scope = given.pop("scope", "key")
        subject = AuditScope(self.source, given.pop("prefix", ""), scope, time.time() - 3_600, now + 1, now)
        places = Locations(self.s3, self.distribution, given.pop("archive", None), self.reader(scope, now))
        return reconcile(subject, places, grace=grace, **given)

    def verdict(self, **given: Any) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """The totals of an audit that are not nought, and its findings."""
        with self.audit(**given) as audit:
            return {name: count for name, count in audit.totals.items() if count}, list(audit.findings())

    def records(self) -> list[dict[str, Any]]:
        """Everything the ledger remembers, by attribute."""
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.table)
        return [
            {name: next(iter(value.values())) for name, value in item.items()}
            for page in pages
            for item in page["Items"]
        ]

    def lapse(self) -> None:
        """Let every claim lapse, as if its invocation were long over."""
        for record in self.records():
            if record["status"] == "INPROGRESS":
                self.dynamodb.update_item(
                    TableName=self.table,
                    Key={"id": {"S": record["id"]}},
                    UpdateExpression="SET in_progress_expiration = :past",
                    ExpressionAttributeValues={":past": {"N": "1"}},
                )


class Meanwhile(LedgerReader):
    """A reader beside which something happens, once: after it has read the claims, before it asks what is settled."""

    def __init__(self, reader: LedgerReader, happens: Callable[[], None]) -> None:
        vars(self).update(vars(reader))
        self._happens: Callable[[], None] | None = happens

    def receipts(self, bundles: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The settle records, after what happens."""
        happens, self._happens = self._happens, None
        if happens:
            happens()
        return super().receipts(bundles)


def sqs_record(message_id: str, body: Any) -> dict[str, Any]:
    """One SQS message as Lambda hands it over."""
    return {
        "messageId": message_id,
        "receiptHandle": "handle",
        "body": body,
        "attributes": {"ApproximateReceiveCount": "1"},
        "messageAttributes": {},
        "md5OfBody": "",
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:queue",
        "awsRegion": "us-east-1",
    }


def log_lines(text: str) -> list[dict[str, Any]]:
    """The log lines and metrics among what the handler wrote."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@contextmanager
def environment(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Iterator[None]:
    """More settings, for as long as the block lasts."""
    with monkeypatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield
