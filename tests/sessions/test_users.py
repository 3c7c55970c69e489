"""Users over real sockets: the handshake, kicks and bans, and the races between them."""

import gc
import random
import sys
import threading
from contextlib import suppress
from functools import partial

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import CLOSE, TEXT, Echo, RawClient, close_payload, endpoint, run_all
from wsthreads import Refusal, UsageError


class Users(Echo):
    """The query names the user. Keeps what was called, by session id."""

    def __init__(self):
        super().__init__()
        self.calls = []
        self.then = lambda function: None  # what else is done in each function
        self.is_banned, self.slipped_through = False, []

    def on_handshake(self, request):
        request.user = request.get_parameter("user")
        self.then("on_handshake")
        if request.get_parameter("refuse"):
            return Refusal(4003, "no")
        return None

    def on_open(self, session):
        if self.is_banned and session.is_open():
            self.slipped_through.append(session)
        self.calls.append(("open", session))
        session.send(f"hello {session.user}")
        self.then("on_open")

    def on_message(self, session, message):
        super().on_message(session, message)
        self.then("on_message")

    def on_close(self, session, code, reason):
        self.calls.append(("close", session))
        super().on_close(session, code, reason)
        self.then("on_close")

    def of(self, call):
        return [session for name, session in self.calls if name == call]


@pytest.fixture
def users():
    handler = Users()
    with endpoint(handler, close_timeout_s=5, max_sessions=2000) as (handler.app, handler.port):
        handler.endpoint = handler.app.endpoint("/ws/test")
        yield handler


@pytest.fixture
def frequent_switches():
    """Threads take turns much more often, so that races are met."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def connect(users, user="ann", **parameters):
    query = "&".join(f"{key}={value}" for key, value in {"user": user, **parameters}.items())
    return RawClient(users.port, f"/ws/test?{query}")


def ended(users):
    wait_until(lambda: not users.app.session_count, "all to be gone")
    assert not users.endpoint.session_count()
    assert not users.endpoint.user_count()


def test_a_session_has_the_user_of_its_handshake_and_is_reached_by_it(users):
    with connect(users) as ann, connect(users) as again, connect(users, "bob") as bob:
        assert ann.receive_text() == again.receive_text() == "hello ann"
        assert bob.receive_text() == "hello bob"
        assert users.endpoint.user_count() == 2
        assert users.endpoint.session_count() == 3
        users.endpoint.user("ann").send("one")
        assert ann.receive_text() == again.receive_text() == "one"
        (bobs,) = [session for session in users.of("open") if session.user == "bob"]
        peer = users.endpoint.session(bobs.id)
        peer.send("two")
        assert bob.receive_text() == "two"
        peer.close(4001, "bye")
        assert bob.receive() == (CLOSE, close_payload(4001, "bye"))
        users.endpoint.user("ann").close(4002)
        assert ann.receive() == again.receive() == (CLOSE, close_payload(4002))
        for client in (ann, again, bob):
            client.send(CLOSE, close_payload(1000))
    ended(users)
    assert not peer.is_open()
    assert users.endpoint.totals().counters["kicks"] == 3


def test_a_session_without_a_user_has_none(users):
    with RawClient(users.port) as client:
        assert client.receive_text() == "hello None"
        assert not users.endpoint.user_count()


@pytest.mark.parametrize("user", ["", "x" * 257])
def test_a_handshake_with_a_bad_user_fails(users, user, caplog):
    with connect(users, user) as client:
        assert client.status == 500
    assert "the name of a user must be text of 1 to 256 characters, not " in caplog.text
    ended(users)
    assert users.calls == []


def test_a_banned_user_is_refused_with_403_until_the_ban_ends(users):
    clock = users.endpoint.directory.bans.clock = lambda: clock.now
    clock.now = 0.0
    with connect(users) as ann:
        assert ann.receive_text() == "hello ann"
        users.endpoint.user("ann").close(4001, "bye", ban_s=60)
        assert ann.receive() == (CLOSE, close_payload(4001, "bye"))
    for clock.now in (0.0, 59.9):
        with connect(users) as ann:
            assert ann.status == 403
            assert ann.body() == "banned\n"
    with connect(users, "bob") as bob:
        assert bob.receive_text() == "hello bob"
    clock.now = 60.0
    with connect(users) as ann:
        assert ann.receive_text() == "hello ann"
    ended(users)
    assert users.endpoint.totals().refused == {(403, "banned"): 2}
    assert len(users.of("open")) == 3 == len(users.of("close"))


def test_what_the_handler_decides_comes_before_a_ban(users):
    users.endpoint.user("ann").close(4001, ban_s=60)
    with connect(users, refuse="1") as ann:
        assert ann.status == 101
        assert ann.receive() == (CLOSE, close_payload(4003, "no"))


def test_a_ban_between_the_handshake_and_the_session_closes_it_before_it_is_opened(users):
    directory, join = users.endpoint.directory, users.endpoint.rooms.join

    def late(name, session):
        users.endpoint.user("ann").close(4001, "bye", ban_s=60)
        assert directory.ban_of("ann")
        join(name, session)

    users.endpoint.rooms.join = late
    with connect(users) as ann:
        assert ann.status == 101
        assert ann.receive() == (CLOSE, close_payload(4001, "bye"))
        assert not users.endpoint.sessions()
        assert not users.endpoint.user("ann").sessions()
        ann.send(CLOSE, close_payload(4001))
        with suppress(EOFError):
            ann.receive()
    ended(users)
    assert users.calls == []
    totals = users.endpoint.totals()
    assert totals.refused == {(101, "banned"): 1}
    assert totals.opened == 0


def test_a_shutdown_reaches_a_session_that_waits_to_become_its_users(users):
    entered, go_on = threading.Event(), threading.Event()
    join = users.endpoint.rooms.join

    def slow(name, session):
        entered.set()
        assert go_on.wait(DEADLINE_S)
        join(name, session)

    users.endpoint.rooms.join = slow
    with connect(users) as ann:
        assert entered.wait(DEADLINE_S)
        assert len(users.endpoint.connections()) == 1
        users.app._shutdown.begin(5, 1001, "bye")
        assert ann.receive() == (CLOSE, close_payload(1001, "bye"))
        go_on.set()
        ann.send(CLOSE, close_payload(1001))
    ended(users)
    assert not users.endpoint.connections()


@pytest.mark.parametrize("hook", ["on_open", "on_message", "on_close", "on_handshake"])
def test_a_user_may_be_kicked_from_within_each_function(users, hook):
    """By a session of the same user."""
    kicked = []

    def kick(function):
        if function == hook and len(users.of("open")) > 1 and not kicked:
            kicked.append(True)
            users.endpoint.user("ann").close(4001, "bye", ban_s=60)

    users.then = kick
    with connect(users) as other, connect(users) as ann:
        assert other.receive_text() == ann.receive_text() == "hello ann"
        if hook == "on_message":
            ann.text("hi")
            assert ann.receive_text() == "hi"
        if hook == "on_close":
            ann.send(CLOSE, close_payload(1000))
            assert ann.receive() == (CLOSE, close_payload(1000))
        elif hook == "on_handshake":
            with connect(users) as third:
                assert third.status == 403
            assert ann.receive() == (CLOSE, close_payload(4001, "bye"))
        else:
            assert ann.receive() == (CLOSE, close_payload(4001, "bye"))
        assert other.receive() == (CLOSE, close_payload(4001, "bye"))
    ended(users)
    assert sorted(map(id, users.of("open"))) == sorted(map(id, users.of("close")))


@pytest.mark.parametrize("nth", range(3))
def test_kicks_while_the_user_connects_again_and_again_from_five_places(users, nth, frequent_switches):
    """None gets in while banned, and none is left over. Some stay until they are closed, some come and go."""
    print(f"seed {(seed := random.randrange(2**32))}")
    clock = users.endpoint.directory.bans.clock = lambda: clock.now
    clock.now = 0.0
    stop, refused = threading.Event(), threading.Semaphore(0)

    def come_again(stays):
        while not stop.is_set():
            with suppress(EOFError, ConnectionError), connect(users) as ann:
                if ann.status == 403:
                    refused.release()
                    continue
                opcode, payload = ann.receive()
                while stays and opcode != CLOSE:
                    opcode, payload = ann.receive()
                assert (opcode, payload) in ((CLOSE, close_payload(4001, "bye")), (TEXT, b"hello ann"))

    def kick():
        rng = random.Random(seed)
        try:
            for _ in range(8):
                enough = len(users.of("open")) + rng.randrange(3, 30)
                wait_until(lambda enough=enough: len(users.of("open")) > enough, "some sessions")
                users.endpoint.user("ann").close(4001, "bye", ban_s=60)
                users.is_banned = True
                wait_until(lambda: not users.endpoint.session_count(), "none to be left over")
                for _ in range(10):
                    assert refused.acquire(timeout=DEADLINE_S)
                assert not users.slipped_through
                assert not users.endpoint.session_count()
                users.is_banned = False
                clock.now += 60
        finally:
            users.endpoint.user("ann").close(4001, "bye", ban_s=1e6)
            stop.set()

    run_all(*[partial(come_again, place < 2) for place in range(5)], kick)
    ended(users)
    assert not users.endpoint.user("ann").is_online()
    assert sorted(map(id, users.of("open"))) == sorted(map(id, users.of("close")))


def test_a_user_with_a_thousand_sessions_is_kicked_with_all_of_them(users):
    clients = [connect(users) for _ in range(1000)]
    try:
        for client in clients:
            assert client.receive_text() == "hello ann"
        users.endpoint.user("ann").send("hi")
        for client in clients:
            assert client.receive_text() == "hi"
        assert len(users.endpoint.user("ann").sessions()) == 1000
        users.endpoint.user("ann").close(4001, ban_s=60)
        for client in clients:
            assert client.receive() == (CLOSE, close_payload(4001))
    finally:
        for client in clients:
            client.sock.close()
    ended(users)


def test_while_on_close_runs_the_session_belongs_to_the_user_and_does_not_count_as_online(users):
    seen = []

    def look(function):
        user = users.endpoint.user("ann")
        seen.append((function, users.endpoint.rooms.users(), user.is_online()))
        if function == "on_close":
            user.send("for the others")

    users.then = look
    with connect(users) as ann:
        assert ann.receive_text() == "hello ann"
        wait_until(lambda: len(seen) == 2, "the end of on_open")
        with connect(users) as again:
            assert again.receive_text() == "hello ann"
            wait_until(lambda: len(seen) == 4, "the end of on_open")
        assert ann.receive_text() == "for the others"
        wait_until(lambda: users.endpoint.rooms.users() == {"ann": 1}, "the end of on_close")
    ended(users)
    assert seen == [
        ("on_handshake", {}, False),
        ("on_open", {"ann": 1}, True),
        ("on_handshake", {"ann": 1}, True),
        ("on_open", {"ann": 2}, True),
        ("on_close", {"ann": 2}, True),
        ("on_close", {"ann": 1}, False),
    ]


def test_a_session_knows_its_endpoint(users):
    with connect(users) as ann:
        assert ann.receive_text() == "hello ann"
        (session,) = users.of("open")
        assert session.endpoint is users.endpoint
        session.endpoint.user("ann").send("hi")
        assert ann.receive_text() == "hi"


def test_a_session_that_is_kept_longer_than_its_app_has_no_endpoint():
    handler = Users()
    with endpoint(handler) as (_, port), RawClient(port, "/ws/test?user=ann") as ann:
        assert ann.receive_text() == "hello ann"
    del _
    (session,) = handler.of("open")
    gc.collect()
    with pytest.raises(UsageError, match="its app does not exist"):
        _ = session.endpoint
