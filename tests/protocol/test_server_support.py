"""Where there can be no sessions: gevent, eventlet, and servers that keep their sockets, each with a clear refusal."""

import socket
import sys
from contextlib import contextmanager

import pytest

from tests.ports import free_port
from tests.programs import PROGRAM_S, Program, connect, receive, wait_until
from tests.wire import RawClient
from wsthreads import WebSocketApp
from wsthreads.protocol.server_support import green_threads, unfitness

pytestmark = pytest.mark.long

PATCH = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}

ECHO = """
def on_message(session, message):
    session.send(message)
"""

APP = """
import sys
from flask import Flask
from wsthreads import WebSocketApp
app = Flask(__name__)
websockets = WebSocketApp(app.wsgi_app, serve_health=True)
websockets.add_handler("/ws/test", sys.modules[__name__])
app.wsgi_app = websockets
"""

ADD = """
websockets.add_handler("/ws/test", sys.modules[__name__])
"""

GUNICORN = [sys.executable, "-m", "gunicorn", "--threads", "10", "-b", "127.0.0.1:{port}", "-k"]
OURS = "wsthreads.gunicorn.ThreadWorker"

SERVERS = {
    "gthread": [*GUNICORN, "gthread", "app:app"],
    "gthread, preloaded": [*GUNICORN, "gthread", "--preload", "app:app"],
    "ours": [*GUNICORN, OURS, "app:app"],
    "wsthreads run": [sys.executable, "-m", "wsthreads", "run", "echo.py", "--port", "{port}"],
    "flask run": [sys.executable, "-m", "flask", "--app", "app:app", "run", "--port", "{port}"],
}

DJANGO = """
import sys
from django.conf import settings
from django.core.management import execute_from_command_line
settings.configure(DEBUG=True, INSTALLED_APPS=["wsthreads.django"])
execute_from_command_line(sys.argv)
"""


@contextmanager
def program(command, folder):
    """A server in a process of its own; `port` is the one that it is to listen at."""
    port = free_port()
    command = [part.format(port=port) for part in command]
    with Program(command, cwd=folder, env={"PYTHONPATH": ":".join(filter(None, sys.path))}, cold=True) as process:
        process.port = port
        yield process


def answers(server):
    try:
        socket.create_connection(("127.0.0.1", server.port), 1).close()
    except OSError:
        assert server.process.poll() is None, server.log
        return False
    return True


def refusal(server):
    wait_until(lambda: answers(server), "the server to listen", PROGRAM_S)
    with RawClient(server.port) as client:
        return client.status, client.body()


@pytest.mark.parametrize("library", PATCH)
@pytest.mark.parametrize("server", SERVERS)
def test_servers_that_they_have_patched_end_at_once_and_say_why(tmp_path, server, library):
    (tmp_path / "echo.py").write_text(PATCH[library] + ECHO)
    (tmp_path / "app.py").write_text(PATCH[library] + ECHO + APP)
    with program(SERVERS[server], tmp_path) as process:
        assert process.wait() != 0
        assert f"{library} has replaced Python's threads and sockets in this process" in process.log
        assert "-k wsthreads.gunicorn.ThreadWorker" in process.log


def test_gunicorn_s_gevent_worker_ends_at_once_and_says_why(tmp_path):
    (tmp_path / "app.py").write_text(ECHO + APP)
    with program([*GUNICORN, "gevent", "app:app"], tmp_path) as server:
        assert server.wait() != 0
        assert "gevent has replaced Python's threads" in server.log


@pytest.mark.parametrize("library", PATCH)
def test_our_worker_class_finds_what_was_patched_behind_the_app(tmp_path, library):
    (tmp_path / "app.py").write_text(ECHO + APP + PATCH[library])
    with program([*GUNICORN, OURS, "app:app"], tmp_path) as server:
        assert server.wait() == 4
        assert f"{library} has replaced Python's threads" in server.log


def test_where_it_is_found_out_late_the_answer_is_a_501_and_a_line_in_the_log(tmp_path):
    """Preloaded by gunicorn's master, which is not patched; its worker is."""
    (tmp_path / "app.py").write_text(ECHO + APP)
    with program([*GUNICORN, "gevent", "--preload", "app:app"], tmp_path) as server:
        for _ in range(2):
            status, body = refusal(server)
            assert (status, body.split()[0]) == (501, "gevent")
        server.wait_for("refused: 501 gevent has replaced")
        assert server.log.count("gevent has replaced") == 1
        assert server.end() == 0


def test_django_s_runserver_that_they_have_patched_ends_at_once_and_says_why(tmp_path):
    (tmp_path / "manage.py").write_text(PATCH["gevent"] + DJANGO)
    with program([sys.executable, "manage.py", "runserver", "--noreload", "{port}"], tmp_path) as server:
        assert server.wait() == 1
        assert "CommandError: gevent has replaced" in server.log


def test_django_s_runserver_without_threads_is_refused(tmp_path):
    (tmp_path / "manage.py").write_text(DJANGO)
    with program([sys.executable, "manage.py", "runserver", "--nothreading", "{port}"], tmp_path) as server:
        assert server.wait() == 1
        assert "CommandError: --nothreading serves one connection at a time" in server.log


def test_an_application_may_be_imported_by_what_is_green_and_serves_nothing(tmp_path):
    """Such as a worker of Celery's, which does not need the sessions."""
    (tmp_path / "app.py").write_text(PATCH["gevent"] + ECHO + APP)
    with program([sys.executable, "-c", "import app; print('imported')"], tmp_path) as process:
        assert process.wait() == 0
        assert "imported" in process.log


def test_a_server_beside_gevent_that_has_patched_nothing_serves(tmp_path):
    (tmp_path / "app.py").write_text("import gevent, eventlet, gevent.monkey, eventlet.patcher" + ECHO + APP)
    with program(SERVERS["gthread"], tmp_path) as server:
        wait_until(lambda: answers(server), "the server to listen", PROGRAM_S)
        with connect(f"ws://127.0.0.1:{server.port}/ws/test") as client:
            client.send("hello")
            assert receive(client) == "hello"


def test_a_validator_of_wsgi_lets_http_through_and_has_a_clear_answer_for_websockets(tmp_path):
    (tmp_path / "app.py").write_text(ECHO + APP + "from wsgiref.validate import validator; app = validator(websockets)")
    with program(SERVERS["gthread"], tmp_path) as server:
        status, body = refusal(server)
        assert (status, body.strip().endswith("WebSocketApp(validator(app))")) == (501, True)
        for path, expected in {"/healthz": 200, "/nowhere": 404, "/ws/test": 400}.items():
            with RawClient(server.port, path, without=["Upgrade", "Connection"]) as client:
                assert client.status == expected
        assert server.end() == 0
        assert "AssertionError" not in server.log


def test_a_validator_inside_does_no_harm(tmp_path):
    inside = "from wsgiref.validate import validator; app = websockets = WebSocketApp(validator(app.wsgi_app))"
    (tmp_path / "app.py").write_text(ECHO + APP.replace("app.wsgi_app = websockets", "") + inside + ADD)
    with program(SERVERS["gthread"], tmp_path) as server:
        wait_until(lambda: answers(server), "the server to listen", PROGRAM_S)
        with connect(f"ws://127.0.0.1:{server.port}/ws/test") as client:
            client.send("hello")
            assert receive(client) == "hello"
        with RawClient(server.port, "/nowhere", without=["Upgrade", "Connection"]) as client:
            assert client.status == 404


SERVE = {
    "gevent.pywsgi": "from gevent.pywsgi import WSGIServer; WSGIServer(('127.0.0.1', {port}), app).serve_forever()",
    "eventlet.wsgi": "import eventlet.wsgi; eventlet.wsgi.server(eventlet.listen(('127.0.0.1', {port})), app)",
    "wsgiref": "from wsgiref.simple_server import make_server; make_server('127.0.0.1', {port}, app).serve_forever()",
}


@pytest.mark.parametrize("name", SERVE)
def test_servers_that_keep_their_sockets_answer_501_with_their_name_and_what_to_use(tmp_path, name):
    (tmp_path / "app.py").write_text(ECHO + APP)
    with program([sys.executable, "-c", "from app import app; " + SERVE[name]], tmp_path) as server:
        status, body = refusal(server)
        assert status == 501
        assert body.startswith(f"{name} does not hand over its socket, so there are no WebSockets: use gunicorn")
        server.wait_for(f"refused: 501 {name} does not")


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({"uwsgi.version": b"2"}, "uWSGI does not hand over its socket"),
        ({"mod_wsgi.version": (5, 0)}, "mod_wsgi does not hand over its socket"),
        ({"SERVER_SOFTWARE": "waitress"}, "Waitress does not hand over its socket"),
        ({"SERVER_SOFTWARE": "Cheroot/11.1.2"}, "Cheroot does not hand over its socket"),
        ({"SERVER_SOFTWARE": "WSGIServer/0.2 CPython/3.11.7"}, 'put "wsthreads.django" first in INSTALLED_APPS'),
        ({"SERVER_SOFTWARE": "mine/1\n"}, r"this WSGI server ('mine/1\n') does not hand over"),
        ({}, "this WSGI server (of no name) does not hand over"),
        ({"SERVER_SOFTWARE": "gunicorn/27", "gunicorn.socket": 1}, "this gunicorn worker runs without threads"),
        ({"SERVER_SOFTWARE": "Werkzeug/3", "werkzeug.socket": 1}, "(no --without-threads, --nothreading)"),
    ],
)
def test_each_unfit_server_is_named(environ, why):
    assert why in unfitness(environ)
    assert "gunicorn -k gthread" in unfitness(environ)


def test_fit_ones_have_nothing_to_be_told():
    assert green_threads() is None
    assert unfitness({"werkzeug.socket": 1, "wsgi.multithread": True}) is None
    assert unfitness({"gunicorn.socket": 1, "wsgi.multithread": True}) is None


def test_an_asgi_server_is_told_that_this_is_wsgi():
    with pytest.raises(TypeError, match="this is a WSGI application, but the server is for ASGI: use gunicorn"):
        WebSocketApp()({"type": "websocket"})
