"""The command as a process of its own, with real messages."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import fields

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from werkzeug.serving import get_interface_ip

from tests.dashboard_viewer import Viewer
from tests.ports import free_port
from tests.programs import (
    DEADLINE_S,
    EXAMPLES,
    PROGRAM_S,
    ROOT,
    Program,
    connect,
    receive,
    run_server,
    wait_until,
    wsthreads,
)
from wsthreads import Config, __version__
from wsthreads.cli.options import SECTIONS

ECHO_JS = "export function onMessage(session, message) { session.send(%s) }\n"
ECHO_PY = "def on_message(session, message):\n    session.send(%s)\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty one, which is the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fetch(url):
    with urllib.request.urlopen(url, timeout=PROGRAM_S) as answer:
        return answer.read().decode()


def ask(url, message="x", **options):
    with connect(url, **options) as client:
        client.send(message)
        return receive(client)


# run


def test_run_serves_the_chat_room():
    with (
        run_server(EXAMPLES / "chat.js") as server,
        connect(server.ws_url + "/ws/chat?user=alice") as alice,
    ):
        welcome = json.loads(receive(alice))
        assert welcome["type"] == "welcome"
        assert welcome["id"]
        with connect(server.ws_url + "/ws/chat?user=bob") as bob:
            assert json.loads(receive(bob))["type"] == "welcome"
            assert json.loads(receive(alice)) == {"type": "join", "user": "bob"}
            alice.send("hello")
            before = time.time() * 1000
            message = json.loads(receive(bob))
            assert abs(message.pop("timestamp") - before) < 60_000
            assert message == {"type": "message", "from": "alice", "text": "hello"}
        assert json.loads(receive(alice)) == {"type": "leave", "user": "bob"}
        with connect(server.ws_url + "/ws/chat") as nobody:
            receive(nobody)
            assert json.loads(receive(alice)) == {"type": "join", "user": "anonymous"}
            nobody.socket.shutdown(socket.SHUT_RDWR)  # lost, not closed
        assert json.loads(receive(alice)) == {"type": "leave", "user": "anonymous"}
        with pytest.raises(TimeoutError):
            alice.recv(timeout=0.1)


def test_run_says_where_it_listens_and_what_it_serves(folder):
    (folder / "echo.js").write_text(ECHO_JS % "message")
    (folder / "other.py").write_text("def on_open(session): pass\ndef on_close(session): pass\ndef on_eror(): pass\n")
    (folder / "public").mkdir()
    with run_server("echo.js", "other.py", "--static", "public") as server:
        server.wait_for(r"WARNING .*other\.py:3:5: on_eror is never called; did you mean on_error\?\n")
        server.wait_for(r"/ws/other  .*\n")
        lines = [line for line in server.log[server.log.index("Listening") :].splitlines() if "WARNING" not in line]
        assert [re.split("  +", line) for line in lines] == [
            [f"Listening on {server.url} (Ctrl-C stops)"],
            ["", f"{server.url}/…", "the files in public"],
            ["", f"{server.url}/", "the page about this server"],
            ["", f"{server.ws_url}/ws/echo", "echo.js: onMessage"],
            ["", f"{server.ws_url}/ws/other", "other.py: on_open, on_close"],
        ]
        assert "Endpoints" in fetch(server.url)


def test_run_listens_on_loopback_and_nowhere_else(folder):
    (folder / "echo.py").write_text(ECHO_PY % "message")
    with run_server("echo.py") as server:
        assert ask(server.ws_url + "/ws/echo") == "x"
        others = ["127.0.0.2", get_interface_ip(socket.AF_INET)]
        for address in [other for other in others if other != "127.0.0.1"]:
            with pytest.raises(OSError, match="refused"):
                socket.create_connection((address, server.port), DEADLINE_S)


def test_run_serves_a_directory_of_handlers(folder):
    (folder / "one.js").write_text(ECHO_JS % "'js ' + message")
    (folder / "two.py").write_text("import _helper\n" + ECHO_PY % "_helper.text + message")
    (folder / "three.mjs").write_text("import { text } from './_helper.js';\n" + ECHO_JS % "text + message")
    (folder / "_helper.py").write_text("text = 'py '\n")
    (folder / "_helper.js").write_text("export const text = 'mjs ';\n")
    with run_server(".") as server:
        assert ask(server.ws_url + "/ws/one") == "js x"
        assert ask(server.ws_url + "/ws/two") == "py x"
        assert ask(server.ws_url + "/ws/three") == "mjs x"


def test_run_serves_at_another_path_and_only_there(folder):
    (folder / "echo.js").write_text(ECHO_JS % "message")
    with run_server("echo.js", "--path", "/live") as server:
        assert ask(server.ws_url + "/live") == "x"
        with pytest.raises(InvalidStatus) as caught, connect(server.ws_url + "/ws/echo"):
            pass
        assert caught.value.response.status_code == 404


def test_run_serves_static_files_and_the_page_about_itself(folder):
    (folder / "echo.js").write_text(ECHO_JS % "message")
    (folder / "public").mkdir()
    (folder / "public" / "page.html").write_text("<p>mine")
    with run_server("echo.js", "--static", "public") as server:
        assert fetch(server.url + "/page.html") == "<p>mine"
        assert "Endpoints" in fetch(server.url)  # nothing else is at /
        (folder / "public" / "index.html").write_text("<p>my index")
        assert fetch(server.url) == "<p>my index"
        assert "Endpoints" in fetch(server.url + "/_wsthreads/")


def test_origins_are_let_in_by_an_option(folder):
    (folder / "echo.js").write_text(ECHO_JS % "message")
    with run_server("echo.js", "--origin", "https://a.example", "--origin", "https://b.example") as server:
        assert ask(server.ws_url + "/ws/echo", origin="https://b.example") == "x"
        assert ask(server.ws_url + "/ws/echo", origin=server.url) == "x"
        with pytest.raises(InvalidStatus) as caught, connect(server.ws_url + "/ws/echo", origin="https://c.example"):
            pass
        assert caught.value.response.status_code == 403


def test_settings_reach_the_server(folder):
    (folder / "echo.py").write_text(ECHO_PY % "message")
    options = ["--max-message-bytes", "10", "--subprotocol", "v2", "--subprotocol", "v1", "--no-accept-binary"]
    with run_server("echo.py", *options) as server:
        with connect(server.ws_url + "/ws/echo", subprotocols=["v1", "v2"]) as client:
            assert client.subprotocol == "v2"
            client.send("x" * 11)
            with pytest.raises(ConnectionClosed) as caught:
                receive(client)
            assert caught.value.rcvd.code == 1009
        with connect(server.ws_url + "/ws/echo") as client:
            client.send(b"x")
            with pytest.raises(ConnectionClosed) as caught:
                receive(client)
            assert caught.value.rcvd.code == 1003


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_every_setting_is_an_option_with_its_default(columns):
    done = wsthreads("run", "--help", env={"COLUMNS": str(columns)})
    assert max(map(len, done.stdout.splitlines())) < columns
    text = " ".join(done.stdout.split())
    for setting in fields(Config):
        option = {"allowed_origins": "--origin", "subprotocols": "--subprotocol"}.get(setting.name)
        option = option or "--" + setting.name.replace("_", "-")
        if setting.metadata["kind"] is bool:
            option = f"--[no-]{option[2:]}"
            default = {True: "[default: yes]", False: "[default: no]", None: ""}[setting.default]
        elif isinstance(setting.default, (int, float)):
            default = f"[default: {setting.default:g}]" if setting.default < 1e5 else f"[default: {setting.default}]"
        else:
            default = ""
        found = re.search(rf" {re.escape(option)} .*?(?= --|$)", text)
        assert found, option
        assert default in found[0]


def test_each_option_is_under_a_title_that_fits():
    done = wsthreads("run", "--help")
    other = done.stdout.partition("\nOther:\n")[2]
    assert re.findall("--[a-z-]+", other) == ["--help"]
    assert {setting.name for setting in fields(Config)} <= {name for _, names in SECTIONS for name in names}


def test_the_log_is_as_quiet_as_one_likes(folder):
    (folder / "echo.py").write_text(ECHO_PY % "message")
    with run_server("echo.py") as server:
        ask(server.ws_url + "/ws/echo?user=alice")
        fetch(server.url + "/_wsthreads/")
        fetch(server.url + "/_wsthreads")  # redirected
        for file in ("main.js", "styles/theme.css", "status.json", "icon.svg", "?x"):
            fetch(f"{server.url}/_wsthreads/{file}")
        again = urllib.request.Request(server.url + "/_wsthreads/icon.svg")
        again.add_header("If-Modified-Since", "Fri, 01 Jan 2038 00:00:00 GMT")
        with pytest.raises(urllib.error.HTTPError, match="304"):
            urllib.request.urlopen(again, timeout=PROGRAM_S)
        with Viewer(server.ws_url):
            pass
        with pytest.raises(urllib.error.HTTPError):
            fetch(server.url + "/_wsthreads/missing.js")
        assert server.end() == 0
        assert server.log.count('"GET /ws/echo?user=alice HTTP/1.1" 101 -') == 1
        assert re.findall("_wsthreads.*", server.log) == ['_wsthreads/missing.js HTTP/1.1" 404 -']
        assert "opened on /ws/echo" in server.log
        assert "\x1b" not in server.log
        assert "Traceback" not in server.log
    with run_server("echo.py", "--log-level", "warning") as server:
        ask(server.ws_url + "/ws/echo?user=alice")
        assert server.end() == 0
        assert "alice" not in server.log
        assert "opened" not in server.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_ctrl_c_ends_it_and_runs_every_on_close(folder, number):
    (folder / "room.js").write_text(
        "export function onOpen(session) { session.send('hi') }\n"
        "export function onClose(session, code) { console.log('bye ' + code) }\n"
    )
    patient = ("--shutdown-timeout-s", str(10 * DEADLINE_S))
    with run_server("room.js", *patient) as server, connect(server.ws_url + "/ws/room") as client:
        receive(client)
        assert server.end(number) == 0, "and it takes no longer than it has to"
        assert "bye 1001" in server.log
        with pytest.raises(ConnectionClosed) as caught:
            receive(client)
        assert caught.value.rcvd.code == 1001


ENDLESS_PY = r"""
import atexit, builtins, os, time
atexit.register(print, 'the exit function')
class End:
    def __del__(self, write=os.write):
        write(2, b'the end of Python\n')
builtins.end = End()
def on_open(session):
    print('begun')
    os.write(2, b'here it stays\n')
    while True: time.sleep(0.01)
"""


@contextmanager
def endless(folder, *options, has_gil, **files):
    """A server with a handler that never returns, and the handler's URL."""
    for name, text in {"endless.py": ENDLESS_PY, **files}.items():
        (folder / name).write_text(text)
    code = f"from wsthreads.threads import gil; gil.has_gil = lambda: {has_gil}; import runpy; "
    code += "runpy.run_module('wsthreads', run_name='__main__')"
    command = ["run", "--port", "0", "--shutdown-timeout-s", "0.2", *options, "endless.py"]
    with Program([sys.executable, "-c", code, *command], env={"PYTHONUNBUFFERED": ""}) as server:
        port = server.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1]
        yield server, f"ws://127.0.0.1:{port}/ws/endless"


@pytest.mark.parametrize("has_gil", [True, False])
def test_without_a_gil_a_handler_that_never_returns_does_not_hold_up_the_end_of_the_process(folder, has_gil):
    """Python would stop its thread anywhere, for example while the thread has a lock that Python's end needs."""
    with endless(folder, has_gil=has_gil) as (server, url), connect(url):
        server.wait_for("here it stays")
        assert server.end() == 0
    assert ("the end of Python" in server.log) is has_gil
    assert "the exit function" in server.log
    assert "begun" in server.log


@pytest.mark.parametrize("has_daemon", [True, False])
@pytest.mark.parametrize("has_gil", [True, False])
def test_the_end_of_the_process_writes_the_buffers_of_open_files(folder, has_gil, has_daemon):
    handler = "import threading\nfile = open('records', 'w')\n"
    handler += "def on_open(session): session.send(str(file.write('one')))\n"
    if has_daemon:
        handler += "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    with endless(folder, "writes.py", has_gil=has_gil, **{"writes.py": handler}) as (server, url):
        assert ask(url.replace("endless", "writes")) == "3"
        assert server.end() == 0
    assert (folder / "records").read_text() == "one"


@pytest.mark.parametrize("has_gil", [True, False])
def test_a_second_signal_does_not_wait_for_a_handler_that_never_returns(folder, has_gil):
    with endless(folder, "--shutdown-timeout-s", "600", has_gil=has_gil) as (server, url), connect(url) as client:
        server.wait_for("here it stays")
        server.process.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionClosed):
            receive(client)  # so the first has arrived
        assert server.end(signal.SIGINT) == 128 + signal.SIGINT


@pytest.mark.parametrize("has_gil", [True, False])
def test_a_handler_that_never_returns_does_not_stand_in_the_way_of_a_restart(folder, has_gil):
    with endless(folder, "--reload", has_gil=has_gil) as (server, url), connect(url):
        server.wait_for("here it stays")
        (folder / "endless.py").write_text(ENDLESS_PY + "# changed\n")
        server.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)", times=2)
        assert server.end() == 0


# run --reload


def test_a_script_is_reloaded_in_place_and_its_sessions_stay(folder):
    script = folder / "echo.js"
    script.write_text("import { text } from './_text.js';\n" + ECHO_JS % "text + message")
    (folder / "_text.js").write_text("export const text = 'one ';\n")
    with run_server("echo.js", "--reload") as server, connect(server.ws_url + "/ws/echo") as client:
        client.send("x")
        assert receive(client) == "one x"

        (folder / "_text.js").write_text("export const text = 'second ';\n")
        server.wait_for(r"echo\.js reloaded")
        client.send("x")
        assert receive(client) == "second x"

        script.write_text("export function onMessage(session {\n")
        server.wait_for(r"echo\.js not reloaded, the old code goes on: .*echo\.js:1: ")
        client.send("x")
        assert receive(client) == "second x"

        script.write_text(ECHO_JS % "'third ' + message")
        server.wait_for(r"echo\.js reloaded", times=2)
        client.send("x")
        assert receive(client) == "third x"


def test_a_changed_python_handler_restarts_the_server_at_the_same_port(folder):
    (folder / "echo.py").write_text("from beside import text\n" + ECHO_PY % "text + message")
    (folder / "beside.py").write_text("text = 'one '\n")
    with run_server("echo.py", "--reload") as server:
        with connect(server.ws_url + "/ws/echo") as client:
            client.send("x")
            assert receive(client) == "one x"

            (folder / "beside.py").write_text("text = \n")
            server.wait_for(r"changed: beside\.py; checking")
            server.wait_for(r"not restarted, the old code goes on: .*beside\.py:1: SyntaxError")
            client.send("x")
            assert receive(client) == "one x"

            (folder / "beside.py").write_text("text = 'two '\n")
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(timeout=PROGRAM_S)  # until another program has checked it
            assert caught.value.rcvd.code == 1012
        server.wait_for(rf"^Listening on {server.url} ", times=2)
        assert ask(server.ws_url + "/ws/echo") == "two x"
        assert not list(folder.rglob("*.pyc")), "of the same second and size, they would be taken for the new code's"
        assert server.end(signal.SIGINT) == 0


def test_a_new_file_in_a_directory_is_served_after_a_restart(folder):
    (folder / "handlers").mkdir()
    (folder / "handlers" / "one.js").write_text(ECHO_JS % "message")
    with run_server("handlers", "--reload") as server:
        (folder / "handlers" / "two.js").write_text("export function onMessage(\n")
        server.wait_for(r"not restarted, the old code goes on: .*two\.js:\d")
        (folder / "handlers" / "two.js").write_text(ECHO_JS % "message")
        server.wait_for(rf"^Listening on {server.url} ", times=2)
        assert ask(server.ws_url + "/ws/two") == "x"


def test_a_restart_that_a_broken_script_stood_in_the_way_of_comes_when_that_is_mended(folder):
    (folder / "one.js").write_text(ECHO_JS % "message")
    (folder / "two.py").write_text(ECHO_PY % "'old ' + message")
    with run_server("one.js", "two.py", "--reload") as server:
        (folder / "one.js").write_text("export function onMesage() {}\n")
        server.wait_for(r"one\.js not reloaded, the old code goes on: \S*one\.js:1:17: .* did you mean onMessage\?")
        (folder / "two.py").write_text(ECHO_PY % "'new ' + message")
        server.wait_for(r"not restarted, the old code goes on: \S*one\.js:1:17: ")
        (folder / "one.js").write_text(ECHO_JS % "message")
        server.wait_for(r"changed: two\.py; checking", times=2)
        server.wait_for(rf"^Listening on {server.url} ", times=2)
        assert ask(server.ws_url + "/ws/two") == "new x"


# Mistakes: one line each, and no traceback


def complaint_of(*arguments, **options):
    done = wsthreads(*arguments, **options)
    assert done.returncode not in (0, -signal.SIGABRT)
    assert done.stdout == ""
    assert done.stderr.endswith("\n")
    lines = [line for line in done.stderr.splitlines() if " WARNING " not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("wsthreads: ")
    return lines[0]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("chat.js", "export const a = 1;\n", r"chat\.js: exports none of the functions .*onOpen.*a"),
        ("chat.js", "let a = 1;\nexport function onOpen(session {\n}\n", r"chat\.js:2: SyntaxError"),
        ("chat.js", "let a = 1;\n\nnowhere();\nexport function onOpen() {}\n", r"chat\.js:3(:\d+)?: .*nowhere"),
        ("chat.js", "let a = 1;\n  JSON.parse('{a');\nexport function onOpen() {}\n", r"chat\.js:2.*SyntaxError"),
        ("chat.js", "import './nowhere.js';\nexport function onOpen() {}\n", r"chat\.js.*nowhere"),
        ("chat.py", "x = 1\n", r"chat\.py: has none of the handler functions"),
        (
            "site.py",
            "import flask, wsthreads\nweb = flask.Flask('site')\nsockets = wsthreads.WebSocketApp(web.wsgi_app)\n"
            "web.wsgi_app = sockets\n",
            r"site\.py:3:1: it has a WebSocketApp, .*: gunicorn .* site:APPLICATION, .* outermost .*on_message",
        ),
        (
            "app.py",
            "from wsthreads import WebSocketApp\nsockets = WebSocketApp()\n",
            r"app\.py:2:1: it has a WebSocketApp, which a WSGI server serves: gunicorn .* app:APPLICATION, ",
        ),
        (  # clients of guard:sockets would bypass the login
            "guard.py",
            "from wsthreads import WebSocketApp\nsockets = WebSocketApp()\n"
            "def login(environ, start_response):\n    return sockets(environ, start_response)\n",
            r"guard\.py:2:1: (?!.*guard:sockets).* guard:APPLICATION, .* with the login",
        ),
        ("chat.py", "x = 1\ndef on_open(session:\n", r"chat\.py:2:\d+: SyntaxError"),
        ("chat.py", "import nowhere_at_all\n", r"chat\.py:1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("chat.py", "on_open = 3\n", r"chat\.py:1:1: on_open must be a function, not 3"),
        ("chat.js", "\nexport function onMesage() {}\n", r"chat\.js:2:17: .*onMesage; did you mean onMessage\?"),
        ("chat.txt", "", r"chat\.txt: a handler is a \.js, \.mjs, \.ts or \.py file"),
        ("chat.d.ts", "", r"chat\.d\.ts: a \.d\.ts file has types, and no handler"),
    ],
)
@pytest.mark.parametrize("command", ["run", "check"])
def test_a_bad_handler_is_one_line(folder, command, name, text, message):
    (folder / name).write_text(text)
    assert re.search(message, complaint_of(command, name))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run"], "Missing argument"),
        (["run", "nowhere.js"], r"nowhere\.js: no such file or directory"),
        (["run", "."], r"no \.js, \.mjs, \.ts or \.py file in this directory"),
        (["run", "ok.py", "--port", "70000"], "port 70000 is out of range"),
        (["run", "ok.py", "--port", "-1"], "port -1 is out of range"),
        (["run", "ok.py", "--port", "abc"], "--port.*abc"),
        (["run", "ok.py", "--host", "no.such.host.invalid"], r"no\.such\.host\.invalid"),
        (["run", "ok.py", "--max-message-bytes", "-1"], "--max-message-bytes must be at least 1 .*not -1"),
        (["run", "ok.py", "--max-message-bytes", "1.5"], "--max-message-bytes.*1.5"),
        (["run", "ok.py", "--send-timeout-s", "nan"], "--send-timeout-s must be at least"),
        (["run", "ok.py", "--origin", "a b"], "--origin must hold"),
        (["run", "ok.py", "--static", "ok.py"], r"ok\.py: not a directory"),
        (["run", "ok.py", "--path", "live"], "a path begins with /"),
        (["run", "ok.py", "ok.py"], "would both have the path /ws/ok"),
        (["run", "ok.py", "--no-such-option"], "--no-such-option"),
        (["run", "ok.py", "--log-level", "loud"], "loud"),
        (["walk"], "walk"),
        (["check", "nowhere.js"], r"nowhere\.js: no such file or directory"),
        (["connect", "http://127.0.0.1/"], "a WebSocket URL looks like"),
        (["connect", "ws://127.0.0.1:1/"], "cannot connect to ws://127.0.0.1:1/: Connection refused"),
        (["connect", "ws://127.0.0.1:1/", "-H", "nonsense"], "name:value"),
    ],
)
def test_a_bad_command_line_is_one_line(folder, arguments, message):
    if arguments != ["run", "."]:
        (folder / "ok.py").write_text("def on_open(session): pass\n")
    assert re.search(message, complaint_of(*arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "x" * 300 + ".js"], r"x\.js: no such file or directory"),
        (["run", "x" * 5000], "no such file or directory"),
        (["run", "ok.py", "--static", "x" * 300], "x: not a directory"),
        (["run", "ok.py", "--static", ""], "'': not a directory"),
        (["run", "ok.py", "--host", ""], "--host"),
        (["new", "n" * 300], "n: File name too long"),
        (["new", "n" * 5000], "n: File name too long"),
        (["new", ""], "the folder has no name"),
        (["new", "loop"], r"loop: (File exists|Too many levels)"),
        (["check", "pipe.py"], r"pipe\.py: not a regular file"),
        (["check", "pipe.js"], r"pipe\.js: not a regular file"),
        (["check", "zero.ts"], r"zero\.ts: not a regular file"),
        (["run", "ok.py", "--cert", "pipe.py"], r"pipe\.py: not a regular file"),
        (["run", "ok.py", "--cert", "/dev/zero"], "/dev/zero: not a regular file"),
        (["run", "ok.py", "--cert", "/dev/null", "--key", "/dev/full"], "/dev/null: not a regular file"),
        (["run", "ok.py", "--cert", "x" * 300], "x: file name too long"),
        (["connect", "ws://127.0.0.1:1/", "-H", "Bad Name: x"], "a header's name has .*'Bad Name'"),
        (["connect", "ws://127.0.0.1:1/", "--origin", "https://a\nX: 1"], "header Origin may have no line ends"),
        (["connect", "ws://127.0.0.1:1/", "--subprotocol", "\udcff"], "a subprotocol has letters"),
        (["connect", f"ws://{'x' * 70}.example/"], "is not the name of a host"),
        (["connect", "ws://127.0.0.1:99999/"], "a WebSocket URL looks like .*99999|out of range"),
        (["connect", "ws://127.0.0.1:0/"], "cannot connect to ws://127.0.0.1:0/"),
    ],
)
def test_odd_values_are_one_line(folder, arguments, message):
    (folder / "ok.py").write_text("def on_open(session): pass\n")
    (folder / "loop").symlink_to("loop")
    (folder / "zero.ts").symlink_to("/dev/zero")
    for pipe in ("pipe.py", "pipe.js"):
        os.mkfifo(folder / pipe)
    assert re.search(message, complaint_of(*arguments))


# Standard streams that are closed, full, or cannot write a character


def shell(line, **options):
    """A line of the shell's in which $W is the command."""
    environment = {**os.environ, "W": f"{sys.executable} -m wsthreads", "PYTHONPATH": str(ROOT)}
    command = ["sh", "-c", line]
    return subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_S, env=environment, **options)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_commands_do_not_need_their_standard_streams(folder, closed):
    (folder / "ok.py").write_text("def on_open(session): pass\n")
    (folder / "no.py").write_text("on_open = 1\n")
    redis = "--endpoint /ws/x --redis redis://127.0.0.1:1"
    expected = {
        "$W --help": 0, "$W --version": 0, "$W check ok.py": 0, "$W check no.py": 1, "$W run no.py": 1,
        "$W new made": 0, f"$W publish room - {redis} </dev/null": 1, "$W connect ws://127.0.0.1:1/": 1,
    }  # fmt: skip
    for command, status in expected.items():
        done = shell(f"{command} {closed}")
        assert (done.returncode, "Traceback" in done.stderr) == (status, False), (command, done.stderr)
        assert len(done.stderr.splitlines()) == (status if "2>&-" not in closed else 0), (command, done.stderr)


def test_an_input_that_is_closed_is_no_message():
    done = shell("$W publish room - --endpoint /ws/x --redis redis://127.0.0.1:1 <&-")
    assert done.stderr == "wsthreads: the message - is read from the standard input, but the standard input is closed\n"
    done = shell("printf '\\377' | $W publish room - --endpoint /ws/x --redis redis://127.0.0.1:1")
    assert done.stderr.startswith("wsthreads: the standard input is not UTF-8 text: ")
    assert done.returncode == 1


@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", ">/dev/full", "2>/dev/full"])
def test_run_serves_whatever_its_standard_streams_are(folder, streams):
    """No socket of the server's may get the number of a stream that is closed: what is printed would go there."""
    (folder / "echo.py").write_text(
        "import os, sys\n"
        "def on_message(session, message):\n"
        "    print('printed')\n"
        "    kinds = [os.readlink(f'/proc/self/fd/{n}').partition(':')[0] for n in range(3)]\n"
        "    session.send(repr('socket' in kinds))\n"
    )
    port = free_port()
    line = f"exec {sys.executable} -m wsthreads run echo.py --port {port} {streams}"
    with Program(["sh", "-c", line], env={"PYTHONUNBUFFERED": ""}) as process:

        def answer():
            with suppress(OSError):
                return ask(f"ws://127.0.0.1:{port}/ws/echo")

        assert wait_until(answer, deadline_s=PROGRAM_S) == "False"
        assert process.end() == 0
        assert "Traceback" not in process.log


@pytest.mark.parametrize("command", ["--help", "--version", "check ok.py", "new made"])
def test_an_output_that_is_full_is_one_line(folder, command):
    (folder / "ok.py").write_text("def on_open(session): pass\n")
    done = shell(f"$W {command} >/dev/full")
    assert done.stderr == "wsthreads: the output cannot be written: No space left on device\n"
    assert done.returncode == 1
    assert shell(f"$W {command} >/dev/full 2>&1").returncode == 1


def test_what_the_output_cannot_write_is_an_escape(tmp_path):
    folder = tmp_path / "ü\udcff"
    folder.mkdir()
    (folder / "ok.py").write_text("def on_open(session): pass\n")
    done = wsthreads("check", folder, env={"PYTHONIOENCODING": "utf-8:strict"})
    assert (done.returncode, done.stderr) == (0, "")
    assert r"ü\udcff/ok.py" in done.stdout


def test_a_port_in_use_is_one_line(folder):
    (folder / "echo.js").write_text(ECHO_JS % "message")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        complaint = complaint_of("run", "echo.js", "--port", str(port))
        assert f"127.0.0.1:{port}: the port is in use" in complaint


def test_a_reader_that_goes_away_is_no_error(folder):
    (folder / "echo.py").write_text(ECHO_PY % "message")
    command = f"{sys.executable} -m wsthreads run --help | head -n 1"
    with Program(["sh", "-c", command]) as process:
        process.wait()
        assert process.log == "Usage: wsthreads run [OPTIONS] TARGET...\n"


# check, --version, --help


def test_check_lists_functions_and_names_near_misses(folder):
    (folder / "chat.js").write_text("export function onOpen() {}\nexport function onclose() {}\nexport const x = 1;\n")
    (folder / "other.py").write_text("def on_message(session, message): pass\ndef onClose(session): pass\n")
    done = wsthreads("check", ".")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "chat.js  /ws/chat  onOpen",
        "chat.js:2:17: onclose is never called; did you mean onClose?",
        "other.py  /ws/other  on_message",
        "other.py:2:5: onClose is never called; did you mean on_close?",
    ]


def test_check_and_run_say_that_nothing_is_resumed_without_resume_s(folder):
    (folder / "chat.js").write_text("export function onResume() {}\n")
    hint = "chat.js:1:17: onResume is never called: resume_s is 0; set it with --resume-s 60"
    assert hint in wsthreads("check", "chat.js").stdout.splitlines()
    assert "never called" not in wsthreads("check", "chat.js", "--resume-s", "60").stdout
    with run_server("chat.js") as server:
        server.wait_for(re.escape(hint))


def test_check_goes_on_after_a_mistake(folder):
    (folder / "a.js").write_text("export const x = 1;\n")
    (folder / "b.py").write_text("def on_open(session): pass\n")
    (folder / "c.py").write_text("import nowhere_at_all\n")
    done = wsthreads("check", ".")
    assert done.returncode == 1
    assert done.stdout == "b.py  /ws/b  on_open\n"
    assert len([line for line in done.stderr.splitlines() if line.startswith("wsthreads: ")]) == 2


def test_versions_are_told():
    done = wsthreads("--version", env={"WSTHREADS_PURE_PYTHON": "1"})
    assert done.returncode == 0
    told = rf"wsthreads {re.escape(__version__)} \(Python [\d.]+\S*, dukpy 0\.6\.\d+, pure Python\)\n"
    assert re.fullmatch(told, done.stdout)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(arguments):
    done = wsthreads(*arguments)
    assert done.returncode == 0
    names = re.findall(r"^  (\w+)  +\w", done.stdout, re.MULTILINE)
    assert names == ["run", "new", "check", "publish", "kick", "connect"]


def test_help_imports_no_interpreter_and_no_server():
    modules = "('dukpy', 'wsthreads.servers.serving')"
    program = f"import sys, wsthreads.cli.commands; print([m for m in {modules} if m in sys.modules])"
    with Program([sys.executable, "-c", program]) as process:
        assert process.wait() == 0
        assert process.log == "[]\n"


def test_the_console_script_is_the_command():
    script = os.path.join(os.path.dirname(sys.executable), "wsthreads")
    if not os.path.exists(script):
        pytest.skip("wsthreads is not installed in this environment, only on its path")
    with Program([script, "--version"]) as process:
        assert process.wait() == 0
        assert process.log.startswith(f"wsthreads {__version__}")
