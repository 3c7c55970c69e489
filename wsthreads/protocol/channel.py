"""Sends to one client, and decides how the connection ends.

The client, the handler, a limit, a timer or the loss of the TCP connection can end a connection. Whatever ends it first
decides the *ending*: the close code and the reason. The close handshake follows RFC 6455, section 7: the server always
ends its direction of TCP first, and then reads until the client ends the other direction.

A channel belongs to one connection. A session whose outbox keeps messages (`Outbox.keep`) may outlive its connection:
the outbox then belongs to all connections of the session, one after another.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import Any, NamedTuple

from wsthreads.config import Config
from wsthreads.errors import CloseCode, PeerError
from wsthreads.loggers import get_logger
from wsthreads.monitoring.logs import log_context
from wsthreads.protocol.encoding import Encoding
from wsthreads.protocol.envelope import AWAY_CODE
from wsthreads.protocol.frames import close_frame
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.transport import Transport
from wsthreads.threads.flusher import Flusher, Timer

__all__ = ["Channel"]

log = get_logger(__name__)

#: The close codes by which a client says that it will come back to its session.
LEAVING_CODES = (CloseCode.GOING_AWAY, AWAY_CODE)


def _nothing() -> None:
    """The default of the callbacks."""


class Kick(NamedTuple):
    """The ending of a connection that the application has closed. Like every ending, it has a code and a reason."""

    code: int
    reason: str


class Expired(Kick):
    """The ending of a connection whose session has expired."""


class Parting(NamedTuple):
    """The ending of a connection whose session stays, because the client may come back."""

    code: int
    reason: str


class Leaving(Parting):
    """A `Parting` that the client has begun, not one where the client only answers the server's close frame."""

    __slots__ = ()


class Channel:
    """Sends to one client and closes its connection. Any thread, except for `finish` and `hang_up`.

    Only the connection's thread calls `finish` and `hang_up`.

    A session uses only `outbox`, `ending`, `subprotocol` and `begin_close`. `count` gets the name of a counter:
    `slow_sessions_closed`, or `past_` and the name of the setting that the client has exceeded. No lock is held during
    this call.
    """

    __slots__ = (
        "_claims",
        "_config",
        "_flusher",
        "_is_finished",
        "_timer",
        "count",
        "ending",
        "environ",
        "has_peer_closed",
        "on_ending",
        "outbox",
        "subprotocol",
        "transport",
        "was_too_slow",
    )

    def __init__(
        self,
        transport: Transport,
        *,
        environ: dict[str, Any],
        config: Config,
        flusher: Flusher,
        subprotocol: str | None,
        encoding: Encoding,
        count: Callable[[str], None],
    ) -> None:
        self.transport = transport
        #: The WSGI environ of the client's request, for log lines.
        self.environ = environ
        self.count = count
        #: The negotiated subprotocol, or None.
        self.subprotocol = subprotocol
        self._config = config
        self._flusher = flusher
        # The code and reason of each attempt to end the connection. The first attempt counts.
        self._claims: list[tuple[int, str]] = []
        #: The close code and reason, set once, when the client or the server begins to close. None before.
        self.ending: tuple[int, str] | None = None
        #: Called when `ending` is set, in the thread that sets it.
        self.on_ending: Callable[[], None] = _nothing
        #: Whether the connection was closed because the client read too slowly.
        self.was_too_slow = False
        #: Whether the client has sent a close frame without saying that it will come back.
        self.has_peer_closed = False
        self._timer: Timer | None = None
        self._is_finished = False  # whether `finish` was called; a thread that has set a timer checks this afterwards
        #: The queue of frames for the client.
        self.outbox = Outbox(
            transport,
            flusher,
            max_bytes=config.max_outbox_bytes,
            timeout_s=config.send_timeout_s,
            on_stuck=self._on_stuck,
            encoding=encoding,
        )

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent.

        After the loss of a connection, this is False, but the handler may still get messages that the client sent
        before.
        """
        return self.ending is None and not self.outbox.is_over and not self.outbox.is_suspended

    is_connected = is_open

    #: The object that sends requests. Always None, because a client without ``wsthreads.1`` has no requests.
    requests = None

    @property
    def suspends(self) -> bool:
        """Whether the connection has ended, or is ending, but its session stays."""
        ending = self.ending
        return (
            ending is not None
            and self.outbox.is_keeping
            and (isinstance(ending, Parting) or ending[0] == CloseCode.ABNORMAL)
        )

    @property
    def was_kicked(self) -> bool:
        """Whether the application has closed the connection. False if the client, the network or a limit ended it."""
        return isinstance(self.ending, Kick)

    @property
    def has_expired(self) -> bool:
        """Whether the connection was closed because its session has expired."""
        return isinstance(self.ending, Expired)

    def begin_close(
        self, code: int, reason: str = "", *, discard: bool = False, is_kick: bool = False, is_expiry: bool = False
    ) -> bool:
        """Start the close handshake. Returns False if the connection is closing already. Does not block.

        The client has `close_timeout_s` to answer. With `discard`, unsent messages are dropped. With `is_kick`, the
        application closes the connection. With `is_expiry`, the session has expired.
        """
        kind = Expired if is_expiry else Kick if is_kick else None
        if not self._decide(code, reason, kind):
            return False
        self.outbox.close(close_frame(code, reason), discard=discard)
        self._await_answer()
        return True

    # Sessions that can continue over another connection

    def welcome(self, first: bytes, received: int, outbox: Outbox | None = None) -> bool:
        """Begin a session whose outbox keeps messages, or resume a session with its `outbox`.

        Sends `first` before all else.

        Returns False if the connection is over. Raises `ProtocolError`, without any other effect, if the client cannot
        have `received` that many messages.
        """
        own = self.outbox
        if outbox is not None:
            outbox.check_received(received)
        if not own.wait_sent(0):
            self.lose("the client reads nothing")
        if outbox is not None and not own.is_over:
            # Before the next check: if another thread has sent a close frame in the meantime, nothing may follow it.
            own.detach()
            if self.ending is None:
                self.outbox = outbox
        if self.ending is not None or self.outbox.is_over:
            return False
        self.outbox.resume(self.transport, first, received, on_stuck=self._on_stuck)
        self._close_if_ending()
        return not self.outbox.is_over

    def _close_if_ending(self) -> None:
        """Send the close frame if another thread ended the connection in the meantime.

        The other thread has used the old outbox, so its close frame was not sent.
        """
        ending = self.ending
        if isinstance(ending, Parting):
            self.outbox.suspend(self.transport, close_frame(*ending))
        elif ending is not None and ending[0] != CloseCode.ABNORMAL:
            self.outbox.close(close_frame(*ending))

    def supersede(self) -> bool:
        """End this connection, because another one replaces it. Returns False if the session is closing, too."""
        self.end_lost("replaced by a new connection")
        if self.suspends:
            self.transport.abort()
        return self.suspends

    def part(self, code: int, reason: str = "") -> bool:
        """Like `begin_close`, but if the outbox keeps messages, the session stays, and the client may come back.

        Returns False if the connection is closing already.
        """
        if not self._decide(code, reason, Parting):
            return False
        if not self.outbox.is_keeping:
            self.outbox.close(close_frame(code, reason))
        elif not self.outbox.suspend(self.transport, close_frame(code, reason)):
            self.transport.abort()
            return True
        self._await_answer()
        return True

    def give_up(self, dead_fd: int) -> None:
        """Give up the connection in a forked process, because it belongs to the parent.

        `dead_fd` replaces the socket.
        """
        descriptor = self.transport.fileno()
        if descriptor >= 0:
            os.dup2(dead_fd, descriptor, inheritable=False)
        self._claims.append((int(CloseCode.ABNORMAL), ""))
        self.ending = self._claims[0]
        self.outbox.give_up()

    def would_suspend(self, code: int) -> bool:
        """Whether the session would stay if its client ended the connection with this code now."""
        if self.ending is not None:
            return self.suspends
        return self.outbox.is_keeping and (code == CloseCode.ABNORMAL or code in LEAVING_CODES)

    def answer_close(self, code: int, reason: str) -> None:
        """Answer the client's close frame.

        If the server has sent its close frame before, the client's frame is the answer.

        A client that leaves and will come back gets an answer in any case, because it may not have read the server's
        close frame.
        """
        is_leaving = self.outbox.is_keeping and code in LEAVING_CODES
        self.has_peer_closed = not is_leaving
        answer = close_frame(None if code == CloseCode.NO_STATUS else code)  # with the same code: RFC 6455, 5.5.1
        if is_leaving:
            if self._decide(code, reason, Leaving):
                self.outbox.suspend(self.transport, answer)
        elif self._decide(code, reason):
            self.outbox.close(answer)

    def refuse(self, error: PeerError) -> None:
        """Close the connection because of the client's error. If the client exceeded a limit, counts this."""
        log.debug("closing: %s", error, extra=log_context(self.environ))
        if self.begin_close(error.close_code, str(error)) and error.setting:
            self.count(f"past_{error.setting}")

    def hasten_close(self, timeout_s: float) -> None:
        """Abort a closing connection after `timeout_s`, or after `close_timeout_s` if that is less."""
        self._flusher.call_later(min(timeout_s, self._config.close_timeout_s), self.transport.abort)

    def end_lost(self, reason: str) -> None:
        """Set `ending`, because TCP has ended without a close handshake. Does nothing if `ending` is set already."""
        self._decide(CloseCode.ABNORMAL, reason)

    def lose(self, reason: str) -> None:
        """End the connection without a close handshake."""
        self.end_lost(reason)
        self.transport.abort()

    def cut(self) -> None:
        """Send nothing more, and end TCP. The thread that reads decides later which code and reason the ending has."""
        self.outbox.suspend(self.transport)
        self.transport.abort()

    def finish(self) -> tuple[int, str]:
        """Returns the code and reason of the end. Call this when nothing more will be read. Does not block.

        If all frames are sent, which is usual, this also ends the server's direction of TCP. So a client that waits for
        the end of TCP need not wait until `on_close` has returned.
        """
        self._is_finished = True
        if self._timer is not None:
            self._timer.cancel()
        self.end_lost("")
        ending = self.ending or self._claims[0]
        if ending[0] == CloseCode.ABNORMAL:
            self.cut()
        elif self.suspends:
            self.outbox.suspend(self.transport)
            self.transport.end_writing()
        elif self.outbox.wait_sent(0):
            self.outbox.detach()
            self.transport.end_writing()
        return ending

    def hang_up(self) -> None:
        """Send the remaining frames, end TCP before the client does, and release the socket.

        Blocks for at most `close_timeout_s`.
        """
        deadline = monotonic() + self._config.close_timeout_s
        if self.suspends:
            self.outbox.suspend(self.transport)
        else:
            self.outbox.wait_sent(self._config.close_timeout_s)
            self.outbox.detach()
        self.transport.end_writing()
        if self.ending is not None and self.ending[0] != CloseCode.ABNORMAL:
            self.transport.linger(max(0.0, deadline - monotonic()))
        self.transport.abort()
        self.on_ending = _nothing  # without this, a cycle of references would keep the session in memory

    def _await_answer(self) -> None:
        """Give the client `close_timeout_s` to answer the close frame."""
        self._timer = self._flusher.call_later(self._config.close_timeout_s, self._on_timer)
        if self._is_finished:  # `finish` may have run in the meantime
            self._timer.cancel()

    def _decide(self, code: int, reason: str, kind: type[Kick] | type[Parting] | None = None) -> bool:
        """Set `ending`. Returns False if another call has set it."""
        if self.ending is not None:
            return False
        # No lock is held, because a finalizer may close the connection in the middle of this method, in the same
        # thread. `list.append` is atomic.
        code = int(code)  # an int, because in Python 3.10 the text of a `CloseCode` is its name
        claim: tuple[int, str] = (code, reason) if kind is None else kind(code, reason)
        self._claims.append(claim)
        self.ending = self._claims[0]
        if self.ending is not claim:
            return False
        self.on_ending()
        return True

    def _on_stuck(self, reason: str) -> None:
        if self.ending is not None:
            return
        self.was_too_slow = True  # set before `ending`, because a thread that sees `ending` may read this next
        if self.begin_close(CloseCode.TRY_AGAIN_LATER, f"too slow: {reason}", discard=True):
            self.count("slow_sessions_closed")
        else:
            self.was_too_slow = False

    def _on_timer(self) -> None:
        """Called by the flusher when the client has not answered the close frame in time."""
        self.count("past_close_timeout_s")
        self.transport.abort()
