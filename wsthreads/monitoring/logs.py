"""Configures logging for the command line, and adds context to log records.

The *context* of a record says what the record is about: the attributes `session`, `endpoint` and `address`. If an
application uses a `WebSocketApp`, the application configures logging itself. Under gunicorn,
`wsthreads.monitoring.gunicorn_logs` does it. `log_context` makes the context for each record about a session or a
handshake. `AddContext` adds it to the records of a Python handler. `printable` and `block` make a client's text safe
for a log.
"""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar, Token
from functools import partial
from types import TracebackType
from typing import IO, Any

from wsthreads.monitoring.failures import traceback_of
from wsthreads.monitoring.formats import (
    AccessFormatter,
    JSONFormatter,
    TextFormatter,
    block,
    escaped,
    hide_secrets,
    is_secret,
    plain,
    quoted,
    takes_colours,
)

__all__ = [
    "ENDPOINT_KEY",
    "FORMATS",
    "FORMAT_VARIABLE",
    "LEVELS",
    "SESSION_KEY",
    "AddContext",
    "JSONFormatter",
    "TextFormatter",
    "access_context",
    "block",
    "escaped",
    "hide_secrets",
    "in_context",
    "is_secret",
    "log_context",
    "log_to",
    "printable",
    "quoted",
]

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

#: The environment variable with the format of log lines: one of `FORMATS`.
FORMAT_VARIABLE = "WSTHREADS_LOG_FORMAT"


def printable(text: str) -> str:
    """Returns a client's text on one line. It is quoted and escaped if it has unprintable characters."""
    return text if text.isprintable() else repr(text)


# The context of log records


#: The key in the WSGI environ for the session's id, set at the handshake. Formats of access logs can use it, too.
SESSION_KEY = "wsthreads.session"

#: The key in the WSGI environ for the endpoint's path, which may have parameters, such as ``/ws/rooms/<name>``.
ENDPOINT_KEY = "wsthreads.endpoint"


def log_context(environ: dict[str, Any], *, error: BaseException | None = None) -> dict[str, Any]:
    """Returns the `extra` for a log record about a session or a handshake.

    The context consists of `endpoint`, `address`, and of `session` if there is a session already.

    If `error` is an exception of a Python handler, its `file` and `line` are added: the innermost place in the
    handler's own file.
    """
    endpoint: str | None = environ.get(ENDPOINT_KEY)
    if endpoint is None:
        path: str = environ.get("PATH_INFO", "")
        endpoint = path.encode("latin-1", "replace").decode("utf-8", "replace")
    context = {"endpoint": endpoint, "address": environ.get("REMOTE_ADDR", "")}
    if SESSION_KEY in environ:
        context["session"] = environ[SESSION_KEY]
    traceback = None if error is None else traceback_of(error)
    if traceback is not None:
        context.update(_place_of(traceback))
    return context


def _place_of(traceback: TracebackType) -> dict[str, Any]:
    """Returns the `file` and `line` of the handler's frame, which is the first frame after those of wsthreads."""
    handlers: TracebackType | None = traceback
    while handlers is not None and str(handlers.tb_frame.f_globals.get("__name__")).startswith("wsthreads."):
        handlers = handlers.tb_next
    frame = handlers
    place: dict[str, Any] = {}
    while handlers is not None and frame is not None:
        file = frame.tb_frame.f_code.co_filename
        if file == handlers.tb_frame.f_code.co_filename:
            place = {"file": file, "line": frame.tb_lineno}
        frame = frame.tb_next
    return place


def access_context(address: str, method: str, path: str, status: int | str) -> dict[str, Any]:
    """Returns the `extra` for a record of an access log."""
    status = int(status) if str(status).isdigit() else str(status)
    return {"address": address, "method": method, "path": hide_secrets(path), "status": status}


_context: ContextVar[dict[str, Any] | None] = ContextVar("wsthreads.log_context", default=None)


class in_context:
    """A context manager for the thread of a session. Inside, `AddContext` adds the session's context to log records."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: dict[str, Any]) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token: Token[dict[str, Any] | None] = _context.set(self._context)

    def __exit__(self, *_: object) -> None:
        _context.reset(self._token)


class AddContext(logging.Filter):
    """A filter for handlers of `logging`, which adds the context of a session to the records of the session's thread.

    The context is `session`, `endpoint` and `address`. The filter works for every logger. The records of wsthreads
    itself have these attributes without the filter.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        context = _context.get()
        is_complete = record.name.startswith("wsthreads.") and hasattr(record, "address")
        if context is not None and not is_complete:
            record.__dict__.update({**context, **record.__dict__})
        return True


# Configuration


def log_to(stream: IO[str], level: str, *, quiet_below: str, form: str = "text") -> None:
    """Log to `stream` from `level` upward.

    `form` is one of `FORMATS`. In JSON, Python's warnings are logged, too. `takes_colours` decides whether text has
    colours. A program calls this once. A library must not call it.
    """
    colours = takes_colours(stream)
    handler, access_handler = logging.StreamHandler(stream), logging.StreamHandler(stream)
    handler.addFilter(AddContext())
    if form == "json":
        handler.setFormatter(JSONFormatter())
        access_handler.setFormatter(JSONFormatter())
        logging.captureWarnings(True)
    else:
        handler.setFormatter(TextFormatter(colours))
        access_handler.setFormatter(AccessFormatter(colours))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(level.upper())
    if level != "debug":
        quiet = re.compile(rf'"(GET|HEAD) {re.escape(quiet_below.removesuffix("/"))}[/? ].*" (101|2|3)')
        access_handler.addFilter(partial(_is_loud, quiet))
    access = logging.getLogger("werkzeug")
    access.propagate = False
    access.setLevel(level.upper())
    access.addHandler(access_handler)


def _is_loud(quiet: re.Pattern[str], record: logging.LogRecord) -> bool:
    try:
        return quiet.search(plain(record.getMessage())) is None
    except Exception:  # a malformed record of the application, about which the handler complains
        return True
