"""
The public API: what docs/api.md lists, and whether a change breaks who depends on it.

    python -m deploy.api write     writes the list into the page
    python -m deploy.api check     compares the code with the page of the last tag; without a tag, with the page

The list is read from the code by griffe: names, signatures, and the first sentence of each docstring.
"""

import argparse
import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import griffe

from aggregator.exceptions import AggregatorError

ROOT = Path(__file__).parent.parent
PAGE = Path("docs") / "api.md"

PUBLIC = {
    "app": ["handler"],
    "reader": ["Bundle", "Member", "Proof", "BundleIndex"],
    "exceptions": [
        *("AggregatorError", "BundleFormatError", "BundleVersionError", "ClosedBundleError", "OpeningError"),
        *("ConfigurationError", "WrongTriggerError", "LedgerUnavailableError"),
    ],
    "schemas": ["BODY", "ObjectRef", "S3Notification", "EventBridgeNotification", "SqsBatch"],
}
"""The modules and the names in them that others may depend on."""

_BEGIN, _END = "<!-- written by `just api` -->\n", "<!-- end -->"


class BreakError(AggregatorError):
    """The public API breaks, and neither the version nor the changelog says so."""

    reason = "break"


@functools.cache
def listed() -> str:
    """The public API, as a block of Python per module, in which each name has the first sentence of its docstring."""
    package = griffe.load("aggregator", search_paths=[ROOT])
    blocks = []
    for module, names in PUBLIC.items():
        targets: list[Any] = [package[f"{module}.{name}"] for name in names]
        sources = [(target.final_target if target.is_alias else target).source for target in targets]
        stubs = _formatted([_Stub().visit(ast.parse(dedent(source))) for source in sources])
        blocks.append(f"### `aggregator.{module}`\n\n```python\n{stubs}```\n")
    return "\n".join(blocks)


def page(text: str, api: str) -> str:
    """The page `text`, with the list `api`."""
    before, _, rest = text.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{api}\n{_END}{rest.partition(_END)[2]}"


def breaks(old: str, new: str) -> list[str]:
    """What the list `new` takes away from who depends on the list `old`: one line per name."""
    before, after = _modules(old), _modules(new)
    gone = [f"{name}: the module was removed" for name in before if name not in after]
    kept = [(before[name], after[name]) for name in before if name in after]
    return gone + [_said(each) for pair in kept for each in griffe.find_breaking_changes(*pair)]


def check(old: str, new: str, *, released: str | None, version: str, changelog: str) -> None:
    """
    Accept a break only in a version that may have one, and if the changelog names it.

    `old` is the list of the version `released`, or the one of the page if nothing was released.

    Raises:
        BreakError: `new` breaks something without that.
    """
    found = breaks(old, new)
    text = changelog.partition(f"\n## [{(released or '').removeprefix('v')}]")[0]
    unnamed = [line for line in found if f"`{line.partition(':')[0].rpartition('.')[2]}" not in text]
    if found and not (released and _may_break(released, version)):
        raise BreakError(
            "the public API breaks. Keep what was there; or raise the version, name the break in CHANGELOG.md under "
            "Changed, and run `just api`",
            breaks=found,
        )
    if unnamed:
        raise BreakError("the public API breaks: name it in CHANGELOG.md under Changed", breaks=unnamed)


def last_tag() -> str | None:
    """The tag of the last release before this commit, if this is a checkout of git that has one."""
    try:
        return _git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*").strip()
    except (OSError, subprocess.CalledProcessError):
        return None


class _Stub(ast.NodeTransformer):
    """A definition as callers see it: without bodies, values and private names; of a docstring, the first sentence."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.body = list(_sentence(node)) or [ast.Expr(ast.Constant(...))]
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.bases = [base for base in node.bases if not ast.unparse(base).startswith("_")]
        members = [self.visit(child) for child in node.body if _is_public(child)]
        node.body = [*_sentence(node), *members] or [ast.Expr(ast.Constant(...))]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AnnAssign:
        node.value = ast.Constant(...) if node.value else None
        if ast.unparse(node.annotation).startswith("Annotated["):
            node.annotation = node.annotation.slice.elts[0]  # type: ignore[attr-defined]  # the bounds are the contract's
        return node


def _formatted(stubs: list[ast.Module]) -> str:
    """The stubs as `ruff format` has them, which formats the blocks of a page as well."""
    command = [sys.executable, "-m", "ruff", "format", "--config", str(ROOT / "pyproject.toml")]
    code = "\n".join(map(ast.unparse, stubs))
    command += ["--stdin-filename", "api.py", "-"]
    return subprocess.run(command, input=code, capture_output=True, text=True, encoding="utf-8", check=True).stdout


def _is_public(node: ast.stmt) -> bool:
    """Whether callers may use a member of a class: constructors are not for them."""
    if isinstance(node, ast.AnnAssign):
        return not ast.unparse(node.target).startswith("_")
    return isinstance(node, ast.FunctionDef) and (
        not node.name.startswith("_") or (node.name.endswith("__") and node.name not in {"__init__", "__str__"})
    )


def _sentence(node: ast.FunctionDef | ast.ClassDef) -> Iterator[ast.Expr]:
    paragraph = " ".join((ast.get_docstring(node) or "").partition("\n\n")[0].split())
    if found := re.match(r".+?\.(?= |$)", paragraph):
        yield ast.Expr(ast.Constant(found[0]))


def _modules(api: str) -> dict[str, griffe.Module]:
    blocks = re.findall(r"^### `([\w.]+)`\n\n```python\n(.*?)```", api, flags=re.MULTILINE | re.DOTALL)
    return {name: griffe.visit(name, filepath=Path(f"{name}.py"), code=code) for name, code in blocks}


def _said(breakage: griffe.Breakage) -> str:
    told = breakage.as_dict()
    return f"{told['object_path']}: {breakage.kind.value}"


def _may_break(released: str, version: str) -> bool:
    """Whether `version` may break what `released` has: another major version, or another minor one before 1.0."""
    old, new = (tuple(map(int, re.findall(r"\d+", each)[:2])) for each in (released, version))
    return new[:1] > old[:1] if old[0] else new > old


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the list, or say whether it breaks."""
    parser = argparse.ArgumentParser(prog="python -m deploy.api", description="Write or check the public API.")
    parser.add_argument("what", choices=["write", "check"])
    what = parser.parse_args(arguments).what
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    if what == "write":
        (ROOT / PAGE).write_text(page(text, listed()), encoding="utf-8")
        return 0
    tag = last_tag()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    try:
        old = _git("show", f"{tag}:{PAGE.as_posix()}") if tag else text
        check(old, listed(), released=tag, version=version, changelog=changelog)
    except BreakError as error:
        print(f"api: {error}", file=sys.stderr)
        return 1
    print(f"api: nothing that {tag or 'the page'} lists is broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
