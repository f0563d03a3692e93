"""
Objects that are already there, announced once more: a notification for each, through the same queue.

    list ▸ choose ▸ ask the ledger ▸ notify ▸ remember how far we are

A notification is what S3 itself would send, so what comes of it is decided where everything is decided: in the handler,
by the ledger. An object announced twice is bundled once. So a backfill may be stopped, repeated and run beside the
producers; the mark that it keeps only spares work. Memory is that of a page or two of the listing.
"""

import fnmatch
import functools
import json
import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote_plus

from aggregator.aws import batches
from aggregator.bundles.index import timestamp
from aggregator.exceptions import AggregatorError, ArchivedObjectError, InvalidNotificationError
from aggregator.operations.ledger_reader import MOST_READS, LedgerReader
from aggregator.operations.replay.pages import Listed, Page, Position
from aggregator.operations.replay.queues import Delivery
from aggregator.schemas import BODY, invalid_fields

_user: Callable[[], int] | None = getattr(os, "getuid", None)
"""Who runs this, where files have owners: not on Windows."""

EXAMPLES = 20
"""Rejection objects that a report names, with their reason; the others are counted."""


class BackfillError(AggregatorError):
    """A backfill cannot begin, or cannot go on."""

    reason = "backfill"


class Choice(NamedTuple):
    """Which of the listed objects are meant: by a glob over the key, and by when they were last modified."""

    pattern: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def includes(self, listed: Listed) -> bool:
        """Whether an object is meant: `since` counts, `until` does not."""
        if self.pattern and not _matcher(self.pattern)(listed.ref.key):
            return False
        if self.since is None and self.until is None:
            return True
        modified = listed.modified
        if modified is None:
            raise BackfillError("the listing does not say when objects were modified", key=listed.ref.key)
        return (self.since is None or modified >= self.since) and (self.until is None or modified < self.until)


@dataclass
class Totals:
    """What a backfill did so far, over all its runs; `rejected` by reason, `examples` as key and reason."""

    listed: int = 0
    not_selected: int = 0
    skipped: int = 0
    bundled: int = 0
    sent: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    examples: list[tuple[str, str]] = field(default_factory=list)

    def reject(self, key: str, reason: str) -> None:
        """Count an object that cannot be sent."""
        self.rejected[reason] += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((key, reason))


class Mark(NamedTuple):
    """How far a backfill is: where the listing goes on, what of it so far was not sent, and what was done."""

    position: Position
    unsent: list[str]
    totals: Totals


class Bookmark:
    """
    The file that a backfill keeps its mark in, for the next run of the same call; gone when all is done.

    `call` is all that decides what is sent and whereto, `now` in seconds since the epoch.
    """

    def __init__(self, path: Path, call: Mapping[str, object], *, now: float = 0.0) -> None:
        self.path = path
        self._call, self._now = json.loads(json.dumps(call, default=str)), now

    @functools.cached_property
    def began(self) -> float:
        """
        When the first run of the call began, from which "24h ago" is reckoned in all of them.

        Raises:
            BackfillError: the file is that of another call, or no mark at all.
        """
        return self._kept()[0]

    def load(self) -> Mark:
        """
        The mark of the run before, or that of a beginning.

        Raises:
            BackfillError: the file is that of another call, or no mark at all.
        """
        return self._kept()[1]

    def save(self, mark: Mark) -> None:
        """Replace the mark, whole or not at all."""
        kept = {
            "call": self._call,
            "began": self.began,
            "position": mark.position,
            "unsent": mark.unsent,
            "totals": vars(mark.totals),
        }
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=self.path.parent, delete=False) as draft:
            draft.write(json.dumps(kept, ensure_ascii=False, indent=1))
        Path(draft.name).replace(self.path)

    def remove(self) -> None:
        """Forget the mark: all is done."""
        self.path.unlink(missing_ok=True)

    def _kept(self) -> tuple[float, Mark]:
        if not os.path.lexists(self.path):
            return self._now, Mark({}, [], Totals())
        if self.path.is_symlink() or (_user and self.path.stat().st_uid != _user()):
            raise BackfillError(f"{self.path} is a link, or not yours: what it says would be sent; name another file")
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            call, began, totals = kept["call"], float(kept["began"]), kept["totals"]
            mark = Mark(kept["position"], kept["unsent"], Totals(**{**totals, "rejected": Counter(totals["rejected"])}))
        except (ValueError, TypeError, LookupError, RecursionError):
            raise BackfillError(f"{self.path} is not the mark of a backfill: name another file") from None
        if call != self._call:
            raise BackfillError(f"{self.path} is the mark of another backfill: name another file, or remove it")
        return began, mark


class Ending(NamedTuple):
    """How a run ended: whether everything that is listed was dealt with, what was done, and the error, if any."""

    complete: bool
    totals: Totals
    why: str = ""


def run(
    pages: Callable[[Position], Iterator[Page]],
    choice: Choice,
    *,
    deliver: Callable[[Sequence[str]], Delivery],
    ledger: LedgerReader | None,
    bookmark: Bookmark | None,
    stop: threading.Event,
    report: Callable[[Totals], object] = lambda _: None,
) -> Ending:
    """
    Send a notification for each object of `pages` that `choice` includes and that `ledger` does not know as bundled.

    Goes on where `bookmark` says, and ends early, its mark kept, when `stop` is set or `deliver` names an error. A mark
    that cannot be kept ends it before anything is sent.

    Raises:
        BackfillError: the bookmark is not ours, or the listing does not say what `choice` asks.
        LedgerUnavailableError: the ledger does not say what is bundled.
        OSError: the mark cannot be kept.
    """
    mark = bookmark.load() if bookmark else Mark({}, [], Totals())
    if bookmark:
        bookmark.save(mark)
    totals = mark.totals
    unsent, why = _sent(mark.unsent, totals, deliver)
    position = mark.position
    with closing(ahead(pages(position))) as coming:
        while not (unsent or why or stop.is_set()):
            page = next(coming, None)
            if page is None:
                if bookmark:
                    bookmark.remove()
                return Ending(complete=True, totals=totals)
            unsent, why = _sent(_bodies(page, choice, ledger, totals), totals, deliver)
            position = page.position
            if bookmark:
                bookmark.save(Mark(position, unsent, totals))
            report(totals)
    if bookmark:
        bookmark.save(Mark(position, unsent, totals))
    return Ending(complete=False, totals=totals, why=why)


def notification(listed: Listed) -> str:
    """
    The body of the message that S3 would have sent for an object.

    Structure: S3 user guide, "Event message structure"; `principalId` tells who really sent it.

    Raises:
        InvalidNotificationError: no notification can carry it.
    """
    ref = listed.ref
    told = {"size": ref.size, "eTag": ref.etag, "versionId": ref.version_id}
    try:
        named = {
            "key": quote_plus(ref.key, safe="/"),
            **{name: value for name, value in told.items() if value is not None},
        }
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            **({"eventTime": timestamp(listed.modified.timestamp())} if listed.modified else {}),
            "eventName": "ObjectCreated:Put",
            "userIdentity": {"principalId": "aggregator-backfill"},
            "s3": {"bucket": {"name": ref.bucket}, "object": named},
        }
        body = json.dumps({"Records": [record]}, separators=(",", ":"))
        BODY.validate_json(body)
    except UnicodeEncodeError:
        raise InvalidNotificationError("key is not UTF-8", key=repr(ref.key)) from None
    except ValueError as error:
        raise InvalidNotificationError("no notification can carry this", faults=invalid_fields(error)) from None
    return body


def _bodies(page: Page, choice: Choice, ledger: LedgerReader | None, totals: Totals) -> list[str]:
    """The notifications of a page; what is not sent is counted."""
    totals.listed += len(page.objects)
    meant = [listed for listed in page.objects if choice.includes(listed)]
    totals.not_selected += len(page.objects) - len(meant)
    wanted = [listed for listed in meant if not listed.ref.is_folder_marker]
    totals.skipped += len(meant) - len(wanted)
    new = _unbundled(wanted, ledger)
    totals.bundled += len(wanted) - len(new)
    bodies = []
    for listed in new:
        try:
            if listed.archived:
                raise ArchivedObjectError("object must be restored first")
            bodies.append(notification(listed))
        except AggregatorError as error:
            totals.reject(listed.ref.key, error.reason)
    return bodies


def _unbundled(wanted: Sequence[Listed], ledger: LedgerReader | None) -> list[Listed]:
    """Those that the ledger does not know as bundled; all, if there is no ledger to ask."""
    if ledger is None:
        return list(wanted)
    new: list[Listed] = []
    for some in batches(wanted, MOST_READS):
        ids = [ledger.id(ref.bucket, ref.key, ref.version_id, ref.etag) for ref, *_ in some]
        known = ledger.bundled(ids)
        new += [listed for listed, id_ in zip(some, ids, strict=True) if id_ not in known]
    return new


def _sent(bodies: list[str], totals: Totals, deliver: Callable[[Sequence[str]], Delivery]) -> tuple[list[str], str]:
    """Deliver, and count; what was not sent, and the error that kept it from being sent."""
    if not bodies:
        return [], ""
    delivery = deliver(bodies)
    totals.sent += len(delivery.sent)
    for place, code in delivery.rejected.items():
        totals.reject(BODY.validate_json(bodies[place]).objects()[0].key, code)
    return [bodies[place] for place in delivery.unsent], delivery.why


def ahead(pages: Iterator[Page]) -> Generator[Page, None, None]:
    """The same pages; while one is worked on, the next is fetched."""
    with ThreadPoolExecutor(1, thread_name_prefix="list") as lister:
        coming = lister.submit(next, pages, None)
        while (page := coming.result()) is not None:
            coming = lister.submit(next, pages, None)
            yield page


@functools.cache
def _matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(fnmatch.translate(pattern)).match
