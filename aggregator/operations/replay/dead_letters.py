"""
The messages in a dead-letter queue and why they are there, and sending chosen messages back to where they came from.

Looking hides a message from others, so what was looked at is given back at the end, whatever ends it; what a kill
leaves hidden comes back by itself after `HOLD`. A message goes back as a new one with the same body: first it is sent,
and only when SQS has it is the old one deleted. A crash between the two leaves both: the ledger makes that harmless.

SQS itself (StartMessageMoveTask) moves all messages or none and does not say why they are there; one that is still
poison only comes round again.
"""

import fnmatch
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from aggregator.aws import batches
from aggregator.exceptions import AggregatorError
from aggregator.operations.ledger_reader import LedgerReader
from aggregator.operations.replay.queues import MOST_IN_A_CALL, Delivery, require_standard
from aggregator.schemas import BODY

if TYPE_CHECKING:
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

HOLD = 300
"""Seconds that a message stays hidden if nobody gives it back."""

_LOOK_UNTIL = 240
"""Seconds for which messages are held at most while more are looked at, so that none comes back meanwhile."""

NOT_REJECTED = "not_rejected"
"""Stands for the reason where the ledger has none: the queue gave the message up after too many passing failures."""

UNKNOWN = "unknown"
"""Stands for the reason where there is no ledger to ask."""


class DeadLetterError(AggregatorError):
    """The dead-letter queue cannot be looked at, or a message cannot be sent back."""

    reason = "dead_letter"


class DeadLetter(NamedTuple):
    """A message in a dead-letter queue; `reason` and `message` as the ledger kept them, `source` the queue's ARN."""

    message_id: str
    body: str
    receipt: str
    reason: str
    message: str
    objects: tuple[str, ...]
    source: str | None


class Wanted(NamedTuple):
    """Which letters are meant: those that are named by all that is given; all, if nothing is."""

    reasons: frozenset[str] = frozenset()
    message_ids: frozenset[str] = frozenset()
    pattern: str | None = None

    def includes(self, letter: DeadLetter) -> bool:
        """Whether a letter is meant; `pattern` is a glob over the keys that it announces."""
        if self.reasons and letter.reason not in self.reasons:
            return False
        if self.message_ids and letter.message_id not in self.message_ids:
            return False
        pattern = self.pattern
        return pattern is None or any(fnmatch.fnmatchcase(_key(found), pattern) for found in letter.objects)


class DeadLetters:
    """
    A dead-letter queue, while it is looked at: a context that gives back what it still holds at its end.

    `ledger` says why messages were rejected. At most `most` messages are held at once.
    """

    def __init__(
        self,
        sqs: "SQSClient",
        queue_url: str,
        ledger: LedgerReader | None,
        *,
        most: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        require_standard(queue_url)
        self._sqs, self._queue_url, self._ledger, self._most, self._clock = sqs, queue_url, ledger, most, clock
        self._held: dict[str, str] = {}
        self._held_since = clock()
        self.complete = False

    def __enter__(self) -> Self:
        """
        Begin to look.

        Raises:
            DeadLetterError: looking would count, because the queue has a redrive policy of its own.
        """
        names: Any = ["RedrivePolicy"]
        answer = self._sqs.get_queue_attributes(QueueUrl=self._queue_url, AttributeNames=names)
        if "RedrivePolicy" in answer.get("Attributes", {}):
            raise DeadLetterError(
                "this queue moves messages on after some receives, and looking at them would count: "
                "name its dead-letter queue"
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Give back what is still held: others see it at once."""
        for some in batches(list(self._held.values()), MOST_IN_A_CALL):
            entries: Any = [
                {"Id": str(at), "ReceiptHandle": receipt, "VisibilityTimeout": 0} for at, receipt in enumerate(some)
            ]
            self._sqs.change_message_visibility_batch(QueueUrl=self._queue_url, Entries=entries)

    def letters(self) -> Iterator[list[DeadLetter]]:
        """The letters, ten at a time at most; `complete` says afterwards whether these were all that SQS showed."""
        while self._may_hold_more():
            answer = self._sqs.receive_message(
                QueueUrl=self._queue_url,
                MaxNumberOfMessages=min(MOST_IN_A_CALL, self._most - len(self._held)),
                VisibilityTimeout=HOLD,
                WaitTimeSeconds=1,
                MessageSystemAttributeNames=["DeadLetterQueueSourceArn"],
            )
            messages = answer.get("Messages", [])
            if not messages:
                self.complete = True
                return
            new = [message for message in messages if message["MessageId"] not in self._held]
            self._held.update((message["MessageId"], message["ReceiptHandle"]) for message in messages)
            yield self._letters(new)

    def _may_hold_more(self) -> bool:
        if not self._held:
            self._held_since = self._clock()
        return len(self._held) < self._most and self._clock() < self._held_since + _LOOK_UNTIL

    def delete(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """Delete letters that have been sent back; those that are still there, and so are on both queues."""
        if not letters:
            return []
        entries: Any = [{"Id": str(at), "ReceiptHandle": letter.receipt} for at, letter in enumerate(letters)]
        answer = self._sqs.delete_message_batch(QueueUrl=self._queue_url, Entries=entries)
        failed = {int(entry["Id"]) for entry in answer.get("Failed", [])}
        for at, letter in enumerate(letters):
            if at not in failed:
                self._held.pop(letter.message_id, None)
        return [letters[at] for at in sorted(failed)]

    def _letters(self, messages: "Sequence[MessageTypeDef]") -> list[DeadLetter]:
        ids = [message["MessageId"] for message in messages]
        known = self._ledger.rejections_of(ids) if self._ledger else {}
        otherwise = (NOT_REJECTED if self._ledger else UNKNOWN, "")
        why = {id_: (rejected.reason, rejected.message) for id_, rejected in known.items()}
        return [_letter(message, *why.get(message["MessageId"], otherwise)) for message in messages]


class Returned(NamedTuple):
    """What became of letters that were to be sent back; `in_both_queues` were sent, but could not be deleted."""

    sent: list[DeadLetter]
    in_both_queues: list[DeadLetter]
    unsent: list[DeadLetter]
    why: str = ""


def send_back(
    letters: Sequence[DeadLetter],
    dead_letters: DeadLetters,
    outbox: Callable[[str], Callable[[Sequence[str]], Delivery]],
    *,
    queue_url: str | None = None,
) -> Returned:
    """
    Send letters back, each to its source or all to `queue_url`, and delete what arrived.

    `outbox` gives what sends to the queue of an ARN or a URL.

    Raises:
        DeadLetterError: SQS does not say where a message came from.
    """
    sent, in_both_queues, unsent, why = list[DeadLetter](), list[DeadLetter](), list[DeadLetter](), ""
    for queue, some in _by_queue(letters, queue_url).items():
        delivery = outbox(queue)([letter.body for letter in some])
        arrived = [some[place] for place in delivery.sent]
        sent += arrived
        in_both_queues += dead_letters.delete(arrived)
        unsent += [some[place] for place in (*delivery.unsent, *delivery.rejected)]
        why = why or delivery.why or ", ".join(sorted(set(delivery.rejected.values())))
    return Returned(sent, in_both_queues, unsent, why)


def _by_queue(letters: Sequence[DeadLetter], queue_url: str | None) -> dict[str, list[DeadLetter]]:
    found: dict[str, list[DeadLetter]] = {}
    for letter in letters:
        queue = queue_url or letter.source
        if queue is None:
            raise DeadLetterError("SQS does not say where a message came from: name the queue", id=letter.message_id)
        found.setdefault(queue, []).append(letter)
    return found


def _letter(message: "MessageTypeDef", reason: str, why: str) -> DeadLetter:
    body = message["Body"]
    return DeadLetter(
        message["MessageId"],
        body,
        message["ReceiptHandle"],
        reason,
        why,
        _objects(body),
        message.get("Attributes", {}).get("DeadLetterQueueSourceArn"),
    )


def _objects(body: str) -> tuple[str, ...]:
    """The objects that a body announces; none, if it is not a notification."""
    try:
        return tuple(f"s3://{ref.bucket}/{ref.key}" for ref in BODY.validate_json(body).objects())
    except ValueError:
        return ()


def _key(address: str) -> str:
    return address.removeprefix("s3://").partition("/")[2]
