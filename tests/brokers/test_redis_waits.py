"""How long a handler's calls wait while Redis hangs: a second at most, and a script's broadcast not at all."""

import contextlib
import json
import os
import signal
import threading
import time

import pytest

from tests.programs import DEADLINE_S, connect, receive, wait_until
from tests.redis_server import RedisServer
from tests.room_worlds import RedisWorld
from wsthreads import BrokerError, RedisBroker, WebSocketApp
from wsthreads.brokers import availability, pending

#: No call takes longer than this; twice the promise, for machines with much to do. Redis hangs for longer.
BOUND_S = 0.2 * DEADLINE_S

pytestmark = pytest.mark.quiet  # a thread that gets no core for a second looks like one that waits for Redis again


@pytest.fixture(autouse=True)
def as_for_users(impatient):
    impatient()


@pytest.fixture
def redis():
    with RedisServer() as server:
        yield server
        server.thaw()


@pytest.fixture
def world(redis):
    world = RedisWorld(f"{redis.url}?socket_timeout=1000", processes=1, max_queued_bytes=1_000_000)
    yield world
    redis.thaw()
    world.end()


def timed(call):
    """Seconds that a call took, whether or not it raised `BrokerError`."""
    begun = time.monotonic()
    with contextlib.suppress(BrokerError):
        call()
    return time.monotonic() - begun


CALLS = {
    "join": lambda session: session.room("new").join(),
    "join again": lambda session: session.room("lobby").join(),
    "leave": lambda session: session.room("lobby").leave(),
    "members": lambda session: session.room("lobby").members(),
    "send": lambda session: session.send("x"),
    "close": lambda session: session.close(),
    "broadcast": lambda session: session.room("lobby").broadcast("x" * 900_000),
    "broadcast_except": lambda session: session.room("lobby").broadcast_except("x" * 900_000),
    "rooms": lambda session: session.rooms(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("behind", [False, True], ids=["at first", "behind a broadcast"])
def test_no_call_of_a_python_handler_waits_for_longer_than_a_second(redis, world, call, behind):
    member = world.member("lobby", "other")
    redis.freeze()
    if behind:
        member.session.room("lobby").broadcast("x" * 500_000)
    assert timed(lambda: CALLS[call](member.session)) < BOUND_S
    redis.thaw()


def test_many_broadcasts_past_the_bound_wait_for_a_second_together(redis, world):
    """Redis is waited for once, and not by each call anew."""
    member = world.member("lobby")
    redis.freeze()
    member.session.room("lobby").broadcast("x" * 900_000)
    assert timed(lambda: [timed(lambda: CALLS["broadcast"](member.session)) for _ in range(20)]) < BOUND_S
    assert world.metrics[0].snapshot()["broker_refused"] == 20
    calls = ["join", "join again", "members", "send", "broadcast", "rooms", "leave"]
    assert sum(timed(lambda name=name: CALLS[name](member.session)) for name in calls) < BOUND_S
    redis.thaw()


def test_joins_wait_once_for_subscriptions_that_do_not_come(redis, world, monkeypatch):
    """As where the connection for what comes is dead, and the other one is not."""
    world.member("lobby")
    reader = world.links[0]._reader
    stuck, over = threading.Event(), threading.Event()

    def poll():
        stuck.set()
        over.wait()

    reader._on_poll = poll
    try:
        assert stuck.wait(DEADLINE_S)
        member = world.member()
        assert timed(lambda: [member.session.room(f"{n}").join() for n in range(10)]) < BOUND_S
    finally:
        over.set()


@pytest.fixture
def stuck_reader(world):
    """The thread that reads from the world's Redis waits for an answer, as when Redis hangs while a room is fetched."""
    replay, stuck, over = world.links[0]._reader._replay, threading.Event(), threading.Event()

    def catch_up(connection):
        stuck.set()
        over.wait()

    world.member("lobby")
    replay.catch_up = catch_up
    assert stuck.wait(DEADLINE_S)
    yield
    over.set()


@pytest.mark.parametrize("hangs", [False, True], ids=["Redis answers others", "Redis hangs"])
def test_what_is_sent_behind_a_broadcast_waits_for_a_second_though_the_reader_waits_for_longer(
    redis, world, stuck_reader, hangs
):
    member = world.member()
    member.session.room("lobby").join()
    if hangs:
        redis.freeze()
    member.session.room("lobby").broadcast("late")
    member.session.send("direct")
    assert timed(lambda: member.receive_until("direct")) < BOUND_S
    member.session.room("lobby").broadcast("later")
    member.session.send("at once")
    assert timed(lambda: member.receive_until("at once")) < BOUND_S
    redis.thaw()


def test_calls_that_wait_for_broadcasts_wait_for_a_second_together(redis, world, stuck_reader):
    member, rooms = world.member(), [f"{n}" for n in range(10)]
    for name in rooms:
        member.session.room(name).join()
    redis.freeze()

    def calls():
        for name in rooms:
            member.session.room(name).broadcast("x")
            member.session.room(name).leave()
            member.session.room(name).join()
            member.session.send("direct")

    assert timed(calls) < BOUND_S
    redis.thaw()


def test_threads_that_broadcast_from_outside_do_not_wait_for_redis_one_after_the_other(redis):
    room = RedisBroker(f"{redis.url}?socket_timeout=0.5").room("/ws/test", "lobby")
    room.broadcast("x")
    redis.freeze()
    taken = []

    def work():
        taken.append(timed(lambda: room.broadcast("x")))

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(taken) < BOUND_S
    redis.thaw()


def test_a_fork_broadcasts_from_outside_while_its_parent_does(redis):
    """A thread of the parent waits for Redis at the fork, and another one takes a connection."""
    broker = RedisBroker(f"{redis.url}?socket_timeout=1000")
    room, pool = broker.room("/ws/test", "lobby"), broker._client.connection_pool
    room.broadcast("x")
    redis.freeze()
    thread = threading.Thread(target=room.broadcast, args=("from the parent",), daemon=True)
    thread.start()
    wait_until(lambda: not pool._available_connections, "the thread at work")
    with pool._lock:
        child = os.fork()
        if child == 0:
            try:
                room.broadcast("from the child")
            finally:
                os._exit(0)
    redis.thaw()
    ended = threading.Event()
    threading.Thread(target=lambda: (os.waitpid(child, 0), ended.set()), daemon=True).start()
    try:
        assert ended.wait(DEADLINE_S)
    finally:
        if not ended.is_set():
            os.kill(child, signal.SIGKILL)
    thread.join(DEADLINE_S)
    (log,) = redis.keys("*:log:*")
    assert len(redis.client.xrange(log)) == 3


SCRIPT = """
    let room;
    export function onOpen(session) {
      room = session.room("lobby");
      room.join();
      session.room("other").join();
      session.send("in");
    }
    const calls = {
      join: (session) => session.room("new").join(),
      leave: (session) => session.room("other").leave(),
      members: () => room.members(),
      send: (session) => session.send("x"),
      close: (session) => session.close(),
      broadcast: () => room.broadcast("x".repeat(900000)),
      broadcastExcept: () => room.broadcastExcept("x".repeat(900000)),
    };
    export function onMessage(session, message) {
      for (const call of JSON.parse(message)) {
        try {
          calls[call](session);
        } catch (error) {
          console.error(error);
        }
      }
    }
"""


@pytest.fixture
def script(redis, serve, tmp_path):
    """(app, client, other client) of a script, whose session is a member of the lobby."""
    (tmp_path / "x.js").write_text(SCRIPT)
    broker = RedisBroker(f"{redis.url}?socket_timeout=1000", max_queued_bytes=1_000_000)
    app = WebSocketApp(broker=broker, shutdown_timeout_s=1, script_timeout_s=100)
    app.add_script("/ws/x", tmp_path / "x.js")
    url = serve(app).ws_url + "/ws/x"
    with connect(url) as client, connect(url) as other:
        assert receive(client) == receive(other) == "in"
        yield app, client, other
        redis.thaw()


def test_a_scripts_broadcast_never_waits(redis, script, monkeypatch):
    app, client, other = script
    for module, name in [(availability, "WAIT_S"), (pending, "LONGEST_S")]:
        monkeypatch.setattr(module, name, 1000.0)  # so that what waits at all waits for ever
    redis.freeze()
    client.send(json.dumps(["broadcast"] * 5 + ["broadcastExcept"] * 5))
    wait_until(lambda: app.metrics.snapshot().get("broker_refused", 0) == 9, "the end of all calls")
    redis.thaw()
    assert receive(other) == "x" * 900_000


@pytest.mark.parametrize("call", ["join", "leave", "members", "send", "close", "broadcast", "broadcastExcept"])
def test_no_call_of_a_script_stops_the_others_for_longer_than_a_second(redis, script, call):
    """Nor do many calls together."""
    _, client, other = script
    redis.freeze()
    client.send(json.dumps(["broadcast"] + [call] * 5))
    begun = time.monotonic()
    other.send(json.dumps(["send"]))
    assert receive(other) == "x"
    assert time.monotonic() - begun < BOUND_S
    redis.thaw()
