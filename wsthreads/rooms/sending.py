"""Broadcasts to the members of a room: a message is appended to all outboxes in one step, then one thread sends.

The sending thread is the broadcasting thread or the drainer. It also sends the messages that are broadcast meanwhile.
In a large room, `WriterThreads` help.
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

#: If fewer broadcasts are queued than last time, the drainer waits this long for more. Each broadcast that comes in
#: time saves one write to each member.
PAUSE_S = 50e-6

#: After a burst of more broadcasts than this, there is no pause for a while. The next bursts are probably smaller.
MOST_QUEUED = 100

#: In a room with fewer members, writing to all of them takes less time than the pause.
LEAST_MEMBERS = 50


class Sending:
    """The part of `Rooms` that broadcasts.

    At any time, only one thread sends to the members of a room, with its helpers.
    """

    #: The histories of the rooms; None if the history is off.
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
        """Broadcast to the members in this process. In the same step, the history stores the `record`."""
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
                # A session that joins meanwhile, after the last member has left, gets the message or finds it in the
                # log.
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
                        members.queued += 1  # the sending thread will send it
                        return
                    members.sending = True
                    hand_over = hand_over or members.crowd > 0
                    members.queued = 1 if hand_over else 0
                    break
            for encoding in missing:  # then check again: the members may have changed
                frames[encoding] = encoding.frame(frame)
        if not hand_over:
            try:
                hand_over = self._send(name, members, outboxes)
                hand_over = hand_over and self._send(name, members)  # send broadcasts that were queued meanwhile
            except BaseException:
                self._go_on(name, members)  # queued messages must not wait for the next broadcast
                raise
        if hand_over:
            self._go_on(name, members)

    def _record_alone(self, name: str, record: Record) -> bool:
        """Add a message to the history of a room without members. Returns False if the room has members by now."""
        return self.history is None or self.history.record_alone(name, record)

    def _go_on(self, name: str, members: Members) -> None:
        """Let the drainer send."""
        try:
            self._drainer.go_on(partial(self._send, name, members))
        except RuntimeError:  # no thread can be started: send in this thread
            try:
                while self._send(name, members):
                    pass
            except BaseException:
                with members.order:
                    members.sending = False  # the next broadcast tries again
                raise

    def _send(self, name: str, members: Members, outboxes: tuple[Outbox, ...] | None = None) -> bool:
        """Send queued messages to the members.

        Returns True if more messages were queued meanwhile. In this case, and after an exception, call `_send` again.
        """
        if outboxes is None:
            if 0 < members.queued <= members.crowd < MOST_QUEUED and len(members.sessions) >= LEAST_MEMBERS:
                self._drainer.pause(PAUSE_S)
            with members.order:
                members.crowd = max(members.queued, members.crowd, 1) - 1
                members.queued = 0
                outboxes = members.outboxes or self._copy(name, members)
        # A session that has left is no longer a member, but its outbox may still have unsent messages.
        left = [] if outboxes is members.written else self._writers.flush(members.left)
        members.left = left + self._writers.flush(outboxes)
        members.written = outboxes if members.left and not left else None
        with members.order:
            members.sending = bool(members.left) or members.queued > 0
            return members.sending

    def _copy(self, name: str, members: Members) -> tuple[Outbox, ...]:
        """The members' outboxes, cached until a session joins or leaves."""

        outboxes: tuple[Outbox, ...] = ()

        def copy(current: Members) -> Members:
            nonlocal outboxes
            if current is members:
                outboxes = current.outboxes = tuple(sorted(current.sessions.values(), key=ENCODING_NAME))
            return current

        self._members.compute_if_present(name, copy)
        return outboxes
