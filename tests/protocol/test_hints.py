"""What clients are told whose requests lead nowhere."""

from __future__ import annotations

import logging
from contextlib import contextmanager

import pytest
from flask import Flask

from tests.programs import DEADLINE_S, connect, wait_until
from tests.wire import Echo, RawClient, serving
from wsthreads import WebSocketApp
from wsthreads.protocol.hints import answer_with_hint, foreign_protocol, near_path

SOCKET_IO = "this server speaks plain WebSocket, not Socket.IO: connect with new WebSocket(url), or with wsthreads.js"
SIGNALR = SOCKET_IO.replace("Socket.IO", "SignalR")


def site(environ, start_response):
    """An application inside, with a page of its own."""
    path = environ["PATH_INFO"]
    status = "200 OK" if path == "/page/" else "404 Not Found"
    start_response(status, [("Content-Type", "text/html"), ("Content-Length", "4"), ("X-Site", "yes")])
    return [b"site"]


@contextmanager
def server(inside=None, **settings):
    app = WebSocketApp(inside, ping_interval_s=0, **settings)
    for path in ("/ws/t", "/ws/Slash/"):
        app.add_handler(path, Echo())
    with serving(app) as port:
        yield app, port


def answer(port, path, **request):
    with RawClient(port, path, **request) as client:
        return client.status, client.body().strip()


@pytest.mark.parametrize("inside", [None, site])
@pytest.mark.parametrize(
    ("path", "near"),
    [("/ws/t/", "/ws/t"), ("/ws/t//", "/ws/t"), ("/ws//t", "/ws/t"), ("/WS/T", "/ws/t"), ("/ws/t%3Fa=b", "/ws/t"),
     ("/ws/t%20", "/ws/t"), ("/ws/Slash", "/ws/Slash/"), ("/ws/slash", "/ws/Slash/")],
)  # fmt: skip
def test_a_path_that_is_nearly_an_endpoint_s_is_a_404_that_names_it(inside, path, near, caplog):
    caplog.set_level(logging.INFO, "wsthreads")
    with server(inside) as (_, port):
        status, text = answer(port, path)
    assert status == 404
    assert text.startswith("there is no WebSocket endpoint at /")
    assert text.endswith(f"; did you mean {near}?")
    assert f"there are: /ws/t, /ws/Slash/; did you mean {near}?" in caplog.text


def test_a_handshake_that_a_route_for_any_path_refuses_gets_the_hint(tmp_path):
    inside = Flask(__name__, static_folder=tmp_path, static_url_path="")
    with server(inside.wsgi_app) as (_, port):
        assert answer(port, "/ws/T") == (400, "there is no WebSocket endpoint at /ws/T; did you mean /ws/t?")
        assert answer(port, "/other") == (400, "there is no WebSocket endpoint at /other")
        assert "WebSocket" not in answer(port, "/other?EIO=4&transport=websocket")[1], "the application's own protocol"


def test_any_other_path_is_a_404_that_names_no_endpoint(caplog):
    caplog.set_level(logging.INFO, "wsthreads")
    with server() as (_, port):
        for path in ("/", "/ws", "/ws/x", "/ws/t/x", "/chat"):
            assert answer(port, path) == (404, f"there is no WebSocket endpoint at {path}")
    assert "did you mean" not in caplog.text
    assert caplog.text.count("no endpoint ") == 5


def test_what_the_application_inside_answers_itself_stays_and_so_do_its_headers():
    with server(site) as (_, port):
        assert answer(port, "/page/") == (200, "site")
        with RawClient(port, "/ws/t/") as client:
            assert (client.status, client.headers["x-site"]) == (404, "yes")
            assert client.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer(port, "/ws/t/", without=["Upgrade"]) == (404, "site")  # no WebSocket is wanted
        assert answer(port, "/none", without=["Upgrade"]) == (404, "site")


@pytest.mark.parametrize("inside", [None, site])
@pytest.mark.parametrize(
    ("path", "method", "status", "text"),
    [
        ("/socket.io/?EIO=4&transport=polling&t=x", "GET", 404, SOCKET_IO),
        ("/socket.io/?transport=polling&EIO=3", "POST", 404, SOCKET_IO),
        ("/socket.io/?EIO=4&transport=websocket", "GET", 404, SOCKET_IO),
        ("/ws/t/?EIO=4&transport=polling", "GET", 404, SOCKET_IO),  # the option path; Socket.IO adds the slash
        ("/ws/t?EIO=4&transport=polling", "GET", 400, SOCKET_IO),
        ("/hub/negotiate?negotiateVersion=1", "POST", 404, SIGNALR),
        ("/ws/t/negotiate", "POST", 404, SIGNALR),
        ("/signalr/negotiate?clientProtocol=2.1", "GET", 404, SIGNALR),
    ],
)
def test_clients_of_other_protocols_are_told_what_is_spoken_here(inside, path, method, status, text, caplog):
    caplog.set_level(logging.INFO, "wsthreads")
    with server(inside) as (_, port):
        given, body = answer(port, path, method=method, without=["Upgrade", "Connection"])
        assert (given, body.rpartition("; ")[2]) == (status, text)
        wait_until(lambda: text in caplog.text)
        if status == 404 and "transport=websocket" in path:
            assert answer(port, path)[1].endswith(text)


@pytest.mark.parametrize(
    ("query", "path", "method"),
    [("EIOS=4", "/", "GET"), ("xEIO=4", "/", "GET"), ("EIO=", "/", "GET"), ("a=EIO=4", "/", "GET"),
     ("", "/negotiate", "GET"), ("", "/renegotiate", "POST"), ("", "/negotiate/x", "POST"), ("", "/", "POST")],
)  # fmt: skip
def test_others_are_not_taken_for_them(query, path, method):
    assert foreign_protocol({"QUERY_STRING": query, "PATH_INFO": path, "REQUEST_METHOD": method}) == ""


def test_a_socket_io_client_that_is_let_in_is_named_in_the_log_once(caplog):
    with server() as (_, port):
        for _ in range(2):
            with RawClient(port, "/ws/t?EIO=4&transport=websocket") as client:
                assert client.status == 101
                client.leave()
    assert [record.levelname for record in caplog.records if SOCKET_IO in record.getMessage()] == ["WARNING"]


def test_a_subprotocol_that_is_offered_while_none_is_spoken_is_named_in_the_log_once(caplog):
    with server(subprotocols=["chat"]) as (_, port):
        for offered in (["graphql-ws", "x"], ["other"], ["chat"], None):
            with connect(f"ws://127.0.0.1:{port}/ws/t", subprotocols=offered) as client:
                client.send("hi")
                assert client.recv(timeout=DEADLINE_S) == "hi"
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    offers = "a client of /ws/t offers only subprotocols that the endpoint does not speak"
    assert warning.getMessage().startswith(offers)
    assert "--subprotocol" in warning.getMessage()
    assert "graphql-ws" not in caplog.text, "it may be a token"


def test_near_paths():
    assert near_path("/a", []) is None
    assert near_path("/a/b", ["/a", "/ab", "/a/b/c"]) is None
    assert near_path("/", ["/ws"]) is None
    assert near_path("//a/", ["/a"]) == "/a"


def test_an_answer_that_begins_only_when_it_is_read_is_left_as_it_is():
    def lazy(environ, start_response):
        start_response("404 Not Found", [("Content-Length", "4")])
        yield b"lazy"

    answers = []
    body = answer_with_hint(lazy, "a hint", {}, lambda status, headers: answers.append((status, headers)))
    assert list(body) == [b"lazy"]
    assert answers == [("404 Not Found", [("Content-Length", "4")])]


def test_a_head_has_no_body_and_the_answer_in_place_of_which_it_is_given_is_closed():
    closed = []

    class Answer(list):
        def close(self):
            closed.append(True)

    def missing(environ, start_response):
        start_response("404 Not Found", [("ETag", "x"), ("Vary", "Origin")])(b"written")
        return Answer([b"site"])

    answers = []
    body = answer_with_hint(missing, "hi", {"REQUEST_METHOD": "HEAD"}, lambda *given: answers.append(given))
    assert list(body) == [b""]
    assert closed == [True]
    headers = [("Vary", "Origin"), ("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "3")]
    assert answers == [("404 Not Found", headers)]


@pytest.mark.parametrize("origin", ["ws://localhost", "wss://localhost", "localhost", "http://localhost/", "", "null"])
def test_an_origin_that_no_page_has_is_answered_with_one_that_a_page_has(origin):
    with server() as (_, port):
        status, text = answer(port, "/ws/t", headers={"Origin": origin})
        assert status == 403
        hint = "; a page of this Host sends 'http://localhost', and a client outside a browser can omit the Origin"
        assert text.endswith(hint)
        for other in ("http://evil.example", "https://localhost:81"):
            status, text = answer(port, "/ws/t", headers={"Origin": other})
            assert (status, "a page of this Host" in text) == (403, False)
