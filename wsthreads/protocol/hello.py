"""Reads the hello of a client that speaks ``wsthreads.1``: its first message."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from wsthreads.errors import ProtocolError
from wsthreads.protocol.channel import Channel
from wsthreads.protocol.envelope import Hello, parse
from wsthreads.threads.flusher import Flusher

__all__ = ["read_hello"]


def read_hello(channel: Channel, incoming: Iterator[str | bytes], wait_s: float, flusher: Flusher) -> Hello | None:
    """Returns the hello, which must be the first of the `incoming` messages of the channel's connection.

    Returns None if there is no hello within `wait_s`, or another message. The connection is then closing.
    """
    late = ProtocolError(f"no hello within {wait_s:g} s")
    timer = flusher.call_later(wait_s, partial(channel.refuse, late))
    try:
        for message in incoming:
            try:
                hello = parse(message)
                if isinstance(hello, Hello):
                    return hello
                raise ProtocolError("the first message is not a hello")
            except ProtocolError as error:
                channel.refuse(error)
    finally:
        timer.cancel()
    return None
