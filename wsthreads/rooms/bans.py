"""The banned users of one endpoint, as far as this process knows them.

The handshakes of a banned user are refused until the ban ends.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from time import monotonic
from typing import NamedTuple

from wsthreads.errors import UserError, brief

__all__ = ["MAX_BAN_S", "Ban", "Bans", "check_ban"]

#: The longest ban. The application's database is the place for a longer ban.
MAX_BAN_S = 365 * 86400

#: Expired bans are removed when there are this many bans. After that, they are removed when there are twice as many as
#: were left.
MIN_SWEEP = 100


class Ban(NamedTuple):
    """A ban. It has its end by the clock of `Bans`, and the close code and the reason for the user's sessions."""

    until: float
    code: int
    reason: str


class Bans:
    """The bans of one endpoint, by user. Any thread. No other lock is taken under the lock that this takes."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        #: Tests replace the clock by one that they can move.
        self.clock = clock
        self._lock = Lock()  # guards the attributes below
        self._bans: dict[str, Ban] = {}
        self._sweep_at = MIN_SWEEP

    def give_up(self) -> None:
        """Replace the lock in a forked process, because another thread of its parent may hold it."""
        self._lock = Lock()

    def put(self, user: str, ban_s: float, code: int, reason: str) -> None:
        """Ban a user from now on.

        If an earlier ban lasts longer, it stays. For example, a logout must not shorten the ban of a kick.
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
        """The current ban of a user. None if the user is not banned."""
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
    if not 0 <= ban_s <= MAX_BAN_S:  # NaN is refused, too
        raise UserError(f"{what}, not {brief(ban_s)}")
