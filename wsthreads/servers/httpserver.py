"""Werkzeug's threaded HTTP server, with a list of its connections. So this server can wait for them, and end them.

`wsthreads.servers.serving` starts and stops the server. One daemon thread serves each connection. A connection carries
one request. A connection is *new* until its thread has read the request or waits for the client, and *busy* once the
request is read.
"""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import nullcontext, suppress
from socketserver import BaseServer
from threading import Condition, Event, Lock, Thread, current_thread
from time import monotonic
from typing import TYPE_CHECKING, Any

from wsthreads.loggers import get_logger
from wsthreads.servers.bodies import refusing_bad_bodies
from wsthreads.servers.requests import RequestHandler, RequestServer, with_given_answers
from wsthreads.servers.stalled_clients import StalledClients, wake
from wsthreads.sessions.admission import RETRY_AFTER_S
from wsthreads.threads.restarts import keep_running
from wsthreads.threads.scheduling import ScheduledThread

if TYPE_CHECKING:
    from wsthreads.servers.apps import ServedApp

__all__ = ["HTTPServer"]

log = get_logger(__name__)

#: The response if no thread can be started for a connection.
_NO_THREAD = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    % RETRY_AFTER_S
)

#: For this long, no connection is accepted after the process has run out of file descriptors.
EXHAUSTED_PAUSE_S = 0.2

#: The accepting thread waits for at most this long for the threads of new connections, which only need to begin, and to
#: read what has arrived.
UNREAD_TIMEOUT_S = 0.05

#: How often a server that is ending looks for clients that have stalled.
JOIN_STEP_S = 0.1


class _Link:
    """One TCP connection in the server's list."""

    __slots__ = ("busy", "is_new", "sock", "thread")

    def __init__(self, sock: socket.socket, thread: ScheduledThread) -> None:
        self.sock = sock
        self.thread = thread  # the context that the connection's thread enters
        self.busy = False  # whether the connection's request was read
        # whether the connection's thread has neither read the request nor begun to wait for the client
        self.is_new = True


class HTTPServer(RequestServer):
    """Werkzeug's server, with a list of its connections and their threads."""

    daemon_threads = True

    def __init__(self, app: ServedApp, listener: socket.socket, ssl_context: ssl.SSLContext | None) -> None:
        host, port = listener.getsockname()[:2]
        # Werkzeug gets a file descriptor, which it copies. Otherwise, Werkzeug would bind the port itself, and end the
        # process if this fails.
        application = with_given_answers(refusing_bad_bodies(app))
        super().__init__(host, port, application, RequestHandler, fd=listener.fileno())
        # Werkzeug does not get the TLS context, because it would do each TLS handshake in the accepting thread.
        self.ssl_context = ssl_context
        self.handshake_timeout_s = app.config.handshake_timeout_s
        self.max_handshake_bytes = app.config.max_handshake_bytes
        self.count = app.metrics.add
        self.scheduling = app.scheduling
        self._accepting = app.scheduling.accepting_thread()
        self._links: dict[Thread, _Link] = {}
        self._new = 0  # how many connections are new
        self._lock = Lock()  # guards _links, _new and _drops_idle; a leaf lock: no other lock is taken while it is held
        self._aged = Condition(self._lock)  # notified when _new has become less
        self._drops_idle = False
        self._warned_at = float("-inf")

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept connections until `shutdown` is called. An error of one connection does not end this method.

        With TLS, the calling thread is not scheduled as an accepting thread. The threads that it starts begin with a
        TLS handshake, which needs no GIL.
        """
        try:
            with self._accepting if self.ssl_context is None else nullcontext():
                keep_running(lambda: BaseServer.serve_forever(self, poll_interval))
        finally:
            self.server_close()

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            sock, address = self.socket.accept()
            if sock.gettimeout() is not None:  # the application has called `socket.setdefaulttimeout`
                sock.settimeout(None)
            return sock, address
        except OSError as error:  # wait here, because the base class would try again at once
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
            self._new += 1
        try:
            thread.start()
        except (RuntimeError, MemoryError) as error:  # "can't start new thread"
            self._forget(thread)
            self._warn("cannot serve a connection: %s (see ulimit -u, TasksMax, pids-limit)", error)
            self._refuse(request)
        self._pace()

    def _pace(self) -> None:
        """Wait until only a few new connections have requests that are not read yet."""
        most = self.scheduling.most_unread()
        if most is not None and self._new > most:
            with self._lock:
                self._aged.wait_for(lambda: self._new <= most, UNREAD_TIMEOUT_S)

    def _forget(self, thread: Thread) -> None:
        with self._lock:
            self._age_locked(self._links.pop(thread))

    def _age_locked(self, link: _Link) -> None:
        if link.is_new:
            link.is_new = False
            self._new -= 1
            self._aged.notify()

    def _refuse(self, request: Any) -> None:
        """Tell a client to come back later. Does not wait, because the calling thread must accept other connections."""
        if self.ssl_context is None:
            with suppress(OSError):
                request.setblocking(False)
                request.send(_NO_THREAD)
                request.recv(65536)  # without this read, the kernel would send a reset, and the response would be lost
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, in its thread."""
        thread = current_thread()
        link = self._links[thread]
        try:
            if self.ssl_context is not None:
                self.mark_waiting()  # the thread will wait for the messages of the TLS handshake
                request.settimeout(self.handshake_timeout_s)
                request = self.ssl_context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    link.sock = request  # so that `cut_off` and `drop_idle` can end the TLS handshake
                    if self._drops_idle:  # `drop_idle` has run before, and has not seen this socket
                        wake(request)
                request.do_handshake()
        except OSError as error:
            log.debug("no TLS handshake with %s: %s", client_address, error, extra={"address": client_address[0]})
            self.shutdown_request(request)
        else:
            with link.thread:
                super().process_request_thread(request, client_address)
        finally:
            self._forget(thread)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.exception("serving %s failed", client_address, extra={"address": client_address[0]})

    def mark_waiting(self) -> None:
        """Note that the calling thread waits for its client. So its connection is no longer new."""
        with self._lock:
            self._age_locked(self._links[current_thread()])

    def mark_busy(self) -> None:
        """Note that the calling thread has read its request. So `drop_idle` lets the thread answer."""
        with self._lock:
            link = self._links[current_thread()]
            self._age_locked(link)
            link.busy = True

    def drop_idle(self) -> None:
        """End the connections without a complete request. Browsers open such connections in advance."""
        with self._lock:
            self._drops_idle = True
            idle = [link.sock for link in self._links.values() if not link.busy]
        for sock in idle:
            wake(sock, socket.SHUT_RD)  # a request that was received but not read yet is still answered

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
        """Wait until `deadline` for the threads of all connections. Returns False if some threads are left.

        Ends the connections of clients that have stalled. All sessions must have ended before.
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
        """Log a warning, but at most one per second. Only the accepting thread calls this method."""
        if monotonic() - self._warned_at >= 1:
            self._warned_at = monotonic()
            log.warning(message, *args)
