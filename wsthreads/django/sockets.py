"""What Django's server lacks for WebSockets: in its environ, the connection's socket and its buffer."""

from __future__ import annotations

from typing import Any

from wsthreads.protocol.hosts import INPUT_KEY, SOCKET_KEY

__all__ = ["HandsOverSocket"]


class HandsOverSocket:
    """Mixed into a request handler of Django's."""

    connection: Any
    rfile: Any

    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), SOCKET_KEY: self.connection, INPUT_KEY: self.rfile}  # type: ignore[misc]
