"""The scenarios: what is measured, on which servers, with which targets for wsthreads.

A target counts if its servers were measured. Without the C module, `wsthreads` is `wsthreads-pure`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.bench import probes
from tests.bench.load import Load
from tests.bench.results import Target
from tests.bench.runs import Scenario, under_load
from tests.bench.servers import THREADED_PEERS

__all__ = ["SCENARIOS"]

OURS = ("wsthreads", "wsthreads-pure")
OURS_JS = ("wsthreads-js", "wsthreads-js-pure")
PYTHON_PEERS = (*THREADED_PEERS, "aiohttp")
PEERS = (*PYTHON_PEERS, "ws", "bun")

#: For scenarios with JavaScript handlers.
JS_PEERS = ("flask-sock", "websockets", "socketio", "ws", "bun")
JS_THREADED_PEERS = JS_PEERS[:3]

#: For scenarios where the number of cores matters little.
UNPINNED_PEERS = ("flask-sock", "websockets", "socketio", "aiohttp", "ws", "bun")


def _ahead(subject: str, peers: Iterable[str], sign: str = ">") -> tuple[Target, ...]:
    return tuple(Target(subject, sign, 1.0, peer) for peer in peers)


def _room(members: int, senders: int, least: float) -> Scenario:
    people = "one sender" if senders == 1 else f"{senders} senders"
    return Scenario(
        name=f"fan-{members}-{senders}",
        title=f"room of {members:,}, {people}",
        unit="deliveries/s",
        measure=under_load("recv_per_s", "room", mode="fan", connections=members, senders=senders),
        servers=(*OURS, "limit", *PEERS),
        targets=(
            Target("wsthreads", ">=", least, "limit"),
            *_ahead("wsthreads", PEERS),
            *_ahead("wsthreads-pure", THREADED_PEERS),
        ),
        run_s=members / 500,
    )


def _room_js(members: int) -> Scenario:
    return Scenario(
        name=f"fan-js-{members}",
        title=f"room of {members:,} through JavaScript, 4 senders",
        unit="deliveries/s",
        measure=under_load("recv_per_s", "room", mode="fan", connections=members, senders=4),
        servers=(*OURS_JS, "wsthreads", *JS_PEERS),
        subjects=OURS_JS,
        targets=(Target("wsthreads-js", ">=", 0.9, "wsthreads"), *_ahead("wsthreads-js-pure", JS_THREADED_PEERS)),
        run_s=members / 500,
    )


def _survives(members: int) -> Scenario:
    return Scenario(
        name=f"resume-fan-{members}",
        title=f"room of {members:,} whose members' sessions survive, 4 senders",
        unit="deliveries/s",
        measure=under_load("recv_per_s", "room", mode="fan", connections=members, senders=4),
        servers=("wsthreads-resume", "wsthreads"),
        subjects=("wsthreads-resume",),
        targets=(Target("wsthreads-resume", ">=", 0.85, "wsthreads"),),
        run_s=members / 500,
    )


TARGETS_16K = (
    *_ahead("wsthreads", PYTHON_PEERS),
    *_ahead("wsthreads-pure", THREADED_PEERS),
    *_ahead("wsthreads-js", THREADED_PEERS),
)

_ALL = (
    Scenario(
        name="echo-100",
        title="echo, 100 connections",
        unit="messages/s",
        measure=under_load("recv_per_s", "echo", connections=100),
        servers=(*OURS, "limit", *PEERS),
        targets=(
            Target("wsthreads", ">=", 8, "flask-sock"),
            Target("wsthreads", ">=", 8, "websockets"),
            Target("wsthreads", ">=", 4, "flask-sock@1"),
            Target("wsthreads", ">=", 4, "websockets@1"),
            Target("wsthreads", ">=", 1.2, "aiohttp"),
            Target("wsthreads", ">=", 1.0, "ws"),
            *_ahead("wsthreads-pure", THREADED_PEERS),
        ),
    ),
    Scenario(
        name="echo-10",
        title="echo, 10 connections: median latency",
        unit="µs",
        better="lower",
        measure=under_load("p50_us", "echo", connections=10),
        servers=(*OURS, "limit", *PEERS),
        targets=(Target("wsthreads", "<=", 1.2, "ws"), *_ahead("wsthreads-pure", THREADED_PEERS, "<")),
    ),
    _room(100, 1, 0.9),
    _room(1000, 1, 0.9),
    _room(100, 4, 2.5),
    _room(1000, 4, 3.5),
    Scenario(
        name="resume-echo",
        title="echo, 100 connections whose sessions survive (wsthreads.1, resume_s)",
        unit="messages/s",
        measure=under_load("recv_per_s", "echo", connections=100),
        servers=("wsthreads-resume", "wsthreads"),
        subjects=("wsthreads-resume",),
        targets=(Target("wsthreads-resume", ">=", 0.85, "wsthreads"),),
    ),
    _survives(100),
    _survives(1000),
    Scenario(
        name="request",
        title="requests, 10 connections: median of the round trip, beside that of an echo",
        unit="µs",
        better="lower",
        measure=under_load("p50_us", "echo", connections=10),
        servers=("wsthreads-requests", "wsthreads"),
        subjects=("wsthreads-requests",),
        targets=(Target("wsthreads-requests", "<=", 1.2, "wsthreads"),),
    ),
    Scenario(
        name="echo-js",
        title="echo in JavaScript, 100 connections",
        unit="messages/s",
        measure=under_load("recv_per_s", "echo", connections=100),
        servers=(*OURS_JS, "wsthreads", *JS_PEERS),
        subjects=OURS_JS,
        targets=(
            Target("wsthreads-js", ">=", 0.6, "wsthreads"),
            Target("wsthreads-js", ">=", 4, "flask-sock"),
            *_ahead("wsthreads-js-pure", JS_THREADED_PEERS),
        ),
    ),
    _room_js(100),
    _room_js(1000),
    Scenario(
        name="echo-js-heap",
        title="echo in JavaScript with 100,000 live objects in the script, 100 connections",
        unit="messages/s",
        measure=under_load("recv_per_s", "echo", connections=100),
        servers=("wsthreads-js-heap", "wsthreads-js"),
        subjects=("wsthreads-js-heap",),
        targets=(Target("wsthreads-js-heap", ">=", 0.9, "wsthreads-js"),),
    ),
    Scenario(
        name="echo-16k",
        title="echo of 16 KiB, 100 connections",
        unit="messages/s",
        measure=under_load("recv_per_s", "echo", connections=100, payload_bytes=16384),
        servers=(*OURS, "wsthreads-js", "limit", *PEERS),
        targets=TARGETS_16K,
    ),
    Scenario(
        name="fan-16k",
        title="room of 100, 16 KiB, one sender",
        unit="deliveries/s",
        measure=under_load("recv_per_s", "room", mode="fan", connections=100, payload_bytes=16384),
        servers=(*OURS, "wsthreads-js", *PEERS),  # without limit, which drops what a socket does not accept at once
        targets=TARGETS_16K,
    ),
    Scenario(
        name="p99",
        title="room of 1,000 at half of the peak rate of wsthreads, open loop: 99th percentile of the latency",
        unit="µs",
        better="lower",
        measure=probes.p99_at_half_rate,
        servers=("wsthreads", "limit", "ws", "bun"),
        subjects=("wsthreads",),
        targets=(Target("wsthreads", "<=", 2, "bun"),),
        run_s=4,
    ),
    Scenario(
        name="bad-peers",
        title="p99 of 500 in a room of 50 messages a second with 200 more that never read, 200 slow and 100 that flood",
        unit="times that without them",
        better="lower",
        measure=probes.bad_peers(never=200, slow=200, flood=100),
        servers=("wsthreads-limited",),
        subjects=("wsthreads-limited",),
        targets=(Target("wsthreads-limited", "<=", 2),),
        run_s=50,
        only_by_name=True,
    ),
    Scenario(
        name="bad-readers",
        title="the same without those that flood",
        unit="times that without them",
        better="lower",
        measure=probes.bad_peers(never=200, slow=200, flood=0),
        servers=("wsthreads",),
        subjects=("wsthreads",),
        targets=(Target("wsthreads", "<=", 2),),
        run_s=50,
        only_by_name=True,
    ),
    Scenario(
        name="dashboard",
        title="echo of 10,000 messages a second, 5,000 connections: CPU that the dashboard takes with a page open",
        unit="% of a core",
        better="lower",
        measure=probes.watched(connections=5000, rate_per_s=10_000.0, seconds=10.0, drain_s=5.0),
        servers=("wsthreads",),
        subjects=("wsthreads",),
        targets=(Target("wsthreads", "<=", 5),),
        run_s=200,
        max_rounds=1,
        only_by_name=True,
    ),
    Scenario(
        name="redis-latency",
        title="room of 10 over Redis, one sender: what it adds to the median latency",
        unit="µs",
        better="lower",
        measure=probes.latency_over("wsthreads", mode="fan", connections=10, rate_per_s=200),
        servers=("wsthreads-redis",),
        subjects=("wsthreads-redis",),
        targets=(Target("wsthreads-redis", "<=", 1000),),
        run_s=4,
    ),
    Scenario(
        name="redis-fan",
        title="room of 100 over Redis, 4 senders",
        unit="deliveries/s",
        measure=under_load("recv_per_s", "room", mode="fan", connections=100, senders=4),
        servers=("wsthreads-redis", "wsthreads-redis-2", "wsthreads"),
        subjects=("wsthreads-redis-2",),
    ),
    Scenario(
        name="redis-publish",
        title="broadcasts into Redis by one thread",
        unit="broadcasts/s",
        measure=probes.publish_rate,
        servers=("wsthreads-publish", "socketio-publish"),
        subjects=("wsthreads-publish",),
        targets=(Target("wsthreads-publish", ">=", 3, "socketio-publish"),),
    ),
    Scenario(
        name="redis-rooms",
        title="10,000 rooms over Redis with one member each: CPU, Redis's included",
        unit="% of a core",
        better="lower",
        measure=probes.idle_cpu("rooms", connections=100, seconds=10, warm_s=2),
        servers=("wsthreads-redis", "wsthreads"),
        subjects=("wsthreads-redis",),
        run_s=15,
    ),
    Scenario(
        name="memory",
        title="memory of an idle connection, of 1,000",
        unit="KiB",
        better="lower",
        measure=under_load("rss_kb_per_conn", "echo", mode="idle", connections=1000, warm_s=1, seconds=0.1),
        servers=(*OURS, *OURS_JS, *UNPINNED_PEERS),
        targets=(Target("wsthreads", "<=", 40), Target("wsthreads-js", "<=", 40)),
    ),
    Scenario(
        name="idle-5000",
        title="5,000 idle connections through two rounds of pings: CPU",
        unit="% of a core",
        better="lower",
        measure=probes.idle_through_pings,
        servers=("wsthreads", "wsthreads-js", "aiohttp"),
        subjects=("wsthreads",),
        targets=(Target("wsthreads", "<", 5), Target("wsthreads-js", "<", 5)),
        run_s=70,
        max_rounds=1,
    ),
    Scenario(
        name="connect",
        title="opening 1,000 connections",
        unit="connections/s",
        measure=probes.connect,
        servers=(*OURS, "wsthreads-js", *UNPINNED_PEERS),
        targets=(Target("wsthreads", ">=", 1.5, "flask-sock"), *_ahead("wsthreads-pure", JS_THREADED_PEERS)),
    ),
    Scenario(
        name="churn",
        title="connections opened, one message, closed, 50 at a time",
        unit="connections/s",
        measure=under_load("cycles_per_s", "echo", mode="churn", connections=50),
        servers=(*OURS, "wsthreads-js", "flask-sock", "websockets", "aiohttp", "ws", "bun"),
        targets=(Target("wsthreads", ">=", 1.5, "flask-sock"), *_ahead("wsthreads-pure", ("flask-sock", "websockets"))),
    ),
    Scenario(
        name="start",
        title="from the start of the process until it accepts connections",
        unit="s",
        better="lower",
        measure=probes.start_time,
        servers=("wsthreads-js", "wsthreads", *UNPINNED_PEERS),
        subjects=("wsthreads-js",),
        targets=(Target("wsthreads-js", "<=", 0.6),),
        run_s=3,
    ),
    Scenario(
        name="import",
        title="import wsthreads, without dukpy",
        unit="s",
        better="lower",
        measure=probes.import_time("wsthreads"),
        servers=("wsthreads",),
        subjects=("wsthreads",),
        targets=(Target("wsthreads", "<=", 0.15),),
        run_s=2,
    ),
    Scenario(
        name="soak-messages",
        title="growth of memory over 10 million messages, after the first tenth",
        unit="MiB",
        better="lower",
        measure=probes.soak(Load(connections=100), total=10_000_000, quick_total=100_000),
        servers=("wsthreads", "wsthreads-js"),
        subjects=("wsthreads",),
        targets=(Target("wsthreads", "<=", 1), Target("wsthreads-js", "<=", 1)),
        run_s=600,
        max_rounds=1,
        only_by_name=True,
    ),
    Scenario(
        name="soak-connections",
        title="growth of memory over 100,000 connections, after the first tenth",
        unit="MiB",
        better="lower",
        measure=probes.soak(Load(mode="churn", connections=50), total=100_000, quick_total=2_000),
        servers=("wsthreads", "wsthreads-js"),
        subjects=("wsthreads",),
        targets=(Target("wsthreads", "<=", 1), Target("wsthreads-js", "<=", 1)),
        run_s=150,
        max_rounds=1,
        only_by_name=True,
    ),
)

SCENARIOS: Mapping[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
