"""An entry in an endpoint's list of sessions: the session, and its connection if it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsthreads.monitoring.metrics import Traffic

if TYPE_CHECKING:
    from wsthreads.protocol.connection import Connection
    from wsthreads.sessions.dialogue import Dialogue
    from wsthreads.sessions.session import Session

__all__ = ["Served"]


class Served:
    """A session with its connection. Any thread may read this. Calls of `connect` and `disconnect` never overlap."""

    __slots__ = ("_earlier_bytes_in", "connection", "dialogue", "end_number", "session")

    def __init__(self, session: Session, connection: Connection | None, dialogue: Dialogue | None = None) -> None:
        self.session = session
        #: The connection. None while the session has none.
        self.connection = connection
        #: The dialogue. None unless the session speaks ``wsthreads.1``.
        self.dialogue = dialogue
        #: See `wsthreads.monitoring.metrics.Counted`.
        self.end_number = 0
        self._earlier_bytes_in = 0  # bytes that were received over earlier connections

    def connect(self, connection: Connection) -> None:
        """Set the session's new connection."""
        if self.connection is not connection:
            self.disconnect(self.connection)
            self.connection = connection

    def disconnect(self, connection: Connection | None) -> None:
        """Remove a connection that has ended. Does nothing if it is not the current connection."""
        if connection is not None and self.connection is connection:
            self._earlier_bytes_in += connection.traffic().bytes_in
            self.connection = None

    @property
    def is_gone(self) -> bool:
        """Whether the session has moved to another process."""
        return self.dialogue is not None and self.dialogue.is_gone

    def traffic(self) -> Traffic:
        """The numbers of messages and bytes since the session began."""
        connection, dialogue = self.connection, self.dialogue
        if dialogue is None:
            assert connection is not None, "a session without a connection"
            return connection.traffic()
        now = None if connection is None else connection.traffic()
        outbox = dialogue.outbox
        replaced = outbox.latest_replaced
        return Traffic(
            messages_in=dialogue.messages_in,
            bytes_in=self._earlier_bytes_in + (0 if now is None else now.bytes_in),
            messages_out=max(0, outbox.messages_out - replaced - dialogue.uncounted_out),
            bytes_out=outbox.bytes_out,
            bytes_waiting=outbox.bytes_waiting,
            round_trip_s=None if now is None else now.round_trip_s,
            latest_replaced=replaced,
            unacknowledged_bytes=outbox.unacknowledged_bytes,
        )
