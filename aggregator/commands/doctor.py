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
    queue_url: Annotated[str | None, typer.Option(metavar="URL", help="The queue, if there is no stack.")] = None,
    source_bucket: Annotated[
        str | None, typer.Option(metavar="NAME", help="The source bucket, if there is no stack.")
    ] = None,
    no_probe: Annotated[
        bool, typer.Option("--no-probe", help="Write nothing: no probe of conditional writes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """
    Check every condition that the guarantee rests on, one line each, with the fix.

    Looks at a stack, or at a template with its parameters, or else at what runs with the settings in the environment.
    A check that cannot be made is reported as not checked. A name that does not exist is wrong. To see if the store
    honours conditional writes, an empty bundle is put under doctor/ in the distribution bucket, once, and stays there.
    Exit status 1 says that something is wrong, 2 that AWS answered nothing at all.
    """
    from aggregator.operations.doctor.checks import State, diagnose

    findings = diagnose(_facts(stack, template, parameter or [], queue_url, source_bucket, probe=not no_probe))
    if as_json:
        print_json([{**finding._asdict(), "state": finding.state.value} for finding in findings])
    else:
        _print(findings)
    raise typer.Exit(FINDING if any(finding.state is State.WRONG for finding in findings) else 0)


def _facts(
    stack: str | None,
    template: Path | None,
    parameters: Sequence[str],
    queue_url: str | None,
    source_bucket: str | None,
    *,
    probe: bool,
) -> "Facts":
    if stack and template:
        raise CallError("--stack and --template are two questions: ask one")
    if template:
        from aggregator.operations.doctor import facts_from_template as blueprint
        from aggregator.operations.doctor.template import Template, read

        return blueprint.facts(Template(read(template), dict(map(_pair, parameters))))
    if parameters:
        raise CallError("--parameter belongs to --template")
    from aggregator.operations.doctor import facts_from_aws, places

    if stack:
        place = places.of_stack(stack)
    else:
        place = places.of_environment(dict(os.environ), queue_url=queue_url, source=source_bucket)
    return facts_from_aws.facts(place, probe=probe, now=time.time)


def _pair(parameter: str) -> tuple[str, str]:
    name, equals, value = parameter.partition("=")
    if not name or not equals:
        raise CallError(f"--parameter {parameter} is not NAME=VALUE")
    return name, value


def _print(findings: "Sequence[Finding]") -> None:
    rows = [
        (each.check, each.state.value, f"{each.says}; fix: {each.fix}" if each.fix else each.says) for each in findings
    ]
    print_table(("check", "", "found"), rows)
    counts = Counter(each.state.value for each in findings)
    words().print(", ".join(f"{count} {state}" for state, count in counts.items()), markup=False)
