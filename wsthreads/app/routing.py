"""Finds the endpoint for the path of a request."""

from __future__ import annotations

from typing import Any, NamedTuple

from wsthreads.errors import ConfigError
from wsthreads.sessions.endpoint import Endpoint

__all__ = ["Match", "Routing"]


class Match(NamedTuple):
    """The endpoint for a path, and the parts of the path that are parameters of the session."""

    endpoint: Endpoint
    path_parameters: dict[str, Any]


class Routing:
    """The endpoints of an app. Any thread."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}

    def match(self, path: str) -> Match | None:
        """The endpoint that serves `path`, if there is one."""
        endpoint = self._endpoints.get(path)
        return None if endpoint is None else Match(endpoint, {})

    def check(self, path: str) -> None:
        """Raise `ConfigError` if no endpoint can be added for `path`."""
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigError(f"the path of an endpoint must begin with a slash, not {path!r}")
        if "?" in path or "#" in path:
            raise ConfigError(f"the path of an endpoint must not have a query or a fragment: {path!r}")
        if path in self._endpoints:
            raise ConfigError(f"{path} is already served by {self._endpoints[path].handler.name}")

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint whose path passed `check`."""
        self._endpoints[endpoint.path] = endpoint

    def remove(self, endpoint: Endpoint) -> None:
        """Take an endpoint out again."""
        del self._endpoints[endpoint.path]

    def find(self, path: str) -> Endpoint:
        """The endpoint that was added with this path. Raises `KeyError`, which names all paths."""
        try:
            return self._endpoints[path]
        except KeyError:
            known = ", ".join(self._endpoints) or "none"
            raise KeyError(f"no endpoint {path!r}; there are: {known}") from None

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """All endpoints, in the order in which they were added."""
        return tuple(self._endpoints.values())

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all endpoints, in the same order."""
        return tuple(self._endpoints)
