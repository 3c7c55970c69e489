"""Hides the differences between Werkzeug's server and gunicorn's gthread: early input, access logs, the end.

Both servers read the request through a buffer, write a response when the application returns, and close the socket
themselves. *Early input* is what the buffer has read after the request. A WebSocket session runs while the server
iterates over the response. At the end of the session, the iteration ends in a way that stops the server from writing.
Otherwise, Werkzeug would write an HTTP response to the WebSocket, and gunicorn would write headers.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, NoReturn

from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import access_context, hide_secrets, log_context

__all__ = [
    "INPUT_KEY",
    "SOCKET_KEY",
    "SessionResponse",
    "call_at_exit",
    "end_socket",
    "gunicorn_worker",
    "has_socket",
    "is_ending",
    "is_replaced",
    "log_upgrade",
    "take_early_input",
]


#: The key of the connection's socket in the environ, for Werkzeug and `wsthreads.django`.
SOCKET_KEY = "werkzeug.socket"

#: The key of that socket's buffered reader in the environ, if ``wsgi.input`` is another object.
INPUT_KEY = "wsthreads.input"


def has_socket(environ: dict[str, Any]) -> bool:
    """Whether the WSGI server gives the application its socket."""
    return SOCKET_KEY in environ or "gunicorn.socket" in environ


def end_socket(environ: dict[str, Any]) -> None:
    """End a connection whose session has failed, because the server would wait for another request over it."""
    with suppress(OSError, AttributeError):  # the socket has ended already, or is a fake of `wsthreads.testing`
        (environ.get("gunicorn.socket") or environ[SOCKET_KEY]).shutdown(socket.SHUT_RDWR)


def take_early_input(environ: dict[str, Any]) -> bytes:
    """Returns the bytes that the server has read after the request. A client may send its first frames that early."""
    if "gunicorn.socket" in environ:
        # In gunicorn, the early input is in the buffer of an Unreader, which is found through `wsgi.input` and its
        # reader.
        unreader = getattr(getattr(environ.get("wsgi.input"), "reader", None), "unreader", None)
        buffer = getattr(unreader, "buf", None)
        if buffer is None:
            return b""
        early = bytes(buffer.getvalue())
        buffer.seek(0)
        buffer.truncate()
        return early
    return _buffered(environ.get(INPUT_KEY) or environ.get("wsgi.input"), environ[SOCKET_KEY])


def _buffered(reader: Any, sock: socket.socket) -> bytes:
    """Returns the buffered bytes of a `socket.makefile("rb")`. Does not wait for more."""
    end = getattr(getattr(reader, "raw", None), "end", None)
    if end is not None:  # only the reader of our own server has this method, which stops the reader
        end()
        return bytes(reader.read(len(reader.peek())))
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        with suppress(OSError, ValueError, AttributeError):
            waiting = len(reader.peek(1))  # reads from the socket once if the buffer is empty
            return bytes(reader.read(waiting)) if waiting else b""
        return b""
    finally:
        sock.settimeout(timeout)


def gunicorn_worker() -> Any | None:
    """Returns this process's gunicorn worker, found as the owner of the handler for SIGTERM, or None."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return worker if hasattr(worker, "alive") and hasattr(getattr(worker, "cfg", None), "threads") else None


def _default_signals() -> None:
    """In a process that a worker's application has forked, restore the default signal handlers.

    In such a process, gunicorn's handlers would only set a flag that nothing reads.
    """
    worker = gunicorn_worker()
    if worker is not None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            if getattr(signal.getsignal(number), "__self__", None) is worker:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


os.register_at_fork(after_in_child=_default_signals)


def is_ending(worker: Any) -> bool:
    """Whether a gunicorn worker is ending, or its master has ended."""
    return not worker.alive or worker.ppid != os.getppid()


def call_at_exit(worker: Any, call: Callable[[], None]) -> None:
    """Let gunicorn call `call` when the worker has ended, before Python waits for the remaining threads.

    The call comes before the ``worker_exit`` of gunicorn's configuration. The call is made only in this process.
    """
    then = worker.cfg.worker_exit

    def worker_exit(arbiter: Any, worker: Any) -> None:
        try:
            call()
        finally:
            then(arbiter, worker)

    worker.cfg.set("worker_exit", worker_exit)


def is_replaced(worker: Any) -> bool:
    """Whether gunicorn will start another worker in place of this one, as far as the worker knows."""
    return bool(getattr(worker, "is_replaced", worker.nr >= worker.max_requests))


def log_upgrade(environ: dict[str, Any]) -> None:
    """Log the response 101 in Werkzeug's format. Werkzeug does not log it, because wsthreads writes the 101."""
    if SOCKET_KEY not in environ:
        return  # gunicorn's access log has a line for the 101
    access_log = get_logger("werkzeug")  # not at import, because a logging configuration may disable loggers
    if not access_log.is_enabled_for(logging.INFO):
        return
    address, method = environ.get("REMOTE_ADDR", "-"), environ.get("REQUEST_METHOD", "-")
    path = _printable(environ.get("REQUEST_URI") or environ.get("PATH_INFO", "-"))
    access_log.info(
        '%s - - [%s] "%s %s %s" 101 -',
        address,
        datetime.now().strftime("%d/%b/%Y %H:%M:%S"),
        method,
        hide_secrets(path),
        environ.get("SERVER_PROTOCOL", "-"),
        extra={**log_context(environ), **access_context(address, method, path, 101)},
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() and c != "\\" else f"\\x{ord(c):02x}" for c in text)


class _LostStatus(str):
    """A status that raises an error when Werkzeug splits it to send it.

    Werkzeug then stops, as after a lost connection.
    """

    def split(self, *_: Any, **__: Any) -> NoReturn:
        raise ConnectionResetError(errno.ECONNRESET, "the WebSocket session is over")


class SessionResponse:
    """A WSGI response whose iteration runs a WebSocket session.

    The server iterates over the response in the connection's thread. The iteration runs `session`, and then raises the
    error for a connection that the client has ended. Both servers ignore this error silently: they write nothing more,
    and close the socket. gunicorn also logs the 101 and counts the connection. If the server never iterates, `abandon`
    is called instead.

    Middleware such as Werkzeug's debugger or Sentry may report that error. So in the debugger, and with gunicorn
    without TLS, the iteration ends normally. The server gets an error later, and ignores it: Werkzeug when it splits
    the status (`_LostStatus`), gunicorn when it writes to the socket, which was shut down before. (With TLS, gunicorn
    would log a different error. Without the debugger, Werkzeug would log a response before the error.)
    """

    def __init__(
        self,
        session: Callable[[], None],
        abandon: Callable[[], None],
        start_response: Any,
        environ: dict[str, Any],
    ) -> None:
        self._session: Callable[[], None] | None = session
        self._abandon = abandon
        self._start_response = start_response
        self._in_debugger = "werkzeug.debug.preserve_context" in environ
        sock = environ.get("gunicorn.socket")  # a fake in `wsthreads.testing`
        is_plain = isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket)
        self._gunicorn_socket: socket.socket | None = sock if is_plain else None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        session = self._session
        if session is not None:
            # The call is only for gunicorn's access log, because `session` sends the 101 itself.
            status = "101 Switching Protocols"
            self._start_response(_LostStatus(status) if self._in_debugger else status, [])
            self._session = None
            session()
        if self._gunicorn_socket is not None:
            with suppress(OSError):  # usually the socket is shut down already
                self._gunicorn_socket.shutdown(socket.SHUT_RDWR)
            raise StopIteration
        if self._in_debugger:
            raise StopIteration
        raise ConnectionResetError(errno.ECONNRESET, "the WebSocket session is over")

    def close(self) -> None:
        """Called by the server at the end in any case (PEP 3333)."""
        if self._session is not None:
            self._session = None
            self._abandon()
