"""What WSGI servers differ in."""

import io
import logging
import signal
import socket
import ssl
from types import SimpleNamespace

import pytest

from wsthreads.protocol.wsgi_servers import SessionResponse, gunicorn_worker, has_socket, log_upgrade, take_early_input


def test_a_server_that_hands_over_its_socket_is_known_by_its_environ():
    assert has_socket({"werkzeug.socket": 1})
    assert has_socket({"gunicorn.socket": 1})
    assert not has_socket({"wsgi.input": 1})


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_what_werkzeug_has_read_too_far_is_taken_without_waiting_for_more(timeout):
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.makefile("rb") as reader:
        ours.settimeout(timeout)
        environ = {"werkzeug.socket": ours, "wsgi.input": reader}
        assert take_early_input(environ) == b""
        theirs.sendall(b"request\nearly")
        assert reader.readline() == b"request\n"
        assert take_early_input(environ) == b"early"
        assert take_early_input(environ) == b""
        assert ours.gettimeout() == timeout
        theirs.sendall(b"later")
        assert take_early_input(environ) == b"later" or ours.recv(10) == b"later"
        theirs.close()
        assert take_early_input(environ) == b""


def test_an_input_that_cannot_be_looked_into_gives_nothing():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert take_early_input({"werkzeug.socket": ours, "wsgi.input": object()}) == b""
        assert take_early_input({"werkzeug.socket": ours}) == b""
        assert take_early_input({"gunicorn.socket": ours, "wsgi.input": object()}) == b""


def test_what_gunicorn_has_read_too_far_is_taken_once():
    buffer = io.BytesIO()
    buffer.write(b"early")
    body = SimpleNamespace(reader=SimpleNamespace(unreader=SimpleNamespace(buf=buffer)))
    environ = {"gunicorn.socket": 1, "wsgi.input": body}
    assert take_early_input(environ) == b"early"
    assert take_early_input(environ) == b""


def test_the_worker_is_found_by_its_signal_handler_and_nothing_else_is_taken_for_one():
    assert gunicorn_worker() is None

    class Worker:
        alive, cfg = True, SimpleNamespace(threads=3)

        def handle(self, number, frame):
            pass

    class Other:
        handle = Worker.handle

    before = signal.getsignal(signal.SIGTERM)
    try:
        worker = Worker()
        signal.signal(signal.SIGTERM, worker.handle)
        assert gunicorn_worker() is worker
        signal.signal(signal.SIGTERM, Other().handle)
        assert gunicorn_worker() is None
    finally:
        signal.signal(signal.SIGTERM, before)


class Server:
    """Does what a WSGI server does with a response."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, response):
        try:
            for _ in response:
                self.calls.append("data")
        except ConnectionResetError:
            self.calls.append("reset")
        finally:
            response.close()


def response_of(calls, start_response=None, environ=None):
    return SessionResponse(
        lambda: calls.append("session"),
        lambda: calls.append("abandoned"),
        start_response or (lambda status, headers: calls.append(status)),
        environ or {},
    )


def test_a_session_runs_once_and_ends_like_a_lost_connection():
    calls = []
    Server(calls)(response_of(calls))
    assert calls == ["101 Switching Protocols", "session", "reset"]


def test_under_gunicorn_it_ends_without_an_error_and_with_a_socket_that_takes_nothing_more():
    """Whoever is around the application, such as Sentry, would report an error."""
    calls = []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Server(calls)(response_of(calls, environ={"gunicorn.socket": ours}))
        assert calls == ["101 Switching Protocols", "session"]
        with pytest.raises(BrokenPipeError):
            ours.sendall(b"HTTP/1.1 101")
        assert theirs.recv(1) == b""


def test_with_what_is_no_plain_socket_it_ends_like_a_lost_connection():
    """TLS, in which gunicorn would log an error of its own, and the sockets of wsthreads.testing."""
    with ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="x") as tls:
        for sock in (tls, object()):
            calls = []
            Server(calls)(response_of(calls, environ={"gunicorn.socket": sock}))
            assert calls == ["101 Switching Protocols", "session", "reset"]


def test_in_the_debugger_of_werkzeug_it_ends_without_an_error_and_its_status_is_that_of_a_lost_connection():
    calls = []
    Server(calls)(response_of(calls, environ={"werkzeug.socket": 1, "werkzeug.debug.preserve_context": 1}))
    assert calls == ["101 Switching Protocols", "session"]
    with pytest.raises(ConnectionResetError):
        calls[0].split(None, 1)


def test_a_response_that_is_closed_before_it_is_iterated_is_abandoned_once():
    calls = []
    response = response_of(calls)
    response.close()
    response.close()
    assert calls == ["abandoned"]
    with pytest.raises(ConnectionResetError):
        next(response)


def test_a_response_whose_start_fails_is_abandoned():
    def fail(status, headers):
        raise ValueError("a middleware is broken")

    calls = []
    with pytest.raises(ValueError, match="middleware"):
        Server(calls)(response_of(calls, fail))
    assert calls == ["abandoned"]


def test_the_101_is_logged_for_werkzeug_alone_and_on_one_line(caplog):
    caplog.set_level(logging.INFO)
    log_upgrade({"gunicorn.socket": 1, "PATH_INFO": "/"})
    log_upgrade(
        {
            "werkzeug.socket": 1,
            "REMOTE_ADDR": "192.0.2.1",
            "REQUEST_METHOD": "GET",
            "REQUEST_URI": "/a\nb\\",
            "SERVER_PROTOCOL": "HTTP/1.1",
        }
    )
    (record,) = caplog.records
    assert record.name == "werkzeug"
    assert record.getMessage().startswith("192.0.2.1 - - [")
    assert record.getMessage().endswith(r'] "GET /a\x0ab\x5c HTTP/1.1" 101 -')
