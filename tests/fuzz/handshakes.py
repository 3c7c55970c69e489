"""Raw requests: how they are sent, and which may be answered with a 101. Nothing of the server's is used here."""

from __future__ import annotations

import base64
import binascii
import errno
import re
import socket

from tests.programs import DEADLINE_S

#: What a request may be answered with; None for a connection that is closed, as at the end of half a request.
STATUSES = {None, 101, 400, 403, 404, 405, 408, 413, 414, 426, 431, 501, 505}

#: An origin that the server lets in beside its own.
ALLOWED_ORIGIN = "https://good.example"


def exchange(port: int, request: bytes) -> tuple[int | None, bytes]:
    """Send a request, then the end of the stream; the status of the answer and all that has come."""
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as sock:
        answer = bytearray()
        try:
            sock.sendall(request)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(65536):
                answer += piece
        except OSError as error:
            if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):  # refused before all of it was read
                raise
    final = re.sub(rb"\A(HTTP/1\.[01] 100 [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n)+", b"", bytes(answer))
    status = re.match(rb"HTTP/1\.[01] ([0-9]{3}) ", final)
    return int(status[1]) if status else None, bytes(answer)


def flaw(request: bytes) -> str | None:
    """Why this may not become a WebSocket (RFC 6455, 4.2.1; a good Origin); None where nothing speaks against it.

    It looks for each header anywhere above the first empty line, and asks for no more than that a good one is there.
    """
    lines = re.split(rb"\r\n|\r|\n", request.lstrip())
    head = lines[: lines.index(b"")] if b"" in lines else lines
    if not head or not re.match(r"GET\s+\S+\s+HTTP/1\.[1-9]", head[0].decode("latin-1")):
        return "no GET of HTTP/1.1"
    if not _values(head, b"upgrade", rb"(.*,)?[ \t]*websocket[ \t]*(,.*)?"):
        return "no Upgrade: websocket"
    if not _values(head, b"connection", rb"(.*,)?[ \t]*upgrade[ \t]*(,.*)?"):
        return "no Connection: Upgrade"
    if not _values(head, b"sec-websocket-version", rb"13"):
        return "no version 13"
    if not any(map(_is_key, _values(head, b"sec-websocket-key", rb".*"))):
        return "no key of 16 bytes"
    if any(value.strip(b"0") for value in _values(head, b"content-length", rb".*")[-1:]):
        return "a body"
    if _values(head, b"transfer-encoding", rb".*"):
        return "a body, in chunks"
    hosts = _values(head, b"host", rb".*") + re.findall(rb"\s[a-z]+://([^/?#\s]*)", head[0], re.IGNORECASE)
    if not any(hosts):
        return "no Host"
    ours = {_without_port(scheme + b"://" + host) for scheme in (b"http", b"https") for host in hosts}
    for origin in _values(head, b"origin", rb".*"):
        if _without_port(origin) not in {ALLOWED_ORIGIN.encode(), *ours}:
            return f"origin {origin!r}"
    return None


def judge(request: bytes, status: int | None, answer: bytes) -> None:
    """Raise AssertionError where a request must not have been answered like this."""
    assert status in STATUSES, f"{request!r:.2000} was answered with {status}: {answer!r:.2000}"
    if status == 101:
        assert flaw(request) is None, f"{request!r:.2000} was let in, with {flaw(request)}"


def _values(head: list[bytes], name: bytes, pattern: bytes) -> list[bytes]:
    """The values of a header that are like this; where a header is folded, its lines are its values, too."""
    found = []
    for number, line in enumerate(head[1:], 1):
        given, colon, value = line.partition(b":")
        if colon and given.lower() == name:
            folded = [value]
            for more in head[number + 1 :]:
                if more[:1] not in (b" ", b"\t"):
                    break
                folded.append(more)
            whole = b"".join(folded).strip(b" \t\r")
            if re.fullmatch(pattern, whole, re.IGNORECASE | re.DOTALL):
                found.append(whole)
    return found


def _without_port(origin: bytes) -> bytes:
    """In lower case, and without a port that goes without saying."""
    return re.sub(rb"\A(http://[^/]*?)(:0*80|:0*)?/*\Z|\A(https://[^/]*?)(:0*443|:0*)?/*\Z", rb"\1\3", origin.lower())


def _is_key(value: bytes) -> bool:
    try:
        return len(value) == 24 and len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
