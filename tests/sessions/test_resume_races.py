"""A session whose connection comes and goes while something else happens to it."""

import threading
from contextlib import suppress

import pytest

from tests.programs import DEADLINE_S, wait_until
from tests.sessions.test_resume import Story, World
from tests.speakers import Speaker
from tests.wire import CLOSE, close_payload, endpoint
from wsthreads.protocol import envelope
from wsthreads.protocol.channel import Channel
from wsthreads.protocol.outbox import Outbox
from wsthreads.sessions.carrier import Carrier
from wsthreads.sessions.dialogue import Dialogue
from wsthreads.sessions.handlers import PythonHandler
from wsthreads.sessions.life import Life
from wsthreads.sessions.reception import Reception
from wsthreads.sessions.secrets import Secrets
from wsthreads.sessions.served import Served
from wsthreads.sessions.suspensions import Suspensions

#: What is called while a client comes back.
MOMENTS = {
    "the token is looked up": (Dialogue, "may_resume"),
    "its counts are checked": (Outbox, "check_received"),
    "the old connection is cut off": (Channel, "supersede"),
    "the session waits": (Suspensions, "suspended"),
    "the secret is shown": (Secrets, "show"),
    "the next secret is made": (Secrets, "make"),
    "the welcome is sent": (Channel, "welcome"),
    "the outbox goes on": (Outbox, "resume"),
    "the connection is entered": (Suspensions, "connected"),
    "the connection is listed": (Served, "connect"),
    "on_suspend is called": (Life, "suspend"),
    "on_resume is called": (Life, "resume"),
    "the old connection ends": (Dialogue, "part"),
    "the old connection is finished": (Carrier, "finish"),
}


@pytest.fixture
def world():
    handler = Story()
    with endpoint(handler, resume_s=60, close_timeout_s=0.3) as (app, port):
        yield World(app, port, handler)


def closes(world):
    return [call for call in world.handler.calls if call[0] == "close"]


def meddle(monkeypatch, moment, when, action):
    """Have `action` done once, right before or after the moment, in its thread."""
    owner, name = MOMENTS[moment]
    original, done = getattr(owner, name), threading.Event()

    def meddled(*arguments, **options):
        is_first = not done.is_set()
        done.set()
        if is_first and when == "before":
            action()
        result = original(*arguments, **options)
        if is_first and when == "after":
            action()
        return result

    monkeypatch.setattr(owner, name, meddled)
    return done


def come_back(client):
    """Come back as a good client does. Returns the close code if it is told one, or None."""
    try:
        client.open().hello(client.token)
        client.greet()
        while True:
            client.take()
    except AssertionError as error:  # a close frame
        opcode, payload = error.args[0] if isinstance(error.args[0], tuple) else (None, b"")
        return int.from_bytes(payload[:2], "big") if opcode == 8 else None
    except (EOFError, OSError):
        return None


#: Of these, there are some only if the old connection seems alive.
REPLACING = {
    "the old connection is cut off",
    "the session waits",
    "on_suspend is called",
    "the old connection ends",
    "the old connection is finished",
}


@pytest.mark.parametrize(
    ("moment", "is_superseding"),
    [(moment, kind) for moment in MOMENTS for kind in (False, True) if kind or moment not in REPLACING],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kick_at_any_moment_of_a_resume_ends_the_session_once_and_the_client_is_told(
    monkeypatch, world, moment, when, is_superseding
):
    with Speaker(world.port).begin() as client, Speaker(world.port) as again:
        client.send("one")
        assert client.next() == "echo one"
        session = world.handler.sessions[0]
        again.token, again.received = client.token, client.received

        def kick():
            session.close(4001, "out")

        if not is_superseding:
            client.lose()
            world.wait_suspended()
        with monkeypatch.context() as patched:
            done = meddle(patched, moment, when, kick)
            code = None
            for _ in range(3):
                code = come_back(again)
                if code is not None or not done.is_set():
                    break
        if not done.is_set():  # nothing is replaced, for example
            kick()
            code = 4001
        assert code == 4001
        wait_until(lambda: closes(world) == [("close", 4001, "out")], f"one close, not {world.handler.calls}")
        wait_until(lambda: world.app.session_count == 0, "the end of the session")
        assert len(world.handler.sessions) == 1
        assert_pairs(world.handler.calls)
        assert len(world.endpoint.suspensions) == 0


def assert_pairs(calls):
    """Open first, suspend and resume in turn, close last."""
    kinds = [call if isinstance(call, str) else call[0] for call in calls]
    kinds = [kind for kind in kinds if kind in ("open", "suspend", "resume", "close")]
    assert kinds[0] == "open"
    assert kinds[-1] == "close"
    assert kinds[1:-1] in (
        ["suspend", "resume"] * (len(kinds) // 2 - 1),
        [*["suspend", "resume"] * ((len(kinds) - 3) // 2), "suspend"],
    )


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_client_that_is_lost_at_any_moment_of_a_resume_comes_back_and_misses_nothing(
    monkeypatch, world, moment, when
):
    with Speaker(world.port).begin() as client:
        client.send("one")
        assert client.next() == "echo one"
        session = world.handler.sessions[0]

        def lose():
            client.lose()
            session.send("in between")

        with monkeypatch.context() as patched:
            done = meddle(patched, moment, when, lose)
            for _ in range(3):
                with suppress(EOFError, OSError):
                    client.open().hello(client.token)
                    client.greet()
                    client.send("two")
                    client.heartbeat()
        if not done.is_set():
            session.send("in between")
        with suppress(AssertionError, EOFError, OSError):
            client.lose()
        welcome = client.come_back()
        assert welcome.resumed
        client.sent = welcome.received
        client.send("last")
        found = []
        while not found or found[-1] != "echo last":
            found.append(client.next())
        client.leave()
        wait_until(lambda: closes(world) == [("close", 1000, "")])
        assert len(world.handler.sessions) == 1
        assert_pairs(world.handler.calls)
        wait_until(lambda: world.app.session_count == 0)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, BaseException], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("hook", ["on_suspend", "on_resume", "on_request", "on_close"])
def test_a_hook_that_raises_ends_nothing_else(hook, error):
    class Broken(Story):
        def on_request(self, session, message):
            return message

    handler = Broken()
    original = getattr(handler, hook)

    def fail(*arguments):
        original(*arguments)
        raise error

    setattr(handler, hook, fail)
    with endpoint(handler, resume_s=60) as (app, port), Speaker(port).begin() as client:
        world = World(app, port, handler)
        client.send("one")
        assert client.next() == "echo one"
        client.lose()
        world.wait_suspended()
        assert client.come_back().resumed
        client.ask(1, "x")
        failed = hook == "on_request"
        assert client.next() == (envelope.Failure(1, "failed") if failed else envelope.Reply(1, "x"))
        client.send("two")
        assert client.next() == "echo two"
        client.leave()
        wait_until(lambda: closes(world) == [("close", 1000, "")])
        wait_until(lambda: app.session_count == 0)
        assert_pairs(handler.calls)
        assert app.endpoints[0].totals().errors == 1


def test_many_threads_come_back_with_one_token_and_one_of_them_has_the_session_at_the_end(world):
    with Speaker(world.port).begin() as first:
        first.send("one")
        assert first.next() == "echo one"
        clients = [Speaker(world.port) for _ in range(8)]
        welcomes = []

        def come(client):
            client.token, client.received = first.token, first.received
            with suppress(EOFError, OSError):
                welcomes.append(client.come_back())

        threads = [threading.Thread(target=come, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        assert all(welcome.resumed for welcome in welcomes)
        wait_until(lambda: world.app._admission.taken == 1)
        assert len(world.endpoint.live()) == 1
        assert first.come_back().resumed
        first.leave()
        wait_until(lambda: closes(world) == [("close", 1000, "")])
        assert_pairs(world.handler.calls)
        wait_until(lambda: world.app.session_count == 0)
        for client in clients:
            client.lose()


#: What may fail while clients come, go and come back: by a fault of ours, or by an exception of another thread.
STEPS = {
    **MOMENTS,
    "the hello is looked at": (Reception, "_resume"),
    "the session begins": (Reception, "_begin"),
    "the dialogue begins": (Dialogue, "begin"),
    "the connection is attached": (Dialogue, "attach"),
    "the session starts": (Dialogue, "start"),
    "messages are taken": (Dialogue, "take"),
    "messages are handled": (PythonHandler, "message"),
    "the session is opened": (Life, "open"),
    "the session is closed": (Life, "close"),
    "the end is recorded": (Life, "record_end"),
    "the outbox keeps": (Outbox, "keep"),
    "the outbox is suspended": (Outbox, "suspend"),
    "the session is over": (Suspensions, "over"),
    "the end is prepared": (Suspensions, "closing"),
}


ONLY_NEW = {
    "the session begins",
    "the dialogue begins",
    "the session starts",
    "the session is opened",
    "the outbox keeps",
}


@pytest.mark.parametrize(
    ("step", "is_back"),
    [(step, is_back) for step in STEPS for is_back in (False, True) if not is_back or step not in ONLY_NEW],
)
def test_a_client_gives_its_place_back_whatever_fails(monkeypatch, world, step, is_back):
    failed = threading.Event()

    def fail(*_, **__):
        failed.set()
        raise RuntimeError("on purpose")

    with monkeypatch.context() as broken:
        with Speaker(world.port) as client, Speaker(world.port) as again:
            if not is_back:
                broken.setattr(*STEPS[step], fail)
            with suppress(EOFError, OSError, AssertionError):
                client.begin()
                client.send("one")
                client.next()
                if is_back:
                    broken.setattr(*STEPS[step], fail)
                again.token, again.received = client.token, client.received
                again.come_back()
                again.send("two")
                again.next()
                again.lose()
                again.come_back()
                again.leave()
        assert failed.wait(DEADLINE_S)
        wait_until(lambda: world.app._admission.taken == 0, "the places to be given back")
    assert not world.endpoint.connections()
    world.timers.advance(61)
    if step not in ("the session waits", "the session is over", "the session is closed"):
        wait_until(lambda: world.app.session_count == 0, "the end of all sessions")
        wait_until(lambda: not world.endpoint.sessions(), "all sessions to be forgotten")
    closed = world.handler.closed
    assert len(closed) == len(set(closed)), 'a client that is told "unknown" has begun another session'


def test_a_client_that_is_lost_as_soon_as_it_has_the_welcome_finds_its_session(monkeypatch, world):
    original, go_on = Dialogue.start, threading.Event()

    def slow(*arguments, **options):
        assert go_on.wait(DEADLINE_S)
        original(*arguments, **options)

    monkeypatch.setattr(Dialogue, "start", slow)
    with Speaker(world.port).begin() as client:
        client.lose()
        assert client.come_back().resumed
        assert not world.handler.calls
        go_on.set()
        client.send("one")
        assert client.next() == "echo one"
        assert len(world.handler.sessions) == 1
        client.leave()
        wait_until(lambda: closes(world) == [("close", 1000, "")])
        assert_pairs(world.handler.calls)


def test_what_is_sent_to_a_user_before_the_welcome_comes_behind_it(monkeypatch):
    class Ann(Story):
        def on_handshake(self, request):
            request.user = "ann"

    original = Dialogue.attach

    def late(dialogue, *arguments, **options):
        if "request" not in options:
            app.endpoints[0].user("ann").send("early")
        return original(dialogue, *arguments, **options)

    with endpoint(Ann(), resume_s=60) as (app, port), Speaker(port) as client:
        monkeypatch.setattr(Dialogue, "attach", late)
        client.begin()
        assert client.next() == "early"


def test_a_user_who_is_banned_after_the_handshake_gets_the_code_and_no_session(monkeypatch, world):
    class Ann(Story):
        def on_handshake(self, request):
            request.user = "ann"

    for settings in ({"resume_s": 60}, {}):
        handler = Ann()
        with endpoint(handler, close_timeout_s=0.3, **settings) as (app, port), Speaker(port) as client:
            it = app.endpoints[0]
            monkeypatch.setattr(it.directory, "ban_of", lambda user: None)
            it.user("ann").close(4003, "no", ban_s=60)
            client.open().hello()
            assert client.receive_close() == (4003, "no")
            wait_until(lambda: app.session_count == 0)
            assert not handler.calls
            assert not it.user_count()
            assert not it.connections()
            assert not it.sessions()


def test_a_client_that_has_closed_its_session_is_not_told_so_while_on_close_runs():
    began, go_on = threading.Event(), threading.Event()

    class Slow(Story):
        def on_close(self, session, code, reason):
            super().on_close(session, code, reason)
            began.set()
            assert go_on.wait(DEADLINE_S)

    with endpoint(Slow(), resume_s=60) as (_, port), Speaker(port).begin() as client:
        client.wire.send(CLOSE, close_payload(4000))
        assert client.receive_close()[0] == 4000
        assert began.wait(DEADLINE_S)
        assert client.come_back().why == "unknown"
        go_on.set()
