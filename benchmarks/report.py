"""
What the figures say, as a page of its own and as lines for a terminal.

Pure: the page is made from `results.json` alone, so that nobody can write into it what was not measured.
"""

from collections.abc import Mapping
from typing import Any

from benchmarks.targets import NAMES, Results, charge, measured, rate, rows, throughput
from benchmarks.workloads import MIB

_SIDE_BY_SIDE = (
    "Medians. CPU and memory are those of the contender's process. The limits do a part of the work and no more. Where "
    "it would take minutes, the textbook gets fewer objects, which changes nothing in what it does in a second."
)


def page(results: Results) -> str:
    """RESULTS.md."""
    machine, versions = results["machine"], results["versions"]
    parts = [
        "# What was measured",
        "Made by `just bench` from `results.json`: do not edit. `README.md` beside it says how it is measured.",
        f"Measured on {results['date']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']:.0f} GiB, {machine['system']}, shared with the stand-in and, when it began, with "
        f"{machine['load']:.1f} other processes; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "## Targets",
        _table(["workload", "target", "measured", ""], [[*row[:3], row.verdict] for row in rows(results)]),
        "## Side by side",
        _SIDE_BY_SIDE,
        "![Objects a second](charts/objects.svg)",
        "![Latency and TLS](charts/latency.svg)",
        "![MiB a second](charts/throughput.svg)",
        "![Growth](charts/growth.svg)",
        _table(
            [
                "workload",
                "",
                "objects/s",
                "MiB/s",
                "CPU an object",
                "cores busy",
                "peak memory",
                "× textbook",
                "of limit",
            ],
            _lines(results),
        ),
        "## What the ledger is charged",
        _charged(results),
        _table(
            ["bundled before", "write units an envelope", "write units a new member", "read units an envelope"],
            [_ledger_line(found) for found in results["ledger"]],
        ),
        "## Size of a bundle",
        "Bytes of a bundle, index included, to those that zlib makes of the same text at level 6.",
        _table(["text", "level", *_sizes_of_members(results)], _size_lines(results)),
        "## The stand-in",
        _standin(results),
    ]
    return "\n\n".join(parts) + "\n"


def _lines(results: Results) -> list[list[str]]:
    """A line for each contender on each workload that has objects to read."""
    lines = []
    for name, found in results["workloads"].items():
        if not found["size"] or name == "first":
            continue
        for contender, each in found["contenders"].items():
            part = f", {each['objects']:,} of them" if each["objects"] < found["objects"] else ""
            lines.append([found["title"], NAMES[contender] + part, *_cells(results, name, contender, each)])
    return lines


def _cells(results: Results, workload: str, contender: str, each: Mapping[str, Any]) -> list[str]:
    found = results["workloads"][workload]
    mine = rate(results, workload, contender)
    limits = [rate(results, workload, limit) for limit in _limits(contender) if limit in found["contenders"]]
    textbook = rate(results, workload, "textbook") if "textbook" in found["contenders"] else 0
    return [
        f"{mine:,.0f}" if mine >= 10 else f"{mine:.2f}",
        f"{throughput(results, workload, contender):,.1f}",
        f"{each['cpu_seconds'] / each['objects'] * 1000:,.2f} ms",
        f"{each['cpu_seconds'] / each['seconds']:.2f}",
        f"{each['peak_bytes'] / MIB:.0f} MiB",
        f"{mine / textbook:.1f}" if textbook else "",
        f"{mine / min(limits):.0%}" if limits else "",
    ]


def _limits(contender: str) -> tuple[str, ...]:
    return ("obstore_tls",) if contender.endswith("_tls") else ("obstore", "isal")


def _charged(results: Results) -> str:
    return (
        f"DynamoDB's units for a batch of {results['ledger'][0]['messages']:,} objects of 4 KiB, of which a part was "
        "bundled before. The stand-in counts them as DynamoDB does, the settle record included. A duplicate is charged "
        "a claim that does not succeed, and the reads that find out what it is. So a batch is charged by its "
        "envelopes, and a new member pays for the duplicates beside it."
    )


def _ledger_line(found: Mapping[str, float]) -> list[str]:
    messages, bundled = found["messages"], found["messages"] - found["duplicates"]
    return [
        f"{found['duplicates'] / messages:.0%}",
        f"{charge(found):.2f}",
        f"{found['write_units'] / bundled:.2f}",
        f"{found['read_units'] / messages:.2f}",
    ]


def _sizes_of_members(results: Results) -> list[str]:
    first = next(iter(results["figures"]["bundle_to_zlib_6"].values()))
    return [f"members of {int(size) // 1024:,} KiB" for size in first["1"]]


def _size_lines(results: Results) -> list[list[str]]:
    return [
        [text, level, *(f"{ratio:.3f}" for ratio in by_size.values())]
        for text, found in results["figures"]["bundle_to_zlib_6"].items()
        for level, by_size in found.items()
    ]


def _standin(results: Results) -> str:
    standin = results["standin"]
    return (
        f"It answers {standin['gets_per_second']:,.0f} GETs of 4 KiB a second to bare sockets on the same cores, at "
        f"{standin['cpu_microseconds']:.0f} µs of its CPU each. On 1,000 objects of 4 KiB it used "
        f"{measured(results, 'small-1000', 'ours')['standin_cpu_seconds']:.2f} CPU seconds, the handler "
        f"{measured(results, 'small-1000', 'ours')['cpu_seconds']:.2f}."
    )


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])
