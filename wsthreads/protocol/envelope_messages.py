"""The kinds of messages that the subprotocol ``wsthreads.1`` has besides ordinary messages.

The module `envelope` reads and writes these messages. A *counted* message is one that the receiver acknowledges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Ack", "Failure", "Heartbeat", "Hello", "NullReply", "Parsed", "Reply", "Request", "Welcome"]


@dataclass(frozen=True, slots=True)
class Hello:
    """The client's first message.

    `token` names the session that the client comes back to. None asks for a new session.
    """

    token: str | None = field(default=None, repr=False)  # a secret
    #: How many of the server's counted messages the client has received.
    received: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server's first message."""

    resumed: bool
    #: The token for the next resume. None if the session cannot be resumed.
    token: str | None = field(repr=False)  # a secret
    #: How many of the client's counted messages the server has received.
    received: int
    #: How long the session waits for a client without a connection, in milliseconds.
    resume_ms: int
    #: After a silence of this many milliseconds, the client sends a heartbeat. With 0, it sends no heartbeats.
    heartbeat_ms: int
    #: The client gives up the connection if a heartbeat is not answered within this many milliseconds.
    timeout_ms: int
    #: The application's own subprotocol, or None.
    protocol: str | None = None
    #: Why the client's session was not resumed. None if it was resumed, or if the client asked for a new session.
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledgement: this many counted messages of the other side have arrived since the session began."""

    received: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """An acknowledgement of the client, which the server answers with an `Ack`."""

    received: int


@dataclass(slots=True)  # not frozen: a frozen one takes twice as long to create
class Request:
    """A request. The other side must send a reply with the same id."""

    id: int
    data: str | bytes


@dataclass(slots=True)
class Reply:
    """The reply to the request with the same id."""

    id: int
    data: str | bytes


@dataclass(frozen=True, slots=True)
class NullReply:
    """The reply to the request with the same id, for a reply without data."""

    id: int


@dataclass(frozen=True, slots=True)
class Failure:
    """The message that the request with the same id has failed. People can read the reason."""

    id: int
    reason: str


#: What `parse` returns. A str or bytes is an ordinary message.
Parsed: TypeAlias = str | bytes | Hello | Welcome | Ack | Heartbeat | Request | Reply | NullReply | Failure
