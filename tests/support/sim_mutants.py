"""
Mutants: the product with one of its precautions taken out, which the simulation must find.

A mutant is an edit of the source of a function or two, so that it stays beside what it edits: where the text that it
replaces is not there any more, it cannot be made, and says so. `;` stands where the edited text needs one more line.
With each mutant stands where it is found: among the schedules of a scenario, or in a history.

    python -m tests.support.sim_mutants                        # lists them
    python -m tests.support.sim_mutants "no second look"       # tells what goes wrong in one
"""

import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

from aggregator.pipeline import clients, deadlines, distribution, swaps
from aggregator.pipeline.arbiter import Arbiter
from aggregator.pipeline.bundling import Attempt
from aggregator.pipeline.distribution import DistributionBucket
from aggregator.pipeline.ledger import Ledger
from aggregator.pipeline.report import Report
from aggregator.pipeline.swaps import Statements, Transactions
from tests.support.sim_aws import Table, Write
from tests.support.sim_schedules import SCENARIOS, Budget, Way, explore
from tests.support.sim_world import World, prepare
from tests.support.simulation import simulate

SetAttr = Callable[[Any, str, Any], object]
Mutation = Callable[[SetAttr], object]


class Edit(NamedTuple):
    """Texts in the source of `owner.name`, and what stands there instead."""

    owner: Any
    name: str
    instead: dict[str, str]


def edited(*edits: Edit) -> Mutation:
    """The mutant in which all these edits are made."""

    def mutate(setattr_: SetAttr) -> None:
        for edit in edits:
            setattr_(edit.owner, edit.name, _made(edit))

    return mutate


def _made(edit: Edit) -> Any:
    """What `owner.name` is by its edited source, among the same global names."""
    found = inspect.getattr_static(edit.owner, edit.name)
    function: Any = found.fget if isinstance(found, property) else found
    source = textwrap.dedent(inspect.getsource(function))
    for text, instead in edit.instead.items():
        if source.count(text) != 1:
            raise AssertionError(f"{edit.name} does not say once: {text}")
        source = source.replace(text, instead)
    names: dict[str, Any] = {}
    exec(compile(source, f"<mutant of {edit.name}>", "exec"), function.__globals__, names)
    return names[edit.name]


def _deletes(setattr_: SetAttr) -> None:
    apply = Table.apply

    def delete(table: Table, write: Write) -> None:
        apply(table, write)
        if _releases(write):
            del table.items[write.id]

    setattr_(Table, "apply", delete)


def _unconditional(setattr_: SetAttr) -> None:
    holds = Table.holds
    setattr_(Table, "holds", lambda table, write: _releases(write) or holds(table, write))


def _releases(write: Write) -> bool:
    return "released" in write.sets["data"]["S"]


def _seen_by(*attributes: str) -> Mutation:
    """What was seen is recognised by some of its attributes."""
    names = {"data": "names.data_attr", "deadline": "names.in_progress_expiry_attr"}
    values = {"data": '{"S": swap.seen.data}', "deadline": '{"N": str(swap.seen.deadline)}'}
    seen = ", ".join(["names.key_attr", *(names[attribute] for attribute in attributes)])
    parameters = ", ".join(["values[0]", *(values[attribute] for attribute in attributes)])
    terms = [f"#{attribute} = :{attribute}" for attribute in attributes]
    whole = f"[values[0], {values['data']}, {values['deadline']}]"
    return edited(
        Edit(Statements, "__init__", {f"seen = (names.key_attr, {', '.join(names.values())})": f"seen = ({seen},)"}),
        Edit(Statements, "_statement", {whole: f"[{parameters}]"}),
        Edit(Transactions, "_put", {"#data = :data AND #deadline = :deadline": " AND ".join(terms)}),
    )


_RELEASE_LEFT_OVER = "self._ledger.release(self._claimed(packed=False), self._claims.in_doubt)"
_RELEASE_FAILED = 'raise LedgerUnavailableError("claims could not be released", members=len(left))'
_FENCE = "self._distribution.fence(bundle, empty_bundle(bundle, self._clock(), self._request_id))"


class Schedules(NamedTuple):
    """The schedules of a scenario among which a mutant is found."""

    scenario: str
    way: Way
    interruptions: int
    faults: int


class Mutant(NamedTuple):
    """What is taken out, and where that is found, in each of these; a number is the seed of a history."""

    mutate: Mutation
    found: tuple[Schedules | int, ...]


MUTANTS: dict[str, Mutant] = {
    "no second look": Mutant(
        edited(Edit(Ledger, "_judged_by_bundle", {"if record == seen:": "if True:"})),
        (
            Schedules("one stray", "statements", 2, 0),
            Schedules("one stray", "transactions", 2, 0),
        ),
    ),
    "what has changed is claimed over whatever it says": Mutant(
        edited(Edit(Ledger, "_judged_by_bundle", {"record if record and self._is_free(record) else None": "record"})),
        (Schedules("delivered three times", "statements", 2, 0),),
    ),
    "what is settled is remembered too late": Mutant(
        edited(Edit(Ledger, "claim", {"met = {": "settled = frozenset(self._settled); met = {"})),
        (Schedules("threads", "transactions", 2, 0),),
    ),
    "whoever is refused is a duplicate": Mutant(
        edited(Edit(Ledger, "_judged", {"if bundle in settled:": "if True:"})),
        (Schedules("an old record", "statements", 0, 0),),
    ),
    "a lapsed claim is taken over unresolved": Mutant(
        edited(Edit(Ledger, "_judged_unsettled", {"self._arbiter.resolve(bundle)": "frozenset()"})),
        (Schedules("delivered twice", "statements", 1, 0),),
    ),
    "a claim is resolved while it is alive": Mutant(
        edited(Edit(Ledger, "_judged_unsettled", {"if self._clock() * 1000 <= record.deadline:": "if False:"})),
        (Schedules("hasty consumers", "statements", 1, 0),),
    ),
    "a bundle is taken to hold all that was claimed for it": Mutant(
        edited(Edit(Ledger, "_judged_unsettled", {"if one.id in members:": "if members:"})),
        (Schedules("one stray", "statements", 2, 1),),
    ),
    "no fence": Mutant(
        edited(
            Edit(
                Arbiter, "_fenced", {"if found is not None:": "if True:", "return found": "return found or frozenset()"}
            )
        ),
        (Schedules("delivered twice", "statements", 0, 1),),
    ),
    "any answer to a fence is believed": Mutant(
        edited(Edit(Arbiter, "_fenced", {_FENCE: f"{_FENCE}; return frozenset()"})),
        (Schedules("delivered twice", "statements", 1, 1),),
    ),
    "a fence that was put is believed": Mutant(
        edited(
            Edit(DistributionBucket, "fence", {'IfNoneMatch="*")': 'IfNoneMatch="*"); return True'}),
            Edit(Arbiter, "_fenced", {_FENCE: f"if {_FENCE}: return frozenset()"}),
        ),
        (Schedules("consumers", "statements", 1, 1),),
    ),
    "only the newest version counts": Mutant(
        edited(Edit(DistributionBucket, "versions", {'if version["Key"] == key': 'if version["IsLatest"]'})),
        (Schedules("consumers", "statements", 1, 0),),
    ),
    "a put without condition": Mutant(
        edited(Edit(DistributionBucket, "put", {'IfNoneMatch="*",': ""})),
        (Schedules("delivered twice", "statements", 0, 1),),
    ),
    "SlowDown is a refusal": Mutant(
        edited(Edit(DistributionBucket, "put", {"400 <= status < 500": "400 <= status < 504"})),
        (Schedules("delivered twice", "statements", 0, 1),),
    ),
    "after SlowDown it is put again blindly": Mutant(
        edited(Edit(DistributionBucket, "put", {" or self.versions(key)": ""})),
        (Schedules("consumers", "statements", 1, 1),),
    ),
    "after a put without answer the claims are given back": Mutant(
        edited(Edit(Attempt, "_found_out", {"if found is None:": "if False:"})),
        (Schedules("delivered twice", "statements", 0, 1),),
    ),
    "after a put of which nobody can tell the claims are given back": Mutant(
        edited(Edit(Attempt, "_found_out", {"found = None": "found = frozenset()"})), (200,)
    ),
    "after a put without answer the bundle is believed to be there": Mutant(
        edited(Edit(Attempt, "_found_out", {"if found:": "if True:"})), (Schedules("one stray", "statements", 1, 0),)
    ),
    "settled before it is put": Mutant(
        edited(
            Edit(
                Attempt,
                "publish",
                {"published = self._put(packed)": "self._settle(packed); published = self._put(packed)"},
            )
        ),
        (Schedules("one stray", "statements", 1, 0),),
    ),
    "what is left over is not released": Mutant(
        edited(Edit(Attempt, "gather", {"self._claimed(packed=False), ": "[], "})),
        (Schedules("one stray", "statements", 0, 0),),
    ),
    "what is left over is released after the put": Mutant(
        edited(
            Edit(Attempt, "gather", {_RELEASE_LEFT_OVER: "pass"}),
            Edit(Attempt, "_settle", {"self._ledger.settle(": f"{_RELEASE_LEFT_OVER}; self._ledger.settle("}),
        ),
        (Schedules("threads", "statements", 1, 0),),
    ),
    "claims in doubt are not released": Mutant(
        edited(Edit(Ledger, "release", {"(*owned, *in_doubt)": "(*owned,)"})),
        (Schedules("one stray", "statements", 0, 1),),
    ),
    "claims in doubt are released only if they have landed": Mutant(
        edited(
            Edit(
                Ledger,
                "release",
                {
                    "claim.replaces if id_ in late else claim.mine": "claim.mine",
                    "found is claims[id_].replaces is None": "False",
                },
            )
        ),
        (Schedules("one stray", "statements", 0, 1),),
    ),
    "a release that is not certain is good enough": Mutant(
        edited(Edit(Ledger, "release", {_RELEASE_FAILED: "return"})), (Schedules("one stray", "statements", 0, 1),)
    ),
    "a release takes what is another's": Mutant(
        edited(Edit(Ledger, "release", {"if _is(claims[id_].mine, found) or": "if found is not None or"})),
        (Schedules("two in one message", "statements", 1, 0),),
    ),
    "a release deletes": Mutant(_deletes, (Schedules("one stray", "statements", 0, 1),)),
    "a release has no condition": Mutant(_unconditional, (Schedules("two in one message", "statements", 1, 0),)),
    "a record that fades is relied on": Mutant(
        edited(Edit(Ledger, "_fades", {"< self._clock() + SECONDS_PER_DAY": "< 0"})),
        (Schedules("an old record", "statements", 0, 1),),
    ),
    "what was seen is not asked for": Mutant(
        _seen_by(),
        (
            Schedules("two in one message", "statements", 1, 0),
            Schedules("two in one message", "transactions", 1, 0),
        ),
    ),
    "what was seen is known by its deadline alone": Mutant(
        _seen_by("deadline"),
        (
            Schedules("one stray", "statements", 0, 1),
            Schedules("one stray", "transactions", 0, 1),
        ),
    ),
    "a second answer counts as a first, in statements": Mutant(
        edited(
            Edit(Statements, "request", {"not lost_attempts(answer)": "True"}),
        ),
        (Schedules("an old record", "statements", 0, 1),),
    ),
    "a second refusal counts as a first": Mutant(
        edited(
            Edit(swaps, "had_no_effect", {"not lost_attempts(error.response) and ": ""}),
        ),
        (Schedules("an old record", "transactions", 0, 1),),
    ),
    "a statement that failed is taken for refused": Mutant(
        lambda setattr_: setattr_(swaps, "_NOT_DONE", swaps._NOT_DONE | {"InternalServerError"}),
        (Schedules("an old record", "statements", 0, 1),),
    ),
    "whether claims have lapsed is asked too early": Mutant(
        edited(
            Edit(clients, "_not_lapsed", {"if time.time() > deadlines.lapses:": "if False:"}),
        ),
        (Schedules("hasty consumers", "statements", 1, 0),),
    ),
    "claims that have lapsed are not noticed": Mutant(
        edited(
            Edit(Ledger, "lapsed", {"self._clock() * 1000 > self._deadline": "False"}),
            Edit(clients, "_not_lapsed", {"if time.time() > deadlines.lapses:": "if False:"}),
        ),
        (Schedules("hasty consumers", "statements", 1, 0),),
    ),
    "claims lapse before their invocation ends": Mutant(
        lambda setattr_: setattr_(deadlines, "GRACE", -30), (Schedules("slow", "statements", 1, 1),)
    ),
    "a message is acknowledged for one of its objects": Mutant(
        edited(
            Edit(Report, "_failure", {"return min(": "return None if len(failures) < len(envelope.wanted) else min("})
        ),
        (Schedules("two in one message", "statements", 1, 0),),
    ),
}

EQUIVALENT: dict[str, Mutation] = {
    "412 is a refusal": lambda setattr_: setattr_(distribution, "_INDEFINITE", distribution._INDEFINITE - {412}),
    "what was seen is known by its data alone": _seen_by("data"),
    "a put is begun though the claims have lapsed": edited(
        Edit(Ledger, "lapsed", {"self._clock() * 1000 > self._deadline": "False"})
    ),
}


def hunt(where: Schedules | int) -> World | None:
    """What goes wrong there; None, if nothing does."""
    if isinstance(where, int):
        history = simulate(where)
        return history if history.wrong else None
    return explore(SCENARIOS[where.scenario], where.way, Budget(where.interruptions, where.faults)).wrong


def _main(name: str = "") -> None:
    if not name:
        sys.stdout.write("\n".join([*MUTANTS, *EQUIVALENT, ""]))
        return
    prepare(setattr)
    MUTANTS[name].mutate(setattr)
    for world in filter(None, map(hunt, MUTANTS[name].found)):
        sys.stdout.write("\n".join([*world.story, *world.wrong, "", ""]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
