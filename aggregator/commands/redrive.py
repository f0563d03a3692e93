"""`aggregator redrive`: the messages in the dead-letter queue, why they are there, and sending chosen ones back."""

import sys
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aggregator.commands.console import FINDING, ends_on_interrupt, print_json, print_table, words
from aggregator.commands.options import DeadLetterQueue, OptionError, Table, WithTable, require_both

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aggregator.aws import CommandClients
    from aggregator.operations.replay.dead_letters import DeadLetter, DeadLetters, Returned, Wanted
    from aggregator.operations.replay.queues import Delivery


def redrive(
    *,
    dlq: DeadLetterQueue,
    table: Table = None,
    distribution: WithTable = None,
    reason: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only messages rejected for it.")] = None,
    message_id: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only this message.")] = None,
    pattern: Annotated[str, typer.Option(metavar="GLOB", help="Only messages about keys that match.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="With --send-back: all messages.")] = False,
    send_back: Annotated[bool, typer.Option("--send-back", help="Send what is chosen back.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
    queue_url: Annotated[
        str, typer.Option(metavar="URL", help="Send back to this queue, not to that which each message came from.")
    ] = "",
    most: Annotated[int, typer.Option(min=1, max=100_000, help="Look at so many messages.")] = 10_000,
    details: Annotated[bool, typer.Option("--details", help="A line for each message.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print messages and totals as JSON.")] = False,
) -> None:
    """
    Show what is in the dead-letter queue and why, and send chosen messages back.

    Remove the cause first. Without --send-back nothing changes: messages are only hidden while they are read. If the
    object of a message is in a bundle by now, the message that is sent back counts as a duplicate. --all also sends
    back messages that cannot succeed, such as those of reason loop, so it asks first, or needs --yes where there is
    no terminal. Exit status 1 says that messages are left in the queue.
    """
    with ExitStack() as stack:
        from aggregator.aws import CommandClients
        from aggregator.operations.ledger_reader import LedgerReader
        from aggregator.operations.replay import dead_letters as library

        wanted = library.Wanted(frozenset(reason or ()), frozenset(message_id or ()), pattern or None)
        require_both(table, distribution)
        if reason and not table:
            raise OptionError("--reason needs --table and --distribution: it is the ledger that knows")
        _check_reasons(wanted.reasons)
        if send_back and wanted == library.Wanted():
            _confirm_all(everything=everything, yes=yes)
        stop = stack.enter_context(ends_on_interrupt())
        clients = CommandClients.build()
        ledger = LedgerReader.open(clients, table, distribution) if table and distribution else None
        letters = stack.enter_context(library.DeadLetters(clients.sqs, dlq, ledger, most=most))
        send = partial(
            library.send_back,
            dead_letters=letters,
            outbox=_outbox(clients, stop, stack),
            queue_url=queue_url or None,
        )
        seen = _walk(letters, wanted, send if send_back else None, stop, keep=most if as_json or details else 0)
    _tell(seen, complete=letters.complete, as_json=as_json, sending=send_back)
    raise typer.Exit(FINDING if seen.left else 0)


def _check_reasons(given: "Iterable[str]") -> None:
    """Return, unless there is no such reason: nothing would be found, and nothing sent back."""
    from aggregator.exceptions import PermanentError
    from aggregator.operations.replay.dead_letters import NOT_REJECTED

    known = sorted(kind.reason for kind in PermanentError.__subclasses__())
    for name in given:
        if name not in {*known, NOT_REJECTED}:
            raise OptionError(f"there is no reason {name!r}: --reason is {', '.join(known)} or {NOT_REJECTED}")


def _confirm_all(*, everything: bool, yes: bool) -> None:
    """Ask before messages go back that may be poison."""
    if not everything:
        raise OptionError("--send-back needs a choice: --reason, --message-id, --pattern or --all")
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise OptionError("--all sends back messages too that cannot succeed: add --yes, or choose by --reason")
    words().print("--all sends back messages too that cannot succeed, such as those of reason loop.")
    typer.confirm("Send all messages back?", abort=True, err=True)


@dataclass
class _Seen:
    """What a walk through the queue saw and did; by reason how many there are, how many are meant, and an example."""

    counts: Counter[str] = field(default_factory=Counter)
    meant: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    letters: list[dict[str, Any]] = field(default_factory=list)
    sent: int = 0
    in_both_queues: list[str] = field(default_factory=list)
    why: str = ""

    @property
    def total(self) -> int:
        """All messages that were seen."""
        return self.counts.total()

    @property
    def left(self) -> int:
        """How many of them are still in the dead-letter queue."""
        return self.total - self.sent + len(self.in_both_queues)

    def add(self, letter: "DeadLetter", *, meant: bool, keep: int) -> None:
        """Count a letter; its details are kept for the first `keep`."""
        self.counts[letter.reason] += 1
        self.meant[letter.reason] += meant
        self.examples.setdefault(letter.reason, letter.message)
        if len(self.letters) < keep:
            shown = {"message_id": letter.message_id, "reason": letter.reason, "message": letter.message}
            self.letters.append({**shown, "objects": list(letter.objects), "chosen": meant})


def _walk(
    letters: "DeadLetters",
    wanted: "Wanted",
    send: "Callable[[Sequence[DeadLetter]], Returned] | None",
    stop: threading.Event,
    *,
    keep: int,
) -> _Seen:
    """Go through the queue; send what is meant, if there is a `send`."""
    seen = _Seen()
    for some in letters.letters():
        meant = [letter for letter in some if wanted.includes(letter)]
        for letter in some:
            seen.add(letter, meant=letter in meant, keep=keep)
        if send and meant:
            returned = send(meant)
            seen.sent += len(returned.sent)
            seen.in_both_queues += [letter.message_id for letter in returned.in_both_queues]
            seen.why = seen.why or returned.why
        if stop.is_set() or seen.why:
            break
    return seen


def _outbox(
    clients: "CommandClients", stop: threading.Event, stack: ExitStack
) -> "Callable[[str], Callable[[Sequence[str]], Delivery]]":
    """What sends to a queue, by its ARN or URL; made once for each."""
    from aggregator.operations.replay.queues import Outbox

    @cache
    def outbox(queue: str) -> "Callable[[Sequence[str]], Delivery]":
        url = queue
        if queue.startswith("arn:"):
            *_, account, name = queue.split(":")
            url = clients.sqs.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account)["QueueUrl"]
        made = Outbox(clients.sqs, url, threads=1, stop=stop)
        stack.callback(made.close)
        return made.deliver

    return outbox


def _tell(seen: _Seen, *, complete: bool, as_json: bool, sending: bool) -> None:
    reasons = seen.counts.most_common()
    if as_json:
        rows = [
            {"reason": reason, "messages": count, "chosen": seen.meant[reason], "example": seen.examples[reason]}
            for reason, count in reasons
        ]
        totals = {"complete": complete, "seen": seen.total, "sent_back": seen.sent, "left": seen.left}
        found = {
            "on_both_queues": seen.in_both_queues,
            "error": seen.why or None,
            "reasons": rows,
            "messages": seen.letters,
        }
        print_json({**totals, **found})
        return
    if not seen.total:
        words().print("the dead-letter queue is empty" if complete else "no message was seen")
        return
    _print_rows(seen)
    if not seen.meant.total():
        words().print(
            "no message that was seen fits the choice: compare --reason, --message-id and --pattern with the table"
        )
    if sending:
        words().print(f"sent back {seen.sent:,}, left {seen.left:,}")
    if seen.in_both_queues:
        words().print(f"on both queues, which is harmless: {', '.join(seen.in_both_queues)}", markup=False)
    if seen.why:
        words().print(f"aggregator: {seen.why}", markup=False)
    if not complete:
        words().print("there may be more: this is what was seen")


def _print_rows(seen: _Seen) -> None:
    """A row for each reason, and one for each message whose details are kept."""
    print_table(
        ("messages", "chosen", "reason", "for example"),
        [
            (f"{count:,}", f"{seen.meant[reason]:,}", reason, seen.examples[reason])
            for reason, count in seen.counts.most_common()
        ],
    )
    if seen.letters:
        if sys.stdout.isatty():
            print()
        messages = [(letter["message_id"], letter["reason"], " ".join(letter["objects"])) for letter in seen.letters]
        print_table(("message", "reason", "objects"), messages)
