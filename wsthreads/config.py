"""Every setting, its unit, its default and its range, in one place.

A `Config` is frozen and validated when it is made. The command line makes an option of each field
(`max_message_bytes` is ``--max-message-bytes``), `WebSocketApp` takes them as keyword arguments.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from wsthreads.errors import ConfigError
from wsthreads.origins import NAMELESS, parse_origin

__all__ = [
    "DASHBOARD_TOKEN_VARIABLE",
    "METRICS_TOKEN_VARIABLE",
    "REDIS_VARIABLE",
    "Config",
    "dashboard_token_of",
]

#: The environment variable that names a Redis for apps that are given no broker.
REDIS_VARIABLE = "WSTHREADS_REDIS"

#: The environment variables for `metrics_token` and `dashboard_token`.
METRICS_TOKEN_VARIABLE = "WSTHREADS_METRICS_TOKEN"
DASHBOARD_TOKEN_VARIABLE = "WSTHREADS_DASHBOARD_TOKEN"

#: Shorter ones could be guessed, and who has guessed the dashboard's can act.
MIN_DASHBOARD_TOKEN_CHARS = 16

#: Eleven days. poll(2) counts milliseconds in 32 bits, and takes no more than twice that.
MAX_S = 1e6


def _setting(
    default: Any,
    about: str,
    low: float | None = None,
    high: float = math.inf,
    kind: type | None = None,
    secret: bool = False,
) -> Any:
    """A field with its help text, the type and the range that `Config` holds it to. None as a default may be given.

    Of a text, the range is that of its length.
    """
    metadata = {"help": about, "low": low, "high": high, "kind": kind or type(default)}
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of an app. Immutable, so any thread may read them.

    Raises `ConfigError` for a value out of range. It names the setting, the value and the range.
    """

    max_message_bytes: int = _setting(1024 * 1024, "largest message taken from a client (1009 past it)", 1, 2**31)
    max_fragments: int = _setting(16384, "frames that one message may come in (1009 past it)", 1)
    message_timeout_s: float = _setting(60.0, "longest that a message may take to come in (1008)", 0.01, MAX_S)
    max_messages_per_s: int = _setting(
        0, "messages a second from a client, on average over ten seconds; 0 for any number (1008)", 0
    )
    max_control_frames_per_s: int = _setting(100, "likewise of its pings and pongs; 0 for any number (1008)", 0)
    idle_timeout_s: float = _setting(0.0, "longest that a client may send no message; 0 for ever (1001)", 0, MAX_S)
    max_outbox_bytes: int = _setting(1024 * 1024, "most that may wait for a slow client (1013 past it)", 1, 2**31)
    send_timeout_s: float = _setting(10.0, "longest that a client may read nothing of what waits (1013)", 0.01, MAX_S)
    ping_interval_s: float = _setting(25.0, "silence after which a client is pinged; 0 for never", 0, MAX_S)
    ping_timeout_s: float = _setting(20.0, "longest wait for any sign of life after a ping (1006)", 0.01, MAX_S)
    close_timeout_s: float = _setting(5.0, "longest wait for the client's half of a close handshake", 0.01, MAX_S)
    handshake_timeout_s: float = _setting(10.0, "longest that a request, or onHandshake, may take", 0.01, MAX_S)
    max_handshake_bytes: int = _setting(32768, "longest head of a request, under wsthreads run (431 past it)", 1024)
    script_timeout_s: float = _setting(5.0, "longest that one call of a script may take (1011)", 0.01, MAX_S)
    shutdown_timeout_s: float = _setting(10.0, "longest wait for sessions to end at shutdown", 0, MAX_S)
    max_sessions: int = _setting(1000, "sessions at once in this process (503 past it)", 1)
    max_sessions_per_address: int = _setting(
        0, "sessions at once of one IPv4 address or IPv6 /64 network; 0 for any number (429)", 0
    )
    max_rooms_per_session: int = _setting(1000, "rooms that one session may be in", 1)
    max_room_name_chars: int = _setting(256, "longest room name", 1)
    allowed_origins: tuple[str, ...] = _setting((), "browser origins let in beside our own, as https://host; * for any")
    subprotocols: tuple[str, ...] = _setting((), "subprotocols spoken, the one preferred first")
    accept_binary: bool = _setting(True, "take binary messages (1003 where not)")
    compression: bool = _setting(False, "deflate messages to and from clients that can (permessage-deflate)")
    trusted_proxies: int = _setting(0, "proxies in front whose X-Forwarded-For, -Proto and -Host are believed", 0, 16)
    cpu_affinity: bool | None = _setting(
        None, "keep the threads of sessions on one core; by default where the process is ours", kind=bool
    )
    serve_client: bool = _setting(False, "serve the browser's client at /wsthreads.js, and its types")
    serve_health: bool | None = _setting(
        None, "answer /healthz and /readyz; by default where nobody else may answer there", kind=bool
    )
    serve_metrics: bool = _setting(False, "serve metrics for Prometheus at /metrics (extra: prometheus)")
    metrics_token: str = _setting(
        "", f"bearer token without which there are no metrics; better in {METRICS_TOKEN_VARIABLE}", secret=True
    )
    dashboard_token: str = _setting(
        "",
        f"token without which there is no page about the server; better in {DASHBOARD_TOKEN_VARIABLE}",
        MIN_DASHBOARD_TOKEN_CHARS,
        secret=True,
    )
    scripts_without_deadline: bool = _setting(False, "run scripts even where their run time cannot be bounded")

    def __post_init__(self) -> None:
        for setting in fields(self):
            object.__setattr__(self, setting.name, _validated(setting, getattr(self, setting.name)))
        for origin in self.allowed_origins:
            if origin != "*" and origin not in NAMELESS and parse_origin(origin) is None:
                raise ConfigError(
                    f"an origin looks like https://host or https://host:port, with the host in ASCII (Punycode), "
                    f"or is * for any, file:// for files, or null; not {origin!r}"
                )


def _validated(setting: Field[Any], value: Any) -> Any:
    name = setting.name
    kind: type = setting.metadata["kind"]
    if value is None and setting.default is None:
        return None
    if kind is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise ConfigError(f"{name} must be a list of texts, not {value!r}")
        texts = tuple(value)
        for text in texts:
            if not isinstance(text, str) or not text or any(c.isspace() or c == "," for c in text):
                raise ConfigError(f"{name} must hold non-empty texts without spaces or commas, not {text!r}")
        return texts
    if kind is str:
        if not isinstance(value, str) or not value.isascii() or any(not c.isprintable() or c == " " for c in value):
            raise ConfigError(f"{name} must be ASCII text without spaces")  # which is not shown: it is a secret
        if value and len(value) < (setting.metadata["low"] or 0):
            least = setting.metadata["low"]
            raise ConfigError(f"{name} must have at least {least} characters, this one has {len(value)}")
        return value
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be true or false, not {value!r}")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
        raise ConfigError(f"{name} must be {'a number' if kind is float else 'a whole number'}, not {value!r}")
    low, high = setting.metadata["low"], setting.metadata["high"]
    if not low <= value <= high:  # nor NaN
        top = f" and at most {high:.10g}" if high < math.inf else ""
        raise ConfigError(f"{name} must be at least {low}{top}, not {value!r}")
    return kind(value)


def dashboard_token_of(config: Config) -> str:
    """The token of the dashboard, by the settings or else by the environment; empty if there is none.

    Raises `ConfigError` for one in the environment that is no good.
    """
    token = config.dashboard_token or os.environ.get(DASHBOARD_TOKEN_VARIABLE, "")
    return replace(config, dashboard_token=token).dashboard_token
