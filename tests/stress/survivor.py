"""A client's side of ``wsthreads.1`` over one `WebSocket` after another. It shares no code with wsthreads.

`Survivor` has the methods of `WebSocket`, and those that lose the connection. Whenever the connection is gone, it comes
back, and raises `Wrong` unless the session is resumed with all counts right. It asks, and answers the handler's
requests: each has one reply or failure, the right one.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import Random
from time import monotonic, sleep
from typing import Any

from tests.stress.client import Lost, WebSocket
from tests.stress.history import SCALE, Wrong

SUBPROTOCOL = "wsthreads.1"
DLE = b"\x10"
ACK_MESSAGES, ACK_BYTES = 1024, 65536
RETRY_S = 0.02

#: How long a server may take to welcome.
WELCOME_S = 20.0 * SCALE

RESUME, REQUESTS = "resume", "requests"

#: A reply of either side: its letter, its data, whether that is binary. See the protocol.
Reply = tuple[str, bytes, bool]


class Survivor:
    """`make` connects. `excuses` says whether a handshake that began at a time may have failed now."""

    def __init__(self, make: Callable[[], WebSocket], rng: Random, excuses: Callable[[float], bool]) -> None:
        self._make, self._rng, self._excuses = make, rng, excuses
        self._socket = make()
        self._half_open: list[WebSocket] = []  # connections that the server cannot know to be lost
        self._token: str | None = None
        self._received = self._acknowledged_at = self._bytes = 0
        self._kept: deque[tuple[bytes, bool]] = deque()  # sent, and not acknowledged
        self._taken = 0  # by the server
        self._early: list[tuple[bytes, bool]] = []
        self._asked = self._heard = 0  # the ids of the last requests of both sides
        self._replies: deque[tuple[bytes, bool]] = deque()  # to requests of the handler, not sent yet
        #: The replies that are still to come, by the id of the request.
        self.unanswered: dict[int, Reply] = {}
        #: What to reply to a request of the handler.
        self.answer: Callable[[bytes, bool], Reply] = lambda payload, binary: ("n", b"", False)
        self.resumes = 0

    # The handshake.

    def send_request(self, share: float = 1.0) -> None:
        self._socket.send_request(share)

    def read_response(self) -> None:
        self._socket.read_response()
        self._greet()

    def _greet(self) -> None:
        """Hello and welcome. Raises `Lost`, `Wrong`."""
        resume = {"resume": {"token": self._token, "received": self._received}} if self._token else {}
        self._socket.send(DLE + b"h" + json.dumps(resume).encode(), False)
        deadline = monotonic() + WELCOME_S
        messages: list[tuple[bytes, bool]] = []
        while not messages:
            if monotonic() > deadline:
                raise Wrong(RESUME, f"no welcome within {WELCOME_S:g} s")
            messages = self._socket.receive(deadline - monotonic())
            if self._socket.close_code is not None:
                return  # `receive` tells
        (first, binary), *rest = messages
        if binary or not first.startswith(DLE + b"w"):
            raise Wrong(RESUME, f"the first message is {first[:60]!r}")
        welcome: dict[str, Any] = json.loads(first[2:])
        if welcome["resumed"] is not bool(self._token):
            raise Wrong(RESUME, f"the welcome says { ({**welcome, 'token': '…'}) }")
        self._trim(welcome["received"])
        self._token = welcome["token"]
        self._acknowledged_at, self._bytes = self._received, 0
        for message in self._kept:
            self._socket.send(*message)
        self._early += self._counted(rest)

    def _come_back(self) -> None:
        """Connect until it works."""
        if self._socket not in self._half_open:
            self._socket.drop()
        while True:
            began = monotonic()
            try:
                self._socket = self._make()
                self._socket.send_request()
                self._socket.read_response()
                self._greet()
            except Wrong as wrong:
                self._socket.drop()
                if wrong.check != "handshake" or not self._excuses(began):
                    raise
                sleep(RETRY_S)
            except (Lost, OSError):  # cut again
                self._socket.drop()
                sleep(RETRY_S)
            else:
                break
        self.resumes += 1
        for sock in self._half_open:  # the server has replaced it
            sock.drop()
        self._half_open.clear()

    # Losing it.

    def lose(self, kind: str, away_s: float) -> None:
        """Lose the connection, stay away, and come back."""
        sock = self._socket
        with suppress(Lost):
            if kind == "reset":
                sock.reset()
            elif kind == "reset within a frame":
                sock.send_part_of_frame()
                sock.reset()
            elif kind == "reset within a message":
                sock.send_part_of_message()
                sock.reset()
            elif kind == "vanished":
                sock.half_close()
            elif kind == "went away":
                sock.send_close(1001)
            else:
                self._half_open.append(sock)
        sleep(away_s)
        self._come_back()

    KINDS = ("reset", "reset within a frame", "reset within a message", "vanished", "went away", "half open")

    # Sending.

    def send(self, payload: bytes, binary: bool) -> None:
        self._post(DLE + payload if payload.startswith(DLE) else payload, binary)

    def ask(self, payload: bytes, binary: bool, expected: Reply) -> None:
        """Send a request, which must have this reply."""
        self._asked += 1
        self.unanswered[self._asked] = expected
        self._post(DLE + b"q%d:" % self._asked + payload, binary)

    def _post(self, payload: bytes, binary: bool) -> None:
        message = (payload, binary)
        self._kept.append(message)
        try:
            self._socket.send(*message)
            if self._rng.random() < 0.02:
                self._heartbeat()
        except Lost:
            self._come_back()

    def _heartbeat(self) -> None:
        self._acknowledged_at, self._bytes = self._received, 0
        self._socket.send(DLE + b"p" + str(self._received).encode(), False)

    # Receiving.

    def receive(self, timeout_s: float, size: int = 65536) -> list[tuple[bytes, bool]]:
        if self._early:
            messages, self._early = self._early, []
        else:
            messages = self._receive(timeout_s, size)
        while self._replies and not self._socket.close_sent and self._socket.close_code is None:
            self._post(*self._replies.popleft())
        return messages

    def _receive(self, timeout_s: float, size: int) -> list[tuple[bytes, bool]]:
        messages: list[tuple[bytes, bool]] = []
        try:
            messages = self._counted(self._socket.receive(timeout_s, size))
            if self._received - self._acknowledged_at >= ACK_MESSAGES or self._bytes >= ACK_BYTES:
                self._acknowledged_at, self._bytes = self._received, 0
                if not self._socket.close_sent:
                    self._socket.send(DLE + b"a" + str(self._received).encode(), False)
        except Lost:
            if self._socket.close_code is not None or self._socket.close_sent:
                raise
            self._come_back()
        return messages

    def _counted(self, messages: list[tuple[bytes, bool]]) -> list[tuple[bytes, bool]]:
        found = []
        for payload, binary in messages:
            if payload[:1] != DLE:
                pass
            elif payload[:2] == DLE + DLE:
                payload = payload[1:]
            elif payload[:2] == DLE + b"a" and not binary:
                self._trim(int(payload[2:]))
                continue
            elif payload[1:2] in (b"q", b"r", b"n", b"e"):
                self._received += 1
                self._bytes += len(payload)
                number, _, data = payload[2:].partition(b":")
                self._take(payload[1:2].decode(), int(number), data, binary, found)
                continue
            else:
                raise Wrong(RESUME, f"the server sent {payload[:60]!r}")
            self._received += 1
            self._bytes += len(payload)
            found.append((payload, binary))
        return found

    def _take(self, letter: str, number: int, data: bytes, binary: bool, found: list[tuple[bytes, bool]]) -> None:
        """A request of the handler, which is among the messages that are found, or what one of this side has led to."""
        if letter != "q":
            expected, reply = self.unanswered.pop(number, None), (letter, data, binary)
            if reply != expected:
                raise Wrong(REQUESTS, f"request {number} had the reply {reply!r:.100}, not {expected!r:.100}")
            return
        if number != self._heard + 1:
            raise Wrong(REQUESTS, f"the handler's request {number} came after {self._heard}")
        self._heard = number
        kind, text, is_binary = self.answer(data, binary)
        head = DLE + kind.encode() + str(number).encode()
        self._replies.append((head if kind == "n" else head + b":" + text, is_binary))
        found.append((data, binary))

    def _trim(self, count: int) -> None:
        if not self._taken <= count <= self._taken + len(self._kept):
            raise Wrong(
                RESUME, f"the server took {count} messages, not {self._taken} to {self._taken + len(self._kept)}"
            )
        for _ in range(count - self._taken):
            self._kept.popleft()
        self._taken = count

    # As of `WebSocket`.

    @property
    def close_code(self) -> int | None:
        return self._socket.close_code

    @property
    def close_sent(self) -> bool:
        return self._socket.close_sent

    @property
    def pings_open(self) -> int:
        return self._socket.pings_open

    @property
    def pings_received(self) -> int:
        return self._socket.pings_received

    def ping(self) -> None:
        self._socket.ping()

    def send_close(self, code: int, reason: bytes = b"") -> None:
        self._socket.send_close(code, reason)

    def send_part_of_frame(self) -> None:
        self._socket.send_part_of_frame()

    def send_part_of_message(self) -> None:
        self._socket.send_part_of_message()

    def half_close(self) -> None:
        self._socket.half_close()

    def finish(self, timeout_s: float) -> None:
        self._socket.finish(timeout_s)

    def reset(self) -> None:
        self._socket.reset()

    def drop(self) -> None:
        for sock in (self._socket, *self._half_open):
            sock.drop()
