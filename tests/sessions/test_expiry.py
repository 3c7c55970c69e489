"""The expiry of a session: when it is closed, and what that is to its presence."""

from __future__ import annotations

import datetime
import gc
import logging
import threading
import weakref
from contextlib import contextmanager
from time import time

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.wire import CLOSE, RawClient, close_payload, endpoint
from wsthreads import ExpiryError, HandshakeRefused, Request
from wsthreads.sessions import expiry
from wsthreads.testing import play
from wsthreads.testing.timers import ManualTimers

MINUTE_S = 60


class Guard:
    """The token is a number of seconds from now."""

    def __init__(self):
        self.ended = []
        self.session = None

    def on_handshake(self, request):
        left_s = request.get_parameter("left")
        if left_s is not None:
            request.set_expiry(time() + float(left_s))
        request.user = request.get_parameter("user")

    def on_open(self, session):
        self.session = session
        session.room("lobby").join(presence="here")

    def on_message(self, session, message):
        if message == "close 3000":
            session.close(3000, "expired")
        else:
            session.set_expiry(time() + float(message))

    def on_close(self, session, code, reason):
        self.ended.append((code, reason, session.is_open()))


@pytest.fixture
def guard():
    return Guard()


def test_a_session_is_closed_with_3000_when_it_has_expired(guard):
    with play(guard) as world:
        ann, bob, eve = world.connect(left="90"), world.connect(left="150"), world.connect()
        assert abs(ann.session.expires_at - time() - 90) < DEADLINE_S
        assert eve.session.expires_at is None
        world.advance(90 - DEADLINE_S)
        assert ann.is_open
        world.advance(DEADLINE_S)
        assert ann.closed == (3000, "expired")
        assert guard.ended == [(3000, "expired", False)]
        world.advance(60 - DEADLINE_S)
        assert bob.is_open
        world.advance(DEADLINE_S)
        assert bob.closed == (3000, "expired")
        world.advance(10**7)
        assert eve.is_open


def test_over_a_real_connection(guard):
    with endpoint(guard) as (app, port):
        with RawClient(port, "/ws/test?left=3600") as client:
            assert client.status == 101
            client.text("0.2")  # in the handshake, so short a time might be over before the 101
            assert client.receive_close() == (3000, "expired")
            client.send(CLOSE, close_payload(3000))
        wait_until(lambda: guard.ended == [(3000, "expired", False)], "on_close")
        wait_until(lambda: app.endpoint("/ws/test").totals().closed == {3000: 1}, "the count")


def test_a_later_call_moves_it_both_ways(guard):
    with play(guard) as world:
        ann = world.connect(left="90")
        ann.send("300")
        world.advance(300 - DEADLINE_S)
        assert ann.is_open
        ann.send("1000")
        ann.send("2")
        world.advance(2)
        assert ann.closed == (3000, "expired")
        bob = world.connect()
        bob.send("100")
        world.advance(100)
        assert bob.closed == (3000, "expired")


def test_a_time_that_is_over_closes_at_once(guard):
    with play(guard) as world:
        ann = world.connect()
        ann.send("-1")
        assert ann.closed == (3000, "expired")
        ann.session.set_expiry(time() + 10)  # nothing happens
        world.advance(10)
    assert guard.ended == [(3000, "expired", False)]
    bob = Guard()
    with play(bob) as world:
        client = world.connect()
        client.session.set_expiry(0)
        assert client.closed == (3000, "expired")


@pytest.mark.parametrize("left", ["0", "-100"])
def test_a_handshake_whose_time_is_over_is_refused(guard, left, caplog):
    caplog.set_level(logging.INFO, "wsthreads")
    with play(guard) as world:
        with pytest.raises(HandshakeRefused, match=f"401 expired {left.lstrip('-')} s ago"):
            world.connect(left=left)
        assert world.app.session_count == 0
        assert world.app.endpoints[0].totals().refused == {(401, "expired"): 1}
        assert world.connect(left="60").is_open
    assert "refused: 401 expired" in caplog.text


@pytest.mark.parametrize(
    "bad", [None, "60", True, float("nan"), float("inf"), -float("inf"), datetime.datetime.now(), 1e300, 10**400]
)
def test_what_is_no_time_is_refused_and_changes_nothing(guard, bad):
    request = Request({})
    request.set_expiry(time() + 60)
    with play(guard) as world:
        session = world.connect(left="60").session
        for visitor in (request, session):
            before = visitor.expires_at
            with pytest.raises(ExpiryError, match="a time in seconds since the epoch, such as") as caught:
                visitor.set_expiry(bad)
            assert repr(bad)[:40] in str(caught.value)
            assert visitor.expires_at == before
        assert session.is_open()


def test_milliseconds_are_told_from_seconds():
    with pytest.raises(ExpiryError, match="the last one is 253402300799, in the year 9999; in milliseconds"):
        Request({}).set_expiry(int(time() * 1000))
    Request({}).set_expiry(253402300799)


class Clocks(ManualTimers):
    """A wall clock that is set on its own."""

    def __init__(self):
        super().__init__()
        self.ahead_s = 0.0

    def time(self):
        return super().time() + self.ahead_s


@contextmanager
def set_clock(guard):
    with endpoint(guard) as (app, port):
        clocks = app.endpoint("/ws/test").roster.timers = Clocks()
        with RawClient(port, "/ws/test?left=3600") as client:
            assert client.status == 101
            wait_until(lambda: guard.session is not None, "the session")
            yield clocks, client


def test_a_wall_clock_that_is_set_back_lets_a_session_go_on(guard):
    with set_clock(guard) as (clocks, client):
        clocks.ahead_s = -1000
        clocks.advance(4600 - DEADLINE_S)
        assert guard.session.is_open()
        clocks.advance(DEADLINE_S + 1)
        assert not guard.session.is_open()
        assert client.receive_close() == (3000, "expired")


def test_a_wall_clock_that_is_set_forward_ends_a_session_within_a_minute(guard):
    with set_clock(guard) as (clocks, client):
        clocks.advance(10)
        clocks.ahead_s = 10_000
        clocks.advance(expiry.LOOK_S)
        assert not guard.session.is_open()
        assert client.receive_close() == (3000, "expired")


def test_a_renewal_is_no_leave_and_a_close_with_3000_is_one(guard):
    with play(guard) as world:
        ann, bob = world.connect(left="60", user="ann"), world.connect(user="bob")
        world.advance(60)
        assert ann.closed == (3000, "expired")
        assert [person.key for person in world.room("lobby").presence()] == ["ann", "bob"]
        world.advance(5)
        world.connect(left="60", user="ann")
        world.advance(30)
        assert [(p.key, p.sessions) for p in world.room("lobby").presence()] == [("ann", 1), ("bob", 1)]
        bob.send("close 3000")
        assert bob.closed == (3000, "expired")
        assert [person.key for person in world.room("lobby").presence()] == ["ann"]
        world.connect(user="eve").close(3000)
        assert [person.key for person in world.room("lobby").presence()] == ["ann"]
        world.advance(30 + world.app.config.presence_grace_s)
        assert world.room("lobby").presence() == []


def test_a_session_that_has_ended_is_not_kept(guard):
    with play(guard) as world:
        client = world.connect(left="1000")
        reference = weakref.ref(client.session)
        client.close()
        guard.session = client._session = None
        wait_until(lambda: gc.collect() >= 0 and reference() is None, "only its thread keeps it")
        world.advance(2000)


def test_many_moves_leave_few_timers(guard):
    with play(guard) as world:
        session = world.connect().session
        for step in range(1000):
            session.set_expiry(time() + 100 + step)
        assert sum(timer.callback is not None for _, _, timer in world._timers._timers) == 1


def test_a_look_that_comes_too_late_does_not_close_a_session_with_another_time(guard):
    with play(guard) as world:
        client = world.connect(left="10")
        old = client.session._expiry
        client.send("1000")
        world._timers.advance(100)
        old.look()
        world.settle()
        assert client.is_open


def test_threads_that_move_it_at_the_same_time_leave_one(guard):
    with play(guard) as world:
        client = world.connect()
        expires_at = time() + 50
        threads = [
            threading.Thread(target=lambda: [client.session.set_expiry(expires_at) for _ in range(200)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        world.advance(50 - DEADLINE_S)
        assert client.is_open
        world.advance(DEADLINE_S)
        assert client.closed == (3000, "expired")
        assert guard.ended == [(3000, "expired", False)]


def test_over_redis_a_session_that_has_expired_may_come_back(guard, redis_server):
    with endpoint(guard, redis=redis_server.url) as (app, port):
        room = app.endpoint("/ws/test").room("lobby")
        with RawClient(port, "/ws/test?user=ann") as client:
            client.text("0.2")
            assert client.receive_close() == (3000, "expired")
            client.send(CLOSE, close_payload(3000))
        wait_until(lambda: guard.ended and app.session_count == 0, "on_close")
        assert [(person.key, person.sessions) for person in room.presence()] == [("ann", 0)]
        with RawClient(port, "/ws/test?user=ann") as client:
            wait_until(lambda: [(p.key, p.sessions) for p in room.presence()] == [("ann", 1)], "the return")
            client.leave()
            wait_until(lambda: room.presence() == [], "the end")
