"""The backlog of a slow client: the frames of one outbox that the kernel had no space for.

While the kernel's send buffer is full, only the last one of several frames with the same key (`MarkedFrame.latest`)
stays. A frame that was partly written always stays, because the rest of it must follow.

A *piece* is what the backlog stores: one frame, or several small frames joined. A *counted* message is one that the
client acknowledges: see `envelope`.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from wsthreads.protocol.envelope import is_counted
from wsthreads.protocol.frames import MarkedFrame
from wsthreads.threads.lookups import look_up

__all__ = ["Backlog"]

#: Waiting frames are joined to data of about this size, which is written in one call. Larger sizes have no use, because
#: a slow client reads little at a time. They also cost memory: joined frames are a copy, while the members of a room
#: share one frame.
WRITE_BYTES = 65536

#: A removed frame leaves an empty piece. Empty pieces are dropped when there are more than this many of them, and more
#: than other pieces.
MAX_HOLES = 64


class Backlog:
    """The pieces that wait to be written, in order. Guarded by the outbox's lock. For `keeps`, see `keep_pieces`."""

    __slots__ = ("_fixed", "_gone", "_holes", "_is_slow", "_places", "begun", "bytes", "offset", "pieces")

    def __init__(self, *, keeps: bool = False) -> None:
        self.pieces: deque[bytes] = deque()
        self.bytes = 0  # the bytes of all pieces, minus `offset`
        self.offset = 0  # how many bytes of the first piece are written
        self.begun = 0  # how many of the first pieces must not change, because a write of them has begun
        # how many of the first pieces must not be removed, because they were written to an earlier connection, too
        self._fixed = 0
        self._is_slow = False  # whether a write was incomplete: from then on, frames replace those with the same key
        # For each key, the place of the last frame with this key. Places are counted from the first piece that was ever
        # added. None until a frame has a key or `keep_pieces` is called. Unless this is None, pieces are not joined for
        # good.
        self._places: dict[tuple[str, str], int] | None = {} if keeps else None
        self._gone = 0  # how many pieces were written completely, and dropped
        self._holes = 0  # how many pieces are empty, because their frame was removed

    def keep_pieces(self) -> None:
        """From now on, do not join pieces, because the outbox keeps each written message until it is acknowledged."""
        if self._places is None:
            self._places = {}

    @property
    def count(self) -> int:
        """How many pieces there are, without the empty ones."""
        return len(self.pieces) - self._holes

    def add(self, piece: bytes) -> int:
        """Append a frame, or joined frames of which some bytes are written already.

        If the client is slow, removes the earlier frame with the same key. Returns how many frames were removed: 0 or
        1.
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
        """The data to write next: the first piece, or several small pieces joined.

        The first `offset` bytes are written already.
        """
        pieces = self.pieces
        if len(pieces) == 1 or len(pieces[0]) >= WRITE_BYTES:
            return pieces[0]
        joined: list[bytes] = []
        size = 0
        for piece in pieces:
            if size >= WRITE_BYTES or (joined and self._places is not None and len(piece) >= WRITE_BYTES):
                break  # a large piece would otherwise be copied at each attempt to write
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
        """Note that `written` more bytes were written, and drop the pieces that are written completely.

        Appends the counted messages among the dropped pieces to `kept`. Returns the bytes of these messages.
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
        """The counted messages that were written at least partly, to this connection or to an earlier one."""
        return [piece for piece in islice(self.pieces, max(self.begun, self._fixed)) if piece and is_counted(piece)]

    def restart(self) -> int:
        """Prepare for another connection: drop the messages of `written`, and all frames that are not counted messages.

        From now on, a frame replaces an earlier one with the same key. Returns how many frames were removed for this
        reason.
        """
        rest = islice(self.pieces, max(self.begun, self._fixed), None)
        self.pieces = deque(piece for piece in rest if piece and is_counted(piece))
        self.bytes = sum(map(len, self.pieces))
        self.offset = self.begun = self._fixed = self._holes = self._gone = 0
        self._is_slow, self._places = False, {}
        return self.hold(0)

    def put_before(self, first: bytes, written: list[bytes]) -> None:
        """Put `first` before all other pieces, followed by the messages `written` to earlier connections.

        Call this after `restart`.

        A client may have received one of these messages although its hello does not count the message, because the
        client sent the hello before. So no later message with the same key replaces any of them.
        """
        self.pieces.extendleft(reversed(written))
        self.pieces.appendleft(first)
        self.bytes += len(first) + sum(map(len, written))
        self._fixed = 1 + len(written)
        self._is_slow, self._places = False, {}

    def hold(self, tried: int) -> int:
        """Note that the kernel's send buffer is full. From now on, the client counts as slow.

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
        """Replace a frame by an empty piece, unless its write has begun.

        Returns 1 if the frame was removed, otherwise 0.
        """
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
