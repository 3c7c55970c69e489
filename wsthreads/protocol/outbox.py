"""A session's outgoing queue, bounded, and its combining writer.

Guarantees, for any number of threads:

- Frames leave whole and in the order of `append`, and none after the close frame.
- `append` only appends to memory. It takes no lock, so it may be called under a room's order lock.
- `flush` never blocks on the network: a thread that finds the lock taken leaves its frames to the holder, who looks
  again after letting go. What the kernel has no room for is left to the flusher.
- What waits is bounded, in bytes and in seconds without progress. Past either, `on_stuck` is called, once. Bytes are
  counted by the holder of the lock: what others append while it writes, for whom it looks again, comes on top.

`fanout` does the same for many outboxes. Both rely on list operations being atomic, with and without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from threading import RLock as _RLock
from time import monotonic

from wsthreads._native import speedups
from wsthreads.monitoring.metrics import Tally
from wsthreads.protocol.backlog import Backlog
from wsthreads.protocol.encoding import PLAIN, Encoding
from wsthreads.protocol.front import Front
from wsthreads.protocol.transport import Transport
from wsthreads.threads.flusher import Flusher, Timer

__all__ = ["Outbox", "post", "send_queues"]

#: What the kernel takes of messages with keys before the network does. Otherwise it takes some megabytes for a client
#: on a slow line, and what the client reads is as old.
UNSENT_BYTES = 32 * 1024

#: How what is no message begins: close frames, pings, pongs, the HTTP answer.
NO_MESSAGE = (b"\x88", b"\x89", b"\x8a", b"HTTP/")

RLock = _RLock if speedups is None else speedups.RLock


class Outbox(Tally):
    """Frames on their way to one client, and how many have gone out. `on_stuck(reason)` is called without any lock."""

    __slots__ = (
        "_backlog",
        "_close_frame",
        "_detached",
        "_discards",
        "_draining",
        "_excused",
        "_fd",
        "_lock",
        "_on_stuck",
        "_progress_at",
        "_queue",
        "_room",
        "_sealed",
        "_stall_timer",
        "_stuck",
        "_timeout_s",
        "_transport",
        "encoding",
        "flusher",
        "front",
        "is_blocked",
        "is_short",
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
        encoding: Encoding = PLAIN,
    ) -> None:
        #: Makes the client's frames. Whoever appends a message has encoded it.
        self.encoding = encoding
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
        self.latest_replaced = 0  # of messages_out, not written: one with the same key came
        # Taken from the queue, and not sent; empty unless is_blocked. Made when it is needed: most clients are quick.
        self._backlog: Backlog | None = None
        self.is_short = False  # see `keep_short`
        self.is_blocked = False  # the kernel is full, and the flusher will call _on_room
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

    def keep_short(self) -> None:
        """From now on, leave little to the kernel: messages with keys can only be replaced here. Idempotent."""
        if not self.is_short:
            self.is_short = True
            self._transport.limit_unsent(UNSENT_BYTES)

    def excuse(self, size: int) -> None:
        """Frames are about to be appended that were held back, so that the client could not read them before.

        So many more bytes may wait for it, for as long as it may read nothing. One thread at a time.
        """
        if size > self._excused_bytes():
            self._excused = (size, monotonic() + self._timeout_s)

    def excuse_more(self, size: int, at_most: int) -> None:
        """`excuse` for frames that come in addition to those of earlier calls; `at_most` so many bytes in all."""
        self.excuse(min(self._excused_bytes() + size, at_most))

    def wait_for_room(self, size: int, timeout_s: float) -> bool:
        """Wait until `size` more bytes would be within the bound, at most `timeout_s`. False if they are not."""

        def has_room() -> bool:
            return not self.is_blocked or self._backlog_bytes() + size <= self.max_bytes

        return self._wait(has_room, timeout_s)

    def wait_sent(self, timeout_s: float) -> bool:
        """Wait until nothing is queued any more, at most `timeout_s`. True also if the connection is lost."""
        deadline = monotonic() + timeout_s
        if not self.wait_released(timeout_s):
            return False
        timeout_s = max(0.0, deadline - monotonic())
        return self._wait(lambda: not self.is_blocked and not self._backlog_bytes(), timeout_s)

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
            self.flusher.forget(descriptor)

    def give_up(self) -> None:
        """`detach`, in a forked process: another thread of its parent may hold the lock."""
        self._lock, self._room, self._draining = RLock(), None, False
        self._end_locked()

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more: the connection was found lost, or let go of."""
        return self._detached

    @property
    def is_queued(self) -> bool:
        """Whether frames wait for the thread that is writing now: it sends them next."""
        return bool(self._queue)

    @property
    def bytes_waiting(self) -> int:
        """Bytes that the kernel has not taken, with those that are held in front. A snapshot."""
        front = self.front
        return (self._backlog_bytes() if self.is_blocked else 0) + (0 if front is None else front._held_bytes)

    def _wait(self, done: Callable[[], bool], timeout_s: float) -> bool:
        with self._lock:
            self._drain_locked()
            if self._room is None:
                self._room = Condition(self._lock)
            result = self._room.wait_for(lambda: self._detached or done(), timeout_s)
        self.flush()
        return result

    def _backlog_bytes(self) -> int:
        backlog = self._backlog
        return 0 if backlog is None else backlog.bytes

    def _take_locked(self) -> None:
        """Move the queue to the backlog, and drop what came behind the close frame, or too late."""
        queue = self._queue
        count = len(queue)  # what is appended meanwhile is for the next look
        frames = queue[:count]
        del queue[:count]
        for frame in frames:
            if self._sealed or self._detached:
                return
            backlog = self._backlog
            if backlog is None:
                backlog = self._backlog = Backlog()
            if frame is self._close_frame:
                self._sealed = True
                if self._discards:
                    backlog.discard()
            self.latest_replaced += backlog.add(frame)
            self.messages_out += not frame.startswith(NO_MESSAGE)

    def _drain_locked(self) -> None:
        """Write everything there is, until the kernel has no more room. Leaves the queue empty, but for newcomers."""
        if self._draining:
            return  # this thread does so already, further up its stack
        self._draining = True
        try:
            self._take_locked()
            while (backlog := self._backlog) is not None and backlog.pieces and not self.is_blocked:
                data = backlog.first()
                try:
                    sent = self._transport.send(memoryview(data)[backlog.offset :] if backlog.offset else data)
                except OSError:
                    self._end_locked()  # the reader finds out by itself
                    return
                self._settle_locked(backlog, len(data) - backlog.offset, sent)
                self._take_locked()
        except BaseException:
            self._break_off_locked()
            raise
        finally:
            self._draining = False

    def _settle_locked(self, backlog: Backlog, tried: int, sent: int) -> None:
        """Go on from a write: of the first `tried` bytes of the backlog, `sent` are on the wire."""
        self.bytes_out += sent
        backlog.advance(sent)
        if sent == tried:
            return
        self.is_blocked = True
        self.latest_replaced += backlog.hold(min(tried - sent, self._transport.tried_bytes))
        if sent or self._stall_timer is None:
            self._progress_at = monotonic()
        self.flusher.watch(self._transport.fileno(), self._on_room)
        if self._stall_timer is None:
            self._stall_timer = self.flusher.call_later(self._timeout_s, self._on_stall_timer)

    def _after_send_locked(self, data: bytes | list[bytes] | None, sent: int) -> None:
        """Go on from `send_queues`, for an outbox whose queue it has not sent completely."""
        if data is None:  # it is not for it to write to: TLS, closing, over
            self._drain_locked()
            return
        try:
            if sent < 0:
                self._end_locked()
            else:
                backlog = self._backlog = Backlog()  # there was none, or an empty one
                for piece in [data] if isinstance(data, bytes) else data:
                    backlog.add(piece)
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
            if self._detached:
                return
            self.is_blocked = False
            self._drain_locked()
            if not self.is_blocked:
                self._backlog = None  # as for most clients
                self._cancel_stall_timer_locked()
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
                    self._stall_timer = self.flusher.call_later(left, self._on_stall_timer)
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
        self._backlog = None
        self._cancel_stall_timer_locked()
        if self._room is not None:
            self._room.notify_all()

    def _cancel_stall_timer_locked(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _check(self) -> None:
        """The invariants, for tests."""
        with self._lock:
            if self._backlog is not None:
                self._backlog._check()
            if self.is_blocked:
                assert self._backlog_bytes(), "blocked with nothing to send"
            assert self._sealed <= (self._close_frame is not None)


def _nobody_cares(reason: str) -> None:
    """The `on_stuck` of an outbox that is over."""


def _send_queues(outboxes: list[Outbox]) -> list[tuple[Outbox, bytes | list[bytes] | None, int]]:
    """Write the queues of outboxes whose locks the caller holds, and which are not draining.

    Returns what the caller has to go on with, by `_after_send_locked`: the outbox, and, where it was written to, the
    data that was not sent completely and how much of it was sent, or -errno. The data is in its frames if any of them
    is a `MarkedFrame`. Here that is all of the outboxes, untouched.
    """
    return [(outbox, None, 0) for outbox in outboxes]


def _post(outbox: Outbox, frame: bytes) -> bool:
    """`append` a frame and `flush`, as for every message to one client. False if the outbox is closed."""
    if not outbox.append(frame):
        return False
    outbox.flush()
    return True


send_queues = _send_queues if speedups is None else speedups.send_queues
post = _post if speedups is None else speedups.post
