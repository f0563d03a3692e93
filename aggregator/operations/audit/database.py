"""
What an audit has found, held against each other by DuckDB, on disk, in bounded memory. Knows no AWS.

    objects      the source, as it was listed              number, key, version, version_id, etag, size, modified
    claims       what the ledger says of each object       number, bundle, etag, lapses, released
    bundles      every bundle that was read                number, key, url, created, modified, size, members, archived
    entries      the members of their indexes              bundle, key, version, version_id, etag, size
    copies       copies in the archive                    key, version_id, etag, size, modified
    rejections     what the ledger says was rejected         object, reason, message, time
    settled      bundles with a settle record              bundle
    unreadable   objects among the bundles that are not    url, why
    gone         versions that were deleted                key

Numbers count from 0 and join the tables; `version` is empty where a key is bundled once whatever is stored under it.
Times are seconds since the epoch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import duckdb

from aggregator.operations.audit.queries import (
    CANDIDATES,
    FINDING,
    FINDINGS,
    HELD,
    REPEATED,
    TOTALS,
    VERDICTS,
    Parameters,
    numbered,
)
from aggregator.operations.rows import add_rows

PAGE = 10_000
"""Rows handed out at once."""

MOST_BUNDLES = 4
"""Most bundles that an object is looked for in; usually there is one."""

_TABLES = {
    "objects": {
        "number": "BIGINT",
        "key": "VARCHAR",
        "version": "VARCHAR",
        "version_id": "VARCHAR",
        "etag": "VARCHAR",
        "size": "BIGINT",
        "modified": "DOUBLE",
    },
    "claims": {
        "number": "BIGINT",
        "bundle": "VARCHAR",
        "etag": "VARCHAR",
        "lapses": "DOUBLE",
        "released": "BOOLEAN",
    },
    "bundles": {
        "number": "BIGINT",
        "key": "VARCHAR",
        "url": "VARCHAR",
        "created": "DOUBLE",
        "modified": "DOUBLE",
        "size": "BIGINT",
        "members": "BIGINT",
        "archived": "BOOLEAN",
    },
    "entries": {
        "bundle": "BIGINT",
        "key": "VARCHAR",
        "version": "VARCHAR",
        "version_id": "VARCHAR",
        "etag": "VARCHAR",
        "size": "BIGINT",
    },
    "copies": {"key": "VARCHAR", "version_id": "VARCHAR", "etag": "VARCHAR", "size": "BIGINT", "modified": "DOUBLE"},
    "rejections": {"object": "VARCHAR", "reason": "VARCHAR", "message": "VARCHAR", "time": "DOUBLE"},
    "settled": {"bundle": "VARCHAR"},
    "unreadable": {"url": "VARCHAR", "why": "VARCHAR"},
    "gone": {"key": "VARCHAR"},
}

_THREADS = 2
"""Each costs DuckDB some memory of its own."""


class Candidate(NamedTuple):
    """
    A source object that may be deleted if its `verdict` is `safe`; then `bundles` are the keys of some that name it.

    `older` is how many older versions of it were listed, `several` whether it has any others. `why` says what is known
    of one that stays.
    """

    key: str
    version: str
    version_id: str | None
    etag: str
    size: int
    older: int
    several: bool
    verdict: Literal["safe", "young", "unbundled", "overwritten"]
    why: str | None
    bundles: tuple[str, ...]


class Database:
    """The tables of one audit, in a database below `folder` that uses no more than about `memory` (`256MB`)."""

    def __init__(self, folder: Path, *, memory: str) -> None:
        self._folder = folder
        config: dict[str, Any] = {
            "memory_limit": memory,
            "threads": _THREADS,
            "temp_directory": str(folder / "spill"),
            "preserve_insertion_order": False,
        }
        self._connection = duckdb.connect(str(folder / "audit.duckdb"), config=config)
        self._connection.begin()  # one transaction, never committed: nobody waits for a log to be written
        for table, columns in _TABLES.items():
            self._run(f"CREATE TABLE {table} ({', '.join(f'{name} {kind}' for name, kind in columns.items())})")

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def add(self, table: str, rows: Iterable[tuple[Any, ...]]) -> int:
        """Add rows, whose fields are in the order of the table's columns; how many they were."""
        return add_rows(self._connection, table, _TABLES[table], rows, self._folder)

    def objects(self) -> Iterator[list[tuple[int, str, str | None, str]]]:
        """Number, key, version id and entity tag of the objects without a claim so far, a page at a time."""
        for begin in range(0, self._count("objects"), PAGE):
            yield self._rows(
                """
                SELECT number, key, version_id, etag FROM objects ANTI JOIN claims USING (number)
                WHERE number >= $begin AND number < $end ORDER BY number
                """,
                begin=begin,
                end=begin + PAGE,
            )

    def forget_stale_claims(self) -> bool:
        """
        Forget the claims of objects that are in no bundle that was read; whether there are any.

        They were read before the bundles and the settle records that they would be judged by: docs/decisions/0018.
        """
        stale = """
            SELECT number FROM claims JOIN objects USING (number)
            ANTI JOIN entries ON entries.key = objects.key AND entries.version = objects.version
            WHERE NOT released
        """
        found = bool(self._rows(f"{stale} LIMIT 1"))
        self._run(f"DELETE FROM claims WHERE number IN ({stale})")  # noqa: S608 - our own query
        return found

    def unread_bundles(self) -> list[str]:
        """Bundles that claims name and that were not read, of objects that are in none that was."""
        rows = self._rows("""
            SELECT DISTINCT claims.bundle FROM claims JOIN objects USING (number)
            ANTI JOIN bundles ON bundles.key = claims.bundle
            ANTI JOIN entries ON entries.key = objects.key AND entries.version = objects.version
            WHERE NOT released ORDER BY ALL
        """)
        return [bundle for (bundle,) in rows]

    def only_copies(self) -> list[tuple[str, str | None, str, int, float]]:
        """Bundles in the archive, under whose key nothing was read in the distribution bucket."""
        return self._rows("SELECT * FROM copies ANTI JOIN bundles USING (key) ORDER BY key")

    def any_unexplained(self) -> bool:
        """Whether some object is in no bundle."""
        return bool(
            self._rows("""
            SELECT 1 FROM objects
            ANTI JOIN entries ON entries.key = objects.key AND entries.version = objects.version LIMIT 1
        """)
        )

    def classify(self, parameters: Parameters) -> dict[str, int]:
        """Hold everything against everything: how many objects, bundles, and findings of each kind there are."""
        self._run(REPEATED, ttl=parameters.ttl)
        self._run(HELD)
        self._run(VERDICTS, **_chosen(VERDICTS, parameters))
        self._run(FINDINGS, **_chosen(FINDINGS, parameters))
        self._parameters = parameters
        return {name: self._number(query) for name, query in TOTALS.items()}

    def candidates(self, until: float) -> Iterator[Candidate]:
        """The source objects, older versions first, then by bundle; what was modified at `until` or later is young."""
        self._run(CANDIDATES, until=until, most=MOST_BUNDLES)
        for begin in range(0, self._count("candidates"), PAGE):
            page = self._rows(
                "SELECT * EXCLUDE number FROM candidates WHERE number >= $begin AND number < $end ORDER BY number",
                begin=begin,
                end=begin + PAGE,
            )
            yield from (Candidate._make([*row, tuple(bundles)]) for *row, bundles in page)

    def gone(self, keys: Sequence[str]) -> dict[str, int]:
        """How many versions of each of these keys are in the table `gone`, if any."""
        return dict(
            self._rows("SELECT key, count(*) FROM gone WHERE key IN (SELECT unnest($keys)) GROUP BY key", keys=keys)
        )

    def shown(self, kinds: Sequence[str]) -> Iterator[dict[str, Any]]:
        """What the totals `kinds` count, one thing after the other, after `classify`."""
        query = numbered(kinds)
        self._run(query, **_chosen(query, self._parameters))
        for begin in range(0, self._count("numbered"), PAGE):
            page = self._rows(
                "SELECT * EXCLUDE number FROM numbered WHERE number >= $begin AND number < $end ORDER BY number",
                begin=begin,
                end=begin + PAGE,
            )
            for row in page:
                yield {name: value for name, value in zip(FINDING, row, strict=True) if value is not None}

    def _count(self, table: Literal["objects", "numbered", "candidates"]) -> int:
        return self._number(f"SELECT count(*) FROM {table}")  # noqa: S608 - our own names

    def _number(self, query: str) -> int:
        ((number,),) = self._rows(query)
        return int(number)

    def _rows(self, query: str, **values: Any) -> list[Any]:
        return self._connection.execute(query, values).fetchall()

    def _run(self, query: str, **values: Any) -> None:
        self._connection.execute(query, values)


def _chosen(query: str, parameters: Parameters) -> Mapping[str, Any]:
    """The terms that a query names."""
    return {name: value for name, value in parameters._asdict().items() if f"${name}" in query}
