"""Draws the map of the package: the entries at its top level, in layers, with arrows for their imports.

The map is drawn from the imports and docstrings of the code each time the pages are built. Each box has the name of an
entry and the first sentence of its docstring. An arrow leads from an entry to an entry that it imports. If other arrows
already lead there, the arrow is left out.
"""

from __future__ import annotations

import ast
import textwrap
from graphlib import TopologicalSorter
from html import escape
from itertools import pairwise
from pathlib import Path

__all__ = ["draw"]

#: Entries that the map leaves out: entry points, and modules that many entries import.
LEFT_OUT = {"__init__", "__main__", "logs", "prometheus", "errors", "origins", "config"}

WIDTH, BOX_WIDTH, BOX_HEIGHT, LANE_WIDTH, GAP, ROW = 736, 232, 64, 30, 16, 96
LINE_CHARS = 34

#: The boxes have their own background, and the arrows can be seen on white and on black, for light and dark pages.
STYLE = """
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #24324a; }
.name { font-size: 14px; font-weight: 600; fill: #12203a; }
.box { fill: #e4ecf8; stroke: #5b7db1; }
.arrow { fill: none; stroke: #7d8899; stroke-width: 1.5; marker-end: url(#head); }
.head { fill: #7d8899; }
"""

Names = list[str]


def draw(package: Path, target: Path) -> None:
    """Write an SVG for the package in the folder `package` to `target`."""
    graph = _imports(package)
    arrows = [(name, other) for name in sorted(graph) for other in sorted(graph[name] - _further(graph, graph[name]))]
    rows, ways = _with_lanes(_rows(graph), arrows)
    _sort(rows, ways)
    places = _places(rows)
    height = len(rows) * ROW - (ROW - BOX_HEIGHT) + 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<style>{STYLE}</style>",
        '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="head" d="M0 0 8 4 0 8z"/></marker>',
    ]
    parts += [f'<path class="arrow" d="{_line(way, places)}"/>' for way in ways]
    parts += [_box(name, about, *places[name]) for name, about in _abouts(package, graph).items()]
    target.write_text("\n".join([*parts, "</svg>", ""]))


def _imports(package: Path) -> dict[str, set[str]]:
    """For each entry at the top level, the other entries that it imports, also only for annotations."""
    graph: dict[str, set[str]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).parts[0].removesuffix(".py")
        if name in LEFT_OUT:
            continue
        found = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package.name}."):
                other = (node.module or "").split(".")[1]
                if other != name and other not in LEFT_OUT:
                    found.add(other)
    return graph


def _abouts(package: Path, graph: dict[str, set[str]]) -> dict[str, str]:
    """The first sentence of each entry's docstring, without backquotes."""
    abouts = {}
    for name in graph:
        folder, module = package / name / "__init__.py", package / f"{name}.py"
        docstring = ast.get_docstring(ast.parse((folder if folder.exists() else module).read_text())) or ""
        first = " ".join(docstring.split("\n\n")[0].split()).partition(". ")[0]
        abouts[name] = first.replace("`", "").rstrip(".")
    return abouts


def _further(graph: dict[str, set[str]], names: set[str]) -> set[str]:
    """All entries that `names` import, directly or through others. The map needs no separate arrow to these."""
    found: set[str] = set()
    for name in names:
        found |= graph[name] | _further(graph, graph[name])
    return found


def _rows(graph: dict[str, set[str]]) -> list[Names]:
    """The layers, the highest first. Each entry is above all entries that it imports."""
    height: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        height[name] = max((height[other] + 1 for other in graph[name]), default=0)
    return [sorted(n for n, h in height.items() if h == row) for row in range(max(height.values()), -1, -1)]


def _with_lanes(rows: list[Names], arrows: list[tuple[str, str]]) -> tuple[list[Names], list[Names]]:
    """Add a lane to each row that an arrow passes. Returns the new rows, and the boxes and lanes of each arrow."""
    row_of = {name: row for row, names in enumerate(rows) for name in names}
    rows, ways = [list(names) for names in rows], []
    for name, other in arrows:
        lanes = [f"{name}>{other}>{row}" for row in range(row_of[name] + 1, row_of[other])]
        for row, lane in enumerate(lanes, row_of[name] + 1):
            rows[row].append(lane)
        ways.append([name, *lanes, other])
    return rows, ways


def _sort(rows: list[Names], ways: list[Names]) -> None:
    """Sort each row, so that few arrows cross: each name moves towards its neighbours in the rows above and below."""
    steps = [step for way in ways for step in pairwise(way)]
    for _ in range(8):
        for row in (*rows, *reversed(rows)):
            places = {name: x for names in rows for name, (x, _) in _places([names]).items()}

            def wanted(name: str, places: dict[str, float] = places) -> float:
                near = [places[a if b == name else b] for a, b in steps if name in (a, b)]
                return sum(near) / len(near) if near else places[name]

            row.sort(key=lambda name: (wanted(name), name))


def _width(name: str) -> int:
    return LANE_WIDTH if ">" in name else BOX_WIDTH


def _places(rows: list[Names]) -> dict[str, tuple[float, float]]:
    """The middle of the upper edge of each box and lane."""
    places = {}
    for row, names in enumerate(rows):
        left = (WIDTH - sum(_width(name) + GAP for name in names) + GAP) / 2
        for name in names:
            places[name] = (left + _width(name) / 2, row * ROW + 1.0)
            left += _width(name) + GAP
    return places


def _line(way: Names, places: dict[str, tuple[float, float]]) -> str:
    """The path of an arrow: from the lower edge of the first box, down each lane, to the upper edge of the last box."""
    x, y = places[way[0]]
    line = f"M{x:g} {y + BOX_HEIGHT:g}"
    for name in way[1:-1]:
        x, y = places[name]
        line += f" L{x:g} {y:g} L{x:g} {y + BOX_HEIGHT:g}"
    x, y = places[way[-1]]
    return f"{line} L{x:g} {y:g}"


def _box(name: str, about: str, x: float, y: float) -> str:
    lines = textwrap.wrap(about, LINE_CHARS, max_lines=2, placeholder=" …")
    texts = [
        f'<text x="{x:g}" y="{y + 36 + 15 * number:g}" text-anchor="middle">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return (
        f'<rect class="box" x="{x - BOX_WIDTH / 2:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<text class="name" x="{x:g}" y="{y + 19:g}" text-anchor="middle">{escape(name)}</text>{"".join(texts)}'
    )
