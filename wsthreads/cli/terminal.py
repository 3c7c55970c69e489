"""Sends the lines of the input for ``wsthreads connect``, and shows the messages that arrive.

One thread uses the connection, because two threads must not use a TLS connection at the same time. Another thread reads
the input. Every wait has a deadline.
"""

from __future__ import annotations

import codecs
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from typing import Any

from wsthreads.cli.client import Client

__all__ = ["converse"]

#: How long to wait for the server's answer to a close frame.
CLOSE_TIMEOUT_S = 3.0

#: At most this many lines wait to be sent.
MAX_LINES_AHEAD = 100

#: The longest wait for a message, because `select` accepts no infinite timeout.
MAX_SELECT_S = 3600.0

#: At most this many bytes are read from the input at once.
READ_BYTES = 65536


def converse(
    client: Client,
    input_fd: int,
    show: Callable[[str | bytes], None],
    *,
    wait_s: float = 0.0,
    on_start: Callable[[], None] = lambda: None,
) -> tuple[int, str]:
    """Send the lines of `input_fd`, and show each message. Returns the close code and the reason.

    After the end of the input, messages are shown for `wait_s` more seconds. Then the connection is closed. The first
    Ctrl-C closes the connection at once. The second one ends it without a close handshake. `on_start` is called when
    Ctrl-C has this effect.
    """
    lines = _Lines(input_fd)
    try:
        try:
            on_start()
            deadline = None
            while client.pending or (client.closed is None and (deadline is None or monotonic() < deadline)):
                for message in _next_messages(client, lines, deadline):
                    show(message)
                if deadline is None:
                    with suppress(Empty):
                        line = lines.get_nowait()
                        if line is None:
                            deadline = monotonic() + wait_s
                        else:
                            client.send(line)
        except KeyboardInterrupt:
            pass  # close the connection, as at the end of the input
        client.close()
        deadline = monotonic() + CLOSE_TIMEOUT_S
        while client.closed is None and monotonic() < deadline:
            for message in _next_messages(client, None, deadline):
                show(message)
    except KeyboardInterrupt:
        pass
    finally:
        client.abort()
        lines.close()
    assert client.closed is not None
    return client.closed


def _next_messages(client: Client, lines: _Lines | None, deadline: float | None) -> list[str | bytes]:
    """Wait for a message, a line of the input or the deadline. Returns the messages."""
    if not client.pending:
        waiting: list[Any] = [client, lines.wake] if lines else [client]
        timeout_s = None if deadline is None else min(max(0.0, deadline - monotonic()), MAX_SELECT_S)
        if client not in select.select(waiting, [], [], timeout_s)[0]:
            return []
    return client.receive()


class _Lines(Queue["str | None"]):
    """A queue with the lines of a file descriptor, and None at its end. The socket `wake` is readable while lines wait.

    A daemon thread reads the lines, because a thread that is reading cannot be woken. It does not use `sys.stdin`,
    because Python needs the lock of `sys.stdin` when the process ends.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(MAX_LINES_AHEAD)
        self._fd = fd
        self.wake, self._waker = socket.socketpair()
        Thread(target=self._read, name="wsthreads-lines", daemon=True).start()

    def get_nowait(self) -> str | None:
        line = super().get_nowait()
        self.wake.recv(1)
        return line

    def close(self) -> None:
        self.wake.close()
        self._waker.close()

    def _read(self) -> None:
        with suppress(OSError):  # the input or the socket `wake` is closed
            for line in self._split():
                self.put(line)
                self._waker.send(b"\0")
        self.put(None)
        with suppress(OSError):
            self._waker.send(b"\0")

    def _split(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        rest = ""
        while data := os.read(self._fd, READ_BYTES):
            *lines, rest = (rest + decoder.decode(data)).split("\n")
            yield from (line.removesuffix("\r") for line in lines)
        rest += decoder.decode(b"", final=True)
        if rest:
            yield rest
