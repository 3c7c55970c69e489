"""Requests in both directions, between a server and a client that speaks ``wsthreads.1``."""

import threading

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.speakers import Speaker
from tests.wire import CLOSE, RawClient, close_payload, endpoint
from wsthreads import MessageTypeError, RequestError, RequestTimeout, SessionClosed, UsageError
from wsthreads.protocol import envelope
from wsthreads.protocol.envelope import Failure, NullReply, Reply, Request
from wsthreads.testing.timers import ManualTimers


class Asker:
    """Asks its client when it is told to, and keeps the outcomes and the order of all calls."""

    def __init__(self):
        self.calls, self.sessions = [], []
        self.timeout = DEADLINE_S

    def on_open(self, session):
        self.sessions.append(session)

    def on_message(self, session, message):
        if message == "ask":
            try:
                self.calls.append(session.request("what?", timeout=self.timeout))
            except Exception as error:
                self.calls.append(error)
        else:
            self.calls.append(message)

    def on_request(self, session, message):
        if message == "refuse":
            raise RequestError("not today")
        if message == "fail":
            raise ValueError("a secret")
        if message == "wrong":
            return 5
        if message == "nothing":
            return None
        return message

    def on_suspend(self, session):
        self.calls.append("suspend")

    def on_resume(self, session):
        self.calls.append("resume")

    def on_close(self, session, code, reason):
        self.calls.append(("close", code))


@pytest.fixture(params=["plain TCP"])
def asker(request):
    handler = Asker()
    with endpoint(handler, resume_s=60, max_pending_requests=2) as (app, port):
        handler.app, handler.port = app, port
        yield handler


def wait_calls(handler, count):
    wait_until(lambda: len(handler.calls) >= count, f"{count} calls, not {handler.calls}")
    return handler.calls[:count]


def session_of(handler):
    wait_until(lambda: handler.sessions, "a session")
    return handler.sessions[-1]


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("text", Reply(1, "text")),
        ("\x10text", Reply(1, "\x10text")),
        ("", Reply(1, "")),
        (b"bytes", Reply(1, b"bytes")),
        ("nothing", NullReply(1)),
        ("refuse", Failure(1, "not today")),
        ("fail", Failure(1, "failed")),
        ("wrong", Failure(1, "failed")),
    ],
    ids=repr,
)
def test_a_request_of_the_client_is_answered_by_what_on_request_returns(asker, message, answer):
    with Speaker(asker.port).begin() as client:
        client.ask(1, message)
        assert client.next() == answer


def test_a_request_to_a_handler_without_on_request_is_refused():
    class Deaf:
        def on_message(self, session, message):
            pass

    with endpoint(Deaf()) as (_, port), Speaker(port).begin() as client:
        client.ask(1, "x")
        assert client.next() == Failure(1, "no handler: the server has no on_request")


def test_an_option_in_the_spelling_of_javascript_is_refused_by_the_name_of_the_right_one():
    class Wrong(Asker):
        def on_message(self, session, message):
            with pytest.raises(TypeError) as raised:
                session.request("what?", timeout_ms=5)
            session.send(str(raised.value))

    with endpoint(Wrong()) as (_, port), Speaker(port).begin() as client:
        client.send("ask")
        assert client.next() == "session.request takes the option timeout, in seconds, not timeout_ms"


@pytest.mark.parametrize("reply", ["text", b"bytes", "\x10", None], ids=repr)
def test_a_handler_may_wait_for_the_reply_of_its_own_client(asker, reply):
    with Speaker(asker.port).begin() as client:
        client.send("ask")
        assert client.next() == Request(1, "what?")
        client.send("meanwhile")
        client.put(envelope.null_reply(1) if reply is None else envelope.reply(1, reply))
        client.sent += 1
        assert wait_calls(asker, 2) == [reply, "meanwhile"]
        client.send("after")
        assert wait_calls(asker, 3)[2] == "after"
        assert client.heartbeat() == 4


def test_another_thread_may_ask(asker):
    with Speaker(asker.port).begin() as client:
        session, outcomes = session_of(asker), []
        thread = threading.Thread(target=lambda: outcomes.append(session.request(b"what?", timeout=DEADLINE_S)))
        thread.start()
        assert client.next() == Request(1, b"what?")
        client.put(envelope.reply(1, "this"))
        thread.join(DEADLINE_S)
        assert outcomes == ["this"]


def test_the_client_s_refusal_is_an_error_with_its_text(asker):
    with Speaker(asker.port).begin() as client:
        client.send("ask")
        assert client.next() == Request(1, "what?")
        client.put(envelope.failure(1, "no"))
        (error,) = wait_calls(asker, 1)
        assert type(error) is RequestError
        assert str(error) == "no"


def test_no_reply_in_time_is_a_timeout_and_a_late_one_is_ignored(asker):
    asker.timeout = 0.05
    with Speaker(asker.port).begin() as client:
        client.send("ask")
        assert client.next() == Request(1, "what?")
        (error,) = wait_calls(asker, 1)
        assert isinstance(error, RequestTimeout)
        assert isinstance(error, TimeoutError)
        assert str(error) == "no reply to a request within 0.05 s"
        client.put(envelope.reply(1, "late"))
        client.sent += 1
        client.send("go on")
        assert wait_calls(asker, 2)[1] == "go on"


def test_a_reply_that_waits_survives_a_lost_connection(asker):
    with Speaker(asker.port).begin() as client:
        client.send("ask")
        assert client.next() == Request(1, "what?")
        client.lose()
        wait_until(lambda: len(asker.app.endpoints[0].suspensions) == 1)
        client.come_back()
        client.put(envelope.reply(1, "here I am"))
        calls = wait_calls(asker, 3)
        assert calls == ["here I am", "suspend", "resume"]


def test_a_request_that_the_client_has_not_received_is_sent_again(asker):
    with Speaker(asker.port).begin() as client:
        client.send("ask")
        wait_until(lambda: session_of(asker)._channel.outbox.written == 1)
        client.lose()
        wait_until(lambda: len(asker.app.endpoints[0].suspensions) == 1)
        client.come_back()
        assert client.next() == Request(1, "what?")


def test_the_end_of_the_session_ends_a_request(asker):
    with Speaker(asker.port).begin() as client:
        client.send("ask")
        assert client.next() == Request(1, "what?")
        session_of(asker).close(4000)
        assert isinstance(wait_calls(asker, 1)[0], SessionClosed)
        client.wire.send(CLOSE, close_payload(4000))
        assert wait_calls(asker, 2)[1] == ("close", 4000)
        with pytest.raises(SessionClosed):
            session_of(asker).request("x")


def test_a_client_that_closes_by_its_next_connection_ends_a_request_of_before(asker):
    asker.timeout = 3600.0
    with Speaker(asker.port).begin() as client:
        client.send("ask")
        assert client.next() == Request(1, "what?")
        before, client.wire = client.wire, None  # it stays open
        client.come_back()
        client.wire.send(CLOSE, close_payload(1000))
        assert client.receive_close() == (1000, "")
        calls = wait_calls(asker, 4)
        assert isinstance(calls[0], SessionClosed)
        assert calls[1:] == ["suspend", "resume", ("close", 1000)]
        before.sock.close()


def test_a_session_that_is_closed_while_suspended_ends_a_request(asker):
    with Speaker(asker.port).begin() as client:
        client.send("ask")
        assert client.next() == Request(1, "what?")
        client.lose()
        wait_until(lambda: len(asker.app.endpoints[0].suspensions) == 1)
        session_of(asker).close(4000)
        assert isinstance(wait_calls(asker, 1)[0], SessionClosed)
        wait_until(lambda: asker.calls[-1] == ("close", 4000))


def test_a_request_while_the_client_is_away_is_answered_when_it_is_back(asker):
    with Speaker(asker.port).begin() as client:
        session, outcomes = session_of(asker), []
        client.lose()
        wait_until(lambda: len(asker.app.endpoints[0].suspensions) == 1)
        thread = threading.Thread(target=lambda: outcomes.append(session.request("there?", timeout=DEADLINE_S)))
        thread.start()
        client.come_back()
        assert client.next() == Request(1, "there?")
        client.put(envelope.reply(1, "yes"))
        thread.join(DEADLINE_S)
        assert outcomes == ["yes"]


def test_a_plain_client_cannot_be_asked(asker):
    with RawClient(asker.port) as client:
        client.text("ask")
        assert str(wait_calls(asker, 1)[0]) == "this client cannot take requests: it does not speak wsthreads.1"


def test_only_text_and_bytes_are_requests(asker):
    with Speaker(asker.port).begin(), pytest.raises(MessageTypeError, match="must be text or bytes, not dict"):
        session_of(asker).request({"a": 1})


def test_a_handshake_without_a_session_sends_no_request():
    errors = []

    class Early:
        def on_handshake(self, request):
            try:
                request("x")
            except UsageError as error:
                errors.append(str(error))

        def on_message(self, session, message):
            pass

    with endpoint(Early()) as (_, port), RawClient(port):
        assert "this handshake has no open session" in errors[0]


def test_more_requests_than_max_pending_requests_are_an_error_here(asker):
    with Speaker(asker.port).begin() as client:
        session, outcomes = session_of(asker), []
        for _ in range(3):
            session._ask("x", None, outcomes.append)
        (error,) = outcomes
        assert str(error) == "at most 2 requests to a client may be unanswered (max_pending_requests)"
        assert client.all(2) == [Request(1, "x"), Request(2, "x")]
        client.put(envelope.reply(2, "b"))
        wait_until(lambda: outcomes[1:] == ["b"])
        session._ask("y", None, outcomes.append)
        assert client.next() == Request(3, "y")


def test_more_requests_of_the_client_are_refused_at_once_and_count():
    began, go_on = threading.Event(), threading.Event()

    class Slow:
        def on_request(self, session, message):
            began.set()
            assert go_on.wait(DEADLINE_S)
            return message

    with endpoint(Slow(), resume_s=60, max_pending_requests=1) as (_, port), Speaker(port).begin() as client:
        # The connection's thread waits in the handler, so another connection brings the next ones.
        client.ask(1, "a")
        assert began.wait(DEADLINE_S)
        client.come_back()
        client.ask(2, "b")
        assert client.next() == Failure(2, "too many requests")
        go_on.set()
        assert client.next() == Reply(1, "a")
        assert client.heartbeat() == 2
        client.ask(3, "c")
        assert client.next() == Reply(3, "c")


@pytest.mark.parametrize(
    "message",
    [
        envelope.request(2, "x"),
        envelope.reply(1, "x"),
        envelope.null_reply(7),
        envelope.failure(1, "x"),
        "\x10q0:x",
        "\x10q1",
        "\x10q01:x",
        b"\x10n1",
        b"\x10q1",
    ],
    ids=repr,
)
def test_an_id_that_cannot_be_is_a_protocol_error(asker, message):
    with Speaker(asker.port).begin() as client:
        client.put(message)
        assert client.receive_close()[0] == 1002


def test_an_id_is_not_used_twice(asker):
    with Speaker(asker.port).begin() as client:
        client.ask(1, "x")
        assert client.next() == Reply(1, "x")
        client.ask(1, "x")
        assert client.receive_close() == (1002, "the next request must be 2, not 1")


def test_the_timer_of_a_request_ends_with_the_request(asker):
    with Speaker(asker.port).begin() as client:
        session, outcomes = session_of(asker), []
        timers = session._channel.requests._timers = ManualTimers()
        for number in (1, 2):
            session._ask("x", 3600, outcomes.append)
            assert client.next() == Request(number, "x")
        client.put(envelope.reply(1, "a"))
        wait_until(lambda: outcomes == ["a"])
        assert [entry[2].callback is None for entry in sorted(timers._timers)] == [True, False]
        client.leave()
    wait_until(lambda: len(outcomes) == 2)
    assert all(entry[2].callback is None for entry in timers._timers)
    assert not session._channel.requests._clocks


def test_a_request_without_a_waiting_thread_is_too_late_by_the_clock(asker):
    with Speaker(asker.port).begin() as client:
        session, outcomes = session_of(asker), []
        timers = session._channel.requests._timers = ManualTimers()
        session._ask("x", 3600, outcomes.append)
        assert client.next() == Request(1, "x")
        timers.advance(3599)
        assert outcomes == []
        timers.advance(1)
        assert [type(outcome) for outcome in outcomes] == [RequestTimeout]
        client.put(envelope.reply(1, "late"))
        client.sent += 1
        assert client.heartbeat() == 1
