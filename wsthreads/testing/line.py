"""A line: one connection of a test's client. It has the handshake, the WebSocket, and the thread that calls the app."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from io import BytesIO
from threading import Condition, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from wsproto.connection import Connection as Protocol
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage

from wsthreads.errors import CloseCode
from wsthreads.testing.pipe import Pipe

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = ["LINE", "Call", "Line"]

#: The key of the line in the environ of its request. If an application passes on a copy of the environ, the copy has
#: this key, too.
LINE = "wsthreads.testing.line"


@dataclass(frozen=True)
class Call:
    """Where a client connects to, and with which request."""

    app: WSGIApplication
    path: str
    query: Mapping[str, str] | str
    headers: Mapping[str, str]
    subprotocols: tuple[str, ...]
    remote_addr: str


class Line:
    """One connection. The constructor sends the handshake.

    The condition `changed` guards everything, and is notified of each change. `upgraded` is called with the
    subprotocol, and `received` with each message, both while `changed` is held.
    """

    def __init__(
        self,
        call: Call,
        changed: Condition,
        upgraded: Callable[[str | None], None],
        received: Callable[[str | bytes], None],
    ) -> None:
        self._changed, self._call_upgraded, self._call_received = changed, upgraded, received
        self._pipe = Pipe(changed, self._feed)
        self._protocol = Protocol(ConnectionType.CLIENT)
        self._head = b""  # what has arrived of the head of the server's response
        self._parts: list[str | bytes] = []
        #: The status, the text and the headers of a response that is not a 101.
        self.answer = (0, "")
        self.headers: list[tuple[str, str]] = []
        self.is_upgraded = False
        #: Whether the thread of the connection has ended, and which exception it has raised.
        self.is_over = False
        self.crash: BaseException | None = None
        #: The close code and the reason. None while the connection is open.
        self.closed: tuple[int, str] | None = None
        Thread(target=self._serve, args=(call.app, self._environ(call)), name="wsthreads-play", daemon=True).start()

    # For the client

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent."""
        return self.closed is None and self._protocol.state is ConnectionState.OPEN

    @property
    def is_idle(self) -> bool:
        """Whether nothing will happen until the client or the server sends again."""
        return self.is_over or self._pipe.is_idle

    @property
    def moved(self) -> int:
        """A number that grows while something happens on this connection."""
        return self._pipe.moved

    def write(self, message: str | bytes) -> None:
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        self._pipe.put(self._protocol.send(event))

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake."""
        if self.is_open:
            self._pipe.put(self._protocol.send(CloseConnection(code, reason)))

    def vanish(self) -> None:
        """End the connection without a close handshake. Does not wait."""
        self._feed(b"")
        self._pipe.end()

    # The request

    def _environ(self, call: Call) -> dict[str, Any]:
        """Returns the WSGI environ of the request, like that of gunicorn's gthread worker."""
        subprotocols = ", ".join(call.subprotocols)
        fields = {
            "Host": "localhost",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
            **({"Sec-WebSocket-Protocol": subprotocols} if subprotocols else {}),
            **call.headers,
        }
        query = call.query if isinstance(call.query, str) else urlencode(call.query)
        environ: dict[str, Any] = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(call.path).encode().decode("latin-1"),
            "QUERY_STRING": query.encode().decode("latin-1"),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": call.remote_addr,
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            "gunicorn.socket": self._pipe,
            LINE: self,
        }
        environ.update({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in fields.items()})
        return environ

    def _serve(self, app: WSGIApplication, environ: dict[str, Any]) -> None:
        """Call the app like a WSGI server. The connection's thread runs this."""
        body: list[bytes] = []
        status = [0]

        def start_response(line: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Callable[[bytes], Any]:
            status[0], self.headers = int(line.split()[0]), headers
            return body.append

        try:
            response: Iterable[bytes] = app(environ, start_response)
            try:
                body.extend(response)
            except ConnectionResetError:  # the usual end of a session
                pass
            finally:
                if hasattr(response, "close"):
                    response.close()
        except BaseException as error:
            self.crash = error
        finally:
            self._feed(b"")
            with self._changed:
                reason = b"".join(body).decode("utf-8", "replace").strip() or HTTPStatus(status[0] or 500).phrase
                self.answer = (status[0], reason)
                self.is_over = True
                self._changed.notify_all()

    # What the server sends

    def _feed(self, data: bytes) -> None:
        """Take bytes from the server. No bytes mean the end."""
        with self._changed:
            if self.closed is None and self.is_upgraded:
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
        self.is_upgraded = True
        fields = (line.partition(":") for line in head.split("\r\n"))
        chosen = [value.strip() for name, _, value in fields if name.lower() == "sec-websocket-protocol"]
        self._call_upgraded(chosen[0] if chosen else None)

    def _receive(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    empty = "" if isinstance(event, TextMessage) else b""
                    message = empty.join(self._parts)  # type: ignore[arg-type]
                    self._parts.clear()
                    self._call_received(message)
            elif isinstance(event, Ping):
                self._pipe.put(self._protocol.send(event.response()))
            elif isinstance(event, CloseConnection):
                if self._protocol.state is ConnectionState.REMOTE_CLOSING:
                    self._pipe.put(self._protocol.send(event.response()))
                self.closed = (int(event.code), event.reason or "")
