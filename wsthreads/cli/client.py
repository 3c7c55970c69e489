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

from wsthreads.client.failures import MAX_REFUSAL_BYTES, ConnectFailed, connecting, describe_refusal
from wsthreads.client.handshake import make_handshake
from wsthreads.errors import CloseCode
from wsthreads.monitoring.logs import printable

__all__ = ["Client", "ConnectFailed", "describe_close"]

#: The most to read from the socket at once.
RECEIVE_BYTES = 65536

_WORDS = {
    CloseCode.NORMAL: "normal",
    CloseCode.NO_STATUS: "no code given",
    CloseCode.ABNORMAL: "connection lost",
    CloseCode.INTERNAL_ERROR: "the server failed",
}


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
        with connecting(address[0], timeout_s):
            self._sock = _connect(address, secure, timeout_s)
            try:
                self._shake_hands(data, deadline)
                self._sock.settimeout(timeout_s)
                self._early = self._take()
            except BaseException:
                self._sock.close()
                raise

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
        raise ConnectFailed(describe_refusal(refusal, body), refusal.status_code)

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


def _connect(address: tuple[str, int], secure: bool, timeout_s: float) -> socket.socket:
    sock = socket.create_connection(address, timeout_s)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not secure:
        return sock
    try:
        return ssl.create_default_context().wrap_socket(sock, server_hostname=address[0])
    except BaseException:
        sock.close()
        raise
