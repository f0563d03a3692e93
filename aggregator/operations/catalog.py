"""
A catalog of all members of many bundles, in one file that DuckDB reads: one row per member.

    known bundles of the old file ▸ read the indexes of the others ▸ rows to a database on disk ▸ new file ▸ rename

Bundles that the file has are not read again: a name is never used twice, and a bundle whose size is another is read.
Rows of bundles that are gone stay. Memory does not depend on the number of members: some 150 bytes are held for each
bundle. The file is replaced at the end, in one step, so that it is the old one or the new one, whatever ends the run.
"""

import errno
import glob
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import duckdb

from aggregator.bundles.bundle import Bundle
from aggregator.bundles.targets import Found
from aggregator.exceptions import AggregatorError
from aggregator.operations.indexes import Fault, read_targets
from aggregator.operations.rows import add_rows

COLUMNS = {
    "target": "VARCHAR",
    "target_size": "BIGINT",
    "bundle": "VARCHAR",
    "created": "TIMESTAMP",
    "request_id": "VARCHAR",
    "sha256": "VARCHAR",
    "origin": "VARCHAR",
    "bucket": "VARCHAR",
    "key": "VARCHAR",
    "version_id": "VARCHAR",
    "etag": "VARCHAR",
    "size": "BIGINT",
    "encoding": "VARCHAR",
    "start": "BIGINT",
    "length": "BIGINT",
    "crc32": "UINTEGER",
}
"""
The columns of a catalog: where the bundle is and its bytes there; then what its index says, `created` in UTC.

`sha256` is that of the bundle before its footer, `origin` the bundle in which the member was published.
"""

FORMATS = (".parquet", ".duckdb")

_THREADS = 2
"""Each costs DuckDB some memory of its own."""


class CatalogError(AggregatorError):
    """The catalog cannot be read or written."""

    reason = "catalog"


class Catalog(NamedTuple):
    """What became of a catalog: bundles that were read and that were known, members that were added, and all."""

    read: int
    known: int
    added: int
    members: int


def update_catalog(
    targets: Iterable[str],
    file: Path,
    *,
    fail: Callable[[str, Fault], object],
    memory: str = "256MB",
    report: Callable[[], object] = lambda: None,
) -> Catalog:
    """
    Add the members of all bundles that `targets` name to a catalog, which is made if it is not there.

    `fail` gets each bundle that cannot be read, and why: it is not in the catalog, and read again the next time.
    `report` is called for each bundle.

    Raises:
        CatalogError: the file is not a catalog, or DuckDB cannot read or write it.
        OSError: the file cannot be written.
    """
    if file.suffix not in FORMATS:
        raise CatalogError("the name of a catalog ends in .parquet or .duckdb", file=str(file))
    if not file.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file.parent))
    with TemporaryDirectory(prefix="aggregator-catalog-") as folder, _translated(file):
        work = _Work(Path(folder), file, memory=memory)
        try:
            added = work.add(targets, fail, report)
            members = work.count()
            if added:
                work.write()
                work.connection.close()
                work.part.replace(file)
        finally:
            work.connection.close()
            work.part.unlink(missing_ok=True)
        return Catalog(work.read, work.known, added, members)


class _Work:
    """The database in which new rows are gathered, beside the old catalog."""

    def __init__(self, folder: Path, file: Path, *, memory: str) -> None:
        self.read = self.known = 0
        self.part = file.with_name(f".{secrets.token_hex(8)}.part")
        self._folder, self._is_parquet = folder, file.suffix == ".parquet"
        config: dict[str, Any] = {"memory_limit": memory, "threads": _THREADS, "temp_directory": str(folder / "spill")}
        self.connection = duckdb.connect(str(folder / "work.duckdb"), config=config)
        self._run(f"CREATE TABLE added ({', '.join(f'{name} {kind}' for name, kind in COLUMNS.items())})")
        self._run(f"CREATE TEMP VIEW old AS {self._old(file)}")
        self._run("CREATE TEMP VIEW members AS FROM old ANTI JOIN added USING (target) UNION ALL FROM added")

    def add(self, targets: Iterable[str], fail: Callable[[str, Fault], object], report: Callable[[], object]) -> int:
        """Add the rows of bundles that the old catalog does not have; how many they are."""
        known = dict(self._run("SELECT DISTINCT target, target_size FROM old").fetchall())
        named = set[str]()

        def wanted(found: Found) -> bool:
            is_known = found.target in known and found.size in {None, known[found.target]}
            self.known += is_known
            is_new = not is_known and found.target not in named
            named.add(found.target)
            return is_new

        def rows() -> Iterator[tuple[Any, ...]]:
            for target, read in read_targets(targets, _rows_of, wanted=wanted):
                report()
                if isinstance(read, Exception):
                    fail(target, read)
                    continue
                self.read += 1
                yield from ((target, *row) for row in read)

        return add_rows(self.connection, "added", COLUMNS, rows(), self._folder)

    def count(self) -> int:
        """Members in the catalog."""
        ((count,),) = self._run("SELECT count(*) FROM members").fetchall()
        return int(count)

    def write(self) -> None:
        """Write the new catalog beside the old one, under a name of its own."""
        if self._is_parquet:
            self._run(f"COPY (FROM members) TO {_quoted(self.part)} (FORMAT parquet, COMPRESSION zstd)")
        else:
            self._run(f"ATTACH {_quoted(self.part)} AS new")
            self._run("CREATE TABLE new.members AS FROM members")
            self._run("DETACH new")

    def _old(self, file: Path) -> str:
        """The query for the rows of the old catalog, none if there is no such file."""
        columns = ", ".join(COLUMNS)
        if not file.exists():
            return f"SELECT {columns} FROM added LIMIT 0"  # noqa: S608 - our own names
        if self._is_parquet:
            return f"SELECT {columns} FROM read_parquet({_quoted(glob.escape(str(file)))})"  # noqa: S608 - quoted
        if file.with_name(f"{file.name}.wal").exists():
            raise CatalogError("another program has the catalog open, or did not close it", file=str(file))
        self._run(f"ATTACH {_quoted(file)} AS old_file (READ_ONLY)")
        return f"SELECT {columns} FROM old_file.members"  # noqa: S608 - our own names

    def _run(self, query: str) -> duckdb.DuckDBPyConnection:
        return self.connection.execute(query)


def _rows_of(bundle: Bundle) -> list[tuple[Any, ...]]:
    index = bundle.index
    heading = (bundle.size, index.bundle, index.created, index.request_id, bundle.sha256)
    return [
        (*heading, origin, *member[:6], member.start, member.length, member.crc32)
        for member, origin in zip(bundle, bundle.provenance(), strict=True)
    ]


def _quoted(path: object) -> str:
    """A path as a text of SQL."""
    return "'" + str(path).replace("'", "''") + "'"


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        problem = str(error).partition("\n")[0]
        raise CatalogError("the catalog cannot be read or written", file=str(file), problem=problem) from error
