"""The way out to one client: its outbox, and how the connection ends.

The first to decide how it ends is right: the client, the handler, a bound, a clock, the end of TCP. The close handshake
follows RFC 6455, section 7: whoever closed, the server ends its side of TCP first, and then reads what still comes in.
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
from wsthreads.protocol.frames import close_frame
from wsthreads.protocol.outbox import Outbox
from wsthreads.protocol.transport import Transport
from wsthreads.threads.flusher import Flusher, Timer

__all__ = ["Channel"]

log = get_logger(__name__)


def _nothing() -> None:
    """Default callback: does nothing."""


class Kick(NamedTuple):
    """The ending of a connection that the application closed: code and reason, as in other endings."""

    code: int
    reason: str


class Channel:
    """Sends and closes. Any thread, but `finish` and `hang_up`, which are the connection's thread's.

    It is all that a session knows of its connection: `outbox`, `ending`, `subprotocol` and `begin_close`. `count` is
    called, without a lock, with the name of a counter: `slow_sessions_closed`, or `past_` and the name of the setting.
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
        #: The request, for the context of log lines.
        self.environ = environ
        self.count = count
        #: The subprotocol that was agreed on.
        self.subprotocol = subprotocol
        self._config = config
        self._flusher = flusher
        self._claims: list[tuple[int, str]] = []  # how it ended, by whoever wanted to decide; the first is right
        #: Code and reason once the connection is closing, whoever began. Set once.
        self.ending: tuple[int, str] | None = None
        #: Called once that is decided, by the thread that decided.
        self.on_ending: Callable[[], None] = _nothing
        #: The connection was closed since the client did not read what was sent.
        self.was_too_slow = False
        self._timer: Timer | None = None
        self._is_finished = False  # `finish` has cancelled the timer; who sets one looks at this afterwards
        #: What is sent to the client.
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
        """Whether messages can be sent. After a loss, messages that came in before may still be handed over."""
        return self.ending is None and not self.outbox.is_over

    @property
    def was_kicked(self) -> bool:
        """Whether the application closed the connection, and not the client, the network or the server."""
        return isinstance(self.ending, Kick)

    def begin_close(self, code: int, reason: str = "", *, discard: bool = False, is_kick: bool = False) -> bool:
        """Start the close handshake; False if the connection is closing already. Does not block.

        The client has `close_timeout_s` to answer. With `discard`, messages that wait to be sent are dropped. With
        `is_kick`, the application closes the connection.
        """
        if not self._decide(code, reason, is_kick=is_kick):
            return False
        self.outbox.close(close_frame(code, reason), discard=discard)
        self._timer = self._flusher.call_later(self._config.close_timeout_s, self._on_timer)
        if self._is_finished:  # meanwhile
            self._timer.cancel()
        return True

    def give_up(self, dead_fd: int) -> None:
        """In a forked process: the client is the parent's. The socket becomes one whose peer is gone."""
        descriptor = self.transport.fileno()
        if descriptor >= 0:
            os.dup2(dead_fd, descriptor, inheritable=False)
        self._claims.append((int(CloseCode.ABNORMAL), ""))
        self.ending = self._claims[0]
        self.outbox.give_up()

    def answer_close(self, code: int, reason: str) -> None:
        """The client's close frame has come."""
        if self._decide(code, reason):  # ours to answer: RFC 6455, 5.5.1, with the same code
            self.outbox.close(close_frame(None if code == CloseCode.NO_STATUS else code))

    def refuse(self, error: PeerError) -> None:
        """Close for what the client has done. Count it if the client went past a bound."""
        log.debug("closing: %s", error, extra=log_context(self.environ))
        if self.begin_close(error.close_code, str(error)) and error.setting:
            self.count(f"past_{error.setting}")

    def hasten_close(self, timeout_s: float) -> None:
        """Give a client that is being closed no more than `timeout_s` from now, nor than `close_timeout_s`."""
        self._flusher.call_later(min(timeout_s, self._config.close_timeout_s), self.transport.abort)

    def end_lost(self, reason: str) -> None:
        """TCP has ended without a close handshake. Does nothing if it is decided how the connection ends."""
        self._decide(CloseCode.ABNORMAL, reason)

    def lose(self, reason: str) -> None:
        """End the connection without a close handshake."""
        self.end_lost(reason)
        self.transport.abort()

    def cut(self) -> None:
        """Send nothing more, and end TCP. How the connection ended is left for the reading thread to decide."""
        self.outbox.detach()
        self.transport.abort()

    def finish(self) -> tuple[int, str]:
        """How it ended: code and reason. To be called when nothing is read any more. Does not block.

        If all has been sent, which is the rule, this ends TCP's sending side, too. So a client that waits for the end
        of TCP does not wait for `on_close`.
        """
        self._is_finished = True
        if self._timer is not None:
            self._timer.cancel()
        ending = self.ending or (int(CloseCode.ABNORMAL), "")
        if ending[0] == CloseCode.ABNORMAL:
            self.cut()
        elif self.outbox.wait_sent(0):
            self.outbox.detach()
            self.transport.end_writing()
        return ending

    def hang_up(self) -> None:
        """Send what is left, end TCP before the client does, let go of the socket. Blocks `close_timeout_s` at most."""
        deadline = monotonic() + self._config.close_timeout_s
        self.outbox.wait_sent(self._config.close_timeout_s)
        self.outbox.detach()
        self.transport.end_writing()
        if self.ending is not None and self.ending[0] != CloseCode.ABNORMAL:
            self.transport.linger(max(0.0, deadline - monotonic()))
        self.transport.abort()
        self.on_ending = _nothing  # and no cycle of references keeps the session in memory

    def _decide(self, code: int, reason: str, *, is_kick: bool = False) -> bool:
        """Decide how the connection ends; False if that has been decided."""
        if self.ending is not None:
            return False
        # Without a lock: a finalizer may close while its thread is in here. To append to a list is atomic.
        code = int(code)  # not a CloseCode, which Python 3.10 writes by its name
        claim: tuple[int, str] = Kick(code, reason) if is_kick else (code, reason)
        self._claims.append(claim)
        self.ending = self._claims[0]
        if self.ending is not claim:
            return False
        self.on_ending()
        return True

    def _on_stuck(self, reason: str) -> None:
        if self.begin_close(CloseCode.TRY_AGAIN_LATER, f"too slow: {reason}", discard=True):
            self.was_too_slow = True
            self.count("slow_sessions_closed")

    def _on_timer(self) -> None:
        """The flusher's: the client has not answered the close frame."""
        self.count("past_close_timeout_s")
        self.transport.abort()
