"""The events that a client's `Dialogue` makes from the messages of the server."""

from __future__ import annotations

from dataclasses import dataclass

from wsthreads.monitoring.logs import printable

__all__ = ["Answered", "Asked", "Event", "Opened", "Pending"]

Message = str | bytes


class Pending:
    """A request of the client. `id` is None until the request was sent."""

    __slots__ = ("answer", "error", "id", "is_done")

    def __init__(self) -> None:
        self.id: int | None = None
        self.is_done = False
        self.answer: Message | None = None
        self.error: Exception | None = None

    def end(self, answer: Message | None, error: Exception | None = None) -> Answered:
        """End the request with an answer or an error."""
        self.answer, self.error, self.is_done = answer, error, True
        return Answered(self)


@dataclass(frozen=True)
class Opened:
    """The event that the connection can be used. If `resumed` is False, a new session has begun.

    `lost` ordinary messages of the session before were then not acknowledged. The server may have handled them.
    """

    resumed: bool
    lost: int = 0
    why: str | None = None

    def __str__(self) -> str:
        """The event as text for the log."""
        if self.resumed:
            return "the session is resumed"
        why = f" ({printable(self.why)})" if self.why else ""
        lost = f"; {self.lost} messages of the previous session may be lost" if self.lost else ""
        return f"a new session has begun{why}{lost}"


@dataclass(frozen=True)
class Asked:
    """The event that the server has sent a request. `Dialogue.reply` and `Dialogue.fail` answer it."""

    id: int
    data: Message
    session: int


@dataclass(frozen=True)
class Answered:
    """The event that a request of the client has ended."""

    pending: Pending


Event = str | bytes | Opened | Asked | Answered
