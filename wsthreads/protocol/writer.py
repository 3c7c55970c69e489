"""The part of an outbox that writes to its connection, with its lock held.

Frames that the kernel has no space for wait in a `Backlog`. The flusher, a thread for all outboxes, writes them later.
There are limits for the bytes that wait, and for the seconds without progress. An outbox that keeps written messages
(`Kept`) stops writing when its *window* is full, which means that too many bytes are not acknowledged. The outbox
continues when the client acknowledges some. Without a connection, frames only wait.

An outbox is *blocked* while it cannot write. To *drain* an outbox is to write its queue and its backlog. Methods whose
name ends with `_locked` are called with the lock held.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from threading import RLock as _RLock
from time import monotonic
from typing import TYPE_CHECKING

from wsthreads._native import speedups
from wsthreads.monitoring.metrics import Tally
from wsthreads.protocol.backlog import Backlog
from wsthreads.protocol.envelope import is_counted
from wsthreads.protocol.frame_holder import FrameHolder
from wsthreads.protocol.transport import NOWHERE, Transport
from wsthreads.protocol.unacknowledged import Kept, nobody_cares
from wsthreads.threads.flusher import Flusher, Timer

__all__ = ["RLock", "Writer"]

#: The first bytes of data that is not a message: close frames, pings, pongs, and the HTTP response.
NO_MESSAGE = (b"\x88", b"\x89", b"\x8a", b"HTTP/")

RLock = _RLock if speedups is None else speedups.RLock


class OutboxState(Tally):
    """The attributes of a `Writer` that C functions use. In the C version, access to them does not need the GIL."""

    __slots__ = (
        "_close_frame",
        "_detached",
        "_draining",
        "_fd",
        "_kept",
        "_lock",
        "_queue",
        "is_blocked",
    )


if not TYPE_CHECKING and speedups is not None:
    OutboxState = speedups.OutboxState


class Writer(OutboxState):
    """The part of `Outbox` that writes. `on_stuck(reason)` is called while no lock is held."""

    __slots__ = (
        "_backlog",
        "_discards",
        "_excused",
        "_is_full",
        "_on_stuck",
        "_progress_at",
        "_room",
        "_sealed",
        "_stall_timer",
        "_stuck",
        "_timeout_s",
        "_transport",
        "flusher",
        "frame_holder",
        "latest_replaced",
        "max_bytes",
    )

    def __init__(
        self,
        transport: Transport,
        flusher: Flusher,
        *,
        max_bytes: int,
        timeout_s: float,
        on_stuck: Callable[[str], None],
    ) -> None:
        #: At most this many bytes may wait for the client.
        self.max_bytes = max_bytes
        #: Holds frames back before they come to the queue. None without a broker.
        self.frame_holder: FrameHolder | None = None
        self._transport = transport
        #: The thread that runs this outbox's timers and watches its socket.
        self.flusher = flusher
        self._timeout_s = timeout_s
        self._on_stuck = on_stuck
        # Any thread appends. Frames are removed with the lock held. It is always the same list.
        self._queue: list[bytes] = []
        self._fd = transport.plain_fd  # for send_queues; -1 if it must not write directly
        # Guards everything below, and every write to the transport. While a thread holds it, the thread makes no
        # callback or log call, and does not wait for the network. After a thread has released it, the thread must call
        # flush().
        self._lock = RLock()
        self.messages_out = 0  # how many messages were taken from the queue to be written
        self.bytes_out = 0  # how many bytes the kernel has taken
        self.kept_bytes = 0  # the bytes of _kept
        self.window = 0  # while the frames in _kept have more bytes than this, nothing is written
        # how many of messages_out were not written, because another message with the same key replaced them
        self.latest_replaced = 0
        # The frames that were taken from the queue and not sent. Empty unless is_blocked. Made when it is needed first,
        # because most clients read quickly.
        self._backlog: Backlog | None = None
        # True while the kernel is full (the flusher will then call _on_room), while the window is full, or without a
        # connection. The attribute stays true until all waiting frames are written. Other threads read it without the
        # lock, to decide whether to wait for space.
        self.is_blocked = transport is NOWHERE
        self._is_full = False  # whether is_blocked is true because the window is full
        self._kept: Kept | None = None
        self._progress_at = 0.0
        self._stall_timer: Timer | None = None
        self._stuck = False
        # how many more bytes than max_bytes may wait, and until when; only `excuse` sets it to more
        self._excused = (0, 0.0)
        self._close_frame: bytes | None = None  # once set, nothing may be appended; set once, without the lock
        self._discards = False  # whether the close frame drops the frames before it; set before _close_frame
        self._sealed = False  # whether the close frame was taken from the queue; later frames are dropped
        self._detached = False  # whether the outbox is over and has given the transport back to the WSGI server
        # Whether a thread is writing. A finalizer that sends in this thread could otherwise begin again, as the lock is
        # an RLock.
        self._draining = False
        self._room: Condition | None = None  # made for the first thread that waits for space

    def flush(self) -> None:
        """See `Outbox.flush`."""
        raise NotImplementedError

    def _backlog_bytes(self) -> int:
        backlog = self._backlog
        return 0 if backlog is None else backlog.bytes

    def _take_locked(self) -> None:
        """Move the frames of the queue to the backlog. Drops frames after the close frame."""
        queue, kept = self._queue, self._kept
        count = len(queue)  # frames that are appended later are for the next call
        frames = queue[:count]
        del queue[:count]
        for frame in frames:
            if self._sealed or self._detached:
                return
            backlog = self._backlog
            if backlog is None:
                backlog = self._backlog = Backlog(keeps=kept is not None)
            if frame is self._close_frame:
                self._sealed = True
                if self._discards:
                    backlog.discard()
            self.latest_replaced += backlog.add(frame)
            self.messages_out += not frame.startswith(NO_MESSAGE) if kept is None else is_counted(frame)

    def _drain_locked(self, *, has_room: bool = False) -> None:
        """Write all frames, until the kernel has no more space.

        Afterwards, the queue has only frames that were appended in the meantime.

        If the outbox is blocked, this only moves frames to the backlog, unless `has_room` says that there is space
        again.
        """
        if self._draining:
            return  # this thread is writing already, in a caller of this method
        self._draining = True
        try:
            self._take_locked()
            if self._is_full and self._close_frame is not None:
                # the close frame is the last one, so no other connection will need the kept messages
                self._is_full = self.is_blocked = False
            has_room |= not self.is_blocked
            transport = self._transport  # a finalizer may release the transport in the meantime
            while has_room and self._transport is transport and (backlog := self._backlog) and backlog.pieces:
                if self.kept_bytes > self.window and self._close_frame is None:
                    self._is_full = True
                    self._block_locked(backlog, 0, has_progressed=False)
                    return
                data = backlog.first()
                try:
                    sent = transport.send(memoryview(data)[backlog.offset :] if backlog.offset else data)
                except OSError:
                    self._lose_locked()
                    return
                has_room = self._settle_locked(backlog, len(data) - backlog.offset, sent)
                self._take_locked()
            if has_room and self._transport is transport:
                self.is_blocked = False
        except BaseException:
            self._break_off_locked()
            raise
        finally:
            self._draining = False

    def _settle_locked(self, backlog: Backlog, tried: int, sent: int) -> bool:
        """Note the result of a write: of the first `tried` bytes of the backlog, `sent` bytes were sent.

        Returns False if the outbox is blocked.
        """
        self.bytes_out += sent
        self.kept_bytes += backlog.advance(sent, self._kept)
        if sent == tried:
            return True
        self.flusher.watch(self._transport.fileno(), self._on_room)
        self._block_locked(backlog, min(tried - sent, self._transport.tried_bytes), has_progressed=sent > 0)
        return False

    def _block_locked(self, backlog: Backlog, begun: int, *, has_progressed: bool) -> None:
        self.is_blocked = True
        self.latest_replaced += backlog.hold(begun)
        if has_progressed or self._stall_timer is None:
            self._progress_at = monotonic()
        if self._stall_timer is None:
            self._stall_timer = self.flusher.call_later(self._timeout_s, self._on_stall_timer)

    def _after_send_locked(self, data: bytes | list[bytes] | None, sent: int) -> None:
        """Continue after `send_queues`, for an outbox whose queue was not sent completely."""
        if data is None:  # send_queues does not write for this outbox: it has TLS, is closing, or is over
            self._drain_locked()
            return
        kept = self._kept
        frames = [data] if isinstance(data, bytes) else data
        try:
            if kept is not None:
                self.kept_bytes -= kept.take_back(frames)
                if sent < 0:  # send_queues has not counted the messages
                    self.messages_out += sum(map(is_counted, frames))
            elif sent < 0:
                self._end_locked()
                return
            backlog = self._backlog = Backlog(keeps=kept is not None)  # there was no backlog, or an empty one
            for frame in frames:
                backlog.add(frame)
            if sent < 0:
                self._lose_locked()
            else:
                self._settle_locked(backlog, backlog.bytes, sent)
        except BaseException:
            self._break_off_locked()
            raise
        finally:
            self._draining = False  # send_queues has set this

    def _hold_locked(self) -> str:
        """Move queued frames to the backlog, because the outbox is blocked.

        If too many bytes wait, returns the reason, but only the first time. Otherwise returns "".
        """
        self._drain_locked()
        backlog, waiting = self._backlog, self._backlog_bytes()
        if backlog is None or waiting <= self.max_bytes or self._stuck or self._close_frame is not None:
            return ""
        if backlog.count < 2 or waiting <= self.max_bytes + self._excused_bytes():
            return ""  # a single frame may have any size if nothing else waits
        self._stuck = True
        return f"{waiting} bytes wait, the limit is {self.max_bytes}"

    def _excused_bytes(self) -> int:
        size, until = self._excused
        return size if size and monotonic() < until else 0

    def _on_room(self) -> None:
        """Called by the flusher when the kernel has space again, or the connection has failed."""
        with self._lock:
            if self._detached or self._is_full or self._transport is NOWHERE:
                return
            self._go_on_locked()
        self.flush()

    def _go_on_locked(self) -> None:
        """Continue to write, because the kernel or the window has space again."""
        self._is_full = False
        self._drain_locked(has_room=True)
        if not self.is_blocked:
            self._backlog = None  # most clients need no backlog afterwards
            self._cancel_stall_timer_locked()
        if self._room is not None:
            self._room.notify_all()

    def _on_stall_timer(self) -> None:
        """Check whether a blocked connection has made any progress. Called by the flusher."""
        report = False
        with self._lock:
            self._stall_timer = None
            if self.is_blocked and not self._detached and self._transport is not NOWHERE:
                left = self._progress_at + self._timeout_s - monotonic()
                if left > 0:
                    self._stall_timer = self.flusher.call_later(left, self._on_stall_timer)
                else:
                    report = not self._stuck and self._close_frame is None
                    self._stuck = True
            on_stuck = self._on_stuck
        self.flush()
        if report:
            on_stuck(f"nothing was read for {self._timeout_s:g} s")

    def _is_between_locked(self) -> bool:
        """Whether the connection takes more bytes, and no frame is written only partly."""
        if self._transport is NOWHERE or (self.is_blocked and not self._is_full):
            return False
        return self._backlog is None or not self._backlog.begun

    def _lose_locked(self) -> None:
        """Drop the connection, because it is lost. The thread that reads will notice the loss by itself."""
        if self._kept is None or self._close_frame is not None:
            self._end_locked()
        else:
            self._unplug_locked(self._kept)

    def _unplug_locked(self, kept: Kept) -> None:
        """Continue without a connection, and keep all messages that are not acknowledged.

        The next connection gets the messages that the client does not have.
        """
        self._take_locked()  # before `restart`, so that it also drops queued frames that are not counted
        if self._transport is not NOWHERE:
            self._transport, self._fd = NOWHERE, -1
            self.max_bytes, self._on_stuck = kept.swap(self.max_bytes, nobody_cares)
        self.is_blocked, self._is_full, self._stuck, self._excused = True, False, False, (0, 0.0)
        if self._backlog is None:
            self._backlog = Backlog(keeps=True)
        self.kept_bytes += kept.add(self._backlog.written)
        self.latest_replaced += self._backlog.restart()
        self._cancel_stall_timer_locked()
        if self._room is not None:
            self._room.notify_all()

    def _break_off_locked(self) -> None:
        """End the connection after an error, because it is unknown how much was sent.

        The thread that reads notices the end.
        """
        transport = self._transport
        self._end_locked()
        transport.abort()

    def _end_locked(self) -> None:
        self._detached = True
        self._fd = -1
        self.is_blocked = self._is_full = False
        self.frame_holder = None
        self._on_stuck = nobody_cares  # without this, a cycle of references would keep the connection in memory
        self._queue.clear()
        self._backlog = None
        if self._kept is not None:
            self._kept.end()
            self.kept_bytes = 0
        self._cancel_stall_timer_locked()
        if self._room is not None:
            self._room.notify_all()

    def _cancel_stall_timer_locked(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        with self._lock:
            self._drain_locked()
            if self._room is None:
                self._room = Condition(self._lock)
            result = self._room.wait_for(lambda: self._detached or done(), timeout_s)
        self.flush()
        return result

    def _check(self) -> None:
        """Check the invariants, for tests."""
        with self._lock:
            if self._backlog is not None:
                self._backlog._check()
            if self.is_blocked:
                assert self._backlog_bytes() or self._transport is NOWHERE, "blocked with nothing to send"
            assert self._sealed <= (self._close_frame is not None)
            assert self._is_full <= self.is_blocked
            assert self.kept_bytes == sum(map(len, self._kept or ()))
            assert all(map(is_counted, self._kept or ()))
