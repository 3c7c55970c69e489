"""The banned users of one endpoint that this process knows. Their handshakes are refused until the ban ends."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import NamedTuple

from wsthreads.errors import UserError, brief

__all__ = ["MAX_BAN_S", "Ban", "Bans", "check_ban"]

#: The longest ban. A longer ban belongs in the application's database.
MAX_BAN_S = 365 * 86400

#: At this number of bans, expired bans are removed for the first time.
MIN_SWEEP = 100


class Ban(NamedTuple):
    """One ban: its end by the clock of `Bans`, and the close code and the reason for the user's sessions."""

    until: float
    code: int
    reason: str


class Bans:
    """The bans of one endpoint, by user. Any thread. Takes only a leaf lock."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        #: Tests that move the clock replace this.
        self.clock = clock
        self._lock = Lock()  # guards the rest
        self._bans: dict[str, Ban] = {}
        self._sweep_at = MIN_SWEEP

    def give_up(self) -> None:
        """Replace the lock in a forked process, because another thread of its parent may hold it."""
        self._lock = Lock()

    def put(self, user: str, ban_s: float, code: int, reason: str) -> None:
        """Ban a user from now on.

        An earlier ban that lasts longer stays: a logout must not shorten the ban of a kick.
        """
        with self._lock:
            now = self.clock()
            ban, former = Ban(now + ban_s, code, reason), self._bans.get(user)
            if former is None or former.until < ban.until:
                self._bans[user] = ban
            if len(self._bans) >= self._sweep_at:
                self._bans = {user: ban for user, ban in self._bans.items() if ban.until > now}
                self._sweep_at = max(MIN_SWEEP, 2 * len(self._bans))

    def get(self, user: str) -> Ban | None:
        """The current ban of a user, or None."""
        if user not in self._bans:
            return None
        with self._lock:
            ban = self._bans.get(user)
            if ban is not None and ban.until <= self.clock():
                del self._bans[user]
                ban = None
            return ban

    def items(self) -> list[tuple[str, Ban]]:
        """All users with their bans. A snapshot."""
        with self._lock:
            now = self.clock()
            return [(user, ban) for user, ban in self._bans.items() if ban.until > now]

    def __len__(self) -> int:
        return len(self._bans)


def check_ban(ban_s: float) -> None:
    """Raise `UserError` for an invalid duration of a ban."""
    what = f"ban_s must be a number of seconds from 0 to {MAX_BAN_S}"
    if isinstance(ban_s, bool) or not isinstance(ban_s, (int, float)):
        raise UserError(f"{what}, not {brief(ban_s)}")
    if not 0 <= ban_s <= MAX_BAN_S:  # NaN fails, too
        raise UserError(f"{what}, not {brief(ban_s)}")
