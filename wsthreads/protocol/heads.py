"""The head of an HTTP/1.1 request and the lines of a chunked body, judged by RFC 9112.

What can be read in two ways is refused, never guessed at: a proxy that reads it otherwise than we do would pass on
what it means to refuse (request smuggling). No I/O.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import urlsplit

__all__ = [
    "MAX_FIELDS",
    "MAX_LINE_BYTES",
    "BadHead",
    "check_request_line",
    "check_trailer",
    "chunk_size",
    "clean_head",
    "is_host",
]

#: The longest line of a head, and the most header lines; that is what http.server takes.
MAX_LINE_BYTES = 65536
MAX_FIELDS = 100

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_NAME = re.compile(_TOKEN)
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([^\x00-\x20\x7f]+) HTTP/([0-9])\.([0-9])")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)[\x21-\x7e]*", re.IGNORECASE)
_CONTROLS = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
#: Of a length: more digits are more than 64 bits, and past some thousand of them Python makes no number of it.
_DIGITS = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;.*)?")

#: Headers of one value that say who asks, or what the body is. Joined by a comma, or cut down to one of them, two would
#: say something else than the client or a proxy meant. (Host and Content-Length are judged on their own.)
_SINGLE = (b"authorization", b"proxy-authorization", b"content-type")

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
    method, target, major, minor = match.groups()
    if major > b"1":
        raise BadHead("Only HTTP/1.1 is spoken here", HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    _check_target(method, target)
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
    for name in _SINGLE:
        if len(values.get(name, ())) > 1:
            raise BadHead(f"Malformed header: more than one {name.decode().title()}")
    if len(cookies := values.get(b"cookie", [])) > 1:  # HTTP/2's, by a proxy that does not join them (RFC 9113, 8.2.3)
        fields = [field for field in fields if field[0].lower() != b"cookie"]
        fields.append((b"Cookie", b"; ".join(filter(None, cookies))))
    return b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"


def chunk_size(line: bytes) -> int:
    """How many bytes of the body follow this line (RFC 9112, 7.1); 0 for the last chunk. Extensions are ignored.

    Raises `BadHead`.
    """
    match = _CHUNK_SIZE.fullmatch(_ended(line))
    if match is None:
        raise BadHead("Malformed chunk: a size that is no hexadecimal number")
    return int(match[1], 16)


def check_trailer(line: bytes) -> bool:
    """Whether a line behind the last chunk is a trailer field; False for the empty line, the last one.

    Raises `BadHead`.
    """
    content = _ended(line)
    if content:
        _field(content)
    return bool(content)


def _ended(line: bytes) -> bytes:
    """A line of a chunked body without its CR LF, which nothing may stand for here (RFC 9112, 7.1)."""
    if not line.endswith(b"\r\n"):
        raise BadHead("Malformed chunk: a line that does not end with CR LF")
    if _CONTROLS.search(line, 0, len(line) - 2):
        raise BadHead("Malformed chunk: a control character")
    return line[:-2]


def _check_target(method: bytes, target: bytes) -> None:
    """A path, an address of http or https, or the asterisk of OPTIONS (RFC 9112, 3.2).

    Only ASCII, as RFC 3986 has it and gunicorn, too: which encoding other bytes are in is anybody's guess.
    """
    if not target.isascii():
        raise BadHead("Malformed URI: a character beyond ASCII, which must be percent-encoded")
    if method == b"CONNECT":
        raise BadHead("Malformed URI: CONNECT is for proxies, and this is none")
    if target == b"*" and method == b"OPTIONS":
        return
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            raise BadHead("Malformed URI: it must begin with a slash, or with http:// or https://")
        if not is_host(absolute[1].decode()):  # it goes before the header Host
            raise BadHead("Malformed URI: its host")
    try:
        urlsplit(target.decode())
    except ValueError:  # such as [, which begins an IPv6 address
        raise BadHead("Malformed URI") from None


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
