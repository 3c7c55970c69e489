"""Encodes a message as the frame for a client.

A message is first made a *plain frame* (`frames.message_frame`). Rooms and brokers carry plain frames. Each outbox has
the `Encoding` that its client has agreed to, which turns a plain frame into the client's frame. A thread that sends to
many clients encodes a message once for all outboxes with the same encoding.

To add an encoding, write a subclass of `Encoding` here, and let `encoding_for` choose it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from wsthreads.protocol.deflate import Agreement, deflate_frame
from wsthreads.protocol.envelope import SUBPROTOCOL, escaped_frame
from wsthreads.protocol.frames import MarkedFrame

__all__ = ["PLAIN", "Deflated", "Encoding", "Enveloped", "encoding_for"]


class Encoding:
    """A way to encode messages. This class itself leaves plain frames unchanged.

    There is one object for each `name`. Any thread.
    """

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        #: Two encodings with the same name make the same frames. Code that sends to many clients groups outboxes by
        #: this name.
        self.name = name

    def frame(self, plain: bytes) -> bytes:
        """Returns the client's frame for a plain frame. Keeps the marks of a `MarkedFrame`. No I/O, no lock."""
        return plain

    @property
    def inner(self) -> Encoding:
        """The encoding for control messages, requests and replies of `protocol.envelope`, which need no escape."""
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"


class Deflated(Encoding):
    """Deflates each message that becomes smaller by this. The window has 2 to the power of `window_bits` bytes."""

    __slots__ = ("_window_bits",)

    def __init__(self, window_bits: int) -> None:
        super().__init__(f"deflate {window_bits}")
        self._window_bits = window_bits

    def frame(self, plain: bytes) -> bytes:
        frame = deflate_frame(plain, self._window_bits)
        return plain.like(frame) if isinstance(plain, MarkedFrame) and frame is not plain else frame


class Enveloped(Encoding):
    """The encoding for clients that speak ``wsthreads.1``.

    Ordinary messages that begin with the byte DLE are escaped.
    """

    __slots__ = ("_inner", "frame")

    #: An attribute, not a method, because a call of it is faster. It is called for each message to a single client.
    frame: Callable[[bytes], bytes]  # type: ignore[assignment]

    def __init__(self, inner: Encoding) -> None:
        super().__init__(f"{SUBPROTOCOL} {inner.name}".rstrip())
        self._inner = inner
        self.frame = escaped_frame if inner is PLAIN else lambda plain: inner.frame(escaped_frame(plain))

    @property
    def inner(self) -> Encoding:
        return self._inner


#: The encoding of most clients. Callers write ``if encoding is not PLAIN``, which saves the call of `frame`.
PLAIN = Encoding("")

_deflated = cache(Deflated)
_enveloped = cache(Enveloped)


def encoding_for(agreement: Agreement | None, *, enveloped: bool = False) -> Encoding:
    """Returns the encoding that a client has agreed to. With `enveloped`, the client speaks ``wsthreads.1``."""
    encoding = PLAIN if agreement is None else _deflated(agreement.window_bits)
    return _enveloped(encoding) if enveloped else encoding
