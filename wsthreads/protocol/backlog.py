"""What a slow client has not read yet: the frames of one outbox that the kernel had no room for."""

from __future__ import annotations

from collections import deque

__all__ = ["Backlog"]

#: Frames that wait are joined to writes of this size or so. Not all at once: a slow client takes little at a time, and
#: what is joined is its own, while frames are shared by the members of a room.
WRITE_BYTES = 65536


class Backlog:
    """Pieces to be written, in order. The outbox's lock guards it."""

    __slots__ = ("bytes", "offset", "pieces")

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.bytes = 0  # of the pieces, less offset
        self.offset = 0  # bytes of the first piece that are on the wire

    def add(self, piece: bytes) -> None:
        """Append a frame, or what is left of some."""
        self.pieces.append(piece)
        self.bytes += len(piece)

    def first(self) -> bytes:
        """The first piece. Small ones are joined to one before."""
        pieces = self.pieces
        if len(pieces) > 1 and len(pieces[0]) < WRITE_BYTES:
            joined, size = [], 0
            while pieces and size < WRITE_BYTES:
                joined.append(pieces.popleft())
                size += len(joined[-1])
            pieces.appendleft(b"".join(joined))
        return pieces[0]

    def advance(self, written: int) -> bool:
        """So many bytes of the first piece are on the wire. True, and the piece is gone, if that was the rest of it."""
        self.offset += written
        self.bytes -= written
        if self.offset < len(self.pieces[0]):
            return False
        self.pieces.popleft()
        self.offset = 0
        return True

    def discard(self, *, keep_first: bool) -> None:
        """Drop the pieces. The first one is kept if some of it is on the wire: it must be sent to its end."""
        kept = keep_first or self.offset > 0
        while len(self.pieces) > kept:
            self.bytes -= len(self.pieces.pop())

    def _check(self) -> None:
        """The invariants, for tests."""
        assert self.offset >= 0, self.offset
        assert not self.offset or self.offset < len(self.pieces[0]), (self.offset, len(self.pieces[0]))
        assert self.bytes == sum(map(len, self.pieces)) - self.offset
