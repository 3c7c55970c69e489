"""The connection of ``wsthreads connect``, on wsproto."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from time import monotonic

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.utilities import ProtocolError

from wsthreads.cli.handshake import make_handshake, shown
from wsthreads.errors import BackendError, CloseCode
from wsthreads.monitoring.logs import printable

__all__ = ["Client", "ConnectFailed", "describe_close"]

#: The most to read from the socket at once.
RECEIVE_BYTES = 65536

#: The most to read of the answer to a refused handshake, and the most to show of its text.
MAX_REFUSAL_BYTES = 4096
MAX_SHOWN_CHARS = 300

_WORDS = {
    CloseCode.NORMAL: "normal",
    CloseCode.NO_STATUS: "no code given",
    CloseCode.ABNORMAL: "connection lost",
    CloseCode.INTERNAL_ERROR: "the server failed",
}


class ConnectFailed(BackendError):
    """There is no connection to the server, or the server refused the handshake."""


def describe_close(code: int, reason: str = "") -> str:
    """A close code in words.

    >>> describe_close(1009, "2 MiB")
    '1009 message too big: 2 MiB'
    """
    try:
        words = _WORDS.get(CloseCode(code)) or CloseCode(code).name.lower().replace("_", " ")
    except ValueError:
        words = "the application's own" if 4000 <= code <= 4999 else "unknown"
    return f"{code} {words}" + (f": {printable(reason)}" if reason else "")


class Client:
    """A connection to a WebSocket server. Not thread-safe.

    `make_handshake` says what the first four arguments are. Raises `UsageError` if one of them is not valid, and
    `ConnectFailed` if there is no connection within `timeout_s`. A `send` blocks for `timeout_s` at most.
    """

    def __init__(
        self,
        url: str,
        *,
        parameters: Sequence[tuple[str, str]] = (),
        headers: Sequence[tuple[str, str]] = (),
        subprotocols: Sequence[str] = (),
        timeout_s: float = 10.0,
    ) -> None:
        secure, address, request = make_handshake(url, parameters, headers, subprotocols)
        self.subprotocol: str | None = None
        #: Close code and reason, once the connection is over.
        self.closed: tuple[int, str] | None = None
        self._timeout_s = timeout_s
        self._parts: list[str | bytes] = []  # of a message that is not complete
        self._early: list[str | bytes] = []  # messages that came with the answer to the handshake
        self._protocol = WSConnection(ConnectionType.CLIENT)
        data = self._protocol.send(request)
        deadline = monotonic() + timeout_s
        try:
            self._sock = _connect(address, secure, timeout_s)
            try:
                self._shake_hands(data, deadline)
                self._sock.settimeout(timeout_s)
                self._early = self._take()
            except BaseException:
                self._sock.close()
                raise
        except TimeoutError as error:
            raise ConnectFailed(f"no answer within {timeout_s:g} s") from error
        except ssl.SSLCertVerificationError as error:
            advice = "to trust the certificates in FILE, set SSL_CERT_FILE=FILE"
            raise ConnectFailed(f"its certificate is not trusted: {error.verify_message}; {advice}") from error
        except ConnectionRefusedError as error:
            raise ConnectFailed("Connection refused, nothing listens there") from error
        except OSError as error:
            if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
                raise ConnectFailed("the server there does not speak TLS: try ws:// in place of wss://") from error
            raise ConnectFailed(error.strerror or str(error)) from error
        except ProtocolError as error:
            raise ConnectFailed(f"the server there does not speak WebSocket: {error}") from error

    def _shake_hands(self, request: bytes, deadline: float) -> None:
        self._sock.sendall(request)
        refusal: RejectConnection | None = None
        body, complete = b"", False
        while True:
            for event in self._protocol.events():
                if isinstance(event, AcceptConnection):
                    self.subprotocol = event.subprotocol
                    return
                if isinstance(event, RejectConnection):
                    refusal, complete = event, not event.has_body
                elif isinstance(event, RejectData):
                    body, complete = body + event.data, event.body_finished
            if refusal and (complete or len(body) > MAX_REFUSAL_BYTES):
                break
            self._sock.settimeout(max(0.001, deadline - monotonic()))
            data = self._sock.recv(RECEIVE_BYTES)
            if not data:
                break
            self._protocol.receive_data(data)
        if refusal is None:
            advice = "" if isinstance(self._sock, ssl.SSLSocket) else "; if it speaks TLS, try wss:// in place of ws://"
            raise ConnectFailed(f"the server hung up without an answer{advice}")
        raise ConnectFailed(_described(refusal, body))

    def fileno(self) -> int:
        return self._sock.fileno()

    @property
    def pending(self) -> bool:
        """Whether there is input that `select` does not see."""
        if self._early:
            return True
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.fileno() >= 0 and self._sock.pending() > 0

    def receive(self) -> list[str | bytes]:
        """The messages that the next input completes. Waits `timeout_s` at most for input."""
        if self._early:
            messages, self._early = self._early, []
            return messages
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except TimeoutError:
            return []
        except OSError:
            data = b""
        if not data:
            self._end(CloseCode.ABNORMAL)
            return []
        self._protocol.receive_data(data)
        return self._take()

    def _take(self) -> list[str | bytes]:
        """The messages that are complete. Answers pings and the close frame."""
        messages: list[str | bytes] = []
        for event in self._protocol.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    parts, self._parts = self._parts, []
                    messages.append(parts[0][:0].join(parts))  # type: ignore[arg-type]
            elif isinstance(event, Ping):
                self._write(event.response())
            elif isinstance(event, CloseConnection):
                if self._protocol.state is not ConnectionState.CLOSED:
                    self._write(event.response())
                self._end(event.code, event.reason or "")
                break
        return messages

    def send(self, text: str) -> bool:
        """Send a text message. False if the connection is over, or if the server does not read."""
        return self._protocol.state is ConnectionState.OPEN and self._write(TextMessage(data=text))

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the close handshake. `receive` takes the server's answer. A second call does nothing."""
        if self._protocol.state is ConnectionState.OPEN:
            self._write(CloseConnection(code=code, reason=reason))

    def abort(self) -> None:
        """End the connection without a close handshake. A second call does nothing."""
        self._end(CloseCode.ABNORMAL)

    def _write(self, event: Event) -> bool:
        try:
            self._sock.sendall(self._protocol.send(event))
        except OSError:  # receive() will find the end of the connection, and the messages before it
            return False
        return True

    def _end(self, code: int, reason: str = "") -> None:
        if self.closed is None:
            self.closed = int(code), reason
        self._sock.close()


def _described(refusal: RejectConnection, body: bytes) -> str:
    """Why the server refused a handshake, in one line."""
    status = refusal.status_code
    if status < 300:  # a page, such as the dashboard's
        where = "check the path, and that a proxy passes on the header Upgrade"
        return f"the server answered with {status}, as to a request for a page: {where}"
    is_text = any(name == b"content-type" and value.startswith(b"text/plain") for name, value in refusal.headers)
    words = " ".join(body.decode("utf-8", "replace").split()) if is_text else ""
    location = next((value for name, value in refusal.headers if name == b"location"), b"").decode("latin-1")
    description = f"the server refused with {status}"
    if location and status < 400:
        description += f", a redirect to {shown(location):.{MAX_SHOWN_CHARS}}"
    return description + (f": {printable(words[:MAX_SHOWN_CHARS])}" if words else "")


def _connect(address: tuple[str, int], secure: bool, timeout_s: float) -> socket.socket:
    try:
        sock = socket.create_connection(address, timeout_s)
    except (socket.gaierror, ValueError) as error:  # ValueError: not a name for DNS, such as 64 letters without a dot
        raise ConnectFailed(f"there is no host {address[0]:.300}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not secure:
        return sock
    try:
        return ssl.create_default_context().wrap_socket(sock, server_hostname=address[0])
    except BaseException:
        sock.close()
        raise
