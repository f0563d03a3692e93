"""
How verdicts are printed: lines for people, JSON, JUnit XML for any CI, and annotations for GitHub.

Text and annotations are written as verdicts come; the other two are one document at the end.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from aggregator.exceptions import AggregatorError

if TYPE_CHECKING:
    from aggregator.contracts.validation import Fault, Verdict


class Format(StrEnum):
    """The forms of a report."""

    text = "text"
    json = "json"
    junit = "junit"
    github = "github"


class Finding(NamedTuple):
    """One fault of one message, and where it stands."""

    file: str
    line: int
    verdict: "Verdict"
    fault: "Fault"

    @property
    def place(self) -> str:
        """The pointer, behind that of the text which holds the message: `/Records/0/body#/detail/object/key`."""
        held = f"{self.verdict.at}#{self.fault.pointer}" if self.verdict.at else self.fault.pointer
        return held or "(root)"


class Tally(NamedTuple):
    """How many messages were judged, how many were refused, and which files could not be read, and why."""

    messages: int
    invalid: int
    unread: dict[str, str]


class _Counts:
    """A tally while it is taken."""

    def __init__(self) -> None:
        self.messages = self.invalid = 0
        self.unread = dict[str, str]()


def write_report(form: Format, files: Iterable[tuple[str, Iterable["Verdict"]]], write: Callable[[str], None]) -> Tally:
    """Tell all verdicts, by file, in one of the forms; a file that cannot be read does not keep the others from it."""
    counts = _Counts()
    named = ((_printable(name), verdicts) for name, verdicts in files)
    findings = ((name, _findings(name, verdicts, counts)) for name, verdicts in named)
    _WRITERS[form](findings, counts, write)
    return Tally(counts.messages, counts.invalid, counts.unread)


def _findings(file: str, verdicts: Iterable["Verdict"], counts: _Counts) -> Iterator[Finding]:
    try:
        for verdict in verdicts:
            counts.messages += 1
            counts.invalid += bool(verdict.faults)
            for line, fault in zip(verdict.lines, verdict.faults, strict=True):
                yield Finding(file, line, verdict, fault)
    except FileNotFoundError:
        counts.unread[file] = f"no such file: {file}"
    except IsADirectoryError:
        counts.unread[file] = f"this is a folder, name the files in it: {file}"
    except (AggregatorError, OSError) as error:
        counts.unread[file] = str(error)


_Findings = Iterable[tuple[str, Iterator[Finding]]]


def _text(files: _Findings, _counts: _Counts, write: Callable[[str], None]) -> None:
    for _, findings in files:
        for finding in findings:
            write(_sentence(finding))


def _github(files: _Findings, _counts: _Counts, write: Callable[[str], None]) -> None:
    """Workflow commands: GitHub Docs, "Workflow commands for GitHub Actions", Setting an error message."""
    for _, findings in files:
        for found in findings:
            fault = found.fault
            place = f"file={_property(found.file)},line={found.line},title={_property(f'contract: {fault.keyword}')}"
            write(f"::error {place}::{_data(f'{found.place}: {fault.problem}: {fault.remedy}')}")


def _json(files: _Findings, counts: _Counts, write: Callable[[str], None]) -> None:
    faults = [
        {
            "file": found.file,
            "line": found.line,
            "contract": found.verdict.contract,
            "at": found.verdict.at,
            **found.fault._asdict(),
        }
        for _, findings in files
        for found in findings
    ]
    unread = [{"file": file, "problem": problem} for file, problem in counts.unread.items()]
    report = {"messages": counts.messages, "invalid": counts.invalid, "unread": unread, "faults": faults}
    write(json.dumps(report, indent=2))


def _junit(files: _Findings, counts: _Counts, write: Callable[[str], None]) -> None:
    """A test case for each file, as Jenkins and GitLab read it."""
    cases = [(file, [_sentence(finding) for finding in findings]) for file, findings in files]
    failed = sum(bool(sentences) for _, sentences in cases)
    write('<?xml version="1.0" encoding="UTF-8"?>')
    write(
        f'<testsuite name="aggregator contract validate" tests="{len(cases)}" failures="{failed}"'
        f' errors="{len(counts.unread)}">'
    )
    for file, sentences in cases:
        write(f'  <testcase classname="contract" name={quoteattr(file)}>')
        if sentences:
            faults = "1 fault" if len(sentences) == 1 else f"{len(sentences):,} faults"
            write(f"    <failure message={quoteattr(faults)}>{escape(chr(10).join(sentences))}</failure>")
        if file in counts.unread:
            write(f"    <error message={quoteattr(counts.unread[file])}/>")
        write("  </testcase>")
    write("</testsuite>")


_WRITERS: dict[Format, Callable[[_Findings, _Counts, Callable[[str], None]], None]] = {
    Format.text: _text,
    Format.json: _json,
    Format.junit: _junit,
    Format.github: _github,
}


def _sentence(finding: Finding) -> str:
    fault = finding.fault
    return f"{finding.file}:{finding.line} {finding.place}: {fault.keyword}: {fault.problem}: {fault.remedy}"


def _printable(name: str) -> str:
    """A file's name without what no terminal, JSON or XML carries."""
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in name)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
