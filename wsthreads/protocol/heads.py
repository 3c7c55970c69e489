"""Checks the head of an HTTP/1.1 request, and the lines of a chunked body (RFC 9112).

The *head* of a request is its first line and its headers.

Ambiguous input is refused. If this server and a proxy understood a request in different ways, a client could hide a
request from the proxy that the proxy should refuse (request smuggling). No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

__all__ = [
    "MAX_FIELDS",
    "MAX_LINE_BYTES",
    "BadHead",
    "RequestLine",
    "check_request_line",
    "check_trailer",
    "chunk_size",
    "clean_fields",
    "is_host",
]

#: The longest line of a head in bytes, and the highest number of header lines. Python's http.server has the same
#: limits.
MAX_LINE_BYTES = 65536
MAX_FIELDS = 100

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(_TOKEN)
#: Matches a header line that `_field` would accept.
_FIELD = re.compile(rb"(" + _TOKEN + rb"):([^\x00-\x08\x0a-\x1f\x7f]*)\r?\n")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([^\x00-\x20\x7f]+) HTTP/([0-9])\.([0-9])")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)[\x21-\x7e]*", re.IGNORECASE)
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
#: Matches a length. Longer numbers can exceed 64 bits, and Python does not parse numbers with thousands of digits.
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;.*)?")

#: Headers that must not be repeated. Some servers join two values by a comma, other servers drop one. Both change the
#: meaning. (Host and Content-Length have their own checks.)
_SINGLE = (b"authorization", b"proxy-authorization", b"content-type")

#: The names of all headers that are checked or changed.
_CHECKED = frozenset((b"host", b"content-length", b"transfer-encoding", b"cookie", *_SINGLE))

#: Matches a host. RFC 3986 allows a comma, but this pattern does not, because no real name has a comma, and WSGI
#: servers join two headers by a comma.
_HOST = re.compile(
    r"(?:\[[0-9a-f:.]+(?:%[0-9a-z._~%-]+)?\]|(?:[0-9a-z._~!$&'()*+;=-]|%[0-9a-f]{2})+)(?::[0-9]*)?",
    re.ASCII | re.IGNORECASE,
)


class BadHead(Exception):
    """The head or the body of a request is malformed. The response gets this `status`.

    The text says why the request is malformed, without quoting it.
    """

    def __init__(self, reason: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(reason)
        self.status = status


class RequestLine(NamedTuple):
    """The first line of a request."""

    method: str
    target: str
    version: tuple[int, int]


def is_host(text: str) -> bool:
    """Whether a text is a valid Host header (RFC 9110, 7.2): a name or an address, with an optional port."""
    return _HOST.fullmatch(text) is not None


def check_request_line(line: bytes) -> RequestLine:
    """Parse a request line, including its line end. Raises `BadHead`."""
    match = _REQUEST_LINE.fullmatch(_content(line))
    if match is None:
        raise BadHead("Malformed request line")
    method, target, major, minor = match.groups()
    if major > b"1":
        raise BadHead("This server speaks only HTTP/1.1", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    _check_target(method, target)
    return RequestLine(method.decode(), target.decode(), (int(major), int(minor)))


def clean_fields(version: tuple[int, int], lines: Sequence[bytes]) -> list[tuple[str, str]]:
    """Check the header lines. Returns the name and value of each header, without white space around the values.

    Each line includes its line end. The last line must be the empty line after the headers. Raises `BadHead`.
    """
    if len(lines) > MAX_FIELDS:
        raise BadHead("Too many headers", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    fields: list[tuple[bytes, bytes]] = []
    values: dict[bytes, list[bytes]] = {}
    for line in lines[:-1]:
        match = _FIELD.fullmatch(line)
        name, value = _field(_content(line)) if match is None else (match[1], match[2].strip(b" \t"))
        fields.append((name, value))
        key = name.lower()
        if key in _CHECKED:
            values.setdefault(key, []).append(value)
    if not lines or _content(lines[-1]):
        raise BadHead("Incomplete head")
    _check_host(values.get(b"host", []), version)
    _check_framing(values.get(b"content-length", []), values.get(b"transfer-encoding", []), version)
    for name in _SINGLE:
        if len(values.get(name, ())) > 1:
            raise BadHead(f"Malformed header: more than one {name.decode().title()}")
    # an HTTP/2 proxy may send several Cookie headers (RFC 9113, 8.2.3)
    if len(cookies := values.get(b"cookie", [])) > 1:
        fields = [field for field in fields if field[0].lower() != b"cookie"]
        fields.append((b"Cookie", b"; ".join(filter(None, cookies))))
    return [(name.decode(), value.decode("latin-1")) for name, value in fields]


def chunk_size(line: bytes) -> int:
    """Returns how many bytes of the body follow this line (RFC 9112, 7.1): 0 for the last chunk.

    Ignores chunk extensions. Raises `BadHead`.
    """
    match = _CHUNK_SIZE.fullmatch(_ended(line))
    if match is None:
        raise BadHead("Malformed chunk: its size is not a hexadecimal number")
    return int(match[1], 16)


def check_trailer(line: bytes) -> bool:
    """Check a line after the last chunk.

    Returns True for a trailer field, False for the empty line at the end of the body.

    Raises `BadHead`.
    """
    content = _ended(line)
    if content:
        _field(content)
    return bool(content)


def _ended(line: bytes) -> bytes:
    """Returns a line of a chunked body without its CR LF. No other line end is allowed here (RFC 9112, 7.1)."""
    if not line.endswith(b"\r\n"):
        raise BadHead("Malformed chunk: a line that does not end with CR LF")
    if _CONTROLS.search(line, 0, len(line) - 2):
        raise BadHead("Malformed chunk: a control character")
    return line[:-2]


def _check_target(method: bytes, target: bytes) -> None:
    """Check the target of a request: a path, an http or https URL, or the asterisk of OPTIONS (RFC 9112, 3.2).

    The target must be ASCII (RFC 3986), as in gunicorn, because the encoding of other bytes is unknown.
    """
    if not target.isascii():
        raise BadHead("Malformed URI: a non-ASCII character, which must be percent-encoded")
    if method == b"CONNECT":
        raise BadHead("Malformed URI: CONNECT is for proxies, and this server is not a proxy")
    if target == b"*" and method == b"OPTIONS":
        return
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise BadHead("Malformed URI: it must begin with a slash, or with http:// or https://")
        if not is_host(absolute[1].decode()):  # the host of a URL takes precedence over the header Host
            raise BadHead("Malformed URI: its host")
    try:
        urlsplit(target.decode())
    except ValueError:  # for example, for an incomplete IPv6 address
        raise BadHead("Malformed URI") from None


def _content(line: bytes) -> bytes:
    """Returns a line without its end: CR LF or LF alone (RFC 9112, 2.2). CR alone does not end a line."""
    if not line.endswith(b"\n"):
        if len(line) > MAX_LINE_BYTES:
            raise BadHead("Line too long", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        raise BadHead("Incomplete head")
    return line[: -2 if line.endswith(b"\r\n") else -1]


def _field(line: bytes) -> tuple[bytes, bytes]:
    """Returns the name and the value of a header line. White space around the value is removed (RFC 9110, 5.5)."""
    if line[:1] in (b" ", b"\t"):
        raise BadHead("Malformed header: a folded line")  # RFC 9112, 5.2
    name, colon, value = line.partition(b":")
    if not colon:
        raise BadHead("Malformed header: a line without a colon")
    if not _NAME.fullmatch(name):  # this also refuses white space before the colon (RFC 9112, 5.1)
        raise BadHead("Malformed header: a name with invalid characters")
    if _CONTROLS.search(value):
        raise BadHead("Malformed header: a control character")
    return name, value.strip(b" \t")


def _check_host(hosts: list[bytes], version: tuple[int, int]) -> None:
    """Check that there is at most one Host header, and that it is valid (RFC 9112, 3.2)."""
    if not hosts and version >= (1, 1):
        raise BadHead("Missing header: Host")
    if len(hosts) > 1:
        raise BadHead("Malformed header: more than one Host")
    if hosts and not is_host(hosts[0].decode("latin-1")):
        raise BadHead("Malformed header: Host")


def _check_framing(lengths: list[bytes], encodings: list[bytes], version: tuple[int, int]) -> None:
    """Check that at most one header states the length of the body (RFC 9112, 6.1 and 6.3)."""
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
