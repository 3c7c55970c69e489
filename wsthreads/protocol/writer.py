"""The part of an outbox that writes to its connection, under its lock.

What the kernel has no room for waits in a `Backlog`, and is left to the flusher. What waits is bounded, in bytes and in
seconds without progress. An outbox that keeps what it has written (`Kept`) writes no more than its window holds before
the client has acknowledged some of it. Without a connection it only collects.
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
from wsthreads.protocol.front import Front
from wsthreads.protocol.kept import Kept, nobody_cares
from wsthreads.protocol.transport import NOWHERE, Transport
from wsthreads.threads.flusher import Flusher, Timer

__all__ = ["RLock", "Writer"]

#: How what is no message begins: close frames, pings, pongs, the HTTP answer.
NO_MESSAGE = (b"\x88", b"\x89", b"\x8a", b"HTTP/")

RLock = _RLock if speedups is None else speedups.RLock


class OutboxState(Tally):
    """The attributes of a `Writer` that C functions use. In C, they do not need the GIL for that."""

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
    """`Outbox` without its methods for others. `on_stuck(reason)` is called without any lock."""

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
        "front",
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
        #: What may wait for the client, in bytes.
        self.max_bytes = max_bytes
        #: What holds frames back; None, as without a broker, if nothing does.
        self.front: Front | None = None
        self._transport = transport
        #: What keeps time for it.
        self.flusher = flusher
        self._timeout_s = timeout_s
        self._on_stuck = on_stuck
        self._queue: list[bytes] = []  # appended to by anybody, taken from under the lock; always the same list
        self._fd = transport.plain_fd  # for send_queues; -1 where it must not write by itself
        # Guards everything below, and every write to the transport. Nobody calls back, logs or waits for the network
        # under it. Whoever held it must flush() after letting go.
        self._lock = RLock()
        self.messages_out = 0  # taken from the queue, to be written
        self.bytes_out = 0  # taken by the kernel
        self.kept_bytes = 0  # of _kept
        self.window = 0  # with more than this in _kept, nothing is written
        self.latest_replaced = 0  # of messages_out, not written: one with the same key came
        # Taken from the queue, and not sent; empty unless is_blocked. Made when it is needed: most clients are quick.
        self._backlog: Backlog | None = None
        # The kernel is full, and the flusher will call _on_room; or the window is, or there is no connection. It stays
        # true until all that waits is written: others read it without the lock, to know whether to wait for room.
        self.is_blocked = transport is NOWHERE
        self._is_full = False  # is_blocked, until the client acknowledges something
        self._kept: Kept | None = None
        self._progress_at = 0.0
        self._stall_timer: Timer | None = None
        self._stuck = False
        self._excused = (0, 0.0)  # so many bytes more may wait, until then; written by `excuse` alone
        self._close_frame: bytes | None = None  # nothing may be appended any more; set without the lock, and once
        self._discards = False  # what waits before it is dropped when it is taken from the queue; set before it
        self._sealed = False  # it has been taken from the queue: what comes behind it is dropped
        self._detached = False  # the transport belongs to the WSGI server again
        self._draining = False  # a finalizer that sends may come back into _drain_locked: an RLock lets it in
        self._room: Condition | None = None  # made for the first thread that waits for room

    def flush(self) -> None:
        """See `Outbox`."""
        raise NotImplementedError

    def _backlog_bytes(self) -> int:
        backlog = self._backlog
        return 0 if backlog is None else backlog.bytes

    def _take_locked(self) -> None:
        """Move the queue to the backlog, and drop what came behind the close frame, or too late."""
        queue, kept = self._queue, self._kept
        count = len(queue)  # what is appended meanwhile is for the next look
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
        """Write everything there is, until the kernel has no more room. Leaves the queue empty, but for newcomers.

        An outbox that is blocked only collects, unless it `has_room` again.
        """
        if self._draining:
            return  # this thread does so already, further up its stack
        self._draining = True
        try:
            self._take_locked()
            if self._is_full and self._close_frame is not None:
                self._is_full = self.is_blocked = False  # no other connection will need what it keeps
            has_room |= not self.is_blocked
            transport = self._transport  # a finalizer may let go of it
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
        """Go on from a write: of the first `tried` bytes of the backlog, `sent` are on the wire. False: blocked."""
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
        """Go on from `send_queues`, for an outbox whose queue it has not sent completely."""
        if data is None:  # it is not for it to write to: TLS, closing, over
            self._drain_locked()
            return
        kept = self._kept
        frames = [data] if isinstance(data, bytes) else data
        try:
            if kept is not None:
                self.kept_bytes -= kept.take_back(frames)
                if sent < 0:  # send_queues has not counted them
                    self.messages_out += sum(map(is_counted, frames))
            elif sent < 0:
                self._end_locked()
                return
            backlog = self._backlog = Backlog(keeps=kept is not None)  # there was none, or an empty one
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
            self._draining = False  # send_queues has set it

    def _hold_locked(self) -> str:
        """Count what is queued while the kernel is full. If it is over the bound, what is to be reported, once."""
        self._drain_locked()
        backlog, waiting = self._backlog, self._backlog_bytes()
        if backlog is None or waiting <= self.max_bytes or self._stuck or self._close_frame is not None:
            return ""
        if backlog.count < 2 or waiting <= self.max_bytes + self._excused_bytes():
            return ""  # one write is let in whatever its size, where nothing else waits
        self._stuck = True
        return f"{waiting} bytes wait, at most {self.max_bytes} may"

    def _excused_bytes(self) -> int:
        size, until = self._excused
        return size if size and monotonic() < until else 0

    def _on_room(self) -> None:
        """The flusher's: the kernel has room again, or the connection has failed."""
        with self._lock:
            if self._detached or self._is_full or self._transport is NOWHERE:
                return
            self._go_on_locked()
        self.flush()

    def _go_on_locked(self) -> None:
        """There is room again."""
        self._is_full = False
        self._drain_locked(has_room=True)
        if not self.is_blocked:
            self._backlog = None  # as for most clients
            self._cancel_stall_timer_locked()
        if self._room is not None:
            self._room.notify_all()

    def _on_stall_timer(self) -> None:
        """The flusher's: look whether a full connection has made any progress."""
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
        """Whether the connection takes more, and no frame has been written in part."""
        if self._transport is NOWHERE or (self.is_blocked and not self._is_full):
            return False
        return self._backlog is None or not self._backlog.begun

    def _lose_locked(self) -> None:
        """The connection is lost. Its reader finds out by itself."""
        if self._kept is None or self._close_frame is not None:
            self._end_locked()
        else:
            self._unplug_locked(self._kept)

    def _unplug_locked(self, kept: Kept) -> None:
        """Go on without a connection. The next one gets what this one has not taken, and what is not acknowledged."""
        self._take_locked()  # so that what is no counted message is dropped with the rest
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
        """Nobody knows what is on the wire: end the connection, of which its reader learns by that."""
        transport = self._transport
        self._end_locked()
        transport.abort()

    def _end_locked(self) -> None:
        self._detached = True
        self._fd = -1
        self.is_blocked = self._is_full = False
        self.front = None
        self._on_stuck = nobody_cares  # and no cycle of references keeps the connection in memory
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
        """The invariants, for tests."""
        with self._lock:
            if self._backlog is not None:
                self._backlog._check()
            if self.is_blocked:
                assert self._backlog_bytes() or self._transport is NOWHERE, "blocked with nothing to send"
            assert self._sealed <= (self._close_frame is not None)
            assert self._is_full <= self.is_blocked
            assert self.kept_bytes == sum(map(len, self._kept or ()))
            assert all(map(is_counted, self._kept or ()))
