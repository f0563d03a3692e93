"""
Goes through all that may happen to some invocations in one world, and tells the shortest history that goes wrong.

    state = the world, and the place where each invocation stands in its program

`Places` runs the programs (`invocation.py`), which are plain generators. A place is told from others by the lines at
which a program waits and by what its variables say, so two ways that lead to the same place are one from there on.
`Model` says what may happen in a state; `explore` takes every way there is, the short ones first.

In every state it may be that all invocations are dead (`aws.py` says why that is no event). Then all claims lapse, and
what is not acknowledged is delivered once more, to an invocation that nothing happens to, before or after the writes on
the wire land. So in each state that can be reached it is judged whether anything is lost, twice, or stuck.

Two reductions, besides those of `aws.py`:

- An invocation that reads an object does so at once: nobody else sees it, or has a say in it.
- Invocations of the same messages may change their names: of the states that differ in these only, one is gone through.
"""

from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from tests.protocol.aws import Aws, Outcome, World, renamed
from tests.protocol.calls import Call, ReadObject
from tests.protocol.words import asked, told

Steps = Generator[Any, Any, Any]

LAST = "Z"
"""The invocation of the last delivery, to which nothing happens."""

OVER = 0
"""The place of an invocation that has ended, is dead, or has not begun."""

State = tuple[int, ...]
"""The number of the world, the place of each invocation, the place of the last one."""


class Together:
    """What a program yields to have several others under way at once; it is sent what they return."""

    def __init__(self, programs: Iterable[Steps]) -> None:
        self.programs = tuple(programs)


class Runs(Protocol):
    """An invocation: its program, and what it knows, in attributes that can be hashed."""

    def __init__(self, bundle: str, members: tuple[str, ...]) -> None: ...

    def run(self) -> Steps:
        """The program."""


class Way(NamedTuple):
    """How a place was reached: whose program, and which answers its threads were given, in order."""

    bundle: str
    members: tuple[str, ...]
    answers: tuple[tuple[int, Any], ...] = ()


class Places:
    """The places in the programs of a kind of invocation, by number; each is found when it is first reached."""

    def __init__(self, kind: type[Runs]) -> None:
        self._kind = kind
        self.calls: list[tuple[Call, ...]] = [()]
        """What is asked at each place: a call for each thread."""
        self._numbers: dict[Hashable, int] = {None: OVER}
        self._ways: list[Way] = [Way("", ())]
        self._next: dict[tuple[int, int, Any], int] = {}

    def number(self, way: Way) -> int:
        """The place to which a way leads."""
        invocation = self._kind(way.bundle, way.members)
        thread = _Thread(invocation.run())
        for which, answer in way.answers:
            thread.waiting()[which].go_on(answer)
            thread.join()
        if thread.ended:
            return OVER
        place = (thread.place(), tuple(vars(invocation).items()))
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
            self._next[step] = self.number(way._replace(answers=(*way.answers, (which, answer))))
        return self._next[step]

    def renamed(self, place: int, names: Mapping[str, str]) -> int:
        """The place of an invocation to which the same has happened under other names."""
        return self.number(Way(*renamed(tuple(self._ways[place]), names))) if place != OVER else OVER


class _Thread:
    """A program that waits for an answer, or for the programs that it has started."""

    def __init__(self, program: Steps) -> None:
        self._program: Any = program
        self._parts: tuple[_Thread, ...] = ()
        self.call: Call | None = None
        self.ended, self.result = False, None
        self.go_on(None)

    def go_on(self, answer: Any) -> None:
        """Run up to the next call."""
        self.call, self._parts = None, ()
        try:
            asked = self._program.send(answer)
        except StopIteration as end:
            self.ended, self.result = True, end.value
            return
        if isinstance(asked, Together):
            self._parts = tuple(_Thread(program) for program in asked.programs)
            self.join()
        else:
            self.call = asked

    def join(self) -> None:
        """Go on if all parts have ended."""
        for part in self._parts:
            part.join()
        if self.call is None and not self.ended and all(part.ended for part in self._parts):
            self.go_on(tuple(part.result for part in self._parts))

    def waiting(self) -> "list[_Thread]":
        """The threads that wait for an answer: this one, or those of its parts."""
        if self.call:
            return [self]
        return [thread for part in self._parts for thread in part.waiting()]

    def place(self) -> Hashable:
        """
        The lines at which it waits, in each function that has not returned, and what the variables there say.

        A loop's place is told by its variable; so no program loops over the same value twice, or without naming it.
        """
        frames, program = [], self._program
        while program is not None and not self.ended:
            frame = program.gi_frame
            variables = tuple((name, value) for name, value in frame.f_locals.items() if name != "self")
            frames.append((frame.f_code.co_qualname, frame.f_lasti, variables))
            program = program.gi_yieldfrom
        return self.result, tuple(frames), tuple(part.place() for part in self._parts)


class Happening(NamedTuple):
    """What may happen in a state, and the state after it."""

    who: str
    call: Call | None
    outcome: Outcome
    state: State

    def told(self) -> Iterator[str]:
        """The same in words."""
        if self.outcome.before:
            yield self.outcome.before
        if self.call is None:
            yield f"nobody is heard of any more, all claims lapse; what is not acknowledged comes again, to {LAST}"
        elif self.who:
            yield f"{self.who} {told(self.call, self.outcome.answer)}"
        else:
            yield f"late, it lands: {asked(self.call)}"


class Counterexample(NamedTuple):
    """A history that goes wrong, line by line; the last line says what is wrong."""

    history: list[str]

    def __str__(self) -> str:
        *steps, wrong = self.history
        return "\n".join([*(f"{number:3} {line}" for number, line in enumerate(steps, start=1)), f"--> {wrong}"])


class Explored(NamedTuple):
    """How many states there are, and the shortest history that goes wrong, if there is one."""

    states: int
    wrong: Counterexample | None


class Model:
    """Some invocations, each with its messages, in one of some worlds."""

    def __init__(
        self, kind: type[Runs], batches: Mapping[str, tuple[str, ...]], *, aws: Aws, worlds: Iterable[World]
    ) -> None:
        self.members = tuple(sorted({member for batch in batches.values() for member in batch}))
        self._names, self._aws = tuple(batches), aws
        self._places, self._worlds = Places(kind), _Numbers[World]()
        self._outcomes: dict[tuple[int, Call], list[tuple[Outcome, int]]] = {}
        self._moves: dict[tuple[int, int], list[tuple[Call, Outcome, int, int]]] = {}
        self._landings: dict[int, list[tuple[Call, Outcome, int]]] = {}
        self._lasts: dict[int, list[State]] = {}
        self._faults: dict[int, str] = {}
        self._symmetries = [
            _Symmetry(self._names, others, self._places, self._worlds)
            for others in permutations(self._names)
            if others != self._names
            and all(batches[one] == batches[other] for one, other in zip(self._names, others, strict=True))
        ]
        places = [self._places.number(Way(name, batch)) for name, batch in batches.items()]
        self.start = [self._normal((self._worlds.number(world), *places, OVER)) for world in worlds]

    def successors(self, state: State) -> Iterator[State]:
        """The states that may follow; of those that differ in names only, one."""
        return (self._normal(happening.state) for happening in self.happenings(state))

    def happenings(self, state: State) -> Iterator[Happening]:
        """All that may happen in a state."""
        number, places = state[0], state[1:]
        world = self._worlds[number]
        for at in self._alive(world, places):
            before, after = places[:at], places[at + 1 :]
            for call, outcome, then, place in self._moved(number, places[at]):
                yield Happening((*self._names, LAST)[at], call, outcome, (then, *before, place, *after))
        for call, outcome, then in self._landed(number):
            yield Happening("", call, outcome, (then, *places))
        if not world.calm:
            for last in self._last(number):
                yield Happening("", None, Outcome(None, world), last)

    def wrong(self, state: State) -> str:
        """What is wrong in a state; nothing, if all is well."""
        number = state[0]
        if number not in self._faults:
            self._faults[number] = self._fault(self._worlds[number])
        world = self._worlds[number]
        if not self._faults[number] and world.calm and state[-1] == OVER:
            stuck = [member for member in self.members if member not in world.acknowledged]
            return f"{stuck[0]} comes again for ever" if stuck else ""
        return self._faults[number]

    def tell(self, states: Sequence[State]) -> Counterexample:
        """The history that leads through some states."""
        history: list[str] = []
        now = states[0]
        for wanted in states[1:]:
            happening = next(each for each in self.happenings(now) if self._normal(each.state) == wanted)
            history += happening.told()
            now = happening.state
        return Counterexample([*history, self.wrong(now)])

    def _normal(self, state: State) -> State:
        return min([state, *(symmetry(state) for symmetry in self._symmetries)])

    def _fault(self, world: World) -> str:
        for member in self.members:
            published = world.published(member)
            if published > 1:
                return f"{member} is in two bundles"
            if not published and member in world.acknowledged:
                return f"{member} is acknowledged and in no bundle"
        return ""

    def _alive(self, world: World, places: Sequence[int]) -> list[int]:
        """Who may go on; one that reads an object does so at once. Whose claims a patient AWS let lapse, is over."""
        over = world.lapsed if self._aws.patient and not world.calm else frozenset()
        alive = [at for at, place in enumerate(places) if place != OVER and (*self._names, LAST)[at] not in over]
        reading = (at for at in alive if any(isinstance(call, ReadObject) for call in self._places.calls[places[at]]))
        first = next(reading, None)
        return alive if first is None else [first]

    def _moved(self, number: int, place: int) -> list[tuple[Call, Outcome, int, int]]:
        """What the invocation at a place may be answered in a world, with the world and the place that follow."""
        step = (number, place)
        if step not in self._moves:
            self._moves[step] = [
                (call, outcome, then, self._places.after(place, which, outcome.answer))
                for which, call in enumerate(self._places.calls[place])
                for outcome, then in self._outcomes_of(number, call)
            ]
        return self._moves[step]

    def _outcomes_of(self, number: int, call: Call) -> list[tuple[Outcome, int]]:
        asked_there = (number, call)
        if asked_there not in self._outcomes:
            outcomes = self._aws.outcomes(self._worlds[number], call)
            self._outcomes[asked_there] = [(outcome, self._worlds.number(outcome.world)) for outcome in outcomes]
        return self._outcomes[asked_there]

    def _landed(self, number: int) -> list[tuple[Call, Outcome, int]]:
        if number not in self._landings:
            landings = self._aws.landings(self._worlds[number])
            self._landings[number] = [(call, outcome, self._worlds.number(outcome.world)) for call, outcome in landings]
        return self._landings[number]

    def _last(self, number: int) -> list[State]:
        """All are dead. What is not acknowledged comes once more; or, as SQS may do, everything does."""
        if number not in self._lasts:
            world = self._worlds[number]
            calm = self._worlds.number(self._aws.calmed(world, self._names))
            left = tuple(member for member in self.members if member not in world.acknowledged)
            over = (OVER,) * len(self._names)
            batches = [batch for batch in dict.fromkeys((left, self.members)) if batch]
            self._lasts[number] = [(calm, *over, self._places.number(Way(LAST, batch))) for batch in batches]
        return self._lasts[number]


def explore(model: Model) -> Explored:
    """Go through every state, those first that are reached in the fewest steps."""
    came_from: dict[State, State | None] = dict.fromkeys(model.start)
    waiting = deque(model.start)
    while waiting:
        state = waiting.popleft()
        if model.wrong(state):
            return Explored(len(came_from), model.tell(_path(state, came_from)))
        for following in model.successors(state):
            if following not in came_from:
                came_from[following] = state
                waiting.append(following)
    return Explored(len(came_from), None)


def _path(state: State, came_from: Mapping[State, State | None]) -> list[State]:
    path = [state]
    while (before := came_from[path[-1]]) is not None:
        path.append(before)
    return path[::-1]


class _Symmetry:
    """The same state under other names of the invocations."""

    def __init__(
        self, names: tuple[str, ...], others: tuple[str, ...], places: Places, worlds: "_Numbers[World]"
    ) -> None:
        self._names = dict(zip(names, others, strict=True))
        before = {other: name for name, other in self._names.items()}
        self._order = [*(names.index(before[name]) + 1 for name in names), len(names) + 1]
        self._places, self._worlds = places, worlds
        self._renamed_places: dict[int, int] = {}
        self._renamed_worlds: dict[int, int] = {}

    def __call__(self, state: State) -> State:
        number = state[0]
        if number not in self._renamed_worlds:
            self._renamed_worlds[number] = self._worlds.number(renamed(self._worlds[number], self._names))
        return (self._renamed_worlds[number], *(self._place(state[at]) for at in self._order))

    def _place(self, place: int) -> int:
        if place not in self._renamed_places:
            self._renamed_places[place] = self._places.renamed(place, self._names)
        return self._renamed_places[place]


Value = TypeVar("Value", bound=Hashable)


class _Numbers(Generic[Value]):
    """Values by number, in the order in which they were first seen: a state of numbers is quick to compare."""

    def __init__(self) -> None:
        self._values: list[Value] = []
        self._numbers: dict[Value, int] = {}

    def number(self, value: Value) -> int:
        """The number of a value."""
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def __getitem__(self, number: int) -> Value:
        return self._values[number]
