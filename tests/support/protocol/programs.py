"""
Programs that can be gone back to: the places at which an invocation may stand, by number.

A program is a plain generator, which yields calls and is sent their answers (`invocation.py`). Generators cannot be
copied, so a place is reached anew by running the program from its beginning, with the answers that led there; each
step is taken once, and remembered. Two ways that lead to the same lines, with the same values in all variables, lead to
the same place: from there on, the program cannot tell them apart.
"""

from collections.abc import Generator, Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tests.support.protocol.aws import renamed

if TYPE_CHECKING:
    from tests.support.protocol.calls import Call

Program = Generator[Any, Any, Any]

OVER = 0
"""The place of a program that has ended."""


class Together:
    """What a program yields to have others under way at once, in any order; it is sent what they return."""

    def __init__(self, programs: Iterable[Program]) -> None:
        self.programs = tuple(programs)


class Runs(Protocol):
    """An invocation: its program, and in its attributes what it knows, in values that can be hashed."""

    def __init__(self, bundle: str, members: tuple[str, ...]) -> None: ...

    def run(self) -> Program:
        """The program."""


class Way(NamedTuple):
    """How a place is reached: whose program it is, and which of its threads was given which answer, in order."""

    bundle: str
    members: tuple[str, ...]
    answers: tuple[tuple[int, Any], ...] = ()


class Places:
    """
    The places in the programs of one kind of invocation; each has a number once it is reached.

    Where they are not `merged`, each way leads to a place of its own.
    """

    def __init__(self, kind: type[Runs], *, merged: bool = True) -> None:
        self._kind, self._merged = kind, merged
        self.calls: list[tuple[Call, ...]] = [()]
        """What is asked at each place, by each thread of the program."""
        self._ways: list[Way] = [Way("", ())]
        self._numbers: dict[Hashable, int] = {None: OVER}
        self._next: dict[tuple[int, int, Any], int] = {}

    def reached(self, way: Way) -> int:
        """The place to which a way leads."""
        invocation = self._kind(way.bundle, way.members)
        thread = _Thread(invocation.run())
        for which, answer in way.answers:
            thread.waiting()[which].go_on(answer)
            thread.join()
        if thread.ended:
            return OVER
        place = (_known(invocation), thread.place()) if self._merged else way
        number = self._numbers.setdefault(place, len(self._numbers))
        if number == len(self._ways):
            self._ways.append(way)
            self.calls.append(tuple(each.call for each in thread.waiting() if each.call))
        return number

    def after(self, place: int, which: int, answer: Any) -> int:
        """The place that follows when a thread is answered."""
        step = (place, which, answer)
        if step not in self._next:
            way = self._ways[place]
            self._next[step] = self.reached(way._replace(answers=(*way.answers, (which, answer))))
        return self._next[step]

    def renamed(self, place: int, names: Mapping[str, str]) -> int:
        """The place to which the same leads under other names."""
        return OVER if place == OVER else self.reached(Way(*renamed(tuple(self._ways[place]), names)))


class _Thread:
    """A program that waits for an answer, or for the programs that it has started."""

    def __init__(self, program: Program) -> None:
        self._program: Any = program
        self._parts: tuple[_Thread, ...] = ()
        self.call: Call | None = None
        self.ended = False
        self._result: Any = None
        self.go_on(None)

    def go_on(self, answer: Any) -> None:
        """Run up to the next call."""
        self.call, self._parts = None, ()
        try:
            asked = self._program.send(answer)
        except StopIteration as end:
            self.ended, self._result = True, end.value
            return
        if isinstance(asked, Together):
            self._parts = tuple(_Thread(program) for program in asked.programs)
            self.join()
        else:
            self.call = asked

    def join(self) -> None:
        """Go on where all that was started has ended."""
        for part in self._parts:
            part.join()
        if self.call is None and not self.ended and all(part.ended for part in self._parts):
            self.go_on(tuple(part._result for part in self._parts))

    def waiting(self) -> "list[_Thread]":
        """The threads that wait for an answer: this one, or those that it has started."""
        return [self] if self.call else [thread for part in self._parts for thread in part.waiting()]

    def place(self) -> Hashable:
        """
        The line at which each function waits that has not returned, and the values of its variables.

        How far a loop has come must be told by its variable, and what an expression holds while it waits by others. So
        in a program no loop meets the same value twice, and an answer is given a name before anything is made of it.
        """
        functions, program = [], self._program
        while program is not None and not self.ended:
            frame = program.gi_frame
            variables = {**frame.f_locals, "self": None}
            functions.append((frame.f_code, frame.f_lasti, *variables.items()))
            program = program.gi_yieldfrom
        return self._result, tuple(functions), tuple(part.place() for part in self._parts)


def _known(invocation: Runs) -> Hashable:
    """What an invocation knows; where it is made of several, what these know."""
    return tuple(_known(value) if hasattr(value, "run") else value for value in vars(invocation).values())
