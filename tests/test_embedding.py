"""WebSocket endpoints beside other applications' views, as the examples and docs/how-to/embedding.rst embed them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from tests.ports import free_port
from tests.programs import DEADLINE_S, EXAMPLES, PROGRAM_S, ROOT, Program, connect, receive, wait_until, wsthreads
from tests.redis_server import RedisServer
from tests.wire import TEXT, RawClient, frame
from wsthreads.app import WebSocketApp

pytestmark = pytest.mark.long

#: With its own static files, for which Django has another runserver.
ECHO_IN_DJANGO = """
import os
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from wsthreads import WebSocketApp

settings.configure(
    DEBUG=True, SECRET_KEY="for this test", ROOT_URLCONF=__name__, WSGI_APPLICATION=f"{__name__}.application",
    INSTALLED_APPS=["wsthreads.django", "django.contrib.staticfiles"], STATIC_URL="static/",
    STATICFILES_DIRS=[os.environ["FOLDER"]],
)
application = WebSocketApp(get_wsgi_application())

@application.route("/ws/echo")
class Echo:
    def on_message(self, session, message):
        session.send(message)

urlpatterns = []
if __name__ == "__main__":
    execute_from_command_line()
"""

OWN, GTHREAD = "wsthreads.gunicorn.ThreadWorker", "gthread"


def gunicorn(worker: str, application: str) -> list[str]:
    return ["gunicorn", "-k", worker, "--threads", "20", "-b", "127.0.0.1:{port}", application]


class Visitor:
    """A browser as far as these examples need one: cookies, forms, and their hidden fields against forgery."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._jar = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._jar))
        self._csrf: dict[str, str] = {}

    def open(self, path: str, **form: str) -> str:
        data = urllib.parse.urlencode({**form, **self._csrf}).encode() if form else None
        with self._opener.open(f"http://127.0.0.1:{self.port}{path}", data, timeout=PROGRAM_S) as answer:
            page: str = answer.read().decode()
        found = re.search(r'csrfmiddlewaretoken" value="(\w+)"', page)
        self._csrf = {"csrfmiddlewaretoken": found[1]} if found else {}
        return page

    def connect(self, path: str) -> ClientConnection:
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self._jar)
        return connect(f"ws://127.0.0.1:{self.port}{path}", additional_headers={"Cookie": cookies})


@contextmanager
def served(command: list[str], folder: Path, **environment: str) -> Iterator[tuple[Program, Callable[[], Visitor]]]:
    """An example under a server, and what makes visitors of it."""
    port = free_port()
    environment.update(PORT=str(port), PYTHONPATH=f"{ROOT}{os.pathsep}{EXAMPLES}")
    command = [sys.executable, "-m", *(part.format(port=port) for part in command)]
    with Program(command, cwd=folder, env=environment, cold=True) as server:

        def answers() -> bool:
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), DEADLINE_S).close()
                return True
            assert server.process.poll() is None, server.log
            return False

        wait_until(answers, deadline_s=PROGRAM_S)
        yield server, lambda: Visitor(port)
        server.end()
    assert "Traceback" not in server.log, server.log


def check_login(visitor: Callable[[], Visitor], sign_up: Callable[[Visitor, str], None]) -> None:
    """Who is logged in is let in, hears what a view and a signal say, and is let go at a logout."""
    ann, bob = visitor(), visitor()
    with pytest.raises(InvalidStatus, match="401"):
        ann.connect("/ws/news")
    sign_up(ann, "ann")
    with ann.connect("/ws/news") as anns:
        assert receive(anns) == "Hello, ann"
        sign_up(bob, "bob")
        with bob.connect("/ws/news") as bobs, ann.connect("/ws/news") as another:
            assert (receive(bobs), receive(another)) == ("Hello, bob", "Hello, ann")
            bob.open("/announce", text="héllo")
            while (heard := receive(anns)) != "bob: héllo":
                assert heard == "bob has an account now"
            ann.open("/logout", any="")
            for client in (anns, another):
                with pytest.raises(ConnectionClosed) as caught:
                    while receive(client):
                        pass
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 4001
            bob.open("/announce", text="still here")
            assert receive(bobs) == "bob: héllo"
            assert receive(bobs) == "bob: still here"
    with pytest.raises(InvalidStatus, match="401"):
        ann.connect("/ws/news")


@pytest.mark.parametrize(
    "command",
    [["django_app", "runserver", "--noreload", "{port}"], gunicorn(GTHREAD, "django_app"), gunicorn(OWN, "django_app")],
    ids=["runserver", GTHREAD, "worker class"],
)
def test_django_knows_who_is_logged_in_and_views_and_signals_broadcast(command: list[str], tmp_path: Path) -> None:
    pytest.importorskip("django")
    environment = {"DATABASE": str(tmp_path / "news.sqlite3"), "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}"}
    migrated = subprocess.run(
        [sys.executable, "-m", "django_app", "migrate"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=PROGRAM_S,
    )  # fmt: skip
    assert migrated.returncode == 0, migrated.stderr

    def sign_up(visitor: Visitor, name: str) -> None:
        visitor.open("/signup")
        visitor.open("/signup", username=name, password1="pass of " + name, password2="pass of " + name)
        assert f"Log out {name}" in visitor.open("/", username=name, password="pass of " + name)

    with served(command, tmp_path, **environment) as (_, visitor):
        check_login(visitor, sign_up)


@pytest.mark.parametrize(
    "command",
    [["flask", "--app", "flask_login_app", "run", "--port", "{port}"], gunicorn(GTHREAD, "flask_login_app:app"),
     gunicorn(OWN, "flask_login_app:app")],
    ids=["flask run", GTHREAD, "worker class"],
)  # fmt: skip
def test_flask_knows_who_is_logged_in_and_views_and_signals_broadcast(command: list[str], tmp_path: Path) -> None:
    pytest.importorskip("flask_login")

    def sign_up(visitor: Visitor, name: str) -> None:
        assert f"Log out {name}" in visitor.open("/login", name=name)

    with served(command, tmp_path) as (_, visitor):
        check_login(visitor, sign_up)


def test_a_logout_ends_the_user_s_sessions_in_all_processes(redis_server: RedisServer, tmp_path: Path) -> None:
    pytest.importorskip("flask_login")
    environment = {"WSTHREADS_REDIS": redis_server.url, "SECRET_KEY": "of this test"}
    command = gunicorn(OWN, "flask_login_app:app")
    with (
        served(command, tmp_path, **environment) as (_, visitor),
        served(command, tmp_path, **environment) as (_, visitor_elsewhere),
    ):
        phone, laptop, bob = visitor(), visitor_elsewhere(), visitor_elsewhere()
        for device, name in ((phone, "ann"), (laptop, "ann"), (bob, "bob")):
            device.open("/login", name=name)
        with phone.connect("/ws/news") as on_phone, laptop.connect("/ws/news") as on_laptop:
            assert receive(on_phone) == receive(on_laptop) == "Hello, ann"
            with bob.connect("/ws/news") as bobs:
                assert receive(bobs) == "Hello, bob"
                phone.open("/logout", any="")
                for client in (on_phone, on_laptop):
                    with pytest.raises(ConnectionClosed) as caught:
                        receive(client)
                    assert caught.value.rcvd is not None
                    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "logged out")
                bob.open("/announce", text="still here")
                assert receive(bobs) == "bob: still here"


def test_the_session_of_flask_is_there_in_a_handshake_and_a_forged_one_is_empty(serve: Callable[..., Any]) -> None:
    flask = pytest.importorskip("flask")
    flask_app = flask.Flask("test")
    flask_app.secret_key = "for this test"
    app = WebSocketApp(flask_app.wsgi_app)

    @app.route("/ws/who")
    class Who:
        def on_handshake(self, request: Any) -> None:
            with flask_app.request_context(request.environ):
                request.attributes["user"] = flask.session.get("user")

        def on_open(self, session: Any) -> None:
            session.send(str(session.attributes["user"]))

    browser = flask_app.test_client()
    with browser.session_transaction() as session:
        session["user"] = "änn"
    cookie = browser.get_cookie("session").value
    server = serve(app)
    for sent, user in ((cookie, "änn"), (cookie[:-2], "None"), ("", "None")):
        with connect(server.ws_url + "/ws/who", additional_headers={"Cookie": f"session={sent}"}) as client:
            assert receive(client) == user


@pytest.mark.parametrize(
    "command", [["bottle_app"], gunicorn(GTHREAD, "bottle_app:sockets")], ids=["its own server", GTHREAD]
)
def test_bottle_routes_set_a_cookie_that_lets_in_and_broadcast(command: list[str], tmp_path: Path) -> None:
    pytest.importorskip("bottle")
    with served(command, tmp_path) as (_, visitor):
        ann = visitor()
        with pytest.raises(InvalidStatus, match="401"):
            ann.connect("/ws/chat")
        assert "<h1>Chat</h1>" in ann.open("/name", name="änn")
        with ann.connect("/ws/chat") as client:
            client.send("hello")
            assert receive(client) == "änn: hello"
            ann.open("/announce", text="lunch 🎉")
            assert receive(client) == "lunch 🎉"


def test_a_job_in_another_process_broadcasts_through_redis(redis_server: RedisServer, tmp_path: Path) -> None:
    pytest.importorskip("flask")
    environment = {"WSTHREADS_REDIS": redis_server.url}
    app, job = gunicorn(OWN, "flask_app:app"), [sys.executable, EXAMPLES / "job.py", "The report is ready"]
    with served(app, tmp_path, **environment) as (_, visitor), visitor().connect("/ws/news") as client:

        def count() -> int:
            listeners: int = json.loads(visitor().open("/announce", text="anybody?"))["listeners"]
            return listeners

        wait_until(lambda: count() == 1)
        options: Any = {"env": {**os.environ, "PYTHONPATH": str(ROOT), **environment}, "timeout": 3 * DEADLINE_S}
        assert subprocess.run(job, **options).returncode == 0
        published = wsthreads("publish", "news", "from a shell", "--endpoint", "/ws/news", env=environment)
        assert published.returncode == 0
        heard = []
        while "from a shell" not in heard:
            heard.append(receive(client))
        assert heard[-2] == '{"type": "announcement", "text": "The report is ready"}'


def test_a_thread_of_the_same_process_broadcasts(serve: Callable[..., Any]) -> None:
    app = WebSocketApp()

    @app.route("/ws/jobs")
    class Jobs:
        def on_open(self, session: Any) -> None:
            session.room("jobs").join()
            session.send("joined")

    server = serve(app)
    with connect(server.ws_url + "/ws/jobs") as client, ThreadPoolExecutor() as pool:
        assert receive(client) == "joined"
        pool.submit(app.endpoint("/ws/jobs").room("jobs").broadcast, "done").result()
        assert receive(client) == "done"


def test_a_plain_wsgi_application_gets_every_other_path(serve: Callable[..., Any]) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode()]

    app = WebSocketApp(application)

    @app.route("/ws/echo")
    class Echo:
        def on_message(self, session: Any, message: str) -> None:
            session.send(message)

    server = serve(app)
    with urllib.request.urlopen(server.url + "/ws/elsewhere", timeout=PROGRAM_S) as response:
        assert response.read() == b"/ws/elsewhere"
    with connect(server.ws_url + "/ws/echo") as client:
        client.send("hello")
        assert receive(client) == "hello"


def test_a_session_is_no_error_in_the_debugger_of_flask(tmp_path: Path) -> None:
    pytest.importorskip("flask")
    command = ["flask", "--app", "flask_app", "run", "--debug", "--no-reload", "--port", "{port}"]
    with served(command, tmp_path) as (server, visitor):
        with visitor().connect("/ws/news"):
            pass
        visitor().open("/")
        server.wait_for('GET / HTTP')
        server.wait_for(r'"GET /ws/news HTTP/1\.1" 101 -')
        assert server.log.count("/ws/news HTTP/1.1") == 1


def test_a_session_is_no_error_for_what_is_around_the_application_under_gunicorn(tmp_path: Path) -> None:
    """As Sentry is, for one."""
    (tmp_path / "watched.py").write_text(
        """import traceback
from flask_app import app as flask_app

class Watched:
    def __init__(self, environ, start_response):
        self.answer = flask_app(environ, start_response)
    def __iter__(self):
        try:
            yield from self.answer
        except Exception:
            traceback.print_exc()
        finally:
            self.answer.close()
"""
    )
    pytest.importorskip("flask")
    for worker in (GTHREAD, OWN):
        command = [*gunicorn(worker, "watched:Watched"), "--access-logfile", "-"]
        with served(command, tmp_path) as (server, visitor):
            with visitor().connect("/ws/news"):
                pass
            server.wait_for(r'"GET /ws/news HTTP/1\.1" 101')
            assert "news" in visitor().open("/")


def test_what_measures_requests_inside_sees_those_of_http_only(tmp_path: Path) -> None:
    """As docs/how-to/tracing.rst has it: the app outermost, so that no session is a request that lasts."""
    text = textwrap.dedent('''
        from flask import Flask
        from wsthreads import WebSocketApp

        flask_app = Flask(__name__)
        flask_app.add_url_rule("/", view_func=lambda: "a page")

        def measured(environ, start_response):
            print("begins", environ["PATH_INFO"], flush=True)
            answer = flask_app(environ, start_response)
            print("ends", environ["PATH_INFO"], flush=True)
            return answer

        websockets = WebSocketApp(measured)

        @websockets.route("/ws/echo")
        class Echo:
            def on_message(self, session, message):
                session.send(message)
    ''')
    (tmp_path / "traced.py").write_text(text)
    with served(gunicorn(OWN, "traced:websockets"), tmp_path) as (server, visitor):
        with visitor().connect("/ws/echo") as client:
            client.send("hello")
            assert receive(client) == "hello"
        assert "a page" in visitor().open("/")
        server.wait_for("^ends /$")
        assert "/ws/echo" not in "".join(re.findall("^(?:begins|ends) (.*)$", server.log, re.M))


def test_what_a_client_sends_behind_its_handshake_is_not_lost_under_runserver(tmp_path: Path) -> None:
    pytest.importorskip("django")
    (tmp_path / "echo.py").write_text(ECHO_IN_DJANGO)
    (tmp_path / "file.txt").write_text("static")
    with served(["echo", "runserver", "--noreload", "{port}"], tmp_path, FOLDER=str(tmp_path)) as (_, visitor):
        with RawClient(visitor().port, "/ws/echo", early=frame(TEXT, b"early")) as client:
            assert client.receive_text() == "early"
        assert "static" in visitor().open("/static/file.txt")
