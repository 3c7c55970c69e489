"""A session's outgoing queue, bounded, and its combining writer.

Guarantees, for any number of threads:

- Frames leave whole and in the order of `append`, and none after the close frame.
- `append` only appends to memory. It takes no lock, so it may be called under a room's order lock.
- `flush` never blocks on the network: a thread that finds the lock taken leaves its frames to the holder, who looks
  again after letting go. What the kernel has no room for is left to the flusher.
- What waits is bounded, in bytes and in seconds without progress. Past either, `on_stuck` is called, once. Bytes are
  counted by the holder of the lock: what others append while it writes, for whom it looks again, comes on top.

`append_all` and `flush_all` do the same for the members of a room. For both there is C in `_native._speedups`: the
writes to many sockets happen in one go there, without the GIL.

It relies on each operation of a list being atomic, as it is with and without the GIL.

Over 400 lines, since a write to one client and a write to a room's members are one protocol, over the same lock and the
same marks: where either changes, the other does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from threading import Condition
from threading import RLock as _RLock
from time import monotonic
from typing import Protocol

from wsthreads._native import speedups
from wsthreads.monitoring.metrics import Tally
from wsthreads.protocol.transport import Transport
from wsthreads.threads.flusher import Flusher, Timer

__all__ = ["Outbox", "append_all", "flush_all", "post"]

#: Frames that wait are joined to writes of this size or so. Not all at once: a slow client takes little at a time, and
#: what is joined is its own, while frames are shared by the members of a room.
WRITE_BYTES = 65536

#: How what is no message begins: close frames, pings, pongs, the HTTP answer.
NO_MESSAGE = (b"\x88", b"\x89", b"\x8a", b"HTTP/")

#: So many outboxes are locked at a time to write to them in one go: some milliseconds. In C each go takes the GIL once,
#: and where many want it, that takes as long.
BATCH = 1024

RLock = _RLock if speedups is None else speedups.RLock


class Front(Protocol):
    """Holds frames of a session back before they come to its outbox: over a broker, what is behind a broadcast."""

    @property
    def _held_bytes(self) -> int:
        """A snapshot."""

    def _hold_close(self, frame: bytes) -> bool:
        """Keep the close frame, to append it behind all that comes before it. False, and nothing happens, if that is
        here already. Does not wait."""

    def _wait_released(self, timeout_s: float) -> bool:
        """Wait until nothing is held, at most `timeout_s`. False if something is."""


class Outbox(Tally):
    """Frames on their way to one client, and how many messages and bytes have gone out.

    `on_stuck(reason)` is called without any lock held, by the thread that notices.
    """

    __slots__ = (
        "_backlog",
        "_backlog_bytes",
        "_close_frame",
        "_detached",
        "_discards",
        "_draining",
        "_excused",
        "_fd",
        "_flusher",
        "_lock",
        "_offset",
        "_on_stuck",
        "_progress_at",
        "_queue",
        "_room",
        "_sealed",
        "_stall_timer",
        "_stuck",
        "_timeout_s",
        "_transport",
        "front",
        "is_blocked",
        "max_bytes",
        "window_bits",
    )

    def __init__(
        self,
        transport: Transport,
        flusher: Flusher,
        *,
        max_bytes: int,
        timeout_s: float,
        on_stuck: Callable[[str], None],
        window_bits: int = 0,
    ) -> None:
        #: The client takes deflated messages, from a window of so many bits; 0 if it takes none.
        self.window_bits = window_bits
        #: What may wait for the client, in bytes.
        self.max_bytes = max_bytes
        #: What holds frames back; None, as without a broker, if nothing does.
        self.front: Front | None = None
        self._transport = transport
        self._flusher = flusher
        self._timeout_s = timeout_s
        self._on_stuck = on_stuck
        self._queue: list[bytes] = []  # appended to by anybody, taken from under the lock; always the same list
        self._fd = transport.plain_fd  # for send_queues; -1 where it must not write by itself
        # The session's lock guards everything below, and every write to the transport. Nobody calls back, logs or
        # waits for the network under it. Whoever held it must flush() after letting go.
        self._lock = RLock()
        self.messages_out = 0  # taken from the queue, to be written
        self.bytes_out = 0  # taken by the kernel
        self._backlog: deque[bytes] = deque()  # taken from the queue, and not sent; empty unless is_blocked
        self._backlog_bytes = 0  # of the backlog, less _offset
        self._offset = 0  # bytes of the backlog's first piece that are on the wire
        self.is_blocked = False  # the kernel is full, and the flusher will call _on_room
        self._progress_at = 0.0
        self._stall_timer: Timer | None = None
        self._stuck = False
        self._excused = (0, 0.0)  # so many bytes more may wait, until then; written by `excuse` alone
        self._close_frame: bytes | None = None  # nothing may be appended any more; set without the lock, and once
        self._discards = False  # what waits before it is dropped when it is taken from the queue; set before it
        self._sealed = False  # it has been taken from the queue: what comes behind it is dropped
        self._detached = False  # the transport is not ours any more
        self._draining = False  # a finalizer that sends may come back into _drain_locked: an RLock lets it in
        self._room: Condition | None = None  # made for the first thread that waits for room

    def append(self, frame: bytes) -> bool:
        """Queue a frame; False, and nothing happens, once the outbox is closed. Call `flush` afterwards."""
        if self._close_frame is not None or self._detached:
            return False
        self._queue.append(frame)
        return True

    def flush(self) -> None:
        """Send what is queued, or see to it that somebody does. Does not wait for the client."""
        # _draining: its thread looks at the queue again afterwards. Without it, a finalizer that sends in the midst
        # of a drain would get past the lock, which is its own thread's.
        while self._queue and not self._draining:
            if not self._lock.acquire(False):
                return
            over = ""
            try:
                if self.is_blocked:
                    over = self._hold_locked()
                else:
                    for _, data, sent in send_queues([self]):
                        self._after_send_locked(data, sent)
            finally:
                self._lock.release()
            if over:
                self._on_stuck(over)

    def flush_surely(self) -> None:
        """`flush`, but wait for a thread that writes: what was appended until now is on its way when this returns."""
        with self._lock:
            self._drain_locked()
        self.flush()

    def close(self, frame: bytes, *, discard: bool = False) -> bool:
        """Queue the close frame, the last that is sent; False if there was one already. Like `append`, it waits for no
        lock: others may send to this client without a pause, and who closes it may be another client's thread.

        With `discard`, what waits is dropped, but for a write that has begun: the peer does not read it. Of two calls
        at once, both may count as the first: `Connection` decides before whose it is.
        """
        front = self.front
        if front is not None and not discard and front._hold_close(frame):
            return True
        if not self.append_close(frame, discard=discard):
            return False
        self.flush()
        return True

    def append_close(self, frame: bytes, *, discard: bool = False) -> bool:
        """`close`, but past what is held in front; call `flush` afterwards."""
        if self._close_frame is not None or self._detached:
            return False
        self._discards = discard
        self._close_frame = frame
        self._queue.append(frame)
        return True

    def excuse(self, size: int) -> None:
        """Frames are about to be appended that were held back, so that the client could not read them before.

        So many more bytes may wait for it, for as long as it may read nothing. One thread at a time.
        """
        if size > self._excused_bytes():
            self._excused = (size, monotonic() + self._timeout_s)

    def wait_for_room(self, size: int, timeout_s: float) -> bool:
        """Wait until `size` more bytes would be within the bound, at most `timeout_s`. False if they are not."""

        def has_room() -> bool:
            return not self.is_blocked or self._backlog_bytes + size <= self.max_bytes

        return self._wait(has_room, timeout_s)

    def wait_sent(self, timeout_s: float) -> bool:
        """Wait until nothing is queued any more, at most `timeout_s`. True also if the connection is lost."""
        deadline = monotonic() + timeout_s
        if not self.wait_released(timeout_s):
            return False
        timeout_s = max(0.0, deadline - monotonic())
        return self._wait(lambda: not self.is_blocked and not self._backlog, timeout_s)

    def wait_released(self, timeout_s: float) -> bool:
        """Wait until nothing is held in front, at most `timeout_s`. True also where nothing can be sent any more."""
        front = self.front
        return front is None or self._close_frame is not None or self._detached or front._wait_released(timeout_s)

    def detach(self) -> None:
        """Let go of the transport, for good. After this no byte is written, whoever calls what."""
        with self._lock:
            self._end_locked()
            descriptor = self._transport.fileno()
        if descriptor >= 0:
            self._flusher.forget(descriptor)

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more: the connection was found lost, or let go of."""
        return self._detached

    @property
    def flusher(self) -> Flusher:
        """What keeps time for it."""
        return self._flusher

    @property
    def is_queued(self) -> bool:
        """Whether something has been appended that nobody has begun to send: another thread writes, and will."""
        return bool(self._queue)

    @property
    def bytes_waiting(self) -> int:
        """Bytes that the kernel has not taken, with those that are held in front. A snapshot."""
        front = self.front
        return (self._backlog_bytes if self.is_blocked else 0) + (0 if front is None else front._held_bytes)

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        with self._lock:
            self._drain_locked()
            if self._room is None:
                self._room = Condition(self._lock)
            result = self._room.wait_for(lambda: self._detached or done(), timeout_s)
        self.flush()
        return result

    def _take_locked(self) -> None:
        """Move the queue to the backlog, and drop what came behind the close frame, or too late."""
        queue, backlog = self._queue, self._backlog
        count = len(queue)  # what is appended meanwhile is for the next look
        frames = queue[:count]
        del queue[:count]
        for frame in frames:
            if self._sealed or self._detached:
                return
            if frame is self._close_frame:
                self._sealed = True
                if self._discards:
                    self._discard_locked()
            backlog.append(frame)
            self._backlog_bytes += len(frame)
            self.messages_out += not frame.startswith(NO_MESSAGE)

    def _discard_locked(self) -> None:
        """Drop the backlog. What has begun must be sent to its end; under TLS, so must what was only tried."""
        begun = self._offset > 0 or (self.is_blocked and self._transport.plain_fd < 0)
        while len(self._backlog) > begun:
            self._backlog_bytes -= len(self._backlog.pop())

    def _drain_locked(self) -> None:
        """Write everything there is, until the kernel has no more room. Leaves the queue empty, but for newcomers."""
        if self._draining:
            return  # this thread does so already, further up its stack
        self._draining = True
        try:
            self._take_locked()
            while self._backlog and not self.is_blocked:
                data = self._join_locked()
                try:
                    sent = self._transport.send(memoryview(data)[self._offset :] if self._offset else data)
                except OSError:
                    self._end_locked()  # the reader finds out by itself
                    return
                self._settle_locked(data, self._offset + sent)
                self._take_locked()
        except BaseException:
            self._break_off_locked()
            raise
        finally:
            self._draining = False

    def _join_locked(self) -> bytes:
        """Make one piece of the first ones of the backlog, and return it."""
        backlog = self._backlog
        if len(backlog) > 1 and len(backlog[0]) < WRITE_BYTES:
            pieces, size = [], 0
            while backlog and size < WRITE_BYTES:
                pieces.append(backlog.popleft())
                size += len(pieces[-1])
            backlog.appendleft(b"".join(pieces))
        return backlog[0]

    def _settle_locked(self, data: bytes, sent: int) -> None:
        """Go on from a write: `sent` bytes of `data`, the backlog's first piece, are on the wire."""
        progress = sent - self._offset
        self.bytes_out += progress
        self._backlog_bytes -= progress
        if sent == len(data):
            self._backlog.popleft()
            self._offset = 0
            return
        self.is_blocked = True
        if progress or self._stall_timer is None:
            self._progress_at = monotonic()
        self._offset = sent
        self._flusher.watch(self._transport.fileno(), self._on_room)
        if self._stall_timer is None:
            self._stall_timer = self._flusher.call_later(self._timeout_s, self._on_stall_timer)

    def _after_send_locked(self, data: bytes | None, sent: int) -> None:
        """Go on from `send_queues`, for an outbox whose queue it has not sent completely."""
        if data is None:  # it is not for it to write to: TLS, closing, over
            self._drain_locked()
            return
        try:
            if sent < 0:
                self._end_locked()
            else:
                self._backlog.append(data)  # the first piece: there was none
                self._backlog_bytes = len(data)
                self._settle_locked(data, sent)
        except BaseException:
            self._break_off_locked()
            raise
        finally:
            self._draining = False  # send_queues has set it

    def _hold_locked(self) -> str:
        """Count what is queued while the kernel is full. If it is over the bound, what is to be reported, once."""
        self._drain_locked()
        waiting = self._backlog_bytes
        if waiting <= self.max_bytes or len(self._backlog) < 2 or self._stuck or self._close_frame is not None:
            return ""  # one write is let in whatever its size, where nothing else waits
        if waiting <= self.max_bytes + self._excused_bytes():
            return ""
        self._stuck = True
        return f"{waiting} bytes wait, at most {self.max_bytes} may"

    def _excused_bytes(self) -> int:
        size, until = self._excused
        return size if size and monotonic() < until else 0

    def _on_room(self) -> None:
        """The flusher's: the kernel has room again, or the connection has failed."""
        with self._lock:
            if self._detached:
                return
            self.is_blocked = False
            self._drain_locked()
            if not self.is_blocked and self._stall_timer is not None:
                self._stall_timer.cancel()
                self._stall_timer = None
            if self._room is not None:
                self._room.notify_all()
        self.flush()

    def _on_stall_timer(self) -> None:
        """The flusher's: look whether a full connection has made any progress."""
        report = False
        with self._lock:
            self._stall_timer = None
            if self.is_blocked and not self._detached:
                left = self._progress_at + self._timeout_s - monotonic()
                if left > 0:
                    self._stall_timer = self._flusher.call_later(left, self._on_stall_timer)
                else:
                    report = not self._stuck and self._close_frame is None
                    self._stuck = True
        self.flush()
        if report:
            self._on_stuck(f"nothing was read for {self._timeout_s:g} s")

    def _break_off_locked(self) -> None:
        """Nobody knows what is on the wire: end the connection, of which its reader learns by that."""
        self._end_locked()
        self._transport.abort()

    def _end_locked(self) -> None:
        self._detached = True
        self._fd = -1
        self.is_blocked = False
        self.front = None
        self._on_stuck = _nobody_cares  # and no cycle of references keeps the connection in memory
        self._queue.clear()
        self._backlog.clear()
        self._backlog_bytes = self._offset = 0
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        if self._room is not None:
            self._room.notify_all()

    def _check(self) -> None:
        """The invariants, for tests."""
        with self._lock:
            assert self._offset >= 0, self._offset
            assert not self._offset or self._offset < len(self._backlog[0]), (self._offset, len(self._backlog[0]))
            if self.is_blocked:
                assert self._backlog, "blocked with nothing to send"
                assert self._backlog_bytes == sum(map(len, self._backlog)) - self._offset
            assert self._sealed <= (self._close_frame is not None)


def _nobody_cares(reason: str) -> None:
    """The `on_stuck` of an outbox that is over."""


def flush_all(outboxes: Sequence[Outbox]) -> list[Outbox]:
    """`flush` each, many in one go. Returns those to which others left frames meanwhile: call again with them."""
    left: list[Outbox] = []
    failure: BaseException | None = None
    for start in range(0, len(outboxes), BATCH):
        locked, blocked = lock_queued(outboxes, start, BATCH)
        try:
            for outbox, data, sent in send_queues(locked):
                try:
                    outbox._after_send_locked(data, sent)
                except BaseException as error:  # it has ended that outbox; the others go on
                    failure = error
        finally:
            queued = unlock(locked)
        for outbox in blocked + queued:
            if outbox.is_blocked:
                outbox.flush()
            else:
                left.append(outbox)
    if failure is not None:
        raise failure
    return left


def _lock_queued(outboxes: Sequence[Outbox], start: int, count: int) -> tuple[list[Outbox], list[Outbox]]:
    """Of `count` outboxes from `start` on, those that have something queued: the locked ones, and the blocked ones.

    Those whose lock another thread has, or which this thread drains further up its stack, are left to them.
    """
    waiting = [outbox for outbox in outboxes[start : start + count] if outbox._queue and not outbox._draining]
    blocked = [outbox for outbox in waiting if outbox.is_blocked]
    return [outbox for outbox in waiting if not outbox.is_blocked and outbox._lock.acquire(False)], blocked


def _unlock(locked: list[Outbox]) -> list[Outbox]:
    """Let go of their locks. Returns those that have something queued again."""
    for outbox in locked:
        outbox._lock.release()
    return [outbox for outbox in locked if outbox._queue]


def _append_all(outboxes: tuple[Outbox, ...], frame: bytes, skip: Outbox | None) -> int:
    """`append` a frame to each but `skip`. Returns how many took it."""
    return sum(outbox is not skip and outbox.append(frame) for outbox in outboxes)


def _send_queues(outboxes: list[Outbox]) -> list[tuple[Outbox, bytes | None, int]]:
    """Write the queues of outboxes whose locks the caller holds, and which are not draining.

    Returns what the caller has to go on with, by `_after_send_locked`: the outbox, and, where it was written to, the
    data that was not sent completely and how much of it was sent, or -errno. Here that is all of them, untouched.
    """
    return [(outbox, None, 0) for outbox in outboxes]


def _post(outbox: Outbox, frame: bytes) -> bool:
    """`append` a frame and `flush`, as for every message to one client. False if the outbox is closed."""
    if not outbox.append(frame):
        return False
    outbox.flush()
    return True


append_all = _append_all if speedups is None else speedups.append_all
lock_queued = _lock_queued if speedups is None else speedups.lock_queued
unlock = _unlock if speedups is None else speedups.unlock
send_queues = _send_queues if speedups is None else speedups.send_queues
post = _post if speedups is None else speedups.post
