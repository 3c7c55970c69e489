"""Decides when a client connects again, and when that is useless. This module uses no clock and no socket."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import SystemRandom

from wsthreads.errors import CloseCode, is_final

__all__ = ["Retries"]

#: If the server closes with one of these codes before its welcome, the session may still be resumed. (1005 means that
#: there was no code.) After any other code, the session is over.
UNDECIDED_CODES = frozenset({1001, 1005, 1006, 1011, 1012, 1013})

#: A connection that lasts for this many seconds is stable. After a stable connection, the delays begin again with the
#: shortest.
STABLE_S = 5.0

#: The statuses from 400 to 499 that may be temporary: timeout, too early, too many requests.
TEMPORARY_STATUSES = frozenset({408, 425, 429})

_RANDOM = SystemRandom().random


class Retries:
    """The delays between two attempts to connect. Each is twice as long as the one before, up to `max_delay_s`.

    Each delay is a random part of its full length, at least half of it, so that many clients do not return at once.

    `has_source` says that a function returns the address, which may contain a fresh token. So a client whose token was
    refused or has expired connects once more.
    """

    def __init__(
        self,
        min_delay_s: float,
        max_delay_s: float,
        max_attempts: int | None,
        has_source: bool,
        random: Callable[[], float] = _RANDOM,
    ) -> None:
        self._min_delay_s, self._max_delay_s, self._max_attempts = min_delay_s, max_delay_s, max_attempts
        self._has_source = has_source
        self._random = random
        #: How many attempts there were since the last stable connection.
        self.attempts = 0
        self._has_asked_again = False

    def stable(self) -> None:
        """Note that the connection is stable. The delays begin again with the shortest."""
        self.attempts, self._has_asked_again = 0, False

    def after_close(self, code: int) -> float | None:
        """Returns the delay after the end of a connection. Returns None if the client must not connect again."""
        return self._next(is_final(code), code == CloseCode.EXPIRED)

    def after_refusal(self, status: int | None, retry_after_s: float = 0.0, left_s: float = inf) -> float | None:
        """Returns the delay after an attempt without a connection.

        `status` is the HTTP status, if the server has refused.

        A server may ask the client to wait for `retry_after_s`. At most `max_delay_s` of this is added to the random
        delay, and at most half of `left_s`, so that the client comes back before its session is over. If `left_s` is 0,
        the session is over already.
        """
        is_mistake = status is not None and 400 <= status <= 499 and status not in TEMPORARY_STATUSES
        delay_s = self._next(is_mistake, True)
        return None if delay_s is None else delay_s + min(retry_after_s, self._max_delay_s, left_s / 2 or inf)

    def _next(self, is_over: bool, may_ask_again: bool) -> float | None:
        if is_over:
            if not (may_ask_again and self._has_source) or self._has_asked_again:
                return None
            self._has_asked_again = True
        if self._max_attempts is not None and self.attempts >= self._max_attempts:
            return None
        self.attempts += 1
        longest = min(self._max_delay_s, self._min_delay_s * 2.0 ** min(self.attempts - 1, 60))
        return longest / 2 + self._random() * longest / 2
