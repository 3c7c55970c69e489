"""The kinds of messages that the subprotocol ``wsthreads.1`` adds to ordinary ones.

`envelope` reads and writes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Ack", "Failure", "Heartbeat", "Hello", "NullReply", "Parsed", "Reply", "Request", "Welcome"]


@dataclass(frozen=True, slots=True)
class Hello:
    """The client's first message. It has the token of the client's session, or None for a new session."""

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
    #: How long the session waits for the client, in milliseconds.
    resume_ms: int
    #: The silence, in milliseconds, after which the client sends a heartbeat. With 0, it sends none.
    heartbeat_ms: int
    #: How long, in milliseconds, the client waits after a heartbeat before it gives up the connection.
    timeout_ms: int
    #: The application's own subprotocol.
    protocol: str | None = None
    #: Why the client's session was not resumed; None if it was, or if the client had none.
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """An acknowledgement: how many counted messages of the other side have arrived since the session began."""

    received: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """An `Ack` of the client that the server answers with an `Ack`."""

    received: int


@dataclass(slots=True)  # not frozen: a frozen one takes twice as long to create
class Request:
    """A request, which needs a reply."""

    id: int
    data: str | bytes


@dataclass(slots=True)
class Reply:
    """The reply to a request."""

    id: int
    data: str | bytes


@dataclass(frozen=True, slots=True)
class NullReply:
    """The reply to a request, without data."""

    id: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A request has failed, for a reason that people can read."""

    id: int
    reason: str


#: What `parse` returns: text and bytes are ordinary messages.
Parsed: TypeAlias = str | bytes | Hello | Welcome | Ack | Heartbeat | Request | Reply | NullReply | Failure
