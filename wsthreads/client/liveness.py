"""Decides when a client sends a heartbeat, and when the client gives a connection up.

This module uses no clock and no socket. The caller passes the time, and the number of unsent bytes.
"""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["PING_INTERVAL_S", "PING_TIMEOUT_S", "Liveness", "Overdue", "Step"]

#: For a server without ``wsthreads.1``: after how many seconds of silence to send a ping, and how long to wait for an
#: answer.
PING_INTERVAL_S = PING_TIMEOUT_S = 20.0

#: The wait for an answer is at most `timeout_s` multiplied by this.
MOST_PATIENCE = 64

#: If messages of the client are not acknowledged for this long, the client asks the server to acknowledge. It asks
#: again after the same time.
ACKNOWLEDGE_S = 5.0


class Step(Enum):
    """What the engine must do next."""

    WAIT = auto()
    ASK = auto()
    DROP = auto()


class Liveness:
    """Knows when something was last received over a connection, and whether a heartbeat waits for an answer."""

    def __init__(self) -> None:
        self._patience = 1  # the wait for an answer is `timeout_s` multiplied by this
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """Begin again: there is a new connection, or no answer is expected."""
        self._since, self._is_asked, self._is_overdue = now, False, False
        self._unsent_bytes = 0  # the number of unsent bytes at the last `look`

    def show(self, now: float) -> None:
        """Note that something was received."""
        if self._is_asked:
            self._patience = 1
        self._since, self._is_asked, self._is_overdue = now, False, False

    def look(self, now: float, ask_s: float, timeout_s: float, unsent_bytes: int) -> tuple[Step, float]:
        """Returns what to do now, and how many seconds to wait afterwards.

        If the step is `DROP`, the second value is how many seconds the client has waited for an answer.

        On a slow line, a long message of the client delays the server's answer. While bytes of the message are being
        sent, the connection counts as alive. But the operating system may have taken the whole message already. So each
        time that a connection is dropped, the time to wait is doubled.
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
            return Step.WAIT, 0.0  # wait for the last time, because this thread or the machine may have slept
        self._patience = min(2 * self._patience, MOST_PATIENCE)
        return Step.DROP, timeout_s


class Overdue:
    """Decides when an acknowledgement of the server is overdue."""

    def __init__(self) -> None:
        #: When to ask the server. None if all messages are acknowledged.
        self.at: float | None = None
        self._acknowledged = 0

    def look(self, now: float, is_wanted: bool, acknowledged: int) -> tuple[Step, float | None]:
        """Returns what to do now, and how many seconds to wait afterwards.

        `acknowledged` is the number of messages that the server has acknowledged.
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
