"""The examples of the how-to pages in docs/ run, each as its page has it.

docs/how-to/handshakes.rst, migrating.rst, troubleshooting.rst and those about rooms that hold state (test_room_pages)
have tests of their own.
"""

from __future__ import annotations

import json
import logging
import logging.config
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dukpy
import flask
import pytest

import wsthreads
from tests.browsing import expect
from tests.javascript.origins import Origin, response
from tests.npm import INSTALL_TIMEOUT_S, node_modules
from tests.pages import blocks, text_of
from tests.ports import free_port
from tests.programs import EXAMPLES, ROOT, Program, connect, receive, run_server, wait_until
from tests.programs import wsthreads as wsthreads_command
from tests.redis_server import RedisServer
from wsthreads import HandshakeRefused, WebSocketApp
from wsthreads.testing import play

#: What esbuild made of the handler in docs/how-to/bundlers.rst; its first line is the command.
BUNDLE = ROOT / "tests" / "javascript" / "scripts" / "bundled.js"

pytestmark = pytest.mark.usefixtures("apps_end")


# Embedding


def test_the_flask_application_broadcasts_from_a_view(serve: Callable[..., Any]) -> None:
    names: dict[str, Any] = {"__name__": "flask_example"}
    (source,) = blocks("docs/how-to/embedding", "python")
    exec(source, names)
    assert isinstance(names["websockets"], WebSocketApp)
    url = serve(names["websockets"]).ws_url + "/ws/chat"
    with connect(url) as client:
        client.ping().wait(10)  # on_open has run
        assert names["flask_app"].test_client().post("/announce/hello").status_code == 204
        assert receive(client) == "hello"


def test_the_flask_application_is_the_one_that_mypy_checks() -> None:
    def lines(text: str) -> set[str]:
        return {re.sub(r" +#", "  #", line) for line in text.splitlines() if "wsgi_app" in line}

    checked = (ROOT / "tests" / "javascript" / "types" / "embedded.py").read_text()
    (shown,) = blocks("docs/how-to/embedding", "python")
    assert lines(shown) == lines(checked)


def test_the_table_of_an_endpoint_s_methods_is_true() -> None:
    named = set(re.findall(r"^``endpoint\.(\w+)[(`]", text_of("docs/how-to/embedding"), re.MULTILINE))
    counts = {"session_count", "user_count", "totals"}
    assert named == {"path", "room", "user", "session", "sessions", "sessions_everywhere"} | counts
    for name in named - {"path"}:
        assert callable(getattr(wsthreads.Endpoint, name))
        assert getattr(wsthreads.Endpoint, name).__doc__


@pytest.mark.parametrize("name", ["flask_login_app.py", "django_app.py"])
def test_an_example_closes_a_user_s_sessions_on_all_devices(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    assert re.search(r'news\.user\(.*\)\.close\(4001, "logged out", ban_s=1\)', text)
    for page in ("embedding", "handshakes", "kick-a-user"):
        assert f"``examples/{name}``" in text_of(f"docs/how-to/{page}")


# Browser and bundlers


def test_the_client_on_a_page(tmp_path: Path, browser: Any) -> None:
    (tmp_path / "chat.js").write_text("export function onMessage(session, message) { session.send(message); }")
    (tmp_path / "public").mkdir()
    (module,) = blocks("docs/how-to/browser", "html")
    (tmp_path / "public" / "index.html").write_text(f"<!doctype html>{module}")
    with run_server(tmp_path / "chat.js", "--serve-client", "--static", tmp_path / "public") as server:
        context = browser.new_context()
        page, console = context.new_page(), []
        page.on("console", lambda message: console.append(message.text))
        page.goto(server.url)
        wait_until(lambda: page.evaluate("1") and "hello" in console, "the echo")
        context.close()


def test_a_page_loses_no_message_asks_and_is_asked(tmp_path: Path, browser: Any) -> None:
    (tmp_path / "chat.js").write_text("""
      export function onOpen(session) { session.send("hello"); }
      export async function onMessage(session, message) { session.send(await session.request(message)); }
      export function onRequest(session, message) { return `answer to ${message}`; }
    """)
    (command,) = re.findall(r"\$ wsthreads (run .*)", "".join(blocks("docs/how-to/browser", "console")))
    survives, asks = blocks("docs/how-to/browser", "javascript")[:2]
    lines = [survives, "const show = (text) => { document.title += `[${text}]`; };"]
    lines += ["globalThis.socket = socket;", "await new Promise((opened) => socket.addEventListener('open', opened));"]
    lines += [asks, "show(time);", "socket.onmessage = ({ data }) => show(data);"]
    script = "\n".join(lines)
    (tmp_path / "public").mkdir()
    (tmp_path / "public" / "index.html").write_text(f"<!doctype html><script type=module>{script}</script>")
    arguments = command.replace("chat.js", str(tmp_path / "chat.js")).split()[1:]
    with run_server(*arguments, "--static", tmp_path / "public") as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        expect(page).to_have_title("[][answer to time?]")
        page.evaluate("socket.addEventListener('reconnecting', () => socket.send('theme?'), { once: true })")
        context.set_offline(True)
        context.set_offline(False)
        expect(page).to_have_title("[][answer to time?][The connection was lost.][][dark]")
        context.close()


def test_the_script_with_a_package_is_what_the_bundler_made_of_it(tmp_path: Path) -> None:
    """tests/javascript/scripts/bundled.js is recorded: it was made by the command in its first line."""
    recorded = BUNDLE.read_text()
    command = recorded.partition("\n")[0].removeprefix("// ").partition(", by")[0]
    assert f"$ {command}\n" in blocks("docs/how-to/bundlers", "console")[1]
    source = blocks("docs/how-to/bundlers", "javascript")[1]
    for line in source.split("\n\n", 1)[1].splitlines():  # the bundler keeps the functions as they are
        line = line.removeprefix("export ").partition("escapeHtml")[0]
        assert line in recorded, line
    (tmp_path / "chat.js").write_text(recorded)
    with play(tmp_path / "chat.js") as chat:
        ann = chat.connect()
        ann.send("<b>")
        assert ann.take() == ["&lt;b&gt;"]


def test_a_script_uses_a_package(tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(node_modules())
    (tmp_path / "chat.js").write_text(blocks("docs/how-to/bundlers", "javascript")[0])
    with play(tmp_path / "chat.js") as chat:
        (ticket,) = chat.connect().take()
        assert len(ticket) == 10


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def test_a_page_of_vite_connects_from_its_origin(tmp_path: Path, browser: Any) -> None:
    """Vite itself is not here: its page is one of another origin, and the browser is told where packages are."""
    (tmp_path / "chat.js").write_text("export function onOpen(session) { session.send('hello'); }")
    install, allow, serve = re.findall(r"^\$ (.*)", "".join(blocks("docs/how-to/bundlers", "console")[-3:]), re.M)
    imports, _, connects, imports_from_server = blocks("docs/how-to/bundlers", "javascript")[2:]
    origin = allow.partition("--origin ")[2]
    pages = tmp_path / "pages"
    pages.mkdir()
    command = install.replace("python", sys.executable) + " --no-audit --no-fund --loglevel=error"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, shell=True, check=True, cwd=pages, env=environment, timeout=INSTALL_TIMEOUT_S)
    assert sorted(path.name for path in (pages / "node_modules" / "wsthreads").iterdir()) == [
        "package.json", "wsthreads.d.ts", "wsthreads.js",
    ]  # fmt: skip
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(pages))) as vite:
        Thread(target=vite.serve_forever, daemon=True).start()
        own = re.sub(r"\d+$", str(vite.server_port), origin)
        arguments = serve.replace(origin, own).replace("chat.js", str(tmp_path / "chat.js")).split()[2:]
        with run_server(*arguments) as server:
            address = f"127.0.0.1:{server.port}"
            shows = "socket.onmessage = ({ data }) => { document.title = data; };"
            places = json.dumps({"imports": {"wsthreads": "/node_modules/wsthreads/wsthreads.js"}})
            page = f"<!doctype html><script type=importmap>{places}</script><script type=module src=main.js></script>"
            (pages / "index.html").write_text(page)
            for source in imports.partition("\n")[0], imports_from_server:
                text = "\n".join([source, connects, shows]).replace("127.0.0.1:5000", address)
                (pages / "main.js").write_text(text)
                context = browser.new_context()
                tab = context.new_page()
                tab.goto(f"{own}/")
                expect(tab).to_have_title("hello")
                context.close()
        vite.shutdown()


def test_the_proxy_of_vite_leads_to_where_run_listens() -> None:
    (config,) = [block for block in blocks("docs/how-to/bundlers", "javascript") if "proxy" in block]
    shown = " ".join(wsthreads_command("run", "--help").stdout.split())
    (target,) = re.findall(r'target: "http://([\d.]+):(\d+)"', config)
    assert re.search(rf"--host [^[]*\[default: {re.escape(target[0])}\]", shown)
    assert re.search(rf"--port [^[]*\[default: {target[1]}\]", shown)
    assert '"/ws"' in config


# Who is online


def online(tmp_path: Path, language: str) -> Path:
    path = tmp_path / f"online{'.js' if language == 'javascript' else '.py'}"
    path.write_text(blocks("docs/how-to/who-is-online", language)[0])
    return path


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_the_members_are_told_who_is_there_and_what_changes(tmp_path: Path, language: str) -> None:
    with play(online(tmp_path, language)) as lobby:
        ann = lobby.connect(name="ann")
        bob = lobby.connect(name="bob")
        (first,) = bob.take_json()
        assert [person["presence"]["name"] for person in first["there"]] == ["ann", "bob"]
        ann.take()
        lobby.advance(0.2)
        (changes,) = ann.take_json()
        assert [person["presence"]["name"] for person in changes["joined"]] == ["ann", "bob"]
        bob.send("away")
        lobby.advance(0.2)
        (changes,) = ann.take_json()
        assert [(p["key"], p["presence"]["status"]) for p in changes["changed"]] == [(bob.session.id, "away")]


def test_the_page_keeps_the_persons_by_their_key() -> None:
    page = blocks("docs/how-to/who-is-online", "javascript")[1]
    first = {"there": [{"key": "a"}]}
    later = {"joined": [{"key": "a"}, {"key": "b"}], "left": [{"key": "a"}], "changed": [{"key": "b", "presence": 2}]}
    again = {"there": [{"key": "c"}]}

    def persons(*told: Any) -> Any:
        calls = "".join(f"socket.onmessage({{ data: {json.dumps(json.dumps(one))} }}); " for one in told)
        return json.loads(dukpy.evaljs(f"const socket = {{}}; {page}\n{calls} JSON.stringify([...persons]);"))

    assert persons(first, later) == [["b", {"key": "b", "presence": 2}]]
    assert persons(first, later, again) == [["c", {"key": "c"}]]


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_who_comes_back_gets_the_whole_list(tmp_path: Path, language: str) -> None:
    with play(online(tmp_path, language), resume_s=60) as lobby:
        ann = lobby.connect(name="ann")
        lobby.advance(0.2)
        ann.lose()
        ann.take()
        ann.come_back()
        (again,) = ann.take_json()
        assert [person["presence"]["name"] for person in again["there"]] == ["ann"]


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_who_is_away_is_shown_as_away_until_back(tmp_path: Path, language: str) -> None:
    file = online(tmp_path, language)
    replaced, _, added = file.read_text().partition("export function onResume")
    rest = added.partition("\n}\n")[2]  # Python takes the later on_resume
    shown = blocks("docs/how-to/who-is-online", language)[2 if language == "javascript" else 1]
    file.write_text(f"{replaced}{rest}\n{shown}")
    with play(file, resume_s=60) as lobby:
        ann, bob = lobby.connect(name="ann"), lobby.connect(name="bob")
        lobby.advance(0.2)

        def changed() -> list[tuple[str, str]]:
            ann.take()
            lobby.advance(0.2)
            (changes,) = ann.take_json()
            assert not changes["joined"] + changes["left"]
            return [(person["presence"]["name"], person["presence"]["status"]) for person in changes["changed"]]

        bob.lose()
        assert changed() == [("bob", "away")]
        bob.take()
        bob.come_back()
        assert changed() == [("bob", "here")]
        (again,) = [message for message in bob.take_json() if "there" in message]
        assert [person["presence"]["status"] for person in again["there"]] == ["here", "here"]


def test_the_test_of_who_is_online_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    online(tmp_path, "python")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(blocks("docs/how-to/who-is-online", "python")[2], names)
    names["test_a_lost_connection_is_a_leave_after_ten_seconds"]()


# fetch


def test_a_script_calls_a_service(tmp_path: Path) -> None:
    (source,) = blocks("docs/how-to/fetch", "javascript")
    (command,) = blocks("docs/how-to/fetch", "console")
    (tmp_path / "weather.js").write_text(source)
    assert "--allow-net api.example.com" in command
    with Origin() as origin:
        origin.routes["/weather"] = response(b'{"summary": "rain"}')
        env = {"WEATHER_URL": f"{origin.url}/weather", "WEATHER_KEY": "k"}
        with play(tmp_path / "weather.js", env=env, allow_net=[origin.host]) as game:
            ann = game.connect()
            ann.send("Bath")
            assert ann.take() == ["Bath: rain"]
        (request,) = origin.requests
        assert (request.target, request.headers["authorization"]) == ("/weather?city=Bath", "Bearer k")
        with play(tmp_path / "weather.js", env=env) as game:
            ann = game.connect()
            ann.send("Bath")
            assert ann.take() == ["The weather is not known."]


# Python from JavaScript


@pytest.fixture
def log_with_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of docs/how-to/python-from-javascript.rst."""
    (script,), (store, _) = (blocks("docs/how-to/python-from-javascript", each) for each in ("javascript", "python"))
    (tmp_path / "store.py").write_text(store)
    (tmp_path / "log.js").write_text(script)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "log.js"


def test_a_script_stores_messages_by_python(log_with_store: Path) -> None:
    told = [{"id": number + 1, "text": f"message {number}"} for number in range(60)]
    with play(log_with_store) as chat:
        ann = chat.connect()
        for number in range(60):
            ann.send(f"message {number}")
        assert ann.take_json() == told
    with play(log_with_store) as chat:
        assert chat.connect().take_json() == told[10:]


def test_a_copy_of_the_chat_with_accounts_is_whole(tmp_path: Path) -> None:
    (tmp_path / "wsthreads").symlink_to(ROOT)
    (console,) = blocks("docs/how-to/python-from-javascript", "console")
    *copies, run = [line.removeprefix("$ ") for line in console.splitlines()]
    subprocess.run(["bash", "-ec", "\n".join(copies)], cwd=tmp_path, check=True)
    assert run == "wsthreads run accounts.js --static public --serve-client"
    folder = tmp_path / "mychat"
    assert sorted(file.name for file in folder.iterdir()) == ["_accounts.py", "accounts.js", "public"]
    page = "".join(file.read_text() for file in (folder / "public" / "accounts").iterdir())
    needed = set(re.findall(r"""["']\.\./([\w.]+)["']""", page))
    assert {"base.css", "dom.js"} < needed
    there = {file.name for file in (folder / "public").iterdir()}
    assert needed - there == {"wsthreads.js"}  # --serve-client has it


def test_the_application_can_provide_the_functions(log_with_store: Path) -> None:
    names: dict[str, Any] = {}
    log_with_store.write_text(log_with_store.read_text().replace('"./store.py"', '"store"'))
    sys.path.insert(0, str(log_with_store.parent))
    sys.modules.pop("store", None)
    try:
        exec(blocks("docs/how-to/python-from-javascript", "python")[1], names)
    finally:
        sys.path.pop(0)
        sys.modules.pop("store", None)
    with play(names["app"]) as chat:
        ann = chat.connect()
        ann.send("hello")
        assert ann.take_json() == [{"id": 1, "text": "hello"}]


# Private messages


def private(tmp_path: Path, language: str, which: int = 0) -> Path:
    """The handler of docs/how-to/private-messages.rst; with another ``onMessage`` by `which`."""
    first, *others = blocks("docs/how-to/private-messages", language)
    if which and language == "python":
        others = others[1:]  # the first is about views and jobs
    if which:
        start = {"javascript": "export function onMessage", "python": "def on_message"}[language]
        first = first[: first.index(start)] + others[which - 1]
    path = tmp_path / f"private{'.js' if language == 'javascript' else '.py'}"
    path.write_text(first)
    return path


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_private_message_reaches_all_sessions_of_a_user_and_nobody_else(tmp_path: Path, language: str) -> None:
    with play(private(tmp_path, language)) as chat:
        with pytest.raises(HandshakeRefused, match="401"):
            chat.connect()
        ann, bob, bobs_phone, eve = (chat.connect(user=name) for name in ("ann", "bob", "bob", "eve"))
        ann.send(json.dumps({"to": "bob", "text": "hi"}))
        assert bob.take_json() == bobs_phone.take_json() == [{"from": "ann", "text": "hi"}]
        ann.send(json.dumps({"to": "nobody", "text": "hi"}))
        assert ann.take() == eve.take() == []


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_who_is_online_is_the_number_of_sessions(tmp_path: Path, language: str) -> None:
    with play(private(tmp_path, language, which=1)) as chat:
        ann, bob, _ = (chat.connect(user=name) for name in ("ann", "bob", "bob"))
        for user, sessions in ("bob", 2), ("eve", 0):
            ann.send(json.dumps({"isOnline": user}))
            assert ann.take_json() == [{"user": user, "sessions": sessions}]
        bob.close()
        ann.send(json.dumps({"isOnline": "bob"}))
        assert ann.take_json() == [{"user": "bob", "sessions": 1}]


def asks(to: str) -> str:
    return json.dumps({"to": to, "question": "take it?"})


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_user_is_asked(tmp_path: Path, language: str) -> None:
    with play(private(tmp_path, language, which=2), resume_s=60) as chat:
        ann = chat.connect(user="ann")
        bob = chat.connect(user="bob", on_request=lambda message: f"{message} yes")
        ann.send(asks("bob"))
        assert json.loads(ann.receive()) == {"to": "bob", "answer": "take it? yes"}
        ann.send(asks("nobody"))
        assert json.loads(ann.receive()) == {"to": "nobody", "answer": None}
        bob.lose()
        ann.send(asks("bob"))
        assert json.loads(ann.receive()) == {"to": "bob", "answer": None}
        ann.on_request = lambda message: "never"
        bob.send(asks("ann"))  # while it is away, and asked only when it is back
        bob.come_back()
        assert json.loads(bob.receive()) == {"to": "ann", "answer": "never"}


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_a_user_of_another_process_is_asked(tmp_path: Path, language: str, redis_server: RedisServer) -> None:
    file = private(tmp_path, language, which=2)
    with play(file, redis=redis_server.url) as here, play(file, redis=redis_server.url) as there:
        ann = here.connect(user="ann", on_request=lambda message: f"ann: {message}")
        bob = there.connect(user="bob", on_request=lambda message: f"bob: {message}")
        wait_until(lambda: here.room("user:bob").members() == there.room("user:ann").members() == 1)
        for asker, to in (ann, "bob"), (bob, "ann"):
            asker.send(asks(to))
            assert json.loads(asker.receive()) == {"to": to, "answer": f"{to}: take it?"}


def test_a_view_or_a_job_reaches_a_user_and_one_session() -> None:
    names: dict[str, Any] = {"__name__": "private"}
    exec(blocks("docs/how-to/private-messages", "python")[1], names)
    with play(names["sockets"]) as chat:
        ann, anns_phone, bob = (chat.connect(headers={"X-User": name}) for name in ("ann", "ann", "bob"))
        (session_id,) = ann.take()
        assert session_id == ann.session.id
        names["report"]("ann", session_id)
        assert ann.take() == ["The report is ready", "You have asked for it here"]
        assert anns_phone.take() == [anns_phone.session.id, "The report is ready"]
        assert bob.take() == [bob.session.id]


def test_a_user_is_kicked_in_python() -> None:
    names: dict[str, Any] = {"__name__": "kicks"}
    exec(blocks("docs/how-to/kick-a-user", "python")[0], names)
    with play(names["sockets"]) as chat:
        ann, bob, bobs_phone = (chat.connect(headers={"X-User": name}) for name in ("ann", "bob", "bob"))
        names["kick"]("bob")
        assert not names["chat"].user("bob").is_online()
        assert bob.wait_closed() == bobs_phone.wait_closed() == (4003, "kicked")
        with pytest.raises(HandshakeRefused, match="403"):
            chat.connect(headers={"X-User": "bob"})
        assert ann.is_open
        chat.advance(600)
        assert chat.connect(headers={"X-User": "bob"}).is_open


def test_a_logout_in_a_view_ends_the_sessions_of_the_user() -> None:
    names: dict[str, Any] = {"__name__": "logout", "flask": flask, "app": flask.Flask("logout")}
    names["app"].secret_key = "for this test"
    kicks, logout, _ = blocks("docs/how-to/kick-a-user", "python")
    exec(kicks + logout, names)
    browser = names["app"].test_client()
    with browser.session_transaction() as session:
        session["user"] = "ann"
    with play(names["sockets"]) as chat:
        ann, bob = (chat.connect(headers={"X-User": name}) for name in ("ann", "bob"))
        assert browser.post("/logout").status_code == 302
        assert ann.wait_closed() == (4001, "logged out")
        assert browser.post("/logout").status_code == 302
        assert bob.is_open


def test_what_the_log_says_of_a_kick_is_on_its_page(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    names: dict[str, Any] = {"__name__": "kicks"}
    exec(blocks("docs/how-to/kick-a-user", "python")[0], names)
    with play(names["sockets"]) as chat:
        for _ in range(2):
            chat.connect(headers={"X-User": "ann"})
        names["kick"]("ann")
    logger = "wsthreads.rooms.directory.kicks"
    said = [record.getMessage() for record in caplog.records if record.name == logger]
    assert said == blocks("docs/how-to/kick-a-user", "text")[0].splitlines()
    assert logger in text_of("docs/how-to/kick-a-user")


def test_a_user_is_kicked_by_a_script(tmp_path: Path) -> None:
    (tmp_path / "kick.js").write_text(blocks("docs/how-to/kick-a-user", "javascript")[0])
    with play(tmp_path / "kick.js") as chat:
        with pytest.raises(HandshakeRefused, match="401"):
            chat.connect(user="admin")
        names = ("admin", "ann", "bob", "bob")
        admin, ann, bob, bobs_phone = (chat.connect(headers={"X-User": name}) for name in names)
        ann.send(json.dumps({"kick": "bob"}))
        assert bob.is_open
        admin.send(json.dumps({"kick": "bob"}))
        assert bob.wait_closed() == bobs_phone.wait_closed() == (4003, "kicked")
        with pytest.raises(HandshakeRefused, match="403"):
            chat.connect(headers={"X-User": "bob"})
        assert ann.is_open
        chat.advance(600)
        assert chat.connect(headers={"X-User": "bob"}).is_open


@pytest.mark.parametrize("language", ["javascript", "python"])
def test_the_newest_session_of_a_user_stays(tmp_path: Path, language: str) -> None:
    path = tmp_path / ("one.js" if language == "javascript" else "one.py")
    path.write_text(blocks("docs/how-to/kick-a-user", language)[-1])
    with play(path) as chat:
        with pytest.raises(HandshakeRefused, match="401"):
            chat.connect()
        first, other, second, third = (chat.connect(headers={"X-User": name}) for name in ("ann", "bob", "ann", "ann"))
        assert first.wait_closed() == second.wait_closed() == (4004, "you are connected elsewhere")
        assert third.is_open
        assert other.is_open


# Testing, logs, tracing, Redis, sizing


def test_the_tests_of_the_page_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chat.js").write_text(blocks("README", "javascript")[0])
    shutil.copy(EXAMPLES / "cursors.js", tmp_path)
    played, live, slow, login, fixtures = blocks("docs/how-to/testing", "python")

    def my_client(url: str) -> None:
        with connect(url) as client:
            assert json.loads(receive(client))["type"] == "welcome"

    names: dict[str, Any] = {"my_client": my_client}
    exec(played + live, names)
    names["test_the_others_hear_what_one_says"]()
    names["test_a_client_of_my_own"]()
    exec(slow, names)
    names["test_a_slow_client_gets_the_last_position"]()
    monkeypatch.syspath_prepend(str(EXAMPLES))
    exec(login, names)
    names["test_a_script_knows_who_is_there"]()
    exec(fixtures, names)
    module = __import__(names["pytest_plugins"][0], fromlist=["play"])
    assert module.play
    assert module.live_server


def test_the_configuration_of_logging_writes_json(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        exec(blocks("docs/how-to/logs", "python")[0], {})
        (handler,) = root.handlers

        class Logs:
            def on_message(self, session: Any, message: str) -> None:
                logging.getLogger("mine").info("got %s", message)

        with play(Logs) as chat:
            client = chat.connect()
            client.send("hi")
        handler.flush()
    finally:
        root.handlers[:], root.level = before
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (mine,) = [line for line in lines if line["logger"] == "mine"]
    assert mine["message"] == "got hi"
    assert mine["endpoint"] == "/ws/test"
    assert mine["session"]


def test_an_error_of_a_script_is_logged_with_the_keys_of_the_page(tmp_path: Path) -> None:
    (shown,) = blocks("docs/how-to/logs", "json")
    (tmp_path / "chat.js").write_text("export function onMessage(session) {\n  session.sendd();\n}\n")
    port = free_port()
    command = [sys.executable, "-m", "wsthreads", "run", "chat.js", "--log-format", "json", "--port", str(port)]
    with Program(command, cwd=tmp_path) as server:
        server.wait_for("Listening on")
        with connect(f"ws://127.0.0.1:{port}/ws/chat") as client:
            client.send("x")
            found = server.wait_for(r'^.*"onMessage failed in.*$')
    assert json.loads(found[0]).keys() == json.loads(shown).keys()


def test_the_app_of_the_page_on_tracing_is_outermost() -> None:
    seen = []

    def middleware(app: Any) -> Any:
        def traced(environ: Any, start_response: Any) -> Any:
            seen.append(environ["PATH_INFO"])
            return app(environ, start_response)

        return traced

    names: dict[str, Any] = {"WebSocketApp": WebSocketApp, "OpenTelemetryMiddleware": middleware}
    names["flask_app"] = flask.Flask(__name__)
    exec(blocks("docs/how-to/tracing", "python")[0], names)

    class Quiet:
        def on_open(self, session: Any) -> None:
            pass

    names["websockets"].add_handler("/ws/chat", Quiet())
    with play(names["websockets"]) as chat:
        chat.connect()
    assert seen == []


def test_a_job_broadcasts_over_redis(redis_server: RedisServer) -> None:
    names: dict[str, Any] = {}
    exec(blocks("docs/how-to/redis", "python")[0].replace("redis://localhost", redis_server.url), names)
    assert names["room"].members() == 0
