"""An exchange: one request of a script's `fetch`, and its response.

The response's body waits in a buffer for the script.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from wsthreads.javascript.fetch_requests import FetchFailed, Request

if TYPE_CHECKING:
    from wsthreads.javascript.http_connections import Connection, Connections

__all__ = ["BUFFER_BYTES", "Exchange"]

#: At most this many bytes of a body are read before the script asks for them.
BUFFER_BYTES = 64 * 1024

#: How long a redirected request waits until the previous response has ended. After that, it can use the same
#: connection.
REDIRECT_S = 0.05


class Exchange:
    """One request and its response.

    Threads of a pool call `run` and `read`, only one thread at a time. The isolate's thread calls the other methods.

    Each call of the script has a ticket. `post(ticket, is_returned, json)` gives the script the result of the call. The
    argument `ticket` belongs to the first call. The first call waits for the *head* of the response, which has the
    status and the headers. `previous` is the exchange that was redirected to this one.
    """

    def __init__(
        self,
        number: int,
        ticket: int,
        request: Request,
        max_bytes: int,
        post: Callable[[int, bool, str], None],
        previous: Exchange | None = None,
    ) -> None:
        self.number = number
        self.job = 0  # the number of the pool's job
        self.request = request
        self._max_bytes = max_bytes
        self._post = post
        self._previous = previous
        self._connections: Connections | None = None
        self._response: Any = None
        self._lock = threading.Lock()  # guards the attributes below; a thread that holds it does not block
        self._connection: Connection | None = None
        self._ticket: int | None = ticket  # the ticket of the call that waits for a result
        self.wants_all = False  # whether the script waits for the whole body
        self._buffer = bytearray()
        self._size = 0  # how many bytes of the body were read
        self._is_working = True  # whether a thread works for this exchange now, or will soon
        self._has_ended = False  # whether the whole body was read
        self._failure: tuple[str, str] | None = None  # the name of the error, and its message
        self._end_wait: Callable[[], None] | None = None
        self._is_short = False  # whether the body is short enough to be read to its end
        self._work_ended = threading.Event()

    @property
    def is_awaited(self) -> bool:
        """Whether a call waits for its result."""
        return self._ticket is not None

    @property
    def is_over(self) -> bool:
        """Whether the whole body was read, and the script has taken it."""
        return self._has_ended and not self._buffer

    # These methods run in a thread of the pool.

    def run(self, connections: Callable[[], Connections]) -> None:
        """Send the request, post the head of the response, and begin to read the body. Never raises."""
        try:
            if self._previous is not None:
                self._previous.end_soon()
                self._previous = None
            self._connections = connections()
            connection, response = self._connections.send(self.request, self)
            self._response = response
            headers = [(name, re.sub("\r?\n", " ", value)) for name, value in response.headers.items()]
            size = response.length_remaining
            with self._lock:
                self._connection = connection
                self._is_short = size is not None and size <= BUFFER_BYTES
                ticket = self._take_ticket_locked()
            if size == 0:
                self.read()  # read before the head is posted, so that the script's next request can use the connection
            if ticket is not None:
                failure = self._failure
                head = (response.status, response.reason or "", headers) if failure is None else (*failure, "")
                self._post(ticket, failure is None, json.dumps(head))
        except BaseException as error:
            self._finish(error)
        else:
            if size != 0:
                self.read()

    def read(self) -> None:
        """Read until the body ends or the buffer is full. Never raises."""
        try:
            while self._has_room_after(self._response.read1(BUFFER_BYTES)):
                pass
        except BaseException as error:
            self._finish(error)

    def end_soon(self) -> None:
        """End the exchange because it was redirected.

        If the body is short, it is read to its end, so that the connection can be used again. A longer body is ended
        now.
        """
        if self._is_short:
            self._work_ended.wait(REDIRECT_S)
        self.fail("Error", "it was redirected")

    def control(self, end_wait: Callable[[], None]) -> None:
        """Use `end_wait` from now on to end the thread's wait.

        Raises `FetchFailed` if the exchange has failed already.
        """
        with self._lock:
            if self._failure is not None:
                raise FetchFailed(self._failure[1])
            self._end_wait = end_wait

    def _has_room_after(self, data: bytes) -> bool:
        if not data:
            from wsthreads.javascript.http_responses import is_whole

            self._finish(None if is_whole(self._response) else FetchFailed("the encoded body ends too early"))
            return False
        with self._lock:
            if self._failure is None:
                self._buffer += data
                self._size += len(data)
            ticket = None if self.wants_all else self._take_ticket_locked()
            is_too_long = max(self._size, self._response.tell()) > self._max_bytes
            has_room = self._failure is None and (self.wants_all or len(self._buffer) < BUFFER_BYTES)
            self._is_working = has_room or is_too_long or self._failure is not None
        if ticket is not None:
            self._post(ticket, True, "true")
        if is_too_long or self._failure is not None:
            self._finish(FetchFailed(f"the body has more than {self._max_bytes} bytes (max_fetch_bytes)"))
            return False
        return has_room

    def _finish(self, error: BaseException | None) -> None:
        """End the thread's work, because the body was read, or cannot be read."""
        with self._lock:
            if error is not None:
                self._failure = self._failure or _described(self.request, error)
            is_good = self._failure is None
            self._end_wait = None
            connection, self._connection = self._connection, None
        if connection is not None:
            if is_good and self._connections is not None and connection.is_usable:
                self._connections.keep(connection)
            else:
                self._close(connection)
        with self._lock:
            self._is_working = False
            self._has_ended = self._failure is None
            if not self._has_ended:
                self._buffer.clear()
            ticket, outcome = self._take_ticket_locked(), self._outcome_locked()
        self._work_ended.set()
        if ticket is not None and outcome is not None:
            self._post(ticket, *outcome)

    # These methods run in the isolate's thread.

    def ask(self, ticket: int, wants_all: bool) -> bool:
        """Post the result for `ticket` when there are bytes of the body.

        With `wants_all`, post it when all bytes have arrived.

        The posted result is true, or false at the end of the body. This method returns whether a thread has to call
        `read`.
        """
        with self._lock:
            self.wants_all = wants_all
            outcome = self._outcome_locked()
            must_begin = outcome is None and not self._is_working
            self._is_working |= must_begin
            if outcome is None:
                self._ticket = ticket
        if outcome is not None:
            self._post(ticket, *outcome)
        return must_begin

    def take(self) -> bytes:
        """Remove and return the bytes in the buffer."""
        with self._lock:
            data = bytes(self._buffer)
            self._buffer.clear()
        return data

    def fail(self, name: str, message: str) -> None:
        """End the exchange, and give this error to the call that waits for a result. Any thread."""
        previous = self._previous
        if previous is not None:
            previous.fail(name, message)
        with self._lock:
            self._failure = self._failure or (name, message)
            self._buffer.clear()
            ticket, end_wait = self._take_ticket_locked(), self._end_wait
            connection = None
            if not self._is_working:
                connection, self._connection = self._connection, None
        if end_wait is not None:
            end_wait()
        if connection is not None:
            self._close(connection)
        if ticket is not None:
            self._post(ticket, False, json.dumps((name, message, "")))

    def _close(self, connection: Connection) -> None:
        connection.close()
        if self._response is not None:
            with suppress(OSError):
                self._response.close()

    def _take_ticket_locked(self) -> int | None:
        ticket, self._ticket = self._ticket, None
        return ticket

    def _outcome_locked(self) -> tuple[bool, str] | None:
        """The result of a call for bytes. None if it is not known yet."""
        if self._failure is not None:
            return False, json.dumps((*self._failure, ""))
        if self._has_ended or (self._buffer and not self.wants_all):
            return True, "true" if self._buffer else "false"
        return None


def _described(request: Request, error: BaseException | None) -> tuple[str, str]:
    if isinstance(error, ImportError):
        return "TypeError", str(error)
    if isinstance(error, FetchFailed):
        return "TypeError", f"{request}: {error}"
    if isinstance(error, Exception):
        from wsthreads.javascript.http_connections import failure_of

        return "TypeError", f"{request}: {failure_of(error)}"
    return "TypeError", f"{request}: {type(error).__name__}"
