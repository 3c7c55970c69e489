"""Sends the body of a request in pieces. Notices a response that comes before the server has read the whole body.

A server that responds so early, for example with 413, may close the connection or stop reading. Another server, such
as one that sends the body back, writes its response while it reads the request, and waits for a client that does not
read. So `send_in_pieces` reads all input that arrives before a piece, and while no piece can be sent.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
import sys
from time import monotonic

__all__ = ["PIECE_BYTES", "EarlyAnswer", "send_in_pieces"]

PIECE_BYTES = 65_536

#: No head of a response is longer.
MAX_HEAD_BYTES = 65_536

#: The longest read at once. Larger than a record of TLS, so that no decrypted bytes are left, which poll would not see.
READ_BYTES = 65_536

_EITHER = select.POLLIN | select.POLLOUT

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})\b")
_STATUS_BYTES = len(b"HTTP/1.1 200")
_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"^content-length:[ \t]*([0-9]{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[^\n]*\n")


def send_in_pieces(sock: socket.socket, body: bytes, early: bytearray, ends: float, max_bytes: int) -> bool:
    """Send the body, until a response has come or no more can be sent. Returns whether the whole body was sent.

    Input that arrives is added to `early`, whether or not it is a complete response. If it is longer than a response
    whose body has `max_bytes`, no more is sent. Blocks until `ends` on the monotonic clock. After that, raises
    `TimeoutError`. Raises `OSError` if a piece cannot be sent. The socket is non-blocking afterwards.
    """
    left, poller, wanted, answer = memoryview(body), select.poll(), _EITHER, EarlyAnswer(early)
    sock.settimeout(0)
    while left:
        poller.register(sock, wanted)
        ready = poller.poll(max(0.0, ends - monotonic()) * 1000)
        if not ready:
            raise TimeoutError("the body was not sent in time")
        events = ready[0][1]
        if events & ~_EITHER or (events & select.POLLIN and (_read(sock, early) or answer.has_come())):
            # after a reset, reading the response gives the bytes from before the reset, and then the error
            return False
        if len(early) > max_bytes + MAX_HEAD_BYTES:
            return False
        wanted = _EITHER
        if events & select.POLLOUT:
            try:
                left = left[sock.send(left[:PIECE_BYTES]) :]
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except (BlockingIOError, ssl.SSLWantWriteError):
                pass  # TLS must get the same piece again
    return True


def _read(sock: socket.socket, early: bytearray) -> bool:
    """Add what has arrived to `early`. Returns whether the server will send nothing more."""
    try:
        data = sock.recv(READ_BYTES)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False  # a record of TLS may have no data
    early += data
    return not data


class EarlyAnswer:
    """Decides whether a server that has sent the bytes in `early` no longer needs the body of the request.

    `early` may grow between the calls of `has_come`. Each call looks at new bytes only.
    """

    def __init__(self, early: bytearray) -> None:
        self._early = early
        self._start = 0  # where the head of the next response begins, or else the next chunk of the body
        self._is_chunked = False
        self._end: int | None = None  # the end of the response, once it is known

    def has_come(self) -> bool:
        """Whether the server needs no more of the body.

        True after an error or a redirect, once its head has arrived. A success may begin before the server has read the
        whole request, so all of the response must have arrived. Interim responses are skipped, except 101: the server
        speaks another protocol from now on. Also true after bytes that are no HTTP response.
        """
        while self._end is None and not self._is_chunked:
            status = _STATUS.match(self._early, self._start)
            if status is None:
                return len(self._early) - self._start > _STATUS_BYTES
            blank = _HEAD_END.search(self._early, self._start, self._start + MAX_HEAD_BYTES)
            if blank is None:
                return len(self._early) - self._start > MAX_HEAD_BYTES
            if status[1][:1] in b"345" or status[1] in (b"101", b"204"):
                return True
            if status[1][:1] == b"2":
                self._begin_body(blank)
                break
            self._start = blank.end()
        if self._is_chunked:
            return self._has_last_chunk()
        return self._end is not None and len(self._early) >= self._end

    def _begin_body(self, blank: re.Match[bytes]) -> None:
        if length := _LENGTH.search(self._early, self._start, blank.end()):
            self._end = blank.end() + int(length[1])
            return
        self._is_chunked = b"chunked" in self._early[self._start : blank.end()].lower()
        if not self._is_chunked:
            self._end = sys.maxsize  # the response ends with the connection
        self._start = blank.end()

    def _has_last_chunk(self) -> bool:
        while line := _CHUNK_LINE.match(self._early, self._start, self._start + MAX_HEAD_BYTES):
            size = int(line[1], 16)
            if size == 0:  # after the last chunk, there may be a trailer
                return _HEAD_END.search(self._early, line.end() - 1, line.end() + MAX_HEAD_BYTES) is not None
            if len(self._early) < line.end() + size:
                break
            self._start = line.end() + size + len(b"\r\n")
        return False
