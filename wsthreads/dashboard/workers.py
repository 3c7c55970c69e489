"""Makes the page's lists for all processes: over a broker, each process asks the others for their parts of a list.

Each part has at most as many rows as the page shows. So the amount of data does not grow with the number of sessions.
"""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from heapq import nlargest, nsmallest
from typing import TYPE_CHECKING, Any, Protocol

from wsthreads.dashboard.lists import LISTS, sort_key
from wsthreads.dashboard.requests import MAX_LIMIT, Mistake, Watch, fields_of, watch_of
from wsthreads.dashboard.room_state import merge_states, room_owner

if TYPE_CHECKING:
    from wsthreads.sessions.endpoint import Endpoint

__all__ = ["OtherProcesses", "Workers"]

#: The kind of the question to other processes. Its number is changed when the fields of the lists change. So processes
#: with another version of wsthreads do not answer.
KIND = "dashboard-2"

#: How long to wait for processes that do not answer.
TIMEOUT_S = 1.0


class OtherProcesses(Protocol):
    """The part of `Link`, the connection to other processes, that asks them questions."""

    def answer(self, kind: str, function: Callable[[Any], Any]) -> None:
        """From now on, answer questions of this kind."""

    def ask(
        self, kind: str, argument: Any, timeout_s: float = ..., enough: Callable[[Any], bool] | None = ...
    ) -> list[dict[str, Any]]:
        """Ask the other processes. Each answer has the fields `pid`, `host` and `value`."""


class Workers:
    """Makes the lists of `endpoints` in this process, and in the `others` if there may be any. Any thread."""

    def __init__(self, endpoints: Callable[[], Iterable[Endpoint]], others: OtherProcesses | None) -> None:
        self._endpoints = endpoints
        self._others = others
        if others is not None:
            others.answer(KIND, self._answer)

    def list(self, watch: Watch) -> dict[str, Any]:
        """Returns the message that `watch` asks for. Waits for the other processes for at most `TIMEOUT_S`."""
        own = LISTS[watch.list](self._endpoints(), watch)
        if watch.list == "room":
            return own  # each process knows the persons of all processes already
        parts = [own]
        _mark(own, os.getpid(), socket.gethostname())
        if self._others is not None and own.get("gone") is not False:
            parts += self._ask(self._others, watch)
        merged = _MERGE[watch.list](parts, watch)
        return {**merged, "processes": len(parts), "request": watch.request}

    def _ask(self, others: OtherProcesses, watch: Watch) -> Iterable[dict[str, Any]]:
        fields = fields_of(watch)
        if watch.list == "rooms":  # the numbers of members are added up, so each process must list its small rooms, too
            fields["limit"] = MAX_LIMIT
        enough = _is_found if watch.list == "session" else None
        for answer in others.ask(KIND, fields, TIMEOUT_S, enough):
            part = answer["value"]
            if isinstance(part, dict) and part.get("type") == watch.list:
                _mark(part, answer["pid"], answer["host"])
                yield part

    def _answer(self, fields: Any) -> dict[str, Any] | None:
        """Returns the part of this process. Returns None if the question is malformed."""
        try:
            watch = watch_of(fields)
        except Mistake:
            return None
        if watch.list == "room_state":  # the process that asks knows the rest of the state already
            return room_owner(self._endpoints(), watch)
        return LISTS[watch.list](self._endpoints(), watch)


def _mark(part: dict[str, Any], pid: int, host: str) -> None:
    """Add the process to the sessions and the owners in the part that it has sent."""
    if part["type"] == "rooms":
        owners = [row["owner"] for row in part["rows"] if "owner" in row]
    else:
        owners = [part["owner"]] if part.get("owner") else []
    for owner in owners:
        owner.update(pid=pid, host=host)
    if part["type"] in ("sessions", "user"):
        for row in part["rows"]:
            row.update(pid=pid, host=host)
    elif part["type"] == "session":
        part.update(pid=pid, host=host)


def _is_found(value: Any) -> bool:
    return isinstance(value, dict) and value.get("gone") is False


def _session(parts: list[dict[str, Any]], watch: Watch) -> dict[str, Any]:
    return next((part for part in parts if not part["gone"]), parts[0])


def _sessions(parts: list[dict[str, Any]], watch: Watch) -> dict[str, Any]:
    rows = [row for part in parts for row in part["rows"]]
    return {
        **parts[0],
        "total": sum(part["total"] for part in parts),
        "matched": sum(part["matched"] for part in parts),
        "rows": (nlargest if watch.descending else nsmallest)(watch.limit, rows, key=sort_key(watch.sort)),
    }


def _rooms(parts: list[dict[str, Any]], watch: Watch) -> dict[str, Any]:
    """Returns the rooms of all processes. Adds up the members of each room.

    The sums are exact unless a process has more than `MAX_LIMIT` rooms. In this case, the members in its smallest rooms
    can be missing. The number of rooms without the filter is not known, because some rooms are in several processes.
    """
    if len(parts) == 1:
        return parts[0]
    members: Counter[tuple[str, str]] = Counter()
    held: dict[tuple[str, str], dict[str, Any]] = {}
    listed = 0
    for part in parts:
        for row in part["rows"]:
            members[row["endpoint"], row["name"]] += row["members"]
            _add_held(held.setdefault((row["endpoint"], row["name"]), {}), row)
            listed += 1
    matched = sum(part["matched"] for part in parts) - (listed - len(members))
    is_all = not watch.filter and watch.endpoint is None
    rows = nsmallest(watch.limit, ((-size, *room) for room, size in members.items()))
    return {
        **parts[0],
        "total": matched if is_all else None,
        "matched": matched,
        "rows": [{"endpoint": path, "name": name, "members": -size, **held[path, name]} for size, path, name in rows],
    }


def _add_held(held: dict[str, Any], row: dict[str, Any]) -> None:
    """Add the history and the owner in `row` to a row for all processes.

    Each process with members of the room has the whole history. While an ownership moves, two processes may claim it.
    """
    if "history" in row:
        held["history"] = max(held.get("history", 0), row["history"])
    if "owner" in row and row["owner"]["fencing_number"] > held.get("owner", {}).get("fencing_number", 0):
        held["owner"] = row["owner"]


_MERGE = {"sessions": _sessions, "user": _sessions, "session": _session, "rooms": _rooms, "room_state": merge_states}
