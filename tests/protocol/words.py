"""The sentences of which a history is made."""

from tests.protocol.calls import (
    ANYTHING,
    BUSY,
    DELETED,
    DONE_AT_LAST,
    EMPTY,
    FOREIGN,
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
    DONE_AT_LAST: ": done at the second attempt, the first may yet land",
    REFUSED_AT_LAST: ": refused at the second attempt, the first may yet land",
    BUSY: ": 503",
    LAPSED: ": not sent, its own claims have lapsed",
    UNREADABLE: ": no answer",
}


def told(call: Call, answer: object) -> str:
    """What an invocation does, and what it is answered."""
    return asked(call) + (_ANSWERS.get(answer, "") if isinstance(answer, str) else _seen(call, answer))


def asked(call: Call) -> str:  # noqa: C901 - a case for each call
    """What an invocation does."""
    match call:
        case Swap():
            return _swap(call)
        case Put(bundle, ()):
            return f"fences {bundle}"
        case Put(bundle, members):
            return f"puts {bundle} with {_all(members)}"
        case Settle(bundle):
            return f"settles {bundle}"
        case ReadRecord(member):
            return f"reads the record of {member}"
        case ReadSettleRecord(bundle):
            return f"asks whether {bundle} is settled"
        case ReadObject(member):
            return f"reads object {member}"
        case Look(bundle):
            return f"looks under the name of {bundle}"
        case AskClock(bundle):
            return f"asks the clock about the claims for {bundle}"
        case Acknowledge(members):
            return f"acknowledges {_all(members)}"
    raise AssertionError(call)


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
        case ReadRecord(), Record(says, bundle, age):
            return f": {says} {'for' if says == 'claimed' else 'by'} {bundle}" + ("" if age == "fresh" else f", {age}")
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
