"""The backlog of a slow client: the frames of one outbox for which the kernel had no space.

Once the kernel is full, only the last one of several frames with the same key (`MarkedFrame.latest`) remains. A frame
that was partly written stays, because the rest must follow.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from wsthreads.protocol.envelope import is_counted
from wsthreads.protocol.frames import MarkedFrame
from wsthreads.threads.lookups import look_up

__all__ = ["Backlog"]

#: Waiting frames are joined to pieces of about this size, and a piece is written at once. Larger pieces have no use,
#: because a slow client reads little at a time. They also cost memory: each joined piece is a copy, while the members
#: of a room share one frame.
WRITE_BYTES = 65536

#: Removing a piece leaves an empty piece. Empty pieces are dropped when there are more than this many, and more than
#: other pieces.
MAX_HOLES = 64


class Backlog:
    """The pieces that wait to be written, in order. The outbox's lock guards them. For `keeps`, see `keep_pieces`."""

    __slots__ = ("_fixed", "_gone", "_holes", "_is_slow", "_places", "begun", "bytes", "offset", "pieces")

    def __init__(self, *, keeps: bool = False) -> None:
        self.pieces: deque[bytes] = deque()
        self.bytes = 0  # the bytes of the pieces, minus offset
        self.offset = 0  # how many bytes of the first piece were written
        self.begun = 0  # how many of the first pieces must not change, because a write of them has begun
        self._fixed = 0  # how many of the first pieces were written to an earlier connection, and are not replaced
        self._is_slow = False
        # The place of the last frame with each key, counted from the first piece ever added. None before the first
        # frame with a key, and empty until the client is slow. Unless it is None, pieces are not joined.
        self._places: dict[tuple[str, str], int] | None = {} if keeps else None
        self._gone = 0  # how many pieces were written and dropped
        self._holes = 0  # how many pieces are empty

    def keep_pieces(self) -> None:
        """From now on, do not join pieces, because the outbox keeps written messages one by one."""
        if self._places is None:
            self._places = {}

    @property
    def count(self) -> int:
        """How many pieces there are."""
        return len(self.pieces) - self._holes

    def add(self, piece: bytes) -> int:
        """Append a frame, or the rest of frames that were partly written.

        If the client is slow, removes an earlier frame with the same key. Returns how many frames were removed.
        """
        key = _key_of(piece)
        removed = 0
        if key is not None:
            if self._places is None:
                self._places = {}
            if self._is_slow:
                removed = self._remove(look_up(self._places, key, -1))
                self._places[key] = self._gone + len(self.pieces)
        self.pieces.append(piece)
        self.bytes += len(piece)
        if self._holes > MAX_HOLES and 2 * self._holes > len(self.pieces):
            self._remove_holes()
        return removed

    def first(self) -> bytes:
        """The data to write next, from `offset` on: the first piece, or several small pieces joined."""
        pieces = self.pieces
        if len(pieces) == 1 or len(pieces[0]) >= WRITE_BYTES:
            return pieces[0]
        joined: list[bytes] = []
        size = 0
        for piece in pieces:
            if size >= WRITE_BYTES or (joined and self._places is not None and len(piece) >= WRITE_BYTES):
                break  # a large piece is not copied at each attempt
            joined.append(piece)
            size += len(piece)
        whole = b"".join(joined)
        if self._places is None:
            for _ in joined:
                pieces.popleft()
            pieces.appendleft(whole)
            self.begun = min(self.begun, 1)
        return whole

    def advance(self, written: int, kept: list[bytes] | None = None) -> int:
        """Note that `written` more bytes were written. Drops the pieces that are complete.

        Appends the counted messages among these pieces to `kept`. Returns the bytes of these messages.
        """
        kept_bytes = 0
        self.offset += written
        self.bytes -= written
        pieces = self.pieces
        while pieces and self.offset >= len(pieces[0]):
            piece = pieces.popleft()
            self.offset -= len(piece)
            self._holes -= not piece
            self.begun = max(0, self.begun - 1)
            self._fixed = max(0, self._fixed - 1)
            self._forget(piece, self._gone)
            self._gone += 1
            if kept is not None and piece and is_counted(piece):
                kept.append(piece)
                kept_bytes += len(piece)
        return kept_bytes

    @property
    def written(self) -> list[bytes]:
        """The counted messages of which some bytes were written, to this connection or to an earlier one."""
        return [piece for piece in islice(self.pieces, max(self.begun, self._fixed)) if piece and is_counted(piece)]

    def restart(self) -> int:
        """Prepare for another connection: drop the pieces that are `written`, and all that are not counted messages.

        From now on, frames replace earlier ones with the same key. Returns how many frames were removed.
        """
        rest = islice(self.pieces, max(self.begun, self._fixed), None)
        self.pieces = deque(piece for piece in rest if piece and is_counted(piece))
        self.bytes = sum(map(len, self.pieces))
        self.offset = self.begun = self._fixed = self._holes = self._gone = 0
        self._is_slow, self._places = False, {}
        return self.hold(0)

    def put_before(self, first: bytes, written: list[bytes]) -> None:
        """Put `first` and then the messages `written` to earlier connections before all other pieces. Call it after
        `restart`.

        The client may have received such a message although its hello does not count it, because the hello was sent
        before. So no later message with the same key replaces these messages.
        """
        self.pieces.extendleft(reversed(written))
        self.pieces.appendleft(first)
        self.bytes += len(first) + sum(map(len, written))
        self._fixed = 1 + len(written)
        self._is_slow, self._places = False, {}

    def hold(self, tried: int) -> int:
        """Note that the kernel's buffer is full. From now on, the client counts as slow.

        Call this after each incomplete write. The next `tried` bytes must not change, because OpenSSL has begun to
        write them. Removes each frame that has the same key as a later frame. Returns how many frames were removed.
        """
        begun, size = 0, self.offset + tried
        while size > 0:
            size -= len(self.pieces[begun])
            begun += 1
        self.begun = max(self.begun, begun)
        if self._is_slow:
            return 0
        self._is_slow = True
        return 0 if self._places is None else self._remove_doubles(self._places)

    def discard(self) -> None:
        """Drop all pieces except those whose write has begun."""
        while len(self.pieces) > self.begun:
            piece = self.pieces.pop()
            self.bytes -= len(piece)
            self._holes -= not piece
            self._forget(piece, self._gone + len(self.pieces))

    def _remove_doubles(self, places: dict[tuple[str, str], int]) -> int:
        removed = 0
        for at in range(len(self.pieces) - 1, -1, -1):
            key = _key_of(self.pieces[at])
            if key is not None and places.setdefault(key, self._gone + at) != self._gone + at:
                removed += self._remove(self._gone + at)
        return removed

    def _remove(self, place: int) -> int:
        """Make a piece empty, unless its write has begun. Returns 1 if the piece was removed, otherwise 0."""
        at = place - self._gone
        if at < self.begun or at < self._fixed:
            return 0
        self.bytes -= len(self.pieces[at])
        self.pieces[at] = b""
        self._holes += 1
        return 1

    def _forget(self, piece: bytes, place: int) -> None:
        if self._places and (key := _key_of(piece)) is not None and look_up(self._places, key) == place:
            del self._places[key]

    def _remove_holes(self) -> None:
        self.pieces = deque(piece for piece in self.pieces if piece)
        self._holes = 0
        if self._places:
            places = enumerate(map(_key_of, self.pieces), self._gone)
            self._places = {key: place for place, key in places if key is not None}

    def _check(self) -> None:
        """Check the invariants, for tests."""
        assert self.offset >= 0, self.offset
        assert not self.offset or self.offset < len(self.pieces[0]), (self.offset, len(self.pieces[0]))
        assert self.bytes == sum(map(len, self.pieces)) - self.offset
        assert self.begun >= (self.offset > 0)
        assert self._holes == list(self.pieces).count(b"")
        keys = [_key_of(piece) for piece in list(self.pieces)[max(self.begun, self._fixed) :]]
        if self._is_slow and self._places is not None:
            assert len(set(keys) - {None}) == len([key for key in keys if key is not None]), keys
            for key, place in self._places.items():
                assert _key_of(self.pieces[place - self._gone]) == key


def _key_of(piece: bytes) -> tuple[str, str] | None:
    if isinstance(piece, MarkedFrame) and piece.latest is not None:
        return piece.room, piece.latest
    return None
