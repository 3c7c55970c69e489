"""When a client asks its server for a sign of life or an acknowledgement, and when it drops the connection. Pure."""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["PING_INTERVAL_S", "PING_TIMEOUT_S", "Liveness", "Overdue", "Step"]

#: When a server without ``wsthreads.1`` gets a ping, and how long it may then send nothing.
PING_INTERVAL_S = PING_TIMEOUT_S = 20.0

#: The most by which `timeout_s` is multiplied.
MOST_PATIENCE = 64

#: For how long messages of this side may be unacknowledged until the server is asked, and how often it is asked.
ACKNOWLEDGE_S = 5.0


class Step(Enum):
    """What is to be done."""

    WAIT = auto()
    ASK = auto()
    DROP = auto()


class Liveness:
    """When something was last received on a client's connection, and whether it has been asked for a sign of life."""

    def __init__(self) -> None:
        self._patience = 1  # how many times `timeout_s` to wait for a sign of life
        self.begin(0.0)

    def begin(self, now: float) -> None:
        """There is a new connection, or nothing is waited for."""
        self._since, self._is_asked, self._is_overdue = now, False, False
        self._unsent_bytes = 0  # when it was last looked at

    def show(self, now: float) -> None:
        """Something has been received."""
        if self._is_asked:
            self._patience = 1
        self._since, self._is_asked, self._is_overdue = now, False, False

    def look(self, now: float, ask_s: float, timeout_s: float, unsent_bytes: int) -> tuple[Step, float]:
        """What to do now; and how many seconds to wait then, or, for `DROP`, for how long an answer was waited for.

        A long message on a slow line delays the answer. As long as it goes out, the connection lives. The operating
        system may have taken all of it, so patience doubles with each connection on which it was in vain.
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
    """Since when nothing has been acknowledged on a connection, though it should be."""

    def __init__(self) -> None:
        #: When the server is asked; None: all is acknowledged.
        self.at: float | None = None
        self._acknowledged = 0

    def look(self, now: float, is_wanted: bool, acknowledged: int) -> tuple[Step, float | None]:
        """What to do now, and how many seconds to wait then. `acknowledged`: how many messages are."""
        if not is_wanted:
            self.at = None
            return Step.WAIT, None
        if self.at is None or self._acknowledged != acknowledged:
            self.at, self._acknowledged = now + ACKNOWLEDGE_S, acknowledged
        elif now >= self.at:
            self.at = now + ACKNOWLEDGE_S
            return Step.ASK, ACKNOWLEDGE_S
        return Step.WAIT, self.at - now
