"""
Write the page: one file of HTML that shows every contract and checks messages, and needs nothing else.

ajv generates the code that checks (`validators.py`). The page cannot load or send anything: its Content-Security-Policy
(W3C, CSP Level 3) names the hash of each script and of the style, and forbids everything else, `eval` included. The
build fails for a contract that the page cannot show or check.
"""

import json
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from string import Template
from typing import Any
from xml.etree import ElementTree as ET

from aggregator.contracts.gate.lint import lint
from aggregator.events import NO_CREATION
from contracts_site.fields import Node, UnshowableError, field_list
from contracts_site.markup import html, inline, prose, tag
from contracts_site.validators import compile_validators, without_references

_HERE = Path(__file__).parent
_COMMIT = 12
"""Digits of a commit that are shown."""

_PROFILES = {
    "producer": "what a sender may write; any other field is a fault",
    "consumer": "what the Lambda accepts; it ignores other fields",
}


def page(folder: Path, commit: str = "") -> str:
    """
    The page that shows what is published in `folder`, which is `contracts/`, and the commit that it was made from.

    Raises:
        UnshowableError: the page cannot show or check a schema, or a change belongs to no contract.
        MissingToolError: Node.js or ajv is not installed.

    """
    catalog = _json(folder / "catalog.json")["contracts"]
    changes = _changes((folder / "CHANGELOG.md").read_text(encoding="utf-8"), [one["name"] for one in catalog])
    style = _text("page.css")
    contracts = [_checked(folder, one) for one in catalog]
    scripts = [*judge_scripts(contracts), _text("page.js")]
    return Template(_text("page.html")).substitute(
        policy=_policy(style, scripts),
        style=style,
        scripts="".join(f"<script>{script}</script>\n" for script in scripts),
        data=_data(judge_data(contracts)),
        contents=html(_contents(catalog)),
        options=html(tag("option", _label(one), value=_label(one)) for one in catalog),
        commit=html([tag("code", commit[:_COMMIT] or "unknown")]),
        contracts=html(_section(folder, one, changes[one["name"]]) for one in catalog),
    )


def judge_scripts(contracts: list[dict[str, Any]]) -> list[str]:
    """The scripts that check messages, without the form."""
    schemas = {f"{one['label']} {profile}": schema for one in contracts for profile, schema in one["profiles"].items()}
    return [_text("reading.js"), compile_validators(schemas), _text("faults.js"), _text("judging.js")]


def judge_data(contracts: list[dict[str, Any]]) -> dict[str, Any]:
    """What these scripts read: the contracts, and the names of the events that create no object."""
    return {"contracts": contracts, "noCreation": sorted(NO_CREATION)}


def as_checked(label: str, profiles: dict[str, Node]) -> dict[str, Any]:
    """A contract as these scripts need it."""
    name, _, _ = label.partition("@")
    inlined = {profile: without_references(schema) for profile, schema in profiles.items()}
    return {"label": label, "name": name, "profiles": inlined}


def _policy(style: str, scripts: list[str]) -> str:
    hashes = " ".join(_source(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_source(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _data(value: Any) -> str:
    """JSON that ends no element of HTML."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")


def _checked(folder: Path, one: dict[str, Any]) -> dict[str, Any]:
    schemas = {profile: _json(folder / file["path"]) for profile, file in one["profiles"].items()}
    for profile, schema in schemas.items():
        for pointer, words in lint(schema, profile):
            raise UnshowableError(f"{one['profiles'][profile]['path']}: {pointer} {words}")
    return as_checked(_label(one), schemas)


def _contents(catalog: list[dict[str, Any]]) -> list[ET.Element]:
    return [tag("li", tag("a", one["name"], href=f"#{one['name']}"), _parts(one["name"])) for one in catalog]


def _parts(name: str) -> ET.Element:
    parts = ("fields", "examples", "changes")
    return tag("ul", *(tag("li", tag("a", part.capitalize(), href=f"#{name}-{part}")) for part in parts))


def _section(folder: Path, one: dict[str, Any], changes: list[ET.Element]) -> ET.Element:
    name = one["name"]
    version = tag("span", f"{one['version']} {one['status']}", class_="version")
    heading = tag("h2", name, " ", version, id=f"{name}-title")
    deprecated = f" It is withdrawn after {one['deprecated_after']}." if one["deprecated_after"] else ""
    return tag(
        "section",
        heading,
        tag("p", *inline(one["summary"]), class_="lead"),
        tag("p", f"Written by {one['written_by']}.{deprecated}"),
        tag("h3", "Fields", id=f"{name}-fields"),
        *_profiles(folder, one),
        tag("h3", "Examples", id=f"{name}-examples"),
        _examples(folder, one, "valid"),
        _examples(folder, one, "invalid"),
        tag("h3", "Changes", id=f"{name}-changes"),
        *changes,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _profiles(folder: Path, one: dict[str, Any]) -> list[ET.Element]:
    """What each profile says, the first one open."""
    first, *others = (_profile(folder, profile, file) for profile, file in one["profiles"].items())
    first.set("open", "")
    return [first, *others]


def _profile(folder: Path, profile: str, file: dict[str, Any]) -> ET.Element:
    schema = _json(folder / file["path"])
    told = tag("summary", tag("strong", profile.capitalize()), f": {_PROFILES[profile]}")
    raw = tag(
        "details",
        tag("summary", "JSON Schema"),
        tag(
            "p",
            "Id ",
            tag("code", file["id"]),
            ", file ",
            tag("code", file["path"]),
            ", SHA-256 ",
            _code(file["sha256"]),
        ),
        tag("pre", tag("code", _pretty(schema))),
        class_="source",
    )
    return tag("details", told, *field_list(schema), raw, class_="profile")


def _examples(folder: Path, one: dict[str, Any], kind: str) -> ET.Element:
    files = one["examples"][kind]
    rows = (tag("li", _example(folder, _label(one), file)) for file in files)
    return tag("details", tag("summary", f"{len(files)} {kind}"), tag("ul", *rows, class_="examples"))


def _example(folder: Path, label: str, file: dict[str, Any]) -> ET.Element:
    text = (folder / file["path"]).read_text(encoding="utf-8").rstrip()
    words = Path(file["path"]).stem.replace("-", " ")
    button = tag("button", "Check it", type="button", aria_label=f"Check it: {words}", data_contract=label)
    told: list[ET.Element] = []
    if "expect" in file:
        expected = _json(folder / file["expect"])
        button.set("data-profile", expected["rejected_by"][0])
        told = _expected(expected)
    return tag("details", tag("summary", words), *told, tag("pre", tag("code", text)), button)


def _expected(expected: dict[str, Any]) -> list[ET.Element]:
    profiles = " and ".join(expected["rejected_by"])
    place = _code(expected["pointer"] or "(root)")
    why = expected["why"]
    return [
        tag("p", f"The {profiles} profile must report ", _code(expected["keyword"]), " at ", place),
        tag("p", *inline(f"{why[0].upper()}{why[1:]}.")),
    ]


def _changes(text: str, names: list[str]) -> dict[str, list[ET.Element]]:
    """The changelog by contract: each heading names one, and a version."""
    found: dict[str, list[ET.Element]] = {name: [] for name in names}
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        name, _, version = heading.partition(" ")
        if name not in found:
            raise UnshowableError(f"CHANGELOG.md: no contract is called {name}")
        found[name] += [tag("h4", version), *prose(body)]
    return found


def _label(one: dict[str, Any]) -> str:
    return f"{one['name']}@{one['major']}"


def _code(text: str) -> ET.Element:
    return tag("code", text)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
