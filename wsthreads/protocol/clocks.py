"""The timers of one connection: for pings, for messages that take too long, and for idle clients.

The *flusher* is the thread that runs all timers. The timers' callbacks read attributes that the connection's own thread
writes.
"""

from __future__ import annotations

from time import monotonic

from wsthreads.config import Config
from wsthreads.errors import CloseCode, PolicyError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import log_context
from wsthreads.monitoring.metrics import Histogram
from wsthreads.protocol.assembler import Assembler
from wsthreads.protocol.channel import Channel
from wsthreads.protocol.frames import PING, encode_frame
from wsthreads.protocol.readers import Reader
from wsthreads.threads.flusher import Flusher, Timer

__all__ = ["Clocks"]

log = get_logger(__name__)

#: If pings are off, a client is checked this often while its handler is running.
LOOK_S = 25.0

#: TCP may delay an acknowledgement by at most 0.5 s (RFC 1122, 4.2.3.2).
ACKNOWLEDGEMENT_S = 0.5


class Clocks:
    """The timers of one connection.

    The heartbeat runs from the start. `watch_message` and `watch_idleness` start the others.

    `round_trips` gets the time from each ping to its pong.
    """

    __slots__ = (
        "_acknowledged",
        "_answered_at",
        "_asked_at",
        "_assembler",
        "_channel",
        "_config",
        "_end_seen_at",
        "_flusher",
        "_heartbeat_timer",
        "_idle_timer",
        "_is_stopped",
        "_message_timer",
        "_pinged_at",
        "_round_trips",
        "_unacknowledged_at",
        "heard_at",
        "is_waiting",
        "message_ended_at",
        "reader",
        "round_trip_s",
    )

    def __init__(
        self, channel: Channel, assembler: Assembler, config: Config, flusher: Flusher, round_trips: Histogram | None
    ) -> None:
        self._channel = channel
        self._assembler = assembler
        self._config = config
        self._flusher = flusher
        self._round_trips = round_trips
        #: When the last bytes arrived.
        self.heard_at = monotonic()
        #: Whether the connection's thread waits for input. False while a handler runs, such as `on_open`.
        self.is_waiting = False
        #: When the handling of the last message ended.
        self.message_ended_at = 0.0
        #: If not None, this object reads in place of the connection, and knows when the last message arrived.
        self.reader: Reader | None = None
        #: How long the client took to answer the last ping.
        self.round_trip_s: float | None = None
        self._pinged_at = 0.0  # when the heartbeat sent its last ping
        self._asked_at = 0.0  # when the unanswered ping was sent; 0 if no ping is unanswered
        self._answered_at = float("-inf")  # when the last ping was answered
        self._end_seen_at = 0.0  # when a check, while a handler ran, found first that the client had ended its stream
        # For checks while a handler runs: the bytes that TCP had acknowledged, and the time of the last check with
        # progress.
        self._acknowledged, self._unacknowledged_at = -1, 0.0
        self._message_timer: Timer | None = None  # due when the message takes too long, or earlier
        self._idle_timer: Timer | None = None
        self._is_stopped = False  # whether `stop` was called; a thread that has set a timer checks this afterwards
        self._heartbeat_timer: Timer | None = flusher.call_later(config.ping_interval_s or LOOK_S, self._heartbeat)

    def watch_message(self) -> None:
        """Close the connection if the rest of the incomplete message does not come in time.

        One timer serves all messages that begin before the timer is due. The timer's callback and this method may run
        at the same time in two threads. The one that finishes later sees the changes of the other.
        """
        if self._message_timer is None:
            self._message_timer = self._flusher.call_later(self._config.message_timeout_s, self._on_message_timer)

    def watch_idleness(self) -> None:
        """From now on, close the connection if no message comes for `idle_timeout_s`."""
        self.message_ended_at = monotonic()
        self._idle_timer = self._flusher.call_later(self._config.idle_timeout_s, self._on_idle_timer)

    def stop(self) -> None:
        """Cancel all timers. Afterwards, no timer starts. Called in the connection's thread."""
        self._is_stopped = True
        for timer in (self._heartbeat_timer, self._message_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()

    def measure(self, least_age_s: float) -> None:
        """Ping the client if `round_trip_s` is unknown or older than `least_age_s`. The pong sets `round_trip_s`.

        Without this method, a client that keeps sending would get no pings. Any thread. Does nothing if pings are off.
        """
        now = monotonic()
        if self._channel.ending is not None or not self._config.ping_interval_s or self._channel.outbox.is_blocked:
            return
        if not self._asked_at and now - self._answered_at >= least_age_s:
            self._asked_at = now
            self._ping()

    def on_pong(self) -> None:
        """Note that the client has sent a pong. A pong that answers no ping changes nothing."""
        asked_at, self._asked_at = self._asked_at, 0.0
        if asked_at:
            self._answered_at = monotonic()
            self.round_trip_s = self._answered_at - asked_at
            if self._round_trips is not None:
                self._round_trips.observe(self.round_trip_s)

    def _ping(self) -> None:
        self._channel.outbox.append(encode_frame(PING, b""))
        self._channel.outbox.flush()

    def _on_message_timer(self) -> None:
        """Check whether the incomplete message has taken too long."""
        self._message_timer = None
        since, timeout = self._assembler.incomplete_since, self._config.message_timeout_s
        if self._channel.ending is not None or not since:
            return
        left = since + timeout - monotonic()
        if left > 0:
            self._message_timer = self._flusher.call_later(left, self._on_message_timer)
        else:
            error = PolicyError(f"a message was not complete after {timeout:g} s", setting="message_timeout_s")
            self._channel.refuse(error)

    def _on_idle_timer(self) -> None:
        """Check whether the client has sent a message lately."""
        if self._channel.ending is not None:
            return
        timeout = self._config.idle_timeout_s
        left = self.message_ended_at + timeout - monotonic()
        if left <= 0 and self.is_waiting:
            if self._channel.begin_close(CloseCode.GOING_AWAY, f"idle: no message for {timeout:g} s"):
                self._channel.count("past_idle_timeout_s")
            return
        # While a handler runs, nothing is read, so the client may have sent messages.
        self._idle_timer = self._flusher.call_later(left if left > 0 else timeout, self._on_idle_timer)

    def _heartbeat(self) -> None:
        """Call `_check_pulse` regularly, even if a call fails, for example for lack of memory."""
        if self._channel.ending is not None:
            return
        delay = self._config.ping_interval_s or LOOK_S
        try:
            delay = self._check_pulse()
        finally:
            if self._channel.ending is None:
                self._heartbeat_timer = self._flusher.call_later(delay, self._heartbeat)
                if self._is_stopped:  # `stop` may have run in the meantime
                    self._heartbeat_timer.cancel()

    def _check_pulse(self) -> float:
        """Ping a silent client, and end the connection if the ping is not answered in time.

        Returns the seconds until the next check.
        """
        pings, timeout, now = self._config.ping_interval_s, self._config.ping_timeout_s, monotonic()
        interval = pings or LOOK_S
        reader = self.reader
        heard_at = self.heard_at if reader is None else max(self.heard_at, reader.heard_at)
        if not self.is_waiting:  # a handler runs, so nothing is read: a client without new input may still be alive
            self._pinged_at, left = 0.0, timeout
            self._look_for_end(now)
        elif not pings:
            left = interval
        elif self._pinged_at > heard_at:
            left = self._pinged_at + timeout - now
            if left <= 0:
                self._channel.count("past_ping_timeout_s")
                self._channel.lose(f"no answer to a ping for {timeout:g} s")
        else:
            left = heard_at + interval - now
            if left <= 0:
                self._asked_at = now
                self._ping()
                self._pinged_at, left = now, timeout
        # the client may answer quickly, and the next ping is due one interval after the answer
        return min(interval, left)

    def _look_for_end(self, now: float) -> None:
        """While a handler runs, check whether the connection has ended. If so, `is_open` and `send` tell the handler.

        The thread that reads decides later how the connection has ended, because messages and a close frame may be
        unread. A client that has only ended its direction of the stream may still wait for answers. So its connection
        stays for `ping_timeout_s`.
        """
        config, channel = self._config, self._channel
        if not channel.is_open:
            return
        is_lost, has_ended = channel.transport.end_seen()
        if has_ended and not self._end_seen_at:
            self._end_seen_at = now
        is_over = has_ended and now - self._end_seen_at >= config.ping_timeout_s
        if is_lost or is_over or self._has_vanished(now):
            log.debug("the connection has ended while a handler is running", extra=log_context(channel.environ))
            channel.cut()

    def _has_vanished(self, now: float) -> bool:
        """Whether TCP has acknowledged nothing for `ping_timeout_s`, although data was sent.

        While a handler runs, no pong is read, but TCP acknowledges the pings. Data that is unacknowledged at one check
        must be acknowledged at a later check. The time before the first check does not count, because the data may have
        been sent just before.
        """
        channel = self._channel
        is_even, acknowledged_bytes = channel.transport.acknowledged()
        if is_even or self._acknowledged != acknowledged_bytes:
            self._unacknowledged_at, self._acknowledged = now, acknowledged_bytes
            if is_even and self._config.ping_interval_s and not channel.outbox.is_blocked:
                self._ping()
            elif is_even:
                self._acknowledged = -1  # data that is unacknowledged at the next check may be new
            return False
        return now - self._unacknowledged_at >= max(self._config.ping_timeout_s, ACKNOWLEDGEMENT_S)
