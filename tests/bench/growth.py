"""Draws the rate of echoes by the number of connections, as an SVG line chart. See `chart`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import log, log10
from typing import Any

from tests.bench.chart import STYLE, label_of, notes, svg, text

__all__ = ["can_draw", "draw"]

#: The servers to draw, each with the colour on a light page and on a dark one.
COLOURS = {
    "wsthreads": ("#1f6feb", "#4493f8"),
    "limit-threads@1": ("#6e7781", "#9198a1"),
    "aiohttp": ("#8250df", "#bc8cff"),
    "ws": ("#1a7f37", "#3fb950"),
    "bun": ("#bc4c00", "#f0883e"),
}
SHORT = {"limit-threads@1": "a thread each, in C", "aiohttp": "aiohttp"}
ROW = re.compile(r"echo-(\d+)")

#: As wide as the text of a page of the documentation.
WIDTH = 736
PLOT_HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 60, 160, 64, 50
TEXT_HEIGHT = 18

QUARTERS = 4
ROUND = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)

Points = list[tuple[int, Mapping[str, float]]]  # connections, and the spread of the rate


def can_draw(document: Mapping[str, Any]) -> bool:
    """Whether the results, as `cli` writes them, have echoes at three numbers of connections or more."""
    return len({connections for points in _lines(document).values() for connections, _ in points}) >= 3


def draw(document: Mapping[str, Any]) -> str:
    """The chart: a line per server, with the lowest and the highest value of each point."""
    lines = _lines(document)
    all_points = [point for points in lines.values() for point in points]
    counts = sorted({connections for connections, _ in all_points})
    most = QUARTERS * _round_up(max(value["high"] for _, value in all_points) / QUARTERS)
    width, bottom = WIDTH - LEFT - RIGHT, TOP + PLOT_HEIGHT

    def x_of(connections: int) -> float:
        return LEFT + width * log(connections / counts[0]) / log(counts[-1] / counts[0])

    def y_of(rate: float) -> float:
        return bottom - PLOT_HEIGHT * rate / most

    parts = [text(16, 26, "Echo, by the number of connections", "title"), text(16, 46, "thousand messages/s", "note")]
    for quarter in range(QUARTERS + 1):
        rate = most * quarter / QUARTERS
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + width}" y1="{y_of(rate)}" y2="{y_of(rate)}"/>')
        parts.append(text(LEFT - 10, y_of(rate) + 4, f"{rate / 1000:g}", "note", anchor="end"))
    parts += [text(x_of(count), bottom + 20, f"{count:,}", "note", anchor="middle") for count in counts]
    parts.append(text(LEFT + width / 2, bottom + 40, "connections", "note", anchor="middle"))
    for name, points in lines.items():
        kind = f"line-{list(COLOURS).index(name)}"
        places = [(x_of(connections), y_of(value["median"])) for connections, value in points]
        parts.append(f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
        for (x, y), (_, value) in zip(places, points, strict=True):
            low, high = y_of(value["low"]), y_of(value["high"])
            parts.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
            parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    ends = {name: (x_of(points[-1][0]), y_of(points[-1][1]["median"])) for name, points in lines.items()}
    for name, y in _apart({name: y for name, (_, y) in ends.items()}).items():
        kind = f"line-{list(COLOURS).index(name)}"
        x, (end_x, end_y) = LEFT + width, ends[name]
        parts.append(f'<polyline class="{kind} thin" points="{end_x:.1f},{end_y:.1f} {x + 14},{y:.1f}"/>')
        parts.append(text(x + 20, y + 4.5, SHORT.get(name, label_of(name)), f"{kind}-text"))
    top = bottom + BOTTOM + 24
    for line in notes(document):
        parts.append(text(16, top, line, "note"))
        top += 16
    return svg("Echo, by the number of connections", parts, WIDTH, top, STYLE + _style())


def _lines(document: Mapping[str, Any]) -> dict[str, Points]:
    rows = {int(match[1]): row for name, row in document["scenarios"].items() if (match := ROW.fullmatch(name))}
    lines: dict[str, Points] = {name: [] for name in COLOURS}
    for connections, row in sorted(rows.items()):
        for name in lines if row["better"] == "higher" else ():
            server = row["servers"].get(name)
            if server and server["value"]:
                lines[name].append((connections, server["value"]))
    return {name: points for name, points in lines.items() if points}


def _round_up(rate: float) -> float:
    power = 10.0 ** int(log10(rate))
    return power * next(step for step in ROUND if rate <= step * power)


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """The same places, moved down where two texts would overlap."""
    moved: dict[str, float] = {}
    least = float("-inf")
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        moved[name] = least = max(place, least + TEXT_HEIGHT)
    return moved


def _style() -> str:
    def rules(which: int) -> Sequence[str]:
        return [
            f".line-{number} {{ stroke: {colours[which]}; fill: none; }} circle.line-{number}, .line-{number}-text "
            f"{{ fill: {colours[which]}; }}"
            for number, colours in enumerate(COLOURS.values())
        ]

    return "\n".join(
        (
            "polyline { stroke-width: 2; stroke-linejoin: round; } .line-0 { stroke-width: 3.5; }",
            ".line-1 { stroke-dasharray: 6 4; } line.line-1 { stroke-dasharray: none; } .thin { stroke-width: 1; }",
            ".line-0-text { font-weight: 600; } .grid { stroke: #d0d7de; } line { stroke-width: 1.5; }",
            *rules(0),
            "@media (prefers-color-scheme: dark) { .grid { stroke: #343b43; }",
            *rules(1),
            "}\n",
        )
    )
