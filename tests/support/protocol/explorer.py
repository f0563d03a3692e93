"""
Goes through all that may happen to some invocations in one world, and tells the shortest history that goes wrong.

    state = the number of the world, and the place of each invocation in its program

In every state it may be that nobody is heard of any more: a crash is no event, it is that nothing follows (`aws.py`).
Then all claims lapse, and what is not acknowledged is delivered once more, to an invocation in which nothing fails.
What is on the wire lands before, meanwhile, after, or never. All of it is delivered once more as well, acknowledged or
not, for SQS may do that. So of every state that can be reached it is judged whether an object is lost, twice, or stuck.

Two things make the states fewer, besides what `aws.py` says, and leave no history out:

- Who reads an object does so at once: nobody else sees it, or has a say in it, so its turn makes no difference.
- Where invocations have the same messages, who is called what makes no difference: of the states that are one another
  under other names, one is gone through.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from typing import Generic, NamedTuple, TypeVar

from tests.support.protocol.aws import Aws, Outcome, World, renamed
from tests.support.protocol.calls import Call, ReadObject
from tests.support.protocol.programs import OVER, Places, Runs, Way
from tests.support.protocol.words import asked, said, told

LAST = "Z"
"""The invocation of the last delivery."""

State = tuple[int, ...]
"""The world; the place of each invocation, and of the last one, which is OVER as well before it begins."""

Key = TypeVar("Key")
Value = TypeVar("Value")


class Happening(NamedTuple):
    """What may happen in a state: who makes a call, or which write lands, or that nobody is heard of any more."""

    who: str
    call: Call | None
    outcome: Outcome
    state: State

    def told(self) -> Iterator[str]:
        """The same, in words."""
        if self.outcome.before:
            yield self.outcome.before
        if self.call is None:
            yield f"nobody is heard of any more, all claims lapse, and messages are delivered once more, to {LAST}"
        elif self.who:
            yield f"{self.who} {told(self.call, self.outcome.answer)}"
        else:
            yield f"late, it lands: {asked(self.call)}"


class Exploration(NamedTuple):
    """How many states there are, and the shortest history that goes wrong, if there is one."""

    states: int
    steps: int
    history: tuple[str, ...]

    def told(self) -> str:
        """The history, line by line."""
        return "\n".join(f"{number:3}. {line}" for number, line in enumerate(self.history, 1))


def explore(model: "Model") -> Exploration:
    """Go through all states, those that are fewest steps away first, up to one that is wrong."""
    before: dict[State, State | None] = dict.fromkeys(model.first)
    waiting, steps = deque(before), 0
    while waiting:
        state = waiting.popleft()
        if model.wrong(state):
            return Exploration(len(before), steps, tuple(model.history(_path(before, state))))
        for after in model.after(state):
            steps += 1
            if after not in before:
                before[after] = state
                waiting.append(after)
    return Exploration(len(before), steps, ())


def alone(
    kind: type[Runs], way: Way, world: World, *, aws: Aws, until: type[Call] | None = None
) -> tuple[list[Call], World]:
    """The calls of an invocation of which nothing fails, up to the first of a kind, and the world after them."""
    places, calls = Places(kind), list[Call]()
    place = places.reached(way)
    while place != OVER and not (calls and until and isinstance(calls[-1], until)):
        calls.append(places.calls[place][0])
        outcome = next(aws.outcomes(world, calls[-1]))
        place, world = places.after(place, 0, outcome.answer), outcome.world
    return calls, world


class Model:
    """
    Some invocations, each with its messages, in one of some worlds.

    `reduced` makes the states fewer, in the two ways above, and by merging places (`programs.py`).
    """

    def __init__(
        self,
        kind: type[Runs],
        batches: Mapping[str, tuple[str, ...]],
        *,
        aws: Aws,
        worlds: Iterable[World],
        reduced: bool = True,
    ) -> None:
        self._names, self._aws = (*batches, LAST), aws
        self._members = tuple(sorted({member for batch in batches.values() for member in batch}))
        self._reduced = reduced
        self._places, self._worlds = Places(kind, merged=reduced), _Numbers[World]()
        self._outcomes = _Remembered(self._outcome)
        self._reads = _Remembered(self._reading)
        self._landings = _Remembered(self._landed)
        self._ends = _Remembered(self._ended)
        self._wrongs = _Remembered(self._wrong)
        self._namings = [_Naming(names, self._places, self._worlds) for names in _namings(batches) if reduced]
        places = [self._places.reached(Way(name, batch)) for name, batch in batches.items()]
        self.first = [self._normal((self._worlds.number(world), *places, OVER)) for world in worlds]

    @property
    def worlds(self) -> frozenset[World]:
        """The worlds that were met."""
        return frozenset(self._worlds)

    def after(self, state: State) -> list[State]:
        """The states that may follow."""
        return [self._normal(happening.state) for happening in self._happenings(state)]

    def wrong(self, state: State) -> str:
        """What is wrong in a state, or nothing."""
        world, last = state[0], state[-1]
        return self._wrongs[world, last == OVER]

    def history(self, path: Sequence[State]) -> Iterator[str]:
        """What happens on the way through some states, and what is wrong in the last of them."""
        state = path[0]
        for member, record in self._worlds[state[0]].records:
            yield f"the record of {member} is of long ago: {said(record)}"
        for wanted in path[1:]:
            happening = next(each for each in self._happenings(state) if self._normal(each.state) == wanted)
            yield from happening.told()
            state = happening.state
        yield self.wrong(state)

    def _happenings(self, state: State) -> list[Happening]:
        """What may happen next: a call is answered, a write lands, or nobody is heard of any more."""
        world, places = state[0], state[1:]
        dead = self._worlds[world].lapsed if self._aws.patient else frozenset()
        turns = [at for at, place in enumerate(places) if place != OVER and self._names[at] not in dead]
        reading = [at for at in turns if self._reads[places[at]]]
        if reading:
            return self._calls(state, reading[:1])
        landings = [Happening("", call, outcome, (after, *places)) for call, outcome, after in self._landings[world]]
        ends = [Happening("", None, Outcome(None, self._worlds[world]), end) for end in self._ends[world]]
        return self._calls(state, turns) + landings + ends

    def _calls(self, state: State, turns: Iterable[int]) -> list[Happening]:
        """What may come of the calls of those whose turn it may be."""
        world, places = state[0], state[1:]
        found = []
        for at in turns:
            name, place, before, behind = self._names[at], places[at], places[:at], places[at + 1 :]
            for which, call in enumerate(self._places.calls[place]):
                for outcome, after in self._outcomes[world, call]:
                    next_place = self._places.after(place, which, outcome.answer)
                    found.append(Happening(name, call, outcome, (after, *before, next_place, *behind)))
        return found

    def _reading(self, place: int) -> bool:
        """Whether an object is read at a place, so that it is nobody else's turn."""
        return self._reduced and any(isinstance(call, ReadObject) for call in self._places.calls[place])

    def _outcome(self, asked: tuple[int, Call]) -> list[tuple[Outcome, int]]:
        """What may come of a call in a world."""
        world, call = asked
        return [(each, self._worlds.number(each.world)) for each in self._aws.outcomes(self._worlds[world], call)]

    def _landed(self, world: int) -> list[tuple[Call, Outcome, int]]:
        """What may come of what is on the wire."""
        landings = self._aws.landings(self._worlds[world])
        return [(write, each, self._worlds.number(each.world)) for write, each in landings]

    def _ended(self, number: int) -> list[State]:
        """The states in which nobody is left, and what is not acknowledged, or all, is delivered once more."""
        world, over = self._worlds[number], (OVER,) * (len(self._names) - 1)
        left = tuple(member for member in self._members if member not in world.acknowledged)
        batches = [] if world.calm else [batch for batch in dict.fromkeys((left, self._members)) if batch]
        calm = self._worlds.number(self._aws.calmed(world))
        return [(calm, *over, self._places.reached(Way(LAST, batch))) for batch in batches]

    def _wrong(self, judged: tuple[int, bool]) -> str:
        """What is wrong in a world, where the last invocation is over or not."""
        world, over = self._worlds[judged[0]], judged[1]
        for member in self._members:
            published, acknowledged = world.published(member), member in world.acknowledged
            if published > 1:
                return f"{member} is in two bundles"
            if acknowledged and not published:
                return f"{member} is acknowledged, and in no bundle"
            if world.calm and over and not acknowledged:
                return f"{member} was delivered once more, and is still not acknowledged"
        return ""

    def _normal(self, state: State) -> State:
        """The state that stands for all those that are the same under other names."""
        least = state
        for naming in self._namings:
            least = min(least, naming.of(state))
        return least


class _Remembered(dict[Key, Value]):
    """What a function gives, asked once for each key."""

    def __init__(self, give: Callable[[Key], Value]) -> None:
        super().__init__()
        self._give = give

    def __missing__(self, key: Key) -> Value:
        value = self[key] = self._give(key)
        return value


class _Numbers(Generic[Value]):
    """Values by number, in the order in which they came."""

    def __init__(self) -> None:
        self._values: list[Value] = []
        self._numbers: dict[Value, int] = {}

    def number(self, value: Value) -> int:
        number = self._numbers.setdefault(value, len(self._values))
        if number == len(self._values):
            self._values.append(value)
        return number

    def __getitem__(self, number: int) -> Value:
        return self._values[number]

    def __iter__(self) -> Iterator[Value]:
        return iter(self._values)


class _Naming:
    """Other names for the invocations: each takes the name, and the place in the state, of another."""

    def __init__(self, names: Mapping[str, str], places: Places, worlds: "_Numbers[World]") -> None:
        before = {name: at for at, name in enumerate(names, 1)}
        named = {after: before[name] for name, after in names.items()}
        self._order = [*(named[name] for name in names), len(names) + 1]
        self._place: _Remembered[int, int] = _Remembered(lambda place: places.renamed(place, names))
        self._world: _Remembered[int, int] = _Remembered(lambda world: worlds.number(renamed(worlds[world], names)))

    def of(self, state: State) -> State:
        """A state, under these names."""
        return (self._world[state[0]], *[self._place[state[at]] for at in self._order])


def _namings(batches: Mapping[str, tuple[str, ...]]) -> Iterator[dict[str, str]]:
    """All other names for invocations such that each has the messages that it had."""
    for names in permutations(batches):
        renaming = dict(zip(batches, names, strict=True))
        if names != tuple(batches) and all(batches[name] == batches[other] for name, other in renaming.items()):
            yield renaming


def _path(before: Mapping[State, State | None], state: State) -> list[State]:
    """The states that led to this one, from the first on."""
    path: list[State] = []
    step: State | None = state
    while step is not None:
        path.append(step)
        step = before[step]
    return path[::-1]
