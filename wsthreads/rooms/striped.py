"""`StripedDict`: a dict for many threads, similar to Java's ConcurrentHashMap.

Guarantees:

- Every method is atomic for its key. `compute` and `compute_if_present` call their function under the lock of the key's
  stripe. So check-then-act ("create if absent", "remove if empty") is one step.
- Calls for different keys seldom wait for each other, because the keys are spread over `stripes` locks.
- `snapshot` and `len` lock one stripe after another. Each stripe is consistent; the whole is consistent only if nothing
  was written meanwhile.

The locks are leaf locks: under one, no other lock is taken. A function given to `compute` must be quick: no I/O, no
logging, no other lock, no other call of the same dict. `StripedDict` does not rely on the GIL.

The methods do not use `dict.get`, for the reason in `wsthreads.threads.lookups`.
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
    """A mapping whose values are never None. For a compute function, None means "no value"."""

    __slots__ = ("_locks", "_maps")

    def __init__(self, stripes: int = 32) -> None:
        if stripes < 1:
            raise ValueError(f"a StripedDict needs at least 1 stripe, not {stripes}")
        # _locks[i] guards _maps[i]. A list comprehension, since [Lock()] * n would be one lock, n times.
        self._locks = [Lock() for _ in range(stripes)]
        self._maps: list[dict[K, V]] = [{} for _ in range(stripes)]

    def get(self, key: K, default: D | None = None) -> V | D | None:
        """The key's value, or `default`."""
        stripe = hash(key) % len(self._maps)
        values = self._maps[stripe]
        with self._locks[stripe]:
            return values[key] if key in values else default  # noqa: SIM401

    def compute(self, key: K, function: Callable[[V | None], V | None]) -> V | None:
        """Set the key's value to ``function(value or None)`` and return it; None removes the key.

        If `function` raises, nothing changes and the exception goes to the caller.
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
        """Like `compute`, but only if the key has a value. Returns None if it has none."""
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
        """Remove the key and return its value, or None if it had none."""
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

        Also replaces the locks, because in a forked process a thread of the parent may hold them.
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
