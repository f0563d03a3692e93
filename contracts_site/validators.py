"""
The code that judges in the page: ajv generates it from the schemas when the page is built (docs/decisions/0024).

`npm ci --prefix contracts/snippets/node` installs ajv, for producers and for the page.
"""

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contracts_site.fields import Node, UnshowableError

_HERE = Path(__file__).parent
_AJV = _HERE.parent / "contracts" / "snippets" / "node" / "node_modules" / "ajv"
_SECONDS = 120


class MissingToolError(RuntimeError):
    """Node.js or ajv is not installed."""


def are_tools_here() -> bool:
    """Whether Node.js and ajv are installed."""
    return shutil.which("node") is not None and _AJV.is_dir()


def compile_validators(schemas: Mapping[str, Node]) -> str:
    """
    JavaScript that declares `VALIDATORS`: for each name, the function that judges by its schema.

    Raises:
        MissingToolError: Node.js or ajv is not installed.
        UnshowableError: ajv cannot compile a schema.

    """
    if not are_tools_here():
        raise MissingToolError(
            "the page needs Node.js and ajv: install Node.js, then run `npm ci --prefix contracts/snippets/node`"
        )
    command = ["node", str(_HERE / "compile.mjs")]
    done = subprocess.run(
        command, input=json.dumps(schemas), capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if "Error: " in line]
        raise UnshowableError(f"ajv cannot compile a schema: {reasons[0] if reasons else done.stderr[:200]}")
    return done.stdout


def without_references(schema: Node) -> Node:
    """
    The schema with each `$ref` replaced by its target, so that the path of an error leads through the whole schema.

    Raises:
        UnshowableError: a `$ref` leads back to itself.

    """
    inlined: Node = _inline(schema, schema, ())
    return {keyword: inner for keyword, inner in inlined.items() if keyword not in {"$defs", "definitions"}}


def _inline(node: Any, root: Node, trail: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_inline(inner, root, trail) for inner in node]
    if not isinstance(node, dict):
        return node
    if isinstance(reference := node.get("$ref"), str):
        if reference in trail:
            raise UnshowableError(f"{reference} leads back to itself")
        return _inline(_target(reference, root), root, (*trail, reference))
    return {name: _inline(inner, root, trail) for name, inner in node.items()}


def _target(reference: str, root: Node) -> Node:
    found = root
    for step in reference.split("/")[1:]:
        found = found[step]
    return found
