"""
A proxy that holds calls: before they take effect, or after that, before they are answered; and predicates of calls.

    with Gates(endpoint_url, troubles=[Trouble(reads("x"), "answer 503")]) as gates:
        gates.shut(before("PutObject"), reached)  # then let a process begin that calls gates.url
        gates.open()

`gated.py` is what the tests use.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from threading import Event
from types import TracebackType
from typing import Literal, NamedTuple

from tests.support.proxy import Call, Mode, Proxy

CLAIMS = frozenset({"BatchExecuteStatement", "TransactWriteItems"})
"""The operations that write claims and releases, one by one or in transactions."""

_PATIENCE = 60
"""Seconds within which a call that is let go on lands."""

Which = str | Collection[str] | Callable[[Call], bool]
"""A call: by its operation, by one of several, or by all that is known of it."""


class Where(NamedTuple):
    """Where a process is to be held: before a call takes effect, or after that, before it is answered."""

    when: Literal["before", "after"]
    which: Which

    def is_at(self, when: str, call: Call) -> bool:
        """Whether this is the place."""
        return when == self.when and _is(self.which, call)


def before(which: Which) -> Where:
    """Hold the process before this call takes effect."""
    return Where("before", which)


def after(which: Which) -> Where:
    """Hold the process when this call has taken effect, before it is answered."""
    return Where("after", which)


def nth(name: str, at: int) -> Callable[[Call], bool]:
    """A process's call of an operation that so many of the same came before."""
    return lambda call: (call.name, call.earlier) == (name, at)


def asks_what_is_settled(call: Call) -> bool:
    """Whether a call reads settle records: these are named after their bundle."""
    return call.name == "BatchGetItem" and b"bundle-" in call.body


def reads(name: str) -> Callable[[Call], bool]:
    """Whether a call reads the object of that name."""
    return lambda call: call.name == "GetObject" and call.path.partition("?")[0].endswith(f"/{name}")


def puts_a_bundle(call: Call) -> bool:
    """Whether a call puts a bundle that has members, or one that has none to close its name."""
    return call.name == "PutObject" and "/bundle-" in call.path


@dataclass
class Trouble:
    """How a process's calls of one kind are answered, so many times."""

    which: Which
    mode: Mode
    times: int = 1_000


class _Gate:
    """Holds the first call at `where`."""

    def __init__(self, where: Where, reached: Callable[[], None]) -> None:
        self.where, self.reached = where, reached
        self.call: Call | None = None
        self.opened, self.landed = Event(), Event()


class Gates(Proxy):
    """The proxy of a process. One gate at most is shut; calls that came to earlier ones may still be held there."""

    def __init__(self, endpoint_url: str, troubles: Sequence[Trouble]) -> None:
        super().__init__(endpoint_url)
        self._troubles = [Trouble(trouble.which, trouble.mode, trouble.times) for trouble in troubles]
        self._gate: _Gate | None = None
        self._held: dict[int, _Gate] = {}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        for gate in list(self._held.values()):
            gate.opened.set()
        super().__exit__(kind, error, trace)

    def shut(self, where: Where | None, reached: Callable[[], None]) -> None:
        """Hold the next call that is at `where`, and nothing else."""
        self._gate = _Gate(where, reached) if where else None

    def open(self) -> None:
        """Let go on whatever is held."""
        for gate in list(self._held.values()):
            gate.opened.set()

    @property
    def asked_again(self) -> bool:
        """Whether the process has stopped waiting for what is held, and made the same call once more."""
        held = [gate.call for gate in list(self._held.values()) if gate.call]
        return any(call.name in self.calls[call.number + 1 :] for call in held)

    def land(self) -> None:
        """Let what is held take effect, and wait until it has."""
        held = list(self._held.values())
        self.open()
        for gate in held:
            assert gate.landed.wait(_PATIENCE), "it does not land"

    def mode_of(self, call: Call) -> Mode | None:
        """What is wrong with a call."""
        for trouble in self._troubles:
            if trouble.times and _is(trouble.which, call):
                trouble.times -= 1
                return trouble.mode
        return super().mode_of(call)

    def before(self, call: Call) -> None:
        """
        Hold the call before it takes effect, if that is asked for.

        Raises:
            ConnectionAbortedError: the test is over, and the call goes nowhere any more.
        """
        self._hold("before", call)
        if self.over.is_set():
            raise ConnectionAbortedError

    def after(self, call: Call) -> None:
        """Hold the answer, if that is asked for."""
        if call.number in self._held:
            self._held.pop(call.number).landed.set()
        self._hold("after", call)

    def _hold(self, when: str, call: Call) -> None:
        with self._lock:
            gate = self._gate
            if gate is None or not gate.where.is_at(when, call):
                return
            self._gate, self._held[call.number], gate.call = None, gate, call
        gate.reached()
        gate.opened.wait()
        if when == "after":
            self._held.pop(call.number, None)
            gate.landed.set()


def _is(which: Which, call: Call) -> bool:
    if callable(which):
        return which(call)
    return call.name == which if isinstance(which, str) else call.name in which
