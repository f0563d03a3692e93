"""
The auditor over a million objects: seconds, and the most memory that its process ever used.

    python -m benchmarks.audit [OBJECTS]

S3 and DynamoDB are played by generators that answer as boto3 does, page by page, so what is measured is the auditor and
not a network; the bundles are real ones, packed beforehand into a folder. One object in a thousand is missing, one in a
thousand twice, and one in a thousand altered: the audit must find exactly those.
"""

import hashlib
import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aggregator.operations.audit.reconciliation import AuditScope, Locations, reconcile
from aggregator.operations.ledger_reader import LedgerReader
from aggregator.pipeline.core import FetchedObject, Packer
from aggregator.pipeline.planning import bundle_key, planned
from aggregator.schemas import ObjectRef

PER_BUNDLE = 1_000
BEGAN = datetime(2026, 11, 23, tzinfo=UTC)
NOW = BEGAN.timestamp() + 86_400
SIZE = 2_048
MISSING, TWICE, ALTERED = 7, 8, 9
"""What is wrong with the objects whose number ends so, of a thousand."""


def key(number: int) -> str:
    """The key of an object, as long as producers make them."""
    return f"orders/{number % 24:02}/device-{number % 977:04}/order-{number:09}.json"


def etag(number: int) -> str:
    """Its entity tag."""
    return hashlib.md5(key(number).encode()).hexdigest()


def bundle(at: int) -> str:
    """The key of a bundle."""
    return bundle_key(BEGAN.timestamp() + at % 24 * 3_600, f"00000000-0000-4000-8000-{at:012}", "00000000")


def pack(at: int, total: int) -> bytes:
    """One bundle; the next one holds some of its members as well."""
    spool, members = io.BytesIO(), range(at * PER_BUNDLE, min((at + 1) * PER_BUNDLE, total))
    plan = planned((), now=BEGAN.timestamp() + at % 24 * 3_600, request_id="r", suffix="s")._replace(bundle=bundle(at))
    with ThreadPoolExecutor(1) as executor:
        packer = Packer(spool, limit=1 << 30, level=1, framing="none", executor=executor)
        for number in members:
            tag = "0" * 32 if number % PER_BUNDLE == ALTERED else etag(number)
            copies = {MISSING: 0, TWICE: 2}.get(number % PER_BUNDLE, 1)
            for _ in range(copies):
                packer.add(FetchedObject(ObjectRef("source", key(number)), SIZE, tag), [b""])
        packer.finish(plan)
    return spool.getvalue()


class Played:
    """S3 and DynamoDB, as far as the auditor asks them."""

    def __init__(self, folder: Path, total: int) -> None:
        self._folder, self._total = folder, total
        self._sizes = {bundle(int(path.name)): path.stat().st_size for path in folder.iterdir()}

    def get_paginator(self, name: str) -> Any:
        pages = {"list_objects_v2": self._objects, "list_object_versions": self._versions}[name]
        return type("Paginator", (), {"paginate": staticmethod(lambda **asked: pages(asked["Prefix"]))})

    def get_object(self, *, Key: str, Range: str, **_: Any) -> Any:
        begin, last = map(int, Range.removeprefix("bytes=").split("-"))
        with (self._folder / str(_number(Key))).open("rb") as file:
            file.seek(begin)
            body = io.BytesIO(file.read(last + 1 - begin))
        return {"Body": body, "ResponseMetadata": {"HTTPStatusCode": 206}}

    def batch_get_item(self, *, RequestItems: Any) -> Any:
        ((table, request),) = RequestItems.items()
        return {"Responses": {table: [self._item(asked["id"]["S"]) for asked in request["Keys"]]}}

    def _item(self, id_: str) -> Any:
        number = int(id_.rsplit("-", 1)[-1].removesuffix(".json"))
        return {
            "id": {"S": id_},
            "data": {"S": json.dumps({"bundle": bundle(number // PER_BUNDLE), "etag": etag(number)})},
            "expiration": {"N": str(int(NOW) + 1)},
            "in_progress_expiration": {"N": "1"},
        }

    def _objects(self, _: str) -> Iterator[Any]:
        for begin in range(0, self._total, 1_000):
            numbers = range(begin, min(begin + 1_000, self._total))
            yield {"Contents": [_listed(key(number), etag(number), SIZE) for number in numbers]}

    def _versions(self, prefix: str) -> Iterator[Any]:
        found = [name for name in self._sizes if name.startswith(prefix)]
        yield {"Versions": [{**_listed(name, "e", self._sizes[name]), "VersionId": "v"} for name in found]}


class Told(LedgerReader):
    """The ledger; an id also tells the key, so that the table need not be in this process."""

    def id(self, bucket: str, key: str, version_id: str | None, etag: str | None) -> str:
        return f"{super().id(bucket, key, version_id, etag)}{key}"


def _number(key: str) -> int:
    return int(key.split("-")[-2])


def _listed(key: str, etag: str, size: int) -> Any:
    return {"Key": key, "ETag": f'"{etag}"', "Size": size, "LastModified": BEGAN}


def main() -> None:
    """Pack, audit, say how long it took."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        for at in range(-(-total // PER_BUNDLE)):
            (Path(folder) / str(at)).write_bytes(pack(at, total))
        played: Any = Played(Path(folder), total)
        before, began, stages = _peak(), time.monotonic(), list[tuple[str, float]]()
        ledger = Told(played, table="ledger", distribution="distribution", scope="key", now=NOW)
        subject = AuditScope("source", "", "key", BEGAN.timestamp(), NOW, NOW)

        def report(doing: str, done: int) -> None:
            if not done:
                stages.append((doing, time.monotonic() - began))

        with reconcile(
            subject, Locations(played, "distribution", None, ledger), report=report, rejections=False
        ) as audit:
            found = sum(1 for _ in audit.findings())
            sys.stdout.write(f"{audit.totals}\n{found:,} findings\n")
        seconds = time.monotonic() - began
        sys.stdout.writelines(f"{at:8.1f} s  {doing}\n" for doing, at in stages)
        sys.stdout.write(f"{seconds:8.1f} s  all, {total / seconds:,.0f} objects/s\n")
        sys.stdout.write(f"peak memory {_peak():,.0f} MB, {before:,.0f} MB before\n")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
