"""A session's outgoing queue, bounded, and its combining writer.

Guarantees, for any number of threads:

- Frames leave whole and in the order of `append`, and none after the close frame.
- `append` only appends to memory. It takes no lock, so it may be called under a room's order lock.
- `flush` never blocks on the network: a thread that finds the lock taken leaves its frames to the holder, who looks
  again after letting go. What the kernel has no room for is left to the flusher.
- What waits is bounded, in bytes and in seconds without progress. Past either, `on_stuck` is called, once. Bytes are
  counted by the holder of the lock: what others append while it writes, for whom it looks again, comes on top.
- After `keep`, a client that loses its connection, and comes back by another one, gets each counted message once.

`fanout` does the same for many outboxes. Both rely on list operations being atomic, with and without the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic

from wsthreads._native import speedups
from wsthreads.errors import ProtocolError, counted
from wsthreads.protocol.encoding import PLAIN, Encoding
from wsthreads.protocol.envelope import is_counted
from wsthreads.protocol.kept import MIN_WINDOW_BYTES, Kept, nobody_cares
from wsthreads.protocol.transport import NOWHERE, Transport
from wsthreads.protocol.writer import RLock, Writer
from wsthreads.threads.flusher import Flusher

__all__ = ["Outbox", "post", "send_queues"]

#: What the kernel takes of messages with keys before the network does. Otherwise it takes some megabytes for a client
#: on a slow line, and what the client reads is as old.
UNSENT_BYTES = 32 * 1024


class Outbox(Writer):
    """Frames on their way to one client, and how many have gone out. `on_stuck(reason)` is called without any lock."""

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
        #: Makes the client's frames. Whoever appends a message has encoded it.
        self.encoding = encoding
        #: See `keep_short`.
        self.is_short = False
        #: Reads acknowledgements for at most so many seconds, in the thread that waits for room. False: it cannot.
        self.pump: Callable[[float], bool] | None = None

    @classmethod
    def apart(cls, flusher: Flusher, *, max_bytes: int, timeout_s: float, encoding: Encoding) -> Outbox:
        """An outbox for a session whose client has yet to come: `keep`, then `resume` it."""
        return cls(NOWHERE, flusher, max_bytes=max_bytes, timeout_s=timeout_s, on_stuck=nobody_cares, encoding=encoding)

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
                    over, on_stuck = self._hold_locked(), self._on_stuck
                else:
                    for _, data, sent in send_queues([self]):
                        self._after_send_locked(data, sent)
            finally:
                self._lock.release()
            if over:
                on_stuck(over)

    def flush_surely(self) -> None:
        """`flush`, but wait for a thread that writes: what was appended until now is on its way when this returns."""
        with self._lock:
            self._drain_locked()
        self.flush()

    def close(self, frame: bytes, *, discard: bool = False) -> bool:
        """Queue the close frame, the last that is sent; False if there was one already.

        Like `append`, it waits for no lock: others may send to this client without a pause, and who closes it may be
        another client's thread.

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

        deadline = monotonic() + timeout_s
        while (pump := self.pump) is not None and self._is_full and not has_room():
            if not pump(deadline - monotonic()):
                break
        return self._wait(has_room, max(0.0, deadline - monotonic()))

    def wait_sent(self, timeout_s: float) -> bool:
        """Wait until nothing is queued any more, at most `timeout_s`. True also if there is no connection."""
        deadline = monotonic() + timeout_s
        if not self.wait_released(timeout_s):
            return False
        timeout_s = max(0.0, deadline - monotonic())
        return self._wait(lambda: self.is_suspended or not (self.is_blocked or self._backlog_bytes()), timeout_s)

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
    def needs_no_gil(self) -> bool:
        """Whether `send_queues` writes to it: not with TLS, nor without a connection or the C module."""
        return speedups is not None and self._fd >= 0

    @property
    def is_queued(self) -> bool:
        """Whether frames wait for the thread that is writing now: it sends them next."""
        return bool(self._queue)

    @property
    def bytes_waiting(self) -> int:
        """Bytes that the kernel has not taken, with those that are held in front. A snapshot."""
        front = self.front
        return (self._backlog_bytes() if self.is_blocked else 0) + (0 if front is None else front._held_bytes)

    # Sessions that go on over another connection

    def keep(
        self,
        max_bytes: int,
        *,
        on_stuck: Callable[[str], None],
        acknowledged: int = 0,
        frames: Iterable[bytes] = (),
    ) -> None:
        """From now on keep what the client has not acknowledged. Call it once, before counted messages are written.

        Without a connection, `max_bytes` may wait, and `on_stuck` is told. With one, no more than `max_bytes` are
        written that are not acknowledged (but at least `MIN_WINDOW_BYTES`). `frames` are messages that another process
        has written behind the `acknowledged` ones. They go before whatever was appended here.
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
        """The client has received so many counted messages since the session began.

        Raises `ProtocolError` for more than were written, and for less than before.
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
        """Let go of a connection. If the outbox keeps, and has not moved to another one, it waits for the next.

        `last`, a close frame, is written behind everything else, if the kernel takes that at once. Returns whether it
        did. Otherwise the outbox is over, as after `detach`, or is not touched.
        """
        kept, sent = self._kept, 0
        with self._lock:
            if self._transport is transport and not self._detached:
                if last:
                    self._drain_locked()
                self._draining = True  # a finalizer may not write behind the close frame
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
        """Raises `ProtocolError` if a client that comes back cannot have received so many counted messages."""
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
        """Go on over another connection, whose client has `received` counted messages since the session began.

        `first`, the welcome, goes out before all that the client does not have. `on_stuck` is told while this
        connection lasts. Raises `ProtocolError`, and changes nothing, for a wrong count. Does nothing once it is over.
        """
        kept = self._kept
        assert kept is not None
        with self._lock:
            if self._detached:
                return
            self._check_received_locked(received)
            self._draining = True  # for finalizers that send
            try:
                self._unplug_locked(kept)
                self.kept_bytes -= kept.acknowledge(received)
                assert self._backlog is not None
                self._backlog.put_before(first, kept)
                if self._sealed and self._close_frame is not None:  # it was no counted message, either
                    self._backlog.add(self._close_frame)
                kept.clear()
                self.kept_bytes = 0
                self.max_bytes, _ = kept.swap(self.max_bytes, self._on_stuck)
                self._on_stuck = on_stuck
                self.excuse(self._backlog.bytes)  # the client could not read it before
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
        """How many messages the client has acknowledged, and the frames of all others, in order.

        If it `ends`, the outbox is over, as after `detach`.
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
        """Whether the outbox can go on over another connection."""
        return self._kept is not None

    @property
    def is_suspended(self) -> bool:
        """Whether there is no connection at the moment."""
        return self._transport is NOWHERE and not self._detached

    @property
    def acknowledged(self) -> int:
        """How many messages the client has acknowledged."""
        return 0 if self._kept is None else self._kept.acknowledged

    @property
    def written(self) -> int:
        """The most messages that the client can acknowledge."""
        return 0 if self._kept is None else self._kept.written

    @property
    def unacknowledged_bytes(self) -> int:
        """Bytes of messages that were written and are not acknowledged, and of those that wait. A snapshot."""
        return self.kept_bytes + (self._backlog_bytes() if self.is_blocked else 0)


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
