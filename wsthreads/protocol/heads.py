"""The head of an HTTP/1.1 request, judged by RFC 9112: what can be read in two ways is refused, never guessed at.

A proxy that reads such a head otherwise than we do would pass on what it means to refuse (request smuggling).
No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

__all__ = ["MAX_FIELDS", "MAX_LINE_BYTES", "BadHead", "check_request_line", "clean_head", "is_host"]

#: The longest line of a head, and the most header lines; that is what http.server takes.
MAX_LINE_BYTES = 65536
MAX_FIELDS = 100

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(_TOKEN)
#: A target in UTF-8 is taken, though a client should encode it.
_REQUEST_LINE = re.compile(_TOKEN + rb" ([^\x00-\x20\x7f]+) HTTP/([0-9])\.([0-9])")
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_DIGITS = re.compile(rb"[0-9]+")

#: Without the comma, which is legal and in no name: it is how WSGI servers join two headers.
_HOST = re.compile(
    r"(?:\[[0-9a-f:.]+(?:%[0-9a-z._~%-]+)?\]|(?:[0-9a-z._~!$&'()*+;=-]|%[0-9a-f]{2})+)(?::[0-9]*)?",
    re.ASCII | re.IGNORECASE,
)


class BadHead(Exception):
    """A head that is not answered but with `status`; the text says why, and quotes nothing of the head."""

    def __init__(self, reason: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(reason)
        self.status = status


def is_host(text: str) -> bool:
    """Whether this may be the value of a Host header (RFC 9110, 7.2): a name or an address, and perhaps a port."""
    return _HOST.fullmatch(text) is not None


def check_request_line(line: bytes) -> tuple[int, int]:
    """HTTP's version in a request line, with its line's end. Raises `BadHead`."""
    match = _REQUEST_LINE.fullmatch(_content(line))
    if match is None:
        raise BadHead("Malformed request line")
    target, major, minor = match.groups()
    if major > b"1":
        raise BadHead("Only HTTP/1.1 is spoken here", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    try:
        urlsplit(target.decode("latin-1"))
    except ValueError:  # such as [, which begins an IPv6 address
        raise BadHead("Malformed URI") from None
    return int(major), int(minor)


def clean_head(version: tuple[int, int], lines: Sequence[bytes]) -> bytes:
    """The header lines, without the white space around their values, and the empty line.

    Each of `lines` has its line's end; the empty line is the last one. Raises `BadHead`.
    """
    if len(lines) > MAX_FIELDS:
        raise BadHead("Too many headers", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    fields = [_field(_content(line)) for line in lines[:-1]]
    if not lines or _content(lines[-1]):
        raise BadHead("Incomplete head")
    values: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        values.setdefault(name.lower(), []).append(value)
    _check_host(values.get(b"host", []), version)
    _check_framing(values.get(b"content-length", []), values.get(b"transfer-encoding", []), version)
    return b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"


def _content(line: bytes) -> bytes:
    """A line without its end: CR LF, or LF alone, which RFC 9112 (2.2) lets us take. A CR alone ends none."""
    if not line.endswith(b"\n"):
        if len(line) > MAX_LINE_BYTES:
            raise BadHead("Line too long", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        raise BadHead("Incomplete head")
    return line[: -2 if line.endswith(b"\r\n") else -1]


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Name and value. White space around the value is not part of it (RFC 9110, 5.5)."""
    if line[:1] in (b" ", b"\t"):
        raise BadHead("Malformed header: a folded line")  # RFC 9112, 5.2
    name, colon, value = line.partition(b":")
    if not colon:
        raise BadHead("Malformed header: a line without a colon")
    if not _NAME.fullmatch(name):  # white space before the colon, too: RFC 9112, 5.1
        raise BadHead("Malformed header: a name that is no token")
    if _CONTROLS.search(value):
        raise BadHead("Malformed header: a control character")
    return name, value.strip(b" \t")


def _check_host(hosts: list[bytes], version: tuple[int, int]) -> None:
    """RFC 9112, 3.2."""
    if not hosts and version >= (1, 1):
        raise BadHead("Missing header: Host")
    if len(hosts) > 1:
        raise BadHead("Malformed header: more than one Host")
    if hosts and not is_host(hosts[0].decode("latin-1")):
        raise BadHead("Malformed header: Host")


def _check_framing(lengths: list[bytes], encodings: list[bytes], version: tuple[int, int]) -> None:
    """How long the body is must be said in one way only (RFC 9112, 6.1 and 6.3)."""
    if len(lengths) > 1 or not all(map(_DIGITS.fullmatch, lengths)):
        raise BadHead("Malformed header: Content-Length")
    if not encodings:
        return
    if lengths or version < (1, 1):
        raise BadHead("Malformed header: Transfer-Encoding, beside Content-Length or before HTTP/1.1")
    codings = [coding.strip(b" \t").lower() for value in encodings for coding in value.split(b",")]
    if codings[-1] != b"chunked" or b"chunked" in codings[:-1]:
        raise BadHead("Malformed header: Transfer-Encoding that does not end with chunked")
    if len(codings) > 1:
        raise BadHead("Unknown Transfer-Encoding", HTTPStatus.NOT_IMPLEMENTED)
