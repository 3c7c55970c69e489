"""Makes a client's handshake request from a URL, parameters, headers and subprotocols, and checks these."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote_to_bytes, urlencode, urlsplit

from wsproto.events import Request

from wsthreads.errors import UsageError
from wsthreads.monitoring.formats import hide_secrets

__all__ = ["Handshake", "make_handshake", "shown"]

#: The characters of names and of values in headers (RFC 9110, 5.6.2 and 5.5). A subprotocol is written like a name.
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")

#: Match the user and the password in a URL, even if they contain slashes. The second pattern is for URLs that cannot be
#: parsed.
_CREDENTIALS = re.compile(r"(?:(?<=//)|\A(?!.*//))[^?#]*@", re.DOTALL)
_PERHAPS_CREDENTIALS = re.compile(r"(?:(?<=//)|\A(?!.*//)).*@", re.DOTALL)

_IN_PATH = "/%:@!$&'()*+,;=~-._"
_IN_QUERY = _IN_PATH + "?"


class Handshake(NamedTuple):
    """Where to connect, and which request to send."""

    secure: bool
    address: tuple[str, int]
    request: Request


def make_handshake(
    url: str,
    parameters: Sequence[tuple[str, str]],
    headers: Sequence[tuple[str, str]],
    subprotocols: Sequence[str],
) -> Handshake:
    """Returns the handshake for a URL. Raises `UsageError` for a value that HTTP does not allow.

    `parameters` are added to the query. A user and a password in the URL become the header Authorization, unless
    `headers` has one.
    """
    parts, address = _parsed(url)
    credentials, _, host = parts.netloc.rpartition("@")
    pairs = [_checked_header(name, value) for name, value in headers]
    host = next((value.decode("latin-1") for name, value in pairs if name.lower() == b"host"), host)
    extra = [(name, value) for name, value in pairs if name.lower() != b"host"]  # wsproto adds the header Host itself
    _check_host(host)
    if credentials and not any(name.lower() == b"authorization" for name, _ in extra):
        extra.append((b"Authorization", _basic(credentials)))
    for subprotocol in subprotocols:
        if not _TOKEN.fullmatch(_encoded(subprotocol)):
            raise UsageError(f"a subprotocol has letters, digits and some of !#$%&'*+-.^_`|~, not {subprotocol!r:.100}")
    added = urlencode([(_encoded(name), _encoded(value)) for name, value in parameters])
    query = "&".join(filter(None, (_quoted(parts.query, _IN_QUERY), added)))
    target = _quoted(parts.path or "/", _IN_PATH) + (f"?{query}" if query else "")
    request = Request(host=host, target=target, subprotocols=list(subprotocols), extra_headers=extra)
    return Handshake(parts.scheme == "wss", address, request)


def shown(url: str) -> str:
    """Returns a URL without its secrets: without user and password, and without parameters that look like a token.

    >>> shown("ws://ann:pa55@localhost:5000/ws/chat?token=1")
    'ws://***@localhost:5000/ws/chat?token=***'
    """
    try:
        parts = urlsplit(url)
        pattern = _PERHAPS_CREDENTIALS if parts.port is None and not parts.netloc else _CREDENTIALS
    except ValueError:  # for example, a password with a slash in it, after which the port is no number
        pattern = _PERHAPS_CREDENTIALS
    return hide_secrets(pattern.sub("***@", url))


def _parsed(url: str) -> tuple[SplitResult, tuple[str, int]]:
    """Returns the parts of a URL, and the host and port to connect to."""
    form = f"{shown(url)}: a WebSocket URL looks like ws://127.0.0.1:5000/ws/chat"
    try:
        _bytes_of(url)
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(form + ("" if "@" in url else f"; {error}")) from error
    if parts.scheme not in ("ws", "wss") or not host:
        raise UsageError(form)
    default_port = 443 if parts.scheme == "wss" else 80
    return parts, (host, default_port if port is None else port)


def _check_host(host: str) -> None:
    try:
        written = host.encode("idna")  # in the form in which wsproto sends it
    except UnicodeError:
        written = b""
    if not re.fullmatch(rb"[!-~]+", written):
        raise UsageError(f"{host!r:.100} is not the name of a host")


def _checked_header(name: str, value: str) -> tuple[bytes, bytes]:
    raw_name, raw_value = _encoded(name), _encoded(value).strip(b" \t")
    if not _TOKEN.fullmatch(raw_name):
        raise UsageError(f"a header's name has letters, digits and some of !#$%&'*+-.^_`|~, not {name!r:.100}")
    if not _VALUE.fullmatch(raw_value):
        raise UsageError(f"the value of the header {name} may have no line ends or other control characters")
    return raw_name, raw_value


def _basic(credentials: str) -> bytes:
    """Returns the value of the header Authorization for Basic authentication (RFC 7617)."""
    user, _, password = credentials.partition(":")
    pair = unquote_to_bytes(_bytes_of(user)) + b":" + unquote_to_bytes(_bytes_of(password))
    return b"Basic " + base64.b64encode(pair)


def _quoted(text: str, safe: str) -> str:
    return quote(text, safe=safe, errors="surrogateescape")


def _bytes_of(text: str) -> bytes:
    """Returns the bytes of a text from the command line, which may not be valid UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def _encoded(text: str) -> bytes:
    try:
        return _bytes_of(text)
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r:.100} cannot be written in UTF-8") from error
