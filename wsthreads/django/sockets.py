"""Adds to Django's environ what WebSockets need: the connection's socket, its read buffer, and all cookies."""

from __future__ import annotations

from typing import Any

from wsthreads.protocol.wsgi_servers import INPUT_KEY, SOCKET_KEY

__all__ = ["HandsOverSocket"]


class HandsOverSocket:
    """A mixin for Django's request handlers that adds these."""

    connection: Any
    rfile: Any
    headers: Any

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()  # type: ignore[misc]
        if cookies := self.headers.get_all("Cookie"):  # Django would join the cookies by commas; see RFC 9113, 8.2.3
            environ["HTTP_COOKIE"] = "; ".join(filter(None, map(str.strip, cookies)))
        return {**environ, SOCKET_KEY: self.connection, INPUT_KEY: self.rfile}
