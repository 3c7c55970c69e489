"""Sends the body of a request in pieces. Notices a response that comes before the server has read the whole body.

A server that responds so early, for example with 413, may close the connection or stop reading. So `send_in_pieces`
looks for input before each piece, and while no piece can be sent.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
from time import monotonic

__all__ = ["PIECE_BYTES", "is_answer", "send_in_pieces"]

PIECE_BYTES = 65_536

#: At most this much input is read while the body is being sent. This is enough for the largest head of a response.
MAX_EARLY_BYTES = 65_536

_EITHER = select.POLLIN | select.POLLOUT

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5])([0-9]{2})\b")
_HEAD_END = re.compile(rb"\n\r?\n")
_LENGTH = re.compile(rb"^content-length:[ \t]*([0-9]{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[^\n]*\n")


def send_in_pieces(sock: socket.socket, body: bytes, early: bytearray, ends: float) -> bool:
    """Send the body, until a response has come or no more can be sent. Returns whether the whole body was sent.

    Input that arrives is added to `early`, whether or not it is a complete response. Blocks until `ends` on the
    monotonic clock. After that, raises `TimeoutError`. Raises `OSError` if a piece cannot be sent. The socket is
    non-blocking afterwards.
    """
    left, poller, wanted = memoryview(body), select.poll(), _EITHER
    sock.settimeout(0)
    while left:
        poller.register(sock, wanted)
        ready = poller.poll(max(0.0, ends - monotonic()) * 1000)
        if not ready:
            raise TimeoutError("the body was not sent in time")
        events = ready[0][1]
        if events & ~_EITHER or (events & select.POLLIN and _has_answer(sock, early)):
            # after a reset, reading the response gives the bytes from before the reset, and then the error
            return False
        wanted = _EITHER if len(early) < MAX_EARLY_BYTES else select.POLLOUT
        if events & select.POLLOUT:
            try:
                left = left[sock.send(left[:PIECE_BYTES]) :]
            except ssl.SSLWantReadError:
                wanted = select.POLLIN
            except (BlockingIOError, ssl.SSLWantWriteError):
                pass  # TLS must get the same piece again
    return True


def _has_answer(sock: socket.socket, early: bytearray) -> bool:
    try:
        # larger than a record of TLS, so that no decrypted bytes are left, which poll would not see
        data = sock.recv(MAX_EARLY_BYTES)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return False  # a record of TLS may have no data
    early += data
    return not data or is_answer(early)


def is_answer(early: bytes | bytearray) -> bool:
    """Whether a server that has sent these bytes no longer needs the body of the request.

    This is true for an error or a redirect, once its head has arrived. A success may begin before the server has read
    the whole request, so all of the response must have arrived. Interim responses are skipped.
    """
    start = 0
    while (status := _STATUS.match(early, start)) and (blank := _HEAD_END.search(early, start)):
        if status[1] in b"345" or status[1] + status[2] == b"204":
            return True
        if status[1] == b"2":
            return _is_whole(early, start, blank.end())
        start = blank.end()
    return False


def _is_whole(early: bytes | bytearray, start: int, end: int) -> bool:
    """Whether the whole body of a response has arrived.

    Its head is between `start` and `end`. The body may be chunked.
    """
    if length := _LENGTH.search(early, start, end):
        return len(early) - end >= int(length[1])
    if b"chunked" not in early[start:end].lower():
        return False
    while line := _CHUNK_LINE.match(early, end):
        if int(line[1], 16) == 0:
            return _HEAD_END.search(early, line.end() - 1) is not None  # after the trailer
        end = line.end() + int(line[1], 16) + len(b"\r\n")
    return False
