"""`wsthreads.testing`: a contract that `play` and a real server both keep, and what only `play` has."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
from flask import Flask
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.programs import DEADLINE_S, EXAMPLES, PROGRAM_S, ROOT, connect, wait_until
from wsthreads import HandlerError, HandshakeRefused, MessageTypeError, ScriptError, UsageError, WebSocketApp
from wsthreads.brokers.redis import RedisBroker
from wsthreads.testing import Client, HandlerFailed, live_server, play

#: The same handler in both languages: each message is a command.
JS = """
export function onHandshake(request) {
  if (request.getParameter("user") === "eve") return 401;
  request.setAttribute("user", request.getParameter("user"));
  if (request.getSubprotocols().includes("v2")) return "v2";
}
export function onOpen(session) {
  session.room("all").join();
  session.send(`welcome ${session.getAttribute("user")}`);
  if (session.getParameter("user") === "brief") session.close(4001, "no time");
}
export function onMessage(session, message) {
  const room = session.room("all");
  if (typeof message !== "string") return session.send(message);
  const [command, rest] = [message.split(" ", 1)[0], message.slice(message.indexOf(" ") + 1)];
  if (command === "say") room.broadcastExcept(rest);
  else if (command === "all") { session.send("before"); room.broadcast(rest); session.send("after"); }
  else if (command === "count") session.send(String(room.members()));
  else if (command === "leave") room.leave();
  else if (command === "where") session.send(session.rooms().join());
  else if (command === "close") { session.close(4002, rest); session.send("never"); }
  else if (command === "who") session.send([session.getHeader("X-Who"), session.getRequestPath()].join());
  else if (command === "later") setTimeout(() => session.send("it is later"), 20);
  else if (command === "fail") throw new Error("on purpose");
}
export function onClose(session, code, reason) {
  session.room("all").broadcastExcept(`${session.getAttribute("user")} has left: ${code} ${reason}`);
}
export function onError(session, error) { session.send("sorry"); }
"""

PY = """
import threading

def on_handshake(request):
    if request.get_parameter("user") == "eve":
        return 401
    request.attributes["user"] = request.get_parameter("user")
    return "v2" if "v2" in request.subprotocols else None

def on_open(session):
    session.room("all").join()
    session.send(f"welcome {session.attributes['user']}")
    if session.get_parameter("user") == "brief":
        session.close(4001, "no time")

def on_message(session, message):
    room = session.room("all")
    if isinstance(message, bytes):
        session.send(message)
        return
    command, _, rest = message.partition(" ")
    if command == "say":
        room.broadcast_except(rest)
    elif command == "all":
        session.send("before")
        room.broadcast(rest)
        session.send("after")
    elif command == "count":
        session.send(str(room.members()))
    elif command == "leave":
        room.leave()
    elif command == "where":
        session.send(",".join(session.rooms()))
    elif command == "close":
        session.close(4002, rest)
        session.send("never")
    elif command == "who":
        session.send(f"{session.get_header('X-Who')},{session.request_path}")
    elif command == "later":
        timer = threading.Timer(0.02, session.send, ["it is later"])
        timer.start()
    elif command == "fail":
        raise ValueError("on purpose")

def on_close(session, code, reason):
    session.room("all").broadcast_except(f"{session.attributes['user']} has left: {code} {reason}")

def on_error(session, error):
    session.send("sorry")
"""


class LiveClient:
    """A client of a real server, by python-websockets, with as much of `Client` as the contract needs."""

    def __init__(self, stack, url, headers, subprotocols):
        options = {"additional_headers": headers, "subprotocols": subprotocols or None}
        try:
            self._client = stack.enter_context(connect(url, **options))
        except InvalidStatus as error:
            raise HandshakeRefused(error.response.status_code, error.response.body.decode()) from None
        self.subprotocol = self._client.subprotocol

    def send(self, message):
        self._client.send(message)

    def receive(self):
        return self._client.recv(timeout=DEADLINE_S)

    def close(self, code=1000, reason=""):
        self._client.close(code, reason)

    def lose(self):
        self._client.socket.shutdown(2)

    def wait_closed(self):
        with pytest.raises(ConnectionClosed) as caught:
            while True:
                self.receive()  # that somebody else has left may come before
        frame = caught.value.rcvd
        return (frame.code, frame.reason) if frame else (1006, "")


class LivePlay:
    def __init__(self, server, stack):
        self._server, self._stack = server, stack

    def connect(self, *, headers=None, subprotocols=(), **parameters):
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        url = f"{self._server.ws_url}/ws/crew?{query}"
        return LiveClient(self._stack, url, headers or {}, list(subprotocols))


@contextmanager
def live_play(file, **settings):
    with live_server(file, **settings) as server, ExitStack() as stack:
        yield LivePlay(server, stack)


@contextmanager
def memory_play(file, **settings):
    with play(file, raise_errors=False, deadline_s=DEADLINE_S, **settings) as crew:
        yield crew


@pytest.fixture(params=["crew.js", "crew.py"])
def file(request, tmp_path):
    path = tmp_path / request.param
    path.write_text(JS if path.suffix == ".js" else PY)
    return path


@pytest.fixture(params=[memory_play, live_play], ids=["play", "server"])
def crew(request, file):
    with request.param(file, max_message_bytes=1000, max_sessions=3) as crew:
        yield crew


def enter(crew, user, **options):
    client = crew.connect(user=user, **options)
    assert client.receive() == f"welcome {user}"
    return client


def answer(client, message):
    client.send(message)
    return client.receive()


# The contract


def test_messages_go_to_their_rooms_in_order(crew):
    ann, bob = enter(crew, "ann"), enter(crew, "bob")
    ann.send("say one")
    assert bob.receive() == "one"
    bob.send("all two")
    assert [bob.receive() for _ in range(3)] == ["before", "two", "after"]
    assert ann.receive() == "two"
    ann.send("say three")
    ann.send("all four")
    assert [bob.receive() for _ in range(2)] == ["three", "four"]
    assert [ann.receive() for _ in range(3)] == ["before", "four", "after"]


def test_text_and_binary_are_told_apart(crew):
    ann = enter(crew, "ann")
    ann.send(b"\x00\xff")
    assert ann.receive() == b"\x00\xff"
    ann.send("say")
    ann.send("where ☃")
    assert ann.receive() == "all"


def test_rooms_are_left_and_counted(crew):
    ann, bob = enter(crew, "ann"), enter(crew, "bob")
    ann.send("leave")
    ann.send("count")
    assert ann.receive() == "1"
    bob.send("say nobody hears this")
    bob.send("count")
    assert bob.receive() == "1"
    ann.send("where")
    assert ann.receive() == ""


@pytest.mark.parametrize(("end", "told"), [
    (lambda client: client.close(), "1000 "),
    (lambda client: client.close(4000, "bye"), "4000 bye"),
    (lambda client: client.lose(), "1006 connection lost"),
    (lambda client: client.send("close so long"), "4002 so long"),
], ids=["close", "close with code", "lost", "closed by the handler"])  # fmt: skip
def test_an_end_is_told_to_the_others(crew, end, told):
    ann, bob = enter(crew, "ann"), enter(crew, "bob")
    end(bob)
    assert ann.receive() == f"bob has left: {told}"
    wait_until(lambda: answer(ann, "count") == "1")  # a member of its rooms until onClose has returned


def test_close_codes_of_the_server(crew):
    ann = enter(crew, "ann")
    ann.send("close enough")
    assert ann.wait_closed() == (4002, "enough")
    brief = crew.connect(user="brief")
    assert brief.receive() == "welcome brief"
    assert brief.wait_closed() == (4001, "no time")
    big = enter(crew, "big")
    big.send("x" * 1001)
    assert big.wait_closed()[0] == 1009


def test_handshakes_are_refused_with_their_status(crew):
    with pytest.raises(HandshakeRefused) as refused:
        crew.connect(user="eve")
    assert refused.value.status == 401
    with pytest.raises(HandshakeRefused) as refused:
        crew.connect(headers={"Origin": "https://elsewhere.example"})
    assert refused.value.status == 403
    clients = [enter(crew, user) for user in ("ann", "bob", "cid")]
    with pytest.raises(HandshakeRefused) as refused:
        crew.connect(user="dee")
    assert refused.value.status == 503
    assert [client.subprotocol for client in clients] == [None] * 3


def test_handshakes_carry_headers_and_subprotocols(crew):
    ann = enter(crew, "ann", headers={"X-Who": "me"}, subprotocols=["v1", "v2"])
    assert ann.subprotocol == "v2"
    ann.send("who")
    assert ann.receive() == "me,/ws/crew"


def test_what_comes_later_can_be_waited_for(crew):
    ann = enter(crew, "ann")
    ann.send("later")
    assert ann.receive() == "it is later"


def test_an_error_ends_only_its_call(crew):
    ann = enter(crew, "ann")
    ann.send("fail")
    assert ann.receive() == "sorry"
    ann.send("where")
    assert ann.receive() == "all"


# What only play has


def test_everything_has_happened_when_a_call_returns(file):
    with play(file) as crew:
        clients = [crew.connect(user=str(number)) for number in range(20)]
        for client in clients:
            client.take()
        for number, client in enumerate(clients):
            client.send(f"say {number}")
        for number, client in enumerate(clients):
            assert client.take() == [str(other) for other in range(20) if other != number]
        assert crew.room("all").members() == 20
        crew.room("all").broadcast("from outside")
        assert [client.take() for client in clients] == [["from outside"]] * 20
        clients[0].lose()
        assert clients[1].take() == ["0 has left: 1006 connection lost"]
        assert (clients[0].closed, clients[0].is_open, len(crew.clients)) == ((1006, ""), False, 19)
        clients[3].send("close now")
        assert clients[3].closed == (4002, "now")
        assert "never" not in clients[3].received


def test_what_a_handler_throws_is_raised_by_the_call_that_set_it_off(file):
    kind = HandlerFailed if file.suffix == ".js" else ValueError
    with play(file) as crew:
        ann = crew.connect(user="ann")
        with pytest.raises(kind, match="on purpose") as caught:
            ann.send("fail")
        assert ann.received[-1] == "sorry"
        ann.send("where")
        assert ann.received[-1] == "all"
        assert crew.errors == [caught.value]
    if kind is HandlerFailed:
        assert "crew.js:24:" in str(caught.value)


def test_an_error_that_nobody_has_seen_is_raised_in_the_end(tmp_path):
    class Late:
        def on_close(self, session):
            raise ValueError("too late")

    with pytest.raises(ValueError, match="too late"), play(Late) as late:
        late.connect()
    with pytest.raises(KeyError), play(Late) as late:
        late.connect()
        raise KeyError("the test's own comes first")


def test_errors_in_a_handshake_are_the_handler_s(tmp_path):
    script = tmp_path / "guard.js"
    script.write_text("export function onHandshake() { null.x }")
    with play(script) as guard, pytest.raises(HandlerFailed, match=r"guard\.js:1"):
        guard.connect()
    with play(script, raise_errors=False) as guard, pytest.raises(HandshakeRefused) as refused:
        guard.connect()
    assert refused.value.status == 500
    assert len(guard.errors) == 1


def test_promises_of_a_script_are_waited_for(tmp_path):
    script = tmp_path / "slow.js"
    script.write_text(
        "const later = (ms) => new Promise((resolve) => setTimeout(resolve, ms));\n"
        "export async function onOpen(session) { await later(10); session.send('open') }\n"
        "export async function onMessage(session, message) {\n"
        "  await later(10);\n"
        "  Promise.resolve().then(() => session.send(message));\n"
        "}\n"
    )
    with play(script) as slow:
        ann = slow.connect()
        assert ann.received == ["open"]
        ann.send("x")
        assert ann.received == ["open", "x"]


def test_promise_jobs_that_nobody_waits_for_are_done_too(tmp_path):
    script = tmp_path / "jobs.js"
    script.write_text(
        "const work = () => { for (const begin = Date.now(); Date.now() < begin + 2;); };\n"
        "export function onMessage(session, message) {\n"
        "  let done = Promise.resolve();\n"
        "  for (let n = 0; n < 30; n++) done = done.then(work);\n"
        "  done.then(() => session.send(message));\n"
        "}\n"
    )
    with play(script) as jobs:
        ann = jobs.connect()
        ann.send("x")
        assert ann.received == ["x"]


def test_a_python_session_can_be_looked_into():
    class Memory:
        def on_message(self, session, message):
            session.attributes["last"] = message

    with play(Memory) as memory:
        ann = memory.connect()
        ann.send("this")
        assert ann.session.attributes == {"last": "this"}
        assert ann.session.is_open()


def test_a_handler_that_does_not_return_is_a_timeout():
    let_go = threading.Event()

    class Stuck:
        def on_message(self, session, message):
            let_go.wait(DEADLINE_S)

    with play(Stuck, deadline_s=0.1) as stuck:
        ann = stuck.connect()
        with pytest.raises(TimeoutError, match=r"has not returned in 0\.1 s"):
            ann.send("x")
        with pytest.raises(TimeoutError):
            ann.receive(0.01)
        let_go.set()


def test_a_timer_that_fails_is_raised_where_its_message_is_waited_for(tmp_path):
    script = tmp_path / "timer.js"
    script.write_text("export function onOpen(session) { setTimeout(() => session.nothing(), 1) }\n")
    with play(script) as timer, pytest.raises(HandlerFailed, match=r"setTimeout(.|\n)*timer\.js:1"):
        timer.connect().receive(timeout_s=DEADLINE_S / 20)


def test_what_is_no_message_is_refused(file):
    with play(file) as crew, pytest.raises(MessageTypeError, match=r"not dict; try json\.dumps"):
        crew.connect(user="ann").send({"type": "x"})


def test_what_is_closed_says_so(file):
    with play(file) as crew:
        ann = crew.connect(user="ann")
        ann.close()
        ann.close()
        with pytest.raises(ConnectionError, match="it is closed"):
            ann.send("x")
        ann.take()
        with pytest.raises(ConnectionError, match="no message will come"):
            ann.receive()
        assert isinstance(ann, Client)


def test_an_app_of_one_s_own_goes_on_afterwards():
    app = WebSocketApp()

    @app.route("/ws/one")
    class One:
        def on_open(self, session):
            session.send("one")

    app.add_handler("/ws/two", type("Two", (), {"on_open": lambda self, session: session.send("two")}))
    for _ in range(2):
        with play(app) as both:
            assert both.connect(path="/ws/two").received == ["two"]
            with pytest.raises(UsageError, match="/ws/one, /ws/two"):
                both.connect()
        with play(app, "/ws/one") as one:
            assert one.connect().received == ["one"]
        assert app.session_count == 0
    with pytest.raises(UsageError, match="max_sessions"):
        play(app, max_sessions=3)
    app.shutdown()


def test_no_thread_is_left(file):
    before = set(threading.enumerate())
    with play(file) as crew:
        crew.connect(user="ann")
    for thread in set(threading.enumerate()) - before:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_a_play_that_has_ended_connects_no_client():
    class Quiet:
        def on_open(self, session):
            session.send("hi")

    app = WebSocketApp()
    app.add_handler("/ws/quiet", Quiet)
    for target in (Quiet, app):  # the app would let it in, and nobody would end it
        with play(target) as ended:
            assert ended.connect().receive() == "hi"
        with pytest.raises(UsageError, match="this play has ended"):
            ended.connect()
    assert app.endpoint("/ws/quiet").sessions() == []


def test_the_fixtures_end_what_they_began(tmp_path):
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["wsthreads.testing.fixtures"]\n')
    (tmp_path / "test_it.py").write_text(
        "import threading, urllib.request, urllib.error\n"
        "import pytest\n"
        f"CHAT = {str(EXAMPLES / 'chat.py')!r}\n"
        "def test_play(play):\n"
        "    assert len(play(CHAT).connect().received) == 1\n"
        "def test_server(live_server):\n"
        "    with pytest.raises(urllib.error.HTTPError, match='400'):\n"
        "        urllib.request.urlopen(live_server(CHAT).url + '/ws/chat', timeout=10)\n"
        "def test_nothing_is_left():\n"
        "    assert [t.name for t in threading.enumerate()] == ['MainThread']\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=PROGRAM_S)
    assert "3 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError, pytest.fail.Exception])
def test_what_is_no_exception_is_raised_in_the_test_as_well(error):
    class Failing:
        def on_message(self, session, message):
            raise error("out of on_message")

    with play(Failing) as failing:
        client = failing.connect()
        with pytest.raises(error, match="out of on_message"):
            client.send("hi")
        assert client.is_open


def test_a_keyboard_interrupt_of_a_handler_does_not_end_the_run_of_the_tests():
    class Failing:
        def on_message(self, session, message):
            raise KeyboardInterrupt

    with play(Failing) as failing:
        client = failing.connect()
        with pytest.raises(HandlerFailed, match="KeyboardInterrupt") as caught:
            client.send("hi")
        assert isinstance(caught.value.__cause__, KeyboardInterrupt)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("a.py", "w = lambda f: lambda *a: f(*a)\n@w\ndef on_message(session, message):\n    yield 1\n"),
        ("a.py", "w = lambda f: lambda *a: f(*a)\n@w\nasync def on_message(session, message): ...\n"),
        ("a.js", "export const onMessage = ((f) => (...a) => f(...a))(function* () { yield 1; });"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_generator_or_a_coroutine_that_a_handler_returns_fails_the_test(name, source, tmp_path):
    (tmp_path / name).write_text(source)
    with play(tmp_path / name) as silent:
        client = silent.connect()
        for _ in range(2):
            with pytest.raises((HandlerError, HandlerFailed), match="whose body never runs"):
                client.send("hi")


class Lobby:
    """Each member is there with its name, and hears who comes and goes."""

    def on_open(self, session):
        session.room("lobby").join(presence=session.get_parameter("name"))

    def on_message(self, session, message):
        session.room("lobby").set_presence(message)
        if message == "leave":
            session.room("lobby").leave()

    def on_presence(self, room, changes):
        if any(person.presence == "fail" for person in changes.changed):
            raise ValueError("on purpose")
        told = [[person.presence for person in some] for some in (changes.joined, changes.left, changes.changed)]
        return json.dumps(told)


def test_presence_goes_by_a_clock_that_the_test_moves():
    with play(Lobby) as lobby:
        ann, bob = lobby.connect(name="ann"), lobby.connect(name="bob")
        assert ann.take() == []
        lobby.advance(0.2)
        assert ann.take_json() == bob.take_json() == [[["ann", "bob"], [], []]]
        bob.send("away")
        lobby.advance(0.1)
        assert ann.take() == []
        lobby.advance(0.1)
        assert ann.take_json() == [[[], [], ["away"]]]
        bob.lose()
        lobby.advance(9.9)
        assert [person.presence for person in lobby.room("lobby").presence()] == ["ann", "away"]
        lobby.advance(1)
        assert ann.take_json() == [[[], ["away"], []]]
        eve = lobby.connect(name="eve")
        eve.send("leave")
        lobby.advance(60)
        assert ann.take() == []


def test_what_on_presence_raises_is_raised_in_the_test():
    with play(Lobby) as lobby:
        ann = lobby.connect(name="ann")
        ann.send("fail")
        lobby.advance(0.2)
        ann.send("good")
        lobby.advance(0.2)
        ann.send("fail")
        with pytest.raises(ValueError, match="on purpose"):
            lobby.advance(0.2)


def test_an_app_of_the_test_s_own_is_left_without_the_persons_and_with_its_own_clock():
    app = WebSocketApp()
    app.add_handler("/ws/lobby", Lobby)
    roster = app.endpoint("/ws/lobby").roster
    timers = roster.timers
    with play(app) as lobby:
        lobby.connect(name="ann")
        lobby.advance(0.2)
        assert roster.timers is not timers
    assert roster.timers is timers
    assert roster.names() == []
    app.shutdown()


class Private:
    """Users by a parameter; a message goes to the user that it names."""

    def __init__(self):
        self.calls = []

    def on_handshake(self, request):
        request.user = request.get_parameter("user")

    def on_open(self, session):
        self.calls.append("open")

    def on_message(self, session, message):
        to, _, text = message.partition(" ")
        session.endpoint.user(to).send(f"{session.user}: {text}")

    def on_close(self, session, code, reason):
        self.calls.append((code, reason))


def test_several_sessions_of_a_user_are_reached_kicked_and_banned():
    handler = Private()
    with play(handler) as chat:
        ann, phone, bob = chat.connect(user="ann"), chat.connect(user="ann"), chat.connect(user="bob")
        assert [client.session.user for client in (ann, phone, bob)] == ["ann", "ann", "bob"]
        bob.send("ann hi")
        assert ann.take() == phone.take() == ["bob: hi"]
        assert bob.take() == []
        assert len(chat.user("ann").sessions()) == 2
        phone.close()
        assert [session.id for session in chat.user("ann").sessions()] == [ann.session.id]
        chat.user("ann").close(4001, "bye", ban_s=60)
        chat.settle()
        assert ann.closed == (4001, "bye")
        assert bob.is_open
        assert not chat.user("ann").is_online()
        calls = list(handler.calls)
        for wait_s in (0, 59.9):
            chat.advance(wait_s)
            with pytest.raises(HandshakeRefused, match="403 banned"):
                chat.connect(user="ann")
        assert handler.calls == calls
        chat.advance(0.1)
        again = chat.connect(user="ann")
        chat.user("ann").send("welcome")
        assert again.take() == ["welcome"]
        chat.room("nobody").close()
        again.session.room("all").join()
        chat.room("all").close(4002)
        assert again.wait_closed() == (4002, "")


RELOADED = """import { sessions } from "wsthreads";
let kept = 0;
export function onOpen() { kept++; }
export function onMessage(session) { session.send(`one ${kept}`); }
export function onReload() { for (const session of sessions()) onOpen(session); }
"""


def test_a_script_is_loaded_again(tmp_path):
    script = tmp_path / "kept.js"
    script.write_text(RELOADED)
    with play(script) as chat:
        ann, bob = chat.connect(), chat.connect()
        script.write_text(RELOADED.replace("one", "two"))
        ann.send("?")
        assert ann.take() == ["one 2"]
        chat.reload()
        bob.send("?")
        assert bob.take() == ["two 2"]
        script.write_text("export function onMessage( {")
        with pytest.raises(ScriptError, match=r"kept\.js:1"):
            chat.reload()
        script.write_text(RELOADED + "export function onClose() {}\nthrow new Error('no');")
        with pytest.raises(ScriptError, match="no"):
            chat.reload()
        bob.send("?")
        assert bob.take() == ["two 2"]
        script.write_text(RELOADED.replace("onOpen(session)", "session.no()"))
        with pytest.raises(HandlerFailed, match="onReload failed: TypeError"):
            chat.reload()
        assert [client.is_open for client in (ann, bob)] == [True, True]


def test_a_python_handler_is_not_loaded_again():
    with play(Private()) as chat, pytest.raises(UsageError, match="Private is a Python handler"):
        chat.reload()


def test_a_ban_of_a_play_ends_with_it():
    app = WebSocketApp()
    app.add_handler("/ws/private", Private())
    app.endpoint("/ws/private").user("bob").close(ban_s=60)
    with play(app) as chat:
        assert chat.connect(user="bob").is_open
        chat.user("ann").close(ban_s=60)
        with pytest.raises(HandshakeRefused):
            chat.connect(user="ann")
    with play(app) as chat:
        assert chat.connect(user="ann").is_open
    assert app.endpoint("/ws/private").directory.ban_of("bob")
    app.shutdown()


@pytest.fixture
def handler(tmp_path, request):
    """A handler that tells all others of a client, in each language and as each kind of target."""
    script = tmp_path / "all.js"
    script.write_text(
        "export function onOpen(session) { session.room('all').join(); session.room('all').broadcast('one more') }\n"
    )
    module = tmp_path / "all.py"
    module.write_text(
        "def on_open(session):\n    session.room('all').join()\n    session.room('all').broadcast('one more')\n"
    )

    class All:
        def on_open(self, session):
            session.room("all").join()
            session.room("all").broadcast("one more")

    return {"script": script, "file": module, "class": All, "object": All()}[request.param]


@pytest.mark.parametrize("handler", ["script", "file", "class", "object"], indirect=True)
def test_handlers_do_not_join_the_redis_of_the_environment(handler, monkeypatch, redis_server):
    monkeypatch.setenv("WSTHREADS_REDIS", redis_server.url)
    before = redis_server.client.info("stats")["total_connections_received"]
    with play(handler) as chat:
        assert not chat.app.shares_rooms
        assert chat.connect().received == ["one more"]
    with live_server(handler, path="/ws/all") as server, connect(f"{server.ws_url}/ws/all") as client:
        assert client.recv(timeout=DEADLINE_S) == "one more"
    assert redis_server.client.info("stats")["total_connections_received"] == before


@pytest.mark.parametrize("handler", ["script", "class"], indirect=True)
def test_with_a_redis_of_the_test_everything_has_happened_when_a_call_returns(handler, redis_server):
    for settings in [{"redis": redis_server.url}, {"broker": RedisBroker(redis_server.url, prefix="mine")}]:
        with play(handler, **settings) as chat:
            assert chat.app.shares_rooms
            clients = []
            for count in range(5):
                clients.append(chat.connect())
                assert [client.take() for client in clients] == [["one more"]] * (count + 1)


def login(app, environ, start_response):
    """What is around an app: knows users by a token, and passes a copy of the environ on, as some do."""
    if "token=secret" not in environ["QUERY_STRING"]:
        start_response("401 Unauthorized", [])
        return [b"log in"]
    return app({**environ, "HTTP_X_USER": "ann"}, start_response)


class Named:
    def on_open(self, session):
        session.send(session.request.get_header("X-User"))


@pytest.mark.parametrize("is_flask", [False, True])
def test_clients_may_come_through_the_application_around(is_flask):
    app = through = WebSocketApp()
    app.add_handler("/ws/named", Named)
    through = partial(login, app)
    if is_flask:
        web = Flask(__name__)
        app = WebSocketApp(web.wsgi_app)
        app.add_handler("/ws/named", Named)
        web.wsgi_app = partial(login, app)
        through = web
    with play(app, through=through) as chat:
        with pytest.raises(HandshakeRefused) as refused:
            chat.connect()
        assert (refused.value.status, refused.value.reason) == (401, "log in")
        ann = chat.connect(token="secret")
        assert ann.take() == ["ann"]
        assert ann.session.is_open()
    with live_server(app, through=through) as server:
        with pytest.raises(InvalidStatus, match="401"), connect(f"{server.ws_url}/ws/named"):
            pass
        with connect(f"{server.ws_url}/ws/named?token=secret") as client:
            assert client.recv(timeout=DEADLINE_S) == "ann"


def test_an_application_that_is_no_handler_says_what_to_do():
    sockets = WebSocketApp()

    def guard(environ, start_response):
        return sockets(environ, start_response)

    for target, name in [(guard, "guard"), (Flask("web"), "<Flask 'web'>")]:
        for begin in play, lambda target: live_server(target).__enter__():
            with pytest.raises(UsageError, match=rf"{name} is a WSGI application .*play\(sockets, through=app\)"):
                begin(target)
    with pytest.raises(UsageError, match=r"through must be a WSGI application .*, not 'app:app'"):
        play(Named, through="app:app")


def test_a_path_may_come_first():
    with play(Named) as chat:
        ann = chat.connect("/ws/test", headers={"X-User": "ann"}, token="secret")
        assert ann.session.get_parameter("token") == "secret"
        with pytest.raises(HandshakeRefused, match="404 there is no WebSocket endpoint at /ws/x"):
            chat.connect("/ws/x", token="secret")


@pytest.mark.parametrize(("rate", "step_s"), [(20, 0.05), (10, 0.1), (60, 1 / 60), (3, 1 / 3)])
def test_the_clock_has_no_rounding_errors_each_step_of_a_tick_is_one_tick(rate, step_s):
    seconds = []

    class Game:
        tick_rate = rate

        def on_open(self, session):
            session.room("game").join()

        def on_tick(self, room, dt):
            seconds.append(dt)

    with play(Game) as game:
        game.connect()
        for steps in range(1, 200):
            game.advance(step_s)
            assert len(seconds) == steps
    assert seconds == pytest.approx([step_s] * 199)
