"""
Whether every validator reads a schema alike: jsonschema-rs, python-jsonschema and ajv, in both drafts.

jsonschema-rs is what the command line judges by; the others speak for the producers that use them. python-jsonschema
and ajv are asked if they are installed (ajv: `npm ci` in `contracts/snippets/node`); the gate says if they were not.
"""

import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema_rs

from aggregator.contracts.catalog import DRAFT_07

SAMPLE = 1_000
"""How many changed examples the slower validators judge of each schema."""

_SECONDS = 120


def differences(schema: dict[str, Any], twin: dict[str, Any], documents: Sequence[Any]) -> Iterator[str]:
    """Where a schema, its twin and python-jsonschema part on documents; something that is not a schema ends it."""
    for one in (schema, twin):
        if fault := fault_of(one):
            yield f"{one['$id']} is not a schema of its dialect: {fault}"
            return
    verdicts = _verdicts(schema, documents)
    yield from _compared("the draft-07 twin", verdicts, _verdicts(twin, documents), documents)
    if find_spec("jsonschema") is not None:
        few, by_us = _few(documents), _verdicts(schema, _few(documents))
        for one in (schema, twin):
            yield from _compared("python-jsonschema", by_us, _by_python(one, few), few)


def fault_of(schema: Any) -> str:
    """Why a document is not a JSON Schema of the dialect that it names; empty if it is one."""
    try:
        jsonschema_rs.meta.validate(schema)
        jsonschema_rs.validator_for(schema)
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
        return str(error).partition("\n")[0]
    return ""


def ajv_differences(folder: Path, schema_file: Path, documents: Sequence[Any]) -> Iterator[str]:
    """Where ajv, in strict mode, and jsonschema-rs part on a schema file; `folder` is `contracts/`."""
    few = _few(documents)
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "documents.jsonl"
        lines.write_text("".join(f"{json.dumps(document)}\n" for document in few), encoding="utf-8")
        command = ["node", str(_ajv(folder)), str(schema_file), str(lines)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.stderr:
        reasons = [line for line in done.stderr.splitlines() if "Error: " in line]
        yield f"ajv rejects the schema: {reasons[0] if reasons else done.stderr[:200]}"
        return
    refused = {int(line.split(" ")[0].rpartition(":")[2]) for line in done.stdout.splitlines()}
    by_ajv = [number not in refused for number in range(1, len(few) + 1)]
    schema = json.loads(schema_file.read_text(encoding="utf-8"))
    yield from _compared("ajv", _verdicts(schema, few), by_ajv, few)


def missing(folder: Path) -> list[str]:
    """What is not installed of the validators that others use."""
    absent = [] if find_spec("jsonschema") is not None else ["python-jsonschema (pip install jsonschema)"]
    if shutil.which("node") is None:
        return [*absent, "node"]
    if not (_ajv(folder).parent / "node_modules" / "ajv").is_dir():
        return [*absent, f"ajv (npm ci --prefix {_ajv(folder).parent})"]
    return absent


def _ajv(folder: Path) -> Path:
    return folder / "snippets" / "node" / "check.mjs"


def _few(documents: Sequence[Any]) -> Sequence[Any]:
    return documents if len(documents) <= SAMPLE else random.Random(SAMPLE).sample(documents, SAMPLE)  # noqa: S311


def _verdicts(schema: dict[str, Any], documents: Sequence[Any]) -> list[bool]:
    validator = jsonschema_rs.validator_for(schema)
    return [validator.is_valid(document) for document in documents]


def _by_python(schema: dict[str, Any], documents: Sequence[Any]) -> list[bool]:
    jsonschema = import_module("jsonschema")
    kind = jsonschema.Draft7Validator if schema["$schema"] == DRAFT_07 else jsonschema.Draft202012Validator
    kind.check_schema(schema)
    validator = kind(schema)
    return [validator.is_valid(document) for document in documents]


def _compared(who: str, ours: list[bool], theirs: list[bool], documents: Sequence[Any]) -> Iterator[str]:
    for mine, other, document in zip(ours, theirs, documents, strict=True):
        if mine != other and not (who == "python-jsonschema" and _ends_in_a_line_feed(document)):
            yield f"{who} {'accepts' if other else 'refuses'} what jsonschema-rs does not: {json.dumps(document)[:400]}"


def _ends_in_a_line_feed(document: Any) -> bool:
    """Python's `re` also matches `$` before a final line feed; ECMA 262, which JSON Schema relies on, does not."""
    return '\\n"' in json.dumps(document)
