"""The engine: the thread of a `Client`. It connects, reads, keeps the connection alive, and connects again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Condition, RLock, Thread, current_thread
from time import monotonic

from wsthreads.client.application import Application
from wsthreads.client.connection import Abandoned, Connection
from wsthreads.client.dialogue import Dialogue
from wsthreads.client.events import Asked, Event, Opened
from wsthreads.client.failures import FORKED, ConnectFailed, describe_end
from wsthreads.client.inbox import Inbox
from wsthreads.client.liveness import PING_INTERVAL_S, PING_TIMEOUT_S, Liveness, Overdue, Step
from wsthreads.client.options import Options
from wsthreads.client.retries import STABLE_S, UNDECIDED_CODES, Retries
from wsthreads.client.waiter import READ, WRITE, Waiter
from wsthreads.errors import CloseCode, PeerError, UsageError
from wsthreads.loggers import get_logger
from wsthreads.protocol.envelope import SUBPROTOCOL
from wsthreads.threads import forks

__all__ = ["Engine"]

logger = get_logger(__name__)

#: How long `close` waits for the server's close frame, and for each function of the application that is running.
CLOSE_TIMEOUT_S = 5.0

#: How often to ask the server for an acknowledgement while a thread waits for space. Servers limit heartbeats.
ASK_INTERVAL_S = 0.1

#: How long a call that has reached its deadline waits until the engine has read what has arrived.
LOOK_S = 0.5

#: While the connection has this many unsent bytes, further messages wait in the `Dialogue`, which has limits.
MAX_UNSENT_BYTES = 65536


class Engine:
    """The state of a client, and its thread. Methods of the client read and change the state with `lock` held."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._offers = True  # whether to offer ``wsthreads.1`` to the server
        has_function = not isinstance(options.url, str)  # whether a function returns the address
        self._retries = Retries(options.min_delay_s, options.max_delay_s, options.max_attempts, has_function)
        self._waiter = Waiter()
        self.wake = self._waiter.wake  # wakes the thread, which then checks again what it waits for
        # Guards all attributes below. No function of the application is called while a thread holds this lock. But a
        # signal handler or a finalizer may interrupt the thread that holds the lock: see `is_interrupted`.
        self.lock = RLock()
        self.arrived = Condition(self.lock)  # notified when a message arrives, and at the end
        self.moved = Condition(self.lock)  # notified when a call may send or has its answer, and at the end
        self.dialogue = Dialogue(max_queued=options.max_queued, max_queued_bytes=options.max_queued_bytes)
        self.application = Application(options, self.lock, self.dialogue, self.pump)
        self.inbox = Inbox(options.max_received)
        self.requesting = 0  # how many threads wait for the answer to a request
        self._waiting = 0  # how many threads wait for space in the queue, or in `look`
        self._looks = self._looked = 0  # the number of calls of `look`, and how many of them are done
        self._ask_at = 0.0  # when a thread that waits for space may ask the server again to acknowledge
        self.lost = 0
        self.subprotocol: str | None = None
        #: The close code and reason that the application has asked for, and those with which the client has ended.
        self.closing: tuple[int, str] | None = None
        self.closed: tuple[int, str] | None = None
        self._close_by = 0.0  # when to give up waiting for the end of the close handshake
        self._trouble = ""  # why there is no connection
        self._has_connected = False  # whether there was a connection before
        self._connection: Connection | None = None
        self._late: deque[str | bytes] = deque()  # messages of callers that had interrupted the holder of the lock
        self._liveness, self._overdue = Liveness(), Overdue()
        self._is_of_parent = False  # whether this process was forked from the process that has the thread
        self._thread = Thread(target=self._run, name="wsthreads-client", daemon=True)
        self.start = self._thread.start  # called when functions of the application may be called
        forks.owners.add(self)

    def give_up_connections(self, dead_fd: int) -> None:
        """Close the client in a forked process, because it is the parent's. `Connection` gives up the socket."""
        self._is_of_parent, self.closed = True, self.closed or (int(CloseCode.ABNORMAL), FORKED)
        self._connection = None
        self._waiter.give_up()
        self.inbox.clear()
        self._late.clear()
        self.dialogue.end()
        former, arrived, moved = self.lock, self.arrived, self.moved
        self.lock = RLock()  # a thread of the parent may hold the old lock
        self.arrived, self.moved = Condition(self.lock), Condition(self.lock)
        if former.acquire(blocking=False):
            arrived.notify_all()  # a signal handler may have forked while a call of its thread was waiting
            moved.notify_all()
            former.release()

    @property
    def is_interrupted(self) -> bool:
        """Whether the caller, a signal handler or a finalizer, has interrupted code that holds the lock."""
        try:
            self.moved.notify(0)
        except RuntimeError:
            return False
        return True

    def send_late(self, message: str | bytes) -> bool:
        """Send a message when the interrupted call is over. False if it is refused. Only while `is_interrupted`."""
        if self.is_over or len(self._late) >= self._options.max_queued:
            return False
        self._late.append(message)
        self.wake()
        return True

    def take_late(self) -> None:
        """Send the messages that `send_late` has accepted. Called with the lock held."""
        while self._late and self.dialogue.send(self._late[0]):
            self._late.popleft()

    @property
    def is_connected(self) -> bool:
        """Whether messages can be sent now. Called with the lock held."""
        return self._connection is not None and self._connection.is_open and self.dialogue.is_open

    @property
    def is_over(self) -> bool:
        """Whether the client does not accept anything any more. Called with the lock held."""
        return self.closing is not None or self.closed is not None

    @property
    def accepts(self) -> bool:
        """Whether calls may send: before `close`, and in `on_open` until the close frame. Called with the lock held."""
        can_write = self._connection is not None and self._connection.is_open
        return not self.is_over or (can_write and self.closed is None and self.application.is_opening)

    def describe_trouble(self) -> str:
        """Returns the part of an error's text that says why there is no connection. Called with the lock held."""
        if self.is_connected:
            return ""
        return f"; there is no connection{': ' + self._trouble if self._trouble else ' yet'}"

    def pump(self) -> None:
        """Send waiting messages, as far as the connection takes them. Called with the lock held."""
        connection, dialogue = self._connection, self.dialogue
        if connection is None or not connection.is_open:
            return
        while True:
            while connection.unsent_bytes < MAX_UNSENT_BYTES and (message := dialogue.take()) is not None:
                connection.write(message)
            connection.flush()
            if connection.unsent_bytes or not dialogue.can_take:
                break
        is_news = self._overdue.at is None and dialogue.awaits_acknowledgement
        if (connection.unsent_bytes or is_news or self.closing) and current_thread() is not self._thread:
            self.wake()  # the thread then waits until the socket takes more, or for an acknowledgement

    def wait_for_room(self, deadline: float) -> bool:
        """Wait until the limits may allow another message. Returns False at the deadline. Called with the lock held.

        Asks the server to acknowledge, which it does by itself only after 64 messages. The limits may be lower.
        """
        now, connection = monotonic(), self._connection
        if now >= self._ask_at and connection is not None and not connection.unsent_bytes:
            self._ask_at = now + ASK_INTERVAL_S
            self.beat()
        self._waiting += 1
        try:
            has_moved = self.moved.wait(max(0.0, min(deadline - now, ASK_INTERVAL_S)))
            return has_moved or monotonic() < deadline
        finally:
            self._waiting -= 1

    def look(self, is_there: Callable[[], object]) -> bool:
        """Whether `is_there` is true after all input was read. Waits at most `LOOK_S`. Called with the lock held."""
        self._looks = number = self._looks + 1
        self._waiting += 1
        self.wake()
        try:
            self.moved.wait_for(lambda: is_there() or self._looked >= number or self._connection is None, LOOK_S)
        finally:
            self._waiting -= 1
        return bool(is_there())

    def take(self) -> str | bytes:
        """Remove and return the oldest message of the inbox, which must not be empty. Called with the lock held."""
        was_crowded = self.inbox.is_crowded
        message = self.inbox.take()
        if was_crowded and not self.inbox.is_crowded:
            self.wake()  # the thread acknowledges and reads again
        return message

    @property
    def is_crowded(self) -> bool:
        """Whether to acknowledge nothing, because too much waits for the application. Called with the lock held."""
        return self.inbox.is_crowded and not self.requesting and self.closing is None

    @property
    def is_full(self) -> bool:
        """Whether to stop reading, because the server has not stopped sending. Called with the lock held."""
        return self.is_crowded and self.inbox.is_full

    def close(self, code: int, reason: str) -> None:
        """Close permanently. Waits for the threads, for a limited time, unless `is_interrupted` is true."""
        if self._is_of_parent:
            return
        is_interrupted = self.is_interrupted
        with self.lock:
            if not self.is_over:
                self._close_by = monotonic() + CLOSE_TIMEOUT_S
                self.closing = (code, reason)
            self._handle(self.application.close())
            if is_interrupted:
                self.wake()
                return
            self._close_connection()
        self.wake()
        if current_thread() is not self._thread:
            self._thread.join(2 * CLOSE_TIMEOUT_S)
        self.application.end(CLOSE_TIMEOUT_S)

    def _close_connection(self) -> None:
        """If the client is closing, begin the close handshake after waiting messages. Called with the lock held."""
        if (connection := self._connection) is not None and connection.is_open and self.closing is not None:
            self.take_late()
            self.dialogue.finish()
            self.pump()
            if not self.dialogue.has_unsent or self._close_by - monotonic() < CLOSE_TIMEOUT_S / 2:
                connection.close(*self.closing)
                self.application.is_over = True
                connection.flush()  # if bytes are left, the thread continues when the socket takes more

    # The thread

    def _run(self) -> None:
        end: tuple[int, str] = (CloseCode.ABNORMAL, "the client failed")
        try:
            end = self._live()
        except Exception:
            logger.exception("the client failed")
        finally:
            with self.lock:
                if self._connection is not None:
                    self._connection.abort()
                    self._connection = None
                self.closed = self.closing or end
                self.dialogue.end()
                self.arrived.notify_all()
                self.moved.notify_all()
            self._waiter.close()

    def _live(self) -> tuple[int, str]:
        """Connect again and again. Returns the close code and the reason at the client's end."""
        while self.closing is None:
            try:
                connection = self._options.connect(self._offers, self._waiter, lambda: self.closing is None)
            except Abandoned:
                break
            except UsageError as error:  # no attempt with this address can succeed
                return CloseCode.ABNORMAL, str(error)
            except ConnectFailed as error:
                end: tuple[int, str] = (CloseCode.ABNORMAL, error.bare if self._has_connected else str(error))
                delay = self._retries.after_refusal(error.status, error.retry_after_s, self.dialogue.left_s)
            else:
                self._has_connected = True
                end, began = self._serve(connection)
                if began is not None and monotonic() - began >= STABLE_S:
                    self._retries.stable()
                delay = self._retries.after_close(end[0])
            if delay is None or self.closing is not None:
                return end
            with self.lock:
                trouble = self._trouble = describe_end(*end)
            logger.info("there is no connection (%s); the next attempt is in %.1f s", trouble, delay)
            until = monotonic() + delay
            while self.closing is None and (left := until - monotonic()) > 0:
                self._waiter.wait(None, 0, left)
        return self.closing or (CloseCode.ABNORMAL, "")

    def _serve(self, connection: Connection) -> tuple[tuple[int, str], float | None]:
        """Use a connection until it ends. Returns the close code and the reason, and when it was open."""
        open_by = monotonic() + self._options.connect_timeout_s
        began: float | None = None
        with self.lock:
            self._connection, self._overdue = connection, Overdue()
            self._liveness.begin(monotonic())
            speaks = connection.subprotocol == SUBPROTOCOL
            self.subprotocol = None if speaks else connection.subprotocol
            self._handle(self.dialogue.connected(speaks))
            self.pump()
        while True:
            with self.lock:
                self._close_connection()
                looks, look_s = self._looks, 0.0 if self._looked < self._looks else None
                waits = (self._time_left(connection, open_by), self._ask_if_overdue(), look_s)
                if connection.is_over:
                    break
                wait_s = min((wait for wait in waits if wait is not None), default=None)
                events = (0 if self.is_full else READ) | (WRITE if connection.unsent_bytes else 0)
            ready = READ if connection.has_input and events & READ else connection.wait(events, wait_s)
            with self.lock:
                if ready & READ:
                    self._read(connection)
                else:
                    self._looked = looks
                self.take_late()
                self.dialogue.hold_back(self.is_crowded)
                self.pump()
                if self._waiting:
                    self.moved.notify_all()
                if began is None and self.dialogue.is_open:
                    began = monotonic()
        with self.lock:
            self._connection = None
            was_open = self.dialogue.is_open
            self.dialogue.disconnected()
            closed = connection.closed or (CloseCode.ABNORMAL, "")
            if not was_open and closed[0] not in UNDECIDED_CODES:
                self.dialogue.forget()
            self.moved.notify_all()  # without a connection, waiting calls are refused
        return closed, began

    def _time_left(self, connection: Connection, open_by: float) -> float | None:
        """Returns how long to wait for input. Ends a connection from which nothing comes. Called with the lock held."""
        now, dialogue = monotonic(), self.dialogue
        if self.closing is not None:
            if now >= self._close_by:
                connection.abort("no answer to the close frame")
            return max(0.0, self._close_by - now - (CLOSE_TIMEOUT_S / 2 if connection.is_open else 0.0))
        if not dialogue.is_open:
            if now >= open_by:
                connection.abort("no welcome came in time")
            return open_by - now
        if self.is_full:
            self._liveness.begin(now)
            return None
        ask_s = dialogue.heartbeat_s if dialogue.speaks else PING_INTERVAL_S
        timeout_s = dialogue.timeout_s if dialogue.speaks else PING_TIMEOUT_S
        if not ask_s:
            return None
        step, wait_s = self._liveness.look(now, ask_s, timeout_s, connection.unsent_bytes)
        if step is Step.ASK:
            self.beat()
        elif step is Step.DROP:
            connection.abort(f"nothing was received for {ask_s + wait_s:g} s")
            return 0.0
        return wait_s

    def _ask_if_overdue(self) -> float | None:
        """Ask for an overdue acknowledgement. Returns the seconds until one is overdue. Called with the lock held."""
        dialogue, connection = self.dialogue, self._connection
        is_wanted = dialogue.awaits_acknowledgement and not self.is_over and not self.is_full
        step, wait_s = self._overdue.look(monotonic(), is_wanted, dialogue.acknowledged)
        if step is Step.ASK and connection is not None and not connection.unsent_bytes:
            self.beat()
        return wait_s

    def beat(self) -> None:
        """Send a heartbeat or a ping. Called with the lock held."""
        if not self.is_connected:
            return
        if self.dialogue.speaks:
            self.dialogue.heartbeat()
        elif self._connection is not None:
            self._connection.ping()
        self.pump()

    def _read(self, connection: Connection) -> None:
        messages, has_come = connection.read()
        if has_come:
            self._liveness.show(monotonic())
        for message in messages:
            try:
                self._handle(self.dialogue.receive(message))
            except PeerError as error:
                if not self.dialogue.was_welcomed:
                    self._offers = False  # the server only repeats the subprotocol that was offered
                self.dialogue.forget()
                logger.warning("the server breaks the protocol: %s", error)
                connection.fail(error.close_code, str(error))
                connection.closed = (CloseCode.ABNORMAL, str(error))  # a new session may work
                return

    def _handle(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, (str, bytes)):
                self.inbox.put(event)
                self.arrived.notify()
                if self.inbox.is_crowded:
                    self.dialogue.hold_back(self.is_crowded)
            elif isinstance(event, Opened):
                self._opened(event)
            elif isinstance(event, Asked):
                self.application.answer(event)
            else:
                self.moved.notify_all()

    def _opened(self, event: Opened) -> None:
        self._trouble = ""
        logger.info("%s", event)
        if not event.resumed:
            self.lost = event.lost
            self.application.open()
