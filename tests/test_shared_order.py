"""Over Redis: the order of what one call sends to one session, and what is held meanwhile."""

import contextlib
import random
import threading
import time

import pytest

from tests.redis_proxy import Proxy
from tests.room_worlds import RedisWorld
from tests.wire import CLOSE, TEXT, RawClient, close_payload, endpoint, frame, run_all, serving
from wsthreads import RedisBroker, create_app


class Handler:
    """What the script below does. A message is a size and a count."""

    def on_open(self, session):
        session.room("all").join()
        session.room(session.id).join()

    def on_message(self, session, message):
        size, count = map(int, message.split())
        session.room(session.id).broadcast("own")
        for n in range(count):
            session.send(f"{n} " + "x" * size)
        session.room("all").broadcast_except("except")
        session.room("all").broadcast("all")
        session.send("end")


SCRIPT = """
export function onOpen(session) {
    session.room("all").join();
    session.room(session.id).join();
}
export function onMessage(session, message) {
    const [size, count] = message.split(" ").map(Number);
    session.room(session.id).broadcast("own");
    for (let n = 0; n < count; n++) session.send(n + " " + "x".repeat(size));
    session.room("all").broadcastExcept("except");
    session.room("all").broadcast("all");
    session.send("end");
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


def talk(client, size, count):
    """What arrives of one call, without what others broadcast; the texts without their filler."""
    client.text(f"{size} {count}")
    found = []
    while not found or found[-1] != "end":
        text = client.receive_text().split(" ")[0]
        if text not in ("all", "except"):
            found.append(text)
    return found


def in_order(count):
    return ["own", *map(str, range(count)), "end"]


@pytest.fixture
def proxy(redis_server):
    with Proxy(redis_server.port) as proxy:
        yield proxy


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


def test_each_session_s_calls_are_in_order_where_several_call_at_once(broker, serve_over):
    def client(port):
        with RawClient(port) as client:
            for _ in range(50):
                assert talk(client, 1, 20) == in_order(20)

    with serve_over(broker) as (_, port):
        run_all(*[lambda: client(port)] * 5)


@pytest.mark.parametrize("pause_s", [0, 0.02])
def test_what_is_held_does_not_have_a_fast_client_closed(proxy, broker, serve_over, pause_s):
    proxy.pause_s = pause_s
    with serve_over(broker) as (app, port), RawClient(port) as client:
        for _ in range(3):
            assert talk(client, 65536, 300) == in_order(300)
        assert "slow_sessions_closed" not in app.metrics.snapshot()


@pytest.mark.parametrize(
    ("last", "code"),
    [(frame(CLOSE, close_payload(1000)), 1000), (frame(TEXT, masked=False), 1002)],
    ids=["closes", "breaks-rules"],
)
def test_an_answer_reaches_a_client_that_ends_the_session_right_behind_its_message(broker, serve_over, last, code):
    """And so does what was broadcast to its own rooms."""
    with serve_over(broker) as (_, port), RawClient(port) as client:
        client.sock.sendall(frame(TEXT, "1 1") + last)
        assert [client.receive_text() for _ in range(4)] == ["own", "0 x", "all", "end"]
        assert client.receive_close()[0] == code
        if code == 1002:
            client.send(CLOSE, close_payload(code))
        assert client.at_end()
