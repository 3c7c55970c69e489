"""A multi-threaded WebSocket server with rooms, for handlers in JavaScript or Python.

`__all__` lists the public API. Everything else may change. A name is imported when it is used first. So commands such
as ``wsthreads --help`` start fast, because they do not import the server.

The packages and modules, from the bottom up. Each imports only packages and modules above it in this list:

- `_native`: the optional C modules.
- `errors`, `loggers`, `hosts`, `origins`, `config`: all errors, log output, host names, web origins, all settings.
- `threads`: background threads, and the scheduling of the threads of sessions.
- `monitoring`: logs, metrics, Prometheus and health checks.
- `protocol`: from bytes to messages and back, on one connection.
- `rooms`: members, users, presence and broadcasts in one process.
- `sessions`: the life of a session, from the handshake to its end, and the calls of its handler.
- `brokers`: rooms and sessions over several processes, by Redis.
- `javascript`: handlers in JavaScript, in QuickJS.
- `servers`: the HTTP server of ``wsthreads run``.
- `client`: the clients in Python and for browsers.
- `dashboard`: the page about the running server.
- `app`: `WebSocketApp`, which joins all parts above.
- `gunicorn`, `django`: the integrations.
- `cli`: the command ``wsthreads``. `__main__` runs it as ``python -m wsthreads``.
- `testing`, `logs`, `prometheus`: public modules for applications and their tests.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsthreads.app import WebSocketApp
    from wsthreads.brokers.redis import RedisBroker as RedisBroker
    from wsthreads.cli.targets import create_app
    from wsthreads.client.client import Client
    from wsthreads.config import Config
    from wsthreads.errors import (
        BackendError,
        BrokerError,
        CloseCode,
        CloseCodeError,
        ConfigError,
        ExpiryError,
        HandlerError,
        HandshakeRefused,
        HistoryError,
        IsolateError,
        MessageTypeError,
        PostError,
        PresenceError,
        RequestError,
        RequestTimeout,
        RoomLimitError,
        RoomNameError,
        RoomStateError,
        ScriptError,
        SessionClosed,
        SessionMoved,
        UsageError,
        UserError,
        WSThreadsError,
    )
    from wsthreads.protocol.handshake import Request
    from wsthreads.rooms.directory import UserSession
    from wsthreads.rooms.handles import Peer, Room, SessionRoom, User
    from wsthreads.rooms.joined import Joined
    from wsthreads.rooms.owned_room import OwnedRoom
    from wsthreads.rooms.posts import Sender
    from wsthreads.rooms.presence import Person, PresenceChanges
    from wsthreads.sessions.endpoint import Endpoint
    from wsthreads.sessions.handshake_results import Refusal
    from wsthreads.sessions.session import Session
    from wsthreads.threads.affinity import use_all_cores

__version__ = "0.2.0.dev0"

__all__ = [
    "BackendError",
    "BrokerError",
    "Client",
    "CloseCode",
    "CloseCodeError",
    "Config",
    "ConfigError",
    "Endpoint",
    "ExpiryError",
    "HandlerError",
    "HandshakeRefused",
    "HistoryError",
    "IsolateError",
    "Joined",
    "MessageTypeError",
    "OwnedRoom",
    "Peer",
    "Person",
    "PostError",
    "PresenceChanges",
    "PresenceError",
    "Refusal",
    "Request",
    "RequestError",
    "RequestTimeout",
    "Room",
    "RoomLimitError",
    "RoomNameError",
    "RoomStateError",
    "ScriptError",
    "Sender",
    "Session",
    "SessionClosed",
    "SessionMoved",
    "SessionRoom",
    "UsageError",
    "User",
    "UserError",
    "UserSession",
    "WSThreadsError",
    "WebSocketApp",
    "__version__",
    "create_app",
    "use_all_cores",
]

_HOMES = {
    "Client": "client.client",
    "Config": "config",
    "Endpoint": "sessions.endpoint",
    "Joined": "rooms.joined",
    "OwnedRoom": "rooms.owned_room",
    "Peer": "rooms.handles",
    "Person": "rooms.presence",
    "PresenceChanges": "rooms.presence",
    "RedisBroker": "brokers.redis",
    "Refusal": "sessions.handshake_results",
    "Request": "protocol.handshake",
    "Room": "rooms.handles",
    "Sender": "rooms.posts",
    "Session": "sessions.session",
    "SessionRoom": "rooms.handles",
    "User": "rooms.handles",
    "UserSession": "rooms.directory",
    "WebSocketApp": "app",
    "create_app": "cli.targets",
    "use_all_cores": "threads.affinity",
}


def __getattr__(name: str) -> Any:
    # RedisBroker is not in __all__, because a star import would then need redis-py
    if name not in __all__ and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
