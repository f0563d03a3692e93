"""Check messages against a contract: python check.py SCHEMA FILE… (needs jsonschema-rs, and nothing of ours)."""

import json
import sys
from pathlib import Path

import jsonschema_rs


def faults(validator, message):
    """The pointer and the keyword of each fault; that of a missing or unknown field is its own."""
    for error in validator.iter_errors(message):
        keyword, steps = error.kind.name, list(error.instance_path)
        if keyword == "required":
            names = [error.kind.property]
        elif keyword == "additionalProperties":
            names = error.kind.unexpected
        else:
            names = [None]
        for name in names:
            path = steps if name is None else [*steps, name]
            yield "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path), keyword


USAGE = "usage: python check.py SCHEMA FILE…, where SCHEMA is a JSON Schema with $schema"

if len(sys.argv) < 3:
    print(USAGE, file=sys.stderr)
    sys.exit(2)
_, schema_file, *files = sys.argv
if "$schema" not in json.loads(Path(schema_file).read_text(encoding="utf-8")):
    print(USAGE, file=sys.stderr)
    sys.exit(2)
validator = jsonschema_rs.validator_for(json.loads(Path(schema_file).read_text(encoding="utf-8")))
status = 0
for file in files:
    try:
        message = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        print(f"{file}: cannot be read as JSON: {error}", file=sys.stderr)
        status = 2
        continue
    for pointer, keyword in faults(validator, message):
        print(file, pointer or "(root)", keyword)
        status = status or 1
sys.exit(status)
