"""Real HTTP servers for `fetch`, which answer exactly what a test says."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Container
from contextlib import suppress
from typing import Any, NamedTuple

from tests.programs import DEADLINE_S

#: Evaluates what a client sends as the body of an async function, and answers with its result or error.
ASKED = """
const AsyncFunction = Object.getPrototypeOf(async () => {}).constructor;
export async function onMessage(session, code) {
  try {
    session.send(JSON.stringify(await new AsyncFunction(code)()) ?? "undefined");
  } catch (error) {
    session.send(`${error.name}: ${error.message}`);
  }
}
"""


class Received(NamedTuple):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


def response(body: bytes = b"", *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """A response whose head has these lines."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


def echo(request: Received) -> bytes:
    told = {**request._asdict(), "body": request.body.decode("latin-1")}
    return response(json.dumps(told).encode(), "Content-Type: application/json")


class Origin:
    """Answers each request with what `routes` has for its path: bytes, or a function of the request and the connection.

    A function returns bytes to send, or None to close the connection.

    A function in `early` is called before the body is read. It also gets the file from which it can read the body.
    """

    def __init__(self, address: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, bytes | Callable[..., bytes | None]] = {"/echo": echo}
        self.early: dict[str, Callable[[Received, socket.socket, Any], bytes | None]] = {}
        self.requests: list[Received] = []
        self.connections = 0
        self.names: list[str | None] = []  # that clients asked for in TLS
        self.closed = threading.Event()  # once a client has closed a connection
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, 0), family=family)
        self.port: int = self._listener.getsockname()[1]
        self._context = context
        if context is not None:
            context.sni_callback = lambda _socket, name, _context: self.names.append(name)
        host = f"[{address}]" if ":" in address else address
        self.host = f"{host}:{self.port}"
        self.url = f"http{'' if context is None else 's'}://{self.host}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Origin:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_all()

    def drop_all(self) -> None:
        """Close all connections."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(OSError):
            if self._context is not None:
                connection.settimeout(DEADLINE_S)
                connection = self._context.wrap_socket(connection, server_side=True)
            connection.settimeout(DEADLINE_S)
            with connection.makefile("rb") as reader:
                while (request := _read(reader, self.early)) is not None:
                    self.requests.append(request)
                    route = self.routes.get(request.target.partition("?")[0], response(status="404 Not Found"))
                    if request.target in self.early:
                        answer = self.early[request.target](request, connection, reader)
                    else:
                        answer = route if isinstance(route, bytes) else _called(route, request, connection)
                    if answer is None:
                        break
                    connection.sendall(answer)
        self.closed.set()
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def _called(route: Callable[..., bytes | None], request: Received, connection: socket.socket) -> bytes | None:
    return route(request) if route is echo else route(request, connection)


def _read(reader: Any, early: Container[str]) -> Received | None:
    first = reader.readline()
    if not first:
        return None
    method, target, _ = first.decode("latin-1").split(" ")
    headers = {}
    while (line := reader.readline().decode("latin-1").rstrip("\r\n")) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = b"" if target in early else reader.read(int(headers.get("content-length", 0)))
    return Received(method, target, headers, body)
