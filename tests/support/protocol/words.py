"""The sentences of which a history is made."""

from tests.support.protocol.calls import (
    ANYTHING,
    BUSY,
    DELETED,
    DONE_AT_LAST,
    EMPTY,
    FOREIGN,
    FRESH,
    LAPSED,
    NO_ANSWER,
    NOT_DONE,
    REFUSED,
    REFUSED_AT_LAST,
    UNREADABLE,
    Acknowledge,
    AskClock,
    Call,
    Look,
    Put,
    ReadObject,
    ReadRecord,
    ReadSettleRecord,
    Record,
    Settle,
    Swap,
    Version,
    claimed,
)

_ANSWERS = {
    REFUSED: ": refused",
    NOT_DONE: ": fails, nothing is done",
    NO_ANSWER: ": no answer, and it may yet land",
    DONE_AT_LAST: ": done at a second attempt, the first may yet land",
    REFUSED_AT_LAST: ": refused at a second attempt, the first has landed or may yet",
    BUSY: ": 503",
    LAPSED: ": not sent, its own claims have lapsed",
    UNREADABLE: ": no answer",
}

_WORDS = {
    Settle: "settles {0.bundle}",
    ReadRecord: "reads the record of {0.member}",
    ReadSettleRecord: "asks whether {0.bundle} is settled",
    ReadObject: "reads object {0.member}",
    Look: "looks under the name of {0.bundle}",
    AskClock: "asks the clock about the claims for {0.bundle}",
}


def told(call: Call, answer: object) -> str:
    """What an invocation does, and what it is answered."""
    return asked(call) + (_ANSWERS.get(answer, "") if isinstance(answer, str) else _seen(call, answer))


def asked(call: Call) -> str:
    """What an invocation does."""
    if isinstance(call, Swap):
        return _swap(call)
    if isinstance(call, Put):
        return f"puts {call.bundle} with {_all(call.members)}" if call.members else f"fences {call.bundle}"
    if isinstance(call, Acknowledge):
        return f"acknowledges {_all(call.members)}"
    return _WORDS[type(call)].format(call)


def said(record: Record) -> str:
    """What a record says."""
    whose = f"for {record.bundle}" if record.says == "claimed" else f"by {record.bundle}"
    return f"{record.says} {whose}" + ("" if record.age == FRESH else f", {record.age}")


def _swap(swap: Swap) -> str:
    member, seen, new = swap.member, swap.seen, swap.new
    if new is None:
        return f"deletes the record of {member}"
    if new.says == "released":
        return f"releases {member}" + ("" if seen in (claimed(new.bundle), ANYTHING) else ", whose claim is in doubt")
    if seen is None or seen == ANYTHING:
        return f"claims {member}"
    if seen.says == "released":
        return f"claims {member} over the release by {seen.bundle}"
    return f"takes {member} over from {seen.bundle}"


def _seen(call: Call, answer: object) -> str:
    match call, answer:
        case ReadRecord(), None:
            return ": there is none"
        case ReadRecord(), Record() as record:
            return f": {said(record)}"
        case ReadSettleRecord(), bool(settled):
            return ": yes" if settled else ": no"
        case AskClock(), bool(lapsed):
            return ": lapsed" if lapsed else ": not lapsed"
        case Look(), tuple(versions):
            return ": " + (", then ".join(_version(version) for version in versions) or "nothing")
    raise AssertionError(call, answer)


def _version(version: Version) -> str:
    if version in (FOREIGN, DELETED):
        return f"a {version}"
    return "an empty bundle" if version == EMPTY else f"a bundle with {_all(version)}"


def _all(members: Version) -> str:
    return " and ".join(members)
