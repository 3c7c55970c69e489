"""The flusher: the thread that runs timers, and waits until full sockets have space again.

Each app has one such thread in each process. The thread starts with the first session, so a forked process gets its
own. The thread calls one callback at a time, and callbacks must not block. If a callback raises an exception, the
exception is logged, and the thread goes on. If the thread itself fails, it starts again, and keeps its timers and
watches.

A *watch* is a callback for the time when a socket has space. An *order* is a function by which another thread asks for
a change. Only the flusher's thread uses its state. Other threads only append orders to `_orders`. They wake the thread
if an order cannot wait until the thread executes orders the next time.
"""

from __future__ import annotations

import errno
import heapq
import os
import selectors
import socket
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from itertools import count
from threading import Event, Lock, Thread, current_thread
from time import monotonic, time
from typing import Protocol
from weakref import WeakMethod

from wsthreads.loggers import get_logger
from wsthreads.threads.restarts import keep_running

__all__ = ["Flusher", "Timer", "Timers", "weakly"]

log = get_logger(__name__)

#: The thread executes orders at least this often. So an order for a later timer need not wake the thread.
TICK_S = 1.0

#: Cancelled timers are removed only if there are more timers than this.
MIN_SWEEP = 1000

#: The pause before a watch is tried again if the system had no memory for it.
RETRY_S = 0.1


class Timer:
    """A callback that is called at the time `due`, by the monotonic clock.

    Any thread may call `cancel`, any number of times.
    """

    __slots__ = ("callback", "due")

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Prevent the call of the callback. A callback that is running already continues."""
        self.callback = None


class Timers(Protocol):
    """Runs callbacks later, by its own clock, and knows the time of day. `Flusher` is such a class."""

    def now(self) -> float: ...

    def time(self) -> float: ...

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer: ...


def weakly(method: Callable[..., None], *arguments: object) -> Callable[[], None]:
    """Returns a callback that calls a method of an object if the object still exists.

    The callback does not keep the object alive.
    """
    reference = WeakMethod(method)

    def call() -> None:
        method = reference()
        if method is not None:
            method(*arguments)

    return call


class Flusher:
    """Runs timers, and calls a callback once when a socket has space. Any thread."""

    def __init__(self) -> None:
        self._lock = Lock()  # guards starting and stopping; nothing blocks while it is held
        self._pid = 0
        self._thread: Thread | None = None
        self._reset()

    def _reset(self) -> None:
        self._orders: deque[Callable[[], None]] = deque()
        # a heap of (due, serial number, timer); only the thread uses it
        self._timers: list[tuple[float, int, Timer]] = []
        self._sweep_at = MIN_SWEEP  # when there are this many timers, the cancelled ones are removed
        self._watched: dict[int, Callable[[], None]] = {}  # the watches, by file descriptor; only the thread uses this
        # watches to set again after a failure; only the thread uses this
        self._unwatched: dict[int, Callable[[], None]] = {}
        self._serial = count()  # for timers that are due at the same time, because timers themselves cannot be compared
        self._stopping = Event()
        self._has_begun = False  # whether the thread has started before; only the thread uses this
        self._is_released = False

    def start(self) -> None:
        """Start the thread, unless it is running in this process.

        Raises OSError or RuntimeError if the process may have no more descriptors or threads. The caller can try again
        later.
        """
        if self._pid == os.getpid():
            return
        with self._lock:
            if self._pid == os.getpid():
                return
            self._reset()  # if this process was forked, the old orders are the parent's
            self._open()
            thread = Thread(target=self._run, name="wsthreads-flusher", daemon=True)
            try:
                thread.start()
            except BaseException:
                self._close()
                raise
            self._thread, self._pid = thread, os.getpid()

    def _open(self) -> None:
        """Make the selector, and the sockets by which other threads wake it.

        If this raises OSError, nothing has changed.
        """
        with ExitStack() as made:
            selector = made.enter_context(selectors.DefaultSelector())
            waker, wakee = map(made.enter_context, socket.socketpair())
            waker.setblocking(False)
            wakee.setblocking(False)
            selector.register(wakee, selectors.EVENT_READ)
            made.pop_all()
        self._waker, self._wakee, self._selector = waker, wakee, selector

    def _close(self) -> None:
        for thing in (self._selector, self._waker, self._wakee):
            thing.close()

    def stop(self, timeout_s: float) -> None:
        """End the thread. Waits for at most `timeout_s`. Timers that are not due yet never run."""
        with self._lock:
            thread = self._thread if self._pid == os.getpid() else None
            if thread is None:
                return
            self._stopping.set()
            self._wake()
        if thread is not current_thread():
            thread.join(timeout_s)
        with self._lock:
            self._thread, self._pid = None, 0

    def release(self) -> None:
        """End the thread soon. Takes no lock and does not wait, so finalizers may call this method."""
        if self._pid == os.getpid():
            self._is_released = True
            self._wake()

    #: Returns the time by the clock of the timers, in seconds. It must be quick, because it is called for each message
    #: that a history stores.
    now = staticmethod(monotonic)

    def time(self) -> float:
        """Returns the time of day, in seconds since the epoch. This clock may jump."""
        return time()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` in the flusher's thread after `delay_s` seconds."""
        timer = Timer(monotonic() + delay_s, callback)
        self._orders.append(lambda: self._push(timer))
        if delay_s < TICK_S:
            self._wake()
        return timer

    def watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call `callback` once, in the flusher's thread, when `descriptor` is writable or has failed."""
        self._orders.append(lambda: self._watch(descriptor, callback))
        self._wake()

    def forget(self, descriptor: int) -> None:
        """End a watch. Call this before the descriptor is closed, because the system uses its number again."""
        self._orders.append(lambda: self._forget(descriptor))

    def _wake(self) -> None:
        with suppress(OSError):  # many wake-ups wait already, or the thread has ended
            self._waker.send(b"\0")

    def _run(self) -> None:
        keep_running(self._work, pause=self._stopping.wait)
        self._close()

    def _work(self) -> None:
        if self._has_begun:  # the work was interrupted by an error, perhaps because the selector has failed
            self._renew()
        self._has_begun = True
        # first remove watches of closed descriptors, because their numbers may belong to other sockets by now
        self._obey()
        self._watch_again()
        while not (self._stopping.is_set() or self._is_released):
            self._obey()
            for key, _ in self._selector.select(self._run_timers()):
                if key.fileobj is self._wakee:
                    self._wakee.recv(4096)
                else:
                    self._call(self._unwatch(key.fd))

    def _renew(self) -> None:
        selector, waker, wakee = self._selector, self._waker, self._wakee
        with suppress(OSError):  # no file descriptors are left, so go on with the old ones
            self._open()
            self._unwatched.update(self._watched)
            self._watched = {}
            for thing in (selector, waker, wakee):
                thing.close()

    def _watch_again(self) -> None:
        """Set the watches again that were set before a failure."""
        for descriptor, callback in list(self._unwatched.items()):
            self._watch(descriptor, callback)

    def _obey(self) -> None:
        while self._orders:
            order = self._orders.popleft()
            try:
                order()
            except MemoryError:
                self._orders.appendleft(order)
                raise

    def _push(self, timer: Timer) -> None:
        """Add a timer.

        If there are many timers, remove the cancelled ones, because each client that leaves cancels some.
        """
        if len(self._timers) >= self._sweep_at:
            live = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(live)
            self._timers[:] = live
            self._sweep_at = max(MIN_SWEEP, 2 * len(live))
        heapq.heappush(self._timers, (timer.due, next(self._serial), timer))

    def _run_timers(self) -> float:
        """Run the timers that are due. Returns how many seconds the thread may wait, at most `TICK_S`.

        The thread must not wait for longer than until the next timer is due, and not at all if there are orders.
        """
        timers = self._timers
        while timers and timers[0][0] <= monotonic():
            self._call(heapq.heappop(timers)[2].callback)
        if self._orders:
            return 0.0  # a callback has appended an order
        return min(TICK_S, max(0.0, timers[0][0] - monotonic())) if timers else TICK_S

    def _watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        if descriptor < 0:
            return  # the descriptor was closed before this order was executed
        self._unwatch(descriptor)
        try:
            self._selector.register(descriptor, selectors.EVENT_WRITE)
        except KeyError:
            return  # the descriptor was closed before, and `_wakee` has its number since a restart
        except OSError as error:
            if error.errno != errno.EBADF:  # EBADF: the descriptor was closed before this order was executed
                self.call_later(RETRY_S, lambda: self._watch(descriptor, callback))
        else:
            self._watched[descriptor] = callback

    def _forget(self, descriptor: int) -> None:
        self._unwatch(descriptor)

    def _unwatch(self, descriptor: int) -> Callable[[], None] | None:
        self._unwatched.pop(descriptor, None)
        callback = self._watched.pop(descriptor, None)
        if callback is not None:
            self._selector.unregister(descriptor)
        return callback

    def _call(self, callback: Callable[[], None] | None) -> None:
        if callback is not None:
            try:
                callback()
            except Exception:
                log.exception("a housekeeping callback failed: %r", callback)
