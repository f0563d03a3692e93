"""
Write the page: one file of HTML that holds every contract, and the judge, and needs nothing else.

The page may not load or send anything: its Content-Security-Policy (W3C, CSP Level 3) names the hash of each script and
of the style, and forbids all else. What it cannot show or judge, it refuses to be built from.
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
from contracts_site.fields import UnshowableError, field_list
from contracts_site.markup import html, inline, prose, tag

SCRIPTS = ("reading.js", "schema.js", "judging.js", "page.js")

_HERE = Path(__file__).parent
_PROFILES = {
    "producer": "what one may write: any other field is refused",
    "consumer": "what is accepted: other fields are ignored",
}


def page(folder: Path) -> str:
    """
    The page that shows what is published in `folder`, which is `contracts/`.

    Raises:
        UnshowableError: a schema uses a keyword that the page does not judge by, or a change belongs to no contract.

    """
    catalog = _json(folder / "catalog.json")["contracts"]
    changes = _changes((folder / "CHANGELOG.md").read_text(encoding="utf-8"), [one["name"] for one in catalog])
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    scripts = [(_HERE / name).read_text(encoding="utf-8") for name in SCRIPTS]
    return Template((_HERE / "page.html").read_text(encoding="utf-8")).substitute(
        policy=_policy(style, scripts),
        style=style,
        scripts="".join(f"<script>{script}</script>\n" for script in scripts),
        data=_data([_judged(folder, one) for one in catalog]),
        contents=html(_contents(catalog)),
        options=html(tag("option", _label(one), value=_label(one)) for one in catalog),
        contracts=html(_section(folder, one, changes[one["name"]]) for one in catalog),
    )


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


def _judged(folder: Path, one: dict[str, Any]) -> dict[str, Any]:
    """A contract as the judge in the page needs it."""
    schemas = {profile: _json(folder / file["path"]) for profile, file in one["profiles"].items()}
    for profile, schema in schemas.items():
        for pointer, words in lint(schema, profile):
            raise UnshowableError(f"{one['profiles'][profile]['path']}: {pointer} {words}")
    return {"label": _label(one), "name": one["name"], "profiles": schemas}


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
    judges = " and ".join(expected["rejected_by"])
    place = _code(expected["pointer"] or "(root)")
    why = expected["why"]
    return [
        tag("p", f"The {judges} must report ", _code(expected["keyword"]), " at ", place),
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


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
