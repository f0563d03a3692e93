"""`aggregator plan`: what a workload costs, and what limits it."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aggregator.commands.console import FINDING, bytes_in_words, counted, print_json

if TYPE_CHECKING:
    from aggregator.operations.capacity.costs import Plan
    from aggregator.operations.capacity.workers import Tasks

_LAMBDA_BATCH, _LAMBDA_WINDOW = 10_000, 300
"""Most messages of a batch, and most seconds of its window (Lambda API reference, CreateEventSourceMapping)."""

_UNITS = {"": 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_UNITS |= {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def plan(
    *,
    objects_per_day: Annotated[str, typer.Option(metavar="N", help="How many come: 50M, 10G.")],
    object_size: Annotated[str, typer.Option(metavar="SIZE", help="How large each is: 4KiB.")],
    batch_size: Annotated[int, typer.Option(min=1, max=120_000, help="Messages in a batch, at most.")] = 10_000,
    window: Annotated[float, typer.Option(min=0, max=21_600, help="Seconds in which a batch is gathered.")] = 60,
    memory: Annotated[int, typer.Option(min=128, max=10_240, help="MB of the function.")] = 1_769,
    concurrency: Annotated[int, typer.Option(min=2, max=1_250, help="MaximumConcurrency of one queue.")] = 10,
    queues: Annotated[int, typer.Option(min=1, help="Queues that share the traffic evenly.")] = 1,
    burst: Annotated[float, typer.Option(min=1, help="All comes in this fraction of every ten minutes.")] = 1,
    max_bundle_input: Annotated[int, typer.Option(metavar="MB", min=1, help="MAX_BUNDLE_INPUT_MB.")] = 100,
    ratio: Annotated[float, typer.Option(min=1, help="How well the objects compress.")] = 4,
    duplicates: Annotated[float, typer.Option(metavar="PERCENT", min=0, max=99, help="Objects that come again.")] = 0,
    worker: Annotated[
        bool, typer.Option("--worker", help="Plan `aggregator worker` on Fargate, beside Lambda.")
    ] = False,
    visibility: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, max=43_200, help="The queue's visibility time-out, for --worker.")
    ] = 2_100,
    replicated: Annotated[bool, typer.Option("--replicated", help="Count the archive's PUTs too.")] = False,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON: other prices by name, in dollars.")] = None,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """
    Say what a workload costs, how large its bundles get, and which limit it meets first.

    The arrivals and Lambda's pollers are simulated, times were measured, prices are a dated list for us-east-1. Exit
    status 1 says that the function does not keep up, or that a default limit of AWS is too low.
    """
    from aggregator.operations.capacity import costs, workers

    if not worker and (batch_size > _LAMBDA_BATCH or window > _LAMBDA_WINDOW):
        raise costs.PlanError(
            f"Lambda has batches of at most {_LAMBDA_BATCH:,} messages and windows of at most {_LAMBDA_WINDOW} s: "
            "lower --batch-size or --window, or plan a worker with --worker"
        )
    workload = costs.Workload(
        objects_per_day=_number("--objects-per-day", objects_per_day),
        object_size=_number("--object-size", object_size),
        batch_size=batch_size,
        window=window,
        memory=memory,
        concurrency=concurrency,
        queues=queues,
        burst=burst,
        bundle_limit=max_bundle_input * 1e6,
        ratio=ratio,
        replicated=replicated,
        duplicates=duplicates / 100,
    )
    listed = costs.priced(prices) if prices else costs.PRICES
    tasks: Tasks | None = None
    if worker:
        made, tasks = workers.plan_worker(workload, visibility=visibility, seed=seed, prices=listed)
        in_lambda = workload._replace(batch_size=min(batch_size, _LAMBDA_BATCH), window=min(window, _LAMBDA_WINDOW))
        other = costs.plan(in_lambda, seed=seed, prices=listed)
    else:
        made = other = costs.plan(workload, seed=seed, prices=listed)
    if as_json:
        print_json(_everything(made) | ({"tasks": tasks._asdict(), "in_lambda": _everything(other)} if tasks else {}))
    else:
        print("\n".join(lines(made, tasks, other)))
    raise typer.Exit(0 if made.keeps_up and not any(limit.exceeded for limit in made.limits) else FINDING)


def lines(made: "Plan", tasks: "Tasks | None" = None, other: "Plan | None" = None) -> list[str]:
    """A plan, as it is printed; of a worker with its `tasks`, and beside the plan of Lambda."""
    from aggregator.operations.capacity.costs import FIGURES, PRICES_DATE

    work, seen = made.workload, made.seen
    bound = ", ".join(f"{why} {share:.0%}" for why, share in made.bound.items())
    mean, most = seen.busy_seconds / seen.seconds * work.queues, seen.most_running * work.queues
    peak = f", {_rate(work.rate * work.burst)} at the peak" * (work.burst > 1)
    facts = [
        ("objects", _rate(work.rate) + peak),
        ("bundle", f"{counted(round(made.members), 'member')}, {bytes_in_words(made.text_bytes)} of text"),
        ("", f"{bytes_in_words(made.bundle_bytes)} compressed, if {work.ratio:g} to 1"),
        ("", f"{_range(seen.quantile(0.1), seen.quantile(0.9))} in eight of ten batches"),
        ("bounded by", bound),
        (
            "batch" if tasks else "invocation",
            f"{made.seconds:,.2f} s; on average {mean:,.2f} at once, {most:,} at most",
        ),
        *_worker_facts(made, tasks),
        ("keeps up", "yes" if made.keeps_up else f"no: {_waiting(seen.backlog * work.queues)}, and more every minute"),
    ]
    rows = [f"{label:<12}{value}" for label, value in facts]
    rows += ["", f"{'for a million objects':<32}{'amount':>14}{'':<13}{'dollars':>12}"]
    rows += [f"{line.what:<32}{_amount(line.amount):>14} {line.unit:<12}{line.dollars:>12,.4f}" for line in made.lines]
    per_day = made.dollars * work.objects_per_day / 1e6
    rows += [f"{'total':<59}{made.dollars:>12,.4f}"]
    rows += [f"{'total per day':<59}{per_day:>12,.2f}", f"{'total per month (30 days)':<59}{30 * per_day:>12,.2f}"]
    if tasks and other:
        rows += [_in_lambda(other)]
    rows += ["", *_ledger_rows(made)]
    rows += ["", f"{'limit of AWS':<48}{'needed':>12}{'default':>12}"]
    rows += [
        f"{limit.what:<48}{limit.needed:>12,.0f}{limit.default:>12,.0f}{'  raise it' * limit.exceeded}"
        for limit in made.limits
    ]
    return [*rows, "", f"prices: us-east-1, {PRICES_DATE}; times: {FIGURES.source}"]


def _worker_facts(made: "Plan", tasks: "Tasks | None") -> list[tuple[str, str]]:
    if not tasks:
        return []
    size = f"{tasks.vcpus:g} vCPU and {tasks.gigabytes:g} GB"
    count = counted(tasks.number * made.workload.queues, "task")
    return [("workers", f"{count} of {size}, with one process each")]


def _in_lambda(other: "Plan") -> str:
    """What Lambda does with the same workload, in one row."""
    per_day = other.dollars * other.workload.objects_per_day / 1e6
    what = f"in Lambda, per day, {counted(round(other.members), 'member')} in a bundle"
    return f"{what:<59}{per_day:>12,.2f}"


def _rate(per_second: float) -> str:
    """A rate for people, in the unit in which it is 1 or more."""
    for seconds, unit in ((1, "second"), (60, "minute"), (3_600, "hour")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:,.1f} per {unit}"
    return f"{per_second * 86_400:,.1f} per day"


def _range(least: int, most: int) -> str:
    return counted(most, "message") if least == most else f"{least:,} to {counted(most, 'message')}"


def _waiting(messages: int) -> str:
    return "1 message waits" if messages == 1 else f"{messages:,} messages wait"


def _amount(number: float) -> str:
    """A number for people: whole, where a hundredth does not matter."""
    return f"{number:,.0f}" if number >= 100 else f"{number:,.2f}"


def _ledger_rows(made: "Plan") -> list[str]:
    """The ledger, by the write and by the hour: what a million objects cost, and what is to be provisioned."""
    hourly, told = made.provisioned, f"{'the ledger on demand':<59}{made.ledger_dollars:>12,.4f}"
    if hourly is None:
        return [told, "provisioned: more than the quota of a table"]
    needed = f"provisioned, LedgerCapacity {hourly.most}"
    return [told, f"{needed:<32}{hourly.write_units:>14,.0f} {'writes/s':<12}{hourly.dollars:>12,.4f}"]


def _everything(made: "Plan") -> dict[str, object]:
    from aggregator.operations.capacity.costs import FIGURES, PRICES_DATE

    seen = {name: value for name, value in vars(made.seen).items() if name != "batches"}
    return {
        "workload": made.workload._asdict(),
        "bundle": {"members": made.members, "text_bytes": made.text_bytes, "bytes": made.bundle_bytes},
        "bounded_by": made.bound,
        "keeps_up": made.keeps_up,
        "invocation_seconds": made.seconds,
        "simulated": {**seen, "batches": len(made.seen.batches), "mean_batch": made.seen.mean_batch},
        "per_million_objects": [line._asdict() for line in made.lines],
        "dollars_per_million_objects": made.dollars,
        "ledger": {"on_demand": made.ledger_dollars, "provisioned": made.provisioned and made.provisioned._asdict()},
        "limits": [{**limit._asdict(), "exceeded": limit.exceeded} for limit in made.limits],
        "figures": FIGURES._asdict(),
        "prices_date": PRICES_DATE,
    }


_NUMBER = re.compile(r"([0-9]+|[0-9]{1,3}(?:[,_][0-9]{3})+)(\.[0-9]+)?(e[0-9]{1,2})?\s*([A-Za-z]*)", re.ASCII)


def _number(option: str, text: str) -> float:
    """A number with a unit: `50M`, `5e7` and `50,000,000` are fifty million, `4KiB` are 4,096."""
    from aggregator.operations.capacity.costs import PlanError

    found = _NUMBER.fullmatch(text.strip())
    if not found or found[4] not in _UNITS:
        raise PlanError(f"{option} {text!r} is not a number such as 50M, 5e7, 50,000,000, 4KiB or 1.5MB")
    whole = found[1].replace(",", "").replace("_", "")
    return float(f"{whole}{found[2] or ''}{found[3] or ''}") * _UNITS[found[4]]
