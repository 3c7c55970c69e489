"""A client that comes back to its session while all places are taken, or all of its address."""

import sys
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.programs import DEADLINE_S, Program, wait_until
from tests.sessions.test_resume import Story, World
from tests.speakers import OFFER, Speaker
from tests.wire import CLOSE, RawClient, close_payload, endpoint
from wsthreads import Client

FULL = "all 1 places for sessions are taken (max_sessions, or --threads minus the threads reserved for HTTP)"
ADDRESS_FULL = "127.0.0.1 already has 1 sessions, the limit of max_sessions_per_address"
LIMITS = {"max_sessions": (503, "full", FULL), "max_sessions_per_address": (429, "address_full", ADDRESS_FULL)}


class Full(World):
    """With one place, or one for each address."""

    def __init__(self, app, port, handler, limit):
        super().__init__(app, port, handler)
        self.status, self.cause, self.reason = LIMITS[limit]

    def wait_taken(self, count):
        wait_until(lambda: self.app._admission.taken == count, f"{count} taken places")

    def is_full_for(self, headers=()):
        """Whether a handshake with these headers is refused with the status of the limit, and the limit's text."""
        with RawClient(self.port, headers=headers) as client:
            return client.status == self.status and client.body().strip().endswith(self.reason)


@contextmanager
def serve(limit, **settings):
    handler = Story()
    with endpoint(handler, **{"resume_s": 60, limit: 1, **settings}) as (app, port):
        yield Full(app, port, handler, limit)


@pytest.fixture(params=LIMITS)
def world(request):
    with serve(request.param) as world:
        yield world


def heir_of(client):
    """The same client by another connection, while the first one stays open: a half-open one, for the server."""
    heir = Speaker(client.port)
    heir.token, heir.received, heir.sent = client.token, client.received, client.sent
    return heir


def test_a_client_whose_own_dead_connection_has_the_last_place_comes_back(world):
    with Speaker(world.port).begin() as client, heir_of(client) as heir:
        world.wait_for("open")
        assert heir.come_back().resumed
        assert client.wire.at_end()
        world.wait_taken(1)
        heir.send("two")
        assert heir.next() == "echo two"
        assert world.is_full_for()


def test_a_client_comes_back_although_others_have_taken_its_place_and_they_stay(world):
    with Speaker(world.port).begin() as client:
        client.lose()
        world.wait_suspended()
        world.wait_taken(0)
        with RawClient(world.port) as newcomer:
            newcomer.text("hello")
            assert newcomer.receive_text() == "echo hello"
            assert client.come_back().resumed
            newcomer.text("still here")
            assert newcomer.receive_text() == "echo still here"
            client.send("two")
            assert client.next() == "echo two"
            assert world.is_full_for()
            assert world.is_full_for(OFFER), "one place beyond the limit, and no second one"
            newcomer.leave()
        world.wait_taken(1)
        assert world.is_full_for()
        client.leave()
        world.wait_taken(0)


def test_a_new_session_gets_no_place_beyond_the_limit(world, caplog):
    caplog.set_level("INFO", "wsthreads")
    with RawClient(world.port) as plain:
        plain.text("hello")
        assert plain.receive_text() == "echo hello"
        for token in (None, "i" * 22 + "." + "s" * 22):
            with Speaker(world.port).open() as client:
                client.hello(token)
                assert client.is_refused() == (1013, world.reason)
                client.wire.send(CLOSE, close_payload(1013))
            world.wait_taken(1)
    assert world.handler.calls[:2] == ["open", "hello"]
    assert world.handler.calls.count("open") == 1
    assert world.endpoint.totals().refused == {(101, world.cause): 2}
    assert world.app.metrics.snapshot()["handshakes_refused_101"] == 2
    refused = "handshake on /ws/test from 127.0.0.1 refused: connection opened (101) and closed with 1013"
    assert f"{refused} {world.reason}" in caplog.text


def test_one_client_at_a_time_may_say_whether_it_comes_back(world):
    with Speaker(world.port).begin() as client, heir_of(client) as heir, Speaker(world.port).open() as silent:
        assert world.is_full_for(OFFER)
        silent.lose()
        world.wait_taken(1)
        assert heir.come_back().resumed


def test_a_new_session_begins_where_a_place_has_become_free_before_the_hello(world):
    with RawClient(world.port) as plain, Speaker(world.port).open() as client:
        world.wait_taken(2)
        plain.leave()
        world.wait_taken(1)
        client.hello()
        assert not client.greet().resumed
        client.send("hello")
        assert client.next() == "echo hello"


def test_without_resume_s_there_is_no_place_beyond_the_limit():
    with serve("max_sessions", resume_s=0) as world, RawClient(world.port):
        world.wait_taken(1)
        assert world.is_full_for(OFFER)


def test_a_client_that_was_refused_by_its_hello_tries_again(world):
    with RawClient(world.port) as plain, Client(f"ws://127.0.0.1:{world.port}/ws/test", min_delay_s=0.05) as client:
        client.send("hello")
        wait_until(lambda: world.endpoint.totals().refused.get((101, world.cause)), "a refusal")
        plain.leave()
        assert client.receive(timeout=DEADLINE_S) == "echo hello"


PROGRAM = """
from wsthreads import WebSocketApp

class Echo:
    def on_message(self, session, message):
        session.send(message)

app = WebSocketApp(resume_s=60)
app.add_handler("/ws/test", Echo())
"""


@contextmanager
def gunicorn(worker, threads, folder):
    (folder / "echoapp.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "gunicorn", "-k", worker, "--threads", str(threads), "-w", "1"]
    command += ["--bind", "127.0.0.1:0", "--pythonpath", str(folder), "echoapp:app"]
    with Program(command) as server:
        yield int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])


def let_in(port):
    """A client that has got a place, or None."""
    client = RawClient(port)
    if client.status == 101:
        return client
    client.sock.close()
    return None


@pytest.mark.parametrize("worker", ["gthread", "wsthreads.gunicorn.ThreadWorker"])
def test_under_gunicorn_a_client_that_comes_back_leaves_a_thread_for_http(tmp_path, worker):
    with gunicorn(worker, 3, tmp_path) as port, Speaker(port).begin() as client, heir_of(client) as heir:
        assert heir.come_back().resumed
        assert client.wire.at_end()
        heir.wire.send(CLOSE, close_payload(4901))
        assert heir.receive_close()[0] == 4901
        heir.lose()
        with wait_until(lambda: let_in(port), "the place") as newcomer:
            assert heir.come_back().resumed
            with pytest.raises(HTTPError, match="404"):
                urlopen(f"http://127.0.0.1:{port}/", timeout=DEADLINE_S)
            with RawClient(port, headers=OFFER) as another:
                assert another.status == 503
            newcomer.leave()
