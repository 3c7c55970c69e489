"""Hints for clients whose requests fail: a similar path exists, or they speak another protocol than WebSocket."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["answer_with_hint", "foreign_protocol", "near_path"]

_PLAIN = "this server speaks plain WebSocket, not {}: connect with new WebSocket(url), or with wsthreads.js"

#: Response headers that describe the body.
_ABOUT_BODY = frozenset(
    {"content-type", "content-length", "content-encoding", "content-language", "content-range", "etag", "last-modified"}
)


def foreign_protocol(environ: dict[str, Any]) -> str:
    """Returns a hint for clients of Socket.IO and SignalR, which their first request shows.

    Empty for all other clients.
    """
    query = str(environ.get("QUERY_STRING", ""))
    if re.search(r"(?:\A|&)EIO=[0-9]", query):
        return _PLAIN.format("Socket.IO")
    is_negotiation = environ.get("REQUEST_METHOD") == "POST" or "clientProtocol=" in query
    if is_negotiation and str(environ.get("PATH_INFO", "")).rstrip("/").endswith("/negotiate"):
        return _PLAIN.format("SignalR")
    return ""


def near_path(path: str, known: Iterable[str]) -> str | None:
    """Returns the known path that differs from `path` only in slashes, in upper case, or by a query.

    None if there is none.
    """
    return next((other for other in known if _folded(other) == _folded(path)), None)


def _folded(path: str) -> str:
    return re.sub("/+", "/", path.partition("?")[0].strip() + "/").lower()


def answer_with_hint(
    app: WSGIApplication,
    hint: str,
    environ: WSGIEnvironment,
    start_response: StartResponse,
    statuses: tuple[str, ...] = ("404",),
) -> Iterable[bytes]:
    """Returns the response of `app`. If the response has one of the `statuses`, the hint replaces its body."""
    body = f"{hint}\n".encode()
    is_late = is_missing = False

    def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
        nonlocal is_missing
        if not is_late and status.startswith(statuses):
            is_missing = True
            headers = [header for header in headers if header[0].lower() not in _ABOUT_BODY]
            headers += [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
            start_response(status, headers, *more)
            return lambda data: None
        return start_response(status, headers, *more)

    response = app(environ, start)
    is_late = True  # a response that begins only when the server iterates over it stays unchanged
    if not is_missing:
        return response
    if hasattr(response, "close"):
        response.close()
    return [b"" if environ.get("REQUEST_METHOD") == "HEAD" else body]
