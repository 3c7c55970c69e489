"""What a handler is, and what becomes of its mistakes."""

import asyncio
import functools
import logging
import re
import types
from pathlib import Path
from unittest.mock import Mock

import pytest

from wsthreads import HandlerError, HandshakeRefused
from wsthreads._native import speedups
from wsthreads.monitoring import metrics
from wsthreads.monitoring.metrics import Metrics
from wsthreads.protocol.handshake import Request
from wsthreads.rooms.presence import PresenceChanges
from wsthreads.sessions.handlers import PythonHandler
from wsthreads.sessions.handshake_results import Verdict
from wsthreads.sessions.hooks import HOOKS, ROOM_HOOKS


class FakeSession:
    """Stands for a session where only its id, address and closing matter; whole ones are in test_service."""

    id = "session-1"

    def __init__(self):
        self.closed = []
        self.request = request(PATH_INFO="/ws/chat")

    def close(self, code, reason):
        self.closed.append((code, reason))


#: What has to end a call only, and is not caught by `except Exception`.
NO_EXCEPTIONS = [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), BaseException()]


#: What `on_presence` is called with; a room's methods are not called here.
ROOM, CHANGES = types.SimpleNamespace(name="lobby"), PresenceChanges([], [], [])


class Treacherous:
    """A value that raises what is no `Exception` whatever is done with it."""

    def __eq__(self, other):
        raise SystemExit

    __hash__ = __str__ = __repr__ = __len__ = __bool__ = __eq__

    @property
    def __class__(self):
        raise SystemExit


def handler(**functions):
    return PythonHandler(types.SimpleNamespace(**functions), Metrics())


def request(**environ):
    return Request({"REMOTE_ADDR": "192.0.2.1", **environ})


def test_an_instance_a_class_and_a_module_will_do():
    class Chat:
        def on_open(self, session):
            pass

    module = types.ModuleType("chat")
    module.on_message = lambda session, message: None
    assert PythonHandler(Chat(), Metrics()).hooks == PythonHandler(Chat, Metrics()).hooks == {"on_open"}
    assert PythonHandler(Chat, Metrics()).name == "Chat"
    assert PythonHandler(module, Metrics()).name == "chat"
    assert PythonHandler(module, Metrics()).hooks == {"on_message"}
    module.__file__ = "/srv/chat.py"
    assert PythonHandler(module, Metrics()).name == "chat.py"
    module.__name__ = "project.chat"
    assert PythonHandler(module, Metrics()).name == "project.chat"


def test_an_object_without_any_of_the_functions_is_refused_with_their_names():
    with pytest.raises(HandlerError, match=r"object has none of .* on_open, on_message, .* on_close, on_error"):
        PythonHandler(object(), Metrics())


def test_a_method_whose_name_is_nearly_a_hook_is_warned_of(caplog):
    class Chat:
        def on_open(self, session):
            pass

        def on_mesage(self, session, message):
            pass

        def on_disconnect(self, session):
            pass

        def open(self):
            pass

    PythonHandler(Chat, Metrics())
    assert [record.getMessage() for record in caplog.records] == [
        "Chat.on_disconnect is never called; did you mean on_close?",
        "Chat.on_mesage is never called; did you mean on_message?",
    ]


def test_a_hook_that_cannot_be_called_is_refused_with_its_value():
    with pytest.raises(HandlerError, match=r"on_open must be a function, not 3"):
        handler(on_open=3)


def test_a_missing_hook_is_nothing_that_happens():
    only_error = handler(on_error=lambda session, error: None)
    session = FakeSession()
    only_error.open(session)
    only_error.message(session, "a")
    only_error.close(session, 1000, "")
    assert isinstance(only_error.handshake(request(), "id"), Verdict)
    assert session.closed == []


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda calls: lambda session: calls.append(()), ()),
        (lambda calls: lambda session, code: calls.append((code,)), (1001,)),
        (lambda calls: lambda session, code, reason: calls.append((code, reason)), (1001, "bye")),
        (lambda calls: lambda session, *rest: calls.append(rest), (1001, "bye")),
        (lambda calls: lambda session, code=0, reason="", more=1: calls.append((code, reason, more)), (1001, "bye", 1)),
        (lambda calls: lambda *everything: calls.append(everything[1:]), (1001, "bye")),
    ],
)
def test_on_close_takes_as_much_as_it_has_parameters_for(function, expected):
    calls = []
    handler(on_close=function(calls)).close(FakeSession(), 1001, "bye")
    assert calls == [expected]


@pytest.mark.parametrize("hook", ["open", "message", "close"])
@pytest.mark.parametrize("error", [ValueError("broken"), *NO_EXCEPTIONS])
def test_an_error_is_logged_with_its_stack_counted_and_given_to_on_error(hook, error, caplog):
    def fail(*arguments):
        raise error

    seen, session = [], FakeSession()
    it = handler(**{f"on_{hook}": fail}, on_error=lambda session, error: seen.append((session, error)))
    arguments = {"open": (), "message": ("m",), "close": (1000, "")}[hook]
    getattr(it, hook)(session, *arguments)
    assert seen == [(session, error)]
    assert it._metrics.snapshot() == {"handler_errors": 1}
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"on_{hook} failed in session session-1" in record.getMessage()
    assert "in fail" in caplog.text
    assert session.closed == ([(1011, "on_open failed")] if hook == "open" else [])


HISTOGRAMS = [metrics._PYTHON[1]] if speedups is None else [metrics._PYTHON[1], speedups.Histogram]


@pytest.mark.parametrize("histogram", HISTOGRAMS)
def test_the_record_of_an_error_has_the_handlers_file_and_line(histogram, monkeypatch, caplog):
    monkeypatch.setattr(metrics, "Histogram", histogram)

    class Failing:
        def on_handshake(self, request):
            raise OSError

        def on_message(self, session, message):
            raise OSError

    handler = PythonHandler(Failing, Metrics())
    handler.message(FakeSession(), "hi")
    with pytest.raises(HandshakeRefused):
        handler.handshake(request(), "session-1")
    first = Failing.on_handshake.__code__.co_firstlineno
    places = [(record.file, record.line - first) for record in caplog.records if record.levelno == logging.ERROR]
    assert places == [(__file__, 4), (__file__, 1)]


@pytest.mark.parametrize("error", NO_EXCEPTIONS)
def test_an_error_in_on_error_is_logged_and_ends_nothing(error, caplog):
    def fail(*arguments):
        raise error

    it = handler(on_message=fail, on_error=fail)
    it.message(FakeSession(), "a")
    assert it._metrics.snapshot() == {"handler_errors": 2}
    assert "on_error failed in session session-1" in caplog.text


@pytest.mark.parametrize("error", [ValueError("broken"), *NO_EXCEPTIONS])
def test_an_error_in_on_handshake_is_a_500_logged_and_counted_and_tells_the_client_nothing(error, caplog):
    def fail(request):
        raise error

    it = handler(on_handshake=fail)
    with pytest.raises(HandshakeRefused) as caught:
        it.handshake(request(), "id")
    assert (caught.value.status, caught.value.reason) == (500, "the handler failed")
    assert "on_handshake failed for 192.0.2.1" in caplog.text
    assert it._metrics.snapshot() == {"handler_errors": 1}


def test_an_answer_of_on_handshake_that_cannot_be_looked_at_is_a_500(caplog):
    it = handler(on_handshake=lambda request: Treacherous())
    with pytest.raises(HandshakeRefused) as caught:
        it.handshake(request(), "id")
    assert caught.value.status == 500
    assert it._metrics.snapshot() == {"handler_errors": 1}


def test_a_refusal_of_on_handshake_goes_out_as_it_is():
    refusal = HandshakeRefused(429, "later", [("Retry-After", "9")])

    def refuse(request):
        raise refusal

    with pytest.raises(HandshakeRefused) as caught:
        handler(on_handshake=refuse).handshake(request(), "id")
    assert caught.value is refusal


async def coroutine(*arguments): ...


def generator(*arguments):
    yield


async def async_generator(*arguments):
    yield


class Called:
    async def __call__(self, *arguments): ...


class Yielding:
    def on_message(self, session, message):
        yield

    @staticmethod
    async def on_open(session): ...

    @classmethod
    def on_close(cls, session):
        yield


RUN_NOTHING = {
    "an async function": coroutine,
    "a generator function": generator,
    "an async generator function": async_generator,
    "a partial": functools.partial(functools.partial(generator), session=None),
    "an object that is called": Called(),
    "a partial of an object": functools.partial(Called()),
    "a method": Yielding().on_message,
    "a static method": Yielding().on_open,
    "a class method": Yielding().on_close,
    "types.coroutine": types.coroutine(generator),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("what", RUN_NOTHING)
def test_a_function_whose_call_runs_nothing_is_refused_with_its_place(hook, what):
    with pytest.raises(HandlerError, match="whose body never runs; handlers are plain functions") as caught:
        handler(**{hook: RUN_NOTHING[what]})
    assert str(caught.value).startswith(f"SimpleNamespace.{hook} is a")
    assert caught.value.path == __file__
    assert f"({__file__}:{caught.value.line})" in str(caught.value)
    assert re.search("async|yield|def|@", Path(__file__).read_text().splitlines()[caught.value.line - 1])


def undecorated(function):
    """A decorator that hides what a function is."""

    @functools.wraps(function)
    def wrapper(*arguments):
        return function(*arguments)

    return wrapper


@pytest.mark.parametrize("function", [coroutine, generator, async_generator])
@pytest.mark.parametrize("hook", [hook for hook in HOOKS if hook != "on_error" and hook not in ROOM_HOOKS])
@pytest.mark.filterwarnings("error")
def test_what_a_decorated_function_returns_in_place_of_running_is_its_error(hook, function, caplog):
    seen, session = [], FakeSession()
    it = handler(**{hook: undecorated(function)}, on_error=lambda session, error: seen.append(error))
    failures = []
    it.on_failure = failures.append
    for _ in range(2):
        if hook == "on_handshake":
            with pytest.raises(HandshakeRefused, match="500"):
                it.handshake(request(), "id")
        else:
            arguments = {
                "on_message": ("m",),
                "on_request": ("m", Mock()),
                "on_close": (1000, ""),
                "on_presence": (CHANGES,),
            }.get(hook, ())
            about = ROOM if hook == "on_presence" else session
            getattr(it, hook.removeprefix("on_"))(about, *arguments)
    assert it._metrics.snapshot() == {"handler_errors": 2}
    assert [str(error) for error in failures[:1]] * 2 == [str(error) for error in failures]
    assert seen == ([] if hook in ("on_handshake", "on_presence") else failures)
    assert session.closed == ([(1011, "on_open failed")] * 2 if hook == "on_open" else [])
    (record,) = caplog.records
    assert f"SimpleNamespace.{hook} failed" in record.getMessage()
    assert "whose body never runs" in record.getMessage()
    assert (record.file, record.line) == (__file__, function.__code__.co_firstlineno)


def test_an_on_error_that_returns_a_coroutine_is_told_of_once(caplog):
    def fail(session, message):
        raise ValueError

    it = handler(on_message=fail, on_error=undecorated(coroutine))
    for _ in range(2):
        it.message(FakeSession(), "m")
    assert it._metrics.snapshot() == {"handler_errors": 4}
    assert sum("on_error failed" in record.getMessage() for record in caplog.records) == 1


def test_a_generator_that_has_been_begun_is_somebody_s_and_any_other_value_is_let_be(caplog):
    begun = (n for n in range(3))
    next(begun)
    for value in (begun, True, [], Treacherous, lambda: None):
        handler(on_message=lambda session, message, value=value: value).message(FakeSession(), "m")
    assert list(begun) == [1, 2]
    assert not caplog.records


@pytest.mark.parametrize("message", ["text", b"bytes", bytearray(b"bytes"), memoryview(b"bytes"), None])
def test_what_on_presence_returns_is_the_message_for_the_members(message):
    calls = []

    def on_presence(room, changes):
        calls.append((room, changes))
        return message

    assert handler(on_presence=on_presence).presence(ROOM, CHANGES) == message
    assert calls == [(ROOM, CHANGES)]
    assert handler(on_open=lambda session: None).presence(ROOM, CHANGES) is None


@pytest.mark.parametrize("kind", [int, list, dict, Treacherous])
def test_what_on_presence_returns_and_is_no_message_is_an_error_of_the_handler(kind, caplog):
    it, failures = handler(on_presence=lambda room, changes: kind()), []
    it.on_failure = failures.append
    assert it.presence(ROOM, CHANGES) is None
    assert it._metrics.snapshot() == {"handler_errors": 1}
    (record,) = caplog.records
    assert record.getMessage() == "SimpleNamespace.on_presence failed in room 'lobby'"
    if kind is not Treacherous:
        assert f"not {kind.__name__}; try json.dumps" in str(failures[0])


@pytest.mark.parametrize("kind", [ValueError, *map(type, NO_EXCEPTIONS)])
def test_what_on_presence_raises_ends_that_call_only(kind, caplog):
    error = kind()

    def on_presence(room, changes):
        raise error

    seen, failures = [], []
    it = handler(on_presence=on_presence, on_error=lambda session, error: seen.append(error))
    it.on_failure, it.endpoint_path = failures.append, "/ws/chät"
    assert it.presence(ROOM, CHANGES) is None
    assert failures == [error]
    assert seen == []
    assert it._metrics.snapshot() == {"handler_errors": 1}
    (record,) = caplog.records
    assert record.endpoint == "/ws/chät"
    assert (record.file, record.line) == (__file__, on_presence.__code__.co_firstlineno + 1)
