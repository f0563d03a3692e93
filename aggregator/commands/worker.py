"""`aggregator worker`: the handler that runs in Lambda, as a process that runs for weeks."""

import sys
from typing import Annotated

import typer

from aggregator.commands.options import QueueUrl


def worker(
    queue_url: QueueUrl,
    processes: Annotated[int, typer.Option(min=1, max=64, help="How many poll side by side.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, max=120_000, help="Most messages of a batch.")] = 1_000,
    window: Annotated[
        float, typer.Option(min=0, max=21_600, help="Seconds from a batch's first message to its last.")
    ] = 1,
    bundle_mb: Annotated[
        int, typer.Option(metavar="N", min=0, max=5_000, help="A batch ends when its bundle is so large; 0 is never.")
    ] = 0,
    seconds: Annotated[int, typer.Option(min=12, max=900, help="Time of an invocation.")] = 120,
    drain: Annotated[
        float | None, typer.Option(min=0, help="Seconds to finish after SIGTERM; by default as long as it takes.")
    ] = None,
    batches: Annotated[int, typer.Option(min=0, help="Replace a process after so many batches; 0 is never.")] = 0,
    health: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address of the health endpoint.")
    ] = "127.0.0.1:8080",
) -> None:
    """
    Poll a queue and run the very handler that runs in Lambda, until SIGTERM.

    The environment is the function's (docs/operations.md), the semantics are those of Lambda's event source mapping.
    SIGTERM or SIGINT: what is in hand is finished, and the exit status is 0, or 1 if a process had to be killed. Log
    lines and metrics go to stdout, one JSON document each; on a terminal, log lines for people (LOG_FORMAT chooses json
    or console). If nobody reads stdout any more, the worker ends as by SIGTERM, with exit status 141. GET /health
    answers 200 while every process is well, GET /metrics has the metrics for Prometheus.
    """
    from aggregator.runtimes.worker.health import serve_health
    from aggregator.runtimes.worker.process import Options, Output, check_options, longest
    from aggregator.runtimes.worker.supervisor import Supervisor

    given = Options(queue_url, batch_size, window, seconds, batches=batches, bundle_mb=bundle_mb)
    options = check_options(given, processes=processes)
    supervisor = Supervisor(options, processes=processes, drain=longest(options) if drain is None else drain)
    with serve_health(health, supervisor.health, supervisor.exposition.page) as url:
        sys.stdout = Output(supervisor.drain_unread)
        status = supervisor.run(health=url)
    raise typer.Exit(status)
