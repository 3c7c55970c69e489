"""The events that a client's `Dialogue` makes of the server's messages."""

from __future__ import annotations

from dataclasses import dataclass

from wsthreads.monitoring.logs import printable

__all__ = ["Answered", "Asked", "Event", "Opened", "Pending"]

Message = str | bytes


class Pending:
    """A request of the client. `id` is None until the request is sent."""

    __slots__ = ("answer", "error", "id", "is_done")

    def __init__(self) -> None:
        self.id: int | None = None
        self.is_done = False
        self.answer: Message | None = None
        self.error: Exception | None = None

    def end(self, answer: Message | None, error: Exception | None = None) -> Answered:
        """The request is done, with an answer or an error."""
        self.answer, self.error, self.is_done = answer, error, True
        return Answered(self)


@dataclass(frozen=True)
class Opened:
    """The connection can be used. If `resumed` is false, a new session has begun.

    Then `lost` ordinary messages of the previous session were not acknowledged. The server may have handled them.
    """

    resumed: bool
    lost: int = 0
    why: str | None = None

    def __str__(self) -> str:
        """For the log."""
        if self.resumed:
            return "the session is resumed"
        why = f" ({printable(self.why)})" if self.why else ""
        lost = f"; {self.lost} messages of the previous session may be lost" if self.lost else ""
        return f"a new session has begun{why}{lost}"


@dataclass(frozen=True)
class Asked:
    """A request of the server, for `Dialogue.reply` or `Dialogue.fail`."""

    id: int
    data: Message
    session: int


@dataclass(frozen=True)
class Answered:
    """A request of the client is done."""

    pending: Pending


Event = str | bytes | Opened | Asked | Answered
