"""The connection of ``wsthreads connect``."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from wsthreads.client.connection import Connection
from wsthreads.client.failures import ConnectFailed
from wsthreads.client.handshake import make_handshake
from wsthreads.client.waiter import WRITE, Waiter
from wsthreads.errors import CloseCode
from wsthreads.monitoring.logs import printable

__all__ = ["Client", "ConnectFailed", "describe_close"]

#: No real limit, because a terminal may show a message of any size.
MAX_MESSAGE_BYTES = 2**40

_WORDS = {
    CloseCode.NORMAL: "normal",
    CloseCode.NO_STATUS: "no code given",
    CloseCode.ABNORMAL: "connection lost",
    CloseCode.INTERNAL_ERROR: "the server failed",
}


def describe_close(code: int, reason: str = "") -> str:
    """Returns a close code in words.

    >>> describe_close(1009, "2 MiB")
    '1009 message too big: 2 MiB'
    """
    try:
        words = _WORDS.get(CloseCode(code)) or CloseCode(code).name.lower().replace("_", " ")
    except ValueError:
        words = "a code of the application" if 4000 <= code <= 4999 else "unknown"
    return f"{code} {words}" + (f": {printable(reason)}" if reason else "")


class Client:
    """A connection to a WebSocket server that sends only what the user types. Not thread-safe.

    `wsthreads.Client` is not used, because it reconnects. It would hide close codes and lost connections, which the
    user wants to see.

    The first four arguments are those of `make_handshake`. Raises `UsageError` if one of them is not valid, and
    `ConnectFailed` if there is no connection within `timeout_s`. `send` blocks for at most `timeout_s`.
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
        handshake = make_handshake(url, parameters, headers, subprotocols)
        self._timeout_s = timeout_s
        self._waiter = Waiter()
        try:
            self._connection = Connection(
                handshake, self._waiter, timeout_s=timeout_s, max_message_bytes=MAX_MESSAGE_BYTES
            )
        except BaseException:
            self._waiter.close()
            raise

    @property
    def subprotocol(self) -> str | None:
        return self._connection.subprotocol

    @property
    def closed(self) -> tuple[int, str] | None:
        """The close code and the reason. None until the connection is over."""
        return self._connection.closed

    def fileno(self) -> int:
        return self._connection.fileno()

    @property
    def pending(self) -> bool:
        """Whether there is buffered input, which `select` does not see."""
        return self._connection.has_input

    def receive(self) -> list[str | bytes]:
        """Returns the messages that the next input completes. Does not wait for input."""
        messages, _ = self._connection.read()
        self._flush()
        return messages

    def send(self, text: str) -> bool:
        """Send a text message. Returns False if the connection is over, or if the server does not read."""
        if not self._connection.is_open:
            return False
        self._connection.write(text)
        return self._flush()

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """Begin the close handshake. `receive` reads the server's answer. A second call does nothing."""
        self._connection.close(code, reason)
        self._flush()

    def abort(self) -> None:
        """End the connection without a close handshake. A second call does nothing."""
        self._connection.abort()
        self._waiter.close()

    def _flush(self) -> bool:
        """Send all queued bytes. Returns False if the server does not read for too long."""
        connection, deadline = self._connection, monotonic() + self._timeout_s
        connection.flush()
        while connection.unsent_bytes and not connection.is_over and monotonic() < deadline:
            connection.wait(WRITE, deadline - monotonic())
            connection.flush()
        return not connection.unsent_bytes
