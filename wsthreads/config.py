"""Every setting, its unit, its default and its range, in one place.

A `Config` is immutable, and its values are checked when it is created. Each field is also an option of the command line
(`max_message_bytes` is ``--max-message-bytes``) and a keyword argument of `WebSocketApp`.
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

#: The environment variable with a Redis URL, for apps that get no broker as an argument.
REDIS_VARIABLE = "WSTHREADS_REDIS"

#: The environment variables for `metrics_token` and `dashboard_token`.
METRICS_TOKEN_VARIABLE = "WSTHREADS_METRICS_TOKEN"
DASHBOARD_TOKEN_VARIABLE = "WSTHREADS_DASHBOARD_TOKEN"

#: A shorter token for the dashboard could be guessed, and this token permits actions, not only reading.
MIN_DASHBOARD_TOKEN_CHARS = 16

#: The longest time in any setting, about 11 days. poll(2) accepts timeouts of at most 24 days (32 bits of
#: milliseconds).
MAX_S = 1e6


def _setting(
    default: Any,
    about: str,
    low: float | None = None,
    high: float = math.inf,
    kind: type | None = None,
    secret: bool = False,
) -> Any:
    """Returns a field of `Config` with its help text, type and range, which `Config` checks.

    None is valid if it is the default.

    For text, the range is for the number of characters.
    """
    metadata = {"help": about, "low": low, "high": high, "kind": kind or type(default)}
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The settings of an app. Immutable, so every thread may read them.

    Raises `ConfigError` for a value out of its range. The error names the setting, the value and the range.
    """

    max_message_bytes: int = _setting(1024 * 1024, "largest message from a client (1009)", 1, 2**31)
    max_fragments: int = _setting(16384, "most frames in one message (1009)", 1)
    message_timeout_s: float = _setting(60.0, "longest time to receive one message (1008)", 0.01, MAX_S)
    max_messages_per_s: int = _setting(
        0, "most messages per second from a client, averaged over ten seconds; 0: no limit (1008)", 0
    )
    max_control_frames_per_s: int = _setting(
        100, "most pings and pongs per second from a client; 0: no limit (1008)", 0
    )
    idle_timeout_s: float = _setting(
        0.0, "longest time without a message from the client; 0: no limit (1001)", 0, MAX_S
    )
    max_outbox_bytes: int = _setting(1024 * 1024, "most bytes queued for a slow client (1013)", 1, 2**31)
    send_timeout_s: float = _setting(
        10.0, "longest time that a client may read nothing while bytes are queued (1013)", 0.01, MAX_S
    )
    ping_interval_s: float = _setting(25.0, "silence after which the server pings a client; 0: no pings", 0, MAX_S)
    ping_timeout_s: float = _setting(
        20.0, "longest wait for any bytes from the client after a ping (1006)", 0.01, MAX_S
    )
    close_timeout_s: float = _setting(5.0, "longest wait for the client's close frame", 0.01, MAX_S)
    handshake_timeout_s: float = _setting(10.0, "longest time for a request's head, or for onHandshake", 0.01, MAX_S)
    max_handshake_bytes: int = _setting(32768, "longest head of a request, under wsthreads run (431)", 1024)
    script_timeout_s: float = _setting(1.0, "longest time that a script's code may run at a time (1011)", 0.01, MAX_S)
    script_wait_s: float = _setting(30.0, "longest wait of a script for Python, or for a promise (1011)", 0.01, MAX_S)
    script_threads: int = _setting(8, "most threads that run Python functions for a script", 1, 1000)
    allow_net: tuple[str, ...] = _setting(
        (), "hosts that scripts may fetch from: host, host:port or *.host (needs the extra fetch)"
    )
    max_fetch_bytes: int = _setting(2**24, "largest body that a script may fetch, or send with fetch", 1, 2**26)
    shutdown_timeout_s: float = _setting(10.0, "longest wait for sessions to end at a shutdown", 0, MAX_S)
    max_sessions: int = _setting(1000, "most sessions in this process (503)", 1)
    max_sessions_per_address: int = _setting(
        0, "most sessions of one IPv4 address or IPv6 /64 network in this process; 0: no limit (429)", 0
    )
    max_rooms_per_session: int = _setting(1000, "most rooms that one session may be in", 1)
    max_room_name_chars: int = _setting(256, "longest room name", 1)
    presence_interval_s: float = _setting(0.2, "least time between two calls of onPresence for a room", 0.01, MAX_S)
    presence_grace_s: float = _setting(10.0, "how long presence stays after a connection is lost", 0, MAX_S)
    max_presence_bytes: int = _setting(1024, "longest presence value, as JSON", 1, 2**20)
    room_threads: int = _setting(4, "threads that call on_tick, on_post, on_room_start, on_room_end in Python", 1, 256)
    max_post_bytes: int = _setting(65536, "longest value of room.post, as JSON", 1, 2**20)
    post_timeout_s: float = _setting(10.0, "longest wait of room.post until the value was handled", 0.01, MAX_S)
    max_room_bytes: int = _setting(65536, "most bytes of a room's attributes together, as JSON", 1, 2**24)
    room_keep_s: float = _setting(60.0, "how long a room's attributes outlive its last member", 0, MAX_S)
    resume_s: float = _setting(
        0.0, "how long a session waits for a client that lost its connection; 0: not at all", 0, MAX_S
    )
    max_resume_bytes: int = _setting(1024 * 1024, "most bytes kept for a client until it acknowledges them", 1, 2**31)
    max_suspended_sessions: int = _setting(1000, "most sessions that wait for their clients in this process", 1)
    request_timeout_s: float = _setting(10.0, "how long session.request waits by default", 0.01, MAX_S)
    max_pending_requests: int = _setting(100, "most unanswered requests of a session, in each direction", 1, 2**20)
    history_messages: int = _setting(0, "how many messages a room remembers; 0: no history", 0, 10_000)
    history_s: float = _setting(300.0, "how long a room remembers a message", 0.01, MAX_S)
    max_history_bytes: int = _setting(2**20, "most bytes of messages that a room remembers", 1, 2**31)
    allowed_origins: tuple[str, ...] = _setting(
        (), "origins of pages that may connect, in addition to the server's own, such as https://host; * for all"
    )
    subprotocols: tuple[str, ...] = _setting((), "subprotocols that the server speaks, the preferred one first")
    accept_binary: bool = _setting(True, "accept binary messages (1003 if not)")
    compression: bool = _setting(False, "compress messages if the client supports it (permessage-deflate)")
    trusted_proxies: int = _setting(
        0, "number of proxies in front of the server whose X-Forwarded-For, -Proto and -Host are trusted", 0, 16
    )
    cpu_affinity: bool | None = _setting(
        None, "keep session threads on one core; default: on under wsthreads run and our gunicorn worker", kind=bool
    )
    serve_client: bool = _setting(False, "serve the browser client at /wsthreads.js, with its types")
    serve_health: bool | None = _setting(
        None, "serve /healthz and /readyz; default: on unless another WSGI application gets these paths", kind=bool
    )
    serve_metrics: bool = _setting(False, "serve metrics for Prometheus at /metrics (needs the extra prometheus)")
    metrics_token: str = _setting(
        "", f"bearer token that /metrics requires; safer in {METRICS_TOKEN_VARIABLE}", secret=True
    )
    dashboard_token: str = _setting(
        "",
        f"token of the dashboard; embedded apps serve it only with a token; safer in {DASHBOARD_TOKEN_VARIABLE}",
        MIN_DASHBOARD_TOKEN_CHARS,
        secret=True,
    )
    scripts_without_deadline: bool = _setting(False, "run scripts even where script_timeout_s cannot be enforced")

    def __post_init__(self) -> None:
        for setting in fields(self):
            object.__setattr__(self, setting.name, _validated(setting, getattr(self, setting.name)))
        for origin in self.allowed_origins:
            if origin != "*" and origin not in NAMELESS and parse_origin(origin) is None:
                raise ConfigError(
                    f"an origin must look like https://host or https://host:port, with the host in ASCII (Punycode), "
                    f"or be * for all origins, file:// for local files, or null; not {origin!r}"
                )
        if self.allow_net:
            _check_hosts(self.allow_net)


def _check_hosts(hosts: Iterable[str]) -> None:
    from wsthreads.hosts import parse_host  # imported here, because only an app whose scripts may fetch needs it

    for host in hosts:
        if parse_host(host) is None:
            raise ConfigError(
                "allow_net takes a host in ASCII (Punycode) such as api.example.com, with :port to allow that port "
                f"only, *.example.com for all hosts below it, or an address such as 127.0.0.1:8000; not {host!r}"
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
            raise ConfigError(f"{name} must be ASCII text without spaces")  # the value is a secret, so it is not shown
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
    if not low <= value <= high:  # this also refuses NaN
        top = f" and at most {high:.10g}" if high < math.inf else ""
        raise ConfigError(f"{name} must be at least {low}{top}, not {value!r}")
    return kind(value)


def dashboard_token_of(config: Config) -> str:
    """Returns the dashboard's token, from the settings or otherwise from the environment. Empty if neither has one.

    Raises `ConfigError` if the token in the environment is invalid.
    """
    token = config.dashboard_token or os.environ.get(DASHBOARD_TOKEN_VARIABLE, "")
    return replace(config, dashboard_token=token).dashboard_token
