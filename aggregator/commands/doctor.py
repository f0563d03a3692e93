"""`aggregator doctor`: whether a deployment, or a template, keeps what the guarantee rests on."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aggregator.commands.console import FINDING, print_json, print_table, words
from aggregator.exceptions import AggregatorError

if TYPE_CHECKING:
    from aggregator.operations.doctor.checks import Finding
    from aggregator.operations.doctor.current import Symptom
    from aggregator.operations.doctor.facts import Facts


class CallError(AggregatorError):
    """The options contradict each other."""

    reason = "call"


def doctor(
    stack: Annotated[str | None, typer.Option(metavar="NAME", help="Look at this CloudFormation stack.")] = None,
    template: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Look at this template; nothing is asked of AWS.")
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter of the template; may be repeated.")
    ] = None,
    queue_url: Annotated[
        str | None, typer.Option(metavar="URL", envvar="QUEUE_URL", help="The queue, if there is no stack.")
    ] = None,
    source_bucket: Annotated[
        str | None,
        typer.Option(metavar="NAME", envvar="SOURCE_BUCKET_NAME", help="The source bucket, if there is no stack."),
    ] = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Write nothing: no probe of conditional writes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """
    Say what is wrong now, then check every condition that the guarantee rests on, each with the fix.

    First come alarms that ring, messages that wait or were given up, the last bundle, and copies that are late, each
    with the next command; if nothing is wrong, that is one line. No message is received, so none becomes invisible.
    Looks at a stack, or at a template with its parameters, or else at what runs with the settings in the environment.
    A check that cannot be made is reported as not checked. A name that does not exist is wrong. To see if the store
    honours conditional writes, an empty bundle is put under doctor/ in the distribution bucket, once, and stays there.
    Exit status 1 says that something is wrong, 2 that AWS answered nothing at all.
    """
    from aggregator.operations.doctor.checks import State, diagnose

    facts, today = _facts(stack, template, parameter or [], queue_url, source_bucket, probe=not no_probe)
    findings = diagnose(facts)
    if as_json:
        now = None if today is None else [{**each._asdict(), "state": each.state.value} for each in today]
        checks = [{**finding._asdict(), "state": finding.state.value} for finding in findings]
        print_json({"now": now, "checks": checks})
    else:
        _print(today or (), findings)
    states = [each.state for each in findings] + [each.state for each in today or ()]
    raise typer.Exit(FINDING if State.WRONG in states else 0)


def _facts(
    stack: str | None,
    template: Path | None,
    parameters: Sequence[str],
    queue_url: str | None,
    source_bucket: str | None,
    *,
    probe: bool,
) -> "tuple[Facts, list[Symptom] | None]":
    """What is known of the deployment, and what is wrong with it now; of a template nothing is."""
    if stack and template:
        raise CallError("--stack and --template are two questions: ask one")
    if template:
        from aggregator.operations.doctor import facts_from_template as blueprint
        from aggregator.operations.doctor.template import Template, read

        return blueprint.facts(Template(read(template), dict(map(_pair, parameters)))), None
    if parameters:
        raise CallError("--parameter belongs to --template")
    from aggregator.operations.doctor import current, current_from_aws, facts_from_aws, places

    if stack:
        place = places.of_stack(stack)
    else:
        place = places.of_environment(dict(os.environ), queue_url=queue_url, source=source_bucket)
    facts, now = facts_from_aws.facts(place, probe=probe, now=time.time), time.time()
    return facts, current.symptoms(current_from_aws.today(place, now=now), now=now)


def _pair(parameter: str) -> tuple[str, str]:
    name, equals, value = parameter.partition("=")
    if not name or not equals:
        raise CallError(f"--parameter {parameter} is not NAME=VALUE")
    return name, value


def _print(today: "Sequence[Symptom]", findings: "Sequence[Finding]") -> None:
    rows = [(each.check, each.state.value, _with(each.says, "next", each.next)) for each in today]
    rows += [(each.check, each.state.value, _with(each.says, "fix", each.fix)) for each in findings]
    print_table(("check", "", "found"), rows)
    counts = Counter([each.state.value for each in findings] + [each.state.value for each in today])
    words().print(", ".join(f"{count} {state}" for state, count in counts.items()), markup=False)


def _with(says: str, what: str, text: str) -> str:
    return f"{says}; {what}: {text}" if text else says
