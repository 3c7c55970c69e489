"""A server whose every step a test decides: on wsproto, it shares no code with wsthreads."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from queue import SimpleQueue

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from tests.programs import DEADLINE_S

DLE = "\x10"
SPEAKS = "wsthreads.1"


class FakeServer:
    """Accepts connections, which `next` returns in their order. A context manager."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/ws"
        self._peers: SimpleQueue[Peer] = SimpleQueue()
        self._all: list[Peer] = []
        self._thread = threading.Thread(target=self._accept, name="fake-server", daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                peer = Peer(sock)
                self._all.append(peer)
                self._peers.put(peer)

    def next(self, timeout_s: float = DEADLINE_S) -> Peer:
        """The next connection, whose request has been read."""
        peer = self._peers.get(timeout=timeout_s)
        peer.read_request()
        return peer

    def upgraded(self, subprotocol: str | None = SPEAKS) -> Peer:
        """The next connection, upgraded."""
        peer = self.next()
        peer.accept(subprotocol)
        return peer

    def welcomed(self, **welcome: object) -> Peer:
        """The next connection, after hello and welcome. `hello` is what the client has said."""
        peer = self.upgraded()
        peer.hello = json.loads(peer.expect(DLE + "h"))
        peer.welcome(**welcome)
        return peer

    def has_more(self) -> bool:
        return not self._peers.empty()

    def __enter__(self) -> FakeServer:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which a mere close does not
        self._thread.join(DEADLINE_S)
        self._listener.close()
        for peer in self._all:
            peer.cut()


class Peer:
    """One connection, as the server sees it. Every wait has a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.settimeout(DEADLINE_S)
        self._protocol = WSConnection(ConnectionType.SERVER)
        self._parts: list[str | bytes] = []
        self._came: list[str | bytes] = []
        self._held: bytearray | None = None
        self.hello: dict[str, object] = {}
        self.closed: tuple[int, str] | None = None
        self.pings = 0
        self.is_over = False

    def _put(self, data: bytes) -> None:
        if self._held is None:
            self._sock.sendall(data)
        else:
            self._held += data

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is sent meanwhile goes out at once."""
        self._held = bytearray()
        yield
        data, self._held = self._held, None
        self._sock.sendall(data)

    def read_request(self) -> None:
        self.request: Request
        while True:
            for event in self._protocol.events():
                assert isinstance(event, Request)
                self.request = event
                return
            self._protocol.receive_data(self._sock.recv(65536))

    def header(self, name: str) -> str | None:
        found = dict(self.request.extra_headers)
        value = found.get(name.lower().encode())
        return None if value is None else value.decode()

    def accept(self, subprotocol: str | None = SPEAKS, *, compress: bool = False) -> None:
        extensions = [PerMessageDeflate()] if compress else []
        self._put(self._protocol.send(AcceptConnection(subprotocol=subprotocol, extensions=extensions)))

    def refuse(self, status: int, text: str = "", **more: str) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
        headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
        self._put(self._protocol.send(RejectConnection(status_code=status, headers=headers, has_body=True)))
        self._put(self._protocol.send(RejectData(data=text.encode())))
        self._sock.close()

    def welcome(self, resumed: bool = False, token: str | None = "s.1", received: int = 0, **more: object) -> None:
        fields = {"resumed": resumed, "token": token, "received": received, "resumeMs": 60_000, "heartbeatMs": 0,
                  "timeoutMs": 0, "protocol": None, **more}  # fmt: skip
        self.send(DLE + "w" + json.dumps(fields))

    def send(self, *messages: str | bytes) -> None:
        for message in messages:
            event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
            self._put(self._protocol.send(event))

    def send_in_parts(self, *parts: str) -> None:
        for number, part in enumerate(parts, 1):
            self._put(self._protocol.send(TextMessage(part, message_finished=number == len(parts))))

    def ping(self) -> None:
        self._put(self._protocol.send(Ping(b"?")))

    def receive(self) -> str | bytes | None:
        """The next message; None when the client has closed, or TCP has ended. Pings are answered."""
        while not self._came:
            if self.closed is not None or self.is_over:
                return None
            try:
                data = self._sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                self.is_over = True
                return None
            self._protocol.receive_data(data)
            self._take()
        return self._came.pop(0)

    def _take(self) -> None:
        for event in self._protocol.events():
            if isinstance(event, (TextMessage, BytesMessage)):
                self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    self._came.append(self._parts[0][:0].join(self._parts))
                    self._parts = []
            elif isinstance(event, Ping):
                self.pings += 1
                self._put(self._protocol.send(event.response()))
            elif isinstance(event, Pong):
                self._came.append("pong")
            elif isinstance(event, CloseConnection):
                self.closed = (event.code, event.reason or "")
                with contextlib.suppress(Exception):
                    self._put(self._protocol.send(event.response()))

    def take(self, count: int) -> list[str | bytes | None]:
        return [self.receive() for _ in range(count)]

    def expect(self, start: str) -> str:
        """The rest of the next message, which begins with `start`."""
        message = self.receive()
        assert isinstance(message, str)
        assert message.startswith(start), f"{message!r}, not {start!r}…"
        return message[len(start) :]

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._put(self._protocol.send(CloseConnection(code=code, reason=reason)))
        while self.receive() is not None:
            pass
        self._sock.close()

    def cut(self) -> None:
        """RST."""
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()
