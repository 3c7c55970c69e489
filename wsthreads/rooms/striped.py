"""`StripedDict`: a dict for many threads, similar to Java's ConcurrentHashMap.

The keys are spread over several *stripes*. Each stripe is a dict with a lock of its own.

Guarantees:

- Every method is atomic for its key. `compute` and `compute_if_present` call their function while they hold the lock of
  the key's stripe. So a check and the action after it are one step, such as "create if absent" and "remove if empty".
- Calls for different keys seldom wait for each other, because the keys are spread over `stripes` locks.
- `snapshot` and `len` lock one stripe after another. Each stripe is consistent. The whole is consistent only if no
  other thread has written during the call.

The locks are leaf locks: a thread that holds one takes no other lock. So a function that is passed to `compute` must be
quick, and must not do I/O, log, take a lock, or call the same dict. `StripedDict` does not rely on the GIL.

The methods do not use `dict.get`. `wsthreads.threads.lookups` has the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

__all__ = ["StripedDict"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")


class StripedDict(Generic[K, V]):
    """A mapping whose values are never None. As the result of a compute function, None means "no value"."""

    __slots__ = ("_locks", "_maps")

    def __init__(self, stripes: int = 32) -> None:
        if stripes < 1:
            raise ValueError(f"a StripedDict needs at least 1 stripe, not {stripes}")
        # _locks[i] guards _maps[i]. This is a list comprehension, because [Lock()] * n would be one lock, n times.
        self._locks = [Lock() for _ in range(stripes)]
        self._maps: list[dict[K, V]] = [{} for _ in range(stripes)]

    def get(self, key: K, default: D | None = None) -> V | D | None:
        """The key's value. `default` if the key has none."""
        stripe = hash(key) % len(self._maps)
        values = self._maps[stripe]
        with self._locks[stripe]:
            return values[key] if key in values else default  # noqa: SIM401

    def compute(self, key: K, function: Callable[[V | None], V | None]) -> V | None:
        """Set the key's value to ``function(value or None)``, and return the new value. None removes the key.

        If `function` raises, nothing changes, and the caller gets the exception.
        """
        stripe = hash(key) % len(self._maps)
        values = self._maps[stripe]
        with self._locks[stripe]:
            value = function(values[key] if key in values else None)  # noqa: SIM401
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
            return value

    def compute_if_present(self, key: K, function: Callable[[V], V | None]) -> V | None:
        """Like `compute`, but does nothing if the key has no value. Returns None in this case."""
        stripe = hash(key) % len(self._maps)
        values = self._maps[stripe]
        with self._locks[stripe]:
            if key not in values:
                return None
            value = function(values[key])
            if value is None:
                del values[key]
            else:
                values[key] = value
            return value

    def put(self, key: K, value: V) -> None:
        """Set the key's value."""
        if value is None:
            raise TypeError(f"None cannot be a value of a StripedDict (key {key!r})")
        self.compute(key, lambda _: value)

    def pop(self, key: K) -> V | None:
        """Remove the key, and return its value. Returns None if it had none."""
        stripe = hash(key) % len(self._maps)
        with self._locks[stripe]:
            return self._maps[stripe].pop(key, None)

    def remove(self, key: K, value: V) -> None:
        """Remove the key if its value is this object."""
        self.compute_if_present(key, lambda now: None if now is value else now)

    def snapshot(self) -> dict[K, V]:
        """A plain dict with a copy of all entries."""
        copy: dict[K, V] = {}
        for lock, values in zip(self._locks, self._maps, strict=True):
            with lock:
                copy.update(values)
        return copy

    def renew(self) -> dict[K, V]:
        """Remove all entries, and return them.

        Also replaces the locks, because in a forked process a thread of the parent may have held them.
        """
        maps, self._maps = self._maps, [{} for _ in self._maps]
        self._locks = [Lock() for _ in maps]
        return {key: value for values in maps for key, value in values.items()}

    def __contains__(self, key: K) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        total = 0
        for lock, values in zip(self._locks, self._maps, strict=True):
            with lock:
                total += len(values)
        return total

    def _check(self) -> None:
        """Check the invariants, for tests."""
        for stripe, values in enumerate(self._maps):
            for key, value in values.items():
                assert value is not None, f"{key!r} has no value"
                assert hash(key) % len(self._maps) == stripe, f"{key!r} is in stripe {stripe}"
