"""Finds the endpoint for the path of a request."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from types import MappingProxyType
from typing import Any, NamedTuple

from wsthreads.app.rules import Rule, Rules, is_rule, without_parameters
from wsthreads.errors import ConfigError
from wsthreads.protocol.hints import near_path
from wsthreads.sessions.endpoint import Endpoint
from wsthreads.threads.lookups import look_up

__all__ = ["Match", "Routing"]

_NO_PARAMETERS: Mapping[str, Any] = MappingProxyType({})


class Match(NamedTuple):
    """An endpoint for a path, and the values of the path's parameters."""

    endpoint: Endpoint
    path_parameters: Mapping[str, Any]


class Routing:
    """The endpoints of an app. Each has a path, or a rule, which is a path with parameters. Any thread."""

    def __init__(self) -> None:
        self._endpoints: dict[str, Endpoint] = {}  # by path or rule; a change makes a new dict
        self._rules = Rules()
        self._changing = Lock()  # held while the endpoints and the rules are replaced

    def match(self, path: str) -> Match | None:
        """Returns the endpoint with exactly this path, or None."""
        endpoint = look_up(self._endpoints, path)
        return None if endpoint is None or is_rule(path) else Match(endpoint, _NO_PARAMETERS)

    def match_rule(self, path: str) -> Match | None:
        """Returns the endpoint whose rule matches `path`, or None.

        Call this if no other part of the app serves the path.
        """
        found = self._rules.match(path)
        return None if found is None else Match(self._endpoints[found[0]], MappingProxyType(found[1]))

    def hint(self, path: str) -> str:
        """Returns the path that a client probably means, if no endpoint matches. Empty if there is none."""
        return near_path(path, (known for known in self._endpoints if not is_rule(known))) or self._rules.near(path)

    def misfit(self, path: str) -> str:
        """Returns the text of an error for a path in which a parameter has an invalid value. Empty for other paths."""
        return self._rules.misfit(path)

    def check(self, path: str) -> None:
        """Raise `ConfigError` if no endpoint can be added for `path`."""
        if not isinstance(path, str) or not path.startswith("/"):
            raise ConfigError(f"the path of an endpoint must begin with a slash, not {path!r}")
        plain = without_parameters(path)
        if "?" in plain or "#" in plain:
            raise ConfigError(f"the path of an endpoint must not have a query or a fragment: {path!r}")
        if path in self._endpoints:
            raise ConfigError(f"{path} is already served by {self._endpoints[path].handler.name}")
        if is_rule(path):
            same = self._rules.same_as(Rule(path))
            if same is not None:
                name = self._endpoints[same].handler.name
                raise ConfigError(f"{path} matches the same paths as {same}, which is already served by {name}")

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint whose path has passed `check`."""
        with self._changing:
            self._endpoints = {**self._endpoints, endpoint.path: endpoint}
            if is_rule(endpoint.path):
                self._rules.add(Rule(endpoint.path))

    def remove(self, endpoint: Endpoint) -> None:
        """Remove an endpoint."""
        with self._changing:
            self._rules.remove(endpoint.path)
            self._endpoints = {path: other for path, other in self._endpoints.items() if other is not endpoint}

    def find(self, path: str) -> Endpoint:
        """Returns the endpoint that was added with this path. Raises `KeyError`, whose text lists all paths."""
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
        """The paths of all endpoints, in the order in which they were added."""
        return tuple(self._endpoints)
