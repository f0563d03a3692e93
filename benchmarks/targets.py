"""
What is asked for: each target, with what was measured beside it.

Pure: targets are judged by `results.json`, and `reasons.py` says why one is missed.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.reasons import WHY
from benchmarks.workloads import MIB, OURS

Results = Mapping[str, Any]

MOST_READERS = 128
"""READ_CONCURRENCY by default."""

_MOST_MESSAGES = 10_000
"""Of a batch from SQS (Lambda developer guide, "Using Lambda with Amazon SQS")."""

NAMES = {
    "ours": "this build",
    "ours_tls": "this build, TLS",
    "textbook": "textbook, level 9",
    "textbook_6": "textbook, level 6",
    "smart_open": "textbook, smart_open",
    "s3fs": "textbook, s3fs",
    "obstore": "limit: read and discard",
    "obstore_tls": "limit: read and discard, TLS",
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
        _times(results, "small-1000", "textbook", 18),
        _cheap(results, "small-1000"),
        _times(results, "small-3000", "textbook", 18),
        _cheap(results, "small-3000"),
        _times(results, "medium", "textbook_6", 7),
        _times(results, "medium", "textbook", 22),
        _times(results, "large", "textbook", 10),
        _busy(results),
        _fast(results, "late", 3_600),
        _times(results, "late", "textbook", 220),
        *_tail(results),
        *_tls(results),
        _wide(results),
        _peak(results),
        *_sizes(results),
        *_index(results),
        _flush_points(results),
        _first(results),
        _parsing(results),
        _growth(results),
        _charges(results),
    ]


def rate(results: Results, workload: str, contender: str) -> float:
    """Objects a second."""
    found = measured(results, workload, contender)
    return float(found["objects"] / found["seconds"])


def throughput(results: Results, workload: str, contender: str) -> float:
    """MiB a second."""
    return rate(results, workload, contender) * float(results["workloads"][workload]["size"]) / MIB


def measured(results: Results, workload: str, contender: str) -> Mapping[str, Any]:
    """What was measured of a contender on a workload."""
    found: Mapping[str, Any] = results["workloads"][workload]["contenders"][contender]
    return found


def _title(results: Results, workload: str) -> str:
    return str(results["workloads"][workload]["title"])


def _times(results: Results, workload: str, textbook: str, wanted: float) -> Row:
    """This build beside a textbook, by what they do in a second."""
    ours, theirs = (rate(results, workload, each) for each in ("ours", textbook))
    unit, measure = ("MiB/s", throughput) if results["workloads"][workload]["size"] >= MIB else ("objects/s", rate)
    shown = " to ".join(f"{measure(results, workload, each):,.0f}" for each in ("ours", textbook))
    target = f"≥ {wanted:.0f} × {NAMES[textbook]}, {unit}"
    return Row(_title(results, workload), target, f"{ours / theirs:.1f} × ({shown})", ours / theirs / wanted)


def _cheap(results: Results, workload: str) -> Row:
    found = measured(results, workload, "ours")
    cost = found["cpu_seconds"] / found["objects"] * 1000
    return Row(_title(results, workload), "≤ 0.20 ms CPU an object", f"{cost:.3f} ms", 0.20 / cost)


def _fast(results: Results, workload: str, wanted: float) -> Row:
    speed = rate(results, workload, "ours")
    return Row(_title(results, workload), f"≥ {wanted:,.0f} objects/s", f"{speed:,.0f} objects/s", speed / wanted)


def _tail(results: Results) -> list[Row]:
    """The objects that S3 answers in less than a second: how fast they are, and whether a slow one holds them up."""
    ours, title = measured(results, "tail", "ours"), _title(results, "tail")
    others, limit = (_without_slow(measured(results, "tail", each)) for each in ("ours", "obstore"))
    shown = f"{others:,.0f} objects/s; {rate(results, 'tail', 'ours'):,.0f} with the {ours['slow']} slow ones"
    rest = ours["seconds"] - ours["gets_seconds"]
    return [
        Row(
            title,
            "≥ 3,000 objects/s, without those that take over a second",
            f"{shown}; the limit is {limit:,.0f}",
            others / 3_000,
        ),
        Row(
            title,
            "a slow object holds up nothing but itself: ≤ 0.5 s before the first GET and after the last",
            f"{rest:.2f} s of {ours['seconds']:.2f} s",
            0.5 / rest,
        ),
    ]


def _without_slow(found: Mapping[str, Any]) -> float:
    """Objects a second until the last of those was there that S3 answers in less than a second."""
    return float((found["objects"] - found["slow"]) / found["others_seconds"])


def _tls(results: Results) -> list[Row]:
    plain, secure = (rate(results, "late", each) for each in OURS)
    title, found = f"{_title(results, 'late')}, over TLS", measured(results, "late", "ours_tls")
    shown = f"{secure / plain:.0%} ({secure:,.0f} to {plain:,.0f})"
    handshakes = f"{found['handshakes']} for {MOST_READERS} readers"
    return [
        Row(title, "≥ 80 % of plain HTTP", shown, secure / plain / 0.8),
        Row(title, "no more handshakes than readers", handshakes, MOST_READERS / max(found["handshakes"], 1)),
    ]


def _wide(results: Results) -> Row:
    found = measured(results, "wide", "ours")
    peak = found["peak_bytes"] / MIB
    shown = f"{peak:.0f} MiB, with {found['readers']} calls at one time"
    return Row(_title(results, "wide"), f"≤ 220 MiB peak RSS at {MOST_READERS} readers", shown, 220 / peak)


def _busy(results: Results) -> Row:
    ours = measured(results, "large", "ours")
    cores = ours["cpu_seconds"] / ours["seconds"]
    both = (ours["cpu_seconds"] + ours["standin_cpu_seconds"]) / ours["seconds"]
    shown = f"{cores:.2f} cores; {both:.2f} with the stand-in's"
    return Row(_title(results, "large"), "both cores busy: ≥ 1.7", shown, cores / 1.7)


def _peak(results: Results) -> Row:
    """The most memory of any workload that Lambda could hand over; of the others it is shown, and not judged."""
    peaks = {found["title"]: found["contenders"]["ours"]["peak_bytes"] / MIB for found in results["workloads"].values()}
    larger = {found["title"] for found in results["workloads"].values() if found["objects"] > _MOST_MESSAGES}
    title = max(peaks.keys() - larger, key=lambda name: peaks[name])
    beyond = "".join(f"; {peaks[each]:.0f} MiB for {each}, more than Lambda hands over" for each in sorted(larger))
    return Row(
        "any of these, one after the other, and a batch with one 4 GB object",
        "≤ 220 MiB peak RSS",
        f"{peaks[title]:.0f} MiB ({title}){beyond}",
        220 / peaks[title],
    )


def _sizes(results: Results) -> list[Row]:
    ratios = results["figures"]["bundle_to_zlib_6"]
    made = []
    for level, name, most in (("1", "the default level", 1.15), ("6", "COMPRESSION_LEVEL=6", 1.00)):
        by_text = {text: max(found[level].values()) for text, found in ratios.items()}
        shown = ", ".join(f"{ratio:.2f} {text}" for text, ratio in by_text.items())
        target = f"≤ {most:.2f} at {name}, index included, from 4 KiB members up"
        made.append(Row("bundle size against zlib level 6", target, shown, most / max(by_text.values())))
    return made


def _index(results: Results) -> list[Row]:
    found = results["figures"]["index_bytes"]
    made = []
    for kind, name, most in (("plain", "without", 40), ("versions", "with", 64)):
        shown = f"{found[kind]:.1f} bytes; {found[f'{kind}, UUIDs as keys']:.1f} where keys are UUIDs"
        made.append(Row("index", f"≤ {most} bytes a member {name} version ids", shown, most / found[kind]))
    return made


def _flush_points(results: Results) -> Row:
    by_text = {text: found["1"] for text, found in results["figures"]["flush_points"].items()}
    shown = ", ".join(f"{share:.2%} {text}" for text, share in by_text.items())
    return Row("index", "flush points ≤ 1 % of the bundle", shown, 0.01 / max(*by_text.values(), 1e-9))


def _first(results: Results) -> Row:
    shown, sums = [], []
    for contender in ("ours", "textbook"):
        found = measured(results, "first", contender)
        sums.append(found["import_seconds"] + found["first_seconds"])
        shown.append(f"{found['import_seconds'] * 1000:.0f} + {found['first_seconds'] * 1000:.0f} ms")
    return Row("import and first invocation", "no slower than the textbook's", " to ".join(shown), sums[1] / sums[0])


def _parsing(results: Results) -> Row:
    """The time of a whole invocation, less what one with a single message takes."""
    many, one = measured(results, "parsing-3000", "ours")["seconds"], measured(results, "parsing-1", "ours")["seconds"]
    speed = (results["workloads"]["parsing-3000"]["objects"] - 1) / max(many - one, 1e-9)
    return Row("parsing", "≥ 50,000 messages/s at batches of 3,000", f"{speed:,.0f} messages/s", speed / 50_000)


def _growth(results: Results) -> Row:
    few, many = rate(results, "small-300", "ours"), rate(results, "small-30000", "ours")
    shown = f"{many:,.0f} to {few:,.0f}"
    return Row("growth", "objects/s at 30,000 not below those at 300", shown, many / few)


def _charges(results: Results) -> Row:
    """Write units of the worst batch, by its envelopes: a duplicate is charged as a claim is."""
    units = {found["duplicates"] / found["messages"]: charge(found) for found in results["ledger"]}
    shown = ", ".join(f"{each:.2f} where {share:.0%} were bundled before" for share, each in units.items())
    return Row("what the ledger is charged", "≤ 1.1 write units an envelope", shown, 1.1 / max(units.values()))


def charge(found: Mapping[str, float]) -> float:
    """Write units for each envelope of a batch."""
    return found["write_units"] / found["messages"]
