"""Decides when a client sends a heartbeat, and when the client drops the connection.

This module uses no clock and no socket: the caller passes the time and the number of unsent bytes.
"""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["PING_INTERVAL_S", "PING_TIMEOUT_S", "Liveness", "Overdue", "Step"]

#: For a server without ``wsthreads.1``: the silence before a ping, and the silence allowed after it.
PING_INTERVAL_S = PING_TIMEOUT_S = 20.0

#: The most by which `timeout_s` is multiplied.
MOST_PATIENCE = 64

#: How long messages of the client may be unacknowledged before the client asks the server. It repeats this as often.
ACKNOWLEDGE_S = 5.0


class Step(Enum):
    """The next action."""

    WAIT = auto()
    ASK = auto()
    DROP = auto()


class Liveness:
    """Notes when something was last received on a client's connection, and whether a heartbeat waits for its answer."""

    def __init__(self) -> None:
        self._patience = 1  # how many times `timeout_s` to wait for an answer
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Begin with a new connection, or when no answer is expected."""
        self._since, self._is_asked, self._is_overdue = now, False, False
        self._unsent_bytes = 0  # at the last `look`

    def show(self, now: float) -> None:
        """Something has been received."""
        if self._is_asked:
            self._patience = 1
        self._since, self._is_asked, self._is_overdue = now, False, False

    def look(self, now: float, ask_s: float, timeout_s: float, unsent_bytes: int) -> tuple[Step, float]:
        """What to do now, and how many seconds to wait afterwards.

        If the step is `DROP`, the second value is how many seconds the client has waited.

        A long message on a slow line delays the answer. While the message is being sent, the connection counts as
        alive. But the operating system may already have taken all of the message. So the time to wait doubles with each
        connection that was dropped.
        """
        timeout_s *= self._patience
        due = self._since + (timeout_s if self._is_asked else ask_s)
        if now < due:
            return Step.WAIT, due - now
        before, self._unsent_bytes = self._unsent_bytes, unsent_bytes
        if not self._is_asked:
            self._since, self._is_asked = now, True
            return Step.ASK, timeout_s
        if unsent_bytes < before:
            self._since, self._is_overdue = now, False
            return Step.WAIT, timeout_s
        if not self._is_overdue:
            self._is_overdue = True
            return Step.WAIT, 0.0  # one last look: this thread, or the machine, may have slept
        self._patience = min(2 * self._patience, MOST_PATIENCE)
        return Step.DROP, timeout_s


class Overdue:
    """Decides when an acknowledgement is overdue on a connection."""

    def __init__(self) -> None:
        #: When to ask the server; None if all messages are acknowledged.
        self.at: float | None = None
        self._acknowledged = 0

    def look(self, now: float, is_wanted: bool, acknowledged: int) -> tuple[Step, float | None]:
        """What to do now, and how many seconds to wait afterwards.

        `acknowledged` is the number of acknowledged messages.
        """
        if not is_wanted:
            self.at = None
            return Step.WAIT, None
        if self.at is None or self._acknowledged != acknowledged:
            self.at, self._acknowledged = now + ACKNOWLEDGE_S, acknowledged
        elif now >= self.at:
            self.at = now + ACKNOWLEDGE_S
            return Step.ASK, ACKNOWLEDGE_S
        return Step.WAIT, self.at - now
