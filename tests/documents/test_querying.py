"""The queries of docs/querying.md, as they stand there, over real bundles: DuckDB, and Spark where it is installed."""

import gzip
import json
import re
import shlex
import shutil
import time
from codecs import BOM_UTF8
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from aggregator.commands.main import app
from aggregator.operations.catalog import COLUMNS
from aggregator.pipeline.core import empty_bundle
from aggregator.pipeline.planning import bundle_key
from fixtures import generate
from tests.support import ROOT
from tests.support.stack import resources

pytestmark = pytest.mark.once

PAGE = (ROOT / "docs" / "querying.md").read_text(encoding="utf-8")

HOURS = {"08": 3, "09": 30_000}
"""Lines in the one bundle of each hour; many enough for several blocks."""


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Bundles below the working directory, and an empty one; their lines, by hour."""
    monkeypatch.chdir(tmp_path)
    lines = {hour: [f'{{"order":{at},"cents":{at % 7}}}' for at in range(count)] for hour, count in HOURS.items()}
    for hour, text in lines.items():
        members = {f"orders/{at}.json": "\n".join(text[at::3]).encode() for at in range(3)}
        monkeypatch.setitem(generate.GOLDEN, f"{hour}.gz", ("lines", 1, members))
        _write(f"bundles/2026/11/23/{hour}/bundle-one.gz", generate.golden(f"{hour}.gz"))
    _write("bundles/2026/11/23/09/bundle-closed.gz", empty_bundle("closed", 0, "request"))
    return lines


def test_duckdb_reads_each_line_once_and_knows_the_hour(bundles: dict[str, list[str]]) -> None:
    summed, raw = _blocks("DuckDB", "sql")

    rows = duckdb.execute(summed).fetchall()
    lines = duckdb.execute(raw).fetchall()

    assert rows == [(f"2026/11/23/{hour}", len(text), _cents(text)) for hour, text in bundles.items()]
    assert lines == [(line,) for line in sorted(line for text in bundles.values() for line in text)]


def test_duckdb_reads_the_lines_of_members_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ['{"order": 1}', 'a;b;"not closed', '"c","d ""e"" f"', "back\\slash", "tab\tand \x01", "größe 😀", "last"]
    members = {"mixed": "\n".join(lines).encode(), "binary": bytes(range(128, 256))}
    monkeypatch.setitem(generate.GOLDEN, "mixed.gz", ("lines", 1, members))
    _write("bundles/2026/11/23/16/bundle-mixed.gz", generate.golden("mixed.gz"))
    _, raw = _blocks("DuckDB", "sql")

    assert duckdb.execute(raw).fetchall() == [(line,) for line in sorted(lines)]


def test_duckdb_reads_lines_after_a_byte_order_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    members = {str(at): BOM_UTF8 + b'{"order": %d}\n{"order": %d}\nnote\n' % (2 * at, 2 * at + 1) for at in range(3)}
    monkeypatch.setitem(generate.GOLDEN, "marked.gz", ("lines", 1, members))
    _write("bundles/2026/11/23/16/bundle-marked.gz", generate.golden("marked.gz"))
    (query,) = _blocks("Members that are not text", "sql")

    assert duckdb.execute(query).fetchall() == [(order,) for order in range(6)]


def test_each_query_of_the_readme_and_the_page_reads_the_bundle_that_the_readme_has_just_made(
    samples_bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write("bundles/2026/11/23/16/bundle-samples.gz", samples_bundle)
    lines = gzip.decompress(samples_bundle).decode().splitlines()
    orders = [json.loads(line) for line in lines if line.startswith("{")]
    (readmes,) = re.findall(r"```sql\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    summed, raw = _blocks("DuckDB", "sql")

    found = duckdb.execute(readmes).fetchall()

    assert len(orders) == len(lines) - 1  # the note, which is no JSON
    assert sorted(found) == sorted(tuple(order.values()) for order in orders)
    assert duckdb.execute(summed).fetchall() == [
        ("2026/11/23/16", len(orders), sum(order["cents"] for order in orders))
    ]
    assert duckdb.execute(raw).fetchall() == [(line,) for line in sorted(lines)]


def test_the_catalog_of_the_page_answers_its_queries_and_has_the_columns_that_the_page_names(
    samples_bundle: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("15/bundle-copy.gz", "16/bundle-samples.gz"):
        _write(f"bundles/2026/11/23/{name}", samples_bundle)
    (command,) = _blocks("A catalog of all members", "sh")
    latest, repeated = _blocks("A catalog of all members", "sql")
    (table,) = re.findall(r"^\| column .*?(?=\n\n)", PAGE, flags=re.MULTILINE | re.DOTALL)

    made = CliRunner().invoke(app, shlex.split(command)[1:])

    columns = [
        name for cell in re.findall(r"^\| (`.*?) \|", table, flags=re.MULTILINE) for name in re.findall(r"\w+", cell)
    ]
    assert (made.exit_code, made.stdout) == (0, "catalog.parquet\n")
    assert [row[1] for row in duckdb.execute(latest).fetchall()] == ["orders/08/order 000.json.gz"] * 2 + [
        "orders/08/order 001.json"
    ]
    assert len(duckdb.execute(repeated).fetchall()) == len(generate.samples())
    assert columns == list(COLUMNS)


def test_spark_reads_each_line_once(bundles: dict[str, list[str]]) -> None:
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    (program,) = _blocks("Spark", "python")
    builder = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    spark = (
        builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1").getOrCreate()
    )

    scope: dict[str, Any] = {"spark": spark}
    try:
        exec(compile(program, "docs/querying.md", "exec"), scope)
        sums = sorted(row[1] for row in scope["by_file"].collect())
        lines = sorted(row[0] for row in scope["lines"].collect())
    finally:
        spark.stop()

    assert sums == sorted(_cents(text) for text in bundles.values())
    assert lines == sorted(line for text in bundles.values() for line in text)


def test_athena_looks_for_an_hour_where_its_bundles_are_put() -> None:
    table = resources()["BundlesTable"].properties["TableInput"]
    now = time.time()

    hour = f"{datetime.fromtimestamp(now, UTC):%Y/%m/%d/%H}"  # projection.hour.format, in Python's words
    location = table["Parameters"]["storage.location.template"].replace("${hour}", hour)

    assert table["Parameters"]["projection.hour.format"] == "yyyy/MM/dd/HH"
    assert f"s3://stack-distribution/{bundle_key(now, 'request', 'suffix')}".startswith(location)


def test_the_page_asks_athena_for_the_tables_own_columns() -> None:
    table = resources()["BundlesTable"].properties["TableInput"]

    query, view = _blocks("Athena", "sql")

    columns = {each["Name"] for each in (*table["StorageDescriptor"]["Columns"], *table["PartitionKeys"])}
    assert columns == {"line", "hour"}
    assert f"FROM {table['Name']}\n" in query
    assert f"FROM {table['Name']};" in view
    assert re.findall(r"'(\d{4}/\d\d/\d\d/\d\d)'", query) == ["2026/11/23/08", "2026/11/23/16"]


def _blocks(section: str, language: str) -> list[str]:
    (text,) = re.findall(rf"^## {section}$(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _cents(lines: list[str]) -> int:
    return sum(at % 7 for at in range(len(lines)))


def _write(name: str, body: bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(body)
