"""What rooms hold: JSON values by keys, for all members.

A room's attributes live while the room has members, and `keep_s` longer. They are kept as JSON texts, so each reader
gets a copy of its own. A subclass keeps them, in this process or at a broker: it overrides the methods at the end of
`Attributes`.

The function of an update runs under no lock of the store: the new value replaces the old one only if that is still
there. Threads that update the same key take turns, so that they do not overtake each other again and again. A turn is
no lock that anything relies on: nobody waits for it for long, and not at all in the function of another update. Over a
broker, an update that was overtaken `CLAIM_AFTER` times claims the key, so that other processes wait for it for a
moment.
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

#: Longest wait for the turn of another thread that updates the same key. Its function may be slow.
TURN_S = 1.0

#: An update that was overtaken so many times claims the key.
CLAIM_AFTER = 3

#: The bytes of a room's attributes are those of one JSON object: these, and `entry_bytes` of each.
EMPTY_BYTES = 1

#: What an update does: gets the JSON text of a value, or None if there is none, and returns another one.
Change = Callable[["str | None"], str]


def check_key(key: object) -> str:
    """The key of an attribute, as it is kept. Raises `RoomStateError`.

    Two surrogates that belong together are one character, as in JavaScript. So one key has one JSON text.
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
    """How many bytes an attribute adds to its room's, as JSON in UTF-8: also a colon, and a comma or brace."""
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

    #: Replaced by tests that move the clock. A broker has a clock of its own.
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
        """The same, as it is now: raises `BrokerError` if that is not known."""
        return self._fresh(name, check_key(key))

    def put(self, name: str, key: str, text: str, fence: int | None = None) -> None:
        """Set a value. With a `fence`, only in the ownership with that fencing number. Raises `RoomStateError`."""
        self._put(name, self._free(name, check_key(key)), text, fence)

    def delete(self, name: str, key: str, fence: int | None = None) -> bool:
        """Remove a value. False if there is none."""
        return self._delete(name, self._free(name, check_key(key)), fence)

    def swap(
        self, name: str, key: str, before: str | None, after: str, fence: int | None = None, claim: str = ""
    ) -> tuple[bool, str | None]:
        """Set a value if it is `before` now. Returns whether it was, and the value that is there.

        If it was not, a `claim`, a random text, keeps others from changing it for a moment. Give one after the value
        was another one `CLAIM_AFTER` times.
        """
        return self._swap(name, self._free(name, check_key(key)), before, after, fence, claim)

    def update(self, name: str, key: str, change: Change, fence: int | None = None) -> str:
        """Replace a value by what `change` makes of it, as one step. Returns the new value.

        `change` is called again if the value has changed meanwhile. Raises what it raises; then nothing is changed.
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
        """The key. Raises `RoomStateError` in a function that is to make the new value of the same key."""
        if (name, key) in self._keys():
            raise RoomStateError(
                f"the function of an update must return the new value of {key!r:.80}, and not set it itself"
            )
        return key

    @contextmanager
    def _turn(self, name: str, key: str) -> Iterator[None]:
        if self._keys():  # to wait for another key under a turn could be a circle
            yield
            return
        with self._turns.take((name, key)):
            yield

    # What happens to a room. Cheap, while there are no attributes.

    #: Whether the next two are to be called.
    is_told = False

    def before_join(self, name: str) -> None:
        """A session is about to join."""

    def before_leave(self, name: str) -> None:
        """A session is about to leave, and is still a member."""

    def forget(self, name: str) -> None:
        """This process has no members in a room any more. Takes only a lock that is a leaf."""

    # What a subclass does. Keys are checked, and values are JSON texts.

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
        """As `swap`. With a `claim`, a random name, others may be kept from changing the value for a moment."""
        raise NotImplementedError

    def _delete(self, name: str, key: str, fence: int | None) -> bool:
        raise NotImplementedError

    def _pause(self) -> None:
        """Wait a moment after others have changed a value that this thread updates."""


class _Turns:
    """Threads that want the same take turns. Nobody waits for longer than `TURN_S`."""

    def __init__(self) -> None:
        self._lock = Lock()  # guards _locks; a leaf
        self._locks: dict[tuple[str, str], tuple[Lock, set[object]]] = {}  # with those who have it or want it

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
