"""Draws results as an SVG bar chart, with only the standard library.

Readable on light and dark pages: it has no background, and its colours follow the reader's preference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from tests.bench.report import figure
from tests.bench.servers import find_server

__all__ = ["STYLE", "draw", "label_of", "notes", "svg", "text"]

#: The scenarios to draw. If none was measured, others are drawn.
SCENARIOS = ("echo-100", "fan-1000-4", "memory")
MAX_PANELS = 4

WIDTH, LABEL_WIDTH, VALUE_WIDTH, MARGIN = 820, 260, 110, 16
BAR, ROW, TITLE, GAP = 16, 24, 34, 22

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #24292f; }
.title { font-size: 15px; font-weight: 600; }
.note { font-size: 11px; font-weight: 400; fill: #57606a; }
.ours-text { font-weight: 600; }
.bar { fill: #9aa7b4; } .ours { fill: #1f6feb; } .limit { fill: #d0d7de; }
.spread { stroke: #24292f; stroke-width: 1.5; opacity: 0.6; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .note { fill: #9198a1; }
  .bar { fill: #57636f; } .ours { fill: #4493f8; } .limit { fill: #343b43; }
  .spread { stroke: #e6edf3; }
}
"""


def draw(document: Mapping[str, Any]) -> str:
    """The chart of results, as `cli` writes them.

    A panel per scenario, a bar per server, a line from the lowest to the highest value.
    """
    scenarios: Mapping[str, Any] = document["scenarios"]
    names = [name for name in SCENARIOS if name in scenarios] or list(scenarios)[:MAX_PANELS]
    parts, top = [], MARGIN
    for name in names:
        panel, height = _panel(scenarios[name], top)
        parts += panel
        top += height + GAP
    for line in notes(document):
        parts.append(text(MARGIN, top, line, "note"))
        top += 16
    return svg(", ".join(scenarios[name]["title"] for name in names) or "no results", parts, WIDTH, top, STYLE)


def svg(description: str, parts: Sequence[str], width: int, height: int, style: str) -> str:
    """A whole SVG file, from its elements."""
    description = escape(description)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="{description}">',
            f"<title>{description}</title>",
            f"<style>{style}</style>",
            *parts,
            "</svg>\n",
        )
    )


def _panel(scenario: Mapping[str, Any], top: int) -> tuple[list[str], int]:
    """The elements of a panel, and its height."""
    measured = [(name, server["value"]) for name, server in scenario["servers"].items() if server["value"]]
    measured.sort(key=lambda row: row[1]["median"], reverse=scenario["better"] == "higher")
    title = scenario["title"]
    parts = [
        f'<text class="title" x="{MARGIN}" y="{top + 14}">{escape(title[0].upper() + title[1:])}'
        f'<tspan class="note" dx="10">{escape(scenario["unit"])}, {scenario["better"]} is better</tspan></text>'
    ]
    most = max((value["high"] for _, value in measured), default=0) or 1
    scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH - 2 * MARGIN) / most
    left = MARGIN + LABEL_WIDTH
    for row, (name, value) in enumerate(measured):
        y = top + TITLE + row * ROW
        middle, ours = y + BAR / 2, name.startswith("wsthreads")
        kind = "ours" if ours else "limit" if name.startswith("limit") else "bar"
        low, median, high = (max(0.0, value[key]) * scale for key in ("low", "median", "high"))
        parts += [
            text(left - 8, middle + 4.5, label_of(name), "ours-text" if ours else "", anchor="end"),
            f'<rect class="{kind}" x="{left}" y="{y}" width="{max(1.0, median):.1f}" height="{BAR}" rx="2"/>',
            f'<line class="spread" x1="{left + low:.1f}" x2="{left + high:.1f}" y1="{middle}" y2="{middle}"/>',
            text(left + max(median, high) + 8, middle + 4.5, figure(value["median"]), "ours-text" if ours else ""),
        ]
    return parts, TITLE + len(measured) * ROW


def label_of(name: str) -> str:
    """A server's name for people."""
    try:
        return find_server(name).label
    except KeyError:
        return name  # the server no longer exists


def notes(document: Mapping[str, Any]) -> Sequence[str]:
    """How and on which machine it was measured, in lines."""
    machine, options = document["environment"], document["options"]
    return (
        f"Median of {options['rounds']} interleaved round(s) of {options['seconds']:g} s; the thin line is from the "
        f"lowest to the highest. {machine['cores']} cores, which the load generator shares.",
        f"{machine['processor']}, {machine['kernel']}, Python {machine['versions']['python']}, {document['date'][:10]}",
    )


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    """A line of text."""
    attributes = f' class="{kind}"' if kind else ""
    if anchor != "start":
        attributes += f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}>{escape(words)}</text>'
