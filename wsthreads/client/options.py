"""The arguments of a `Client`, and the connections that are made with these arguments."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wsthreads.client.connection import Connection
from wsthreads.client.failures import ConnectFailed
from wsthreads.client.handshake import Handshake, make_handshake
from wsthreads.client.waiter import Waiter
from wsthreads.errors import MessageTypeError
from wsthreads.loggers import get_logger
from wsthreads.protocol.envelope import SUBPROTOCOL
from wsthreads.threads import forks

__all__ = ["Options", "checked"]

logger = get_logger(__name__)

Message = str | bytes


@dataclass(frozen=True)
class Options:
    """The arguments of `Client`. See there."""

    url: str | Callable[[], str]
    headers: Sequence[tuple[str, str]]
    protocols: Sequence[str]
    on_request: Callable[[Message], Message | None] | None
    on_open: Callable[[], object] | None
    ssl_context: ssl.SSLContext | None
    compress: bool
    min_delay_s: float
    max_delay_s: float
    max_attempts: int | None
    connect_timeout_s: float
    max_queued: int
    max_queued_bytes: int
    max_received: int
    max_message_bytes: int

    def address(self) -> str:
        """Returns the address for the next connection. Raises `ConnectFailed` if the function for the address fails."""
        if isinstance(self.url, str):
            return self.url
        try:
            with forks.ending():
                url = self.url()
        except Exception as error:
            logger.info("the function for the address failed", exc_info=error)
            raise ConnectFailed(f"the function for the address failed: {error}") from error
        if not isinstance(url, str):
            raise ConnectFailed(f"the function for the address returned a {type(url).__name__}, not a str")
        return url

    def connect(self, offers: bool, waiter: Waiter, is_wanted: Callable[[], bool]) -> Connection:
        """Connect, and wait for the connection. Raises `ConnectFailed`, `UsageError` or `Abandoned`."""
        return Connection(
            self.handshake(self.address(), offers),
            waiter,
            timeout_s=self.connect_timeout_s,
            is_wanted=is_wanted,
            ssl_context=self.ssl_context,
            compress=self.compress,
            max_message_bytes=self.max_message_bytes,
        )

    def handshake(self, url: str, offers: bool) -> Handshake:
        """Returns the handshake for an address. Raises `UsageError` for a value that HTTP does not allow."""
        return make_handshake(url, (), self.headers, [*([SUBPROTOCOL] if offers else []), *self.protocols])


def checked(message: object) -> Message:
    """Returns a message in the form to send. A lone surrogate becomes U+FFFD. Raises `MessageTypeError`."""
    if isinstance(message, str):
        try:
            message.encode()
        except UnicodeEncodeError:
            return message.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return message
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    raise MessageTypeError(f"a message must be str or bytes, not {type(message).__name__}; try json.dumps")
