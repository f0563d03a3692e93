"""
The contracts: which there are, and the published files.

`contracts/` is what producers and readers build on, in any language. It is in the root of a checkout and ships inside
the package; `publishing.py` generates it from the models, `gate.py` watches over its changes, `validation.py` judges
messages by it. Nothing here imports a model, so that judging a message starts fast.

    contracts/<name>/v<major>/
        producer.schema.json    closed: what one may write; a misspelt field is refused
        consumer.schema.json    open: what is accepted; fields that are not known are ignored
        draft-07/…              the same two for tools that know no later draft
        examples/valid/         accepted by both
        examples/invalid/       x.json, and in x.expect.json what must be reported, and by which of the two
        released/<version>/     what was once promised: never edited
"""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aggregator.exceptions import AggregatorError

Profile = Literal["producer", "consumer"]

DRAFT_2020, DRAFT_07 = "https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"


class ContractError(AggregatorError):
    """The contract that is asked for is not there, or a file of it is not what it should be."""


class Contract(NamedTuple):
    """
    One contract: its name, the version that the models say today, who writes its messages, and what it is for.

    `lambda_writes`: the messages are ours and others read them, with any release that ever was.
    """

    name: str
    version: str
    profiles: tuple[Profile, ...]
    written_by: str
    summary: str
    lambda_writes: bool = False

    @property
    def major(self) -> int:
        """The major version: a change that breaks anyone makes a new one."""
        return int(self.version.split(".")[0])

    @property
    def folder(self) -> str:
        """Where it is below `contracts/`."""
        return f"{self.name}/v{self.major}"

    @property
    def label(self) -> str:
        """What the command line calls it."""
        return f"{self.name}@{self.major}"


CONTRACTS = (
    Contract(
        "s3-notification",
        "1.0.0",
        ("producer", "consumer"),
        "S3, or a producer in its place",
        "An S3 notification: an object was created. The body of a message, or the Message of an SNS envelope.",
    ),
    Contract(
        "eventbridge-notification",
        "1.0.0",
        ("producer", "consumer"),
        "S3 through EventBridge, or a producer in its place",
        "The same announcement as EventBridge delivers it: the key is not encoded.",
    ),
    Contract(
        "sqs-batch",
        "1.0.0",
        ("consumer",),
        "Lambda's event source mapping",
        "The batch of messages that the function is invoked with. Informative: AWS writes it.",
    ),
    Contract(
        "bundle-index",
        "1.1.0",
        ("producer", "consumer"),
        "the data aggregator",
        "The index of a bundle: its members, and where each of them is. For those who read bundles.",
        lambda_writes=True,
    ),
)


def contract(label: str) -> Contract:
    """
    The contract called `name` or `name@major`.

    Raises:
        ContractError: there is none of that name or major version.

    """
    for known in CONTRACTS:
        if label in (known.name, known.label):
            return known
    raise ContractError(f"no contract is called {label!r}: there are {', '.join(one.label for one in CONTRACTS)}")


def root() -> Traversable:
    """`contracts/` as it is installed with the package, else that of the checkout."""
    installed = files("aggregator") / "published"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "contracts"


@cache
def published(path: str) -> Any:
    """The JSON document at `path` below `contracts/`."""
    return json.loads((root() / path).read_text(encoding="utf-8"))


def read_json(path: Path) -> Any:
    """
    The JSON document in a file of a checkout's `contracts/`.

    Raises:
        ContractError: the file is not there, or holds none.

    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError) as error:
        raise ContractError(f"{path} holds no JSON document: {type(error).__name__}") from error


def schema_path(one: Contract, profile: Profile) -> str:
    """
    Where the schema of a profile is below `contracts/`.

    Raises:
        ContractError: the contract has no such profile.

    """
    if profile not in one.profiles:
        raise ContractError(f"{one.label} has no {profile} schema, only a {one.profiles[0]} schema: {one.written_by}")
    return f"{one.folder}/{profile}.schema.json"


def walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """Every file below `folder` with its relative path, in order; but for what npm put there."""
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        path = f"{prefix}{entry.name}"
        if entry.name == "node_modules":
            continue
        if entry.is_dir():
            yield from walk(entry, f"{path}/")
        else:
            yield path, entry
