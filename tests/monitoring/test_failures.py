"""Errors of a user's code that are odd, or huge; and logging that fails: each ends one call, and is logged."""

import io
import logging
import re
import sys
import traceback
from collections import Counter

import pytest
from websockets.exceptions import ConnectionClosed

from tests.programs import Program, connect, receive, wait_until
from wsthreads.app import WebSocketApp
from wsthreads.dashboard.events import Events
from wsthreads.monitoring.failures import MAX_TEXT_CHARS, exc_info_of, summary_of
from wsthreads.monitoring.logs import JSONFormatter, TextFormatter

FORMATTERS = {"text": TextFormatter, "json": JSONFormatter, "their own": logging.Formatter}


def raising(*names, kind=KeyboardInterrupt):
    """A class of exceptions whose special methods raise."""

    def fail(*_):
        raise kind("of the error's class")

    return type("Odd", (Exception,), dict.fromkeys(names, fail))


class Empty(Exception):
    def __len__(self):
        return 0


class Wrong(Exception):
    def __str__(self):
        return 5


class Guarded(Exception):
    """Raises for some attributes, as proxies do."""

    def __getattribute__(self, name):
        if name in ("__traceback__", "__cause__", "__context__", "__class__", "__notes__", "__suppress_context__"):
            raise SystemExit(name)
        return object.__getattribute__(self, name)


ODD = {
    "truth": raising("__bool__"),
    "truth, as numpy has it": raising("__bool__", kind=ValueError),
    "length": raising("__len__"),
    "no length": Empty,
    "text": raising("__str__", "__repr__"),
    "text that is none": Wrong,
    "attributes": Guarded,
    "hash and equality": raising("__hash__", "__eq__"),
    "everything": raising("__bool__", "__len__", "__str__", "__repr__", "__hash__", "__eq__", "__format__"),
}


class Raiser:
    def __init__(self, kind):
        self.kind, self.told, self.closed = kind, [], []

    def on_message(self, session, message):
        if message == "fail":
            raise self.kind("HERE")
        session.send(message)

    def on_error(self, session, error):
        self.told.append(error)

    def on_close(self, session, code, reason):
        self.closed.append(code)


@pytest.fixture(params=FORMATTERS)
def logged(request):
    """What is logged, in each format."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(FORMATTERS[request.param]())
    logging.getLogger().addHandler(handler)
    yield stream
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("kind", ODD.values(), ids=ODD)
def test_an_error_of_any_class_ends_its_call_only_and_is_logged_with_its_stack(serve, logged, kind):
    handler, app = Raiser(kind), WebSocketApp()
    app.add_handler("/ws/odd", handler)
    with connect(f"{serve(app).ws_url}/ws/odd") as client:
        client.send("fail")
        client.send("next")
        assert receive(client) == "next"
        assert len(handler.told) == 1
        assert type(handler.told[0]) is kind
    assert re.search(r"test_failures.py.*, in on_message", logged.getvalue()), logged.getvalue()
    assert kind.__name__ in logged.getvalue()
    assert app.metrics.snapshot()["handler_errors"] == 1
    wait_until(lambda: handler.closed)


@pytest.mark.parametrize("kind", ODD.values(), ids=ODD)
def test_an_odd_cause_costs_nothing_either(kind):
    def work():
        try:
            raise kind("below")
        except BaseException as error:
            raise LookupError("above") from error

    try:
        work()
    except LookupError as error:
        shown = "".join(traceback.format_exception(*exc_info_of(error)))
    assert "above" in shown
    assert "in work" in shown


@pytest.mark.parametrize("kind", ODD.values(), ids=ODD)
def test_what_users_log_of_odd_errors_does_not_fail_in_our_formats_nor_on_the_dashboards_page(monkeypatch, kind):
    events, log, lines = Events(but="/the/page"), logging.getLogger("the.user's"), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.extend(kind().format(record) for kind in (TextFormatter, JSONFormatter))
    events.attach(log)
    monkeypatch.setattr(log, "propagate", False)
    log.addHandler(handler)
    try:
        raise kind("HERE")
    except BaseException:
        log.exception("it failed")
    finally:
        log.removeHandler(handler)
        events.detach()
    assert all("test_failures.py" in line for line in lines)
    assert len(lines) == 2
    (event,) = events.since(0)[0]
    assert "test_failures.py" in event["detail"]


def test_an_ordinary_error_is_logged_as_it_is():
    error = ValueError("x")
    assert exc_info_of(error) == (ValueError, error, None)


def test_a_huge_text_is_cut_as_a_scripts_is_wherever_it_is(serve, logged):
    huge = "x" * 3_000_000

    class Handler:
        def on_message(self, session, message):
            try:
                raise ValueError(huge)
            except ValueError as error:
                if message == "cause":
                    raise LookupError("short") from error
                if message == "context":
                    raise LookupError("short")  # noqa: B904, that is what it is about
                if message == "note" and sys.version_info >= (3, 11):
                    error.add_note(huge)
                raise

    app = WebSocketApp()
    app.add_handler("/ws/huge", Handler())
    with connect(f"{serve(app).ws_url}/ws/huge") as client:
        for message in ("text", "cause", "context", "note"):
            client.send(message)
    wait_until(lambda: app.metrics.snapshot()["handler_errors"] == 4)
    wait_until(lambda: app.session_count == 0)
    text = logged.getvalue()
    assert len(text) < 4 * (2 * MAX_TEXT_CHARS)
    assert text.count("in on_message") >= 4
    assert "2980000 more characters" in text
    assert "short" in text


def test_a_summary_is_had_of_whatever_was_raised():
    assert summary_of(ValueError("x")) == "ValueError: x"
    assert summary_of(ODD["everything"]("x")) == "Odd (no text: its __str__ failed)"


class Bad(logging.Handler):
    """Raises for each record, as a filter does that expects an attribute of its own."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.seen = kind, Counter()

    def filter(self, record):
        self.seen[record.name] += 1
        raise self.kind("of a filter")


@pytest.mark.parametrize("kind", [AttributeError, SystemExit, KeyboardInterrupt])
def test_a_filter_that_raises_costs_no_session_anything(serve, capsys, monkeypatch, kind, tmp_path):
    (tmp_path / "chat.js").write_text(
        "export function onMessage(session, message) {\n"
        "  if (message === 'fail') { console.error('told'); throw new Error('HERE'); }\n"
        "  session.send(message);\n}\n"
    )
    handler, app = Raiser(ValueError), WebSocketApp()
    app.add_handler("/ws/py", handler)
    app.add_script("/ws/js", tmp_path / "chat.js")
    bad = Bad(kind)
    loggers = [logging.getLogger(name) for name in ("wsthreads", "werkzeug")]  # the latter has the line of the 101
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(bad)
    try:
        server = serve(app)
        for path in ("/ws/py", "/ws/js"):
            with connect(server.ws_url + path) as client:
                client.send("fail")
                client.send("next")
                assert receive(client) == "next"
        wait_until(lambda: app.session_count == 0)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(bad)
            logger.setLevel(level)
    counts = app.metrics.snapshot()
    assert counts["handler_errors"] == 2
    assert counts["sessions_opened"] == counts["sessions_closed"] == 2
    assert bad.seen["wsthreads.sessions.handlers"] >= 1
    assert bad.seen["wsthreads.script.chat.js"] >= 2
    assert bad.seen["werkzeug"] >= 2
    assert handler.closed == [1000]
    assert f"(logging it raised {kind.__name__})" in capsys.readouterr().err


def test_a_handler_file_whose_error_cannot_be_shown_is_refused_in_one_line(tmp_path):
    source = "class Odd(Exception):\n    def __str__(self): raise KeyboardInterrupt\nraise Odd\n"
    (tmp_path / "chat.py").write_text(source)
    with Program([sys.executable, "-m", "wsthreads", "check", str(tmp_path / "chat.py")]) as program:
        assert program.wait() == 1
        assert "chat.py:3: Odd" in program.log


def test_a_failure_of_ours_behind_the_101_ends_the_connection_and_gives_its_place_back(serve, monkeypatch):
    def fail(environ):
        raise RuntimeError("on purpose")

    monkeypatch.setattr("wsthreads.sessions.service.log_upgrade", fail)
    app = WebSocketApp()
    app.add_handler("/ws/py", Raiser(ValueError))
    with connect(serve(app).ws_url + "/ws/py") as client, pytest.raises(ConnectionClosed) as closed:
        receive(client)
    assert closed.value.rcvd is None
    wait_until(lambda: app.session_count == 0)
