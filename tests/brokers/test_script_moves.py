"""Sessions of scripts that go on in another process."""

import gc
from contextlib import ExitStack

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.redis_server import RedisServer
from tests.speakers import Speaker
from tests.wire import serving
from wsthreads import RedisBroker, WebSocketApp
from wsthreads.protocol import envelope

SCRIPT = """
export function onOpen(session) {
  session.setAttribute("n", 1);
  session.room("lobby").join();
  session.send("open");
}
export async function onMessage(session, message) {
  if (message === "date") session.setAttribute("date", new Date());
  if (message === "function") session.setAttribute("f", () => 1);
  session.setAttribute("n", session.getAttribute("n") + 1);
  if (message === "wait") { session.send("waits"); await new Promise((done) => setTimeout(done, 60_000)); }
  await null;
  session.send(`${message} ${session.getAttribute("n")} ${session.rooms()}`);
}
export function onRequest(session, message) {
  return message === "late" ? new Promise((done) => setTimeout(() => done("late"), 300)) : `re ${message}`;
}
export function onResume(session) { session.send(`resumed ${JSON.stringify(session.getAttributes())}`); }
export function onClose(session, code, reason) { session.room("log").broadcast(`closed ${code} ${reason}`); }
"""

RETURNS = (
    SCRIPT
    + """
export function onSuspend(session) { return { n: 100, kept: [1, { a: null }] }; }
"""
)


@pytest.fixture(scope="module")
def redis():
    with RedisServer() as server:
        yield server


@pytest.fixture
def ports(redis, tmp_path):
    """Makes two servers of a script. Returns their apps and ports."""
    with ExitStack() as stack:
        redis.client.flushall()

        def make(source=SCRIPT):
            found = []
            for number in range(2):
                path = tmp_path / f"{number}.js"
                path.write_text(source)
                app = WebSocketApp(broker=RedisBroker(redis.url), resume_s=60, ping_interval_s=0)
                app.add_script("/ws/test", path)
                found.append((app, stack.enter_context(serving(app))))
            return found

        yield make


def move(client, port):
    return client.go_to(port).greet()


def test_a_session_of_a_script_goes_on_in_another_process_with_its_attributes(ports):
    (old, old_port), (new, new_port) = ports()
    with Speaker(old_port).begin() as client:
        assert client.next() == "open"
        client.send("a")
        assert client.next() == "a 2 lobby"
        client.lose()
        assert move(client, new_port).resumed
        assert client.next() == 'resumed {"n":2}'
        client.send("b")
        assert client.next() == "b 3 lobby"
        client.lose()
        assert move(client, old_port).resumed
        assert client.next() == 'resumed {"n":3}'
        client.ask(1, "x")
        assert client.next() == envelope.Reply(1, "re x")
        assert len(new.endpoint("/ws/test").sessions()) == 0
        assert len(old.endpoint("/ws/test").sessions()) == 1


def test_what_on_suspend_returns_goes_along_in_place_of_the_attributes(ports):
    (_, old_port), (_, new_port) = ports(RETURNS)
    with Speaker(old_port).begin() as client:
        assert client.next() == "open"
        client.send("function")
        assert client.next() == "function 2 lobby"
        client.lose()
        assert move(client, new_port).resumed
        assert client.next() == 'resumed {"n":100,"kept":[1,{"a":null}]}'


def test_an_attribute_that_is_not_json_ends_the_session_and_its_client_is_told(ports):
    (old, old_port), (_, new_port) = ports()
    with Speaker(old_port).begin() as client:
        assert client.next() == "open"
        client.send("function")
        assert client.next() == "function 2 lobby"
        client.lose()
        welcome = move(client, new_port)
        assert (welcome.resumed, welcome.why) == (False, "elsewhere")
        wait_until(lambda: not old.endpoint("/ws/test").sessions(), "the end in the old process")


def test_a_request_that_a_script_answers_later_is_answered_before_the_session_moves(ports):
    (_, old_port), (_, new_port) = ports()
    with Speaker(old_port).begin() as client:
        assert client.next() == "open"
        client.ask(1, "late")
        client.put(envelope.heartbeat(client.received))
        assert client.take() == envelope.Ack(client.sent)
        client.lose()
        assert move(client, new_port).resumed
        assert client.next() == envelope.Reply(1, "late")
        assert client.next() == 'resumed {"n":1}'


def test_a_script_that_shuts_down_hands_its_sessions_over(ports):
    (old, old_port), (_, new_port) = ports()
    with Speaker(old_port).begin() as client:
        assert client.next() == "open"
        client.send("a")
        assert client.next() == "a 2 lobby"
        old.shutdown(DEADLINE_S, 1012, "restart")
        assert client.receive_close() == (1012, "restart")
        assert move(client, new_port).resumed
        assert client.next() == 'resumed {"n":2}'


def test_a_session_whose_function_waits_beyond_the_shutdown_is_in_the_log(ports, caplog):
    (old, old_port), _ = ports()
    with Speaker(old_port).begin() as client:
        assert client.next() == "open"
        client.send("wait")
        assert client.next() == "waits"
        old.shutdown(2, 1012, "restart")
        assert client.receive_close() == (1012, "restart")
    assert "1 session of /ws/test could not move to another process: a function of the handler" in caplog.text


def test_a_script_keeps_nothing_of_a_session_that_has_moved(ports):
    (old, old_port), (_, new_port) = ports()
    handler = old.endpoint("/ws/test").handler
    for _ in range(3):
        with Speaker(old_port).begin() as client:
            assert client.next() == "open"
            client.lose()
            assert move(client, new_port).resumed
            assert client.next() == 'resumed {"n":1}'
            client.leave()
    gc.collect()
    wait_until(lambda: not handler._isolate._states, "no session left in the script")
