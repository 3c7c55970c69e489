"""Checks the arguments of `WebSocketApp`, and makes the defaults."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from wsthreads.config import REDIS_VARIABLE, Config, dashboard_token_of
from wsthreads.errors import ConfigError

if TYPE_CHECKING:
    from wsthreads.brokers import Broker
    from wsthreads.dashboard import Dashboard

__all__ = ["check_parts", "config_of", "make_broker", "make_dashboard"]

#: Arguments of `create_app` that are not settings. If a setting is misspelt, the hint may name one of these, too.
_OF_CREATE_APP = ("modules", "env", "env_file", "static")


def check_parts(wsgi_app: object, config: object, redis: object, broker: object, dashboard: object) -> None:
    """Raise `ConfigError` for an argument of the wrong type, which would otherwise fail only at the first request."""
    if wsgi_app is not None and not callable(wsgi_app):
        raise ConfigError(f"wsgi_app must be a WSGI application, such as Flask(__name__), not {wsgi_app!r:.100}")
    if config is not None and not isinstance(config, Config):
        kind = type(config).__name__
        raise ConfigError(f"config must be a Config, not a {kind}; single settings are keyword arguments")
    if redis is not None and redis is not False and broker is not None:
        raise ConfigError('give either redis="redis://…" or broker=RedisBroker(…), not both')
    # the value is not shown, because a URL can contain a password
    if broker is not None and not hasattr(broker, "link"):
        kind = type(broker).__name__
        raise ConfigError(f'broker must be a RedisBroker("redis://…"), not a {kind}; a URL is for redis=')
    if dashboard is not None and not hasattr(dashboard, "serve"):
        kind = type(dashboard).__name__
        raise ConfigError(f"dashboard must be a Dashboard(token), not a {kind}; a token is for dashboard_token=")


def config_of(settings: dict[str, Any]) -> Config:
    """Returns the `Config` with these settings. Raises `ConfigError` for a name that is not a setting."""
    try:
        return Config(**settings)
    except TypeError:
        known = Config.__dataclass_fields__
        unknown = [name for name in settings if name not in known]
        meant = get_close_matches(unknown[0], (*known, *_OF_CREATE_APP), n=1, cutoff=0.75)
        hint = f"did you mean {meant[0]}?" if meant else f"there are: {', '.join(known)}"
        raise ConfigError(f"no such setting: {', '.join(unknown)}; {hint}") from None


def make_broker(redis: Any) -> Broker | None:
    """Returns the broker for a Redis URL. If `redis` is None, uses the URL in WSTHREADS_REDIS.

    Returns None if there is no URL, or if `redis` is False.
    """
    if redis is False:
        return None
    redis = (os.environ.get(REDIS_VARIABLE) or None) if redis is None else redis
    if redis is None:
        return None
    from wsthreads.brokers.redis import RedisBroker  # only an app with a broker needs redis-py

    return RedisBroker(redis)


def make_dashboard(config: Config) -> Dashboard | None:
    """Returns the dashboard, if there is a token for it in the settings or the environment. Otherwise returns None."""
    token = dashboard_token_of(config)
    if not token:
        return None
    from wsthreads.dashboard import Dashboard  # only an app with a dashboard needs it

    return Dashboard(token)
