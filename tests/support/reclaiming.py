"""A world with an archive that S3 replicates to, and what `reclaim` makes of its source."""

import time
from typing import Any

import boto3

from aggregator.operations.holdings import Locations, Scope
from aggregator.operations.listings import versions
from aggregator.operations.reclaiming import Judged, reclaim
from tests.support.world import World


class Reclaiming:
    """A world with an archive that S3 replicates to, and what reclaim makes of its source."""

    def __init__(self, world: World) -> None:
        self.world, self.s3 = world, world.s3
        self.archive = f"{world.name}-a"
        self.s3.create_bucket(Bucket=self.archive)
        self.s3.put_bucket_versioning(Bucket=self.archive, VersioningConfiguration={"Status": "Enabled"})
        rule: Any = {"Status": "Enabled", "Priority": 1, "Filter": {"Prefix": ""}}
        rule |= {
            "Destination": {"Bucket": f"arn:aws:s3:::{self.archive}"},
            "DeleteMarkerReplication": {"Status": "Disabled"},
        }
        role = "arn:aws:iam::123456789012:role/replication"
        self.s3.put_bucket_replication(
            Bucket=world.distribution, ReplicationConfiguration={"Role": role, "Rules": [rule]}
        )

    def bundle(self, objects: dict[str, bytes]) -> None:
        """Put objects, and let the handler bundle them."""
        self.world.put_all(objects)
        assert self.world.deliver(objects) == set()

    def bundle_twice(self, objects: dict[str, bytes]) -> list[str]:
        """Let the handler bundle objects twice, as after their records have expired; both bundles, by their names."""
        self.bundle(objects)
        for item in self.world.dynamodb.scan(TableName=self.world.table)["Items"]:
            self.world.dynamodb.delete_item(TableName=self.world.table, Key={"id": item["id"]})
        self.bundle(objects)
        return sorted(bundle.index.bundle for bundle in self.world.bundles())

    def keep_versions(self, status: Any = "Enabled") -> None:
        """Switch versioning of the source on, or suspend it."""
        self.s3.put_bucket_versioning(Bucket=self.world.source, VersioningConfiguration={"Status": status})

    def run(self, *, archive: bool = True, young: float = 0, **given: Any) -> list[Judged]:
        """Reclaim whatever is older than `young` seconds."""
        now = time.time() + 2  # S3 tells whole seconds
        scope = Scope(self.world.source, given.pop("prefix", ""), now - young, now)
        places = Locations(given.pop("s3", self.s3), self.world.distribution, self.archive if archive else None)
        return list(reclaim(scope, places, **{"delete": True, **given}))

    def empty(self, bucket: str) -> None:
        """Delete every version of everything."""
        for stored in list(versions(self.s3, bucket)):
            self.s3.delete_object(Bucket=bucket, Key=stored.key, VersionId=str(stored.version_id))

    def left(self) -> dict[str, list[bytes]]:
        """The source: by key the content of each version that is there, the newest first."""
        found: dict[str, list[bytes]] = {}
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=self.world.source):
            for one in page.get("Versions", []):
                got = self.s3.get_object(Bucket=self.world.source, Key=one["Key"], VersionId=one["VersionId"])
                found.setdefault(one["Key"], []).append(got["Body"].read())
        return found


def other_client(world: World) -> Any:
    """Another client of the same S3."""
    return boto3.client("s3", config=world.s3.meta.config)
