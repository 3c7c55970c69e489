"""Keeps the attributes of rooms in the memory of this process.

Locks: the stripe of a room in `LocalAttributes._states` guards the room's attributes. (A stripe is one of the locks of
a `StripedDict`.) A thread that holds the stripe only reads and changes the attributes, and calls `has_members`, whose
lock is a leaf.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from wsthreads.rooms.attributes import EMPTY_BYTES, Attributes, entry_bytes, lost_fence, too_big
from wsthreads.rooms.striped import StripedDict
from wsthreads.threads.flusher import Timers, weakly
from wsthreads.threads.lookups import look_up

__all__ = ["LocalAttributes"]

#: When this many rooms have attributes, expired attributes are removed. After that, they are removed when there are
#: twice as many rooms as were left.
MIN_SWEEP = 100


class _State:
    """The attributes of one room."""

    __slots__ = ("kept_until", "size", "texts", "watched_until")

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.size = EMPTY_BYTES
        #: When the attributes expire if the room has no members at that time. By the clock of `timers`.
        self.kept_until = 0.0
        #: When a timer will check whether the attributes have expired.
        self.watched_until = 0.0


def _always(name: str, fence: int) -> bool:
    """The default of `is_owner`: every fencing number is valid."""
    return True


class LocalAttributes(Attributes):
    """Attributes in the memory of this process.

    `has_members` tells whether a room has members. `check_reach` raises an error in a process that cannot reach the
    members.
    """

    def __init__(
        self,
        *,
        timers: Timers,
        has_members: Callable[[str], bool],
        check_reach: Callable[[], None],
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        self.timers = timers
        #: Tells whether a fencing number is that of the room's present owner.
        self.is_owner: Callable[[str, int], bool] = _always
        self._has_members = has_members
        self._check_reach = check_reach
        self._states: StripedDict[str, _State] = StripedDict()
        self._sweep_at = MIN_SWEEP

    def give_up(self) -> None:
        super().give_up()
        self._states.renew()

    def all(self, name: str) -> dict[str, str]:
        self._check_reach()
        found: dict[str, str] = {}

        def copy(state: _State) -> _State | None:
            if self._is_over(name, state):
                return None
            found.update(state.texts)
            return state

        self._states.compute_if_present(name, copy)
        return found

    def _get(self, name: str, key: str) -> str | None:
        self._check_reach()
        found: str | None = None

        def look(state: _State) -> _State | None:
            nonlocal found
            if self._is_over(name, state):
                return None
            found = look_up(state.texts, key)
            return state

        self._states.compute_if_present(name, look)
        return found

    def _put(self, name: str, key: str, text: str, fence: int | None) -> None:
        self._write(name, key, text, fence)

    def _swap(
        self, name: str, key: str, before: str | None, after: str, fence: int | None, claim: str
    ) -> tuple[bool, str | None]:
        old = self._write(name, key, after, fence, only_if=lambda old: old == before)
        return old == before, after if old == before else old

    def _delete(self, name: str, key: str, fence: int | None) -> bool:
        return self._write(name, key, None, fence) is not None

    def _write(
        self,
        name: str,
        key: str,
        text: str | None,
        fence: int | None,
        only_if: Callable[[str | None], bool] = lambda old: True,
    ) -> str | None:
        """Set a value, or remove it if `text` is None.

        Does so only if `only_if` accepts the old value. Returns the old value.
        """
        self._check_reach()
        if fence is not None and not self.is_owner(name, fence):
            raise lost_fence(name, fence)
        added = 0 if text is None else entry_bytes(key, text)
        now = self.timers.now()
        old: str | None = None
        watch = False

        def write(state: _State | None) -> _State | None:
            nonlocal old, watch
            if state is None or self._is_over(name, state):
                state = _State()
            old = look_up(state.texts, key)
            if not only_if(old):
                return state if state.texts else None
            size = state.size + added - (0 if old is None else entry_bytes(key, old))
            if text is None:
                state.texts.pop(key, None)
                if not state.texts:
                    return None
            elif size > self.max_bytes:
                raise too_big(name, key, size, self.max_bytes)
            else:
                state.texts[key] = text
            state.size = size
            watch = self._keep(state, now)
            return state

        self.is_told = True
        self._states.compute(name, write)
        if watch:
            self._watch(name, self.keep_s)
            self._sweep()
        return old

    def before_join(self, name: str) -> None:
        self._states.compute_if_present(name, lambda state: None if self._is_over(name, state) else state)

    def before_leave(self, name: str) -> None:
        now = self.timers.now()
        watch = False

        def keep(state: _State) -> _State:
            nonlocal watch
            watch = self._keep(state, now)
            return state

        self._states.compute_if_present(name, keep)
        if watch:
            self._watch(name, self.keep_s)

    def _keep(self, state: _State, now: float) -> bool:
        """Keep a room's attributes for `keep_s` from now on.

        Returns whether the caller has to set a timer. Called with the stripe held.
        """
        state.kept_until = now + self.keep_s
        if state.watched_until > now:
            return False
        state.watched_until = state.kept_until
        return True

    def _is_over(self, name: str, state: _State) -> bool:
        """Whether a room's attributes have expired. Called with the stripe held."""
        return state.kept_until <= self.timers.now() and not self._has_members(name)

    def _watch(self, name: str, delay_s: float) -> None:
        self.timers.call_later(delay_s, weakly(self._look, name))

    def _look(self, name: str) -> None:
        """Remove a room's attributes if they have expired. Called in the timers' thread."""
        left_s = 0.0

        def look(state: _State) -> _State | None:
            nonlocal left_s
            if self._is_over(name, state):
                return None
            now = self.timers.now()
            left_s = state.kept_until - now
            state.watched_until = max(state.kept_until, now)
            return state

        self._states.compute_if_present(name, look)
        if left_s > 0:  # otherwise the room has members, and the next leave sets a timer
            self._watch(name, left_s)

    def _sweep(self) -> None:
        """Remove all expired attributes. Needed in a process without sessions, where no timers run."""
        states = self._states.snapshot() if len(self._states) >= self._sweep_at else {}
        if states:
            for name in states:
                self.before_join(name)
            self._sweep_at = max(MIN_SWEEP, 2 * len(self._states))

    def __len__(self) -> int:
        """How many rooms have attributes."""
        return len(self._states)

    def sizes(self) -> dict[str, tuple[int, int]]:
        """For each room: how many attributes it has, and their bytes. A snapshot."""
        return {name: (len(state.texts), state.size) for name, state in self._states.snapshot().items()}

    def _check(self) -> None:
        """Check the invariants, for tests."""
        for name, state in self._states.snapshot().items():
            assert state.texts, f"{name!r} has no attributes"
            assert state.size == EMPTY_BYTES + sum(entry_bytes(*item) for item in state.texts.items())
            assert len(json.dumps({key: json.loads(text) for key, text in state.texts.items()})) >= 2
