"""Who may see the page's data, and act: whoever reaches a development server on loopback, else who has the token.

Through a proxy on the same machine everybody comes from loopback. What tells of it are headers: those that proxies add,
and the Host, which is another name than this machine's for its own users. One that adds none and puts its own Host in
place cannot be told from them.

The page's own files hold no secret, and anybody may have them. Browsers cannot send headers with a WebSocket, so the
token comes as a subprotocol there, which access logs do not have, unlike a URL; in a request it is a bearer token
(RFC 6750).
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

#: What the page's socket speaks.
SUBPROTOCOL = "wsthreads.live"

#: Offered beside it: this, and the token in base64url without its padding.
TOKEN_PREFIX = "token."

#: A request that has one of these, or anything that begins with X-Forwarded-, has come through a proxy.
FORWARDED = frozenset(
    {"HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_REAL_IP", "HTTP_X_CLIENT_IP", "HTTP_TRUE_CLIENT_IP", "HTTP_CF_CONNECTING_IP"}
)


class Access:
    """Judges requests. `token` is what they must have; empty, none is asked for. Any thread."""

    def __init__(self, token: str = "") -> None:
        self.token = token

    @property
    def needs_token(self) -> bool:
        return bool(self.token)

    def complaint(self, environ: dict[str, Any], token: str) -> str:
        """Why a request that brings `token` may not be answered; empty if it may. Takes the same time for any token."""
        if self.token:
            if hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode("utf-8", "replace")):
                return ""
            return "the dashboard's token is wrong" if token else "the dashboard's token is missing"
        # Without a token, loopback is all the protection that there is.
        if any(name in FORWARDED or name.startswith("HTTP_X_FORWARDED_") for name in environ):
            return "the dashboard is not shown through a proxy without a token: set dashboard_token"
        host = str(environ.get("HTTP_HOST", ""))
        if not _is_this_machine(host):
            return f"without a token the dashboard is at localhost only, not at {host!r:.200}: set dashboard_token"
        return ""


def _is_this_machine(host: str) -> bool:
    """Whether a Host is what those call a machine who use it: not so a name that anybody may have made lead to it."""
    origin = parse_origin(f"http://{host}")
    name = "" if origin is None else origin[1].strip("[]")
    try:
        return name == "localhost" or name.endswith(".localhost") or ip_address(name).is_loopback
    except ValueError:
        return False


def bearer_token(environ: dict[str, Any]) -> str:
    """The token of a request; empty where there is none."""
    scheme, _, token = str(environ.get("HTTP_AUTHORIZATION", "")).partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def offered_token(subprotocols: Iterable[str]) -> str:
    """The token among the subprotocols that a client offers; empty where there is none, or one that is malformed."""
    for name in subprotocols:
        if name.startswith(TOKEN_PREFIX):
            encoded = name[len(TOKEN_PREFIX) :]
            try:
                return base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
            except (binascii.Error, ValueError):
                return ""
    return ""
