"""Limits, clocks and lists, for clients that speak ``wsthreads.1`` and for sessions that wait for them."""

import os
import socket
import threading
from time import time

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.sessions.test_resume import RESUME, SUSPEND, Story, World
from tests.speakers import Speaker
from tests.wire import CLOSE, TEXT, close_payload, endpoint, frame
from wsthreads.protocol import envelope, rate_limit


class Named(Story):
    def on_handshake(self, request):
        request.user = request.get_parameter("user")
        if expires_s := request.get_parameter("expires_s"):
            request.set_expiry(time() + float(expires_s))


@pytest.fixture
def world():
    handler = Named()
    with endpoint(handler, resume_s=60, close_timeout_s=0.3) as (app, port):
        world = World(app, port, handler)
        world.endpoint.roster.timers = world.timers
        yield world


def away(world, path="/ws/test?user=ann"):
    client = Speaker(world.port, path).begin()
    world.wait_for("open")
    client.lose()
    world.wait_suspended()
    return client


def test_a_session_that_waits_is_listed_and_reached_like_any_other(world):
    with away(world) as client:
        it, session = world.endpoint, world.handler.sessions[0]
        assert it.sessions() == [session]
        assert it.session_count() == 1
        wait_until(lambda: world.app.session_count == 1, "the place of the connection to be free")
        assert it.live() == {}
        assert it.connections() == []
        assert it.user_count() == 1
        assert it.user("ann").is_online()
        assert [entry.id for entry in it.user("ann").sessions()] == [session.id]
        assert [row["id"] for row in it.sessions_everywhere()] == [session.id]
        assert it.totals().sessions == 1
        wait_until(lambda: world.app.free_places == world.app.places, "the place of its connection")
        it.user("ann").send("to the user")
        it.session(session.id).send("to the session")
        it.room("lobby").broadcast("to the room")
        session.send("x", latest="key")
        session.send("y", latest="key")
        client.come_back()
        assert client.all(4) == ["to the user", "to the session", "to the room", "y"]
        wait_until(lambda: list(it.live()) == [session])
        assert list(it.live().values()) == it.connections()


def test_the_totals_count_each_message_of_all_connections_once(world):
    with Speaker(world.port).begin() as client:
        for number in range(3):
            client.send(str(number))
            assert client.next() == f"echo {number}"
        client.lose()
        world.wait_suspended()
        first = world.endpoint.totals()
        assert (first.opened, first.messages_in, first.messages_out) == (1, 3, 3)
        world.handler.sessions[0].send("away")
        client.come_back()
        assert client.next() == "away"
        client.send("3")
        assert client.next() == "echo 3"
        client.leave()
        wait_until(lambda: world.app.session_count == 0)
        wait_until(lambda: world.endpoint.totals().sessions == 0)
        last = world.endpoint.totals()
        assert (last.opened, last.closed, last.messages_in, last.messages_out) == (1, {1000: 1}, 4, 5)
        assert last.bytes_in > first.bytes_in
        assert last.bytes_out > first.bytes_out
        assert (last.counters["sessions_suspended"], last.counters["sessions_resumed"]) == (1, 1)
        assert (last.counters["sessions_opened"], last.counters["sessions_closed"]) == (1, 1)


def test_the_totals_count_no_control_message_of_a_session_that_cannot_be_resumed():
    with endpoint(Story(), resume_s=0, ping_interval_s=0) as (app, port), Speaker(port).begin() as client:
        for number in range(200):
            client.send(str(number))
            assert client.next() == f"echo {number}"
        wait_until(lambda: app.endpoint("/ws/test").totals().messages_out == 200)


def test_a_session_that_expires_while_it_waits_goes_on_with_a_fresh_token(world):
    with away(world, "/ws/test?expires_s=30") as client:
        world.timers.advance(31)
        client.path = "/ws/test?expires_s=20"
        assert client.come_back().resumed
        world.wait_for("open", SUSPEND, RESUME)
        world.timers.advance(21)
        assert client.is_refused() == (3000, "expired")


def test_without_a_fresh_token_a_session_that_has_expired_is_closed_when_its_client_comes_back(world):
    with away(world, "/ws/test?expires_s=30") as client:
        world.timers.advance(31)
        client.path = "/ws/test"
        client.open().hello(client.token)
        assert client.is_refused() == (3000, "expired")
        world.wait_for("open", SUSPEND, ("close", 3000, "expired"))


def test_an_expiry_that_is_set_to_a_time_that_is_over_ends_a_session_that_waits(world):
    with away(world) as client:
        world.handler.sessions[0].set_expiry(time() - 1)
        world.wait_for("open", SUSPEND, ("close", 3000, "expired"))
        client.open().hello(client.token)
        assert client.is_refused() == (3000, "expired")


def test_the_handshake_of_a_resume_sets_the_expiry_anew(world):
    with away(world, "/ws/test?expires_s=30") as client:
        client.path = "/ws/test?expires_s=50"
        client.come_back()
        session = world.handler.sessions[0]
        wait_until(lambda: session.get_parameter("expires_s") == "50")
        wait_until(lambda: session.expires_at > time() + 40)
        world.timers.advance(31)
        client.send("still here")
        assert client.next() == "echo still here"


def test_a_hello_with_an_impossible_count_does_not_set_the_expiry(world):
    with away(world, "/ws/test?expires_s=3000") as client, Speaker(world.port, "/ws/test?expires_s=30") as liar:
        liar.open().hello(client.token, 99)
        assert liar.is_refused()[0] == 1002
        assert world.handler.sessions[0].expires_at > time() + 2000


def test_acknowledgements_and_heartbeats_are_no_messages_for_the_limit_of_messages():
    settings = {"max_messages_per_s": 1, "max_control_frames_per_s": 0, "resume_s": 60}
    with endpoint(Story(), **settings) as (_, port), Speaker(port).begin() as client:
        for _ in range(50):
            assert client.heartbeat() == 0
            client.ack()
        for number in range(50):
            client.send(str(number))
        assert client.receive_close()[0] == 1008


def test_a_client_that_has_resumed_is_slowed_down_to_the_limit_and_loses_nothing():
    with endpoint(Story(), max_messages_per_s=20, resume_s=60) as (_, port), Speaker(port).begin() as client:
        client.lose()
        client.come_back()
        began = time()
        for number in range(240):  # what it could not send while it was away: more than ten seconds' worth
            client.send(str(number))
        assert [client.next() for _ in range(240)] == [f"echo {number}" for number in range(240)]
        assert time() - began > 1.5, "40 more than there were at first"


def test_what_a_client_acknowledges_is_read_while_it_is_slowed_down():
    """Else it would look too slow: its acknowledgements stand behind what it sends."""
    settings = {"max_messages_per_s": 1, "resume_s": 60, "max_resume_bytes": 1000, "send_timeout_s": 5}
    with endpoint(Story(), **settings) as (app, port), Speaker(port).begin() as client:
        client.lose()
        client.come_back()
        for number in range(100):
            client.send(str(number))
        assert client.all(10) == [f"echo {number}" for number in range(10)]
        (session,) = app.endpoint("/ws/test").sessions()
        for number in range(60):  # far more than may be unacknowledged
            session.send(f"{number} " + "x" * 30_000)
            assert next_of(client, f"{number} ")
            client.ack()
        client.put(envelope.heartbeat(client.received))
        while not isinstance(answer := client.take(), envelope.Ack):
            assert answer.startswith("echo ")
        assert 10 <= answer.received < 100, "what is held does not count as received"
        assert "slow_sessions_closed" not in app.metrics.snapshot()


def next_of(client, start):
    """Wait for the message that begins so, past echoes."""
    while not (message := client.next()).startswith(start):
        assert message.startswith("echo ")
    return message


def test_more_than_is_held_for_a_client_that_is_slowed_down_is_not_read(monkeypatch):
    monkeypatch.setattr(rate_limit, "MAX_HELD_BYTES", 1000)
    settings = {"max_messages_per_s": 20, "max_message_bytes": 100}
    with endpoint(Story(), resume_s=60, **settings) as (_, port), Speaker(port).begin() as client:
        client.lose()
        client.come_back()
        for number in range(240):
            client.send(str(number))
        assert client.all(240) == [f"echo {number}" for number in range(240)]


@pytest.mark.parametrize("how", ["closes", "breaks the rules", "is lost"])
def test_what_a_client_has_sent_before_its_end_is_handled_also_if_it_is_slowed_down(how):
    story = Story()
    with endpoint(story, max_messages_per_s=20, resume_s=60) as (_, port), Speaker(port).begin() as client:
        client.lose()
        client.come_back()
        for number in range(240):
            client.send(str(number))
        if how == "closes":
            client.wire.send(CLOSE, close_payload(1000))
        elif how == "breaks the rules":
            client.wire.sock.sendall(frame(TEXT, masked=False))
        else:
            client.wire.sock.shutdown(socket.SHUT_WR)
        end = {"closes": ("close", 1000), "breaks the rules": ("close", 1002), "is lost": SUSPEND}[how]
        wait_until(lambda: RESUME in story.calls and story.calls[-1][:2] == end[:2], f"{end}")
        assert [call for call in story.calls if isinstance(call, str)] == ["open", *map(str, range(240))]


def test_a_client_that_leaves_while_it_is_slowed_down_sends_the_rest_again():
    with endpoint(Story(), max_messages_per_s=10, resume_s=60) as (_, port), Speaker(port).begin() as client:
        client.lose()
        client.come_back()
        for number in range(110):
            client.send(str(number))
        assert client.next() == "echo 0"
        client.lose()
        received = client.come_back().received
        assert received < 110
        for number in range(received, 110):
            client.send(str(number))
        assert client.all(109) == [f"echo {number}" for number in range(1, 110)]


def test_a_client_that_is_slowed_down_can_be_closed():
    handler = Story()
    with endpoint(handler, max_messages_per_s=1, resume_s=60) as (_, port), Speaker(port).begin() as client:
        client.lose()
        client.come_back()
        for number in range(100):
            client.send(str(number))
        assert client.next() == "echo 0"
        handler.sessions[0].close(4000, "enough")
        assert client.receive_close() == (4000, "enough")


def test_a_client_that_has_left_while_it_was_slowed_down_is_told_that_its_session_was_closed():
    handler = Story()
    with endpoint(handler, max_messages_per_s=1, resume_s=60) as (_, port), Speaker(port).begin() as client:
        client.lose()
        client.come_back()
        for number in range(100):
            client.send(str(number))
        client.wire.send(CLOSE, close_payload(4901))
        assert client.next() == "echo 0"
        handler.sessions[0].close(4000, "enough")
        wait_until(lambda: handler.calls[-1] == ("close", 4000, "enough"))
        client.open().hello(client.token)
        assert client.is_refused() == (4000, "enough")


def test_too_many_acknowledgements_are_too_many_control_frames():
    with endpoint(Story(), max_control_frames_per_s=1, resume_s=60) as (_, port), Speaker(port).begin() as client:
        for _ in range(50):
            client.ack()
        assert client.receive_close()[0] == 1008


def test_acknowledgements_of_something_new_are_no_control_frames():
    """A client that receives 10,000 messages a second acknowledges more than a hundred times a second."""
    with endpoint(Story(), max_control_frames_per_s=1, resume_s=60) as (_, port), Speaker(port).begin() as client:
        for number in range(100):
            client.send(str(number))
            assert client.next() == f"echo {number}"
            client.ack()
        client.send("still here")
        assert client.next() == "echo still here"


def test_without_resume_s_all_acknowledgements_are_control_frames():
    with endpoint(Story(), max_control_frames_per_s=1) as (_, port), Speaker(port).begin() as client:
        for number in range(1, 50):
            client.put(envelope.ack(number))
        assert client.receive_close()[0] == 1008


def test_heartbeats_do_not_keep_an_idle_client_and_its_session_ends():
    handler = Story()
    settings = {"idle_timeout_s": 0.5, "resume_s": 60, "close_timeout_s": 0.3}
    with endpoint(handler, **settings) as (app, port), Speaker(port).begin() as client:
        with pytest.raises((AssertionError, OSError, EOFError)):
            while True:
                client.heartbeat()
        wait_until(lambda: app.session_count == 0)
        assert [call[0] for call in handler.calls[1:]] == ["close"]


def test_what_comes_while_a_handler_waits_is_bounded_and_none_of_it_is_lost():
    asked, handled = threading.Event(), []

    class Waits(Story):
        def on_message(self, session, message):
            if message == "ask":
                asked.set()
                handled.append(session.request("what?", timeout=DEADLINE_S))
            else:
                handled.append(message)

    settings = {"resume_s": 60, "max_message_bytes": 20_000, "max_resume_bytes": 20_000}
    with endpoint(Waits(), **settings) as (app, port), Speaker(port).begin() as client:
        client.send("ask")
        assert asked.wait(DEADLINE_S)
        done = threading.Event()

        def flood():
            for number in range(2000):
                client.send(f"{number:04} " + "x" * 995)
            done.set()

        thread = threading.Thread(target=flood)
        thread.start()
        dialogue = app.endpoints[0].sessions()[0]._channel
        wait_until(lambda: dialogue._bytes_waiting() > 40_000)
        other = Speaker(port)
        other.token, other.received = client.token, 1
        assert dialogue._bytes_waiting() < 80_000
        # Its own thread reads no more, so the reply waits behind the rest, until the request is too late.
        app.endpoints[0].sessions()[0]._channel.requests.settle(1, "by hand")
        thread.join(DEADLINE_S)
        assert done.is_set()
        wait_until(lambda: len(handled) == 2001)
        assert handled[0] == "by hand"
        assert [message[:4] for message in handled[1:]] == [f"{number:04}" for number in range(2000)]


def test_a_new_connection_is_not_read_while_too_much_waits_for_a_handler():
    began, go_on, handled = threading.Event(), threading.Event(), []

    class Slow(Story):
        def on_message(self, session, message):
            began.set()
            assert go_on.wait(DEADLINE_S)
            handled.append(message[:4])

    settings = {"resume_s": 60, "max_message_bytes": 20_000, "max_resume_bytes": 20_000}
    with endpoint(Slow(), **settings) as (app, port), Speaker(port).begin() as client:
        client.send("slow")
        assert began.wait(DEADLINE_S)
        client.come_back()
        thread = threading.Thread(target=lambda: [client.send(f"{n:04} " + "x" * 995) for n in range(2000)])
        thread.start()
        dialogue = app.endpoints[0].sessions()[0]._channel
        wait_until(lambda: dialogue._is_full)
        assert dialogue._bytes_waiting() < 80_000
        go_on.set()
        thread.join(DEADLINE_S)
        wait_until(lambda: len(handled) == 2001)
        assert handled == ["slow", *(f"{number:04}" for number in range(2000))]


def test_a_handler_that_streams_more_than_the_window_reads_the_acknowledgements_itself():
    class Streams(Story):
        def on_message(self, session, message):
            for number in range(3000):
                assert session.send(f"{number} " + "x" * 1000)

    settings = {"resume_s": 60, "max_resume_bytes": 300_000, "max_outbox_bytes": 300_000}
    with endpoint(Streams(), **settings) as (_, port), Speaker(port).begin() as client:
        client.send("go")
        for number in range(3000):
            assert client.next() == f"{number} " + "x" * 1000
            if number % 64 == 63:
                client.ack()
        assert client.heartbeat() == 1


def test_a_forked_process_has_none_of_the_sessions(world):
    with Speaker(world.port).begin() as connected, away_second(world) as client:
        it = world.endpoint
        read, write = os.pipe()
        child = os.fork()
        if not child:
            sessions = world.handler.sessions
            found = [len(it.suspensions), it.session_count(), *(session.is_open() for session in sessions)]
            found += [session.send("x") for session in sessions]
            os.write(write, repr(found).encode())
            os._exit(0)
        os.close(write)
        assert os.waitpid(child, 0)[1] == 0
        with os.fdopen(read) as answer:
            assert answer.read() == repr([0, 0, False, False, False, False])
        assert client.come_back().resumed
        for each in (connected, client):
            each.send("still here")
            assert each.next() == "echo still here"


def away_second(world):
    client = Speaker(world.port).begin()
    wait_until(lambda: len(world.handler.sessions) == 2)
    client.lose()
    world.wait_suspended()
    return client


def test_a_session_that_has_ended_is_kept_in_memory_by_nothing(world):
    import gc
    import weakref

    with away(world) as client:
        client.come_back()
        client.send("one")
        assert client.next() == "echo one"
        client.put(envelope.request(1, "x"))
        client.leave()
    wait_until(lambda: world.app.session_count == 0)
    references = [weakref.ref(world.handler.sessions[0]), weakref.ref(world.handler.sessions[0]._channel)]
    world.handler.sessions.clear()
    wait_until(lambda: gc.collect() is not None and all(each() is None for each in references), "to be forgotten")


def test_a_client_that_replaces_its_connection_needs_no_place_among_those_that_wait():
    handler = Story()
    served = endpoint(handler, resume_s=60, max_suspended_sessions=1)
    with served as (app, port), Speaker(port).begin() as waiting, Speaker(port).begin() as client:
        waiting.lose()
        wait_until(lambda: len(app.endpoints[0].suspensions) == 1)
        with Speaker(port) as again:
            again.token, again.received = client.token, client.received
            assert again.come_back().resumed
            assert waiting.come_back().resumed
            assert not any(call[0] == "close" for call in handler.calls)


def test_the_sessions_of_one_address_do_not_take_all_places_of_those_that_wait():
    handler = Story()
    with endpoint(handler, resume_s=60, max_sessions_per_address=2, trusted_proxies=1) as (app, port):

        def client_of(address):
            return Speaker(port, headers={"X-Forwarded-For": address})

        suspensions, clients = app.endpoints[0].suspensions, []
        for nth in range(4):
            clients.append(client_of("192.0.2.1").begin())
            wait_until(lambda nth=nth: len(handler.sessions) == nth + 1)
            clients[-1].lose()
            wait_until(lambda nth=nth: len(handler.calls) == 2 * nth + 2)
            wait_until(lambda: app._admission.taken == 0)
        assert [call[0] for call in handler.calls[1::2]] == ["suspend", "suspend", "close", "close"]
        with client_of("192.0.2.2").begin() as other:
            other.lose()
            wait_until(lambda: len(suspensions) == 3)
            assert other.come_back().resumed
            assert clients[0].come_back().resumed
            wait_until(lambda: len(suspensions) == 1)
            clients[0].lose()
            wait_until(lambda: len(suspensions) == 2)
    assert app._admission._waiting_by == {}
