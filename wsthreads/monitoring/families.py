"""The metrics of an app in the form that Prometheus needs: counters, gauges and histograms, with names and labels."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from platform import python_version
from typing import TYPE_CHECKING, Any

from wsthreads.errors import CloseCode
from wsthreads.monitoring.metrics import BOUNDS_S, Distribution, Totals
from wsthreads.threads.gil import has_gil

if TYPE_CHECKING:
    from wsthreads.monitoring.interfaces import MonitoredApp

__all__ = ["Family", "families"]

#: For each counter of handler errors: the value of the label `kind`.
_ERRORS = {"handler_errors": "exception", "script_timeouts": "deadline", "unhandled_rejections": "rejection"}

_SIMPLE = (
    ("wsthreads_sessions", "gauge", "Open WebSocket sessions", "sessions"),
    ("wsthreads_suspended_sessions", "gauge", "Open sessions that wait for their clients to come back", "suspended"),
    ("wsthreads_sessions_opened_total", "counter", "Sessions opened", "opened"),
    ("wsthreads_rooms", "gauge", "Rooms with members; each process counts the rooms of its own members", "rooms"),
    ("wsthreads_room_members", "gauge", "Memberships: a session in three rooms counts three times", "members"),
    ("wsthreads_users", "gauge", "Users with sessions; each process counts the users of its own sessions", "users"),
    ("wsthreads_messages_received_total", "counter", "Text and binary messages from clients", "messages_in"),
    ("wsthreads_received_bytes_total", "counter", "Bytes of WebSocket frames from clients, as on the wire", "bytes_in"),
    ("wsthreads_messages_sent_total", "counter", "Text and binary messages to clients", "messages_out"),
    (
        "wsthreads_latest_replaced_total",
        "counter",
        "Messages that were replaced by a later message with the same key",
        "latest_replaced",
    ),
    ("wsthreads_sent_bytes_total", "counter", "Bytes of WebSocket frames that the kernel accepted", "bytes_out"),
    ("wsthreads_outbox_bytes", "gauge", "Bytes queued for slow clients", "bytes_waiting"),
    (
        "wsthreads_unacknowledged_bytes",
        "gauge",
        "Bytes of messages that are kept until clients acknowledge them",
        "unacknowledged_bytes",
    ),
    ("wsthreads_owned_rooms", "gauge", "Rooms whose on_tick and on_post are called in this process", "owned_rooms"),
    ("wsthreads_posts_waiting", "gauge", "Posts that wait for on_post in this process", "posts_waiting"),
    (
        "wsthreads_history_messages",
        "gauge",
        "Messages in the histories of rooms; each process counts its copies",
        "history_messages",
    ),
    ("wsthreads_history_bytes", "gauge", "Bytes of the messages in histories", "history_bytes"),
    ("wsthreads_broadcasts_total", "counter", "Broadcasts that reached a member in this process", "broadcasts"),
    ("wsthreads_deliveries_total", "counter", "Messages queued for members by broadcasts", "deliveries"),
)

#: The counters of an endpoint.
_COUNTED = (
    ("sessions_suspended", "Times that a session lost its connection and began to wait for its client"),
    ("sessions_resumed", "Times that a session got another connection"),
    ("sessions_handed_over", "Sessions that moved to another process"),
    ("sessions_taken_over", "Sessions that came from another process"),
    ("presence_changes", "Presence values set in this process, and sessions with a value that left or were lost"),
    ("kicks", "Sessions in this process that the application or an operator closed through a handle"),
    ("bans", "Bans of users by calls in this process"),
    ("posts", "Posts that on_post has handled in this process"),
    ("owner_changes", "Times that this process became the owner of a room"),
    ("ticks_skipped", "Ticks of rooms that were left out because they were late"),
)

_BROKER = (
    ("broker_outages", "Broker outages"),
    ("broker_gaps", "Times that broadcasts to a room were lost, or could have been"),
    ("broker_refused", "Broadcasts refused because too many waited for the broker"),
    ("broker_malformed", "Messages from the broker that were not valid"),
)


@dataclass(slots=True)
class Family:
    """One metric. `samples` has a number, or a `Distribution` for a histogram, for each combination of label values."""

    name: str
    kind: str
    about: str
    labels: tuple[str, ...] = ()
    samples: dict[tuple[str, ...], Any] = field(default_factory=dict)


def families(app: MonitoredApp) -> list[Family]:
    """Returns the current metrics of an app. Any thread.

    Clients cannot choose the values of labels, so the number of time series is limited.
    """
    endpoints = [(endpoint, endpoint.totals()) for endpoint in app.endpoints]
    by_path = [(endpoint.path, totals) for endpoint, totals in endpoints]
    counters = app.metrics.snapshot()

    def each(samples: Callable[[Totals], dict[tuple[str, ...], Any]]) -> dict[tuple[str, ...], Any]:
        return {(path, *labels): value for path, totals in by_path for labels, value in samples(totals).items()}

    found = []
    for name, kind, about, attribute in _SIMPLE:
        numbers = [(path, attrgetter(attribute)(totals)) for path, totals in by_path]
        values: dict[tuple[str, ...], Any] = {(path,): number for path, number in numbers if number is not None}
        found.append(Family(name, kind, about, ("endpoint",), values))
    for name, about in _COUNTED:
        values = {(path,): totals.counters.get(name, 0) for path, totals in by_path}
        found.append(Family(f"wsthreads_{name}_total", "counter", about, ("endpoint",), values))
    found += [
        Family(
            "wsthreads_sessions_closed_total", "counter", "Sessions ended, by close code",
            ("endpoint", "code"), each(lambda totals: _by_code(totals.closed)),
        ),
        Family(
            "wsthreads_resumes_refused_total", "counter", "Clients that came back and got a new session, by the reason",
            ("endpoint", "why"), each(lambda totals: _counted_as("resumes_refused_", totals.counters)),
        ),
        Family(
            "wsthreads_slow_sessions_closed_total", "counter", "Sessions closed with 1013, for reading too slowly",
            ("endpoint",), each(lambda totals: {(): totals.counters.get("slow_sessions_closed", 0)}),
        ),
        Family(
            "wsthreads_handshakes_refused_total", "counter", "Handshakes refused, by HTTP status and cause",
            ("endpoint", "status", "cause"),
            each(lambda totals: {(str(status), cause): n for (status, cause), n in totals.refused.items()}),
        ),
        Family(
            "wsthreads_handler_errors_total", "counter", "Handler errors: exceptions, deadlines, rejected promises",
            ("endpoint", "kind"),
            each(lambda totals: {(kind,): totals.counters.get(name, 0) for name, kind in _ERRORS.items()}),
        ),
        Family(
            "wsthreads_handler_seconds", "histogram", "Duration of handler functions",
            ("endpoint", "function"),
            {
                (endpoint.path, hook): totals.handler_seconds.get(hook, _NOTHING)
                for endpoint, totals in endpoints
                for hook in sorted(endpoint.handler.hooks)
            },
        ),
        Family(
            "wsthreads_ping_round_trip_seconds", "histogram", "Time from pings to their pongs",
            ("endpoint",), each(lambda totals: {(): totals.round_trips or _NOTHING}),
        ),
        Family(
            "wsthreads_tick_lag_seconds", "histogram", "How late the ticks of rooms were",
            ("endpoint",), each(lambda totals: {(): totals.tick_lags or _NOTHING}),
        ),
        Family(
            "wsthreads_script_heap_bytes", "gauge", "Heap of the script's interpreter, measured every few seconds",
            ("endpoint",),
            {(e.path,): heap for e, _ in endpoints if (heap := e.handler.heap_bytes()) is not None},
        ),
        Family(
            "wsthreads_script_wait_seconds", "histogram", "How long calls of a script wait for others",
            ("endpoint",),
            {(e.path,): totals.script_waits or _NOTHING for e, totals in endpoints if e.handler.has_queue},
        ),
        Family(
            "wsthreads_limit_exceeded_total", "counter", "Times that a client exceeded a limit, by the limit's setting",
            ("setting",), _counted_as("past_", counters),
        ),
        Family(
            "wsthreads_session_places", "gauge", "Most sessions that all endpoints together accept",
            (), {(): app.places},
        ),
        Family(
            "wsthreads_info", "gauge", "1 for each process; gil is on or off",
            ("version", "python", "gil"), {(_version(), python_version(), "on" if has_gil() else "off"): 1},
        ),
    ]  # fmt: skip
    if app.shares_rooms:
        for name, about in _BROKER:
            found.append(Family(f"wsthreads_{name}_total", "counter", about, (), {(): counters.get(name, 0)}))
        about = "Broadcasts that wait for the broker"
        waiting: dict[tuple[str, ...], Any] = {(): app.broadcasts_waiting}
        found.append(Family("wsthreads_broker_broadcasts_waiting", "gauge", about, (), waiting))
    return found


def _version() -> str:
    version: str = sys.modules["wsthreads"].__version__  # an import of the package would be circular
    return version


_NOTHING = Distribution((0,) * (len(BOUNDS_S) + 1), 0.0)

#: The close codes in RFC 6455, 7.4.1, and in the IANA registry.
_KNOWN_CODES = frozenset(range(1000, 1016)) - {1004} | frozenset(map(int, CloseCode))


def _counted_as(prefix: str, counters: dict[str, int]) -> dict[tuple[str, ...], int]:
    """Returns counts by the part of the counters' names after the prefix."""
    return {(name.removeprefix(prefix),): count for name, count in counters.items() if name.startswith(prefix)}


def _by_code(closed: dict[int, int]) -> dict[tuple[str, ...], int]:
    """Returns counts by close code.

    Codes that the server never sends have a common label: "3xxx", "4xxx" or "other".
    """
    counts: dict[tuple[str, ...], int] = {}
    for code, count in closed.items():
        known = code in _KNOWN_CODES
        name = str(code) if known else f"{code // 1000}xxx" if 3000 <= code <= 4999 else "other"
        counts[(name,)] = counts.get((name,), 0) + count
    return counts
