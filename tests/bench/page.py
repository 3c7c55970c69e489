"""The published results as reStructuredText, which the documentation includes.

A table has the scenarios in which wsthreads is compared with peers. Lists have the other scenarios, the missed targets
and the servers that did not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.bench import growth
from tests.bench.report import figure
from tests.bench.servers import ONE_CORE

__all__ = ["page"]

#: Server → its column. Where a server also ran on one core, the better figure is shown.
COLUMNS = {
    "wsthreads": "wsthreads",
    "wsthreads-js": "wsthreads, JavaScript",
    "limit-threads": "a thread each, in C",
    "bun": "Bun",
    "picows": "picows",
    "socketify": "socketify",
    "ws": "ws",
    "aiohttp": "aiohttp",
    "flask-sock": "flask-sock",
    "websockets": "websockets",
    "socketio": "python-socketio",
}
OURS = ("wsthreads", "wsthreads-js")

#: The path is that from docs/explanation.
GROWTH = (
    ".. container:: wide",
    "",
    "   .. image:: ../../tests/bench/results/growth.svg",
    "      :alt: The rate of echoes by the number of connections, beside other servers",
    "",
)


def page(document: Mapping[str, Any]) -> str:
    """The results, as `cli` writes them, without a heading."""
    scenarios: Mapping[str, Any] = document["scenarios"]
    compared = {name: row for name, row in scenarios.items() if _is_compared(row)}
    lines = [*_about(document), "", *(GROWTH if growth.can_draw(document) else ()), *_table(compared), ""]
    others = {name: row for name, row in scenarios.items() if name not in compared}
    lines += _list("Other rows of the same run", (_other(row) for row in others.values()))
    missed = ((row, target) for row in scenarios.values() for target in row["targets"] if target["met"] is False)
    lines += _list("Missed targets of the project", (_missed(row, target) for row, target in missed))
    reasons = {why: name for row in scenarios.values() for name, why in row["skipped"].items()}
    lines += _list("Servers that did not run", (f"{name}: {why}" for why, name in reasons.items()))
    return "\n".join(lines).rstrip() + "\n"


def _about(document: Mapping[str, Any]) -> list[str]:
    machine, options = document["environment"], document["options"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return [
        f"Measured on {document['date'][:10]} at commit {machine['commit']}: {machine['cores']} cores "
        f"({machine['processor']}), {machine['kernel']}. Medians of at most {options['rounds']} "
        f"interleaved rounds, {options['seconds']:g} s each. Versions: {versions}."
    ]


def _is_compared(row: Mapping[str, Any]) -> bool:
    names = {name.removesuffix(ONE_CORE) for name in row["servers"]}
    return bool(names & {*OURS}) and bool(names & {*COLUMNS} - {*OURS})


def _table(compared: Mapping[str, Any]) -> Iterator[str]:
    shown = [server for server in COLUMNS if any(_figure(row, server) for row in compared.values())]
    yield from (".. list-table::", "   :header-rows: 1", "   :class: figures", "")
    yield from _cells("", *(COLUMNS[server] for server in shown))
    for row in compared.values():
        yield from _cells(f"{row['title']}, {row['unit']}", *(_figure(row, server) for server in shown))


def _figure(row: Mapping[str, Any], server: str) -> str:
    values = [row["servers"].get(name, {}).get("value") for name in (server, server + ONE_CORE)]
    medians = [value["median"] for value in values if value]
    return figure((max if row["better"] == "higher" else min)(medians)) if medians else ""


def _cells(first: str, *others: str) -> Iterator[str]:
    yield f"   * - {first}".rstrip()
    for cell in others:
        yield f"     - {cell}".rstrip()


def _other(row: Mapping[str, Any]) -> str:
    values = {name: server["value"] for name, server in row["servers"].items() if server["value"]}
    figures = (f"{name} {figure(value['median'])}" for name, value in values.items())
    return f"{row['title']}, {row['unit']}: {', '.join(figures)}"


def _missed(row: Mapping[str, Any], target: Mapping[str, Any]) -> str:
    middle, low, high = (figure(target["measured"][name]) for name in ("median", "low", "high"))
    return f"{row['title']}: {target['target']}. Measured: {middle} ({low} to {high})"


def _list(heading: str, items: Iterable[str]) -> Iterator[str]:
    lines = [f"- {item}" for item in items]
    if lines:
        yield from (f"{heading}:", "", *lines, "")
