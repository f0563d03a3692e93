"""
The charts, as SVG: readable on white and on black, and the same bytes for the same figures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.targets import NAMES, Results, rate, throughput

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Measure = Callable[[Results, str, str], float]

_INK = "#7d8590"
"""A grey that can be read on white and on black."""

_COLOURS = {
    "ours": "#2f81f7",
    "ours_tls": "#2f81f7",
    "textbook": "#d29922",
    "textbook_6": "#d29922",
    "smart_open": "#d29922",
    "s3fs": "#d29922",
    "obstore": _INK,
    "obstore_tls": _INK,
    "isal": _INK,
}
_COUNTS = (300, 1_000, 3_000, 30_000)
_STYLE: Any = {
    "svg.hashsalt": "aggregator",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(results: Results, folder: Path) -> None:
    """Write every chart into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        objects = _side_by_side(results, ("small-1000", "late"), "objects/s", rate, 3.2)
        _save(objects, folder / "objects.svg")
        latency = _side_by_side(results, ("late", "tail"), "objects/s", rate, 2.6)
        _save(latency, folder / "latency.svg")
        _save(_side_by_side(results, ("medium", "large"), "MiB/s", throughput, 2.6), folder / "throughput.svg")
        _save(_growth(results), folder / "growth.svg")


def _side_by_side(results: Results, names: tuple[str, str], unit: str, measure: Measure, height: float) -> Figure:
    """Two workloads beside each other, a bar for each contender."""
    figure = Figure(figsize=(8, height), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), names, strict=True):
        found = results["workloads"][name]
        bars = {each: measure(results, name, each) for each in found["contenders"]}
        _bars(axes, bars, f"{found['title']}: {unit}")
    return figure


def _growth(results: Results) -> Figure:
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes = figure.subplots()
    for contender in ("ours", "textbook"):
        names = [
            name for name in ("small-300", "small-1000", "small-3000", "small-30000") if _has(results, name, contender)
        ]
        counts = [results["workloads"][name]["contenders"][contender]["objects"] for name in names]
        speeds = [rate(results, name, contender) for name in names]
        axes.plot(counts, speeds, marker="o", color=_COLOURS[contender])
        axes.annotate(NAMES[contender], (counts[-1], speeds[-1]), xytext=(6, -3), textcoords="offset points")
    axes.set_ylim(bottom=0)
    axes.set_xscale("log")
    axes.set_xticks(_COUNTS, [f"{count:,}" for count in _COUNTS])
    axes.set_xlim(right=axes.get_xlim()[1] * 1.5)
    axes.minorticks_off()
    axes.set_title("Objects of 4 KiB a second, by the number in a batch", loc="left", fontsize=10)
    return figure


def _has(results: Results, workload: str, contender: str) -> bool:
    return contender in results["workloads"][workload]["contenders"]


def _bars(axes: "Axes", bars: dict[str, float], title: str) -> None:
    names = list(reversed(bars))
    drawn = axes.barh([NAMES[name] for name in names], [bars[name] for name in names])
    for bar, name in zip(drawn, names, strict=True):
        bar.set_color(_COLOURS[name])
    axes.bar_label(drawn, [f"{bars[name]:,.0f}" for name in names], padding=3)
    axes.set_title(title.replace(", ", ",\n"), loc="left", fontsize=10)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_xlim(right=max(bars.values()) * 1.2)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})
