"""The kinds of messages that the subprotocol ``wsthreads.1`` adds to those of the application.

`envelope` reads and writes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = ["Ack", "Failure", "Heartbeat", "Hello", "NullReply", "Parsed", "Reply", "Request", "Welcome"]


@dataclass(frozen=True, slots=True)
class Hello:
    """The client's first message: it comes back with a token, or is new (None)."""

    token: str | None = field(default=None, repr=False)  # a secret
    #: How many of the server's counted messages the client has received.
    received: int = 0


@dataclass(frozen=True, slots=True)
class Welcome:
    """The server's first message."""

    resumed: bool
    #: For the next resume. None: this session cannot be resumed.
    token: str | None = field(repr=False)  # a secret
    #: How many of the client's counted messages the server has received.
    received: int
    #: How long the session waits for the client.
    resume_ms: int
    #: The client sends a heartbeat when it has received nothing for this long. 0: it sends none.
    heartbeat_ms: int
    #: The client gives up the connection when nothing comes for this long after a heartbeat.
    timeout_ms: int
    #: The application's own subprotocol.
    protocol: str | None = None
    #: Why the session that the client asked for was not resumed.
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """So many of the receiver's counted messages have arrived, since the session began."""

    received: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """An `Ack` that the server answers by its own."""

    received: int


@dataclass(slots=True)  # not frozen, since that takes twice the time for each
class Request:
    """The other side wants a reply."""

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
