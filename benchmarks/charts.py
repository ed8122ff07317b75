"""Makes docs/images/scale-*.svg and the tables of docs/scale.md from what the benchmarks `scale`, `roll_sites` and `tenant` printed.

usage: python -m benchmarks.charts FOLDER_OF_JSON

A table stands between two comments that name its benchmark; where a benchmark did not run, its table and charts stay as they are.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from benchmarks import roll_sites, scale
from benchmarks.report import machine, table
from benchmarks.timing import ROOT, shown

PAGE = ROOT / "docs" / "scale.md"
IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 760, 430
LEFT, RIGHT, TOP, BOTTOM = 84, 48, 92, 56
HUES = ("#2f62c8", "#b3560e", "#0a7d55", "#8a3fb0")
DARK_HUES = ("#7ca6ff", "#ef9a4d", "#35c48f", "#cf94ee")

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """One picture: curves of one unit over the same numbers."""

    name: str
    title: str
    across: str
    up: str
    curves: dict[str, str]
    """Name of a curve of its benchmark, and what it is called in the legend."""


CHARTS = (
    Chart("assign", "Assignment: keys re-wrapped, moves begun", "mailboxes", "seconds", {"assign": "assignment of all mailboxes"}),
    Chart(
        "flat",
        "What does not grow with the tenant",
        "mailboxes, or jobs that wait",
        "milliseconds",
        {
            "roll": "refresh, beyond the vaults' answers",
            "list": "first page of mailboxes",
            "statistics": "statistics of a mailbox",
            "claim": "finding the next job",
        },
    ),
    Chart(
        "audit",
        "Audit search: one page of 100",
        "records of the tenant",
        "milliseconds",
        {"audit": "the newest", "audit-operation": "of a rare operation", "audit-time": "of a day, forty days ago"},
    ),
    Chart(
        "memory",
        "Memory of a process",
        "mailboxes and records in the database",
        "megabytes",
        {"serve-memory": "a server", "assign-memory": "an assignment of all, beyond that"},
    ),
    Chart(
        "start",
        "Start of a server, until it answers",
        "mailboxes and records in the database",
        "seconds",
        {"serve-start": "keystead serve"},
    ),
)
ROLL_CHARTS = (
    Chart(
        "roll", "A roll of a geo: every site's keys under a fresh TIK", "sites", "seconds", {where: where for where in roll_sites.SECONDS}
    ),
)
DRAWN: dict[str, tuple[dict[str, str], tuple[Chart, ...]]] = {
    "scale": ({curve.name: curve.what for curve in scale.CURVES}, CHARTS),
    "roll_sites": ({where: roll_sites.what(where) for where in roll_sites.SECONDS}, ROLL_CHARTS),
    "tenant": ({}, ()),
}
"""Benchmark: what its curves are called in the report, and its charts."""


def points_of(figures: list[dict[str, Any]], curves: dict[str, str]) -> dict[str, Points]:
    """The medians of each curve, by size."""
    found: dict[str, Points] = {}
    for name, title in curves.items():
        for figure in figures:
            what, _, largest = figure["what"].rpartition(": ")
            if what == title:
                sizes = [(_number(other["name"]), other["median"]) for other in figure["beside"]]
                found[name] = [*sizes, (_number(largest), figure["value"]["median"])]
    return found


def _number(text: str) -> float:
    return float(text.split(maxsplit=1)[0].replace(",", ""))


def svg(chart: Chart, points: dict[str, Points]) -> str:
    """A chart with two logarithmic scales, so that a cost that grows with its number is a line with the slope of the dashed one."""
    lines = {label: points[name] for name, label in chart.curves.items() if name in points}
    every = [point for line in lines.values() for point in line]
    across, up = _decades(x for x, _y in every), _decades(y for _x, y in every)

    def place(x: float, y: float) -> tuple[float, float]:
        right = (math.log10(x) - across[0]) / (across[-1] - across[0])
        height = (math.log10(y) - up[0]) / (up[-1] - up[0])
        return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - height * (HEIGHT - TOP - BOTTOM)

    parts = [_head(chart, lines)]
    for decade in across:
        x, _y = place(10**decade, 10 ** up[0])
        parts.append(f'  <path class="grid" d="M{x:.1f} {TOP} V{HEIGHT - BOTTOM}"/>')
        parts.append(f'  <text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 19}" text-anchor="middle">{10**decade:,}</text>')
    for decade in up:
        _x, y = place(10 ** across[0], 10**decade)
        parts.append(f'  <path class="grid" d="M{LEFT} {y:.1f} H{WIDTH - RIGHT}"/>')
        parts.append(f'  <text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_label(decade)}</text>')
    parts.append(_guide(lines, across, up, place))
    written: list[float] = []
    for number, (label, line) in enumerate(lines.items()):
        spots = [place(x, y) for x, y in line]
        parts.append(f'  <polyline class="line c{number}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in spots)}"/>')
        parts += [
            f'  <circle class="dot c{number}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(label)}: {shown(value)} at {size:,.0f}</title></circle>'
            for (x, y), (size, value) in zip(spots, line, strict=True)
        ]
        x, y = spots[-1]
        beside = next(
            height for height in (y - 9, y + 19, y - 23, y + 33, y) if all(abs(height - other) > 13 for other in written) or height == y
        )
        written.append(beside)
        parts.append(f'  <text class="value" x="{x - 6:.1f}" y="{beside:.1f}" text-anchor="end">{shown(line[-1][1])}</text>')
    parts.append(
        f'  <text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(chart.across)}</text>'
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'  <text class="axis" transform="translate(20 {middle}) rotate(-90)" text-anchor="middle">{escape(chart.up)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _head(chart: Chart, lines: dict[str, Points]) -> str:
    told = "; ".join(f"{label}: " + ", ".join(f"{shown(y)} at {x:,.0f}" for x, y in line) for label, line in lines.items())
    light = " ".join(f".c{n} {{ stroke: {hue}; fill: {hue} }}" for n, hue in enumerate(HUES))
    dark = " ".join(f".c{n} {{ stroke: {hue}; fill: {hue} }}" for n, hue in enumerate(DARK_HUES))
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t d" font-family="Helvetica, Arial, sans-serif">',
        f'  <title id="t">{escape(chart.title)}</title>',
        f'  <desc id="d">{escape(chart.up)} by {escape(chart.across)}, both scales logarithmic. {escape(told)}.</desc>',
        "  <style>",
        f"    {light}",
        "    .line { fill: none; stroke-width: 2.5 } .dot { stroke: none } .grid { stroke: #8a94a6; stroke-opacity: .3; fill: none }",
        "    .guide { stroke: #76839a; stroke-width: 1.5; stroke-dasharray: 6 5; fill: none }",
        "    .name { fill: #16202e; font-size: 15px; font-weight: bold } .tick, .axis, .key, .value { fill: #5f6b7c; font-size: 12.5px }",
        f"    @media (prefers-color-scheme: dark) {{ {dark}",
        "      .line { fill: none } .dot { stroke: none } .name { fill: #eef2f7 } .tick, .axis, .key, .value { fill: #aab6c6 } }",
        "  </style>",
        f'  <text class="name" x="{LEFT}" y="24">{escape(chart.title)}</text>',
    ]
    x, y = float(LEFT), 46
    for number, label in enumerate([*lines, "linear"]):
        width = 46 + 6.6 * len(label)
        if x + width > WIDTH:
            x, y = float(LEFT), y + 20
        kind = "guide" if label == "linear" else f"line c{number}"
        rows.append(f'  <path class="{kind}" d="M{x:.0f} {y} h22"/><text class="key" x="{x + 28:.0f}" y="{y + 4}">{escape(label)}</text>')
        x += width
    return "\n".join(rows)


def _guide(lines: dict[str, Points], across: list[int], up: list[int], place: Any) -> str:  # noqa: ANN401 - a function of the caller's
    """What grows as its number does, through the last point of the steepest line, cut to the picture."""
    x, y = max((line[-1] for line in lines.values()), key=lambda point: point[1])
    least = max(10.0 ** across[0], x * 10.0 ** up[0] / y)
    (x1, y1), (x2, y2) = place(least, y * least / x), place(x, y)
    return f'  <path class="guide" d="M{x1:.1f} {y1:.1f} L{x2:.1f} {y2:.1f}"/>'


def _decades(values: Any) -> list[int]:  # noqa: ANN401 - any numbers
    logs = [math.log10(value) for value in values]
    low, high = math.floor(min(logs) + 1e-9), math.ceil(max(logs) - 1e-9)
    return list(range(low, max(high, low + 1) + 1))


def _label(decade: int) -> str:
    return f"{10**decade:,}" if decade >= 0 else f"{10.0**decade:g}"


def with_table(page: str, name: str, figures: list[dict[str, Any]]) -> str:
    """The page with the table of a benchmark between its two comments."""
    begin, end = f"<!-- {name}: made by scripts/bench; do not edit -->", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    _old, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{PAGE.name} has no place for {name}: {begin} ... {end}")
    return before + "\n".join([begin, "", *machine(), "", *table(figures), "", end]) + after


def main(folder: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name, (curves, charts) in DRAWN.items():
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        result: dict[str, Any] = json.loads(file.read_bytes())
        if result["quick"]:
            continue
        page = with_table(page, name, result["figures"])
        points = points_of(result["figures"], curves)
        for chart in charts:
            (IMAGES / f"scale-{chart.name}.svg").write_text(svg(chart, points), encoding="utf-8")
        print(f"{PAGE.name}: {name}")
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
