"""The backlog of a slow client: the frames of one outbox that the kernel had no room for."""

from __future__ import annotations

from collections import deque

__all__ = ["Backlog"]

#: Waiting frames are joined to writes of about this size. Not all of them at once: a slow client reads little at a
#: time. And a joined piece needs its own memory, while the members of a room share the memory of a frame.
WRITE_BYTES = 65536


class Backlog:
    """Pieces to be written, in order. The outbox's lock guards it."""

    __slots__ = ("bytes", "offset", "pieces")

    def __init__(self) -> None:
        self.pieces: deque[bytes] = deque()
        self.bytes = 0  # of the pieces, minus offset
        self.offset = 0  # bytes of the first piece that have been written

    def add(self, piece: bytes) -> None:
        """Append a frame, or the rest of frames that were written in part."""
        self.pieces.append(piece)
        self.bytes += len(piece)

    def first(self) -> bytes:
        """The first piece. Before that, small pieces at the front are joined to one."""
        pieces = self.pieces
        if len(pieces) > 1 and len(pieces[0]) < WRITE_BYTES:
            joined, size = [], 0
            while pieces and size < WRITE_BYTES:
                joined.append(pieces.popleft())
                size += len(joined[-1])
            pieces.appendleft(b"".join(joined))
        return pieces[0]

    def advance(self, written: int) -> bool:
        """More bytes of the first piece have been written. Returns True, and drops the piece, if it is complete."""
        self.offset += written
        self.bytes -= written
        if self.offset < len(self.pieces[0]):
            return False
        self.pieces.popleft()
        self.offset = 0
        return True

    def discard(self, *, keep_first: bool) -> None:
        """Drop the pieces. The first one is kept if a part of it has been written: the rest must follow."""
        kept = keep_first or self.offset > 0
        while len(self.pieces) > kept:
            self.bytes -= len(self.pieces.pop())

    def _check(self) -> None:
        """The invariants, for tests."""
        assert self.offset >= 0, self.offset
        assert not self.offset or self.offset < len(self.pieces[0]), (self.offset, len(self.pieces[0]))
        assert self.bytes == sum(map(len, self.pieces)) - self.offset
