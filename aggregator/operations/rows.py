"""Rows into a table of DuckDB, in batches, so that memory does not depend on how many there are."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

_BATCH_BYTES = 32 * 1024 * 1024


def add_rows(
    connection: "duckdb.DuckDBPyConnection",
    table: str,
    columns: Mapping[str, str],
    rows: Iterable[tuple[Any, ...]],
    folder: Path,
) -> int:
    """
    Add rows, whose fields are in the order of `columns` (name and type); how many they were.

    They go through a file in `folder`.
    """
    path, count = folder / f"{table}.json", 0
    lines = (json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows)
    batch = _next(lines, path)
    while batch:
        count += batch
        query = f"INSERT INTO {table} SELECT * FROM read_json($path, format = 'nd', columns = $columns)"  # noqa: S608 - our own names
        connection.execute(query, {"path": str(path), "columns": dict(columns)})
        batch = _next(lines, path)
    path.unlink()
    return count


def _next(lines: Iterator[str], path: Path) -> int:
    """Write the next lines into the file; how many they are."""
    count = size = 0
    with path.open("w", encoding="ascii") as file:
        for line in lines:
            file.write(line)
            count, size = count + 1, size + len(line)
            if size > _BATCH_BYTES:
                break
    return count
