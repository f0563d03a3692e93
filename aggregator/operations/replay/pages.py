"""
Which objects a bucket holds, page by page, and where to go on after each page.

A listing is read in the order of its keys and kept nowhere, so it takes the same memory for a thousand objects as for a
billion. `inventories.py` makes the same pages of an S3 Inventory report.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from aggregator.schemas import ObjectRef

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

Position = Mapping[str, str | int]
"""Where a listing goes on: parameters of its next request, or the next row of an inventory."""

_ARCHIVED = frozenset({"GLACIER", "DEEP_ARCHIVE"})
"""Storage classes that must be restored before they can be read (S3 user guide, "Understanding S3 storage classes")."""


class Listed(NamedTuple):
    """An object as a listing has it; `member.key` as the listing has it, `archived` if it must be restored."""

    ref: ObjectRef
    modified: datetime | None
    archived: bool


class Page(NamedTuple):
    """Some objects of a listing, and where it goes on behind them."""

    objects: list[Listed]
    position: Position


def current_objects(s3: "S3Client", bucket: str, prefix: str, position: Position) -> Iterator[Page]:
    """The objects below `prefix`, without version ids: ListObjectsV2 tells none."""
    answer: Any = {"IsTruncated": True}
    while answer["IsTruncated"]:
        answer = s3.list_objects_v2(
            Bucket=bucket,
            Prefix=prefix,
            OptionalObjectAttributes=["RestoreStatus"],
            **position,  # type: ignore[arg-type]  # StartAfter
        )
        contents = answer.get("Contents", [])
        if contents:
            position = {"StartAfter": contents[-1]["Key"]}
        yield Page([_listed(bucket, found) for found in contents], position)


def versions(
    s3: "S3Client", bucket: str, prefix: str, position: Position, *, every_version: bool = False
) -> Iterator[Page]:
    """The current version, or `every_version`, of the objects below `prefix`, with its id; no delete markers."""
    answer: Any = {"IsTruncated": True}
    while answer["IsTruncated"]:
        answer = s3.list_object_versions(
            Bucket=bucket,
            Prefix=prefix,
            OptionalObjectAttributes=["RestoreStatus"],
            **position,  # type: ignore[arg-type]  # KeyMarker and VersionIdMarker
        )
        wanted = (found for found in answer.get("Versions", []) if every_version or found["IsLatest"])
        position = {
            "KeyMarker": answer.get("NextKeyMarker", ""),
            "VersionIdMarker": answer.get("NextVersionIdMarker", ""),
        }
        yield Page([_listed(bucket, found) for found in wanted], position)


def is_archived(storage_class: str | None) -> bool:
    """Whether objects of that storage class must be restored before they can be read."""
    return storage_class in _ARCHIVED


def _listed(bucket: str, found: Mapping[str, Any]) -> Listed:
    restored = "RestoreExpiryDate" in found.get("RestoreStatus", {})
    ref = ObjectRef(bucket, found["Key"], found["Size"], _unquoted(found.get("ETag")), found.get("VersionId"))
    return Listed(ref, found["LastModified"], is_archived(found.get("StorageClass")) and not restored)


def _unquoted(etag: str | None) -> str | None:
    return etag.strip('"') if etag else None
