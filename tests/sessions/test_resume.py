"""Sessions that go on after a lost connection: what a handler sees, and that each message arrives once, in order."""

import select
import threading

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.speakers import Speaker
from tests.wire import CLOSE, RawClient, close_payload, endpoint
from wsthreads.protocol import envelope
from wsthreads.testing.timers import ManualTimers


class Story:
    """Keeps what happens to its sessions, in order, and echoes."""

    def __init__(self):
        self.calls = []
        self.sessions = []
        self.closed = []  # the ids of those whose on_close was called

    def on_open(self, session):
        self.sessions.append(session)
        session.room("lobby").join(presence="here")
        self.calls.append("open")

    def on_message(self, session, message):
        self.calls.append(message)
        session.send(f"echo {message}")

    def on_suspend(self, session):
        self.calls.append(("suspend", session.is_open(), session.is_connected()))

    def on_resume(self, session):
        self.calls.append(("resume", session.is_open(), session.is_connected()))

    def on_close(self, session, code, reason):
        self.closed.append(session.id)
        self.calls.append(("close", code, reason))


SUSPEND, RESUME = ("suspend", True, False), ("resume", True, True)


class World:
    def __init__(self, app, port, handler):
        self.app, self.port, self.handler = app, port, handler
        self.endpoint = app.endpoint("/ws/test")
        self.timers = self.endpoint.suspensions.timers = ManualTimers()

    def wait_for(self, *calls):
        wait_until(lambda: self.handler.calls == list(calls), f"{list(calls)}, not {self.handler.calls}")

    def wait_suspended(self, count=1):
        wait_until(lambda: len(self.endpoint.suspensions) == count, "a suspended session")


@pytest.fixture
def world():
    handler = Story()
    with endpoint(handler, resume_s=60, ping_interval_s=0) as (app, port):
        yield World(app, port, handler)


def test_a_client_that_comes_back_goes_on_with_its_session(world):
    with Speaker(world.port).begin() as client:
        client.send("one")
        assert client.next() == "echo one"
        client.lose()
        world.wait_for("open", "one", SUSPEND)
        session = world.handler.sessions[0]
        assert session.send("while away")
        world.endpoint.room("lobby").broadcast("to all")
        assert client.come_back().resumed
        assert client.welcome.received == client.sent
        assert client.all(2) == ["while away", "to all"]
        client.send("two")
        assert client.next() == "echo two"
        client.leave()
        world.wait_for("open", "one", SUSPEND, RESUME, "two", ("close", 1000, ""))
    assert len(world.handler.sessions) == 1


def test_what_was_written_and_not_received_is_sent_again_once_and_in_order(world):
    with Speaker(world.port).begin() as client:
        world.wait_for("open")
        session = world.handler.sessions[0]
        for number in range(200):
            session.send(str(number))
        assert client.all(50) == [str(number) for number in range(50)]
        client.lose()
        world.wait_suspended()
        assert client.come_back().resumed
        assert client.all(150) == [str(number) for number in range(50, 200)]
        client.lose()
        world.wait_suspended()
        session.send("last")
        client.come_back()
        assert client.next() == "last"


def test_what_the_client_sent_and_the_server_took_is_not_taken_again(world):
    with Speaker(world.port).begin() as client:
        for number in range(100):
            client.send(str(number))
        assert client.heartbeat() == 100
        client.lose()
        world.wait_suspended()
        assert client.come_back().received == 100


def test_a_client_that_does_not_come_back_in_time_is_told_once_to_the_handler(world):
    with Speaker(world.port).begin() as client:
        world.wait_for("open")
        client.lose()
        world.wait_for("open", SUSPEND)
        world.timers.advance(59)
        assert world.handler.calls == ["open", SUSPEND]
        world.timers.advance(1)
        world.wait_for("open", SUSPEND, ("close", 1006, "not back within 60 s"))
        wait_until(lambda: world.endpoint.session_count() == 0)
        assert not client.come_back().resumed
        assert client.welcome.why == "unknown"


def test_a_session_stays_present_until_its_window_ends(world):
    with Speaker(world.port).begin() as client:
        world.wait_for("open")
        client.lose()
        world.wait_suspended()
        room = world.endpoint.room("lobby")
        world.timers.advance(59)
        assert [person.presence for person in room.presence()] == ["here"]
        assert room.members() == 1
        world.timers.advance(1)
        wait_until(lambda: not room.presence() and not room.members())


def test_a_new_connection_replaces_one_that_seems_alive(world):
    with Speaker(world.port).begin() as client, Speaker(world.port) as other:
        client.send("one")
        assert client.next() == "echo one"
        other.token, other.received = client.token, client.received
        assert other.come_back().resumed
        assert client.wire.at_end()
        other.sent = 1
        other.send("two")
        assert other.next() == "echo two"
        other.leave()
        wait_until(lambda: world.handler.calls[-1][0] == "close")
        assert world.handler.calls[:2] == ["open", "one"]
        assert world.handler.calls[2][0] == "suspend"
        assert world.handler.calls[3:] == [RESUME, "two", ("close", 1000, "")]


@pytest.mark.parametrize("code", [1001, 4901])
def test_a_client_that_says_it_goes_away_may_come_back(world, code):
    with Speaker(world.port).begin() as client:
        client.wire.send(CLOSE, close_payload(code))
        assert client.receive_close()[0] == code
        world.wait_for("open", SUSPEND)
        assert client.come_back().resumed


def replaced(client):
    old, client.wire = client.wire, None  # the old connection stays open
    client.come_back()
    old.sock.close()


@pytest.mark.parametrize(
    ("act", "why"),
    [
        (Speaker.lose, "connection lost"),
        (lambda client: client.wire.send(CLOSE, close_payload(1001)), "the client has closed the connection with 1001"),
        (replaced, "replaced by a new connection"),
    ],
    ids=["lost", "closed", "replaced"],
)
def test_the_log_says_why_a_session_is_suspended(world, caplog, act, why):
    caplog.set_level("INFO")
    with Speaker(world.port).begin() as client:
        world.wait_for("open")
        act(client)
        wait_until(lambda: SUSPEND in world.handler.calls or len(world.handler.calls) > 1, "on_suspend")
        lines = [record.getMessage() for record in caplog.records]
        assert f"session {world.handler.sessions[0].id} suspended on /ws/test: {why}" in lines


def test_the_log_says_that_the_server_has_closed_although_the_client_has_answered(world, caplog):
    caplog.set_level("INFO")
    with Speaker(world.port).begin() as client:
        world.wait_for("open")
        assert world.handler.sessions[0]._channel._carrier.channel.part(1012, "restart")
        assert client.receive_close() == (1012, "restart")
        client.wire.send(CLOSE, close_payload(1012, "restart"))
        world.wait_for("open", SUSPEND)
        assert "suspended on /ws/test: the server has closed the connection with 1012 restart" in caplog.text


def test_the_log_says_that_a_ping_was_not_answered(caplog):
    caplog.set_level("INFO")
    handler = Story()
    settings = {"resume_s": 60, "ping_interval_s": 0.1, "ping_timeout_s": 0.1}
    with endpoint(handler, **settings) as (_, port), Speaker(port).begin():
        wait_until(lambda: len(handler.calls) > 1, "on_suspend")
        assert f"session {handler.sessions[0].id} suspended on /ws/test: no answer to a ping for 0.1 s" in caplog.text


@pytest.mark.parametrize("shown", [True, False])
def test_the_log_names_the_session_that_is_not_resumed_and_no_secret(world, caplog, shown):
    caplog.set_level("INFO")
    with Speaker(world.port).begin() as client:
        secret = "s" * 22
        asked = "i" * 22 if shown else "?"
        assert client.come_back(token=f"{asked}.{secret}" if shown else secret, received=0).why == "unknown"
        line = f"session {asked} on /ws/test is not resumed: unknown: the session or its process has ended"
        assert line in caplog.text
        assert secret not in caplog.text


@pytest.mark.parametrize("code", [1000, 3999, 4000])
def test_another_close_of_the_client_ends_the_session(world, code):
    with Speaker(world.port).begin() as client:
        client.wire.send(CLOSE, close_payload(code))
        assert client.receive_close()[0] == code
        world.wait_for("open", ("close", code, ""))
        assert client.come_back().why == "unknown"


def test_a_session_that_was_closed_while_its_client_was_away_tells_it_code_and_reason(world):
    with Speaker(world.port).begin() as client:
        world.wait_for("open")
        client.lose()
        world.wait_for("open", SUSPEND)
        world.handler.sessions[0].close(4001, "go away")
        world.wait_for("open", SUSPEND, ("close", 4001, "go away"))
        client.open().hello(client.token)
        assert client.is_refused() == (4001, "go away")
        world.timers.advance(61)
        assert client.come_back().why == "unknown"


@pytest.mark.parametrize("code", [1001, 4901])
def test_a_client_that_leaves_before_it_has_read_that_its_session_was_closed_is_told_when_it_comes_back(world, code):
    with Speaker(world.port).begin() as client:
        world.wait_for("open")
        world.handler.sessions[0].close(4001, "go away")
        client.wire.send(CLOSE, close_payload(code))
        world.wait_for("open", ("close", 4001, "go away"))
        client.open().hello(client.token)
        assert client.is_refused() == (4001, "go away")


def test_without_resume_s_a_client_has_no_token_and_its_session_ends_with_the_connection():
    handler = Story()
    with endpoint(handler, ping_interval_s=0) as (_, port), Speaker(port).begin() as client:
        assert client.token is None
        client.send("\x10one")
        assert client.next() == "echo \x10one"
        client.lose()
        wait_until(lambda: handler.calls[-1] == ("close", 1006, "connection lost"))
        assert not any(call[0] == "suspend" for call in handler.calls)


def test_a_plain_client_is_not_suspended(world):
    with RawClient(world.port) as client:
        client.text("one")
        assert client.receive_text() == "echo one"
        assert not client.headers.get("sec-websocket-protocol")
    world.wait_for("open", "one", ("close", 1006, "connection lost"))


class Slow(Story):
    """One that works on the message "slow" until the test lets it `go_on`."""

    def __init__(self):
        super().__init__()
        self.began, self.go_on = threading.Event(), threading.Event()

    def on_message(self, session, message):
        if message == "slow":
            self.began.set()
            assert self.go_on.wait(DEADLINE_S)
        super().on_message(session, message)


def test_a_new_connection_is_served_while_a_handler_of_the_old_one_runs():
    handler = Slow()
    with endpoint(handler, resume_s=60, ping_interval_s=0) as (_, port), Speaker(port).begin() as client:
        client.send("slow")
        assert handler.began.wait(DEADLINE_S)
        client.lose()
        assert client.come_back().received == 1
        client.send("next")
        assert client.heartbeat() == 2
        handler.go_on.set()
        assert client.all(2) == ["echo slow", "echo next"]
        client.leave()
        wait_until(lambda: handler.calls[-1] == ("close", 1000, ""))
        assert [call for call in handler.calls if isinstance(call, str)] == ["open", "slow", "next"]
        assert [call[0] for call in handler.calls[2:]].count("suspend") == 1


def test_a_close_is_answered_when_the_handler_of_the_old_connection_has_handled_what_came_before_it():
    handler = Slow()
    with endpoint(handler, resume_s=60, ping_interval_s=0) as (_, port), Speaker(port).begin() as client:
        client.send("slow")
        assert handler.began.wait(DEADLINE_S)
        client.lose()
        client.come_back()
        client.send("next")
        assert client.heartbeat() == 2
        client.wire.send(CLOSE, close_payload(1000))
        assert not select.select([client.wire.sock], [], [], 0.2)[0]
        handler.go_on.set()
        assert client.all(2) == ["echo slow", "echo next"]
        assert client.receive_close() == (1000, "")


def test_a_shutdown_ends_suspended_sessions_once(world):
    with Speaker(world.port).begin() as client:
        world.wait_for("open")
        client.lose()
        world.wait_for("open", SUSPEND)
        world.app.shutdown(DEADLINE_S)
        assert world.handler.calls == ["open", SUSPEND, ("close", 1001, "server shutting down")]


@pytest.mark.parametrize(
    ("go", "end"),
    [
        (Speaker.lose, ("close", 1006, "connection lost")),
        (lambda client: client.wire.send(CLOSE, close_payload(4901)), ("close", 4901, "")),
    ],
    ids=["lost", "left"],
)
def test_more_than_max_suspended_sessions_end_at_once(go, end):
    handler = Story()
    served = endpoint(handler, resume_s=60, max_suspended_sessions=1)
    with served as (_, port), Speaker(port).begin() as one, Speaker(port).begin() as two:
        wait_until(lambda: handler.calls == ["open", "open"])
        one.lose()
        wait_until(lambda: SUSPEND in handler.calls)
        go(two)
        wait_until(lambda: end in handler.calls)
        assert handler.calls.count(SUSPEND) == 1
        assert one.come_back().resumed
        assert two.come_back().why == "unknown"


def test_the_application_s_own_subprotocol_is_told_in_the_welcome():
    class Chat(Story):
        def on_message(self, session, message):
            session.send(f"{session.subprotocol} {session.request.subprotocols}")

    offer = {"Sec-WebSocket-Protocol": "wsthreads.1, soap, chat"}
    with endpoint(Chat(), subprotocols=["chat"]) as (_, port), Speaker(port, headers=offer).begin() as client:
        assert client.welcome.protocol == "chat"
        client.send("x")
        assert client.next() == "chat ('soap', 'chat')"


def test_the_first_message_has_to_be_a_hello(world):
    for message in ["x", "\x10a0", "\x10w{}", envelope.request(1, "x"), "\x10?"]:
        with Speaker(world.port).open() as client:
            client.put(message)
            assert client.receive_close()[0] == 1002
    assert world.handler.calls == []


def test_a_client_without_a_hello_is_closed_in_time():
    with endpoint(Story(), handshake_timeout_s=1) as (_, port), Speaker(port).open() as client:
        assert client.receive_close() == (1002, "no hello within 1 s")
