"""Each text that docs/how-to/troubleshooting.rst quotes is provoked, so that it is what a user sees.

``…`` in a quotation stands for anything. `says` finds the quotation by a part of it; the first test sees to it that
each has a part in this file, or in test_troubleshooting_scripts.py.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.browsing import expect
from tests.javascript.test_engine import without_engine  # noqa: F401
from tests.pages import text_of
from tests.ports import BAD, free_port
from tests.programs import (
    DEADLINE_S,
    PROGRAM_S,
    ROOT,
    Program,
    ServerProgram,
    connect,
    run_server,
    wait_until,
    wsthreads,
)
from tests.redis_server import RedisServer
from tests.speakers import Speaker
from tests.test_faults import LESS_THAN_A_STACK, little_memory, no_descriptors
from tests.wire import TEXT, RawClient, Recorder, endpoint, self_signed
from wsthreads import (
    BrokerError,
    PostError,
    RedisBroker,
    RequestError,
    Session,
    WebSocketApp,
    WSThreadsError,
    create_app,
)
from wsthreads.errors import IsolateError
from wsthreads.protocol import envelope
from wsthreads.testing import play

pytestmark = pytest.mark.long

PAGE = text_of("docs/how-to/troubleshooting")

#: The texts in the terms of its definition lists.
QUOTED = [text for term in re.findall(r"^(``.*)\n {4}\S", PAGE, re.M) for text in re.findall(r"``(.+?)``", term)]

#: What a user sees that is no text of a message: codes, which stand with one, and a metric.
NOT_TEXTS = {"1006", "1008", "1009", "1011", "1012", "1013", "failed", "wsthreads_ticks_skipped_total"}

ECHO = "export function onMessage(session, message) { session.send(message); }"
APP = ("wsthreads:create_app('echo.js')",)
GUNICORN = (sys.executable, "-m", "gunicorn")
OURS = ("-k", "wsthreads.gunicorn.ThreadWorker", "--threads", "10")
UPGRADE = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"


def says(part: str, output: str) -> None:
    """The quotation that has this in it is in the output, which may have been wrapped."""
    (quoted,) = [text for text in QUOTED if part in text]
    pattern = ".{0,300}?".join(map(re.escape, quoted.split("…")))
    assert re.search(pattern, " ".join(output.split())), f"{quoted!r} is not in\n{output}"


def on_page(text: str, output: str) -> None:
    """A text that stands somewhere on the page is in the output."""
    assert text in " ".join(PAGE.split())
    assert text in " ".join(output.split()), output


def test_every_quotation_is_provoked() -> None:
    sources = [path.read_text() for path in Path(__file__).parent.glob("test_troubleshooting*.py")]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant)]
    parts = [text for text in texts if isinstance(text, str) and len(text) >= 8]
    assert len(QUOTED) > 40
    for quoted in QUOTED:
        assert quoted in NOT_TEXTS or any(part in quoted for part in parts), quoted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with an ``echo.js``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "echo.js").write_text(ECHO)
    return tmp_path


def complaint(*arguments: str | os.PathLike[str], **options: Any) -> str:
    """What a command that fails prints."""
    done = wsthreads(*arguments, **options)
    assert done.returncode, done.stdout
    return done.stderr


def refusal(server: ServerProgram, path: str, *arguments: str, scheme: str = "ws", host: str | None = None) -> str:
    """What ``wsthreads connect`` prints."""
    headers = ["--header", host] if host else []
    return complaint("connect", f"{scheme}://127.0.0.1:{server.port}{path}", *headers, *arguments)


def end_of(client: ClientConnection, code: int) -> str:
    """The reason with which a client is closed."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            client.recv(timeout=PROGRAM_S)  # before a restart, another program checks the handlers
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == code
    return caught.value.rcvd.reason


def ending(server: ServerProgram, path: str, code: int, *messages: str) -> str:
    """The reason with which a client that sends these is closed."""
    with connect(server.ws_url + path) as client:
        try:
            for message in messages:
                client.send(message)
        except ConnectionClosed:
            pass
        return end_of(client, code)


def slow_message(server: ServerProgram, path: str) -> str:
    with RawClient(server.port, path) as client:
        client.send(TEXT, "begun", fin=False)
        code, reason = client.receive_close()
        assert code == 1008
        return str(reason)


@contextmanager
def gunicorn(*arguments: str) -> Iterator[ServerProgram]:
    """gunicorn, from when a worker of it answers."""
    port = free_port()
    with ServerProgram([*GUNICORN, "-b", f"127.0.0.1:{port}", *arguments]) as server:
        server.port = port
        server.wait_for("Booting worker")
        RawClient(port, "/").sock.close()
        yield server


@contextmanager
def nginx(folder: Path, upstream: int, lines: str, listen: str = "") -> Iterator[int]:
    """The port of an nginx in front, with these lines beside ``proxy_pass``. Skips the test where there is none."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("there is no nginx")
    port = free_port()
    paths = "".join(f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; events {{}} http {{ access_log off; {paths} server {{"
        f" listen 127.0.0.1:{port}{listen}; location / {{ proxy_pass http://127.0.0.1:{upstream}; {lines} }} }} }}"
    )
    with Program([program, "-c", str(folder / "nginx.conf"), "-e", "stderr"]) as server:
        wait_until(lambda: _answers(port) or server.process.poll() is not None, deadline_s=PROGRAM_S)
        yield port
        server.end()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate and its key."""
    folder.mkdir()
    self_signed(folder)
    return folder / "certificate.pem", folder / "key.pem"


# It does not start


def test_a_port_in_use(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        says("the port is in use", complaint("run", "echo.js", "--port", str(port)))
        with Program([*GUNICORN, "-b", f"127.0.0.1:{port}", *APP]) as server:
            server.wait_for("in use")
            says("Connection in use", server.log)


def test_files_that_are_not_there(folder: Path) -> None:
    says("no such file or directory", complaint("run", "ecko.js"))
    (folder / "empty").mkdir()
    says("file in this directory", complaint("run", "empty"))
    says("not a directory", complaint("run", "echo.js", "--static", "public"))


@pytest.mark.parametrize(
    ("name", "source", "part"),
    [
        ("a.js", "function onMessage() {}", "export functions by name"),
        ("a.js", "export default { onMessage() {} }", "export functions by name"),
        ("a.js", "export function onMesage() {}", "none of the functions …; did you mean onMessage?"),
        ("a.js", "const fs = require('fs'); export function onMessage() {}", "require is not defined"),
        ("a.js", "import fs from 'fs'; export function onMessage() {}", "is a module of Node, which scripts do not"),
        ("a.py", "def on_message(session): pass", "cannot be called as on_message"),
        ("a.py", "async def on_message(session, message): pass", "whose body never runs; handlers are plain functions"),
        ("a.js", "export function* onMessage() {}", "whose body never runs: drop the *"),
    ],
)
def test_handlers_that_are_none(folder: Path, name: str, source: str, part: str) -> None:
    (folder / name).write_text(source)
    says(part, complaint("run", name))


@pytest.mark.usefixtures("without_engine")
def test_scripts_whose_time_cannot_be_bounded(folder: Path) -> None:
    with pytest.raises(IsolateError) as caught:
        create_app("echo.js")
    says("the run time of scripts cannot be limited", str(caught.value))


@pytest.mark.parametrize(
    ("package", "module", "part"),
    [
        ("gunicorn", "gunicorn", "needs gunicorn: pip install"),
        ("redis", "brokers.redis", "[redis]'"),
        ("prometheus_client", "prometheus", "[prometheus]'"),
        ("urllib3", "javascript.http_connections", "[fetch]'"),
    ],
)
def test_extras_that_are_not_installed(package: str, module: str, part: str) -> None:
    program = f"import sys; sys.modules[{package!r}] = None; import wsthreads.{module}"
    command = [sys.executable, "-c", program]
    says(part, subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT, timeout=PROGRAM_S).stderr)


# It does not connect


def test_handshakes_that_the_server_refuses(folder: Path) -> None:
    (folder / "guard.js").write_text("export const onHandshake = (request) => Number(request.getParameter('a'));")
    (folder / "fail.js").write_text("export function onHandshake(request) { throw new Error('no'); }")
    options = ["guard.js", "fail.js", "--max-sessions-per-address", "1", "--max-sessions", "2"]
    with run_server("echo.js", *options) as server:
        says("refused with 404", refusal(server, "/ws/eko"))
        server.wait_for("no endpoint /ws/eko")
        says("no endpoint …; there are", server.log)
        hint = "there is no WebSocket endpoint at /ws/echo/; did you mean /ws/echo?"
        assert hint in refusal(server, "/ws/echo/")
        on_page(hint.replace("/ws/echo/", "…").replace("/ws/echo", "…"), PAGE)
        says("this server speaks plain WebSocket", refusal(server, "/socket.io/?EIO=4&transport=websocket"))
        with connect(f"{server.ws_url}/ws/echo", subprotocols=["token.abc"]):
            server.wait_for("offers only subprotocols")
        says("a client of … offers only subprotocols that", server.log)
        says("refused with 403: origin … is not allowed", refusal(server, "/ws/echo", "--origin", "https://a.example"))
        host = f"Host:chat.example:{server.port}"
        rebound = refusal(server, "/ws/echo", "--origin", f"http://chat.example:{server.port}", host=host)
        says("points to this machine", rebound)
        says("refused with 403: refused", refusal(server, "/ws/guard?a=403"))
        assert "refused with 401: refused" in refusal(server, "/ws/guard?a=401")
        assert "refused with 500: the handler failed" in refusal(server, "/ws/fail")
        with connect(f"{server.ws_url}/ws/echo"):
            says("max_sessions_per_address", refusal(server, "/ws/echo"))


def test_no_place_is_left(folder: Path) -> None:
    with run_server("echo.js", "--max-sessions", "1") as server, connect(f"{server.ws_url}/ws/echo"):
        says("places for sessions are taken", refusal(server, "/ws/echo"))


def test_servers_that_will_not_do(folder: Path) -> None:
    with gunicorn(*APP) as server:
        says("runs without threads, and a session needs one", refusal(server, "/ws/echo"))
    with gunicorn("-k", "wsthreads.gunicorn.ThreadWorker", *APP) as server:
        on_page("each WebSocket session needs a thread, and --threads is 1: use more, such as 500", server.log)
    with gunicorn("-k", "gthread", "--threads", "1000", *APP) as server:
        on_page("No keepalived connections can be handled", server.log)
    port = free_port()
    serve = f"make_server('127.0.0.1', {port}, wsthreads.{APP[0].partition(':')[2]}).serve_forever()"
    program = f"import wsthreads; from wsgiref.simple_server import make_server; print('serves'); {serve}"
    with ServerProgram([sys.executable, "-c", program]) as server:
        server.port = port
        server.wait_for("serves")
        wait_until(lambda: "refused with 501" in refusal(server, "/ws/echo"), "the server", PROGRAM_S)
        says("does not hand over its socket", refusal(server, "/ws/echo"))
    (folder / "green.py").write_text("import gevent.monkey\ngevent.monkey.patch_all()\ndef on_open(session): pass\n")
    says("has replaced Python's threads and sockets", complaint("run", "green.py"))


def test_an_endpoint_that_is_opened_as_a_page_by_http_2_says_what_it_is(folder: Path) -> None:
    """nginx passes on the header Upgrade, which HTTP/2 forbids: browsers show a protocol error."""
    lines = f"{UPGRADE} proxy_http_version 1.1;".replace("upgrade;", "close;")
    with run_server("echo.js") as server, nginx(folder, server.port, lines, " http2") as port:
        command = ["curl", "--silent", "--show-error", "--http2-prior-knowledge", f"http://127.0.0.1:{port}/ws/echo"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_S)
        assert (done.returncode, done.stderr) == (0, "")
        on_page("this is a WebSocket endpoint: connect with ws:// or wss://", done.stdout)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ("", "this is a WebSocket endpoint: connect with"),
        (UPGRADE, "400"),
        (f"{UPGRADE} proxy_http_version 1.1;", "refused with 403: origin … is not allowed"),
        (f"{UPGRADE} proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_read_timeout 1s;", "1006"),
    ],
)
def test_nginx_without_the_lines_that_it_needs(folder: Path, lines: str, part: str) -> None:
    with run_server("echo.js") as server, nginx(folder, server.port, lines) as port:
        url = f"ws://127.0.0.1:{port}/ws/echo"
        done = wsthreads("connect", url, "--origin", f"http://127.0.0.1:{port}", "--wait", str(PROGRAM_S))
        if part == "400":
            on_page("a WebSocket handshake needs HTTP/1.1", done.stderr)
        elif part == "1006":
            says("1006 connection lost", done.stderr)
            server.wait_for("1006 connection lost")
        else:
            says(part, done.stderr)


def test_nobody_there_or_no_tls(folder: Path) -> None:
    says("nothing listens there", complaint("connect", f"ws://127.0.0.1:{free_port()}/ws/echo"))
    with run_server("echo.js") as server:
        says("does not speak TLS: try ws://", refusal(server, "/ws/echo", scheme="wss"))
    (one, key), (_, other) = certificate(folder / "one"), certificate(folder / "other")
    with run_server("echo.js", "--cert", one, "--key", key) as server:
        says("try wss://", refusal(server, "/ws/echo"))
        says("the server's certificate is not trusted", refusal(server, "/ws/echo", scheme="wss"))
        trusting = {"SSL_CERT_FILE": str(one)}
        assert wsthreads("connect", f"wss://localhost:{server.port}/ws/echo", env=trusting).returncode == 0
    says("this file has no PEM private key", complaint("run", "echo.js", "--cert", one))
    says("the key does not match the certificate", complaint("run", "echo.js", "--cert", one, "--key", other))


CONNECT = """(url) => new Promise((done) => {
  try { new WebSocket(url).onclose = ({ code }) => done(String(code)); } catch (error) { done(String(error)); }
})"""


def test_in_a_browser(folder: Path, browser: Any) -> None:
    context = browser.new_context(ignore_https_errors=True)
    page, console = context.new_page(), []
    page.on("console", lambda message: console.append(message.text))
    page.route("https://chat.example/", lambda route: route.fulfill(body="<p>A page"))
    page.goto("https://chat.example/")
    says("An insecure WebSocket connection", page.evaluate(CONNECT, "ws://chat.example/ws/echo"))
    assert wsthreads("new", "chat").returncode == 0
    with run_server("chat/chat.js", "--static", "chat/public") as server:
        page.goto(f"{server.url}/")
        expect(page.get_by_role("log")).to_contain_text("There is no")
        says("There is no /wsthreads.js here", page.get_by_role("log").inner_text())
        assert page.evaluate(CONNECT, f"{server.ws_url}/ws/nowhere") == "1006"
        assert "Unexpected response code: 404" in console[-1]
        assert page.evaluate(CONNECT, f"ws://127.0.0.1:{free_port()}/") == "1006"
        says("net::ERR_CONNECTION_REFUSED", console[-1])
    with run_server("echo.js", port=BAD) as server:
        server.wait_for("choose another port")
        says("browsers do not connect to port", server.log)
        assert page.evaluate(CONNECT, f"{server.ws_url}/ws/echo") == "1006"
        assert "net::ERR_UNSAFE_PORT" in console[-1]
    context.close()


# It closes


def test_close_codes_of_handlers_and_limits(folder: Path) -> None:
    (folder / "open.js").write_text("export function onOpen() { fail(); }")
    (folder / "open_py.py").write_text("def on_open(session): 1 / 0")
    (folder / "loop.js").write_text("export function onMessage() { while (true); }")
    limits = ["--max-messages-per-s", "2", "--script-timeout-s", "0.5", "--message-timeout-s", "0.2"]
    with run_server("echo.js", "open.js", "open_py.py", "loop.js", *limits) as server:
        says("message of … bytes", ending(server, "/ws/echo", 1009, "x" * 2**21))
        says("messages a second", ending(server, "/ws/echo", 1008, *["x"] * 50))
        says("a message was not complete", slow_message(server, "/ws/echo"))
        says("onOpen failed", ending(server, "/ws/open", 1011))
        says("on_open failed", ending(server, "/ws/open_py", 1011))
        server.wait_for(r"open\.js:1:\d+")
        server.wait_for("ZeroDivisionError")
        ending(server, "/ws/loop", 1011, "x")
        server.wait_for("was stopped after")
        says("was stopped after … s", server.log)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"max_outbox_bytes": 1000}, "bytes wait, the limit is"),
        ({"max_outbox_bytes": 2**30, "send_timeout_s": 0.2}, "nothing was read for"),
    ],
)
def test_a_client_that_does_not_read(settings: dict[str, Any], part: str) -> None:
    class Flood(Recorder):
        def on_open(self, session: Session) -> None:
            super().on_open(session)
            session.room("all").join()
            for _ in range(1000):
                session.room("all").broadcast(bytes(20_000))

    handler = Flood()
    with endpoint(handler, close_timeout_s=0.2, **settings) as (_, port), RawClient(port, receive_buffer=4096):
        code, reason = handler.close()
        assert code == 1013
        says(part, reason)


def test_restarts(folder: Path) -> None:
    (folder / "echo.py").write_text("def on_open(session): pass")
    with run_server("echo.py", "--reload") as server, connect(f"{server.ws_url}/ws/echo") as client:
        (folder / "echo.py").write_text("def on_open(session): pass  # changed")
        says("the server restarts with new code", end_of(client, 1012))
    with gunicorn(*OURS, "--graceful-timeout", "5", *APP) as server, connect(f"{server.ws_url}/ws/echo") as client:
        server.process.send_signal(signal.SIGHUP)
        says("server restarting", end_of(client, 1012))


# Messages do not arrive


def test_rooms_that_are_apart(folder: Path) -> None:
    for worker in OURS[1], "gthread":
        with gunicorn("-k", worker, "--threads", "10", "-w", "2", *APP) as server:
            with connect(f"{server.ws_url}/ws/echo"):
                server.wait_for("workers have separate rooms")
            says("workers have separate rooms", server.log)


def test_a_redis_that_is_away(folder: Path) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    with run_server("echo.js", "--redis", url) as server:
        server.wait_for("is unavailable")
        says("is unavailable, so broadcasts wait", server.log)
    room = WebSocketApp(broker=RedisBroker(url, max_queued_bytes=1000)).add_handler("/x", Recorder()).room("r")
    with pytest.raises(BrokerError) as caught:
        for _ in range(20):
            room.broadcast("x" * 100)
    on_page("so this broadcast is not sent", str(caught.value))


# A room refuses


class Owner:
    """Owns rooms, and handles posts when it may."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.room: Any = None

    def on_open(self, session: Session) -> None:
        session.room("r").join()

    def on_room_start(self, room: Any) -> None:
        self.room = room

    def on_post(self, room: Any, value: Any, sender: Any) -> None:
        self.may_go_on.wait(DEADLINE_S)


def test_posts_that_are_not_handled() -> None:
    owner = Owner()
    with endpoint(owner, post_timeout_s=0.1) as (app, port):
        room = app.endpoints[0].room("r")
        says("the room has no members", str(error_of(lambda: room.post(1))))
        with RawClient(port):
            wait_until(lambda: owner.room, "the owner")
            slow = error_of(lambda: room.post(1))
            assert isinstance(slow, PostError)
            assert slow.is_unknown
            says("was not handled within … s (post_timeout_s); it may still be handled", str(slow))

            def fill() -> None:
                for _ in range(20_000):
                    room.post(1, wait=False)

            full = error_of(fill)
            assert isinstance(full, PostError)
            assert not full.is_unknown
            says("posts wait already", str(full))
            owner.may_go_on.set()

    class Ticker:
        tick_rate = 1

        def on_tick(self, room: Any, dt: float) -> None:
            """Makes rooms have owners."""

    with play(Ticker) as game:
        says("the handler has no on_post", str(error_of(lambda: game.room("r").post(1))))


def test_values_that_a_room_refuses() -> None:
    owner = Owner()
    with play(owner) as game:
        client, room = game.connect(), game.room("r")
        says("history is off: set history_messages", str(error_of(lambda: room.history(1))))
        says("bytes as JSON; max_room_bytes allows", str(error_of(lambda: room.set_attribute("k", "x" * 2**17))))
        room.set_attribute("k", "x" * 2**15)
        says("bytes as JSON; max_room_bytes allows", str(error_of(lambda: room.set_attribute("l", "x" * 2**15))))
        client.close()
        says("with the fencing number", str(error_of(lambda: owner.room.set_attribute("k", 1))))
    with play(owner, history_messages=10) as game:
        room = game.connect().session.room("s")
        says("since must be a position", str(error_of(lambda: room.join(since=7))))
        game.connect().session.room("full").join()
        assert not game.connect().session.room("full").join(max_members=1).joined


def error_of(call: Callable[[], object]) -> Exception:
    with pytest.raises(WSThreadsError) as caught:
        call()
    return caught.value


def test_an_owner_that_redis_does_not_confirm(folder: Path) -> None:
    (folder / "game.js").write_text(
        "export const onOpen = (session) => { session.room('r').join(); };"
        "export function onPost() {} export function onRoomStart() { console.log('begun'); }"
    )
    with RedisServer() as redis, run_server("game.js", "--redis", redis.url) as server, ExitStack() as stack:
        stack.enter_context(connect(f"{server.ws_url}/ws/game"))
        server.wait_for("begun")
        redis.kill()
        server.wait_for("has not confirmed the lease in time")
        says("this process no longer owns the room …", server.log)


# It does not change


def test_a_mistake_under_reload_and_a_misspelt_name(folder: Path) -> None:
    with run_server("echo.js", "--reload") as server:
        (folder / "echo.js").write_text(f"{ECHO} export function (")
        server.wait_for("not reloaded")
        says("not reloaded, the old code goes on", server.log)
        (folder / "echo.js").write_text(f"{ECHO} export function onOpne() {{}}")
        server.wait_for(r"onOpne is never called; did you mean onOpen\?")
    (folder / "echo.js").write_text("export function onOpen() {} export function onMesage() {}")
    says("is never called; did you mean onMessage?", wsthreads("check", "echo.js").stdout)


def test_flasks_reloader(folder: Path) -> None:
    (folder / "app.py").write_text(
        "from flask import Flask\nfrom wsthreads import WebSocketApp\nprint('loaded')\napp = Flask(__name__)\n"
        "sockets = app.wsgi_app = WebSocketApp(app.wsgi_app)\nsockets.add_script('/ws/echo', 'echo.js')\n"
    )
    port = free_port()
    command = [sys.executable, "-m", "flask", "run", "--debug", "--port", str(port)]
    with Program(command, start_new_session=True) as server:
        try:
            server.wait_for("loaded", times=2)
            says("Restarting with stat", server.log)
        finally:
            os.killpg(server.process.pid, signal.SIGKILL)


# It is slow, or full


def test_the_machines_limits(folder: Path) -> None:
    with run_server("echo.js") as server, connect(f"{server.ws_url}/ws/echo"), ExitStack() as stack:
        with no_descriptors(server.process.pid):
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), DEADLINE_S))
            server.wait_for("cannot accept connections")
        says("Too many open files", server.log)
        with little_memory(server.process.pid, LESS_THAN_A_STACK):
            while "cannot serve a connection" not in server.log:
                stack.enter_context(RawClient(server.port, "/ws/echo"))
        says("can't start new thread", server.log)


def test_no_c_modules() -> None:
    says("pure Python", wsthreads("--version", env={"WSTHREADS_PURE_PYTHON": "1"}).stdout)


# A session does not survive


class Asked:
    def __init__(self) -> None:
        self.endings: list[str] = []

    def on_close(self, session: Session, code: int, reason: str) -> None:
        self.endings.append(reason)


def test_a_client_that_comes_back_too_late_is_told_of_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    handler = Asked()
    with play(handler, resume_s=60) as chat:
        ann = chat.connect()
        asked = ann.session.id
        ann.lose()
        chat.advance(60)
        assert len(handler.endings) == 1
        says("not back within", handler.endings[0])
        ann.come_back()
    says("is not resumed", caplog.text)
    assert f"session {asked} on " in caplog.text
    assert " is not resumed: unknown: the session or its process has ended\n" in caplog.text


class Asks:
    def on_request(self, session: Session, message: str) -> None:
        session.request(message)


def test_a_request_that_nobody_answers_fails_with_a_reason() -> None:
    with play(Asked(), resume_s=60) as chat, pytest.raises(RequestError) as no_handler:
        chat.connect().request("time?")
    says("the server has no onRequest", str(no_handler.value).replace("on_request", "onRequest"))
    says("the client has no onrequest", (ROOT / "wsthreads/client/wsthreads.js").read_text())
    with endpoint(Asks(), resume_s=60, max_pending_requests=1) as (_, port), Speaker(port).begin() as client:
        client.ask(1, "wait")
        assert client.next() == envelope.Request(1, "wait")
        client.ask(2, "time?")
        failure = client.next()
        assert isinstance(failure, envelope.Failure)
        says("too many requests", failure.reason)
