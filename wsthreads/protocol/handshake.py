"""The opening handshake: the client's request, and the checks whether it may become a WebSocket.

All checks happen before the response 101 (RFC 6455, 4.2.1). A failed check raises `HandshakeRefused`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, NoReturn, Protocol
from urllib.parse import parse_qsl

from wsthreads.errors import ExpiryError, HandshakeRefused, UsageError, UserError, brief
from wsthreads.origins import is_among, parse_origin
from wsthreads.protocol.envelope import SUBPROTOCOL
from wsthreads.protocol.heads import is_host
from wsthreads.protocol.hints import foreign_protocol
from wsthreads.protocol.proxies import PROXY_KEY, parse_address
from wsthreads.threads.lookups import look_up

__all__ = [
    "MAX_EXPIRY",
    "MAX_USER_CHARS",
    "Request",
    "acceptance",
    "check_expiry",
    "check_origin",
    "check_upgrade",
    "check_user",
    "choose_subprotocol",
    "is_upgrade",
    "strip_values",
]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")

NO_UPGRADE = (
    "this is a WebSocket endpoint: connect with ws:// or wss://; "
    "a proxy in front must pass on the headers Upgrade and Connection, over HTTP/1.1"
)

#: The server appends this to the client's key. The hash of both is the value of `Sec-WebSocket-Accept`.
ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

#: At most this many query parameters are parsed. Further parameters are ignored.
MAX_PARAMETERS = 1000

#: The longest name of a user.
MAX_USER_CHARS = 256


_NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})


#: The latest expiry of a session, in seconds since the epoch.
MAX_EXPIRY = 253402300799


def check_user(name: str) -> None:
    """Raise `UserError` for an invalid user name."""
    what = f"the name of a user must be text of 1 to {MAX_USER_CHARS} characters"
    if not isinstance(name, str):
        raise UserError(f"{what}, not {brief(name)} ({type(name).__name__})")
    if not 1 <= len(name) <= MAX_USER_CHARS:
        raise UserError(f"{what}, not {len(name)}: {name!r:.40}")


def check_expiry(unix_s: float) -> None:
    """Raise `ExpiryError` for anything but a time in seconds since the epoch."""
    what = "an expiry is a time in seconds since the epoch, such as time.time() + 60, not"
    if isinstance(unix_s, bool) or not isinstance(unix_s, (int, float)):
        raise ExpiryError(f"{what} {brief(unix_s)} ({type(unix_s).__name__})")
    if not abs(unix_s) <= MAX_EXPIRY:  # NaN fails, too
        hint = "; in milliseconds?" if MAX_EXPIRY < unix_s <= 1000 * MAX_EXPIRY else ""
        raise ExpiryError(f"{what} {brief(unix_s)}: the last one is {MAX_EXPIRY}, in the year 9999{hint}")


class Asking(Protocol):
    """The part of a session that `Request.__call__` uses."""

    def _request(self, message: str | bytes, timeout_s: float | None) -> str | bytes | None: ...


def _no_session() -> None:
    """The default of `Request._session`: there is no session yet."""


class Request:
    """The handshake of one client: the argument of `on_handshake`.

    Read-only except `user`, the expiry, and `attributes`, a dict that becomes `Session.attributes`. `environ` is the
    WSGI environ (PEP 3333). Until the session is open, use a `Request` only in the thread that calls `on_handshake`.
    Afterwards, any thread may read it.
    """

    def __init__(self, environ: dict[str, Any], path_parameters: Mapping[str, Any] = _NO_PARAMETERS) -> None:
        self.environ = environ
        #: The parameters of a path such as ``/ws/rooms/<name>``, decoded and converted. Read-only.
        self.path_parameters = path_parameters
        self.attributes: dict[str, Any] = {}
        self._user: str | None = None
        self._expires_at: float | None = None
        self._session: Callable[[], Asking | None] = _no_session  # the session replaces this function when it opens

    def __call__(
        self, message: str | bytes, *, timeout: float | None = None, **others: NoReturn
    ) -> str | bytes | None:
        """Send a request to the client of a session, and wait for its reply: ``session.request(message)``.

        The reply is text, bytes, or None. The call waits at most `timeout` seconds, by default `request_timeout_s`. If
        a Python handler makes the call in the session's own thread, the client's other messages wait until the handler
        has returned. A request survives a lost connection if the client comes back in time, to this process.

        Raises `RequestTimeout` (a `TimeoutError`) if there is no reply in time. A client without a connection still
        gets the request when it is back. So put an id into the message if the client must not act on an old request.

        Raises `SessionClosed` if the session ends before the reply. Raises `RequestError` if the client refuses, if too
        many requests are unanswered (`max_pending_requests`), or if the client does not speak ``wsthreads.1``. Over
        Redis, raises `SessionMoved` if the session moves to another process before the reply. Raises `MessageTypeError`
        for anything but str and bytes.
        """
        if others:
            raise TypeError(f"session.request takes the option timeout, in seconds, not {', '.join(others)}")
        session = self._session()
        if session is None:
            raise UsageError("this handshake has no open session yet: send a request by session.request(message)")
        return session._request(message, timeout)

    @property
    def user(self) -> str | None:
        """The user of the future session: text of 1 to 256 characters, or None. `on_handshake` may set it.

        Set it only to a name that the client has proved, for example by a cookie or a token, because messages for that
        user go to this client. Raises `UserError` for an invalid name.
        """
        return self._user

    @user.setter
    def user(self, name: str | None) -> None:
        if name is not None:
            check_user(name)
        self._user = name

    @property
    def expires_at(self) -> float | None:
        """The time that `set_expiry` has set, or None."""
        return self._expires_at

    def set_expiry(self, unix_s: float) -> None:
        """Close the session with the code 3000 and the reason "expired" at this time, such as the expiry of a token.

        `unix_s` is in seconds since the epoch. If the time has passed when `on_handshake` returns, the client is
        refused with 401. `Session.set_expiry` can change the time later. Raises `ExpiryError` for anything but a finite
        number.
        """
        check_expiry(unix_s)
        self._expires_at = unix_s

    @property
    def request_path(self) -> str:
        """The decoded path of the URI, without the query."""
        path = self.environ.get("SCRIPT_NAME", "") + self.environ.get("PATH_INFO", "")
        return path.encode("latin-1").decode("utf-8", "replace") or "/"

    @property
    def remote_addr(self) -> str:
        """The client's IP address. Behind trusted proxies, this is the address from their headers."""
        return str(self.environ.get("REMOTE_ADDR") or "")

    def get_header(self, name: str) -> str | None:
        """Returns the value of a header, or None. The case of `name` does not matter.

        Repeated headers are joined by commas, ``Cookie`` by semicolons. Plain ``-k gthread`` joins ``Cookie`` by
        commas, too.
        """
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        value = look_up(self.environ, key)
        return None if value is None else str(value)

    def get_parameter(self, name: str) -> str | None:
        """Returns the first value of a query parameter, URL-decoded as UTF-8, or None."""
        return look_up(self.parameters, name)

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The first value of each query parameter."""
        query = self.environ.get("QUERY_STRING", "").encode("latin-1").decode("utf-8", "replace")
        pairs = query.split("&", MAX_PARAMETERS)[:MAX_PARAMETERS]
        found: dict[str, str] = {}
        for name, value in parse_qsl("&".join(pairs), keep_blank_values=True, errors="replace"):
            found.setdefault(name, value)
        return found

    @property
    def headers(self) -> dict[str, str]:
        """All headers, with names in lower case. A new dict each time."""
        found = {}
        for key, value in self.environ.items():
            if key.startswith("HTTP_"):
                found[key[5:].replace("_", "-").lower()] = str(value)
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
                found[key.replace("_", "-").lower()] = str(value)
        return found

    @property
    def subprotocols(self) -> tuple[str, ...]:
        """The subprotocols that the client offers, the preferred one first, without ``wsthreads.1``."""
        return tuple(name for name in _tokens(self.get_header("Sec-WebSocket-Protocol")) if name != SUBPROTOCOL)

    @property
    def speaks_envelope(self) -> bool:
        """Whether the client offers ``wsthreads.1``, the subprotocol of wsthreads itself."""
        return SUBPROTOCOL in _tokens(self.get_header("Sec-WebSocket-Protocol"))


def is_upgrade(environ: dict[str, Any]) -> bool:
    """Whether the client asks for a WebSocket, even if its request is malformed."""
    return "websocket" in _tokens((environ.get("HTTP_UPGRADE") or "").lower())


def check_upgrade(environ: dict[str, Any]) -> None:
    """Check that the request for a WebSocket is well-formed (RFC 6455, 4.2.1).

    Raises `HandshakeRefused` with the status 400. The status 426 would need the header Upgrade (RFC 9110, 15.5.22),
    which a WSGI application must not send (PEP 3333). The header would also make nginx break an HTTP/2 connection.
    """
    if not is_upgrade(environ):
        raise _bad_request(foreign_protocol(environ) or NO_UPGRADE)
    if environ.get("REQUEST_METHOD") != "GET":
        raise _bad_request(f"a WebSocket handshake is a GET, not a {environ.get('REQUEST_METHOD')}")
    if environ.get("SERVER_PROTOCOL", "HTTP/1.1") < "HTTP/1.1":  # versions are compared as text; HTTP/1.0 is less
        raise _bad_request("a WebSocket handshake needs HTTP/1.1; in nginx, set proxy_http_version 1.1")
    if "upgrade" not in _tokens((environ.get("HTTP_CONNECTION") or "").lower()):
        raise _bad_request("a WebSocket handshake needs the header Connection: Upgrade; a proxy must send it, too")
    _check_host(environ)
    # Werkzeug, and gunicorn before version 27, would encode these characters twice
    if not str(environ.get("RAW_URI") or "").isascii():
        raise _bad_request("the URI has non-ASCII characters: percent-encode them (RFC 3986)")
    if _has_body(environ):  # a server would take the body for frames
        raise _bad_request("a WebSocket handshake has no body: remove Content-Length and Transfer-Encoding")
    version = environ.get("HTTP_SEC_WEBSOCKET_VERSION")
    if version != "13":
        reason = f"this server speaks WebSocket version 13, not {version!r:.40}"
        raise _bad_request(reason, [("Sec-WebSocket-Version", "13")])
    key = environ.get("HTTP_SEC_WEBSOCKET_KEY", "")
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise _bad_request("Sec-WebSocket-Key must be 16 bytes in base64")
    for name in _tokens(environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL")):
        if not _TOKEN.match(name):
            raise _bad_request("Sec-WebSocket-Protocol must be a list of tokens")


def strip_values(environ: dict[str, Any]) -> None:
    """Remove white space around all header values (RFC 9110, 5.5), because Werkzeug's parser leaves it at their end.

    Changes `environ` in place, because other code that a handler calls reads it, too.
    """
    for key, value in list(environ.items()):
        if key.startswith(("HTTP_", "CONTENT_")) and isinstance(value, str) and value != value.strip(" \t"):
            environ[key] = value.strip(" \t")


def _check_host(environ: dict[str, Any]) -> None:
    """Check that there is exactly one Host header, and that it is valid (RFC 6455, 4.2.1; RFC 9112, 3.2).

    Servers join two Host headers by a comma, and a Host with a comma is not valid.
    """
    host = environ.get("HTTP_HOST")
    if host is None:
        raise _bad_request("a WebSocket handshake needs the header Host; a proxy must send it, too")
    if not is_host(str(host)):
        raise _bad_request(f"Host must be one name or address with an optional port, not {host!r:.200}")


def _has_body(environ: dict[str, Any]) -> bool:
    length = str(environ.get("CONTENT_LENGTH") or "0")
    return "HTTP_TRANSFER_ENCODING" in environ or length.strip("0") != ""


def _bad_request(reason: str, headers: Iterable[tuple[str, str]] = ()) -> HandshakeRefused:
    return HandshakeRefused(400, reason, headers, cause="bad_request")


def check_origin(request: Request, allowed: tuple[str, ...]) -> None:
    """Accept a client without an Origin, with the server's own origin, or with one in `allowed` (``*`` allows all).

    The server's own origin is made from the Host header. If the connection has no TLS here, both http and https are
    accepted, because a proxy may have removed the TLS. Raises `HandshakeRefused` with the status 403.

    Browsers do not apply the same-origin policy to WebSockets. Without this check, any page could act in the name of
    its visitor (cross-site WebSocket hijacking).

    In an attack by DNS rebinding, the host name of a foreign page points to the visitor's own machine, so the page
    seems to have the server's own origin. So a development server that is reached from its own machine accepts only the
    name localhost.
    """
    origin = request.get_header("Origin")
    if origin is None or "*" in allowed:
        return
    origin = origin.strip(" \t")
    if is_among(origin, allowed):
        return
    wanted = parse_origin(origin)
    if wanted is not None:
        schemes = ("https",) if request.environ.get("wsgi.url_scheme") == "https" else ("http", "https")
        if wanted in [parse_origin(f"{scheme}://{request.get_header('Host') or ''}") for scheme in schemes]:
            if not _may_be_rebound(request, wanted[1]):
                return
            reason = f"origin {origin!r:.200} points to this machine; --origin can allow it"
            raise HandshakeRefused(403, reason, cause="origin")
    host = request.get_header("Host")
    reason = f"it is neither that of the Host, {host!r:.200}, nor in allowed_origins (--origin)"
    if wanted is None or wanted[0] in ("ws", "wss"):
        ours = f"{request.environ.get('wsgi.url_scheme', 'http')}://{host}"
        reason += f"; a page of this Host sends {ours!r:.200}, and a client outside a browser can omit the Origin"
    raise HandshakeRefused(403, f"origin {origin!r:.200} is not allowed here: {reason}", cause="origin")


def _may_be_rebound(request: Request, host: str) -> bool:
    """Whether this may be DNS rebinding.

    The attack is possible if a client on the development server's own machine uses another name than localhost.
    """
    environ = request.environ
    if "werkzeug.socket" not in environ or PROXY_KEY in environ or "werkzeug.proxy_fix.orig" in environ:
        return False
    if host.startswith("[") or host == "localhost" or host.endswith(".localhost"):
        return False
    client = parse_address(request.remote_addr)
    return client is not None and client.is_loopback and parse_address(host) is None


def choose_subprotocol(offered: tuple[str, ...], spoken: tuple[str, ...]) -> str | None:
    """Returns the first of `spoken` that the client offers, or None for no subprotocol (RFC 6455, 4.2.2)."""
    return next((name for name in spoken if name in offered), None)


def acceptance(key: str, subprotocol: str | None, extensions: str | None) -> bytes:
    """Returns the response 101 for a client with this key (RFC 6455, 4.2.2)."""
    lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"]
    accepted = base64.b64encode(hashlib.sha1(key.encode() + ACCEPT_GUID, usedforsecurity=False).digest())
    lines.append(f"Sec-WebSocket-Accept: {accepted.decode()}")
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    if extensions is not None:
        lines.append(f"Sec-WebSocket-Extensions: {extensions}")
    return "\r\n".join([*lines, "", ""]).encode()


def _tokens(header: str | None) -> list[str]:
    """Returns the parts of a comma-separated header, without the spaces and tabs around them (RFC 9110, 5.6.1)."""
    return [token for part in header.split(",") if (token := part.strip(" \t"))] if header else []
