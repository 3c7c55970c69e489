"""The attributes of rooms: JSON values by keys, shared by all members.

A room's attributes live while the room has members, and `keep_s` longer. They are kept as JSON texts, so each reader
gets its own copy. A subclass keeps them, in this process or at a broker: it overrides the methods at the end of
`Attributes`.

The function of an update runs without a lock of the store: the new value replaces the old one only if the old one is
still there. Threads that update the same key take turns, so that they do not overtake each other again and again.
Correctness does not depend on turns: no thread waits long for a turn, and a thread inside the function of another
update does not wait at all. Over a broker, an update that was overtaken `CLAIM_AFTER` times claims the key, so that
other processes wait for a moment.
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

#: The longest key.
MAX_KEY_CHARS = 256

#: An update that others overtake for longer than this raises an error.
UPDATE_S = 5.0

#: The longest wait while another thread has the turn for the same key: its function may be slow.
TURN_S = 1.0

#: An update that was overtaken this many times claims the key.
CLAIM_AFTER = 3

#: The size of a room's attributes is that of one JSON object: these bytes, and the `entry_bytes` of each attribute.
EMPTY_BYTES = 1

#: The function of an update: gets the JSON text of a value, or None if there is none, and returns the new JSON text.
Change = Callable[["str | None"], str]


def check_key(key: object) -> str:
    """The key of an attribute, normalized. Raises `RoomStateError` for an invalid key.

    A pair of surrogates becomes one character, as in JavaScript. So each key has one JSON text.
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
    """How many bytes an attribute adds to the JSON of its room, in UTF-8, with a colon and a comma or brace."""
    return len(json.dumps(key, ensure_ascii=False).encode("utf-8", "surrogatepass")) + len(text.encode()) + 2


def too_big(name: str, key: str, size: int, max_bytes: int) -> RoomStateError:
    """The error for a value that does not fit."""
    return RoomStateError(
        f"the attributes of a room may have {max_bytes} bytes as JSON (max_room_bytes); "
        f"with this value of {key!r:.80}, those of {name!r:.80} would have {size}"
    )


def lost_fence(name: str, fence: int) -> RoomStateError:
    """The error for a write of an ownership that is over."""
    return RoomStateError(f"this process does not own the room {name!r:.80} any more, by fencing number {fence}")


class Attributes:
    """The attributes of all rooms of one endpoint, as JSON texts. Any thread."""

    #: Tests that move the clock replace this. A broker has its own clock.
    timers: Timers

    def __init__(self, *, max_bytes: int, keep_s: float) -> None:
        self.max_bytes = max_bytes
        self.keep_s = keep_s
        self._begin()

    def _begin(self) -> None:
        self._turns = _Turns()
        self._running = local()  # `keys`: the keys of the updates whose function this thread runs

    def give_up(self) -> None:
        """In a forked process: other threads of its parent may hold the locks."""
        self._begin()

    def text_of(self, value: object) -> str:
        """A value as JSON text. Raises `RoomStateError`."""
        return json_text(
            value, what="an attribute", max_bytes=self.max_bytes, setting="max_room_bytes", error=RoomStateError
        )

    def get(self, name: str, key: str) -> str | None:
        """One value; None if there is none."""
        return self._get(name, check_key(key))

    def fresh_text(self, name: str, key: str) -> str | None:
        """The current value, as JSON text. Raises `BrokerError` if it is not known."""
        return self._fresh(name, check_key(key))

    def put(self, name: str, key: str, text: str, fence: int | None = None) -> None:
        """Set a value.

        With a `fence`, only while the ownership with that fencing number lasts. Raises `RoomStateError`.
        """
        self._put(name, self._free(name, check_key(key)), text, fence)

    def delete(self, name: str, key: str, fence: int | None = None) -> bool:
        """Remove a value. False if there was none."""
        return self._delete(name, self._free(name, check_key(key)), fence)

    def swap(
        self, name: str, key: str, before: str | None, after: str, fence: int | None = None, claim: str = ""
    ) -> tuple[bool, str | None]:
        """Set a value to `after` if it is `before` now. Returns whether it was, and the current value.

        If it was not, a `claim`, a random text, keeps others from changing the value for a moment. Pass one after
        `CLAIM_AFTER` failures.
        """
        return self._swap(name, self._free(name, check_key(key)), before, after, fence, claim)

    def update(self, name: str, key: str, change: Change, fence: int | None = None) -> str:
        """Replace a value by ``change(value)``, as one step. Returns the new value.

        `change` is called again if the value has changed meanwhile. Raises what `change` raises; then nothing is
        changed.
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
            f"the attribute {key!r:.80} was changed by others {attempt} times while its update ran, "
            f"for {UPDATE_S:g} s: nothing is changed. Make the function of the update faster"
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
        """The normalized key. Raises `RoomStateError` inside the function of an update of the same key."""
        if (name, key) in self._keys():
            raise RoomStateError(
                f"the function of an update must return the new value of {key!r:.80}, and not set it itself"
            )
        return key

    @contextmanager
    def _turn(self, name: str, key: str) -> Iterator[None]:
        if self._keys():  # waiting for another key while having a turn could deadlock
            yield
            return
        with self._turns.take((name, key)):
            yield

    # Joins and leaves. Cheap while there are no attributes.

    #: Whether `before_join` and `before_leave` must be called.
    is_told = False

    def before_join(self, name: str) -> None:
        """A session is about to join."""

    def before_leave(self, name: str) -> None:
        """A session is about to leave, and is still a member."""

    def forget(self, name: str) -> None:
        """The last member in this process has left a room. Takes only a lock that is a leaf."""

    # A subclass overrides these. Keys have been checked, and values are JSON texts.

    def all(self, name: str) -> dict[str, str]:
        """All values, by key. A copy."""
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
        """Like `swap`. A `claim` may keep others from changing the value for a moment."""
        raise NotImplementedError

    def _delete(self, name: str, key: str, fence: int | None) -> bool:
        raise NotImplementedError

    def _pause(self) -> None:
        """Wait a moment after others have changed a value that this thread updates."""


class _Turns:
    """Threads that update the same key take turns. No thread waits longer than `TURN_S`."""

    def __init__(self) -> None:
        self._lock = Lock()  # guards _locks; a leaf
        self._locks: dict[tuple[str, str], tuple[Lock, set[object]]] = {}  # each with its threads

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
