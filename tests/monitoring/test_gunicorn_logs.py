"""An application under gunicorn keeps all that it has beside a `WebSocketApp`. Secrets in URLs are hidden there."""

import json
import logging
import re
import signal
import socket
import sys
from http.client import HTTPConnection

import pytest
from gunicorn.glogging import SafeAtoms

from tests.ports import free_port
from tests.programs import PROGRAM_S, ROOT, Program, connect, receive, wait_until
from wsthreads.gunicorn import _tell_access
from wsthreads.monitoring import gunicorn_logs
from wsthreads.monitoring.formats import JSONFormatter
from wsthreads.monitoring.gunicorn_logs import _hide_in_access_log, _hide_in_error_log, log_to_gunicorn

FORMAT = '%(h)s "%(r)s" %(s)s %(q)s "%(f)s" %({cookie}i)s %({raw_uri}e)s %({missing}i)s'
ATOMS = {
    "h": "192.0.2.1", "m": "GET", "U": "/ws", "q": "token=SECRET&x=1", "r": "GET /ws?token=SECRET&x=1 HTTP/1.1",
    "s": "200", "f": "http://ann:SECRET@host/", "L": "0.001", "D": 1000, "{cookie}i": "session=SECRET",
    "{raw_uri}e": "/ws?token=SECRET", "{wsgi.errors}e": sys.stderr, "{user-agent}i": "a\nb",
}  # fmt: skip


def record_of(message, *args, name="gunicorn.error"):
    return logging.getLogger(name).makeRecord(name, logging.INFO, "x.py", 1, message, args, None)


def test_an_access_record_keeps_its_dictionary():
    atoms = SafeAtoms(ATOMS)
    record = record_of(FORMAT, atoms)
    assert _hide_in_access_log(record)
    assert record.msg == FORMAT
    assert type(record.args) is SafeAtoms
    assert list(record.args) == list(ATOMS)
    assert (record.args["U"], record.args["D"], record.args["missing"]) == ("/ws", 1000, "-")
    assert record.args["{wsgi.errors}e"] is sys.stderr
    assert record.args["q"] == "token=***&x=1"
    assert record.args["{User-Agent}i"] == r"a\nb"
    assert "SECRET" not in record.getMessage()
    assert record.getMessage().endswith(" /ws?token=*** -")
    assert atoms["q"] == ATOMS["q"]  # the mapping may be shared


@pytest.mark.parametrize("hide", [_hide_in_access_log, _hide_in_error_log])
@pytest.mark.parametrize(("message", "args", "shown"), [
    ("%s is %d", ("/x?token=SECRET", 5), "/x?token=*** is 5"),
    ("/x?token=SECRET 100%", (), "/x?token=*** 100%"),
    ("%(a)s", ({"a": "b"},), "b"),
    ("nothing", (), "nothing"),
])  # fmt: skip
def test_other_records_keep_the_shape_of_their_arguments(hide, message, args, shown):
    record = record_of(message, *args)
    before = record.args
    assert hide(record)
    assert record.getMessage() == shown
    assert type(record.args) is type(before)
    assert len(record.args) == len(before)
    if args:
        assert record.msg == message  # Sentry groups events by it


class Odd(Exception):
    def __str__(self):
        raise KeyError("no text")


@pytest.mark.parametrize("hide", [_hide_in_access_log, _hide_in_error_log, _tell_access])
@pytest.mark.parametrize(("message", "args"), [
    ("done: 50%", (3,)), ("%d", ("x",)), ("%(a)s", ({"b": 1},)), (None, ()), (Odd(), ()), ("%s", (Odd(),)),
    (5, (None,)), ("%s %s", ("x",)), ("x", ({"s": "200"},)), ("x", ({"s": 200, 7: "token=a"},)),
])  # fmt: skip
def test_a_malformed_record_passes_as_it_is(hide, message, args):
    record = record_of(message, *args)
    before = dict(record.__dict__)
    assert hide(record)
    assert {name: record.__dict__[name] for name in before if name != "args"} == {
        name: value for name, value in before.items() if name != "args"
    }
    assert type(record.args) is type(before["args"])


def test_what_gunicorn_quotes_of_a_malformed_request_is_hidden():
    record = record_of("Invalid request from ip=192.0.2.1: Invalid HTTP Version: 'SECRET'")
    _hide_in_error_log(record)
    assert record.getMessage() == "Invalid request from ip=192.0.2.1: Invalid HTTP Version: '***'"
    record = record_of("Ignored premature client disconnection. %s", ValueError("No more data after: b'/?token=SECRET"))
    _hide_in_error_log(record)
    assert record.getMessage() == "Ignored premature client disconnection. No more data after: b'/?token=***"


def test_the_json_logger_takes_no_attribute_of_the_application_s():
    record = record_of(FORMAT, SafeAtoms(ATOMS), name="gunicorn.access")
    record.path = "theirs"
    _tell_access(record)
    assert (record.path, record.status, record.duration_s) == ("theirs", 200, 0.001)
    _hide_in_access_log(record)
    assert "SECRET" not in JSONFormatter().format(record)


def test_a_record_that_cannot_be_shown_ends_no_call(monkeypatch, capsys):
    logger, error_log = logging.getLogger("wsthreads"), logging.getLogger("gunicorn.error")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(error_log, "handlers", [logging.StreamHandler()])
    monkeypatch.setattr(logger, "handlers", [])
    log_to_gunicorn()
    try:
        logging.getLogger("wsthreads.mine").error("done: 50%", 3)
    finally:
        for ours in logger.handlers[0].levels:
            ours.setLevel(logging.NOTSET)
        for name, hide in (("gunicorn.error", _hide_in_error_log), ("gunicorn.access", _hide_in_access_log)):
            logging.getLogger(name).removeFilter(hide)
    assert "--- Logging error ---" in capsys.readouterr().err
    assert gunicorn_logs.__all__ == ["log_to_gunicorn"]


# The same application with and without a WebSocketApp.

APPLICATION = '''
import gc, json, locale, logging, logging.config, os, signal, sys, threading, warnings
LATE = %(late)r
log = logging.getLogger("app")
gunicorn_log = logging.getLogger("gunicorn.error")

def handlers_of(logger):
    return [repr(handler).partition(" at ")[0] for handler in logger.handlers]

def state():
    """What an application may have set up, or relies on."""
    names = ("root", "app", "gunicorn.error", "gunicorn.access", "werkzeug", "py.warnings")
    loggers = {name: logging.getLogger(name) for name in names}
    return {
        "loggers": {name: [x.level, x.disabled, x.propagate, handlers_of(x)] for name, x in loggers.items()},
        "logging": [str(logging.getLogRecordFactory()), str(logging.getLoggerClass()), logging.raiseExceptions,
                    logging.root.manager.disable, str(logging.lastResort), str(warnings.showwarning)],
        "warnings": [str(x[:3]) for x in warnings.filters],
        "signals": {str(n): getattr(signal.getsignal(n), "__qualname__", str(signal.getsignal(n)))
                    for n in sorted(signal.valid_signals()) if str(n) != "17"},
        "hooks": [str(sys.excepthook), str(sys.unraisablehook), str(sys.displayhook), str(sys.breakpointhook),
                  str(threading.excepthook), str(sys.gettrace()), str(sys.getprofile()), str(threading.gettrace())],
        "streams": [str(sys.stdin), str(sys.stdout), str(sys.stderr)],
        "locale": [locale.setlocale(locale.LC_ALL), os.environ.get("TZ")],
        "limits": [sys.getswitchinterval(), sys.getrecursionlimit(), threading.stack_size(), gc.get_threshold(),
                   gc.isenabled(), len(gc.callbacks), os.umask(os.umask(0)), os.getcwd(), len(os.sched_getaffinity(0))],
    }

def application(environ, start_response):
    path, body = environ["PATH_INFO"], b"fine"
    if path == "/state":
        body = json.dumps(state()).encode()
    if path == "/logs":
        log.info("from the %%s", "application")
        gunicorn_log.info("done: %%d", 50)
        gunicorn_log.info("done: 50%%", 3)  # malformed
        warnings.warn("a warning")
    if path == "/fails":
        raise LookupError("on purpose")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]

if not LATE:
    exec(CONFIGURE := %(configure)r)
if os.environ["WITH"] == "1":
    from wsthreads import WebSocketApp
    app = WebSocketApp(application)
    @app.route("/ws")
    class Handler:
        def on_message(self, session, message):
            session.send(message)
else:
    app = application
if LATE:
    exec(%(configure)r)
'''

ACCESS = '''
import json, logging
class Access(logging.Formatter):
    def format(self, record):
        a = record.args
        return "MINE " + json.dumps([a["h"], a["m"], a["U"], a["q"], a["s"], type(a).__name__, record.msg])
class NoHealth(logging.Filter):
    def filter(self, record):
        return record.args["U"] != "/state"
logconfig_dict = {"version": 1, "disable_existing_loggers": False,
  "formatters": {"a": {"()": Access}, "e": {"format": "%(levelname)s %(message)s"}},
  "filters": {"f": {"()": NoHealth}},
  "handlers": {"a": {"class": "logging.StreamHandler", "formatter": "a", "filters": ["f"]},
               "e": {"class": "logging.StreamHandler", "formatter": "e"}},
  "root": {"level": "INFO", "handlers": []},
  "loggers": {"gunicorn.access": {"level": "INFO", "handlers": ["a"], "propagate": False},
              "gunicorn.error": {"level": "INFO", "handlers": ["e"], "propagate": False}}}
'''

SHARED = "log.handlers = gunicorn_log.handlers; log.setLevel(gunicorn_log.level)"  # a recipe for Flask's log
CONFIG = """logging.config.dictConfig({"version": 1, "disable_existing_loggers": %s,
    "formatters": {"mine": {"format": "MINE %%(name)s %%(message)s"}},
    "handlers": {"mine": {"class": "logging.StreamHandler", "formatter": "mine"}},
    "root": {"level": "INFO", "handlers": ["mine"]}})"""
OTHER = """logging.config.dictConfig({"version": 1, "disable_existing_loggers": %s,
    "handlers": {"mine": {"class": "logging.StreamHandler"}},
    "loggers": {"app": {"level": "INFO", "handlers": ["mine"]}}})"""


MINE, JSON = ["-c", "access.py"], ["--logger-class", "wsthreads.gunicorn.JSONLogger"]


def normal(log):
    """Without process ids, ports and times, which differ from run to run, and without stacks, in which wsthreads is."""
    lines = []
    for line in log.splitlines():
        if not line.startswith(" ") and "Listening at" not in line and "Control socket" not in line:
            line = re.sub(r'"exception": ".*"', '"exception"', re.sub(r"127\.0\.0\.1:\d+", "HOST", line))
            line = re.sub(r"0x[0-9a-f]+|\d{4}-\d\d-\d\d[T ][\d:.]+|\d\d/\w{3}/\d{4}[: ][\d:]+", "TIME", line)
            line = re.sub(r'"(pid|duration_s)": [\d.]+|pid: ?\d+|pid:\d+|\[\d+\]|\d+\.\d{6}', "N", line)
            lines.append(line)
    return lines


def gunicorn(worker, *options):
    command = [sys.executable, "-m", "gunicorn", "-k", worker, "--threads", "9", "--access-logfile", "-", *options]
    return lambda port: [*command, "--bind", f"127.0.0.1:{port}", "application:app"]


def werkzeug(port):
    """As `flask run` does it."""
    program = f"run_simple('127.0.0.1', {port}, app, threaded=True)"
    return [sys.executable, "-c", f"from werkzeug.serving import run_simple; from application import app; {program}"]


def outcome(folder, with_websockets, command_for, with_sessions=False):
    port = free_port()
    environment = {"PYTHONPATH": f"{folder}:{ROOT}", "WITH": str(int(with_websockets))}
    # A real start: what a warm one has imported would also be there without WebSockets.
    with Program(command_for(port), cwd=folder, env=environment, cold="gthread" in command_for(port)) as server:
        wait_until(lambda: is_listening(port), "the server to listen", PROGRAM_S)
        answers = [ask(port, "/logs?x=1"), ask(port, "/state")]
        if with_websockets and with_sessions:
            with connect(f"ws://127.0.0.1:{port}/ws") as client:
                client.send("hello")
                assert receive(client) == "hello"
                answers.append(ask(port, "/state"))
        answers.append(ask(port, "/state"))  # perhaps in the thread that a session has had
        answers.append(ask(port, "/fails?x=1"))  # last, because it has Werkzeug import its debugger, which sets a hook
        assert server.end(signal.SIGINT if command_for is werkzeug else signal.SIGTERM) == 0
    return answers, server.log


def is_listening(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def ask(port, path):
    """The body, or a status other than 200, once the server has closed the connection: by then it has logged all."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PROGRAM_S)
    connection.connect()
    with connection.sock.dup() as twin:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read().decode()
        assert twin.recv(1) == b""
    return body if answer.status == 200 else answer.status


@pytest.mark.parametrize("worker", ["gthread", "wsthreads.gunicorn.ThreadWorker"])
@pytest.mark.parametrize(("options", "configure", "late"), [
    (MINE, "", False), (MINE, CONFIG % False, True),
    ([], SHARED, False), ([], SHARED, True),
    ([], CONFIG % False, True), ([], CONFIG % True, True), ([], CONFIG % True, False), ([], OTHER % True, True),
    (JSON, "", False), (JSON, OTHER % False, True), ([*JSON, *MINE], "", False),
], ids=range(11))  # fmt: skip
def test_an_application_keeps_all_that_it_has(tmp_path, worker, options, configure, late):
    (tmp_path / "access.py").write_text(ACCESS)
    (tmp_path / "application.py").write_text(APPLICATION % {"late": late, "configure": configure})
    compare(tmp_path, gunicorn(worker, *options))


@pytest.mark.parametrize(("configure", "late"), [
    ("", False), (CONFIG % False, True), (CONFIG % True, False), (CONFIG % True, True), (OTHER % True, True),
], ids=range(5))  # fmt: skip
def test_so_it_does_under_werkzeug(tmp_path, configure, late):
    (tmp_path / "application.py").write_text(APPLICATION % {"late": late, "configure": configure})
    compare(tmp_path, werkzeug)


def compare(folder, command_for):
    answers, log = outcome(folder, False, command_for)
    answers_with, log_with = outcome(folder, True, command_for)
    assert (answers_with[0], answers_with[-1]) == (answers[0], answers[-1]) == ("fine", 500)
    check_states(answers, answers_with)
    assert sorted(normal(log_with)) == sorted(normal(log))


@pytest.mark.parametrize("worker", ["gthread", "wsthreads.gunicorn.ThreadWorker", "werkzeug"])
@pytest.mark.parametrize("dashboard", ["", "a-token-of-the-tests"])
def test_so_it_does_while_there_are_sessions(tmp_path, worker, dashboard, monkeypatch):
    monkeypatch.setenv("WSTHREADS_DASHBOARD_TOKEN", dashboard)
    (tmp_path / "application.py").write_text(APPLICATION % {"late": False, "configure": SHARED})
    command_for = werkzeug if worker == "werkzeug" else gunicorn(worker)
    answers, _ = outcome(tmp_path, False, command_for)
    answers_with, _ = outcome(tmp_path, True, command_for, with_sessions=True)
    check_states(answers, answers_with)


def check_states(answers, answers_with):
    expected, *_ = states(answers)
    for state in [*states(answers), *states(answers_with)]:
        for name in expected:
            assert state[name] == expected[name], name


def states(answers):
    return [json.loads(re.sub(r"0x[0-9a-f]+", "0x", text)) for text in answers[1:-1]]
