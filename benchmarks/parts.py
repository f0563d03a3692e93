"""
What the time of an object is made of: the stacks that py-spy saw, by the part of the story that they belong to.

Pure. The threads of obstore's runtime are none of Python's, so py-spy does not see them.
"""

from collections import Counter
from collections.abc import Iterable

_PARTS = {
    "clients: build those of the invocation": ("(aggregator/pipeline/clients.py", "(aggregator/aws.py"),
    "messages: parse and validate": (
        "(aggregator/schemas.py",
        "_parsed (aggregator/app.py",
        "_body (aggregator/app.py",
    ),
    "identity: hash the name of each object": ("(aggregator/pipeline/planning.py",),
    "claims and settle: ask the ledger": (
        "(aggregator/pipeline/ledger.py",
        "(aggregator/pipeline/claiming.py",
        "(aggregator/pipeline/swaps.py",
    ),
    "read: ask obstore, hand over": ("(aggregator/pipeline/sources.py", "(aggregator/pipeline/readahead.py"),
    "pack: check, frame, deflate, write": ("(aggregator/pipeline/core.py", "(aggregator/pipeline/content.py"),
    "put: send the bundle": ("(aggregator/pipeline/distribution.py",),
    "report: log, count, answer": ("(aggregator/pipeline/report.py", "(aggregator/pipeline/telemetry.py"),
}
"""A part, and the frames by which it is known; of a stack, the innermost frame that is known decides."""

_OTHER = "other"
_BEFORE = "<module>"
"""A frame of every stack that imports."""


def parts(stacks: Iterable[str]) -> list[tuple[str, float]]:
    """Each part and its share of all samples, the largest first; `stacks` are lines of py-spy's format `raw`."""
    seen: Counter[str] = Counter()
    for line in stacks:
        stack, _, samples = line.rpartition(" ")
        frames = stack.split(";")
        if _counts(frames):
            seen[_part(frames)] += int(samples)
    return [(name, number / seen.total()) for name, number in seen.most_common()]


def _counts(frames: list[str]) -> bool:
    """Whether a stack is of an invocation: of its own thread, or of another one that does our work."""
    if any(frame.startswith("invoked (") for frame in frames):
        return True
    return "MainThread" not in frames[0] and not any(frame.startswith(_BEFORE) for frame in frames)


def _part(frames: list[str]) -> str:
    for frame in reversed(frames):
        for name, signs in _PARTS.items():
            if any(sign in frame for sign in signs):
                return name
    return _OTHER
