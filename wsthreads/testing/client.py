"""A client for tests: speaks the WebSocket protocol over a `Pipe`, and keeps all messages that it receives."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from io import BytesIO
from threading import Condition, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from wsthreads.errors import CloseCode, HandshakeRefused, MessageTypeError
from wsthreads.testing.pipe import Pipe

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from wsthreads.sessions.session import Session

__all__ = ["Client"]

#: The key of the client in the environ of its request. A WSGI application may pass a copy of the environ on.
CLIENT = "wsthreads.testing.client"


class Client:
    """One client, as `Play.connect` returns it. When a method returns, all its effects have happened.

    If the handler throws meanwhile, the method raises that exception. Every wait raises `TimeoutError` after the
    `Play`'s deadline.
    """

    def __init__(self, settle: Callable[[], None], deadline_s: float) -> None:
        self._settle = settle
        self._deadline_s = deadline_s
        self._changed = Condition()  # guards everything below; nothing is called under it
        self._pipe = Pipe(self._changed, self._feed)
        self._protocol = Protocol(ConnectionType.CLIENT)
        self._head = b""  # of the server's response, until it is complete
        self._parts: list[str | bytes] = []
        self._taken = 0
        self._answer = (0, "")
        self._headers: list[tuple[str, str]] = []
        self._upgraded = False
        self._over = False
        self._crash: BaseException | None = None
        self._session: Session | None = None
        #: All messages so far: text as str, binary as bytes.
        self.received: list[str | bytes] = []
        #: The close code and the reason, as a browser reports them, or None while the connection is open. The code is
        #: 1006 for a lost connection, and 1005 for a close without a code.
        self.closed: tuple[int, str] | None = None
        #: The negotiated subprotocol, or None.
        self.subprotocol: str | None = None

    # For tests.

    def send(self, message: str | bytes) -> None:
        """Send text (a str) or binary (bytes). Raises `ConnectionError` if the connection is closed."""
        if not isinstance(message, (str, bytes)):
            raise MessageTypeError(f"a message is text or bytes, not {type(message).__name__}; try json.dumps")
        with self._changed:
            if self.closed is not None or self._protocol.state is not ConnectionState.OPEN:
                raise ConnectionError(f"this client cannot send, it is closed: {self.closed or 'it has closed itself'}")
            event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
            self._pipe.put(self._protocol.send(event))
        self._settle()

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Close the connection with a close handshake. Does nothing if it is already closed."""
        with self._changed:
            if self.closed is None and self._protocol.state is ConnectionState.OPEN:
                self._pipe.put(self._protocol.send(CloseConnection(code, reason)))
        self._settle()

    def lose(self) -> None:
        """Lose the connection without a close handshake. The handler gets 1006."""
        self.vanish()
        self._settle()

    def receive(self, timeout_s: float | None = None) -> str | bytes:
        """The next message that neither this method nor `take` has returned. Waits for it, at most `timeout_s`.

        Use it for messages that timers of a script or threads of a handler send later.
        """
        timeout_s = self._deadline_s if timeout_s is None else timeout_s
        self._settle()
        with self._changed:
            has_come = self._changed.wait_for(lambda: self._taken < len(self.received) or self.closed, timeout_s)
        if not has_come:
            self._settle()  # raises the handler's exception instead, if there is one
            raise TimeoutError(f"no message was received in {timeout_s:g} s")
        with self._changed:
            if self._taken == len(self.received):
                raise ConnectionError(f"no message will come, the connection is closed: {self.closed}")
            self._taken += 1
            return self.received[self._taken - 1]

    def take(self) -> list[str | bytes]:
        """All messages that neither this method nor `receive` has returned."""
        self._settle()
        with self._changed:
            taken, self._taken = self._taken, len(self.received)
            return self.received[taken:]

    def take_json(self) -> list[Any]:
        """`take`, each message parsed as JSON."""
        return [json.loads(message) for message in self.take()]

    def wait_closed(self, timeout_s: float | None = None) -> tuple[int, str]:
        """Wait for the end of the connection, at most `timeout_s`. Returns the close code and the reason."""
        timeout_s = self._deadline_s if timeout_s is None else timeout_s
        with self._changed:
            if not self._changed.wait_for(lambda: self.closed is not None, timeout_s):
                raise TimeoutError(f"the connection was not closed in {timeout_s:g} s")
        self._settle()
        assert self.closed is not None
        return self.closed

    @property
    def is_open(self) -> bool:
        return self.closed is None

    @property
    def session(self) -> Session:
        """The session of this client: its id, its rooms, and the attributes that a Python handler sets."""
        if self._session is None:
            raise ConnectionError(f"this client has no session: it was closed at once, {self.closed}")
        return self._session

    def __repr__(self) -> str:
        return f"<Client {self.closed or 'open'}, {len(self.received)} messages>"

    # For `Play`.

    def begin(
        self,
        app: WSGIApplication,
        path: str,
        query: Mapping[str, str] | str,
        headers: Mapping[str, str],
        subprotocols: Iterable[str],
        remote_addr: str,
    ) -> None:
        """Send the handshake. `finish_handshake` waits for the response."""
        self._environ = self._request(path, query, headers, ", ".join(subprotocols), remote_addr)
        Thread(target=self._serve, args=(app, self._environ), name="wsthreads-play", daemon=True).start()

    def vanish(self) -> None:
        """Like `lose`, but does not wait."""
        self._feed(b"")
        self._pipe.end()

    def finish_handshake(self) -> None:
        """Wait for the response. Raises `HandshakeRefused` with its status and text unless it is a 101."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._upgraded or self._over, self._deadline_s):
                raise TimeoutError(f"the handshake was not answered in {self._deadline_s:g} s")
            if self._crash is not None:
                raise self._crash
            if not self._upgraded:
                raise HandshakeRefused(*self._answer, self._headers)

    def meet(self, sessions: Iterable[Session]) -> None:
        """Find this client's session."""
        self._session = next((session for session in sessions if session.request.environ.get(CLIENT) is self), None)

    @property
    def is_idle(self) -> bool:
        """Whether the connection is quiet until one side sends again."""
        return self._over or self._pipe.is_idle

    @property
    def is_over(self) -> bool:
        """Whether the connection's thread has ended."""
        return self._over

    @property
    def moved(self) -> int:
        """Grows while something happens on the connection."""
        return self._pipe.moved

    def wait_idle(self, deadline: float) -> None:
        """Wait until the server's thread of this connection waits for input or has ended."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.is_idle, max(0.0, deadline - monotonic())):
                raise TimeoutError(f"a call of the handler for {self!r} has not returned in {self._deadline_s:g} s")

    def _request(
        self, path: str, query: Mapping[str, str] | str, headers: Mapping[str, str], subprotocols: str, remote_addr: str
    ) -> dict[str, Any]:
        """The WSGI environ of the request, like that of gunicorn's gthread worker."""
        fields = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            **({"Sec-WebSocket-Protocol": subprotocols} if subprotocols else {}),
            **headers,
        }
        query = query if isinstance(query, str) else urlencode(query)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(path).encode().decode("latin-1"),
            "QUERY_STRING": query.encode().decode("latin-1"),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": remote_addr,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "gunicorn.socket": self._pipe,
            CLIENT: self,
        }
        environ.update({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()})
        return environ

    def _serve(self, app: WSGIApplication, environ: dict[str, Any]) -> None:
        """The connection's thread: calls the app like a WSGI server."""
        body: list[bytes] = []
        status = [0]

        def start_response(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            status[0], self._headers = int(line.split()[0]), headers
            return body.append

        try:
            response = app(environ, start_response)
            try:
                body.extend(response)
            except ConnectionResetError:  # how a session ends
                pass
            finally:
                if hasattr(response, "close"):
                    response.close()
        except BaseException as error:
            self._crash = error
        finally:
            self._feed(b"")
            with self._changed:
                reason = b"".join(body).decode("utf-8", "replace").strip() or HTTPStatus(status[0] or 500).phrase
                self._answer = (status[0], reason)
                self._over = True
                self._changed.notify_all()

    def _feed(self, data: bytes) -> None:
        """Receive bytes from the server; empty at the end."""
        with self._changed:
            if self.closed is None and self._upgraded:
                if data:
                    self._receive(data)
                else:
                    self.closed = (int(CloseCode.ABNORMAL), "")
            elif self.closed is None:
                self._head += data
                head, end, rest = self._head.partition(b"\r\n\r\n")
                if end:
                    self._accept(head.decode("latin-1"))
                    self._receive(rest)
            self._changed.notify_all()

    def _accept(self, head: str) -> None:
        self._upgraded = True
        for line in head.split("\r\n"):
            name, _, value = line.partition(":")
            if name.lower() == "sec-websocket-protocol":
                self.subprotocol = value.strip()

    def _receive(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    empty = "" if isinstance(event, TextMessage) else b""
                    self.received.append(empty.join(self._parts))  # type: ignore[arg-type]
                    self._parts.clear()
            elif isinstance(event, Ping):
                self._pipe.put(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                    self._pipe.put(self._protocol.send(event.response()))
                self.closed = (int(event.code), event.reason or "")
