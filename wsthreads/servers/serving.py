"""The development server: clear errors at its start, and an orderly shutdown at its end.

One daemon thread accepts connections, and each connection has a daemon thread of its own. At a shutdown, the server
accepts no new connections, closes the sessions with the code 1001 (`WebSocketApp.shutdown`), and finishes HTTP
requests, all before a deadline.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Event, Lock, Thread, current_thread, main_thread
from time import monotonic
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from wsthreads.errors import CloseCode, UsageError
from wsthreads.loggers import get_logger
from wsthreads.protocol.server_support import green_threads
from wsthreads.servers.httpserver import HTTPServer

if TYPE_CHECKING:
    from typing_extensions import Self

    from wsthreads.servers.apps import ServedApp

__all__ = ["Server", "is_loopback", "serve"]

log = get_logger(__name__)

#: At most this many connections may wait to be accepted, if the system allows so many. After a restart, many clients
#: reconnect at once, but their connections are accepted only as fast as their requests are read.
BACKLOG = 4096

#: How often the accepting thread checks whether it should stop.
ACCEPT_POLL_S = 0.1

#: How long to wait for the threads of connections that were ended by force.
CUT_OFF_TIMEOUT_S = 1.0

#: `run` returns at most this long after the app's `shutdown_timeout_s`, even if something blocks the shutdown.
STOP_SLACK_S = 3.0

#: How long the main thread waits for an event at a time. Python calls a signal handler only between two steps of the
#: main thread. If a signal comes just before a wait, or if another thread gets the signal, nothing wakes the main
#: thread.
LOOK_S = 0.25

#: How long to wait at most for an announcement, or for a log line after a signal.
LOG_TIMEOUT_S = 0.5


class Server:
    """Serves `app` at `host` and `port`. With port 0, uses any free port, whose number is in the attribute `port`.

    The constructor binds the port. Then call `run` in the main thread of your program, or serve in the background::

        with Server(app, port=0) as server:
            ... server.url ...

    Raises `UsageError` if the port is out of range or in use, or if the host is unknown or not on this machine. With
    `ssl_context`, the server speaks TLS. A server cannot be started again. Create a new server and a new app after
    `stop`.
    """

    def __init__(
        self,
        app: ServedApp,
        host: str = "127.0.0.1",
        port: int = 5000,
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if unfit := green_threads():
            raise UsageError(unfit)
        self._app = app
        self.host = host
        with bind(host, port) as listener:
            self._http = HTTPServer(app, listener, ssl_context)
        self.port: int = self._http.port
        self._secure = ssl_context is not None
        self._lock = Lock()  # guards _thread and _stopping
        self._thread: Thread | None = None
        self._stopping = False
        self._stopped = Event()
        self._cut_off = 0
        # Events for run(): the number of a signal, a _Stop of request_stop(), or None when the server has stopped. A
        # signal handler may call put().
        self._events: SimpleQueue[int | _Stop | None] = SimpleQueue()

    @property
    def url(self) -> str:
        """The server's URL on this machine, such as ``http://127.0.0.1:5000``."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{'https' if self._secure else 'http'}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def ws_url(self) -> str:
        """The server's URL for WebSockets, such as ``ws://127.0.0.1:5000``."""
        return "ws" + self.url[len("http") :]

    def start(self) -> None:
        """Serve in a background thread. Idempotent. Raises `RuntimeError` after `stop`."""
        with self._lock:
            if self._stopping:
                raise RuntimeError("this server has been stopped; create a new one")
            if self._thread is None:
                self._thread = Thread(
                    target=self._http.serve_forever, args=(ACCEPT_POLL_S,), name="wsthreads-accept", daemon=True
                )
                self._thread.start()

    def stop(
        self,
        timeout_s: float | None = None,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "server shutting down",
    ) -> int:
        """Stop accepting connections, shut the app down, and end all connections.

        Returns how many sessions were cut off.

        Blocks for at most `timeout_s` (default: the app's `shutdown_timeout_s`) and about a second more. Idempotent: a
        second call waits for the end of the first. Any thread.

        If the thread of a connection calls this, for example in a handler or a view, it waits only for the other
        sessions, like `WebSocketApp.shutdown`. The connection of this thread ends when the handler returns.
        """
        timeout_s = self._app.config.shutdown_timeout_s if timeout_s is None else timeout_s
        timeout_s = min(max(0.0, timeout_s), TIMEOUT_MAX / 2)  # threads do not accept a longer one, such as infinity
        if self._http.serves_here():
            Thread(target=self.stop, args=(timeout_s, code, reason), name="wsthreads-stop", daemon=True).start()
            return self._app.shutdown(timeout_s, code, reason)
        with self._lock:
            first, self._stopping = not self._stopping, True
        if not first:
            self._stopped.wait(timeout_s + 2 * CUT_OFF_TIMEOUT_S)
            return self._cut_off
        deadline = monotonic() + timeout_s
        try:
            if self._thread is None:
                self._http.server_close()
            else:
                self._http.shutdown()
                self._thread.join(timeout_s + CUT_OFF_TIMEOUT_S)
            self._http.drop_idle()
            self._cut_off = self._app.shutdown(timeout_s, code, reason)
            if not self._http.join_connections(deadline):
                self._http.cut_off()
                if not self._http.join_connections(monotonic() + CUT_OFF_TIMEOUT_S):
                    log.warning("the threads of some connections are still running; they will end with the process")
        finally:
            self._stopped.set()
        return self._cut_off

    def request_stop(self, code: int = CloseCode.GOING_AWAY, reason: str = "server shutting down") -> None:
        """Make `run` stop and return. Does not block. Any thread, and signal handlers."""
        self._events.put(_Stop(code, reason))

    def cut_off(self) -> None:
        """End all connections at once, so that a running `stop` ends, too. Any thread."""
        self._app.cut_off()
        self._http.cut_off()

    def run(self, announce: Callable[[], None] = lambda: None) -> int:
        """Serve until SIGINT (Ctrl-C), SIGTERM, SIGHUP (a closed terminal) or `request_stop`. Returns the exit status.

        The first signal shuts the server down within `shutdown_timeout_s`, with status 0. A second signal cuts off all
        connections, and the status is 128 plus the signal's number. A third signal has its default effect. SIGHUP is
        never the second signal, and the next signal after SIGHUP counts as the first. The reason is that a closing
        terminal can send SIGHUP twice, and systemd can send SIGTERM together with SIGHUP. A SIGHUP after `request_stop`
        only changes the status, to 129. Signals are handled only in the main thread. Even if nobody reads the log any
        more, a log line cannot block the shutdown.

        `announce` is called when signals are handled, to tell others that the server is there. It is called in a thread
        of its own. If the call blocks, because nobody reads the output, the server serves nevertheless.
        """
        with _signals_to(self._events.put) as restore_signals:
            _call_in_time(announce)
            self.start()
            event = self._first_event()
            stop = event if isinstance(event, _Stop) else _Stop()
            is_second = event != signal.SIGHUP
            has_signal = isinstance(event, int)
            if isinstance(event, int):
                name = signal.Signals(event).name
                count = self._app.session_count
                hint = "" if event == signal.SIGHUP else " (send the signal again to cut them off)"
                text = f"%s: shutting down; sessions to close: %d{hint}"
                _call_in_time(partial(log.info, text, name, count))
            deadline = monotonic() + self._app.config.shutdown_timeout_s + STOP_SLACK_S
            stopper = Thread(target=self._stop_and_tell, args=(stop,), name="wsthreads-stop", daemon=True)
            stopper.start()
            hung_up = False
            while (event := self._next_event(deadline)) is not None:
                if event == signal.SIGHUP:
                    hung_up = True
                elif isinstance(event, int):
                    if not is_second:
                        is_second = True
                        continue
                    restore_signals()
                    self.cut_off()
                    stopper.join(CUT_OFF_TIMEOUT_S)
                    return 128 + event
            while not self._events.empty():  # a signal of this moment
                hung_up |= self._events.get() == signal.SIGHUP
            return 128 + signal.SIGHUP if hung_up and not has_signal else 0

    def _first_event(self) -> int | _Stop | None:
        while True:
            with suppress(Empty):
                return self._events.get(timeout=LOOK_S)

    def _next_event(self, deadline: float) -> int | _Stop | None:
        while True:
            left = max(0.0, deadline - monotonic())
            with suppress(Empty):
                return self._events.get(timeout=min(left, LOOK_S))
            if not left:
                return None

    def _stop_and_tell(self, stop: _Stop) -> None:
        try:
            self.stop(code=stop.code, reason=stop.reason)
        except Exception:
            log.exception("shutdown failed")
        finally:
            self._events.put(None)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(
    app: ServedApp,
    host: str = "127.0.0.1",
    port: int = 5000,
    *,
    ssl_context: ssl.SSLContext | None = None,
) -> int:
    """Serve until a signal comes, and return the exit status: see `Server.run`. Raises the errors of `Server`."""
    return Server(app, host, port, ssl_context=ssl_context).run()


def _call_in_time(write: Callable[[], None]) -> None:
    """Call a function that writes to the log or the output. If nobody reads there, does not wait long."""
    thread = Thread(target=write, name="wsthreads-log", daemon=True)
    thread.start()
    thread.join(LOG_TIMEOUT_S)


class _Stop:
    """Tells `Server.run` to stop, and which close code and reason clients get."""

    def __init__(self, code: int = CloseCode.GOING_AWAY, reason: str = "server shutting down") -> None:
        self.code, self.reason = code, reason


@contextmanager
def _signals_to(put: Callable[[int], None]) -> Iterator[Callable[[], None]]:
    """Pass SIGINT, SIGTERM and SIGHUP to `put` until the block ends, or until the yielded function is called.

    An ignored signal stays ignored: a shell ignores SIGINT for the background commands of a script, and nohup ignores
    SIGHUP. A function that the program has set for SIGHUP stays, too: it may, for example, open log files again. In a
    forked process, the earlier signal handlers are restored.
    """
    before: dict[int, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        put(number)

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    if current_thread() is main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            current = signal.getsignal(number)
            if current is not signal.SIG_IGN and (number != signal.SIGHUP or current is signal.SIG_DFL):
                before[number] = signal.signal(number, handle)
    _in_forks.append(restore)
    try:
        yield restore
    finally:
        _in_forks.remove(restore)
        restore()


#: For each running server, the function that restores the earlier signal handlers.
_in_forks: list[Callable[[], None]] = []


def _restore_signals() -> None:
    while _in_forks:
        _in_forks.pop()()


os.register_at_fork(after_in_child=_restore_signals)


def bind(host: str, port: int) -> socket.socket:
    """Create a listening TCP socket. If the name of the host has IPv4 and IPv6 addresses, uses IPv4.

    Raises `UsageError` with one line of text that names the host, the port and a remedy.
    """
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise UsageError(f"port {port} is out of range: use one from 1 to 65535, or 0 for any free port")
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"cannot listen on {place}: there is no host {host!r}; try 127.0.0.1 or 0.0.0.0") from error
    family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(f"cannot listen on {place}: {_advice(error)}") from error
    return listener


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`. Returns False for every name except localhost."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use; stop the program that uses it, or choose another port (0 for any free port)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user has no right to use this port; choose a port from 1024 upward, and use a proxy for 80 and 443"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; use 127.0.0.1, or 0.0.0.0 for all its addresses"
    return error.strerror or str(error)
