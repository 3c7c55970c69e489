"""HTTP connections for the `fetch` of scripts, by urllib3.

Checks addresses, verifies certificates, and keeps connections.

A host's name is resolved once for a connection. All of its addresses must be permitted, and the connection is made to
one of these. So a name that resolves to another address a moment later has no effect. Proxies that environment
variables name are not used. The certificate authorities are those of OpenSSL; SSL_CERT_FILE and SSL_CERT_DIR can change
them.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from time import monotonic
from typing import Protocol

from wsthreads.hosts import AllowedHosts
from wsthreads.javascript.fetch_requests import FetchFailed, Request
from wsthreads.javascript.http_uploads import PIECE_BYTES, send_in_pieces
from wsthreads.javascript.name_lookups import Addresses, NameLookups

try:
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import DecodeError, HTTPError, IncompleteRead
    from urllib3.response import BaseHTTPResponse
    from urllib3.util.ssl_ import create_urllib3_context

    from wsthreads.javascript.http_responses import MAX_HEAD_BYTES, Response
except ImportError as error:
    raise ImportError("fetch needs urllib3: pip install 'wsthreads[fetch]'") from error

__all__ = ["Connection", "Connections", "failure_of"]


if tuple(map(int, version("urllib3").split(".")[:2])) < (2, 6):  # earlier versions do not limit the decompressed size
    raise ImportError(f"fetch needs urllib3 2.6 or later, not {version('urllib3')}: pip install -U 'wsthreads[fetch]'")

#: How many idle connections are kept in total, how many for one origin, and for how many seconds.
MAX_KEPT = 32
MAX_KEPT_OF_ORIGIN = 8
KEPT_S = 30.0

#: Each wait of a thread may take this many seconds longer than the fetch.
GRACE_S = 1.0

#: The methods whose requests may be sent again, on a new connection, if a kept connection turns out to be closed.
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})

#: The errors of a connection that turns out to be closed. TLS has an error of its own for a failed write.
_LOST = (ConnectionError, ssl.SSLEOFError, http.client.HTTPException, HTTPError)


class Control(Protocol):
    """The part of an exchange that a connection uses. It lets the isolate end a thread's wait for a response."""

    def control(self, end_wait: Callable[[], None]) -> None:
        """Use `end_wait` from now on to end the thread's wait for the host's name, or for the connection.

        `end_wait` never raises.

        Raises `FetchFailed` if the fetch has been ended already.
        """


class Connection:
    """A connection of urllib3 to an origin. Only one thread at a time uses it."""

    def __init__(
        self, request: Request, context: ssl.SSLContext | None, open_socket: Callable[[], socket.socket]
    ) -> None:
        self.origin = request.origin
        self.is_reused = False
        self._has_more = False
        self._early = bytearray()  # bytes that have arrived before the whole body of a request was sent
        self.idle_since = 0.0
        #: A duplicate of the connection's socket. It stays open until `close`.
        self.control: socket.socket | None = None
        if context is None:
            self.http = HTTPConnection(request.host, request.port)
        else:
            self.http = HTTPSConnection(request.host, request.port, ssl_context=context)
        vars(self.http)["_new_conn"] = open_socket  # this replaces a method, which mypy would not allow
        vars(self.http)["response_class"] = partial(Response, self._end, self._early)

    def send(self, request: Request) -> BaseHTTPResponse:
        """Send the request. Blocks until the head of the response has arrived."""
        self.http.timeout = left = _left_s(request)  # the limit for this response, on a kept connection, too
        if self.http.sock is not None:
            self.http.sock.settimeout(left)
        try:
            self._send(request)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as error:
            if self.is_reused and request.method in _IDEMPOTENT:
                raise  # the request is sent again; an answer on this connection may be a 408, because it was idle
            self._has_more = True  # no other request must follow on this connection
            try:  # the server may have answered before it had read the body
                return self.http.getresponse()
            except Exception:
                raise error from None
        response = self.http.getresponse()
        if response.status == HTTPStatus.REQUEST_TIMEOUT and self.is_reused and request.method in _IDEMPOTENT:
            # this lets `Connections` send the request again
            raise ConnectionResetError("the server has closed the idle connection")
        return response

    def _send(self, request: Request) -> None:
        headers, body = dict(request.headers), request.body
        pieces = body if body is not None and len(body) > PIECE_BYTES else b""
        if pieces:
            headers["Content-Length"] = str(len(pieces))
            body = None
        self.http.request(request.method, request.target, body, headers, preload_content=False, decode_content=True)
        ends = monotonic() + _left_s(request)
        if pieces and not send_in_pieces(self.http.sock, pieces, self._early, ends, request.max_bytes):
            self._has_more = True  # no other request must follow on this connection

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent."""
        return bool(self.http.is_connected) and not self._has_more

    def _end(self, has_more: bool) -> None:
        self._has_more |= has_more

    def close(self) -> None:
        control, self.control = self.control, None
        if control is not None:
            _shut_down(control)
            control.close()
        self.http.close()


class Connections:
    """Makes connections, and keeps those that can be used again. Any thread."""

    def __init__(self, allowed: AllowedHosts) -> None:
        self._allowed = allowed
        self._names = NameLookups()
        # Guards the attributes below. A thread that holds this lock does not block, except when it makes the context.
        self._lock = threading.Lock()
        self._kept: list[Connection] = []
        self._context: ssl.SSLContext | None = None
        self._has_ended = False

    def send(self, request: Request, control: Control) -> tuple[Connection, BaseHTTPResponse]:
        """Send a request, and wait for the head of its response. Raises `FetchFailed`."""
        try:
            may_take = True
            while True:
                connection = (self._take(request) if may_take else None) or self._make(request, control)
                try:
                    if connection.control is not None:
                        control.control(partial(_shut_down, connection.control))
                    return connection, connection.send(request)
                except BaseException as error:
                    connection.close()
                    is_lost = isinstance(error, _LOST)
                    if not (is_lost and connection.is_reused and request.method in _IDEMPOTENT):
                        raise
                    may_take = False
        except FetchFailed:
            raise
        except Exception as error:
            raise failure_of(error, has_head=False) from error

    def keep(self, connection: Connection) -> None:
        """Keep a connection whose response has been read, if another request can be sent on it."""
        connection.is_reused = True
        connection.idle_since = now = monotonic()
        with self._lock:
            if self._has_ended:
                closed = [connection]
            else:
                mine = [each for each in self._kept if each.origin == connection.origin]
                closed = [each for each in self._kept if each.idle_since < now - KEPT_S]
                closed += mine[: max(0, len(mine) + 1 - MAX_KEPT_OF_ORIGIN)]
                closed += self._kept[: max(0, len(self._kept) + 1 - MAX_KEPT)]
                self._kept = [each for each in self._kept if each not in closed] + [connection]
        for each in closed:
            each.close()

    def close(self) -> None:
        """Close the kept connections, and keep no more."""
        with self._lock:
            self._has_ended = True
            kept, self._kept = self._kept, []
        for each in kept:
            each.close()

    def _take(self, request: Request) -> Connection | None:
        """The kept connection to this origin that was used last. None if there is none."""
        while True:
            with self._lock:
                found = next((each for each in reversed(self._kept) if each.origin == request.origin), None)
                if found is None:
                    return None
                self._kept.remove(found)
            if found.is_usable and found.idle_since >= monotonic() - KEPT_S:
                return found
            found.close()

    def _make(self, request: Request, control: Control) -> Connection:
        def open_socket() -> socket.socket:
            addresses = self._names.find(request.host, request.port, _left_s(request), control.control)
            opened = _connected(request, self._allowed, addresses, take)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return opened

        def take(duplicate: socket.socket) -> None:
            previous, connection.control = connection.control, duplicate
            if previous is not None:
                previous.close()
            control.control(partial(_shut_down, duplicate))

        connection = Connection(request, self._tls() if request.scheme == "https" else None, open_socket)
        return connection

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = create_urllib3_context()
                self._context.load_default_certs()
            return self._context


def _shut_down(control: socket.socket) -> None:
    with suppress(OSError):
        control.shutdown(socket.SHUT_RDWR)


def _connected(
    request: Request, allowed: AllowedHosts, found: Addresses, take: Callable[[socket.socket], None]
) -> socket.socket:
    """Connect a socket to one of the addresses. `take` gets a duplicate of the socket before it connects."""
    for *_, address in found:
        refusal = allowed.refusal(request.host, request.port, str(address[0]))
        if refusal is not None:
            raise FetchFailed(f"{request.host} is refused: {refusal}" if request.host != address[0] else refusal)
    failure: OSError | None = None
    for place, (family, kind, protocol, _, address) in enumerate(found):
        opened = socket.socket(family, kind, protocol)
        try:
            take(opened.dup())
            opened.settimeout(_left_s(request) / (len(found) - place))
            opened.connect(address)
            opened.settimeout(_left_s(request))
        except OSError as error:
            failure = error
            opened.close()
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise FetchFailed(f"cannot connect to {request.host}:{request.port}: {failure and (failure.strerror or failure)}")


def _left_s(request: Request) -> float:
    """The time limit for a wait, in seconds.

    Usually, the isolate gives up earlier, and tells the script. This limit is for an isolate that hangs.
    """
    return max(0.0, request.expires - monotonic()) + GRACE_S


def failure_of(error: Exception, *, has_head: bool = True) -> FetchFailed:
    """Describe an exception of urllib3, or of a module below it, for the script.

    `has_head`: whether the whole head of the response had arrived.
    """
    cause: BaseException = error
    while cause.args and isinstance(cause.args[-1], BaseException):  # urllib3 wraps exceptions in this way
        cause = cause.args[-1]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return FetchFailed(f"the certificate is not accepted: {cause.verify_message}")
    if any(isinstance(each, (IncompleteRead, http.client.IncompleteRead)) for each in (cause, error)):
        return FetchFailed("the connection was closed before the end of the body")
    if isinstance(cause, http.client.LineTooLong):
        return FetchFailed(f"the response has more than {MAX_HEAD_BYTES} bytes of headers")
    is_lost = isinstance(cause, http.client.RemoteDisconnected)
    if isinstance(cause, (http.client.BadStatusLine, http.client.UnknownProtocol)) and not is_lost:
        return FetchFailed(f"the response does not begin with a status of HTTP/1.1, but with {str(cause)[:100]!r}")
    if isinstance(error, DecodeError):
        return FetchFailed("the body is not in the encoding that content-encoding names")
    if isinstance(cause, ssl.SSLEOFError):
        if not has_head:
            return FetchFailed("the connection failed: it was closed without the end of TLS")
        return FetchFailed("the connection was closed without the end of TLS, so a part of the body may be missing")
    if isinstance(cause, ssl.SSLError):
        return FetchFailed(f"TLS failed: {cause.reason or cause}")
    if isinstance(cause, TimeoutError):
        return FetchFailed("the server did not answer in time")
    return FetchFailed(f"the connection failed: {getattr(cause, 'strerror', None) or cause or type(cause).__name__}")
