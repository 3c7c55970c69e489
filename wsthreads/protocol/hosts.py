"""What the WSGI servers that hand over their socket differ in: input read too far, the access log, the ending.

Werkzeug and gunicorn's gthread read the request through a buffer, write a response when the application returns, and
close the socket themselves. A WebSocket session happens inside the response's iteration, and ends it so that neither
writes anything more (Werkzeug would put an HTTP response onto the WebSocket, gunicorn its headers).
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
    "gunicorn_worker",
    "has_socket",
    "is_ending",
    "is_replaced",
    "log_upgrade",
    "take_early_input",
]


_access_log = get_logger("werkzeug")

#: Where Werkzeug's environ has the connection's socket, and that of `wsthreads.django`, too.
SOCKET_KEY = "werkzeug.socket"

#: Where an environ has the buffered reader of that socket, if that is not its ``wsgi.input``.
INPUT_KEY = "wsthreads.input"


def has_socket(environ: dict[str, Any]) -> bool:
    """Whether the WSGI server is one that hands over its socket."""
    return SOCKET_KEY in environ or "gunicorn.socket" in environ


def take_early_input(environ: dict[str, Any]) -> bytes:
    """What the server has read beyond the request: a client may send its first frames right behind it."""
    if "gunicorn.socket" in environ:
        # gunicorn's Body wraps a reader that wraps the connection's Unreader, whose buffer has the rest.
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
    """What is in the buffer of a `socket.makefile("rb")`, without waiting for more."""
    timeout = sock.gettimeout()
    sock.setblocking(False)
    try:
        with suppress(OSError, ValueError, AttributeError):
            waiting = len(reader.peek(1))  # reads the socket once if the buffer is empty
            return bytes(reader.read(waiting)) if waiting else b""
        return b""
    finally:
        sock.settimeout(timeout)


def gunicorn_worker() -> Any | None:
    """The gunicorn worker whose process this is: gunicorn's handler of SIGTERM is a method of it."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return worker if hasattr(worker, "alive") and hasattr(getattr(worker, "cfg", None), "threads") else None


def _default_signals() -> None:
    """Have a process that a gunicorn worker's application has forked end at signals, as one of its own does.

    gunicorn's own handlers would only set a mark there that nobody looks at.
    """
    worker = gunicorn_worker()
    if worker is not None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            if getattr(signal.getsignal(number), "__self__", None) is worker:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


os.register_at_fork(after_in_child=_default_signals)


def is_ending(worker: Any) -> bool:
    """Whether a gunicorn worker has been told to go, or has lost its master."""
    return not worker.alive or worker.ppid != os.getppid()


def is_replaced(worker: Any) -> bool:
    """Whether another takes the place of a gunicorn worker that ends, as far as it knows."""
    return bool(getattr(worker, "is_replaced", worker.nr >= worker.max_requests))


def log_upgrade(environ: dict[str, Any]) -> None:
    """Werkzeug logs a request when it writes the response's head, which is ours here: log the 101 in its place."""
    if SOCKET_KEY not in environ or not _access_log.is_enabled_for(logging.INFO):
        return  # gunicorn's access log has it
    address, method = environ.get("REMOTE_ADDR", "-"), environ.get("REQUEST_METHOD", "-")
    path = _printable(environ.get("REQUEST_URI") or environ.get("PATH_INFO", "-"))
    _access_log.info(
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
    """A status that ends Werkzeug's answer as a lost connection does, when it is taken apart to be logged and sent."""

    def split(self, *_: Any, **__: Any) -> NoReturn:
        raise ConnectionResetError(errno.ECONNRESET, "the WebSocket session is over")


class SessionResponse:
    """A WSGI response that is a whole WebSocket session.

    The server iterates it in the connection's thread: that runs `session`, and then raises the error of a connection
    that the client has ended, which both servers take in silence: nothing more is written, gunicorn logs the 101 and
    counts the connection, and each closes the socket. `abandon` is called instead if the server never gets so far.

    What is around the application may report that error, as Werkzeug's debugger does, and Sentry. In the debugger, and
    under gunicorn without TLS, the iteration just ends: they meet the same error when they turn to the socket. (With
    TLS, gunicorn would log another one; without its debugger, Werkzeug would log a response before it comes to that.)
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
        sock = environ.get("gunicorn.socket")  # in `wsthreads.testing` not one of the system's
        is_plain = isinstance(sock, socket.socket) and not isinstance(sock, ssl.SSLSocket)
        self._gunicorn_socket: socket.socket | None = sock if is_plain else None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        session = self._session
        if session is not None:
            # For gunicorn's access log only: the 101 is on the wire as soon as the session begins.
            status = "101 Switching Protocols"
            self._start_response(_LostStatus(status) if self._in_debugger else status, [])
            self._session = None
            session()
        if self._gunicorn_socket is not None:
            with suppress(OSError):  # as a rule it is shut already
                self._gunicorn_socket.shutdown(socket.SHUT_RDWR)
            raise StopIteration
        if self._in_debugger:
            raise StopIteration
        raise ConnectionResetError(errno.ECONNRESET, "the WebSocket session is over")

    def close(self) -> None:
        """PEP 3333: called by the server in any case."""
        if self._session is not None:
            self._session = None
            self._abandon()
