"""Werkzeug's threaded HTTP server, which also knows its connections: it can wait for them, and end them.

`wsthreads.servers.serving` starts and stops it. One daemon thread serves each connection. A connection carries one
request.
"""

from __future__ import annotations

import errno
import io
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
from wsthreads.servers.bodies import ChunkedBody, refusing_bad_bodies
from wsthreads.servers.stalled_clients import StalledClients, wake
from wsthreads.sessions.admission import RETRY_AFTER_S
from wsthreads.threads.restarts import keep_running
from wsthreads.threads.scheduling import ScheduledThread

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    from wsthreads.servers.apps import ServedApp

__all__ = ["HTTPServer"]

log = get_logger(__name__)

#: The answer if no thread can be started for a connection.
_NO_THREAD = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    % RETRY_AFTER_S
)

#: How long accepting pauses when the process has no file descriptors left.
EXHAUSTED_PAUSE_S = 0.2

#: While the server ends, it looks this often for clients that have stalled.
JOIN_STEP_S = 0.1


class _Link:
    """What the server knows of one TCP connection."""

    __slots__ = ("busy", "sock", "thread")

    def __init__(self, sock: socket.socket, thread: ScheduledThread) -> None:
        self.sock = sock
        self.thread = thread  # the connection's thread enters this context
        self.busy = False  # whether its request has been read


class HTTPServer(ThreadedWSGIServer):
    """Werkzeug's server, with a list of its connections and their threads."""

    daemon_threads = True

    def __init__(self, app: ServedApp, listener: socket.socket, ssl_context: ssl.SSLContext | None) -> None:
        host, port = listener.getsockname()[:2]
        # Given a descriptor, Werkzeug copies it. It does not bind, and does not end the process if that fails.
        super().__init__(host, port, refusing_bad_bodies(app), _RequestHandler, fd=listener.fileno())
        # Werkzeug does not get it, since it would do each TLS handshake in the accepting thread.
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
        """Accept connections until `shutdown`. An error of one connection does not end this.

        With TLS, this does not count as a thread that accepts sessions: new threads begin with a handshake of TLS,
        which needs no GIL.
        """
        try:
            with self._accepting if self.ssl_context is None else nullcontext():
                keep_running(lambda: BaseServer.serve_forever(self, poll_interval))
        finally:
            self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return self.socket.accept()
        except OSError as error:  # the base class tries again at once, without a pause
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
        """Tell a client to come back later. Does not wait, since no other thread accepts."""
        if self.ssl_context is None:
            with suppress(OSError):
                request.setblocking(False)
                request.send(_NO_THREAD)
                request.recv(65536)  # if the request stays unread, the kernel sends a reset, and the answer is lost
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in its thread."""
        thread = current_thread()
        link = self._links[thread]
        try:
            if self.ssl_context is not None:
                request.settimeout(self.handshake_timeout_s)
                request = self.ssl_context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    link.sock = request  # so that `cut_off` and `drop_idle` can end the TLS handshake
                    if self._drops_idle:  # `drop_idle` did not see this socket
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
        """Note that the calling thread has read its request, so that `drop_idle` lets it answer."""
        with self._lock:
            self._links[current_thread()].busy = True

    def drop_idle(self) -> None:
        """End connections that have not sent their request. Browsers open connections in advance."""
        with self._lock:
            self._drops_idle = True
            idle = [link.sock for link in self._links.values() if not link.busy]
        for sock in idle:
            wake(sock, socket.SHUT_RD)  # a request that was received but not read is still answered

    def cut_off(self) -> None:
        """End every connection at once."""
        with self._lock:
            socks = [link.sock for link in self._links.values()]
        for sock in socks:
            wake(sock)

    def serves_here(self) -> bool:
        """Whether the calling thread serves a connection."""
        with self._lock:
            return current_thread() in self._links

    def join_connections(self, deadline: float) -> bool:
        """Wait for the threads of all connections, until `deadline`. False if some are left.

        Clients that have stalled are dropped. All sessions must have ended before.
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
        """Log at most once a second. For the accepting thread."""
        if monotonic() - self._warned_at >= 1:
            self._warned_at = monotonic()
            log.warning(message, *args)


_access_log = get_logger("werkzeug")

#: Characters that are not escaped when a URI is logged (RFC 3986). Control characters and spaces are escaped.
_IN_URI = "/?#[]@!$&'()*+,;=:%"

#: Most requests fit. The buffer lives as long as the connection, so each session has one.
_BUFFER_BYTES = 2048


class _RequestHandler(WSGIRequestHandler):
    """Reads one request before a deadline, and has the app answer it."""

    disable_nagle_algorithm = True
    rbufsize = 0  # `setup` replaces the file that has this buffer
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
            self.requestline, self.request_version, self.command = "", "HTTP/1.1", ""  # perhaps not parsed yet
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, str(error))

    def parse_request(self) -> bool:
        """Read the head and check it. The base class parses it."""
        while self.raw_requestline in (b"\r\n", b"\n"):  # RFC 9112, 2.2
            self.raw_requestline = self.rfile.readline(MAX_LINE_BYTES + 1)
        if not self.raw_requestline:
            self.close_connection = True
            return False
        try:
            version = check_request_line(self.raw_requestline)  # at once: another protocol may send no empty line
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
        """The lines up to the empty line, the end of the stream, or one line more than the limit."""
        lines: list[bytes] = []
        while len(lines) <= MAX_FIELDS:
            line = self.rfile.readline(MAX_LINE_BYTES + 1)
            lines.append(line)
            if line in (b"\r\n", b"\n") or not line.endswith(b"\n"):
                break
        return lines

    def make_environ(self) -> WSGIEnvironment:
        environ = super().make_environ()
        if environ.get("wsgi.input_terminated"):  # Werkzeug's own reader accepts sizes such as 0x3, and a bare LF
            environ["wsgi.input"] = io.BufferedReader(ChunkedBody(self.rfile))
        if self.path == "*":  # RFC 9112, 3.3: no path at all
            environ["PATH_INFO"] = ""
        return environ

    def run_wsgi(self) -> None:
        self._input.unbind()
        # A client that neither sends nor reads holds its thread no longer than this. Sessions have other limits, so
        # their transport removes the timeout with the 101. A request alone does not remove it.
        self.connection.settimeout(self.server.handshake_timeout_s)
        self.server.mark_busy()
        super().run_wsgi()

    @property
    def _context(self) -> dict[str, Any]:
        return {"address": self.client_address[0]}

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        try:
            super().log_request(code, size)
        except ValueError:  # Werkzeug parses the URI here, and this one is malformed
            self.log("info", '"%s %s" %s %s', self.command, quote(self.path), code, size)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log Werkzeug's line, with its values as attributes of the record."""
        context = self._context
        if len(args) >= 3 and message.endswith('" %s %s'):  # from log_request
            path = quote(getattr(self, "path", "-"), _IN_URI)  # a bad request has none
            context = access_context(context["address"], self.command or "-", path, args[-2])
        head = f"{self.address_string()} - - [{self.log_date_time_string()}] ".replace("%", "%%")
        hide = hide_secrets if self.command else _hide_query
        shown = [hide(value) if isinstance(value, str) else value for value in args]
        getattr(_access_log, type)(head + message, *shown, extra=context)

    def log_error(self, format: str, *args: Any) -> None:
        if format.startswith("Request timed out"):  # not an error: browsers open connections in advance
            log.debug("no request from %s: %s", self.client_address, *args, extra=self._context)
            self.server.count("past_handshake_timeout_s")
        elif format.startswith("code "):  # a bad request; the access log has the answer
            complaint = _hide_query(format % args)
            log.debug("a bad request from %s: %s", self.client_address, complaint, extra=self._context)
        else:
            super().log_error(format, *args)


def _hide_query(text: str) -> str:
    """Hide the query in a text about a bad request. The query may be malformed. Codes of colours at the end stay."""
    text, query, rest = text.partition("?")
    return text + query + (query and "***") + ("\x1b[0m" if rest.endswith("\x1b[0m") else "")


class _HeadTooLong(Exception):
    """The head of a request is longer than the limit."""


class _Input(io.RawIOBase):
    """The input of a socket.

    The head of the request must be complete before `deadline`, else reading raises TimeoutError. It may have
    `max_bytes` and a buffer more, else reading raises `_HeadTooLong`. `unbind` ends both limits.
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
