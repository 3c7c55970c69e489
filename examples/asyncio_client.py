"""An asyncio client of the protocol ``wsthreads.1``: its session survives lost connections. Needs ``websockets``.

    async with Client("ws://127.0.0.1:5000/ws/chat?user=ann") as client:
        client.send("hello")                      # exactly once, also through a lost connection
        print(await client.receive())
        print(await client.request("time?"))

docs/how-to/asyncio-client.rst explains this file; docs/reference/protocol.rst has the protocol's rules.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

Message = str | bytes

DLE = "\x10"
#: After one of these close codes, the client comes back. 1006 is a connection that was lost without a close frame.
COME_BACK = {1001, 1005, 1006, 1011, 1012, 1013}
CONNECT_TIMEOUT_S = 10.0
WINDOW_BYTES = 786_432  # the client writes no more while so many are unacknowledged; each message counts 100 more
CONFIRM_S = 5.0  # a message of either side that is unacknowledged for so long causes a heartbeat

#: What a server sends after the welcome: an acknowledgement, a reply without data, or one with data.
CONTROLS = (
    re.compile(r"\x10(a)(0|[1-9][0-9]{0,15})"),
    re.compile(r"\x10(n)([1-9][0-9]{0,15})"),
    re.compile(r"\x10([qre])([1-9][0-9]{0,15}):(.*)", re.DOTALL),
)
BINARY_CONTROL = re.compile(rb"\x10([qr])([1-9][0-9]{0,15}):(.*)", re.DOTALL)


class Closed(Exception):
    """The session has ended, with this close code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}")
        self.code, self.reason = code, reason


class RequestFailed(Exception):
    """The server has answered a request with an error, or the session has ended.

    Raise it in `on_request` to refuse a request.
    """


class BrokenProtocol(Exception):
    """The server has sent something that the protocol does not allow."""


class Client:
    """A session that survives lost connections. `on_request` answers the server's requests."""

    def __init__(
        self,
        url: str | Callable[[], str],
        subprotocols: list[str] | None = None,
        on_request: Callable[[Message], Awaitable[Message | None]] | None = None,
        on_open: Callable[[int], None] = lambda lost: None,
    ) -> None:
        self._url = url if callable(url) else lambda: url
        self._offers = [Subprotocol(name) for name in ("wsthreads.1", *(subprotocols or []))]
        self._on_request = on_request
        self._on_open = on_open  # called for each new session, with the number of messages that may be lost
        self._inbox: asyncio.Queue[Message | Closed] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self.welcome: dict[str, Any] = {}
        self._to_write = asyncio.Event()
        self._begin_session()

    def _begin_session(self) -> None:
        self._session = object()
        self._has_begun = False
        self._token: str | None = None
        self._kept: deque[Message] = deque()  # messages without an acknowledgement, written or not
        self._received = 0  # counted messages from the server
        self._acknowledged = 0  # how many of our messages the server has acknowledged
        self._written = 0  # how many of _kept were written, on any connection
        self._under_way = 0  # the bytes of unacknowledged messages that were written on this connection
        self._asked = self._asked_by_server = 0  # the last id of a request
        self._pending: dict[int, asyncio.Future[Message | None]] = {}

    async def __aenter__(self) -> Client:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await end(self._running)

    # What the application calls

    def send(self, message: Message) -> None:
        """The message waits while there is no connection. An application should limit how many messages wait."""
        self._keep(escaped(message))

    async def receive(self) -> Message:
        message = await self._inbox.get()
        if isinstance(message, Closed):
            self._inbox.put_nowait(message)
            raise message
        return message

    async def request(self, message: Message, timeout_s: float = 10.0) -> Message | None:
        self._asked += 1
        number, pending = self._asked, self._pending
        answer = pending[number] = asyncio.get_running_loop().create_future()
        self._keep(control("q", number, message))
        try:
            return await asyncio.wait_for(answer, timeout_s)
        finally:
            del pending[number]  # a later reply is ignored

    def _keep(self, message: Message) -> None:
        self._kept.append(message)
        self._to_write.set()

    # The connections

    async def _run(self) -> None:
        """One connection after the other, until the client no longer reconnects."""
        delay_s, code, reason = 0.0, 1000, ""
        try:
            while True:
                await asyncio.sleep(delay_s * random.uniform(0.5, 1))
                delay_s = min(max(1.0, 2 * delay_s), 30.0)
                code, reason = 1006, ""
                try:
                    # No pings of the library: after a missed pong it would close with 1011, which would end the
                    # session.
                    options: dict[str, Any] = {"max_size": None, "ping_interval": None}
                    async with connect(self._url(), subprotocols=self._offers, **options) as socket:
                        try:
                            await asyncio.wait_for(self._greet(socket), CONNECT_TIMEOUT_S)
                            delay_s = 0.0
                            await self._speak(socket)
                        except BrokenProtocol as error:
                            self._token = None
                            await socket.close(1002, str(error)[:100])
                        except asyncio.CancelledError:
                            await socket.close()  # with 1000; else this library would close with 1011
                            raise
                        except asyncio.TimeoutError:
                            socket.transport.abort()  # the connection is dead; a close frame would end the session
                except ConnectionClosed as closed:
                    if closed.rcvd is not None:
                        code, reason = closed.rcvd.code, closed.rcvd.reason
                except (OSError, InvalidHandshake, asyncio.TimeoutError):
                    pass  # the server is not reached, or refuses: the token stays valid
                if code not in COME_BACK:
                    return
        finally:
            self._inbox.put_nowait(Closed(code, reason))
            self._fail_requests(Closed(code, reason))

    async def _greet(self, socket: ClientConnection) -> None:
        """The hello and the welcome. From the hello on, no older connection may be read; here, the older one has
        ended."""
        if socket.subprotocol != "wsthreads.1":
            raise BrokenProtocol("the server does not speak wsthreads.1")
        hello = {} if self._token is None else {"resume": {"token": self._token, "received": self._received}}
        await socket.send(DLE + "h" + json.dumps(hello))
        self.welcome = welcome_of(await socket.recv())
        if not self.welcome["resumed"]:
            self._on_open(self._end_session() if self._has_begun else 0)
            self._has_begun = True
        self._token = self.welcome["token"]
        self._forget(self.welcome["received"])

    def _end_session(self) -> int:
        """Begin another session. Returns how many messages may be lost."""
        self._fail_requests(RequestFailed("the session has ended"))
        kept, written = [*self._kept], self._written
        self._begin_session()
        # A message that was written may have been handled, so it is not sent again. The others go to the new session.
        self._kept.extend(message for message in kept[written:] if not is_control(message))
        return sum(not is_control(message) for message in kept[:written])

    def _fail_requests(self, error: Exception) -> None:
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(error)

    def _forget(self, count: int) -> None:
        """The server has `count` of our messages."""
        if not self._acknowledged <= count <= self._acknowledged + self._written:
            raise BrokenProtocol(f"{count} messages acknowledged, not {self._acknowledged} and {self._written}")
        for _ in range(count - self._acknowledged):
            self._under_way -= weight(self._kept.popleft())
            self._written -= 1
        self._acknowledged = count
        self._to_write.set()

    async def _speak(self, socket: ClientConnection) -> None:
        """Read and write until the connection is lost."""
        self._heard_at = asyncio.get_running_loop().time()
        tasks = [asyncio.create_task(self._write(socket)), asyncio.create_task(self._read(socket))]
        if self.welcome["heartbeatMs"]:
            tasks.append(asyncio.create_task(self._beat(socket)))
        if self._token is not None:
            tasks.append(asyncio.create_task(self._confirm(socket)))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await end(*tasks)

    async def _write(self, socket: ClientConnection) -> None:
        """Write all messages without an acknowledgement, then new ones."""
        first = self._acknowledged  # how many messages of the session come before the next one to write
        self._under_way = 0
        while True:
            while first - self._acknowledged < len(self._kept) and self._under_way < WINDOW_BYTES:
                message = self._kept[first - self._acknowledged]
                first += 1
                self._under_way += weight(message)
                self._written = max(self._written, first - self._acknowledged)
                await socket.send(message)
                if self._token is None:  # the server does not resume sessions, and need not acknowledge
                    self._forget(self._acknowledged + 1)
            self._to_write.clear()
            await self._to_write.wait()

    async def _read(self, socket: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        messages = size = 0
        while True:
            message = await socket.recv()
            self._heard_at = loop.time()
            if self._take(message):
                messages += 1
                size += len(message.encode() if isinstance(message, str) else message)
            if messages >= 1024 or size >= 65536:
                await socket.send(f"{DLE}a{self._received}")
                self._confirmed = self._received
                messages = size = 0

    async def _confirm(self, socket: ClientConnection) -> None:
        """Send acknowledgements and heartbeats, so that neither side keeps received messages for long."""
        self._confirmed = self._received  # the hello contained this count
        while True:
            await asyncio.sleep(CONFIRM_S)
            if self._written or self._received > self._confirmed:
                self._confirmed = self._received
                await socket.send(f"{DLE}p{self._received}")

    async def _beat(self, socket: ClientConnection) -> None:
        """After a silence, ask whether the connection still lives."""
        loop = asyncio.get_running_loop()
        silence_s, timeout_s = self.welcome["heartbeatMs"] / 1000, self.welcome["timeoutMs"] / 1000
        while True:
            heard_at = self._heard_at
            await asyncio.sleep(heard_at + silence_s - loop.time())
            if self._heard_at == heard_at:
                await asyncio.wait_for(socket.send(f"{DLE}p{self._received}"), timeout_s)
                await asyncio.sleep(timeout_s)
                if self._heard_at == heard_at:
                    raise asyncio.TimeoutError

    def _take(self, message: Message) -> bool:
        """Handle a message from the server. Returns whether the message is counted."""
        if not is_control(message):
            self._received += 1
            self._inbox.put_nowait(message[1:] if message[:1] in (DLE, b"\x10") else message)
            return True
        letter, number, data = parsed(message)
        if letter == "a":
            if self._token is not None:
                self._forget(number)
            return False
        self._received += 1
        if letter == "q":
            if number != self._asked_by_server + 1:
                raise BrokenProtocol(f"request {number} after {self._asked_by_server}")
            self._asked_by_server = number
            task = asyncio.create_task(self._answer(number, data))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif number > self._asked:
            raise BrokenProtocol(f"a reply to request {number}")
        elif (answer := self._pending.get(number)) is not None and not answer.done():
            if letter == "e":
                answer.set_exception(RequestFailed(data))
            else:
                answer.set_result(None if letter == "n" else data)
        return True

    async def _answer(self, number: int, message: Message) -> None:
        session = self._session
        try:
            if self._on_request is None:
                answer = control("e", number, "no handler: the client has no on_request")
            else:
                data = await self._on_request(message)
                answer = f"{DLE}n{number}" if data is None else control("r", number, data)
        except Exception as error:
            answer = control("e", number, str(error) if isinstance(error, RequestFailed) else "failed")
        if session is self._session:  # else it was a request of a session that has ended
            self._keep(answer)


async def end(*tasks: asyncio.Task[None]) -> None:
    """Cancel the tasks, more than once if necessary: before Python 3.12, `wait_for` can swallow a cancellation."""
    while not all(task.done() for task in tasks):
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CONNECT_TIMEOUT_S)
    await asyncio.gather(*tasks, return_exceptions=True)


#: The types of a welcome's values. There may be other keys, too.
WELCOME = {
    **{"resumed": (bool,), "token": (str, type(None)), "protocol": (str, type(None))},
    **{"received": (int,), "resumeMs": (int,), "heartbeatMs": (int,), "timeoutMs": (int,)},
}


def welcome_of(message: Message) -> dict[str, Any]:
    """The values of a welcome. Raises `BrokenProtocol` for any other message."""
    if isinstance(message, str) and message.startswith(DLE + "w"):
        try:
            welcome = json.loads(message[2:])
        except (ValueError, RecursionError):
            welcome = None
        if isinstance(welcome, dict) and all(type(welcome.get(key)) in types for key, types in WELCOME.items()):
            return welcome
    raise BrokenProtocol(f"no welcome: {message[:2]!r}")


def is_control(message: Message) -> bool:
    """Whether a message begins with exactly one DLE; two DLEs escape an ordinary message."""
    return message[:1] in (DLE, b"\x10") and message[1:2] not in (DLE, b"\x10")


def weight(message: Message) -> int:
    return 100 + len(message.encode() if isinstance(message, str) else message)


def escaped(message: Message) -> Message:
    if isinstance(message, str):
        return DLE + message if message.startswith(DLE) else message
    return b"\x10" + message if message.startswith(b"\x10") else message


def control(letter: str, number: int, data: Message) -> Message:
    if isinstance(data, str):
        return f"{DLE}{letter}{number}:{data}"
    return f"{DLE}{letter}{number}:".encode() + data


def parsed(message: Message) -> tuple[str, int, Any]:
    """The letter, the number, and the data. Raises `BrokenProtocol`."""
    if isinstance(message, bytes):
        if (found := BINARY_CONTROL.fullmatch(message)) is not None:
            return found[1].decode(), int(found[2]), found[3]
    else:
        for form in CONTROLS:
            if (match := form.fullmatch(message)) is not None:
                return match[1], int(match[2]), match[3] if form.groups == 3 else ""
    raise BrokenProtocol(f"malformed: {message[:40]!r}")
