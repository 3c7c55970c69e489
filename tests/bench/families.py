"""Families of scenarios, such as echoes and rooms, whose members differ by numbers; and the names of servers."""

from __future__ import annotations

from collections.abc import Iterable

from tests.bench import probes
from tests.bench.results import Target
from tests.bench.runs import Scenario, under_load
from tests.bench.servers import THREADED_PEERS

__all__ = [
    "EVENT_LOOPS",
    "GROWTH",
    "ONE_CORE_PEERS",
    "OURS",
    "OURS_JS",
    "PEERS",
    "TARGETS_16K",
    "UNPINNED_PEERS",
    "ahead",
    "echo",
    "echo_js",
    "opening",
    "room",
    "room_16k",
    "room_js",
    "survives",
]

OURS = ("wsthreads", "wsthreads-pure")
OURS_JS = ("wsthreads-js", "wsthreads-js-pure")

#: Peers with one thread per connection, where they are fastest: on one core.
ONE_CORE_PEERS = ("flask-sock@1", "websockets@1")
EVENT_LOOPS = ("aiohttp", "picows", "socketify", "ws", "bun")
PEERS = (*ONE_CORE_PEERS, *EVENT_LOOPS)

#: For scenarios where the number of cores matters little.
UNPINNED_PEERS = ("flask-sock", "websockets", "socketio", *EVENT_LOOPS)

#: Where more connections are only measured for the chart.
GROWTH = ("wsthreads", "limit-threads@1", "aiohttp", "ws", "bun")


def ahead(subject: str, peers: Iterable[str], sign: str = ">") -> tuple[Target, ...]:
    """The targets to be faster than each of the peers."""
    return tuple(Target(subject, sign, 1.0, peer) for peer in peers)


TARGETS_16K = (
    *ahead("wsthreads", (*ONE_CORE_PEERS, "aiohttp")),
    *ahead("wsthreads-pure", ONE_CORE_PEERS),
    *ahead("wsthreads-js", ONE_CORE_PEERS),
)


def _among(servers: Iterable[str], targets: Iterable[Target]) -> tuple[Target, ...]:
    """Those targets whose servers are measured."""
    return tuple(target for target in targets if {target.subject, target.of or target.subject} <= {*servers})


def echo(connections: int, servers: tuple[str, ...], *targets: Target) -> Scenario:
    """Each connection has one message of 32 bytes under way."""
    return Scenario(
        name=f"echo-{connections}",
        title=f"echo, {connections:,} connections",
        unit="messages/s",
        measure=under_load("recv_per_s", "echo", connections=connections),
        servers=servers,
        targets=targets,
        run_s=connections / 2500,
    )


def echo_js(connections: int, *peers: str) -> Scenario:
    """The same, with the handler in JavaScript beside that in Python."""
    servers = ("wsthreads-js", "wsthreads", *peers)
    targets = (
        Target("wsthreads-js", ">=", 0.6, "wsthreads"),
        Target("wsthreads-js", ">=", 4, "flask-sock"),
        *ahead("wsthreads-js-pure", ("flask-sock", "websockets")),
    )
    return Scenario(
        name=f"echo-js-{connections}",
        title=f"echo in JavaScript, {connections:,} connections",
        unit="messages/s",
        measure=under_load("recv_per_s", "echo", connections=connections),
        servers=servers,
        subjects=OURS_JS,
        targets=_among(servers, targets),
    )


def _people(senders: int) -> str:
    return "one sender" if senders == 1 else f"{senders} senders"


def room(members: int, senders: int, *beside: str, least: float = 0) -> Scenario:
    """Each sender has one message of 32 bytes under way. `least` is the target, as a multiple of `limit`."""
    servers = ("wsthreads", *beside, *PEERS)
    targets = (
        Target("wsthreads", ">=", least, "limit"),
        *ahead("wsthreads", (*THREADED_PEERS, *EVENT_LOOPS)),
        *ahead("wsthreads-pure", THREADED_PEERS),
    )
    return Scenario(
        name=f"fan-{members}-{senders}",
        title=f"room of {members:,}, {_people(senders)}",
        unit="deliveries/s",
        measure=under_load("recv_per_s", "room", mode="fan", connections=members, senders=senders),
        servers=servers,
        targets=_among(servers, targets),
        run_s=members / 2000,
    )


def room_16k(name: str, senders: int, *ours: str) -> Scenario:
    """A room of 100, with large messages."""
    servers = (*ours, *PEERS)  # without limit, which drops what a socket does not accept at once
    return Scenario(
        name=name,
        title=f"room of 100, 16 KiB, {_people(senders)}",
        unit="deliveries/s",
        measure=under_load("recv_per_s", "room", mode="fan", connections=100, payload_bytes=16384, senders=senders),
        servers=servers,
        targets=_among(servers, (*TARGETS_16K, *ahead("wsthreads", ("picows", "socketify", "ws", "bun")))),
    )


def room_js(members: int) -> Scenario:
    """A room with the handler in JavaScript beside that in Python."""
    return Scenario(
        name=f"fan-js-{members}",
        title=f"room of {members:,} through JavaScript, 4 senders",
        unit="deliveries/s",
        measure=under_load("recv_per_s", "room", mode="fan", connections=members, senders=4),
        servers=(*OURS_JS, "wsthreads", "flask-sock@1", "ws", "bun"),
        subjects=OURS_JS,
        targets=(Target("wsthreads-js", ">=", 0.9, "wsthreads"), *ahead("wsthreads-js-pure", ("flask-sock@1",))),
        run_s=members / 2000,
    )


def survives(members: int) -> Scenario:
    """A room of clients that speak wsthreads.1 beside one of plain clients."""
    return Scenario(
        name=f"resume-fan-{members}",
        title=f"room of {members:,} whose members' sessions survive, 4 senders",
        unit="deliveries/s",
        measure=under_load("recv_per_s", "room", mode="fan", connections=members, senders=4),
        servers=("wsthreads-resume", "wsthreads"),
        subjects=("wsthreads-resume",),
        targets=(Target("wsthreads-resume", ">=", 0.85, "wsthreads"),),
        run_s=members / 2000,
    )


def opening(name: str, way: str, at_once: int) -> Scenario:
    """5,000 connections. `at_once` handshakes are under way."""
    return Scenario(
        name=name,
        title=f"time to open 5,000 connections, {way}",
        unit="s",
        better="lower",
        measure=probes.opening(connections=5000, at_once=at_once),
        servers=("wsthreads", "wsthreads-js", "flask-sock", *EVENT_LOOPS),
        subjects=("wsthreads", "wsthreads-js"),
        targets=(
            Target("wsthreads", "<=", 3),
            Target("wsthreads-js", "<=", 3),
        ),
        run_s=3,
        max_rounds=2,
    )
