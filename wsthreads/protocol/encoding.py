"""How a message becomes the frame that a client gets.

A message is first made a *plain frame* (`frames.message_frame`). Rooms and brokers carry plain frames. Each outbox has
the `Encoding` that its client has agreed to, which makes the client's frame of the plain one. Whoever sends to many
clients encodes a message once for all outboxes with the same encoding.

To add an encoding, write a subclass here and have `encoding_for` choose it.
"""

from __future__ import annotations

from functools import cache

from wsthreads.protocol.deflate import Agreement, deflate_frame
from wsthreads.protocol.frames import MarkedFrame

__all__ = ["PLAIN", "Deflated", "Encoding", "encoding_for"]


class Encoding:
    """A way to encode messages. This one leaves them plain. There is one object for each `name`. Any thread."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        #: What sorts outboxes: two encodings with the same name make the same frames.
        self.name = name

    def frame(self, plain: bytes) -> bytes:
        """The frame of a message, by its plain frame. Keeps the marks of a `MarkedFrame`. No I/O, no lock."""
        return plain

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Deflated(Encoding):
    """Deflates messages that become smaller by it, for a window of `window_bits`."""

    __slots__ = ("_window_bits",)

    def __init__(self, window_bits: int) -> None:
        super().__init__(f"deflate {window_bits}")
        self._window_bits = window_bits

    def frame(self, plain: bytes) -> bytes:
        frame = deflate_frame(plain, self._window_bits)
        return plain.like(frame) if isinstance(plain, MarkedFrame) and frame is not plain else frame


#: The encoding of most clients. Callers compare with it, and save the call: ``if encoding is not PLAIN``.
PLAIN = Encoding("")

_deflated = cache(Deflated)


def encoding_for(agreement: Agreement | None) -> Encoding:
    """The encoding for what a client has agreed to."""
    return PLAIN if agreement is None else _deflated(agreement.window_bits)
