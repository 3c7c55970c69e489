"""Werkzeug's threaded HTTP server, made to know its connections: to let them go, wait for them, and cut them off.

`wsthreads.servers.serving` starts and stops it. One daemon thread serves each connection, which is one request long.
"""

from __future__ import annotations

import errno
import io
import logging
import socket
import ssl
from contextlib import nullcontext, suppress
from http import HTTPStatus
from socketserver import BaseServer
from threading import Event, Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import access_context, hide_secrets
from wsthreads.protocol.heads import MAX_FIELDS, MAX_LINE_BYTES, BadHead, check_request_line, clean_head
from wsthreads.servers.chunks import ChunkedBody, refusing_bad_bodies
from wsthreads.servers.stalled_clients import StalledClients, wake
from wsthreads.sessions.admission import RETRY_AFTER_S
from wsthreads.threads.restarts import keep_running
from wsthreads.threads.scheduling import ScheduledThread

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from wsthreads.servers.apps import ServedApp

__all__ = ["HTTPServer"]

log = get_logger(__name__)

#: The answer where there is no thread to make another one in.
_NO_THREAD = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    % RETRY_AFTER_S
)

#: How long accepting pauses when the process has no file descriptors left.
EXHAUSTED_PAUSE_S = 0.2

#: While the server ends, it looks for clients that have stalled this often.
JOIN_STEP_S = 0.1


class _Link:
    """One TCP connection of the HTTP server, as the server sees it."""

    __slots__ = ("busy", "sock", "thread")

    def __init__(self, sock: socket.socket, thread: ScheduledThread) -> None:
        self.sock = sock
        self.thread = thread  # entered by the connection's thread
        self.busy = False  # its request has been read


class HTTPServer(ThreadedWSGIServer):
    """Werkzeug's server, which knows its connections and their threads."""

    daemon_threads = True

    def __init__(self, app: ServedApp, listener: socket.socket, ssl_context: ssl.SSLContext | None) -> None:
        host, port = listener.getsockname()[:2]
        # Given a descriptor, of which it makes a copy, Werkzeug neither binds nor ends the process over errors.
        super().__init__(host, port, refusing_bad_bodies(app), _RequestHandler, fd=listener.fileno())
        # Not given to Werkzeug, which would do each TLS handshake in the accepting thread.
        self.ssl_context = ssl_context
        self.handshake_timeout_s = app.config.handshake_timeout_s
        self.max_handshake_bytes = app.config.max_handshake_bytes
        self.count = app.metrics.add
        self._accepting = app.scheduling.accepting_thread()
        self._links: dict[Thread, _Link] = {}
        self._lock = Lock()  # guards _links and _drops_idle; a leaf
        self._drops_idle = False
        self._warned_at = float("-inf")

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept connections until `shutdown`, whatever happens to one of them.

        The accepting thread is kept on the core of the sessions, and so each of theirs is there from its beginning: to
        get there takes a new thread longer than to judge its handshake. Not with TLS, whose handshakes need no GIL.
        """
        try:
            with self._accepting if self.ssl_context is None else nullcontext():
                keep_running(lambda: BaseServer.serve_forever(self, poll_interval))
        finally:
            self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return self.socket.accept()
        except OSError as error:  # the base class only tries again, at once, for as long as it takes
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._warn("cannot accept connections: %s (see ulimit -n, LimitNOFILE)", error.strerror)
                Event().wait(EXHAUSTED_PAUSE_S)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name=f"wsthreads-connection-{client_address[0]}:{client_address[1]}",
            daemon=self.daemon_threads,
        )
        link = _Link(request, self._accepting.starts_thread())
        with self._lock:
            self._links[thread] = link
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # "can't start new thread"
            with self._lock:
                del self._links[thread]
            self._warn("cannot serve a connection: %s (see ulimit -u, TasksMax, pids-limit)", error)
            self._refuse(request)

    def _refuse(self, request: Any) -> None:
        """Tell a client to come back, in what the socket's buffer takes. It must not wait: nobody else accepts."""
        if self.ssl_context is None:
            with suppress(OSError):
                request.setblocking(False)
                request.send(_NO_THREAD)
                request.recv(65536)  # of a request that is not read, the kernel would send a reset
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The life of a connection, in its thread."""
        thread = current_thread()
        link = self._links[thread]
        try:
            if self.ssl_context is not None:
                request.settimeout(self.handshake_timeout_s)
                request = self.ssl_context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    link.sock = request  # so that a handshake can be cut off
                    if self._drops_idle:  # it was, before this was its socket
                        wake(request)
                request.do_handshake()
        except OSError as error:
            log.debug("no TLS with %s: %s", client_address, error, extra={"address": client_address[0]})
            self.shutdown_request(request)
        else:
            with link.thread:
                super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                del self._links[thread]

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("serving %s failed", client_address, extra={"address": client_address[0]})

    def mark_busy(self) -> None:
        """The request of the calling thread's connection has been read: let it be answered, whatever happens."""
        with self._lock:
            self._links[current_thread()].busy = True

    def drop_idle(self) -> None:
        """End connections that have not sent their request: browsers open some in advance, and leave them."""
        with self._lock:
            self._drops_idle = True
            idle = [link.sock for link in self._links.values() if not link.busy]
        for sock in idle:
            wake(sock, socket.SHUT_RD)  # a request that has come, and has not been read, is answered

    def cut_off(self) -> None:
        """End every connection at once."""
        with self._lock:
            socks = [link.sock for link in self._links.values()]
        for sock in socks:
            wake(sock)

    def serves_here(self) -> bool:
        """Whether the calling thread is a connection's."""
        with self._lock:
            return current_thread() in self._links

    def join_connections(self, deadline: float) -> bool:
        """Wait for the threads of all connections. False if some are left.

        Not for clients that neither send their request nor take their answer any more. Sessions have ended before.
        """
        with self._lock:
            links = dict(self._links)
        stalls = StalledClients()
        while links := {thread: link for thread, link in links.items() if thread.is_alive()}:
            left_s = deadline - monotonic()
            if left_s <= 0:
                return False
            stalls.end(link.sock for link in links.values())
            next(iter(links)).join(min(left_s, JOIN_STEP_S))
        return True

    def _warn(self, message: str, *args: object) -> None:
        """Log at most once a second, in the accepting thread."""
        if monotonic() - self._warned_at >= 1:
            self._warned_at = monotonic()
            log.warning(message, *args)


_access_log = logging.getLogger("werkzeug")

#: What stays as it is where a URI is logged; controls and spaces do not (RFC 3986).
_IN_URI = "/?#[]@!$&'()*+,;=:%"

#: Enough for most requests in one read. It is there for as long as the connection is, and so for each session.
_BUFFER_BYTES = 2048


class _RequestHandler(WSGIRequestHandler):
    """Reads one request, by a deadline for all of it, and has the app answer it."""

    disable_nagle_algorithm = True
    rbufsize = 0  # of what `setup` puts something else in the place of
    server: HTTPServer
    raw_requestline: bytes

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        deadline = monotonic() + self.server.handshake_timeout_s
        self._input = _Input(self.connection, deadline, self.server.max_handshake_bytes)
        self.rfile = io.BufferedReader(self._input, _BUFFER_BYTES)
        if self.client_address[0].startswith("::ffff:") and "." in self.client_address[0]:  # IPv4, on an IPv6 socket
            self.client_address = (self.client_address[0][len("::ffff:") :], *self.client_address[1:])

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except _HeadTooLong as error:
            self.server.count("past_max_handshake_bytes")
            log.debug("the request of %s is refused: %s", self.client_address, error, extra=self._context)
            self.close_connection = True
            self.requestline, self.request_version, self.command = "", "HTTP/1.1", ""  # it may not have come so far
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, str(error))

    def parse_request(self) -> bool:
        """Read the head, have it judged, and taken apart by the base class."""
        while self.raw_requestline in (b"\r\n", b"\n"):  # RFC 9112, 2.2
            self.raw_requestline = self.rfile.readline(MAX_LINE_BYTES + 1)
        if not self.raw_requestline:
            self.close_connection = True
            return False
        try:
            version = check_request_line(self.raw_requestline)  # at once: what is no HTTP may have no end
            head = clean_head(version, self._header_lines())
        except BadHead as flaw:
            self.close_connection = True
            self.requestline = self.raw_requestline.decode("latin-1").rstrip("\r\n")
            self.request_version, self.command = "HTTP/1.1", ""
            self.send_error(flaw.status, str(flaw))
            return False
        rfile = self.rfile
        self.rfile = io.BytesIO(head)
        try:
            return super().parse_request()
        finally:
            self.rfile = rfile

    def _header_lines(self) -> list[bytes]:
        """Up to the empty line, the end of the stream, or more than is taken."""
        lines: list[bytes] = []
        while len(lines) <= MAX_FIELDS:
            line = self.rfile.readline(MAX_LINE_BYTES + 1)
            lines.append(line)
            if line in (b"\r\n", b"\n") or not line.endswith(b"\n"):
                break
        return lines

    def make_environ(self) -> WSGIEnvironment:
        environ = super().make_environ()
        if environ.get("wsgi.input_terminated"):  # Werkzeug's reader of chunks takes sizes such as 0x3, and a bare LF
            environ["wsgi.input"] = io.BufferedReader(ChunkedBody(self.rfile))
        if self.path == "*":  # RFC 9112, 3.3: no path at all
            environ["PATH_INFO"] = ""
        return environ

    def run_wsgi(self) -> None:
        self._input.unbind()
        # A peer that neither sends nor reads any more holds its thread no longer than this. A session has other
        # limits: its transport removes the timeout when the 101 is sent. What a client asks for does not.
        self.connection.settimeout(self.server.handshake_timeout_s)
        self.server.mark_busy()
        super().run_wsgi()

    @property
    def _context(self) -> dict[str, Any]:
        return {"address": self.client_address[0]}

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        try:
            super().log_request(code, size)
        except ValueError:  # Werkzeug takes the URI apart for this, malformed as it may be
            self.log("info", '"%s %s" %s %s', self.command, quote(self.path), code, size)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Werkzeug's line, with what it tells as attributes of its record."""
        context = self._context
        if len(args) >= 3 and message.endswith('" %s %s'):  # of log_request
            path = quote(getattr(self, "path", "-"), _IN_URI)  # there is none in a bad request
            context = access_context(context["address"], self.command or "-", path, args[-2])
        head = f"{self.address_string()} - - [{self.log_date_time_string()}] ".replace("%", "%%")
        hide = hide_secrets if self.command else _hide_query
        shown = [hide(value) if isinstance(value, str) else value for value in args]
        getattr(_access_log, type)(head + message, *shown, extra=context)

    def log_error(self, format: str, *args: Any) -> None:
        if format.startswith("Request timed out"):  # browsers open connections in advance: no error
            log.debug("no request from %s: %s", self.client_address, *args, extra=self._context)
            self.server.count("past_handshake_timeout_s")
        elif format.startswith("code "):  # a bad request, answered with an error; the access log has it
            complaint = _hide_query(format % args)
            log.debug("a bad request from %s: %s", self.client_address, complaint, extra=self._context)
        else:
            super().log_error(format, *args)


def _hide_query(text: str) -> str:
    """A text about a bad request, whose query may be malformed in any way; it ends with the colours that it had."""
    text, query, rest = text.partition("?")
    return text + query + (query and "***") + ("\x1b[0m" if rest.endswith("\x1b[0m") else "")


class _HeadTooLong(Exception):
    """More of a request's head has come in than is taken."""


class _Input(io.RawIOBase):
    """What comes in on a socket. Until `unbind` is called, when the head of the request is complete, all of it has to
    come by `deadline` (TimeoutError past it), and be no longer than `max_bytes` (`_HeadTooLong`) and a buffer.
    """

    def __init__(self, sock: socket.socket, deadline: float, max_bytes: int) -> None:
        self._sock = sock
        self._deadline: float | None = deadline
        self._max_bytes = max_bytes
        self._bytes = 0

    def unbind(self) -> None:
        self._deadline = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._deadline is None:
            try:
                return self._sock.recv_into(buffer)
            except BlockingIOError:
                return None
        if self._bytes >= self._max_bytes:
            raise _HeadTooLong(f"a head of more than {self._max_bytes} bytes")
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._sock.settimeout(left)
        received = self._sock.recv_into(buffer)
        self._bytes += received
        return received
