"""What all clients of a run share: the server's address, the rooms, the ledger, and message bodies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from time import monotonic

from tests.stress.history import FOREVER, Ledger, Violations

SIZES = ((0.75, 10, 300), (0.22, 300, 8_000), (0.03, 8_000, 65_536))
BOUNDARIES = (0, 10, 100, 125, 126, 127, 65_500, 65_535, 65_536)


class Over(Exception):
    """The run has failed elsewhere: stop."""


class Bodies:
    """Message bodies, cut from one pool. Any thread."""

    ALPHABET = "abcdefghijklmnopqrstuvwxyz 0123456789\n\0\u007fäßñ€中𝄞🚪😀👩‍👩‍👧"

    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        self._text = "".join(rng.choices(self.ALPHABET, k=70_000))
        self._bytes = rng.randbytes(140_000)

    def choose(self, rng: Random) -> tuple[bytes, bool]:
        """(body, whether it is binary): 10 bytes to 64 KiB."""
        if rng.random() < 0.05:
            size = rng.choice(BOUNDARIES)
        else:
            _, low, high = rng.choices(SIZES, [share for share, _, _ in SIZES])[0]
            size = rng.randint(low, high)
        if rng.random() < 0.25:
            start = rng.randrange(len(self._bytes) - size)
            return self._bytes[start : start + size], True
        start = rng.randrange(len(self._text) - size)
        # No partial characters: these would not be valid UTF-8.
        return self._text[start : start + size].encode()[:size].decode(errors="ignore").encode(), False


class World:
    """What all clients of a run share."""

    def __init__(self, address: tuple[str, int], seed: int, rooms: int) -> None:
        self.address = address
        self.seed = seed
        self.ledger = Ledger()
        self.violations = Violations()
        self.bodies = Bodies(seed)
        self.rooms = [f"room{n}" for n in range(rooms)]
        #: Rooms where no client stays: they are created and deleted all the time.
        self.passages = [f"passage{n}" for n in range(max(1, rooms // 4))]
        #: The times without descriptors, monotonic, for `excused`.
        self._excuse = (FOREVER, FOREVER)

    @contextmanager
    def excused(self) -> Iterator[None]:
        """A context manager: meanwhile, the server may refuse new and current handshakes."""
        self._excuse = (monotonic(), FOREVER)
        try:
            yield
        finally:
            self._excuse = (self._excuse[0], monotonic())

    def is_excused(self, since: float) -> bool:
        """Whether a handshake with this start time was permitted to fail now."""
        began, ended = self._excuse
        return began <= monotonic() and since <= ended
