"""Whatever an application has done to logging, sessions go on, and each place is given back."""

import logging
import sys
from urllib.request import urlopen

import pytest

from tests.programs import PROGRAM_S, ROOT, Program, connect, receive, wait_until
from tests.wire import RawClient
from wsthreads import HandshakeRefused, Refusal, WebSocketApp
from wsthreads.loggers import ContainedLogger, get_logger
from wsthreads.monitoring.logs import AddContext, in_context

SCRIPT = """export function onMessage(session, message) {
  if (message === 'fail') { console.error('told'); throw new Error('HERE'); }
  session.send(message);
}
"""

#: Every attribute that a record of ours has.
OURS = ("endpoint", "address", "session", "file", "line", "column", "stack", "kind", "method", "path", "status")


def clashing(make):
    """As recipes for request ids have it: Flask's `request.endpoint`, say."""

    def factory(*arguments, **named):
        record = make(*arguments, **named)
        record.__dict__.update(dict.fromkeys(OURS, "mine"))
        return record

    return factory


def failing(*_, **__):
    raise RuntimeError("working outside of request context")


class Handler:
    def on_handshake(self, request):
        if request.get_parameter("refuse") == "code":
            return Refusal(4003, "no")
        if request.get_parameter("refuse") == "status":
            raise HandshakeRefused(403, "no")
        return None

    def on_message(self, session, message):
        if message == "fail":
            raise ValueError("HERE")
        session.send(message)


class Bad(logging.Handler):
    def emit(self, record):
        raise SystemExit("of a handler")


def bad_factory(monkeypatch):
    monkeypatch.setattr(logging, "_logRecordFactory", failing)


def clash(monkeypatch):
    monkeypatch.setattr(logging, "_logRecordFactory", clashing(logging.getLogRecordFactory()))


def bad_filter(monkeypatch):
    monkeypatch.setattr(logging.Logger, "filter", failing)


def bad_handler(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [Bad()])


def bad_class(monkeypatch):
    monkeypatch.setattr(logging.Logger, "isEnabledFor", failing)


@pytest.mark.parametrize("break_logging", [clash, bad_factory, bad_filter, bad_handler, bad_class])
@pytest.mark.parametrize("path", ["/ws/py", "/ws/js"])
def test_broken_logging_costs_no_session_and_no_place(serve, monkeypatch, tmp_path, path, break_logging):
    (tmp_path / "chat.js").write_text(SCRIPT)
    app = WebSocketApp(max_sessions=2)
    app.add_handler("/ws/py", Handler)
    app.add_script("/ws/js", tmp_path / "chat.js")
    server = serve(app)
    for name in ("", "werkzeug"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
        logging.getLogger(name).manager._clear_cache()
    with monkeypatch.context() as broken:
        break_logging(broken)
        for _ in range(3):
            with RawClient(server.port, path) as raw:  # which does not log
                raw.text("fail")
                raw.text("next")
                assert raw.receive()[1] == b"next"
            wait_until(lambda: app.session_count == 0)
            if path == "/ws/py":
                with RawClient(server.port, f"{path}?refuse=code") as raw:
                    assert raw.receive_close() == (4003, "no")
                wait_until(lambda: app.session_count == 0)
                with RawClient(server.port, f"{path}?refuse=status") as raw:
                    assert raw.status == 403
            with RawClient(server.port, path, {"Origin": "http://elsewhere"}) as raw:
                assert raw.status == 403
            with RawClient(server.port, path, method="BAD METHOD") as raw:
                assert raw.status == 400
    counts = app.metrics.snapshot()
    assert counts["handler_errors"] == 3
    assert counts["sessions_opened"] == counts["sessions_closed"] == 3


APPLICATION = """import logging
from tests.test_loggers import Handler, clashing
from wsthreads import WebSocketApp
logging.setLogRecordFactory(clashing(logging.getLogRecordFactory()))
def plain(environ, start_response):
    start_response("200 OK", [])
    return [b"%d" % app.session_count]
app = WebSocketApp(plain, max_sessions=2)
app.add_handler("/ws", Handler)
"""


@pytest.mark.parametrize("worker", ["gthread", "wsthreads.gunicorn.ThreadWorker"])
def test_nor_does_it_under_gunicorn(tmp_path, worker):
    (tmp_path / "application.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "gunicorn", "-k", worker, "--threads", "10", "--bind", "127.0.0.1:0"]
    command += ["--access-logfile", "-", "--log-level", "debug", "application:app"]
    with Program(command, cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}) as server:
        port = int(server.wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])

        def places():
            with urlopen(f"http://127.0.0.1:{port}/", timeout=PROGRAM_S) as answer:
                return answer.read()

        for _ in range(3):
            with connect(f"ws://127.0.0.1:{port}/ws") as client:
                client.send("fail")
                client.send("next")
                assert receive(client) == "next"
            wait_until(lambda: places() == b"0")
            with RawClient(port, "/ws?refuse=code") as raw:
                assert raw.receive_close() == (4003, "no")
            wait_until(lambda: places() == b"0")
        assert server.end() == 0
    assert "on_message failed" in server.log


@pytest.fixture
def records(monkeypatch):
    got = []

    class Keep(logging.Handler):
        def emit(self, record):
            got.append(record)

    logger = logging.getLogger("wsthreads.a_test")
    monkeypatch.setattr(logger, "handlers", [Keep()])
    monkeypatch.setattr(logger, "level", logging.DEBUG)
    monkeypatch.setattr(logger, "propagate", False)
    logger.manager._clear_cache()
    return got


def test_a_record_is_as_logging_makes_it(records):
    log = get_logger("wsthreads.a_test")
    try:
        raise ValueError("x")
    except ValueError as error:
        caught = error
        log.exception("failed %s", "a")
    log.error("failed", exc_info=caught, extra={"endpoint": "/ws"})
    log.log(logging.INFO, "%d", 1)
    for say in (log.debug, log.info, log.warning, log.critical):
        say("x")
    assert [record.levelno for record in records] == [40, 40, 20, 10, 20, 30, 50]
    assert [record.getMessage() for record in records] == ["failed a", "failed", "1", "x", "x", "x", "x"]
    assert {(record.filename, record.funcName, record.name) for record in records} == {
        ("test_loggers.py", "test_a_record_is_as_logging_makes_it", "wsthreads.a_test")
    }
    assert [record.lineno for record in records[3:]] == [records[3].lineno] * 4
    assert [record.exc_info and record.exc_info[1] for record in records[:3]] == [caught, caught, None]
    assert records[1].endpoint == "/ws"


def test_what_is_not_logged_is_not_made(records, monkeypatch):
    monkeypatch.setattr(logging, "_logRecordFactory", None)
    monkeypatch.setattr(logging.getLogger("wsthreads.a_test"), "level", logging.ERROR)
    get_logger("wsthreads.a_test").info("x")
    assert not records


def test_attributes_of_the_application_s_stay_and_ours_are_added(records, monkeypatch):
    make = logging.getLogRecordFactory()

    def factory(*arguments, **named):
        record = make(*arguments, **named)
        record.endpoint = "theirs"
        return record

    monkeypatch.setattr(logging, "_logRecordFactory", factory)
    get_logger("wsthreads.a_test").info("x", extra={"endpoint": "/ws", "address": "192.0.2.1", "message": "y"})
    (record,) = records
    assert (record.endpoint, record.address) == ("theirs", "192.0.2.1")


def test_a_logger_class_gets_the_extra_attributes_as_from_logging(records, monkeypatch):
    """Widespread, too: `makeRecord` overridden, to know which attributes are extra."""
    logger, got = logging.getLogger("wsthreads.a_test"), []
    make = logger.makeRecord

    def make_record(name, level, fn, lno, msg, args, exc_info, func=None, extra=None, sinfo=None):
        got.append(extra)
        return make(name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)

    monkeypatch.setattr(logger, "makeRecord", make_record, raising=False)
    get_logger("wsthreads.a_test").info("x", extra={"endpoint": "/ws"})
    assert got == [{"endpoint": "/ws"}]


def test_a_line_that_logging_fails_on_is_on_stderr(records, monkeypatch, capsys):
    monkeypatch.setattr(logging, "_logRecordFactory", failing)
    get_logger("wsthreads.a_test").error("no %s", "way")
    assert capsys.readouterr().err == "ERROR wsthreads.a_test: 'no way' (logging it raised RuntimeError)\n"
    monkeypatch.setattr(logging, "raiseExceptions", False)  # logging's own switch
    get_logger("wsthreads.a_test").error("no %s", "way")
    assert capsys.readouterr().err == ""


def test_the_application_s_loggers_stay_as_they_are():
    for name in ("wsthreads", "wsthreads.a_test", "werkzeug"):
        logger = logging.getLogger(name)
        get_logger(name)
        assert not {"handle", "makeRecord", "_log", "isEnabledFor", "findCaller"} & set(vars(logger))


def test_every_logger_of_ours_is_of_this_kind():
    for name, module in list(sys.modules.items()):
        if name.startswith("wsthreads"):
            bare = [key for key, value in vars(module).items() if isinstance(value, logging.Logger)]
            assert not bare, (name, bare)
    assert isinstance(sys.modules["wsthreads.app.dispatcher"].log, ContainedLogger)


def test_a_record_with_an_address_of_the_application_s_own_gets_its_session(monkeypatch):
    context = {"endpoint": "/ws", "address": "192.0.2.1", "session": "abc"}
    theirs = logging.makeLogRecord({"name": "mine", "address": "theirs"})
    ours = logging.makeLogRecord({"name": "wsthreads.x", "address": "198.51.100.1"})  # about another client
    with in_context(context):
        AddContext().filter(theirs)
        AddContext().filter(ours)
    assert (theirs.session, theirs.address) == ("abc", "theirs")
    assert not hasattr(ours, "session")
