"""
Which objects a bucket held, as an S3 Inventory report says: the same pages as `pages.py`, without a list call.

A report is a manifest and many files. Each file is fetched whole, proved against the manifest's MD5 and read row by
row, so memory stays that of one page and disk that of one file. In CSV files keys are URL-encoded (S3 user guide,
"Amazon S3 Inventory list"), a space as `+` as in notifications (cloud-custodian issue 1997); in Parquet files they are
as they are. ORC is refused: nothing that we ship reads it.
"""

import csv
import gzip
import hashlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import unquote_plus

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aggregator.exceptions import AggregatorError
from aggregator.operations.replay.pages import Listed, Page, Position, is_archived
from aggregator.schemas import ObjectRef, invalid_fields

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_PAGE = 1_000
_ARN = re.compile(r"arn:[a-z-]+:s3:::")
"""Of any partition: `aws`, `aws-us-gov`, `aws-cn`, …"""

_UNREADABLE_TIERS = {"ARCHIVE", "ARCHIVE_ACCESS", "DEEP_ARCHIVE", "DEEP_ARCHIVE_ACCESS"}
"""Access tiers of S3 Intelligent-Tiering whose objects must be restored first (S3 user guide, "Inventory list")."""


class InventoryError(AggregatorError):
    """The report cannot be read, or is not what its manifest says."""

    reason = "inventory"


class ReportFile(BaseModel):
    """One file of a report."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    MD5checksum: str = Field(pattern="^[0-9a-f]{32}$")


class Manifest(BaseModel):
    """
    What `manifest.json` says of a report.

    Structure: S3 user guide, "Locating your inventory list".
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    sourceBucket: str
    destinationBucket: str
    fileFormat: Literal["CSV", "Parquet", "ORC"]
    fileSchema: str
    files: list[ReportFile]


class Inventory(NamedTuple):
    """A report that was found: what it lists, and where its files lie."""

    s3: "S3Client"
    manifest: Manifest

    def has(self, column: str) -> bool:
        """Whether the report has a column, by its CSV name: `VersionId`, `LastModifiedDate`."""
        return _plain(column) in _plain(self.manifest.fileSchema)

    def pages(self, prefix: str, position: Position, *, every_version: bool) -> Iterator[Page]:
        """
        The objects below `prefix`, from `position` on: current versions, or `every_version`; no delete markers.

        Raises:
            InventoryError: a file is not what the manifest says.
        """
        first = int(position.get("file", 0))
        for at, file in enumerate(self.manifest.files[first:], start=first):
            row = int(position.get("row", 0)) if at == first else 0
            with NamedTemporaryFile(suffix=".inventory") as local:
                self._fetch(file, local)
                rows = self._rows(local.name, row)
                while some := list(islice(rows, _PAGE)):
                    row += len(some)
                    wanted = [self._listed(found) for found in some if _counts(found, every_version)]
                    kept = [listed for listed in wanted if listed.ref.key.startswith(prefix)]
                    yield Page(kept, {"file": at, "row": row})

    def _fetch(self, file: ReportFile, local: IO[bytes]) -> None:
        """Copy a file of the report to `local`, and prove that it is the one."""
        bucket = _ARN.sub("", self.manifest.destinationBucket, count=1)
        body = self.s3.get_object(Bucket=bucket, Key=file.key)["Body"]
        shutil.copyfileobj(body, local)
        local.flush()
        with Path(local.name).open("rb") as copy:
            digest = hashlib.file_digest(copy, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest != file.MD5checksum:
            raise InventoryError("a file of the inventory is not the one that the manifest names", key=file.key)

    def _rows(self, path: str, skip: int) -> Iterator[Mapping[str, Any]]:
        """The rows of a file behind the first `skip`, by plain column names."""
        if self.manifest.fileFormat == "CSV":
            columns = [_plain(name) for name in self.manifest.fileSchema.split(",")]
            with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
                reader = csv.reader(text)
                for row in islice(filter(None, reader), skip, None):
                    if len(row) != len(columns):
                        raise InventoryError(
                            "a line of the inventory has a wrong number of columns", line=reader.line_num
                        )
                    found = dict(zip(columns, row, strict=True))
                    yield {**found, "key": unquote_plus(found["key"], errors="surrogateescape")}
        else:
            yield from _parquet(path, skip)

    def _listed(self, row: Mapping[str, Any]) -> Listed:
        if row["bucket"] != self.manifest.sourceBucket:
            raise InventoryError("a row of the inventory is about another bucket", bucket=row["bucket"])
        size = row.get("size")
        if size not in (None, "") and not str(size).isdecimal():
            raise InventoryError("a size in the inventory is not a number", key=row["key"], size=size)
        size = int(size) if size not in (None, "") else None
        ref = ObjectRef(row["bucket"], row["key"], size, row.get("etag") or None, row.get("versionid") or None)
        tier = str(row.get("intelligenttieringaccesstier") or "").upper().replace(" ", "_")
        archived = is_archived(row.get("storageclass")) or tier in _UNREADABLE_TIERS
        return Listed(ref, _moment(row.get("lastmodifieddate")), archived)


def open_inventory(s3: "S3Client", bucket: str, key: str) -> Inventory:
    """
    The report whose manifest is under `key`.

    Raises:
        InventoryError: it is not a manifest, or of a format that we do not read.
    """
    text = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise InventoryError("this is not a manifest of an S3 Inventory report", faults=invalid_fields(error)) from None
    if manifest.fileFormat == "ORC":
        raise InventoryError("the inventory is in ORC: configure it to be written as CSV or Parquet")
    return Inventory(s3, manifest)


def _parquet(path: str, skip: int) -> Iterator[Mapping[str, Any]]:
    import duckdb  # noqa: PLC0415 - takes a second, and only Parquet needs it

    with duckdb.connect() as connection:
        query = "SELECT * FROM read_parquet(?, binary_as_string = true) OFFSET ?"
        found = connection.execute(query, [path, skip])
        columns = [_plain(column[0]) for column in found.description or ()]
        while rows := found.fetchmany(_PAGE):
            yield from (_named(columns, row) for row in rows)


def _named(columns: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(columns, row, strict=True))


def _counts(row: Mapping[str, Any], every_version: bool) -> bool:
    """Whether a row is about an object that is there: no delete marker, and current unless all versions count."""
    return not _true(row.get("isdeletemarker")) and (every_version or _true(row.get("islatest", True)))


def _true(value: object) -> bool:
    return value is True or str(value).lower() == "true"


def _plain(name: str) -> str:
    """`LastModifiedDate` in CSV, `last_modified_date` in Parquet: one name for both."""
    return name.strip().replace("_", "").lower()


def _moment(value: datetime | str | None) -> datetime | None:
    """CSV has RFC 3339; Parquet a timestamp in UTC that does not say so."""
    if not value:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
