"""Kicks and bans over real sockets in two apps that share a Redis, while the user connects again from five places."""

import random
import sys
import threading
from collections import Counter
from contextlib import suppress
from functools import partial

import pytest

from tests.programs import wait_until
from tests.wire import CLOSE, TEXT, RawClient, close_payload, endpoint, run_all
from wsthreads import RedisBroker


class Users:
    """The query names the user. Keeps what was called, by session."""

    def __init__(self):
        self.opened, self.closed = [], []

    def on_handshake(self, request):
        request.user = request.get_parameter("user")

    def on_open(self, session):
        self.opened.append(session)
        session.send("hello")

    def on_close(self, session):
        self.closed.append(session)


@pytest.fixture
def apps(redis_server):
    """(handler, endpoint, port) of each."""
    first, second = Users(), Users()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)  # threads take turns more often, so that races are met
    with (
        endpoint(first, redis=redis_server.url, close_timeout_s=5) as (app, port),
        endpoint(second, redis=redis_server.url, close_timeout_s=5) as (other, other_port),
    ):
        yield (first, app.endpoint("/ws/test"), port), (second, other.endpoint("/ws/test"), other_port)
    sys.setswitchinterval(interval)


def test_kicks_while_the_user_connects_again_and_again_from_five_places(apps):
    """None gets in while banned, and none is left over, whichever process is asked to kick."""
    print(f"seed {(seed := random.randrange(2**32))}")
    stop, rng = threading.Event(), random.Random(seed)
    user = [f"user-{seed}-0"]
    refused = [Counter() for _ in range(5)]  # at each place, by the user's name

    def come_again(place):
        while not stop.is_set():
            name, port = user[0], apps[place % 2][2]
            with suppress(EOFError, ConnectionError), RawClient(port, f"/ws/test?user={name}") as client:
                if client.status == 403:
                    refused[place][name] += 1
                    continue
                opcode, payload = client.receive()
                while place < 2 and opcode != CLOSE:
                    opcode, payload = client.receive()
                assert (opcode, payload) in ((CLOSE, close_payload(4001, "bye")), (TEXT, b"hello"))

    def opened():
        return sum(len(handler.opened) for handler, _, _ in apps)

    def none_is_left():
        return not any(each.session_count() for _, each, _ in apps)

    def await_refusals(count):
        wait_until(lambda: all(each[user[0]] >= count for each in refused), f"{count} refusals at each place")

    def kick():
        try:
            for number in range(1, 6):
                enough = opened() + rng.randrange(3, 20)
                wait_until(lambda enough=enough: opened() > enough, "some sessions")
                rng.choice(apps)[1].user(user[0]).close(4001, "bye", ban_s=600)
                await_refusals(1)  # at each place, those of before the ban have ended
                wait_until(none_is_left, "none to be left over")
                before = opened()
                await_refusals(4)
                assert opened() == before
                assert none_is_left()
                user[0] = f"user-{seed}-{number}"
        finally:
            stop.set()
            apps[0][1].user(user[0]).close(4001, "bye", ban_s=600)

    run_all(*[partial(come_again, place) for place in range(5)], kick)
    wait_until(none_is_left, "none to be left over")
    for handler, each, _ in apps:
        assert not each.user(user[0]).is_online()
        assert sorted(map(id, handler.opened)) == sorted(map(id, handler.closed))


class Present:
    """Everybody is in one room, with a presence."""

    def on_handshake(self, request):
        request.user = request.get_parameter("user")

    def on_open(self, session):
        session.room("lobby").join(presence=None)
        session.send("hello")


@pytest.mark.parametrize("by", ["a view", "a program without a server"])
def test_a_kick_ends_the_presence_of_lost_connections_in_processes_where_the_user_has_no_other(redis_server, by):
    with (
        endpoint(Present(), redis=redis_server.url, presence_grace_s=600) as (app, port),
        endpoint(Present(), redis=redis_server.url, presence_grace_s=600) as (other, _),
    ):
        lobby = other.endpoint("/ws/test").room("lobby")
        with RawClient(port, "/ws/test?user=ann") as client:
            assert client.receive() == (TEXT, b"hello")
        wait_until(lambda: app.endpoint("/ws/test").session_count() == 0, "the end of the session")
        wait_until(lambda: [person.key for person in lobby.presence()] == ["ann"], "ann's presence over Redis")
        if by == "a view":
            other.endpoint("/ws/test").user("ann").close()
        else:
            RedisBroker(redis_server.url).user("/ws/test", "ann").close()
        wait_until(lambda: not lobby.presence(), "ann to be gone")
