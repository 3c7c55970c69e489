"""Over Redis: the order of what one call sends to one session, and what is held meanwhile."""

import contextlib
import json
import random
import threading
import time

import pytest

from tests.room_worlds import RedisWorld
from tests.wire import CLOSE, TEXT, RawClient, close_payload, endpoint, frame, run_all, serving
from wsthreads import RedisBroker, create_app


class Handler:
    """Does what a message says, a list of calls. The script below does the same."""

    def on_open(self, session):
        session.room(session.id).join()

    def on_message(self, session, message):
        own, shared = session.room(session.id), session.room("shared")
        for name, text, size in json.loads(message):
            if name == "send":
                session.send(text + " " + "x" * size)
            elif name == "close":
                session.close(size, text)
            elif name == "own":
                own.broadcast(text)
            elif name in ("join", "leave"):
                getattr(shared, name)()
            else:
                getattr(shared, name)(text)


SCRIPT = """
export function onOpen(session) {
    session.room(session.id).join();
}
export function onMessage(session, message) {
    const own = session.room(session.id), shared = session.room("shared");
    for (const [name, text, size] of JSON.parse(message)) {
        if (name === "send") session.send(text + " " + "x".repeat(size));
        else if (name === "close") session.close(size, text);
        else if (name === "own") own.broadcast(text);
        else if (name === "join" || name === "leave") shared[name]();
        else shared[name === "broadcast_except" ? "broadcastExcept" : name](text);
    }
}
"""


@pytest.fixture(params=["python", "script"])
def serve_over(request, tmp_path):
    """(app, port) of a server with one of these handlers, over a broker."""
    path = tmp_path / "order.js"
    path.write_text(SCRIPT)

    @contextlib.contextmanager
    def serve(broker):
        if request.param == "python":
            with endpoint(Handler(), broker=broker) as served:
                yield served
        else:
            app = create_app(path, path="/ws/test", broker=broker, ping_interval_s=0)
            with serving(app) as port:
                yield app, port

    return serve


def calls(*calls):
    """The frame of a message."""
    return frame(TEXT, json.dumps([(*call, 0)[:3] if len(call) > 1 else (*call, "", 0) for call in calls]))


def receive(client, count):
    return [client.receive_text().strip(" x") for _ in range(count)]


@pytest.fixture
def broker(proxy):
    """Each of its answers takes a while."""
    proxy.pause_s = 0.02
    return RedisBroker(proxy.url, prefix=f"order-{random.randrange(2**32)}")


@pytest.mark.parametrize(("others", "size"), [(4, 200_000), (8, 100)])
def test_what_one_call_sends_stays_in_order_beside_others_that_broadcast(redis_server, others, size):
    """A `broadcast`, then 200 `send`s, while other threads broadcast to other rooms without a pause."""
    world = RedisWorld(redis_server.url, prefix=f"order-{random.randrange(2**32)}", processes=1)
    member, done = world.member("own"), threading.Event()
    loud = [world.member(f"loud {n}") for n in range(others)]

    def shout(n):
        while not done.is_set():
            loud[n].session.room(f"loud {n}").broadcast("x" * size)
            loud[n].session.send("and this")
            loud[n].receive(2)

    def call():
        room = member.session.room("own")
        try:
            for _ in range(20):
                room.broadcast("first")
                for n in range(200):
                    member.session.send(f"{n}")
                    time.sleep(5e-5)  # so that broadcasts of the others are back in between
                assert member.receive(201) == ["first", *map(str, range(200))]
        finally:
            done.set()

    try:
        run_all(call, *[lambda n=n: shout(n) for n in range(others)])
    finally:
        world.end()


@pytest.mark.parametrize("pause_s", [0, 0.001])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_the_order_of_calls_does_not_depend_on_rooms_that_the_session_joins_meanwhile(proxy, elsewhere, pause_s):
    """One thread broadcasts and sends; another has the session join rooms that nobody else in its process is in."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice, proxy.pause_s = random.Random(seed), pause_s
    world, done = RedisWorld(proxy.url, prefix=f"order-{seed}", processes=2), threading.Event()
    here, there = world.all_rooms
    member = world.member("blue", of=here)
    caller = (world.member(of=there) if elsewhere else member).session
    others, calls = ["red", "green"], []

    def join():
        joining = random.Random(seed + 1)
        while not done.is_set():
            room = member.session.room(joining.choice(others))
            room.join()
            time.sleep(joining.choice([0, 0.001, 0.003]))
            room.leave()
            time.sleep(joining.choice([0, 0.001, 0.003]))

    def call():
        try:
            for n in range(300):
                for k in range(4):
                    name = dice.choice(["blue", "blue", *others, "" if not elsewhere else "blue"])
                    calls.append(f"{n}.{k} {name}")
                    if name:
                        caller.room(name).broadcast(calls[-1])
                    else:
                        caller.send(calls[-1])
                time.sleep(dice.choice([0, 0.0003, 0.001]))
        finally:
            done.set()

    try:
        run_all(call, join)
        caller.room("blue").broadcast("end")
        found = member.receive_until("end")[:-1]
        assert found == [text for text in calls if text in set(found)]
        assert {text for text in calls if not text.endswith(tuple(others))} <= set(found)
    finally:
        world.end()


def random_calls(dice, tag, joined):
    """Calls, what of them arrives at their own session, and whether it is in the shared room then."""
    done, expected = [], []
    for n in range(dice.randrange(1, 15)):
        name = dice.choice(["send", "send", "send", "own", "broadcast", "broadcast_except", "join", "leave"])
        text = f"{tag}.{n}"
        done.append((name, text, dice.choice([0, 0, 3000, 70_000])))
        if name in ("send", "own") or (name == "broadcast" and joined):
            expected.append(text)
        joined = name == "join" or (joined and name != "leave")
    return done, expected, joined


def test_each_session_gets_what_its_calls_send_in_order_whoever_else_broadcasts_joins_and_leaves(broker, serve_over):
    """And all of it before the close frame, whoever closes."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")

    def client(port, k):
        dice = random.Random(seed + k)
        for life in range(6):
            data, expected, joined = b"", [], False
            for call in range(dice.randrange(1, 6)):
                done, more, joined = random_calls(dice, f"{k}.{life}.{call}", joined)
                data, expected = data + calls(*done), expected + more
            code = dice.choice([1000, 4000])
            data += frame(CLOSE, close_payload(1000)) if code == 1000 else calls(("close", "", code))
            with RawClient(port) as client:
                client.sock.sendall(data)
                found = []
                while (message := client.receive())[0] == TEXT:
                    found.append(message[1].decode().strip(" x"))
                assert message == (CLOSE, close_payload(code))
                assert [text for text in found if text.startswith(f"{k}.{life}.")] == expected

    with serve_over(broker) as (_, port):
        run_all(*[lambda k=k: client(port, k) for k in range(6)])


@pytest.mark.quiet  # a client that gets no core is not fast
@pytest.mark.parametrize(
    ("serve_over", "pause_s"), [("python", 0), ("python", 0.02), ("script", 0.5)], indirect=["serve_over"]
)
def test_what_is_held_does_not_have_a_fast_client_closed(proxy, broker, serve_over, pause_s):
    """A script's `send` does not wait for the client. So all of its messages are held: none may come after them."""
    with serve_over(broker) as (app, port), RawClient(port) as client:
        proxy.pause_s = pause_s
        for _ in range(3):
            client.sock.sendall(calls(("own", "own"), *[("send", f"{n}", 65536) for n in range(300)], ("send", "end")))
            assert receive(client, 302) == ["own", *map(str, range(300)), "end"]
        assert "slow_sessions_closed" not in app.metrics.snapshot()


@pytest.mark.parametrize(
    ("last", "code"),
    [(frame(CLOSE, close_payload(1000)), 1000), (frame(TEXT, masked=False), 1002)],
    ids=["closes", "breaks-rules"],
)
def test_an_answer_reaches_a_client_that_ends_the_session_right_behind_its_message(broker, serve_over, last, code):
    """And so does what was broadcast to its own rooms."""
    with serve_over(broker) as (_, port), RawClient(port) as client:
        message = calls(("join",), ("own", "first"), ("send", "answer"), ("broadcast", "last"))
        client.sock.sendall(message + last)
        assert receive(client, 3) == ["first", "answer", "last"]
        assert client.receive_close()[0] == code
        if code == 1002:
            client.send(CLOSE, close_payload(code))
        assert client.at_end()
