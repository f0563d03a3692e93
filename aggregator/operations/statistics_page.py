"""
The figures of bundles as one HTML page: charts in inline SVG, no script, no network, for bright and dark screens.

The page forbids itself to load anything (Content-Security-Policy), so a report may be mailed and opened anywhere.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from aggregator.operations.statistics import Figures, histogram

_WIDTH, _HEIGHT, _FOOT, _HEAD, _GAP = 340, 176, 30, 10, 6
"""A drawing's units: narrow, so that its letters are legible on a phone."""

_LETTER = 7.0
"""Most units that a letter of a label takes, at 11px: a label is never wider than that, in whatever font."""

_FILLS = [number / 10 for number in range(10)]
_ROUND = (1, 2, 5, 10)
_SIZES = [0.0, *(digit * 10.0**power for power in range(2, 10) for digit in _ROUND[:3])]
_MOST_TICKS = 4

_STYLE = """
:root { color-scheme: light dark; --text: #1d2433; --dim: #5d6679; --line: #d8dde6; --back: #ffffff; --bar: #2f6fd0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e9f0; --dim: #9aa3b5; --line: #333b4a; --back: #12161e; --bar: #6ea3f0; }
}
body { margin: 0 auto; max-width: 1100px; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; color: var(--text);
  background: var(--back); }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1rem; margin: 0 0 .5rem; }
p, dt { color: var(--dim); } p { margin: 0 0 1rem; }
dl, main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 7rem), 1fr)); }
main { grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }
dl { margin: 0 0 1rem; } dt { font-size: .8rem; }
dd { margin: 0; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
section { border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; min-width: 0; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
rect { fill: var(--bar); } line { stroke: var(--line); }
table { border-collapse: collapse; width: 100%; } td { padding: .15rem 0; } td + td { text-align: right;
  padding-left: 1rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
td:first-child { overflow-wrap: anywhere; } td svg { height: 5px; }
"""


class Bar(NamedTuple):
    """One bar of a chart: what stands below it, how high it is, what is said of it."""

    label: str
    value: float
    said: str


def page(figures: Figures, *, target: str, made: str, bytes_in_words: Callable[[float], str], most: int) -> str:
    """The report on the bundles under `target`, as of `made`; it names `most` prefixes."""
    periods, said = figures.periods(), bytes_in_words
    fill_counts = histogram(figures.fills, _FILLS)
    sizes = _edges([bundle.size for bundle in figures.bundles])
    size_counts = histogram((bundle.size for bundle in figures.bundles), sizes)
    charts = [
        _chart(
            f"Bundles per {figures.unit()}",
            [Bar(one.name, one.bundles, f"{one.bundles:,} bundles, {one.members:,} members") for one in periods],
            _number,
        ),
        _chart(
            f"Bytes of bundles per {figures.unit()}",
            [Bar(one.name, one.size, f"{said(one.size)} of {said(one.text)} text") for one in periods],
            lambda value: _plain(said(value)),
        ),
        _chart(
            f"Bytes of text per byte of bundle, per {figures.unit()}",
            [
                Bar(one.name, ratio, f"{ratio:.1f}")
                for one in periods
                for ratio in [one.text / one.size if one.size else 0]
            ],
            _number,
        ),
        _chart(
            "Bundles by how full they are",
            [
                Bar(f"{fill:.0%}", count, f"{count:,} bundles from {fill:.0%}")
                for fill, count in zip(_FILLS, fill_counts, strict=True)
            ],
            _number,
        ),
        _chart(
            "Bundles by size",
            [
                Bar(_plain(said(size)), count, f"{count:,} bundles from {said(size)}")
                for size, count in zip(sizes, size_counts, strict=True)
            ],
            _number,
        ),
        _prefixes(figures, most, said),
    ]
    tiles = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _tiles(figures, said)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Bundle statistics: {escape(target)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Bundle statistics: {escape(target)}</h1>
<p>{escape(made)}</p>
<dl>{tiles}</dl>
<main>
{"".join(charts)}
</main>
</body>
</html>
"""


def _tiles(figures: Figures, said: Callable[[float], str]) -> list[tuple[str, str]]:
    sizes, fills = figures.sizes(), figures.fills
    return [
        ("bundles", f"{len(figures.bundles):,}"),
        ("empty bundles", f"{figures.empty:,}"),
        ("members", f"{figures.members:,}"),
        ("text", said(figures.text)),
        ("bytes of bundles", said(figures.size)),
        ("compression", f"{figures.ratio:.1f}"),
        ("mean fill", f"{sum(fills) / len(fills):.1%}" if fills else "-"),
        ("median size", said(sizes.median) if sizes else "-"),
    ]


def _chart(title: str, bars: Sequence[Bar], scale: Callable[[float], str]) -> str:
    """A column for each bar, lines across at round numbers, and as many labels as there is room for."""
    ticks = _ticks(max((bar.value for bar in bars), default=0))
    left = _GAP + max(_length(scale(tick)) for tick in ticks)
    high, step = _HEIGHT - _FOOT - _HEAD, (_WIDTH - left) / max(1, len(bars))
    parts = [_grid(scale(tick), left, _HEAD + high * (1 - tick / ticks[-1])) for tick in ticks]
    parts += _labels([_short(bar.label) for bar in bars], left, step)
    for at, bar in enumerate(bars):
        x, tall = left + at * step, high * bar.value / ticks[-1]
        words = f"<title>{escape(bar.label)}: {escape(bar.said)}</title>"
        parts.append(
            f'<rect x="{x + step * 0.1:.1f}" y="{_HEAD + high - tall:.1f}" width="{step * 0.8:.1f}" '
            f'height="{tall:.1f}" rx="1">{words}</rect>'
        )
    drawing = "".join(parts)
    return (
        f'<section><h2>{escape(title)}</h2><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{drawing}</svg></section>\n'
    )


def _labels(labels: Sequence[str], left: float, step: float) -> list[str]:
    """Labels below the middle of their bars, as many as there is room for, at equal distances."""
    half = max(map(_length, labels), default=0) / 2
    places = [(left + (at + 0.5) * step, label) for at, label in enumerate(labels)]
    whole = [(x, label) for x, label in places if half <= x <= _WIDTH - half]
    every = math.ceil((2 * half + _GAP) / step)
    return [
        f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(label)}</text>'
        for x, label in whole[::every]
    ]


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to the first that is not less than `most`; whole ones, if `most` is whole."""
    if most <= 0:
        return [0, 1]
    power = 10.0 ** math.floor(math.log10(most / _MOST_TICKS))
    step = next(digit * power for digit in _ROUND if digit * power * _MOST_TICKS >= most * (1 - 1e-9))
    step = max(step, 1) if float(most).is_integer() else step
    return [number * step for number in range(math.ceil(most / step - 1e-9) + 1)]


def _edges(sizes: Sequence[int]) -> list[float]:
    """From which sizes on bundles are counted: round ones, from the least to the greatest bundle."""
    least = max((edge for edge in _SIZES if edge <= min(sizes, default=0)), default=0.0)
    return [edge for edge in _SIZES if least <= edge <= max(sizes, default=0)]


def _length(label: str) -> float:
    return len(label) * _LETTER


def _number(value: float) -> str:
    return _plain(f"{value:,.1f}")


def _plain(text: str) -> str:
    """A number without a fraction that says nothing: `20 MB`, not `20.0 MB`."""
    return text.replace(".0 ", " ").removesuffix(".0")


def _grid(label: str, left: float, y: float) -> str:
    return (
        f'<line x1="{left:.1f}" x2="{_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{left - _GAP / 2:.1f}" y="{y + 4:.1f}" text-anchor="end">{escape(label)}</text>'
    )


def _short(label: str) -> str:
    """What a label needs beside the chart's title: of a date the end."""
    return label[5:] if label[:4].isdigit() and label[4:5] == "-" else label


def _prefixes(figures: Figures, most: int, said: Callable[[float], str]) -> str:
    found = figures.prefixes(most)
    rows = "".join(
        f'<tr><td>{escape(one.name)}<svg viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect width="{100 * one.members / found[0].members:.1f}" height="4"/></svg></td>'
        f"<td>{one.members:,}</td><td>{escape(said(one.size))}</td></tr>"
        for one in found
    )
    return f"<section><h2>Busiest prefixes: members, bytes</h2><table>{rows}</table></section>\n"
