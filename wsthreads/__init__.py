"""A multi-threaded WebSocket server with rooms, for handlers in JavaScript or Python.

The public API is what `__all__` names; the rest may change.
"""

from wsthreads.app import WebSocketApp
from wsthreads.config import Config
from wsthreads.errors import (
    BackendError,
    CloseCode,
    CloseCodeError,
    ConfigError,
    HandlerError,
    HandshakeRefused,
    MessageTypeError,
    RoomLimitError,
    RoomNameError,
    ScriptError,
    UsageError,
    WSThreadsError,
)
from wsthreads.handshake import Request
from wsthreads.rooms import Room, SessionRoom
from wsthreads.session import Session
from wsthreads.targets import create_app

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "CloseCode",
    "CloseCodeError",
    "Config",
    "ConfigError",
    "HandlerError",
    "HandshakeRefused",
    "MessageTypeError",
    "Request",
    "Room",
    "RoomLimitError",
    "RoomNameError",
    "ScriptError",
    "Session",
    "SessionRoom",
    "UsageError",
    "WSThreadsError",
    "WebSocketApp",
    "__version__",
    "create_app",
]
