"""The WSGI callable: routing, places, proxies, shutdown."""

import gc
import logging
import math
import queue
import socketserver
import threading
import weakref
import wsgiref.simple_server
import wsgiref.validate
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from unittest.mock import Mock
from urllib.error import HTTPError
from urllib.request import urlopen
from wsgiref.util import is_hop_by_hop

import pytest
from werkzeug.test import EnvironBuilder

from tests.programs import DEADLINE_S, own_threads, wait_until
from tests.wire import (
    CLOSE,
    TEXT,
    Echo,
    RawClient,
    Recorder,
    close_payload,
    endpoint,
    new_files,
    open_files,
    run_all,
    serving,
)
from wsthreads import ConfigError, HandlerError, RedisBroker, WebSocketApp
from wsthreads.app import shutdown
from wsthreads.protocol.wsgi_servers import INPUT_KEY, SOCKET_KEY
from wsthreads.servers import close_batches
from wsthreads.servers.serving import Server
from wsthreads.testing import play


def plain(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"plain {environ['PATH_INFO']} from {environ['REMOTE_ADDR']}".encode()]


def test_a_path_that_is_no_endpoint_is_a_404():
    with endpoint(Echo()) as (_, port):
        for path in ("/", "/ws/tes", "/ws/test/", "/WS/TEST"):
            with RawClient(port, path) as client:
                assert client.status == 404, path


def test_every_other_path_falls_through_to_the_wsgi_app():
    app = WebSocketApp(plain)
    app.add_handler("/ws/é", Echo())
    with serving(app) as port:
        with urlopen(f"http://127.0.0.1:{port}/page", timeout=DEADLINE_S) as answer:
            assert answer.read() == b"plain /page from 127.0.0.1"
        with RawClient(port, "/ws/%C3%A9") as client:
            assert client.status == 101
            client.text("a")
            assert client.receive_text() == "a"
            client.leave()


class Resuming:
    def on_suspend(self, session):
        pass

    def on_resume(self, session):
        pass


@pytest.mark.parametrize(
    ("resume_s", "lines"),
    [
        (
            0,
            [
                "Resuming.on_suspend and Resuming.on_resume are never called: resume_s is 0; "
                "set it, as in WebSocketApp(resume_s=60)"
            ],
        ),
        (60, []),
    ],
)
def test_route_warns_of_functions_that_are_never_called_without_resume_s(caplog, resume_s, lines):
    WebSocketApp(resume_s=resume_s).route("/ws")(Resuming)
    assert [record.getMessage() for record in caplog.records] == lines


def test_route_makes_an_instance_of_a_class_and_gives_the_class_back():
    app = WebSocketApp()

    @app.route("/ws/test")
    class Chat(Echo):
        pass

    assert isinstance(Chat(), Echo)
    assert app.endpoint("/ws/test").handler.name == "Chat"
    assert [each.path for each in app.endpoints] == ["/ws/test"]


@pytest.mark.parametrize("path", ["", "ws", "/a?b", "/a#b", None, 3])
def test_a_path_that_is_no_good_is_named(path):
    with pytest.raises(ConfigError) as caught:
        WebSocketApp().add_handler(path, Echo())
    assert repr(path) in str(caught.value)


def test_a_path_is_served_once():
    app = WebSocketApp()
    app.add_handler("/a", Echo())
    with pytest.raises(ConfigError, match="/a is already served by Echo"):
        app.add_handler("/a", Recorder())


def test_an_object_that_is_no_handler_is_refused():
    app = WebSocketApp()
    with pytest.raises(HandlerError, match="on_message"):
        app.add_handler("/a", object())
    assert app.endpoints == ()


def test_a_missing_endpoint_is_named_with_those_that_there_are():
    app = WebSocketApp()
    with pytest.raises(KeyError, match="no endpoint '/a'; there are: none"):
        app.endpoint("/a")
    app.add_handler("/b", Echo())
    app.add_handler("/c", Echo())
    with pytest.raises(KeyError, match="no endpoint '/a'; there are: /b, /c"):
        app.endpoint("/a")


def test_one_session_too_many_gets_a_503_that_says_when_to_try_again():
    handler = Recorder()
    with endpoint(handler, max_sessions=2) as (app, port), ExitStack() as stack:
        first, _, third = [stack.enter_context(RawClient(port)) for _ in range(3)]
        assert third.status == 503
        assert int(third.headers["retry-after"]) > 0
        assert "all 2 places" in third.body()
        assert app.session_count == 2
        first.leave()
        handler.close()
        wait_until(lambda: app.session_count == 1, "the place")
        with RawClient(port) as fourth:
            assert fourth.status == 101


def test_a_refused_request_takes_no_place_and_a_plain_one_neither():
    with endpoint(Echo(), max_sessions=1) as (app, port):
        for _ in range(3):
            with pytest.raises(HTTPError, match="400"):
                urlopen(f"http://127.0.0.1:{port}/ws/test", timeout=DEADLINE_S)
            with RawClient(port, headers={"Origin": "http://evil.example"}) as client:
                assert client.status == 403
        assert app.session_count == 0


@pytest.mark.parametrize(
    ("hops", "forwarded", "seen"),
    [
        (0, "203.0.113.9", "127.0.0.1"),
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "198.51.100.1, 203.0.113.9", "203.0.113.9"),
        (2, "198.51.100.1, 203.0.113.9", "198.51.100.1"),
        (2, "203.0.113.9", "127.0.0.1"),
        (1, None, "127.0.0.1"),
    ],
)
def test_an_address_is_believed_from_as_many_proxies_as_there_are(hops, forwarded, seen):
    handler = Recorder()
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    with endpoint(handler, trusted_proxies=hops) as (_, port), RawClient(port, headers=headers):
        assert handler.session().remote_addr == seen


def test_the_origin_is_judged_by_the_host_that_a_trusted_proxy_names_and_only_by_that():
    headers = {"X-Forwarded-Host": "chat.example", "X-Forwarded-Proto": "https", "Origin": "https://chat.example"}
    for hops, status in ((0, 403), (1, 101)):
        with endpoint(Echo(), trusted_proxies=hops) as (_, port), RawClient(port, headers=headers) as client:
            assert client.status == status


@pytest.mark.parametrize("hops", [0, 1])
def test_headers_that_a_proxy_does_not_set_as_a_rule_are_the_client_s_and_not_believed(hops):
    handler = Recorder()
    headers = {"X-Forwarded-Prefix": "//evil.example", "X-Forwarded-Port": "81", "Forwarded": "for=203.0.113.9"}
    headers |= {"X-Real-IP": "203.0.113.9", "X-Script-Name": "/evil", "Origin": "http://localhost:81"}
    with endpoint(handler, trusted_proxies=hops) as (_, port):
        with RawClient(port, headers=headers) as client:
            assert client.status == 403
        with RawClient(port, headers=headers | {"Origin": "http://localhost"}) as client:
            assert client.status == 101
            session = handler.session()
            assert (session.request_path, session.remote_addr) == ("/ws/test", "127.0.0.1")


def test_shutdown_closes_every_session_with_1001_and_lets_on_close_run():
    handler = Recorder()
    with endpoint(handler) as (app, port), ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port)) for _ in range(10)]
        for _ in clients:
            handler.session()

        def answer(client):
            assert client.receive_close() == (1001, "server shutting down")
            client.send(CLOSE, close_payload(1001))
            assert client.at_end()
            client.sock.close()

        left = []
        run_all(lambda: left.append(app.shutdown()), *[lambda c=c: answer(c) for c in clients])
        assert left == [0]
        assert sorted(handler.close() for _ in clients) == [(1001, "server shutting down")] * 10
        assert app.session_count == 0


def test_sessions_past_the_first_few_hundred_are_closed_one_after_another(monkeypatch):
    monkeypatch.setattr(close_batches, "AT_ONCE", 10)
    monkeypatch.setattr(close_batches, "CLOSES_PER_S", 40)
    handler, closed, close = Recorder(), [], shutdown._close

    def note(batch, *arguments):
        closed.extend([monotonic()] * len(batch))  # a client may hear of it later than others
        close(batch, *arguments)

    monkeypatch.setattr(shutdown, "_close", note)
    with endpoint(handler) as (app, port), ExitStack() as stack:
        clients = [stack.enter_context(RawClient(port)) for _ in range(20)]
        for _ in clients:
            handler.session()

        def answer(client):
            assert client.receive_close() == (1012, "back soon")
            client.send(CLOSE, close_payload(1012))
            assert client.at_end()
            client.sock.close()

        left = []
        run_all(lambda: left.append(app.shutdown(60, 1012, "back soon")), *[lambda c=c: answer(c) for c in clients])
        assert left == [0]
        assert len(closed) == 20
        assert max(closed) - min(closed) > 0.4  # of 20 / 40 s
        assert [handler.close() for _ in clients] == [(1012, "back soon")] * 20


def test_sessions_whose_turn_has_not_come_go_on_until_then_and_a_cut_off_does_not_wait(monkeypatch):
    monkeypatch.setattr(close_batches, "AT_ONCE", 1)
    monkeypatch.setattr(close_batches, "CLOSES_PER_S", 0.001)
    handler = Echo()
    with endpoint(handler) as (app, port), ExitStack() as stack:
        clients = {name: stack.enter_context(RawClient(port, f"/ws/test?name={name}")) for name in "ab"}
        sessions = [handler.session() for _ in clients]
        thread = threading.Thread(target=app.shutdown, args=(1000,))
        thread.start()
        wait_until(lambda: not all(session.is_open() for session in sessions))
        [there] = [session for session in sessions if session.is_open()]
        client = clients[there.get_parameter("name")]
        client.text("still there?")
        assert client.receive_text() == "still there?"
        with RawClient(port) as late:
            assert late.status == 503
        app.cut_off()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
        assert client.at_end()


def test_shutdown_cuts_silent_clients_after_two_seconds_not_five():
    handler = Recorder()
    with endpoint(handler, close_timeout_s=60) as (app, port), RawClient(port), RawClient(port):
        handler.session()
        handler.session()
        began = monotonic()
        assert app.shutdown(30) == 0, "they were closed, not cut off"
        assert 1.9 < monotonic() - began < 2 + DEADLINE_S / 2
        assert handler.close() == handler.close() == (1001, "server shutting down")


def test_shutdown_reports_the_sessions_that_it_had_to_cut_off(caplog):
    go_on = threading.Event()

    class Stuck(Recorder):
        def on_message(self, session, message):
            super().on_message(session, message)
            assert go_on.wait(DEADLINE_S)

    handler = Stuck()
    with endpoint(handler) as (app, port), RawClient(port) as client:
        client.text("a")
        handler.message()
        releaser = threading.Timer(0.4, go_on.set)
        releaser.start()
        assert app.shutdown(0.1) == 1
        assert "shutdown: 1 session cut off, because the time of 0.1 s is over" in caplog.text
        assert handler.close()[0] == 1001


def test_shutdown_lets_nobody_in_any_more_and_can_be_called_again_and_by_many():
    with endpoint(Echo()) as (app, port):
        results = []
        run_all(*[lambda: results.append(app.shutdown()) for _ in range(4)])
        assert results == [0, 0, 0, 0]
        assert app.shutdown() == 0
        with RawClient(port) as client:
            assert client.status == 503
            assert client.headers["retry-after"]
            assert "shutting down" in client.body()
        assert not own_threads("wsthreads-flusher"), "a thread of an app that has ended"


@pytest.mark.parametrize("timeout_s", [math.inf, 1e12, -1.0, math.nan])
def test_a_shutdown_takes_any_timeout_also_the_second_time(timeout_s):
    app = WebSocketApp()
    assert app.shutdown(timeout_s) == app.shutdown(timeout_s) == 0
    with Server(WebSocketApp(), port=0) as server:
        assert server.stop(timeout_s) == server.stop(timeout_s) == 0


def test_a_session_that_opens_while_shutdown_begins_is_closed_too():
    """on_handshake is still busy when shutdown looks for sessions to close."""
    handler, asked, go_on = Recorder(), threading.Event(), threading.Event()

    def on_handshake(request):
        asked.set()
        assert go_on.wait(DEADLINE_S)

    handler.on_handshake = on_handshake
    with endpoint(handler) as (app, port):
        answers, results = [], []

        def come():
            with RawClient(port) as client:
                answers.append(client.receive_close())
                client.send(CLOSE, close_payload(1001))
                assert client.at_end()

        def shut():
            assert asked.wait(DEADLINE_S)
            release = threading.Timer(0.1, go_on.set)
            release.start()
            results.append(app.shutdown())

        run_all(come, shut)
        assert answers == [(1001, "server shutting down")]
        assert results == [0]
        assert handler.close() == (1001, "server shutting down")


class Switch(Recorder):
    """Shuts its app down, from whichever function is to."""

    app: WebSocketApp
    at = ""

    def __init__(self):
        super().__init__()
        self.left = queue.Queue()

    def shut_down(self, here):
        if self.at == here:
            began = monotonic()
            self.left.put((self.app.shutdown(10 * DEADLINE_S), monotonic() - began < DEADLINE_S))

    def on_handshake(self, request):
        if request.get_parameter("at"):
            self.shut_down("on_handshake")

    def on_open(self, session):
        super().on_open(session)
        if session.get_parameter("at"):
            self.shut_down("on_open")

    def on_message(self, session, message):
        if message == "shut down":
            self.shut_down("on_message")
        else:
            super().on_message(session, message)

    def on_close(self, session, code, reason):
        if session.get_parameter("at"):
            self.shut_down("on_close")
        super().on_close(session, code, reason)


@pytest.mark.parametrize("at", ["on_handshake", "on_open", "on_message", "on_close"])
def test_shutdown_in_a_handler_does_not_wait_for_its_own_session(at):
    handler = Switch()
    with endpoint(handler, shutdown_timeout_s=10 * DEADLINE_S) as (app, port), RawClient(port) as other:
        handler.app, handler.at = app, at
        handler.session()
        others = threading.Thread(target=lambda: (other.receive_close(), other.send(CLOSE, close_payload(1001))))
        others.start()
        with RawClient(port, "/ws/test?at=here") as client:
            if at == "on_message":
                client.text("shut down")
            if at == "on_close":
                client.leave()
            else:
                assert client.receive_close() == (1001, "server shutting down")
                client.send(CLOSE, close_payload(1001))
        assert handler.left.get(timeout=DEADLINE_S) == (0, True)
        assert sorted([handler.close()[0], handler.close()[0]]) == [1000 if at == "on_close" else 1001, 1001]
        others.join(DEADLINE_S)
        wait_until(lambda: not own_threads("wsthreads-flusher") + own_threads("wsthreads-shutdown"), "the threads' end")


def test_handlers_that_shut_down_at_once_do_not_wait_for_each_other():
    handler = Switch()
    handler.at = "on_message"
    with endpoint(handler, shutdown_timeout_s=10 * DEADLINE_S) as (app, port), ExitStack() as stack:
        meeting = threading.Barrier(4, timeout=DEADLINE_S)
        handler.app = Mock(shutdown=lambda timeout_s: meeting.wait() * 0 + app.shutdown(timeout_s))
        clients = [stack.enter_context(RawClient(port)) for _ in range(4)]
        for _ in clients:
            handler.session()
        run_all(*[lambda client=client: client.text("shut down") for client in clients])
        assert [handler.left.get(timeout=DEADLINE_S) for _ in clients] == [(0, True)] * 4
        assert app.shutdown() == 0


def test_shutdown_in_a_handler_tells_of_others_that_are_left_at_its_timeout():
    handler, begun, go_on = Switch(), threading.Event(), threading.Event()
    handler.at = "on_message"
    handler.messages = Mock(put=lambda message: (begun.set(), go_on.wait(DEADLINE_S)))
    with endpoint(handler) as (app, port), RawClient(port) as busy, RawClient(port) as client:
        handler.app = Mock(shutdown=lambda timeout_s: app.shutdown(0.1))
        busy.text("work")
        assert begun.wait(DEADLINE_S)
        client.text("shut down")
        left, _ = handler.left.get(timeout=DEADLINE_S)
        go_on.set()
        assert left == 1


def test_shutdown_with_another_code_and_reason():
    handler = Recorder()
    with endpoint(handler) as (app, port), RawClient(port) as client:
        handler.session()
        thread = threading.Thread(target=app.shutdown, args=(5, 1012, "back in a minute"))
        thread.start()
        assert client.receive_close() == (1012, "back in a minute")
        client.send(CLOSE, close_payload(1012))
        assert handler.close() == (1012, "back in a minute")
        client.sock.close()
        thread.join(DEADLINE_S)


def test_an_app_that_never_served_starts_no_thread_and_can_be_shut_down():
    before = own_threads()
    app = WebSocketApp()
    app.add_handler("/a", Echo())
    app.endpoint("/a").room("lobby").broadcast("nobody")
    assert own_threads() == before
    assert app.shutdown() == 0
    assert own_threads() == before


class Knowing:
    """A handler that knows its app, as closures and instances do."""

    def __init__(self, app):
        self.app = app

    def on_open(self, session):
        session.room("all").join()

    def on_message(self, session, message):
        session.room("all").broadcast(message, hand_over=True)


@pytest.mark.parametrize("kind", ["python", "script", "dashboard", "metrics", "redis"])
def test_an_app_that_is_dropped_without_a_shutdown_leaves_no_thread_and_no_log_handler(
    kind, tmp_path, monkeypatch, redis_server
):
    """Served, or not yet: a broker and a script start before the first request."""
    script = tmp_path / "a.js"
    script.write_text("export function onMessage(session, message) { session.send(message); }")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    def served():
        options = {
            "dashboard": {"dashboard_token": "a-token-of-many-letters"},
            "metrics": {"serve_metrics": True, "metrics_token": "another-token-of-many"},
            "redis": {"broker": RedisBroker(redis_server.url, prefix="dropped")},
        }
        app = WebSocketApp(serve_health=True, **options.get(kind, {}))
        app.add_handler("/ws", Knowing(app))
        if kind == "script":
            app.add_script("/script", script)
        app.connect_broker()
        return app

    def drop_served():
        app = served()
        running = play(app, "/ws")
        with running as clients:
            clients.connect().send("hi")
            if kind == "script":
                clients.connect(path="/script").send("hi")
        return weakref.ref(app)

    def state():
        return own_threads(), list(logging.getLogger("wsthreads").handlers)

    before = state()
    for drop in (drop_served, lambda: weakref.ref(served())):
        reference = drop()
        wait_until(lambda gone=reference: gc.collect() is not None and gone() is None, "the app to be collected")
        wait_until(lambda: state() == before, lambda: state())


def test_nothing_is_left_when_all_is_over():
    before, files = own_threads(), open_files()
    handler = Echo()
    with endpoint(handler, close_timeout_s=0.2) as (app, port), ExitStack() as stack:
        for n in range(20):
            client = stack.enter_context(RawClient(port))
            client.text("a")
            assert client.receive() == (TEXT, b"a")
            if n % 4 == 0:
                client.leave()
            elif n % 4 == 1:
                client.reset()
            elif n % 4 == 2:
                client.sock.close()
        app.shutdown(1)
    wait_until(lambda: own_threads() == before, f"the end of all threads but {before}")
    # A client that resets has Werkzeug leave a selector to the garbage collector.
    wait_until(lambda: gc.collect() >= 0 and not new_files(files), "the end of all files")


def test_another_wsgi_server_is_told_what_is_needed(caplog):
    app = WebSocketApp()
    app.add_handler("/ws/test", Echo())
    answers = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/ws/test",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "AAAAAAAAAAAAAAAAAAAAAA==",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
    }
    body = b"".join(app(environ, lambda status, headers: answers.append(status)))
    assert answers[0].startswith("501 ")
    assert b"gunicorn -k gthread" in body
    assert app.session_count == 0
    app.shutdown(0)


@pytest.mark.parametrize("hands_over", [False, True])
def test_a_server_that_holds_applications_to_wsgi_answers_without_an_error(hands_over, capfd):
    """wsgiref, and Waitress, refuse headers that are for the next hop only: an endpoint opened as a page was a 500."""
    app = WebSocketApp()
    app.add_handler("/ws/test", Echo())

    class Handler(wsgiref.simple_server.WSGIRequestHandler):
        def get_environ(self):
            sockets = {SOCKET_KEY: self.connection, INPUT_KEY: self.rfile} if hands_over else {}  # as wsthreads.django
            return {**super().get_environ(), **sockets}

    class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
        daemon_threads = True

    def threaded(environ, start_response):
        return wsgiref.validate.validator(app)({**environ, "wsgi.multithread": True}, start_response)

    with Server(("127.0.0.1", 0), Handler) as server:
        server.set_app(threaded)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            status, text = (400, "this is a WebSocket endpoint") if hands_over else (501, "use gunicorn -k gthread")
            for request in ({"without": ["Upgrade"]}, {"headers": {"Sec-WebSocket-Version": "8"}}, {"method": "POST"}):
                with RawClient(server.server_port, **request) as client:
                    assert client.status == status
                    assert not [name for name in client.headers if is_hop_by_hop(name)]
                    assert text in client.body() or request != {"without": ["Upgrade"]}
        finally:
            server.shutdown()
            thread.join(DEADLINE_S)
    assert "Traceback" not in capfd.readouterr().err
    app.shutdown(0)


@pytest.mark.parametrize(
    ("path", "headers", "line"),
    [
        ("/ws/test", {"Origin": "http://b.example?token=abc"}, "origin 'http://b.example?token=***' is not allowed"),
        ("/ws/test", {"Origin": "http://ann:abc@evil.example"}, "origin 'http://***@evil.example' is not allowed"),
        ("/ws/none;token=abc", {}, "no endpoint /ws/none;token=*** for"),
    ],
)
def test_what_looks_like_a_secret_in_a_refused_handshake_is_not_logged(caplog, path, headers, line):
    caplog.set_level(logging.INFO, "wsthreads")
    with endpoint(Echo()) as (_, port), RawClient(port, path, headers) as client:
        assert client.status in (403, 404)
        wait_until(lambda: line in caplog.text, "the log")
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("wsthreads")]
    assert not [message for message in ours if "abc" in message]


def test_a_refusal_is_logged_without_more_than_its_reason(caplog):
    caplog.set_level(logging.INFO)
    with endpoint(Echo()) as (app, port):
        with RawClient(port, "/ws/test?token=secret", {"Origin": "http://evil.example"}) as client:
            assert client.status == 403
        wait_until(lambda: "refused" in caplog.text, "the log")
        assert app.metrics.snapshot() == {"handshakes_refused_403": 1}
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("wsthreads")]
    assert ours == [
        "handshake on /ws/test from 127.0.0.1 refused: 403 origin 'http://evil.example' is not allowed here: "
        "it is neither that of the Host, 'localhost', nor in allowed_origins (--origin)"
    ]


def test_an_app_that_is_its_own_wsgi_app_says_so_at_once(serve):
    flask = pytest.importorskip("flask").Flask(__name__)
    flask.get("/")(lambda: "hi")
    app = WebSocketApp(flask)  # and not flask.wsgi_app
    flask.wsgi_app = app
    app.add_handler("/ws/test", Echo())
    environ = EnvironBuilder("/").get_environ()
    for entry in (flask, app):
        with pytest.raises(ConfigError, match=r"WebSocketApp\(app\.wsgi_app\)"):
            entry(dict(environ), Mock())
    server = serve(app)
    with RawClient(server.port, "/ws/test") as client:
        client.text("still served")
        assert client.receive_text() == "still served"


def test_apps_in_each_others_place_are_found_too_and_a_request_may_be_passed_on_elsewhere():
    inner = WebSocketApp()
    outer = WebSocketApp(inner)
    inner._dispatcher._wsgi_app = outer
    with pytest.raises(ConfigError, match="its own wsgi_app"):
        outer(EnvironBuilder("/").get_environ(), Mock())

    def moved(environ, start_response):
        if environ["PATH_INFO"] == "/old":
            return app({**environ, "PATH_INFO": "/new"}, start_response)
        return plain(environ, start_response)

    app = WebSocketApp(moved)
    assert b"plain /new" in b"".join(app(EnvironBuilder("/old").get_environ(), Mock()))


def test_redis_is_a_setting_of_an_app_as_of_create_app(redis_server, monkeypatch):
    monkeypatch.setenv("WSTHREADS_REDIS", "redis://nowhere.invalid")
    app = WebSocketApp(redis=redis_server.url)
    assert app.shares_rooms
    app.connect_broker()
    app.shutdown(1)


PASSWORD = "redis://:pa55@localhost"


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"broker": PASSWORD}, r'broker must be a RedisBroker\("redis://…"\), not a str; a URL is for redis='),
        ({"redis": PASSWORD, "broker": RedisBroker(PASSWORD)}, "either redis=.* or broker=.*, not both"),
        ({"redis": 5}, "needs a URL or a client of redis-py, not int"),
        ({"redis": "localhost"}, "must begin with redis://"),
        ({"dashboard": "0123456789abcdef"}, r"dashboard must be a Dashboard\(token\), not a str; .* dashboard_token="),
        ({"config": {"max_sessions": 5}}, "config must be a Config, not a dict"),
        ({"wsgi_app": "flask"}, "wsgi_app must be a WSGI application, .*, not 'flask'"),
    ],
)
def test_a_part_that_is_not_of_its_kind_is_refused_by_name(parts, told):
    with pytest.raises(ConfigError, match=told) as raised:
        WebSocketApp(**parts)
    assert "pa55" not in str(raised.value)
    assert "0123456789" not in str(raised.value)


async def on_a_socket(socket):
    """A view, as other libraries have it."""


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("chat.js", r"not the name of a file, 'chat\.js': add_script\(path, file\) serves a script, create_app"),
        (Path("chat.py"), r"not the name of a file, 'chat\.py'.*create_app\(file\)"),
        (plain, "plain is a function; a handler is a class.* class Plain: def on_message"),
        (on_a_socket, "on_a_socket is a function; a handler is a class"),
        (len, "len is a function"),
    ],
)
def test_what_people_give_in_place_of_a_handler_is_named_with_what_they_want(target, told):
    app = WebSocketApp()
    with pytest.raises(HandlerError, match=told):
        app.add_handler("/ws/x", target)
    with pytest.raises(HandlerError, match=told):
        app.route("/ws/x")(target)
    assert not app.endpoints


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("chat.py", r"chat\.py is a Python file: import it and use add_handler"),
        (Echo(), "not a Echo; for other handlers, use add_handler"),
    ],
)
def test_add_script_says_what_serves_the_rest(file, told):
    with pytest.raises(HandlerError, match=told):
        WebSocketApp().add_script("/ws/x", file)
