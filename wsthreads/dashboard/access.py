"""Decides who may use the dashboard: everybody with the token, or without a token only users of this machine.

Behind a proxy on the same machine, every request comes from a loopback address. Two things reveal a proxy: headers that
only proxies add, and a header Host that is not a loopback name. A proxy that adds no headers and sets a loopback Host
cannot be detected.

The files of the page contain no secrets, and need no token. In HTTP requests, the token is a bearer token (RFC 6750).
Browsers cannot add headers to a WebSocket, so there the token is a subprotocol. The token is not a part of the URL,
because access logs contain URLs, but no subprotocols.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from wsthreads.origins import parse_origin

__all__ = ["SUBPROTOCOL", "Access", "bearer_token", "offered_token"]

#: The subprotocol that the page's WebSocket uses.
SUBPROTOCOL = "wsthreads.live"

#: The page also offers a second subprotocol: this prefix with the token, in base64url without padding.
TOKEN_PREFIX = "token."

#: A request with one of these headers, or with an X-Forwarded- header, has come through a proxy.
FORWARDED = frozenset(
    {"HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_CLIENT_IP", "HTTP_TRUE_CLIENT_IP", "HTTP_CF_CONNECTING_IP"}
)


class Access:
    """Checks requests. A request needs `token`, unless it is empty. Any thread."""

    def __init__(self, token: str = "") -> None:
        self.token = token

    @property
    def needs_token(self) -> bool:
        return bool(self.token)

    def complaint(self, environ: dict[str, Any], token: str) -> str:
        """Returns the reason why a request with this token is refused.

        Empty if it is accepted. Takes the same time for each token.
        """
        if self.token:
            if hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode("utf-8", "replace")):
                return ""
            return "the dashboard's token is wrong" if token else "the dashboard's token is missing"
        # Without a token, the only protection is that the client must be on this machine.
        if any(name in FORWARDED or name.startswith("HTTP_X_FORWARDED_") for name in environ):
            return "the dashboard needs a token behind a proxy: set dashboard_token"
        host = str(environ.get("HTTP_HOST", ""))
        if not _is_this_machine(host):
            return f"without a token, the dashboard works only at localhost, not at {host!r:.200}: set dashboard_token"
        return ""


def _is_this_machine(host: str) -> bool:
    """Whether a Host is a loopback name.

    Another name may have the address 127.0.0.1, because an attacker controls its DNS.
    """
    origin = parse_origin(f"http://{host}")
    name = "" if origin is None else origin[1].strip("[]")
    try:
        return name == "localhost" or name.endswith(".localhost") or ip_address(name).is_loopback
    except ValueError:
        return False


def bearer_token(environ: dict[str, Any]) -> str:
    """Returns the bearer token of a request. Empty if there is none."""
    scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def offered_token(subprotocols: Iterable[str]) -> str:
    """Returns the token in a client's list of subprotocols. Empty if there is none, or if it is malformed."""
    for name in subprotocols:
        if name.startswith(TOKEN_PREFIX):
            encoded = name[len(TOKEN_PREFIX) :]
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""
    return ""
