"""The attributes of rooms: JSON values by keys, shared by all members.

A room's attributes are kept while the room has members, and `keep_s` longer. The values are kept as JSON texts, so each
reader gets a copy of its own. A subclass of `Attributes` keeps them, either in this process or at a broker. The
subclass overrides the methods at the end of the class.

The function of an update runs without a lock on the attributes. Its result replaces the old value only if no other
update has replaced that value first. If one has, the function runs again.

Threads that update the same key wait for each other, so that they do not overtake each other again and again: each has
its *turn*. Results are correct without turns, too. So a thread waits at most `TURN_S` for its turn, and a thread inside
the function of another update does not wait at all. Over a broker, an update that was overtaken `CLAIM_AFTER` times
*claims* the key. Other processes then cannot change the key for a short time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from secrets import token_hex
from threading import Lock, local
from time import monotonic

from wsthreads.errors import RoomStateError
from wsthreads.rooms.json_text import json_text
from wsthreads.threads import forks
from wsthreads.threads.flusher import Timers

__all__ = [
    "CLAIM_AFTER",
    "EMPTY_BYTES",
    "MAX_KEY_CHARS",
    "Attributes",
    "check_key",
    "entry_bytes",
    "lost_fence",
    "too_big",
]

#: The largest number of characters in a key.
MAX_KEY_CHARS = 256

#: An update fails if other updates of the same key have come first for this long.
UPDATE_S = 5.0

#: The longest time that a thread waits for its turn to update a key. The thread before it may run a slow function.
TURN_S = 1.0

#: An update that was overtaken this many times claims the key.
CLAIM_AFTER = 3

#: The attributes of a room count as one JSON object. Its size is this number, for the first brace, plus the
#: `entry_bytes` of each attribute.
EMPTY_BYTES = 1

#: The function of an update. It gets the JSON text of a value, or None if there is no value, and returns the new JSON
#: text.
Change = Callable[["str | None"], str]


def check_key(key: object) -> str:
    """Check and normalize the key of an attribute. Raises `RoomStateError` for an invalid key.

    A pair of surrogates becomes one character, as in JavaScript. So each key has only one JSON text.
    """
    if not isinstance(key, str):
        raise RoomStateError(
            f"the key of an attribute must be text of 1 to {MAX_KEY_CHARS} characters, not {type(key).__name__}"
        )
    if not 1 <= len(key) <= MAX_KEY_CHARS:
        raise RoomStateError(
            f"the key of an attribute must have 1 to {MAX_KEY_CHARS} characters, this one has {len(key)}"
        )
    if key.isascii():
        return str(key)
    joined: str = json.loads(json.dumps(key))
    return joined


def entry_bytes(key: str, text: str) -> int:
    """How many bytes an attribute adds to the JSON of its room, in UTF-8: key, colon, value, and a comma or a brace."""
    return len(json.dumps(key, ensure_ascii=False).encode("utf-8", "surrogatepass")) + len(text.encode()) + 2


def too_big(name: str, key: str, size: int, max_bytes: int) -> RoomStateError:
    """The error for a value that would make the room's attributes larger than `max_room_bytes`."""
    return RoomStateError(
        f"with this value of {key!r:.80}, the attributes of the room {name!r:.80} would have {size} bytes as JSON; "
        f"max_room_bytes allows at most {max_bytes}"
    )


def lost_fence(name: str, fence: int) -> RoomStateError:
    """The error for a write with the fencing number of an ownership that has ended."""
    return RoomStateError(f"the ownership of the room {name!r:.80} with the fencing number {fence} is over")


class Attributes:
    """The attributes of all rooms of one endpoint, as JSON texts. Any thread."""

    #: The clock. Tests replace it by one that they can move. Attributes at a broker expire by the broker's own clock.
    timers: Timers

    def __init__(self, *, max_bytes: int, keep_s: float) -> None:
        self.max_bytes = max_bytes
        self.keep_s = keep_s
        self._begin()

    def _begin(self) -> None:
        self._turns = _Turns()
        self._running = local()  # its `keys` has the room and the key of each update whose function this thread runs

    def give_up(self) -> None:
        """Replace the locks in a forked process, because other threads of its parent may hold them."""
        self._begin()

    def text_of(self, value: object) -> str:
        """Encode a value as JSON text. Raises `RoomStateError`."""
        return json_text(
            value, what="an attribute", max_bytes=self.max_bytes, setting="max_room_bytes", error=RoomStateError
        )

    def get(self, name: str, key: str) -> str | None:
        """One value. None if there is no value."""
        return self._get(name, check_key(key))

    def fresh_text(self, name: str, key: str) -> str | None:
        """The current value, as JSON text. Over a broker, raises `BrokerError` if the broker does not answer."""
        return self._fresh(name, check_key(key))

    def put(self, name: str, key: str, text: str, fence: int | None = None) -> None:
        """Set a value.

        If `fence` is given, raises `RoomStateError` if the ownership with this fencing number has ended.
        """
        self._put(name, self._free(name, check_key(key)), text, fence)

    def delete(self, name: str, key: str, fence: int | None = None) -> bool:
        """Remove a value. Returns False if there was none."""
        return self._delete(name, self._free(name, check_key(key)), fence)

    def swap(
        self, name: str, key: str, before: str | None, after: str, fence: int | None = None, claim: str = ""
    ) -> tuple[bool, str | None]:
        """Set an attribute to `after`, but only if its value is `before` now.

        Returns whether the attribute was set, and its current value. If it was not set, a `claim` prevents other
        processes from changing it for a short time. A claim is a random text. Pass one after `CLAIM_AFTER` failures.
        """
        return self._swap(name, self._free(name, check_key(key)), before, after, fence, claim)

    def update(self, name: str, key: str, change: Change, fence: int | None = None) -> str:
        """Replace a value by ``change(value)``, as one step. Returns the new value.

        `change` is called again if the value has changed in the meantime. If `change` raises an exception, the value
        stays as it was, and this method raises the exception.
        """
        key = self._free(name, check_key(key))
        deadline, fork, claim = monotonic() + UPDATE_S, forks.number, ""
        with self._turn(name, key):
            before = self._fresh(name, key)
            for attempt in count(1):
                try:
                    after = self._call(name, key, change, before)
                except BaseException as error:
                    if fork != forks.number:
                        forks.leave(error)
                    raise
                if fork != forks.number:
                    forks.leave(None)
                is_done, before = self._swap(name, key, before, after, fence, claim)
                if is_done:
                    return after
                if monotonic() >= deadline:
                    break
                if attempt == CLAIM_AFTER:
                    claim = token_hex(8)
                self._pause()
        raise RoomStateError(
            f"the update of the attribute {key!r:.80} has failed: other updates came first {attempt} times within "
            f"{UPDATE_S:g} s. This update has changed nothing. Make its function faster"
        )

    def _call(self, name: str, key: str, change: Change, before: str | None) -> str:
        keys = self._keys()
        keys.append((name, key))
        try:
            return change(before)
        finally:
            keys.remove((name, key))

    def _keys(self) -> list[tuple[str, str]]:
        keys: list[tuple[str, str]] | None = getattr(self._running, "keys", None)
        if keys is None:
            keys = self._running.keys = []
        return keys

    def _free(self, name: str, key: str) -> str:
        """Returns the key. Raises `RoomStateError` if this thread runs the function of an update of the same key."""
        if (name, key) in self._keys():
            raise RoomStateError(
                f"the function of an update must return the new value of {key!r:.80}, and must not set it itself"
            )
        return key

    @contextmanager
    def _turn(self, name: str, key: str) -> Iterator[None]:
        if self._keys():  # this thread has a turn already; to wait for a second turn could cause a deadlock
            yield
            return
        with self._turns.take((name, key)):
            yield

    # The rooms call these methods when sessions join and leave.

    #: Whether the rooms must call `before_join` and `before_leave`. False as long as no room has attributes.
    is_told = False

    def before_join(self, name: str) -> None:
        """Called before a session joins a room."""

    def before_leave(self, name: str) -> None:
        """Called before a session leaves a room, while the session is still a member."""

    def forget(self, name: str) -> None:
        """Called after the last member in this process has left a room.

        The lock that this takes is a leaf: no other lock is taken while it is held.
        """

    # A subclass overrides these methods. In these methods, keys are valid, and values are JSON texts.

    def all(self, name: str) -> dict[str, str]:
        """All values, by key. The dict is a copy."""
        raise NotImplementedError

    def _get(self, name: str, key: str) -> str | None:
        raise NotImplementedError

    def _fresh(self, name: str, key: str) -> str | None:
        return self._get(name, key)

    def _put(self, name: str, key: str, text: str, fence: int | None) -> None:
        raise NotImplementedError

    def _swap(
        self, name: str, key: str, before: str | None, after: str, fence: int | None, claim: str
    ) -> tuple[bool, str | None]:
        """Like `swap`. A `claim` may prevent other processes from changing the value for a short time."""
        raise NotImplementedError

    def _delete(self, name: str, key: str, fence: int | None) -> bool:
        raise NotImplementedError

    def _pause(self) -> None:
        """Wait for a short time after another update came first."""


class _Turns:
    """The turns of threads that update the same key. No thread waits longer than `TURN_S` for its turn."""

    def __init__(self) -> None:
        self._lock = Lock()  # guards _locks; no other lock is taken while it is held
        # each lock, and the threads that hold it or wait for it
        self._locks: dict[tuple[str, str], tuple[Lock, set[object]]] = {}

    @contextmanager
    def take(self, key: tuple[str, str]) -> Iterator[None]:
        me = object()
        with self._lock:
            turn, those = self._locks.setdefault(key, (Lock(), set()))
            those.add(me)
        has_turn = False
        try:
            has_turn = turn.acquire(timeout=TURN_S)
            yield
        finally:
            if has_turn:
                turn.release()
            with self._lock:
                those.remove(me)
                if not those:
                    del self._locks[key]

    def __len__(self) -> int:
        return len(self._locks)
