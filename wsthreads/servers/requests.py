"""Answers the HTTP request of one connection, for `wsthreads.servers.httpserver`.

Reads and checks the head of the request (its first line and its headers), makes the WSGI environ, and calls the app.
Werkzeug's base class sends the response. For a WebSocket, `SessionResponse` sends everything instead.
"""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from wsthreads.errors import UsageError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import access_context, hide_secrets
from wsthreads.protocol.heads import MAX_FIELDS, MAX_LINE_BYTES, BadHead, check_request_line, clean_fields
from wsthreads.protocol.wsgi_servers import SessionResponse
from wsthreads.servers.bodies import ChunkedBody
from wsthreads.threads.scheduling import Scheduling

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["RequestHandler", "RequestServer", "with_given_answers"]

log = get_logger(__name__)

_access_log = get_logger("werkzeug")

#: The key in the environ for an `_Answer` that the app has given already.
_ANSWER_KEY = "wsthreads.answer"

#: Characters of a URI (RFC 3986) that are logged unchanged. Control characters and spaces are escaped.
_IN_URI = "/?#[]@!$&'()*+,;=:%"

#: The flag for a read that does not wait. 0 on systems without such a flag.
_DONT_WAIT = getattr(socket, "MSG_DONTWAIT", 0)

#: The size of the read buffer. Most requests fit in it. Each session has such a buffer, because the buffer exists as
#: long as the connection.
_BUFFER_BYTES = 2048


class RequestServer(ThreadedWSGIServer):
    """The part of the server that a `RequestHandler` uses."""

    handshake_timeout_s: float
    max_handshake_bytes: int
    #: Adds 1 to the counter with this name.
    count: Callable[[str], None]
    scheduling: Scheduling

    def mark_waiting(self) -> None:
        """Note that the calling thread waits for the rest of its request."""
        raise NotImplementedError

    def mark_busy(self) -> None:
        """Note that the calling thread has read its request."""
        raise NotImplementedError


class RequestHandler(WSGIRequestHandler):
    """Reads one request before a deadline, and calls the app to answer the request."""

    disable_nagle_algorithm = True
    rbufsize = 0  # the base class makes an unbuffered file, because `setup` replaces it by one with a buffer
    server: RequestServer
    raw_requestline: bytes
    _answer: _Answer | None = None

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        server = self.server
        self._input = _Input(
            self.connection, server.handshake_timeout_s, server.max_handshake_bytes, server.mark_waiting
        )
        self.rfile = io.BufferedReader(self._input, _BUFFER_BYTES)
        # an IPv4 address of an IPv6 socket
        if self.client_address[0].startswith("::ffff:") and "." in self.client_address[0]:
            self.client_address = (self.client_address[0][len("::ffff:") :], *self.client_address[1:])

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except _HeadTooLong as error:
            self.server.count("past_max_handshake_bytes")
            log.debug("the request of %s is refused: %s", self.client_address, error, extra=self._context)
            self.close_connection = True
            self.requestline, self.request_version, self.command = "", "HTTP/1.1", ""  # these may not be set yet
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, str(error))

    def parse_request(self) -> bool:
        """Read the head of the request once, and check it."""
        while self.raw_requestline in (b"\r\n", b"\n"):  # empty lines before a request are skipped: RFC 9112, 2.2
            self.raw_requestline = self.rfile.readline(MAX_LINE_BYTES + 1)
        self.close_connection = True  # a connection carries one request
        if not self.raw_requestline:
            return False
        self.requestline = self.raw_requestline.decode("latin-1").rstrip("\r\n")
        try:
            # Checked before the next lines are read, because a client of another protocol may never send the empty
            # line.
            line = check_request_line(self.raw_requestline)
            lines = self._header_lines()
            with self.server.scheduling.opening():
                fields = clean_fields(line.version, lines)
        except BadHead as flaw:
            self.request_version, self.command = "HTTP/1.1", ""
            self.send_error(flaw.status, str(flaw))
            return False
        self.command, self.path = line.method, line.target
        # as in http.server, because a redirect to such a path would lead to another host
        if self.path.startswith("//"):
            self.path = "/" + self.path.lstrip("/")
        self.request_version = "HTTP/{}.{}".format(*line.version)
        self.headers = _Fields(fields)  # type: ignore[assignment]  # the base classes need only `get` and `items`
        if self.headers.get("Expect", "").lower() == "100-continue" and line.version >= (1, 1):
            return self.handle_expect_100()
        return True

    def _header_lines(self) -> list[bytes]:
        """Returns the lines up to the empty line or the end of the stream, but at most one line more than the limit."""
        lines: list[bytes] = []
        while len(lines) <= MAX_FIELDS:
            line = self.rfile.readline(MAX_LINE_BYTES + 1)
            lines.append(line)
            if line in (b"\r\n", b"\n") or not line.endswith(b"\n"):
                break
        return lines

    def make_environ(self) -> WSGIEnvironment:
        environ = super().make_environ()
        # Werkzeug's own reader is not used, because it accepts sizes such as 0x3, and LF without CR
        if environ.get("wsgi.input_terminated"):
            environ["wsgi.input"] = io.BufferedReader(ChunkedBody(self.rfile))
        if self.path == "*":  # the asterisk of OPTIONS is not a path: RFC 9112, 3.3
            environ["PATH_INFO"] = ""
        if self._answer is not None:
            environ[_ANSWER_KEY] = self._answer
        return environ

    def run_wsgi(self) -> None:
        self._input.unbind()
        self.server.mark_busy()
        if "websocket" in self.headers.get("Upgrade", "").lower():
            self._serve_upgrade()
        else:
            self._answer_request()

    def _answer_request(self) -> None:
        # The longest time during which a client may neither send nor read. Sessions have other limits.
        self.connection.settimeout(self.server.handshake_timeout_s)
        super().run_wsgi()

    def _serve_upgrade(self) -> None:
        """Serve a session, without the base class, whose objects would stay in memory as long as the session."""
        answer = _Answer(self.server.app, self.make_environ())
        session = answer.take_session()
        if session is None:
            self._answer = answer
            self._answer_request()
            return
        del answer
        try:
            with suppress(ConnectionError):  # a ConnectionError is the normal end of a session
                next(session)
        finally:
            session.close()

    @property
    def _context(self) -> dict[str, Any]:
        return {"address": self.client_address[0]}

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        try:
            super().log_request(code, size)
        except ValueError:  # Werkzeug has tried to parse the URI, and the URI is malformed
            self.log("info", '"%s %s" %s %s', self.command, quote(self.path), code, size)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log a line as Werkzeug does, with its values as attributes of the log record."""
        context = self._context
        if len(args) >= 3 and message.endswith('" %s %s'):  # the call comes from log_request
            path = quote(getattr(self, "path", "-"), _IN_URI)  # a bad request has no path
            context = access_context(context["address"], self.command or "-", path, args[-2])
        head = f"{self.address_string()} - - [{self.log_date_time_string()}] ".replace("%", "%%")
        hide = hide_secrets if self.command else _hide_query
        shown = [hide(value) if isinstance(value, str) else value for value in args]
        getattr(_access_log, type)(head + message, *shown, extra=context)

    def log_error(self, format: str, *args: Any) -> None:
        if format.startswith("Request timed out"):  # not an error, because browsers open connections in advance
            log.debug("no request from %s: %s", self.client_address, *args, extra=self._context)
            self.server.count("past_handshake_timeout_s")
        elif format.startswith("code "):  # a bad request; the response is in the access log
            complaint = _hide_query(format % args)
            log.debug("a bad request from %s: %s", self.client_address, complaint, extra=self._context)
        else:
            super().log_error(format, *args)


#: If an app answers a request with ``Upgrade: websocket`` by `write` (PEP 3333), at most this many bytes are allowed.
MAX_WRITTEN_BYTES = 65536


class _Fields:
    """The headers of a request, with the methods of a mapping that the base classes use."""

    __slots__ = ("_fields",)

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self._fields = fields

    def items(self) -> list[tuple[str, str]]:
        return self._fields

    def get(self, name: str, default: str) -> str:
        """Returns the first value of a header."""
        name = name.lower()
        return next((value for key, value in self._fields if key.lower() == name), default)


class _Answer:
    """Calls an app, and stores its response. The object is itself a WSGI application that gives this response.

    So the server can look at the response first: a WebSocket session is served in another way.
    """

    def __init__(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        self._started: list[tuple[Any, ...]] = []
        self._written: list[bytes] = []
        self._written_bytes = 0
        self._start_response: StartResponse | None = None
        self._write_on: Callable[[bytes], object] | None = None
        self._error: BaseException | None = None
        self._response: Iterable[bytes] = ()
        try:
            self._response = app(environ, self._start)
        except Exception as error:
            self._error = error

    def take_session(self) -> SessionResponse | None:
        """Return the response if it is a session, otherwise None.

        A session is not stored, because it refers to `_start`.
        """
        response, self._response = self._response, ()
        if isinstance(response, SessionResponse):
            return response
        self._response = response
        return None

    def _start(self, *arguments: Any) -> Callable[[bytes], object]:
        if self._start_response is not None:  # the response begins while the server iterates over it
            return self._start_response(*arguments)
        self._started.append(arguments)
        return self._write

    def _write(self, data: bytes) -> None:
        if self._write_on is not None:
            self._write_on(data)
            return
        self._written_bytes += len(data)
        if self._written_bytes > MAX_WRITTEN_BYTES:
            raise UsageError(f"an answer to a WebSocket handshake may write() at most {MAX_WRITTEN_BYTES} bytes")
        self._written.append(data)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        self._start_response = start_response
        for arguments in self._started:
            self._write_on = start_response(*arguments)
        if self._write_on is not None:
            for data in self._written:
                self._write_on(data)
        if self._error is not None:
            raise self._error
        return self._response


def with_given_answers(app: WSGIApplication) -> WSGIApplication:
    """Wrap `app`. A request that has an `_Answer` already gets that answer, without another call of `app`."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        given: WSGIApplication = environ.get(_ANSWER_KEY, app)
        return given(environ, start_response)

    return application


def _hide_query(text: str) -> str:
    """Hide the query in a text about a bad request, whose query may be malformed. A colour code at the end stays."""
    text, query, rest = text.partition("?")
    return text + query + (query and "***") + ("\x1b[0m" if rest.endswith("\x1b[0m") else "")


class _HeadTooLong(Exception):
    """The head of a request is longer than the limit."""


class _Input(io.RawIOBase):
    """The input of a socket in blocking mode, with limits for the head of the request.

    If the head is not complete within `timeout_s`, a read raises TimeoutError. If the head has more than `max_bytes`
    and the size of one buffer, a read raises `_HeadTooLong`. `unbind` ends both limits. After that, each read may take
    `timeout_s`. `waits` is called before the first wait for the client. It is not called with TLS, because the thread
    has waited in the TLS handshake already.
    """

    def __init__(self, sock: socket.socket, timeout_s: float, max_bytes: int, waits: Callable[[], None]) -> None:
        self._sock = sock
        self._timeout_s = timeout_s
        self._deadline: float | None = monotonic() + timeout_s
        self._max_bytes = max_bytes
        self._waits = waits
        self._can_look = not isinstance(sock, ssl.SSLSocket)
        self._bytes = 0
        self._is_over = False

    def unbind(self) -> None:
        self._deadline = None

    def end(self) -> None:
        """Read nothing more from the socket, because it belongs to a session now.

        The session gets the bytes that were read so far.
        """
        self._is_over = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._is_over:
            return None
        if self._deadline is None:
            # 0.0 means that the caller wants only what has arrived
            if self._sock.gettimeout() not in (0.0, self._timeout_s):
                self._sock.settimeout(self._timeout_s)
            try:
                return self._sock.recv_into(buffer)
            except BlockingIOError:
                return None
        if self._bytes >= self._max_bytes:
            raise _HeadTooLong(f"a head of more than {self._max_bytes} bytes")
        received = self._receive(buffer, self._deadline)
        self._bytes += received
        return received

    def _receive(self, buffer: Any, deadline: float) -> int:
        """Read a part of the head. The first call does not wait, because usually the whole head has arrived already."""
        if self._can_look:
            try:
                if not self._bytes:
                    return self._receive_now(buffer)
            except BlockingIOError:
                pass  # nothing has arrived yet
            self._can_look = False
            self._waits()
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)

    def _receive_now(self, buffer: Any) -> int:
        """Read what has arrived, without waiting. Raises `BlockingIOError` if nothing has arrived."""
        if _DONT_WAIT:
            return self._sock.recv_into(buffer, 0, _DONT_WAIT)
        self._sock.setblocking(False)
        try:
            return self._sock.recv_into(buffer)
        finally:
            self._sock.setblocking(True)
