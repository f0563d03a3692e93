"""
The gate that a change of the contracts must pass, in CI: `just contracts-check`.

    drift          contracts/ is what the models say
    lint           the schemas keep to the portable subset, closed for who writes and open for who reads
    portability    every validator reads them alike, in both drafts
    examples       each is judged as it is filed, and together they show every field and every demand
    agreement      model and schema say the same of whatever the factories build and of every small change of an example
    compatibility  every promise to producers and consumers is proven, for each released version (`containment.py`)
    version        the version says what kind of change it is, the changelog tells it, released files are untouched
    corpus         messages with known verdicts get them; only if a folder of them is given

What is not proven fails.
"""

import csv
import hashlib
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from aggregator.contracts.catalog import CONTRACTS, Contract, ContractError, Profile, read_json
from aggregator.contracts.documents import UnreadableError, messages, parsed
from aggregator.contracts.gate import agreement, examples, portability
from aggregator.contracts.gate.compatibility import Release, Schemas, breaks, covers
from aggregator.contracts.gate.lint import lint
from aggregator.contracts.gate.publishing import SOURCES, catalog, generate, text, twin, version_key
from aggregator.contracts.validation import Judge
from aggregator.schemas import BODY

NAMES = (
    "drift", "lint", "portability", "examples", "agreement", "compatibility", "version", "corpus",
)  # fmt: skip


class Check(NamedTuple):
    """What one check found, what it looked at, and what it could not look at."""

    name: str
    findings: list[str]
    note: str = ""
    missing: str = ""


class Gate:
    """The checks of one folder, which is `contracts/` of a checkout; `corpus` is a folder with INDEX.tsv."""

    def __init__(self, folder: Path, corpus: Path | None = None) -> None:
        if not (folder / "catalog.json").is_file():
            raise ContractError(f"{folder} has no contracts: catalog.json is missing")
        self._folder = folder
        self._corpus = corpus

    def checks(self, names: Collection[str] = NAMES) -> Iterator[Check]:
        """The checks of these names, one after the other; that of a corpus only if there is one."""
        made: dict[str, Callable[[], Check]] = {
            "drift": self._drift,
            "lint": lambda: _of_each("lint", self._linted),
            "portability": self._portability,
            "examples": lambda: _of_each("examples", self._misjudged),
            "agreement": lambda: _of_each("agreement", self._disagreements),
            "compatibility": lambda: _of_each("compatibility", self._breaks),
            "version": lambda: _of_each("version", self._version_faults),
            "corpus": self._judged_corpus,
        }
        return (made[name]() for name in names if name != "corpus" or self._corpus)

    @cached_property
    def _schemas(self) -> dict[str, Schemas]:
        return {one.name: self._read_schemas(one, self._folder / one.folder) for one in CONTRACTS}

    @cached_property
    def _examples(self) -> dict[str, examples.Examples]:
        return {one.name: examples.load(self._folder, one) for one in CONTRACTS}

    @cached_property
    def _changed(self) -> dict[str, list[Any]]:
        return {one.name: list(agreement.changed(self._examples[one.name].documents)) for one in CONTRACTS}

    def _drift(self) -> Check:
        wanted = generate() | {"catalog.json": text(catalog(self._folder))}
        found = {path.relative_to(self._folder).as_posix() for path in self._folder.rglob("*.schema.json")}
        stale = [path for path, content in wanted.items() if _text(self._folder / path) != content]
        strays = [path for path in sorted(found - wanted.keys()) if "/released/" not in path]
        findings = [f"{path} is not what the models say: run `just contracts`" for path in stale]
        return Check("drift", findings + [f"{path} belongs to no contract" for path in strays], f"{len(wanted)} files")

    def _portability(self) -> Check:
        check = _of_each("portability", self._differences)
        return check._replace(missing=", ".join(portability.missing(self._folder)))

    def _linted(self, one: Contract) -> Iterator[str]:
        for profile, schema in self._schemas[one.name].items():
            yield from (f"{profile}: {pointer}: {words}" for pointer, words in lint(schema, profile))

    def _differences(self, one: Contract) -> Iterator[str]:
        documents = self._examples[one.name].documents + self._changed[one.name]
        for profile, schema in self._schemas[one.name].items():
            yield from portability.differences(schema, twin(schema), documents)
            if not portability.missing(self._folder):
                for file in (f"{profile}.schema.json", f"draft-07/{profile}.schema.json"):
                    yield from portability.ajv_differences(self._folder, self._folder / one.folder / file, documents)

    def _misjudged(self, one: Contract) -> Iterator[str]:
        return examples.misjudged(self._examples[one.name], self._schemas[one.name])

    def _disagreements(self, one: Contract) -> Iterator[str]:
        for profile, schema in self._schemas[one.name].items():
            model, mode = SOURCES[one.name, profile]
            if mode == "validation":
                documents = [*agreement.instances(model), *self._changed[one.name]]
                yield from agreement.disagreements(model, schema, documents)

    def _breaks(self, one: Contract) -> Iterator[str]:
        valid = list(self._examples[one.name].valid.values())
        return (str(broken) for broken in breaks(one, self._schemas[one.name], self._releases(one), valid))

    def _version_faults(self, one: Contract) -> Iterator[str]:
        yield from self._tampered(one)
        releases = {release.version: release for release in self._releases(one)}
        now = self._schemas[one.name]
        if one.version in releases and not _same(releases[one.version].schemas, now):
            yield f"{one.version} is released and not what the models say: give the change a version of its own"
        earlier = [release for version, release in releases.items() if version_key(version) < version_key(one.version)]
        kind = _kind(now, earlier[-1].schemas) if earlier else "first"
        if earlier and (wanted := _at_least(earlier[-1].version, kind)) > version_key(one.version):
            yield f"is a {kind} change since {earlier[-1].version}: the version must be {'.'.join(map(str, wanted))}"
        heading = f"## {one.name} {one.version} ({kind})"
        if heading not in _text(self._folder / "CHANGELOG.md").splitlines():
            yield f"CHANGELOG.md has no entry {heading!r}"

    def _tampered(self, one: Contract) -> Iterator[str]:
        index = read_json(self._folder / "catalog.json")
        for entry in (
            entry for known in index["contracts"] if known["name"] == one.name for entry in known["released"]
        ):
            for file in entry["files"]:
                path = self._folder / file["path"]
                if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
                    yield f"{file['path']} was released, and is not what it was"

    def _releases(self, one: Contract) -> list[Release]:
        snapshots = sorted((self._folder / one.folder).glob("released/*"), key=lambda path: version_key(path.name))
        return [
            Release(
                snapshot.name,
                self._read_schemas(one, snapshot),
                [parsed(line) for line in _text(snapshot / "examples.jsonl").splitlines()],
            )
            for snapshot in snapshots
        ]

    def _judged_corpus(self) -> Check:
        corpus = self._corpus or Path()
        with (corpus / "INDEX.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        judge = Judge("consumer")
        verdicts = [(row, _verdict(judge, (corpus / row["file"]).read_bytes())) for row in rows]
        findings = [
            f"{row['file']}: {got}, should be {row['expected']}" for row, got in verdicts if got != row["expected"]
        ]
        return Check("corpus", findings, f"{len(rows)} messages")

    def _read_schemas(self, one: Contract, folder: Path) -> dict[Profile, Any]:
        schemas: dict[Profile, Any] = {}
        for profile in one.profiles:
            path = folder / f"{profile}.schema.json"
            schemas[profile] = read_json(path)
            if fault := portability.fault_of(schemas[profile]):
                raise ContractError(f"{path} is not a JSON Schema: {fault}")
        return schemas


def _of_each(name: str, findings: Callable[[Contract], Iterator[str]]) -> Check:
    found = [f"{one.label}: {finding}" for one in CONTRACTS for finding in findings(one)]
    return Check(name, found, f"{len(CONTRACTS)} contracts")


def _kind(now: Schemas, then: Schemas) -> str:
    """Patch if the same messages are valid, else minor; a major one does not pass the gate."""
    same = all(covers(now[profile], then[profile]) and covers(then[profile], now[profile]) for profile in now)
    return "patch" if same else "minor"


def _at_least(version: str, kind: str) -> tuple[int, ...]:
    major, minor, patch = version_key(version)
    return (major, minor, patch + 1) if kind == "patch" else (major, minor + 1, 0)


def _same(released: Schemas, now: Schemas) -> bool:
    return all({**released[profile], "$id": ""} == {**now[profile], "$id": ""} for profile in now)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _verdict(judge: Judge, body: bytes) -> str:
    """What the Lambda does with a file of the corpus: a body, or an event with bodies."""
    content = parsed(body)
    held = [] if isinstance(content, UnreadableError) else list(messages(content, body))
    if not held or any(judge.message(message)[1] for message in held):
        return "reject"
    return "process" if any(_announces(message.text) for message in held) else "skip"


def _announces(body: str | bytes) -> bool:
    return any(not member.is_folder_marker for member in BODY.validate_json(body).objects())
