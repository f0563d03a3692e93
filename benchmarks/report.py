"""
What the figures say: each target with what was measured beside it, as a page of its own and as lines for a terminal.

Pure: the page is made from `results.json`, and from `reasons.py` where a target is missed, so that nobody can write
into it what was not measured.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.reasons import WHY
from benchmarks.workloads import MIB

Results = Mapping[str, Any]

NAMES = {
    "ours": "this build",
    "textbook": "textbook",
    "smart_open": "textbook, smart_open",
    "s3fs": "textbook, s3fs",
    "obstore": "limit: read and discard",
    "isal": "limit: compress only",
}


class Row(NamedTuple):
    """A target: on what, what is asked for, what was measured, and by which factor that is better, 1 being enough."""

    workload: str
    target: str
    measured: str
    margin: float

    @property
    def verdict(self) -> str:
        """Whether the target is reached, or by how much it is missed, and why."""
        if self.margin >= 1:
            return "reached"
        return f"**missed by {1 - self.margin:.0%}**: {WHY.get((self.workload, self.target), 'nobody knows why yet')}"


def rows(results: Results) -> list[Row]:
    """Every target."""
    return [
        *_faster(results, "small-1000", "1,000 objects of 4 KiB in one batch, ledger on", 20),
        *_cheaper(results, "small-1000", "1,000 objects of 4 KiB in one batch, ledger on"),
        *_faster(results, "small-3000", "3,000 objects of 4 KiB in one batch, ledger on", 20),
        *_cheaper(results, "small-3000", "3,000 objects of 4 KiB in one batch, ledger on"),
        *_faster(results, "medium", "200 objects of 1 MiB", 7),
        *_faster(results, "large", "10 objects of 100 MiB in bundles of 1,000 MB", 10),
        _busy(results),
        *_faster(results, "late", "1,000 objects of 4 KiB with 20 ms of latency on every AWS call", 60),
        _peak(results),
        *_sizes(results),
        *_index(results),
        _flush_points(results),
        _first(results),
        _parsing(results),
        _growth(results),
    ]


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
        "Medians. CPU and memory are those of the contender's process. The limits do a part of the work and no more.",
        "![Objects a second](charts/objects.svg)",
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
            ["bundled before", "write units a message", "write units a member", "read units a message"],
            [_ledger_line(found) for found in results["ledger"]],
        ),
        "## Size of a bundle",
        "Bytes of a bundle, index included, to those that zlib makes of the same text at level 6.",
        _table(["text", "level", *_sizes_of_members(results)], _size_lines(results)),
        "## The stand-in",
        _standin(results),
    ]
    return "\n\n".join(parts) + "\n"


def rate(results: Results, workload: str, contender: str) -> float:
    """Objects a second."""
    return float(results["workloads"][workload]["objects"] / _of(results, workload, contender)["seconds"])


def throughput(results: Results, workload: str, contender: str) -> float:
    """MiB a second."""
    return rate(results, workload, contender) * float(results["workloads"][workload]["size"]) / MIB


def _of(results: Results, workload: str, contender: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = results["workloads"][workload]["contenders"][contender]
    return found


def _faster(results: Results, workload: str, title: str, wanted: float) -> list[Row]:
    ours, textbook = rate(results, workload, "ours"), rate(results, workload, "textbook")
    unit, measure = ("MiB/s", throughput) if results["workloads"][workload]["size"] >= MIB else ("objects/s", rate)
    shown = [f"{measure(results, workload, each):,.0f}" for each in ("ours", "textbook")]
    return [
        Row(
            title,
            f"≥ {wanted:.0f} × textbook {unit}",
            f"{ours / textbook:.1f} × ({shown[0]} to {shown[1]})",
            ours / textbook / wanted,
        )
    ]


def _cheaper(results: Results, workload: str, title: str) -> list[Row]:
    cost = _of(results, workload, "ours")["cpu_seconds"] / results["workloads"][workload]["objects"] * 1000
    return [Row(title, "≤ 0.20 ms CPU an object", f"{cost:.3f} ms", 0.20 / cost)]


def _busy(results: Results) -> Row:
    ours = _of(results, "large", "ours")
    cores = ours["cpu_seconds"] / ours["seconds"]
    both = (ours["cpu_seconds"] + ours["standin_cpu_seconds"]) / ours["seconds"]
    measured = f"{cores:.2f} cores; {both:.2f} with the stand-in's"
    return Row("10 objects of 100 MiB in bundles of 1,000 MB", "both cores busy: ≥ 1.5", measured, cores / 1.5)


def _peak(results: Results) -> Row:
    peaks = {found["title"]: found["contenders"]["ours"]["peak_bytes"] / MIB for found in results["workloads"].values()}
    title = max(peaks, key=lambda name: peaks[name])
    measured = f"{peaks[title]:.0f} MiB ({title})"
    return Row(
        "any of these, one after the other, and a batch with one 4 GB object",
        "≤ 220 MiB peak RSS",
        measured,
        220 / peaks[title],
    )


def _sizes(results: Results) -> list[Row]:
    ratios = results["figures"]["bundle_to_zlib_6"]
    made = []
    for level, name, most in (("1", "the default level", 1.15), ("6", "COMPRESSION_LEVEL=6", 1.00)):
        by_text = {text: max(found[level].values()) for text, found in ratios.items()}
        measured = ", ".join(f"{ratio:.2f} {text}" for text, ratio in by_text.items())
        target = f"≤ {most:.2f} at {name}, index included, from 4 KiB members up"
        made.append(Row("bundle size against zlib level 6", target, measured, most / max(by_text.values())))
    return made


def _index(results: Results) -> list[Row]:
    found = results["figures"]["index_bytes"]
    made = []
    for kind, name, most in (("plain", "without", 40), ("versions", "with", 64)):
        measured = f"{found[kind]:.1f} bytes; {found[f'{kind}, UUIDs as keys']:.1f} where keys are UUIDs"
        made.append(Row("index", f"≤ {most} bytes a member {name} version ids", measured, most / found[kind]))
    return made


def _flush_points(results: Results) -> Row:
    by_text = {text: found["1"] for text, found in results["figures"]["flush_points"].items()}
    measured = ", ".join(f"{share:.2%} {text}" for text, share in by_text.items())
    return Row("index", "flush points ≤ 1 % of the bundle", measured, 0.01 / max(*by_text.values(), 1e-9))


def _first(results: Results) -> Row:
    shown, sums = [], []
    for contender in ("ours", "textbook"):
        found = _of(results, "first", contender)
        sums.append(found["import_seconds"] + found["first_seconds"])
        shown.append(f"{found['import_seconds'] * 1000:.0f} + {found['first_seconds'] * 1000:.0f} ms")
    return Row("import and first invocation", "no slower than the textbook's", " to ".join(shown), sums[1] / sums[0])


def _parsing(results: Results) -> Row:
    """The time of a whole invocation, less what one with a single message takes."""
    many, one = _of(results, "parsing-3000", "ours")["seconds"], _of(results, "parsing-1", "ours")["seconds"]
    speed = (results["workloads"]["parsing-3000"]["objects"] - 1) / max(many - one, 1e-9)
    return Row("parsing", "≥ 50,000 messages/s at batches of 3,000", f"{speed:,.0f} messages/s", speed / 50_000)


def _growth(results: Results) -> Row:
    few, many = rate(results, "small-300", "ours"), rate(results, "small-3000", "ours")
    measured = f"{many:,.0f} to {few:,.0f}"
    return Row("growth", "objects/s at 3,000 not below those at 300", measured, many / few)


def _lines(results: Results) -> list[list[str]]:
    """A line for each contender on each workload that has objects to read."""
    lines = []
    for name, found in results["workloads"].items():
        if not found["size"] or name == "first":
            continue
        for contender, each in found["contenders"].items():
            lines.append([found["title"], NAMES[contender], *_cells(results, name, contender, each)])
    return lines


def _cells(results: Results, workload: str, contender: str, each: Mapping[str, Any]) -> list[str]:
    found = results["workloads"][workload]
    mine = rate(results, workload, contender)
    limits = [rate(results, workload, limit) for limit in ("obstore", "isal") if limit in found["contenders"]]
    textbook = rate(results, workload, "textbook") if "textbook" in found["contenders"] else 0
    return [
        f"{mine:,.0f}" if mine >= 10 else f"{mine:.2f}",
        f"{throughput(results, workload, contender):,.1f}",
        f"{each['cpu_seconds'] / found['objects'] * 1000:,.2f} ms",
        f"{each['cpu_seconds'] / each['seconds']:.2f}",
        f"{each['peak_bytes'] / MIB:.0f} MiB",
        f"{mine / textbook:.1f}" if textbook else "",
        f"{mine / min(limits):.0%}" if limits else "",
    ]


def _charged(results: Results) -> str:
    return (
        f"DynamoDB's units for a batch of {results['ledger'][0]['messages']:,} objects of 4 KiB, of which a part was "
        "bundled before. The stand-in counts them as DynamoDB does, the settle record included. A duplicate costs a "
        "claim in vain, and the reads that tell what it is."
    )


def _ledger_line(found: Mapping[str, float]) -> list[str]:
    messages, bundled = found["messages"], found["messages"] - found["duplicates"]
    return [
        f"{found['duplicates'] / messages:.0%}",
        f"{found['write_units'] / messages:.2f}",
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
        f"{_of(results, 'small-1000', 'ours')['standin_cpu_seconds']:.2f} CPU seconds, the handler "
        f"{_of(results, 'small-1000', 'ours')['cpu_seconds']:.2f}."
    )


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *lines])
