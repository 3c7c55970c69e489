"""The bounded queue of frames for one client. One thread at a time writes the frames of all threads that append.

For any number of threads, an outbox guarantees:

- Frames are sent whole, in the order of `append`. No frame is sent after the close frame.
- `append` only appends to memory. It takes no lock. So callers may hold the lock `order` of a room.
- `flush` never waits for the network. If another thread holds the outbox's lock, that thread sends the frames,
  because it checks the queue again after unlocking. If the kernel has no space, the flusher sends the rest later.
- Waiting bytes and seconds without progress are limited. Beyond either limit, `on_stuck` is called once. Only the
  thread with the lock counts bytes, so frames that others append during a write count later.
- After `keep`, a client that loses its connection and comes back over another one gets each counted message once.

`fanout` does the same for many outboxes at once. Both modules rely on atomic list operations, with and without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic

from wsthreads._native import speedups
from wsthreads.errors import ProtocolError, counted
from wsthreads.protocol.encoding import PLAIN, Encoding
from wsthreads.protocol.envelope import is_counted
from wsthreads.protocol.transport import NOWHERE, Transport
from wsthreads.protocol.unacknowledged import MIN_WINDOW_BYTES, Kept, nobody_cares
from wsthreads.protocol.writer import RLock, Writer
from wsthreads.threads.flusher import Flusher

__all__ = ["Outbox", "post", "send_queues"]

#: For a client that gets messages with keys, the kernel may hold at most this many unsent bytes. Otherwise, the kernel
#: would hold megabytes for a client on a slow line, and the client would read outdated messages.
UNSENT_BYTES = 32 * 1024


class Outbox(Writer):
    """The frames for one client, and counts of sent frames. `on_stuck(reason)` is called while no lock is held."""

    __slots__ = ("encoding", "is_short", "pump")

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
        super().__init__(transport, flusher, max_bytes=max_bytes, timeout_s=timeout_s, on_stuck=on_stuck)
        #: How to encode messages for the client. The caller of `append` encodes with it.
        self.encoding = encoding
        #: Whether `keep_short` was called.
        self.is_short = False
        #: Reads acknowledgements for some seconds, in a thread that waits for space. Returns False if it cannot read.
        self.pump: Callable[[float], bool] | None = None

    @classmethod
    def apart(cls, flusher: Flusher, *, max_bytes: int, timeout_s: float, encoding: Encoding) -> Outbox:
        """Returns an outbox without a connection. Call `keep` and then `resume` for it."""
        return cls(NOWHERE, flusher, max_bytes=max_bytes, timeout_s=timeout_s, on_stuck=nobody_cares, encoding=encoding)

    def append(self, frame: bytes) -> bool:
        """Queue a frame. Returns False, without any effect, if the outbox is closed. Call `flush` afterwards."""
        if self._close_frame is not None or self._detached:
            return False
        self._queue.append(frame)
        return True

    def flush(self) -> None:
        """Send the queued frames, or leave them to the thread that is writing now. Does not wait for the client."""
        # While _draining, a thread is writing, and will check the queue again. Without this condition, a finalizer in
        # the writing thread could take the lock again, because the lock is an RLock.
        while self._queue and not self._draining:
            if not self._lock.acquire(False):
                return
            over = ""
            try:
                if self.is_blocked:
                    over, on_stuck = self._hold_locked(), self._on_stuck
                else:
                    for _, data, sent in send_queues([self]):
                        self._after_send_locked(data, sent)
            finally:
                self._lock.release()
            if over:
                on_stuck(over)

    def flush_surely(self) -> None:
        """Like `flush`, but waits for a thread that is writing, so that no frame is left to that thread."""
        with self._lock:
            self._drain_locked()
        self.flush()

    def close(self, frame: bytes, *, discard: bool = False) -> bool:
        """Queue the close frame, after which nothing is sent. Returns False if there was a close frame before.

        Like `append`, this waits for no lock, because the caller may be another client's thread. With `discard`, for a
        client that does not read, waiting frames are dropped, except frames whose write has begun. If two threads call
        this at the same time, both may get True. So `Channel` lets only one thread call it.
        """
        holder = self.frame_holder
        if holder is not None and not discard and holder._hold_close(frame):
            return True
        if not self.append_close(frame, discard=discard):
            return False
        self.flush()
        return True

    def append_close(self, frame: bytes, *, discard: bool = False) -> bool:
        """Like `close`, but does not wait for frames that `frame_holder` holds back. Call `flush` afterwards."""
        if self._close_frame is not None or self._detached:
            return False
        self._discards = discard
        self._close_frame = frame
        self._queue.append(frame)
        return True

    def keep_short(self) -> None:
        """From now on, let the kernel take few bytes: only messages that wait here can be replaced. Idempotent."""
        if not self.is_short:
            self.is_short = True
            self._transport.limit_unsent(UNSENT_BYTES)

    def excuse(self, size: int) -> None:
        """Raise the limit for some time, because the client could not read these frames before: they were held back.

        For `timeout_s`, as long as a client may read nothing, `size` more bytes may wait. One thread at a time.
        """
        if size > self._excused_bytes():
            self._excused = (size, monotonic() + self._timeout_s)

    def excuse_more(self, size: int, at_most: int) -> None:
        """Like `excuse`, for frames in addition to earlier calls. In total, at most `at_most` more bytes may wait."""
        self.excuse(min(self._excused_bytes() + size, at_most))

    def wait_for_room(self, size: int, timeout_s: float) -> bool:
        """Wait until there is space for `size` more bytes, for at most `timeout_s`. False if there is still none."""

        def has_room() -> bool:
            return not self.is_blocked or self._backlog_bytes() + size <= self.max_bytes

        deadline = monotonic() + timeout_s
        while (pump := self.pump) is not None and self._is_full and not has_room():
            if not pump(deadline - monotonic()):
                break
        return self._wait(has_room, max(0.0, deadline - monotonic()))

    def wait_sent(self, timeout_s: float) -> bool:
        """Wait until no frame waits, for at most `timeout_s`. Also returns True if there is no connection."""
        deadline = monotonic() + timeout_s
        if not self.wait_released(timeout_s):
            return False
        timeout_s = max(0.0, deadline - monotonic())
        return self._wait(lambda: self.is_suspended or not (self.is_blocked or self._backlog_bytes()), timeout_s)

    def wait_released(self, timeout_s: float) -> bool:
        """Wait until `frame_holder` holds no frame, or nothing can be sent. Returns False after `timeout_s`."""
        holder = self.frame_holder
        return holder is None or self._close_frame is not None or self._detached or holder._wait_released(timeout_s)

    def detach(self) -> None:
        """Release the transport. Afterwards, no call writes to it."""
        with self._lock:
            self._end_locked()
            descriptor = self._transport.fileno()
        if descriptor >= 0:
            self.flusher.forget(descriptor)

    def give_up(self) -> None:
        """Like `detach`, for a forked process, where the lock may be held by a thread that only the parent has."""
        self._lock, self._room, self._draining = RLock(), None, False
        self._end_locked()

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more, because the connection was lost or released."""
        return self._detached

    @property
    def needs_no_gil(self) -> bool:
        """Whether `send_queues` can write to the connection. It cannot with TLS, or without the C module."""
        return speedups is not None and self._fd >= 0

    @property
    def is_queued(self) -> bool:
        """Whether frames are queued, which a thread will send soon."""
        return bool(self._queue)

    @property
    def bytes_waiting(self) -> int:
        """How many bytes the kernel has not taken, with those that `frame_holder` holds. A snapshot."""
        holder = self.frame_holder
        return (self._backlog_bytes() if self.is_blocked else 0) + (0 if holder is None else holder._held_bytes)

    # Sessions that can continue over another connection

    def keep(
        self,
        max_bytes: int,
        *,
        on_stuck: Callable[[str], None],
        acknowledged: int = 0,
        frames: Iterable[bytes] = (),
    ) -> None:
        """From now on, keep unacknowledged messages. Call this once, before counted messages are written.

        Without a connection, at most `max_bytes` may wait. If more bytes wait, `on_stuck` is called. With a connection,
        at most `max_bytes` or `MIN_WINDOW_BYTES`, whichever is more, are written and not acknowledged. `frames` are
        messages that another process has written after the `acknowledged` ones. These messages come before all frames
        that are appended here.
        """
        with self._lock:
            assert self._kept is None
            kept = Kept(frames, acknowledged=acknowledged, max_bytes=max_bytes, on_stuck=on_stuck)
            self.kept_bytes, self.window = sum(map(len, kept)), max(max_bytes, MIN_WINDOW_BYTES)
            self._kept = kept
            if self._backlog is not None:
                self._backlog.keep_pieces()
            if self._transport is NOWHERE:
                self.max_bytes, self._on_stuck = kept.swap(self.max_bytes, nobody_cares)
                self._unplug_locked(kept)
        self.flush()

    def acknowledge(self, count: int) -> None:
        """Drop messages, because the client has received `count` counted messages since the session began.

        Raises `ProtocolError` if `count` is more than the messages that were written, or less than in an earlier call.
        """
        kept = self._kept
        if kept is None:
            return
        with self._lock:
            if not self._detached:
                self._draining = True
                try:
                    self.kept_bytes -= kept.acknowledge(count)
                finally:
                    self._draining = False
                self._progress_at = monotonic()
                if self._is_full:
                    self._go_on_locked()
        self.flush()

    def suspend(self, transport: Transport, last: bytes = b"") -> bool:
        """Release a connection. An outbox that keeps messages waits for the next one. Any other outbox is over.

        `last`, a close frame, is written after all other frames, but only if the kernel takes all bytes at once.
        Returns whether `last` was written. Does nothing if the outbox belongs to another connection already.
        """
        kept, sent = self._kept, 0
        with self._lock:
            if self._transport is transport and not self._detached:
                if last:
                    self._drain_locked()
                self._draining = True  # a finalizer that sends must not write after the close frame
                try:
                    if last and self._is_between_locked():
                        with suppress(OSError):
                            sent = transport.send(last)
                            self.bytes_out += sent
                    if kept is None or self._close_frame is not None:
                        self._end_locked()
                    elif self._transport is transport:
                        self._unplug_locked(kept)
                finally:
                    self._draining = False
        descriptor = transport.fileno()
        if descriptor >= 0:
            self.flusher.forget(descriptor)
        self.flush()
        return bool(last) and sent == len(last)

    def check_received(self, count: int) -> None:
        """Raise `ProtocolError` if a client that comes back cannot have received `count` counted messages."""
        with self._lock:
            self._check_received_locked(count)
        self.flush()

    def _check_received_locked(self, count: int) -> None:
        kept, backlog = self._kept, self._backlog
        if kept is None:
            return
        most = kept.written + (0 if backlog is None else len(backlog.written))
        if not kept.acknowledged <= count <= most:
            raise ProtocolError(f"{counted(count, 'message')} received, {kept.acknowledged} to {most} are possible")

    def resume(self, transport: Transport, first: bytes, received: int, *, on_stuck: Callable[[str], None]) -> None:
        """Continue over another connection. The client has `received` this many counted messages of the session.

        `first` (the welcome) is sent before the messages that the client does not have. `on_stuck` is the callback for
        this connection. Raises `ProtocolError`, without any other effect, if `received` is impossible. Does nothing if
        the outbox is over.
        """
        kept = self._kept
        assert kept is not None
        with self._lock:
            if self._detached:
                return
            self._check_received_locked(received)
            self._draining = True  # finalizers that send must only append
            try:
                self._unplug_locked(kept)
                self.kept_bytes -= kept.acknowledge(received)
                assert self._backlog is not None
                self._backlog.put_before(first, kept)
                if self._sealed and self._close_frame is not None:  # `restart` has dropped the close frame
                    self._backlog.add(self._close_frame)
                kept.clear()
                self.kept_bytes = 0
                self.max_bytes, _ = kept.swap(self.max_bytes, self._on_stuck)
                self._on_stuck = on_stuck
                self.excuse(self._backlog.bytes)  # the client could not read these bytes without a connection
                self._transport, self._fd = transport, transport.plain_fd
                if self.is_short:
                    transport.limit_unsent(UNSENT_BYTES)
            except BaseException:
                self._break_off_locked()
                raise
            finally:
                self._draining = False
            self._go_on_locked()
        self.flush()

    def export(self, *, ends: bool = True) -> tuple[int, list[bytes]]:
        """Returns the number of acknowledged messages, and the frames of all later messages, in order.

        With `ends`, the outbox is over afterwards, as after `detach`.
        """
        kept = self._kept
        assert kept is not None
        with self._lock:
            transport = self._transport
            self._drain_locked()
            self._draining = True
            try:
                waiting = () if self._backlog is None else self._backlog.pieces
                frames = [*kept, *(frame for frame in waiting if frame and is_counted(frame))]
                acknowledged = kept.acknowledged
            finally:
                self._draining = False
            if ends:
                self._end_locked()
        if ends and transport.fileno() >= 0:
            self.flusher.forget(transport.fileno())
        self.flush()
        return acknowledged, frames

    @property
    def is_keeping(self) -> bool:
        """Whether the outbox can continue over another connection."""
        return self._kept is not None

    @property
    def is_suspended(self) -> bool:
        """Whether there is no connection at the moment."""
        return self._transport is NOWHERE and not self._detached

    @property
    def acknowledged(self) -> int:
        """How many messages the client has acknowledged since the session began."""
        return 0 if self._kept is None else self._kept.acknowledged

    @property
    def written(self) -> int:
        """How many messages were written since the session began. The client cannot acknowledge more."""
        return 0 if self._kept is None else self._kept.written

    @property
    def unacknowledged_bytes(self) -> int:
        """The bytes of messages that are not acknowledged or not written yet. Other threads may change this."""
        return self.kept_bytes + (self._backlog_bytes() if self.is_blocked else 0)


def _send_queues(outboxes: list[Outbox]) -> list[tuple[Outbox, bytes | list[bytes] | None, int]]:
    """Write the queues of outboxes. The caller holds their locks. No thread is writing from any of them.

    For each outbox that needs `_after_send_locked`, returns an entry: the outbox, its data, and the number of bytes
    that were sent, or -errno. The data is None if nothing was tried. If any frame is a `MarkedFrame`, the data is a
    list of frames. This Python version writes nothing, and returns an entry without data for each outbox.
    """
    return [(outbox, None, 0) for outbox in outboxes]


def _post(outbox: Outbox, frame: bytes) -> bool:
    """Append a frame, and flush. Returns False if the outbox is closed."""
    if not outbox.append(frame):
        return False
    outbox.flush()
    return True


send_queues = _send_queues if speedups is None else speedups.send_queues
post = _post if speedups is None else speedups.post
