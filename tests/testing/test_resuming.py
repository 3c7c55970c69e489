"""`play`'s clients lose their connections, come back, and send requests; in both languages."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest

from wsthreads import (
    HandshakeRefused,
    PostError,
    RequestError,
    RequestTimeout,
    SessionClosed,
    UsageError,
    WebSocketApp,
    WSThreadsError,
)
from wsthreads.testing import HandlerFailed, play

JS = """
import { RequestError, sessions } from "wsthreads";

export function onHandshake(request) {
  if (request.getParameter("token") === "expired") return 401;
  request.setUser(request.getParameter("user"));
}
const tell = (session, what) => session.room("journal").broadcast(`${what} ${session.user}`);
export function onOpen(session) {
  tell(session, "open");
  session.room("chat").join();
  if (session.user === "journal") session.room("journal").join();
}
export async function onMessage(session, message) {
  if (message.startsWith("ask ")) tell(session, `heard ${await session.request(message.slice(4))}`);
  else if (message.startsWith("demand ")) {
    const [, user, what] = message.split(" ");
    const other = sessions().find((each) => each.user === user);
    try { tell(session, `heard ${await other.request(what)}`); } catch (error) { tell(session, error.name); }
  }
  else if (message === "fail") throw new Error("no such message");
  else session.room("chat").broadcast(message);
}
export function onRequest(session, message) {
  if (message === "nothing") return;
  if (message === "refuse") throw new RequestError("not you");
  if (message === "fail") throw new Error("a bug");
  if (message === "wait") return new Promise(() => {});
  return `${message}?`;
}
export const onSuspend = (session) => tell(session, "suspend");
export const onResume = (session) => tell(session, "resume");
export const onClose = (session, code, reason) => tell(session, `close ${code} ${reason}`.trim());
"""


class Handler:
    def on_handshake(self, request):
        if request.get_parameter("token") == "expired":
            return 401
        request.user = request.get_parameter("user")
        return None

    def tell(self, session, what):
        session.room("journal").broadcast(f"{what} {session.user}")

    def on_open(self, session):
        self.tell(session, "open")
        session.room("chat").join()
        if session.user == "journal":
            session.room("journal").join()

    def on_message(self, session, message):
        if message.startswith("ask "):
            self.tell(session, f"heard {session.request(message[4:])}")
        elif message.startswith("demand "):
            _, user, what = message.split()
            other = next(each for each in session.endpoint.sessions() if each.user == user)
            try:
                self.tell(session, f"heard {other.request(what)}")
            except WSThreadsError as error:
                self.tell(session, type(error).__name__)
        elif message == "fail":
            raise ValueError("no such message")
        else:
            session.room("chat").broadcast(message)

    def on_request(self, session, message):
        if message == "nothing":
            return None
        if message == "refuse":
            raise RequestError("not you")
        if message == "fail":
            raise ValueError("a bug")
        return f"{message}?"

    def on_suspend(self, session):
        self.tell(session, "suspend")

    def on_resume(self, session):
        self.tell(session, "resume")

    def on_close(self, session, code, reason):
        self.tell(session, f"close {code} {reason}".strip())


@contextmanager
def deadline(chat, deadline_s):
    """Have what must wait too long wait for less, and nothing else."""
    chat._deadline_s, usual_s = deadline_s, chat._deadline_s
    try:
        yield
    finally:
        chat._deadline_s = usual_s


@pytest.fixture(params=["python", "javascript"])
def target(request, tmp_path):
    if request.param == "python":
        return Handler
    file = tmp_path / "handler.js"
    file.write_text(JS)
    return file


@pytest.fixture
def chat(target):
    with play(target, resume_s=60) as chat:
        yield chat


@pytest.fixture
def journal(chat):
    return chat.connect(user="journal")


def test_a_client_that_comes_back_gets_what_it_missed_once_and_in_order(chat, journal):
    ann, bob = chat.connect(user="ann"), chat.connect(user="bob")
    session = ann.session
    journal.take()
    ann.lose()
    assert ann.closed == (1006, "")
    assert not ann.is_open
    assert not session.is_connected()
    for text in ("one", "two"):
        bob.send(text)
    assert ann.take() == []
    ann.come_back()
    bob.send("three")
    assert ann.take() == ["one", "two", "three"]
    assert (ann.resumed, ann.is_open, ann.session) == (True, True, session)
    assert [text for text in journal.take() if text.endswith(" ann")] == ["suspend ann", "resume ann"]


def test_what_a_client_sends_while_it_is_away_is_handled_when_it_is_back(chat):
    ann, bob = chat.connect(user="ann"), chat.connect(user="bob")
    ann.lose()
    ann.send("one")
    ann.send("two")
    assert bob.take() == []
    ann.come_back()
    assert bob.take() == ["one", "two"]


def test_the_window_ends_when_the_clock_is_moved(chat, journal):
    ann = chat.connect(user="ann")
    former = ann.session
    journal.take()
    ann.lose()
    chat.advance(59.9)
    assert journal.take() == ["suspend ann"]
    chat.advance(0.1)
    assert journal.take() == ["close 1006 not back within 60 s ann"]
    ann.come_back()
    assert not ann.resumed
    assert ann.session is not former
    assert journal.take() == ["open ann"]


def test_each_return_begins_a_new_window(chat, journal):
    ann = chat.connect(user="ann")
    journal.take()
    for _ in range(3):
        ann.lose()
        chat.advance(59)
        ann.come_back()
        assert ann.resumed
    assert journal.take() == ["suspend ann", "resume ann"] * 3


def test_without_resume_s_a_lost_connection_is_the_end_of_the_session(target):
    with play(target) as chat:
        journal, ann = chat.connect(user="journal"), chat.connect(user="ann")
        journal.take()
        ann.lose()
        assert journal.take() == ["close 1006 connection lost ann"]
        with pytest.raises(ConnectionError, match="no session to come back to"):
            ann.come_back()
        with pytest.raises(ConnectionError, match="cannot send"):
            ann.send("x")


def test_a_client_that_has_closed_cannot_come_back(chat, journal):
    ann = chat.connect(user="ann")
    journal.take()
    ann.close(4000, "bye")
    assert journal.take() == ["close 4000 bye ann"]
    with pytest.raises(ConnectionError, match="no session to come back to"):
        ann.come_back()


def test_a_connection_that_is_still_open_is_replaced(chat, journal):
    ann = chat.connect(user="ann")
    session = ann.session
    journal.take()
    ann.come_back()
    assert (ann.resumed, ann.session) == (True, session)
    ann.send("here")
    assert ann.take() == ["here"]
    assert journal.take() == ["suspend ann", "resume ann", "here"]


def test_a_client_that_was_kicked_while_it_was_away_is_told_so_when_it_comes_back(chat, journal):
    ann = chat.connect(user="ann")
    journal.take()
    ann.lose()
    chat.user("ann").close(4001, "out")
    chat.settle()
    assert journal.take() == ["suspend ann", "close 4001 out ann"]
    ann.come_back()
    assert ann.closed == (4001, "out")
    assert journal.take() == []
    with pytest.raises(ConnectionError, match="no session to come back to"):
        ann.come_back()


def test_a_return_may_be_refused_and_tried_again_with_another_token(chat, journal):
    ann = chat.connect(user="ann", token="1")
    session = ann.session
    journal.take()
    ann.lose()
    with pytest.raises(HandshakeRefused, match="401"):
        ann.come_back(token="expired")
    ann.come_back(token="2")
    assert ann.resumed
    assert session.get_parameter("token") == "2"
    assert journal.take() == ["suspend ann", "resume ann"]


def test_a_handler_s_error_is_raised_by_the_return_that_caused_it(chat):
    ann = chat.connect(user="ann")
    ann.lose()
    ann.send("fail")
    with pytest.raises((ValueError, HandlerFailed), match="no such message"):
        ann.come_back()


def test_a_request_returns_what_the_handler_returns(chat):
    ann = chat.connect(user="ann")
    assert ann.request("who") == "who?"
    assert ann.request("nothing") is None
    assert ann.take() == []


def test_a_refused_request_raises_the_handler_s_text(chat):
    with pytest.raises(RequestError, match="not you"):
        chat.connect(user="ann").request("refuse")
    assert chat.errors == []


def test_a_request_that_fails_raises_the_handler_s_error(chat):
    with pytest.raises((ValueError, HandlerFailed), match="a bug"):
        chat.connect(user="ann").request("fail")


def test_a_client_answers_the_requests_of_the_handler(chat, journal):
    ann = chat.connect(user="ann")
    ann.on_request = lambda message: message.upper()
    journal.take()
    ann.send("ask where")
    assert journal.take() == ["heard WHERE ann"]


def test_a_client_that_is_asked_as_soon_as_it_is_there_answers(tmp_path):
    class Python:
        def on_open(self, session):
            session.send(session.request("who?"))

    script = tmp_path / "asks.js"
    script.write_text('export async function onOpen(session) { session.send(await session.request("who?")); }')
    for target in (Python, script):
        with play(target) as chat:
            ann = chat.connect(on_request=lambda message: f"{message} ann", user="ann")
            assert ann.receive() == "who? ann"
            assert ann.session.request.get_parameter("user") == "ann"


def test_an_error_of_on_request_is_raised_by_the_call_that_caused_it(target):
    with play(target, resume_s=60) as chat:
        ann = chat.connect(user="ann")

        def wrong(message):
            raise KeyError(message)

        ann.on_request = wrong
        with pytest.raises(KeyError, match="where"):
            ann.send("ask where")


def test_a_request_of_a_client_that_is_away_is_handled_when_it_is_back(chat):
    ann = chat.connect(user="ann")
    ann.lose()
    with pytest.raises(RequestTimeout):
        ann.request("who", timeout_s=0.01)
    ann.come_back()
    assert ann.resumed
    assert ann.request("again") == "again?"


def test_a_request_of_the_handler_to_a_client_that_is_away_times_out_in_real_seconds(target):
    with play(target, resume_s=60, request_timeout_s=0.05) as chat:
        journal, ann, bob = (chat.connect(user=user) for user in ("journal", "ann", "bob"))
        ann.lose()
        journal.take()
        bob.send("demand ann where")
        assert journal.take() == ["RequestTimeout bob"]
        asked = []
        ann.on_request = asked.append
        ann.come_back()  # it is asked, and its answer comes too late
        assert ann.resumed
        assert asked == ["where"]


def test_a_call_that_waits_for_a_client_that_is_away_is_waited_for_until_the_deadline(target):
    with play(target, resume_s=60, request_timeout_s=3600, script_wait_s=3600) as chat:
        journal, ann, bob = (chat.connect(user=user) for user in ("journal", "ann", "bob"))
        ann.on_request = lambda message: message.upper()
        ann.lose()
        journal.received.clear()
        with deadline(chat, 0.2), pytest.raises(TimeoutError, match=r"a call of the handler .*has not returned in"):
            bob.send("demand ann where")
        ann.come_back()
        assert ann.resumed
        assert "heard WHERE bob" in journal.received


def test_a_post_is_waited_for_until_the_deadline():
    posted, may_end = threading.Event(), threading.Event()

    class Slow:
        def on_open(self, session):
            session.room("desk").join()

        def on_post(self, room, value, sender):
            posted.set()
            may_end.wait()

    with play(Slow, post_timeout_s=3600) as desk:
        desk.connect()
        try:
            with deadline(desk, 0.2), pytest.raises(PostError, match=r"0\.2 s"):
                desk.room("desk").post("a value")
            with deadline(desk, 0.2), pytest.raises(TimeoutError, match=r"has not returned in 0\.2 s"):
                desk.settle()
        finally:
            may_end.set()
        assert posted.is_set()


def test_a_request_on_a_connection_that_is_closed_is_an_error(chat):
    ann = chat.connect(user="ann")
    ann.close()
    with pytest.raises((ConnectionError, SessionClosed)):
        ann.request("who")


def test_a_plain_client_has_no_requests_and_no_second_chance(chat, journal):
    ann = chat.connect(user="ann", plain=True)
    with pytest.raises(UsageError, match="a plain client cannot send requests"):
        ann.request("who")
    journal.take()
    ann.lose()
    assert journal.take() == ["close 1006 connection lost ann"]


def test_the_end_of_a_play_closes_the_sessions_that_wait(target):
    with play(target, resume_s=60) as chat:
        journal, ann = chat.connect(user="journal"), chat.connect(user="ann")
        journal.take()
        ann.lose()
        app = chat.app
    assert app.session_count == 0


def test_an_app_of_one_s_own_has_no_suspended_session_afterwards():
    closed = []

    class Closes(Handler):
        def on_close(self, session, code, reason):
            closed.append((code, reason))

    app = WebSocketApp(resume_s=60)
    app.add_handler("/ws", Closes())
    with play(app) as chat:
        ann, bob = chat.connect(user="ann"), chat.connect(user="bob")
        ann.lose()
    assert closed == [(1006, "not back within 60 s")] * 2
    assert app.session_count == 0
    assert len(app.endpoint("/ws").suspensions) == 0
    assert bob.closed == (1006, "")
    app.shutdown()
