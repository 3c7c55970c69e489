"""One connection to a WebSocket server, made from the library wsproto and a socket that never blocks."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
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
from wsproto.extensions import PerMessageDeflate
from wsproto.utilities import LocalProtocolError

from wsthreads.client.failures import MAX_REFUSAL_BYTES, ConnectFailed, connecting, describe_refusal, retry_after_of
from wsthreads.client.handshake import Handshake
from wsthreads.client.waiter import READ, WRITE, Waiter
from wsthreads.errors import CloseCode
from wsthreads.threads import forks

__all__ = ["Abandoned", "Connection"]

#: At most this many bytes are read from the socket at once.
RECEIVE_BYTES = 65536

_BUSY = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Abandoned(Exception):
    """The connection is no longer wanted, because `is_wanted` has returned False."""


class Connection:
    """One connection. Only the constructor waits, because it connects and sends the handshake. Not thread-safe.

    The constructor raises `ConnectFailed`. It calls `is_wanted` each time that the waiter is woken, and raises
    `Abandoned` if `is_wanted` returns False.
    """

    def __init__(
        self,
        handshake: Handshake,
        waiter: Waiter,
        *,
        timeout_s: float,
        is_wanted: Callable[[], bool] = lambda: True,
        ssl_context: ssl.SSLContext | None = None,
        compress: bool = False,
        max_message_bytes: int = 16 * 1024 * 1024,
    ) -> None:
        self._waiter = waiter
        self._is_wanted = is_wanted
        self._deadline = monotonic() + timeout_s
        self._max_message_bytes = max_message_bytes
        #: The subprotocol that the server has chosen, or None.
        self.subprotocol: str | None = None
        #: The close code and the reason. None until the connection is over.
        self.closed: tuple[int, str] | None = None
        self._unsent = bytearray()
        self._parts: list[str | bytes] = []  # the parts of a message that is not complete yet
        self._size = 0  # the size of these parts
        self._protocol = WSConnection(ConnectionType.CLIENT)
        extensions = [PerMessageDeflate()] if compress else []
        data = self._protocol.send(replace(handshake.request, extensions=extensions))
        host, port = handshake.address
        with connecting(host, timeout_s):
            self._sock = self._connect(host, port)
            try:
                if handshake.secure:
                    self._encrypt(ssl_context or ssl.create_default_context(), host)
                self._shake_hands(data)
            except BaseException:
                self._drop()
                raise
        self._early = self._take()  # messages that came together with the response to the handshake

    # Connecting

    def _await(self, events: int) -> None:
        """Wait until the socket is ready for `events`, or the waiter is woken."""
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self._waiter.wait(self._sock, events, left)
        if not self._is_wanted():
            raise Abandoned

    def _connect(self, host: str, port: int) -> socket.socket:
        error: OSError | None = None
        for family, kind, number, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            self._sock = sock = socket.socket(family, kind, number)
            forks.owners.add(self)
            try:
                sock.setblocking(False)
                code = sock.connect_ex(address)
                while code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EALREADY):
                    self._await(WRITE)
                    code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or sock.connect_ex(address)
                if code not in (0, errno.EISCONN):
                    raise OSError(code, os.strerror(code))
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
            except OSError as failure:
                self._drop()
                error = failure
                if isinstance(failure, TimeoutError):
                    break
            except BaseException:
                self._drop()
                raise
        raise error or ConnectFailed(f"there is no address of {host:.300}")

    def _encrypt(self, context: ssl.SSLContext, host: str) -> None:
        self._waiter.forget()
        sock = self._sock = context.wrap_socket(self._sock, server_hostname=host, do_handshake_on_connect=False)
        while True:
            try:
                sock.do_handshake()
                return
            except ssl.SSLWantReadError:
                self._await(READ)
            except ssl.SSLWantWriteError:
                self._await(WRITE)

    def _shake_hands(self, request: bytes) -> None:
        self._unsent += request
        while self._unsent:
            self._write_unsent()
            if self._unsent:
                self._await(WRITE)
        refusal: RejectConnection | None = None
        body, is_complete = b"", False
        while not (refusal and (is_complete or len(body) > MAX_REFUSAL_BYTES)):
            data = self._receive()
            if data is None:
                self._await(READ)
                continue
            if not data:
                break
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                if isinstance(event, AcceptConnection):
                    self.subprotocol = event.subprotocol
                    return
                if isinstance(event, RejectConnection):
                    refusal, is_complete = event, not event.has_body
                elif isinstance(event, RejectData):
                    body, is_complete = body + event.data, event.body_finished
        if refusal is None:
            advice = "" if isinstance(self._sock, ssl.SSLSocket) else "; if it speaks TLS, try wss:// in place of ws://"
            raise ConnectFailed("the server closed the connection without an answer", advice=advice)
        wait_s = retry_after_of(refusal)
        raise ConnectFailed(describe_refusal(refusal, body), refusal.status_code, retry_after_s=wait_s)

    def give_up_connections(self, dead_fd: int) -> None:
        """Replace the socket in a forked process, because the connection is the parent's.

        The new one has no other end.
        """
        descriptor = self._sock.fileno()
        if descriptor >= 0:
            os.dup2(dead_fd, descriptor, inheritable=False)

    @property
    def is_over(self) -> bool:
        return self.closed is not None

    # Receiving

    @property
    def has_input(self) -> bool:
        """Whether there is buffered input, which `wait` does not see."""
        if self._early:
            return True
        return isinstance(self._sock, ssl.SSLSocket) and self.closed is None and self._sock.pending() > 0

    def fileno(self) -> int:
        return self._sock.fileno()

    def wait(self, events: int, timeout_s: float | None) -> int:
        """Wait for the socket, or until the waiter is woken. Returns the events that the socket is ready for."""
        return self._waiter.wait(self._sock, events, timeout_s)

    def read(self) -> tuple[list[str | bytes], bool]:
        """Returns the messages that the next input completes, and whether there was input. Sets `closed` at the end."""
        if self._early:
            messages, self._early = self._early, []
            return messages, True
        if self.closed is not None:
            return [], False
        data = self._receive()
        if data is None:
            return [], False
        if not data:
            self._end(CloseCode.ABNORMAL, "")
            return [], False
        self._protocol.receive_data(data)
        return self._take(), True

    def _receive(self) -> bytes | None:
        """Returns new input: None if there is none yet, empty at the end of the stream."""
        try:
            return self._sock.recv(RECEIVE_BYTES)
        except _BUSY:
            return None
        except ssl.SSLError:
            return b""
        except ConnectionError:
            return b""
        except OSError as error:  # such as ETIMEDOUT, EHOSTUNREACH
            if self._protocol.state is ConnectionState.CONNECTING:
                raise
            del error
            return b""

    def _take(self) -> list[str | bytes]:
        """Returns the messages that are complete. Answers pings and the close frame."""
        messages: list[str | bytes] = []
        for event in self._protocol.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._size += len(event.data)
                if self._size > self._max_message_bytes:
                    self.fail(CloseCode.MESSAGE_TOO_BIG, f"a message has more than {self._max_message_bytes} bytes")
                    break
                self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    parts, self._parts, self._size = self._parts, [], 0
                    messages.append(parts[0] if len(parts) == 1 else parts[0][:0].join(parts))  # type: ignore[arg-type]
            elif isinstance(event, Ping):
                self._put(event.response())
            elif isinstance(event, CloseConnection):
                if self._protocol.state is not ConnectionState.CLOSED:
                    self._put(event.response())
                self.flush()
                self._end(event.code, event.reason or "")
                break
        return messages

    # Sending

    @property
    def unsent_bytes(self) -> int:
        return len(self._unsent)

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.closed is None and self._protocol.state is ConnectionState.OPEN

    def write(self, message: str | bytes) -> None:
        """Let the next `flush` send a message."""
        self._put(TextMessage(message) if isinstance(message, str) else BytesMessage(message))

    def ping(self) -> None:
        """Let the next `flush` send a ping, which the server answers with a pong."""
        self._put(Ping())

    def close(self, code: int, reason: str) -> None:
        """Let the next `flush` begin the close handshake. The server's answer sets `closed`."""
        if self.is_open:
            self._put(CloseConnection(code=code, reason=reason))

    def flush(self) -> None:
        """Send as many bytes as the operating system takes. `unsent_bytes` is the rest."""
        try:
            self._write_unsent()
        except OSError:  # `read` will return the messages before the end of the connection, and then find the end
            self._unsent.clear()

    def fail(self, code: int, reason: str) -> None:
        """End the connection. Before this, send a close frame if the operating system takes it at once."""
        self.close(code, reason)
        self.flush()
        self._end(code, reason)

    def abort(self, reason: str = "") -> None:
        """End the connection. Does nothing if it has ended already."""
        self._end(CloseCode.ABNORMAL, reason)

    def _put(self, event: Event) -> None:
        with suppress(LocalProtocolError):  # the close frame was sent before
            self._unsent += self._protocol.send(event)

    def _write_unsent(self) -> None:
        while self._unsent:
            try:
                sent = self._sock.send(self._unsent)
            except _BUSY:
                return
            del self._unsent[:sent]

    def _end(self, code: int, reason: str) -> None:
        if self.closed is None:
            self.closed = int(code), reason
            self._drop()

    def _drop(self) -> None:
        self._waiter.forget()
        self._sock.close()
