"""Broadcasts to the members of a room.

A message is appended to all outboxes in one step. After that, one thread sends it.

The sending thread is the broadcasting thread or the drainer's thread. It also sends the messages that other threads
broadcast in the meantime. In a large room, the threads of `WriterThreads` help.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from wsthreads.protocol.encoding import PLAIN
from wsthreads.protocol.fanout import append_all
from wsthreads.protocol.frames import MarkedFrame
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.writer_threads import WriterThreads
from wsthreads.rooms.histories import Histories
from wsthreads.rooms.history import Record
from wsthreads.rooms.members import ENCODING_NAME, Members, by_encoding
from wsthreads.rooms.striped import StripedDict
from wsthreads.threads.drainer import Drainer

__all__ = ["Sending"]

#: If fewer broadcasts are queued than last time, the drainer waits this long for more. Each broadcast that arrives in
#: this time saves one write to each member.
PAUSE_S = 50e-6

#: If more broadcasts than this were queued at one time, the drainer does not wait for a while. The next bursts are
#: probably smaller.
MOST_QUEUED = 100

#: In a room with fewer members, the drainer does not wait: to write to all of them takes less time than the wait.
LEAST_MEMBERS = 50


class Sending:
    """The part of `Rooms` that broadcasts.

    At any time, only one thread sends to the members of a room. `WriterThreads` may help this thread.
    """

    #: The histories of the rooms. None if the history is off.
    history: Histories[Any] | None = None

    def __init__(self, drainer: Drainer, writers: WriterThreads | None = None) -> None:
        self._drainer = drainer
        self._writers = WriterThreads(1) if writers is None else writers
        self._members: StripedDict[str, Members] = StripedDict()

    def check_reach(self) -> None:
        """Raise `BrokerError` if this process cannot reach the members."""
        raise NotImplementedError

    def _spread(
        self,
        name: str,
        frame: bytes,
        exclude: Any = None,
        *,
        hand_over: bool = False,
        record: Record | None = None,
    ) -> None:
        """Broadcast to the members in this process. In the same step, the history stores `record`."""
        latest = None
        if isinstance(frame, MarkedFrame):
            frame.room, latest = name, frame.latest
        frames = {PLAIN: frame}
        while True:
            members = self._members.get(name)
            if members is None:
                self.check_reach()
                if record is None or self._record_alone(name, record):
                    return
                continue
            with members.order:
                # The last member may have left. A session that joins now gets the message, or finds it in the log.
                if members.log is not None and not members.sessions:
                    continue
                outboxes = members.outboxes or self._copy(name, members)
                parts = by_encoding(outboxes)
                missing = [encoding for encoding, _ in parts if encoding not in frames]
                if not missing:
                    if record is not None and members.log is not None and not members.log.record(record):
                        return
                    skip = None if exclude is None else members.sessions.get(exclude)
                    if parts:
                        members.broadcasts += 1
                    if latest is not None:
                        for outbox in outboxes:
                            outbox.keep_short()
                    for encoding, some in parts:
                        members.deliveries += append_all(some, frames[encoding], skip)
                    if members.sending:
                        members.queued += 1  # the sending thread will send this message
                        return
                    members.sending = True
                    hand_over = hand_over or members.crowd > 0
                    members.queued = 1 if hand_over else 0
                    break
            for encoding in missing:  # after this, check again, because the members may have changed
                frames[encoding] = encoding.frame(frame)
        if not hand_over:
            try:
                hand_over = self._send(name, members, outboxes)
                hand_over = hand_over and self._send(name, members)  # sends broadcasts that were queued in the meantime
            except BaseException:
                self._go_on(name, members)  # queued messages must not wait for the next broadcast
                raise
        if hand_over:
            self._go_on(name, members)

    def _record_alone(self, name: str, record: Record) -> bool:
        """Add a message to the history of a room without members. Returns False if the room has members now."""
        return self.history is None or self.history.record_alone(name, record)

    def _go_on(self, name: str, members: Members) -> None:
        """Let the drainer's thread send the queued messages."""
        try:
            self._drainer.go_on(partial(self._send, name, members))
        except RuntimeError:  # no thread can be started, so this thread sends
            try:
                while self._send(name, members):
                    pass
            except BaseException:
                with members.order:
                    members.sending = False  # so that the next broadcast tries again
                raise

    def _send(self, name: str, members: Members, outboxes: tuple[Outbox, ...] | None = None) -> bool:
        """Send the queued messages to the members.

        Returns True if more messages were queued in the meantime. In this case, and after an exception, `_send` must be
        called again.
        """
        if outboxes is None:
            if 0 < members.queued <= members.crowd < MOST_QUEUED and len(members.sessions) >= LEAST_MEMBERS:
                self._drainer.pause(PAUSE_S)
            with members.order:
                members.crowd = max(members.queued, members.crowd, 1) - 1
                members.queued = 0
                outboxes = members.outboxes or self._copy(name, members)
        # The outbox of a session that has left the room may still have unsent messages.
        left = [] if outboxes is members.written else self._writers.flush(members.left)
        members.left = left + self._writers.flush(outboxes)
        members.written = outboxes if members.left and not left else None
        with members.order:
            members.sending = bool(members.left) or members.queued > 0
            return members.sending

    def _copy(self, name: str, members: Members) -> tuple[Outbox, ...]:
        """The members' outboxes. The result is cached until a session joins or leaves."""

        outboxes: tuple[Outbox, ...] = ()

        def copy(current: Members) -> Members:
            nonlocal outboxes
            if current is members:
                outboxes = current.outboxes = tuple(sorted(current.sessions.values(), key=ENCODING_NAME))
            return current

        self._members.compute_if_present(name, copy)
        return outboxes
