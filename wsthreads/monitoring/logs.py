"""Sets up logging in wsthreads's own processes (command line, gunicorn's workers), and adds context to log records.

An embedded `WebSocketApp` leaves the set-up to the application. It calls only `log_to_gunicorn`, because gunicorn has
set up that process. `log_context` adds the attributes `session`, `endpoint` and `address` to every record about a
session or a handshake. `AddContext` does the same for records of a Python handler. `printable` and `block` make a
client's text safe for a log.
"""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar, Token
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
    on_one_line,
    plain,
    quoted,
    takes_colours,
    with_context,
)

__all__ = [
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
    "log_to_gunicorn",
    "printable",
    "quoted",
]

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

#: The environment variable that names one of `FORMATS`.
FORMAT_VARIABLE = "WSTHREADS_LOG_FORMAT"


def printable(text: str) -> str:
    """A client's text on one line. Quoted and escaped if it has unprintable characters."""
    return text if text.isprintable() else repr(text)


# The context of records.


#: The key of the session's id in the WSGI environ, set at the handshake. Formats of access logs can use it, too.
SESSION_KEY = "wsthreads.session"


def log_context(environ: dict[str, Any], *, error: BaseException | None = None) -> dict[str, Any]:
    """The `extra` of a record about a session or a handshake: `endpoint`, `address`, and `session` once it exists.

    A Python handler's `error` adds `file` and `line`: the innermost place in the handler's own file.
    """
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
    """`file` and `line`. The first frames are wsthreads's own, the next one is the handler's."""
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
    """The `extra` of an access log's record."""
    status = int(status) if str(status).isdigit() else str(status)
    return {"address": address, "method": method, "path": hide_secrets(path), "status": status}


_context: ContextVar[dict[str, Any] | None] = ContextVar("wsthreads.log_context", default=None)


class in_context:
    """A context manager for a session's thread: inside, `AddContext` adds the session's context to log records."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: dict[str, Any]) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token: Token[dict[str, Any] | None] = _context.set(self._context)

    def __exit__(self, *_: object) -> None:
        _context.reset(self._token)


class AddContext(logging.Filter):
    """A filter for handlers of `logging`. Adds `session`, `endpoint` and `address` to records of a session's thread.

    It works for every logger. Records of wsthreads itself have these attributes without the filter.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        context = _context.get()
        is_complete = record.name.startswith("wsthreads.") and hasattr(record, "address")
        if context is not None and not is_complete:
            record.__dict__.update({**context, **record.__dict__})
        return True


# Set-up.


def log_to(stream: IO[str], level: str, *, quiet_below: str, form: str = "text") -> None:
    """Log to `stream` from `level` upward.

    `form` is one of `FORMATS`. In JSON, Python's warnings are logged, too. `takes_colours` decides whether text has
    colours. A program calls this once; a library never does.
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
        access_handler.addFilter(lambda record: quiet.search(plain(record.getMessage())) is None)
    access = logging.getLogger("werkzeug")
    access.propagate = False
    access.setLevel(level.upper())
    access.addHandler(access_handler)


class _ToGunicorn(logging.Handler):
    """Hands records to the handlers of gunicorn's error log, whose format does not name the logger.

    `levels` are the levels that `log_to_gunicorn` gave the loggers.
    """

    def __init__(self, levels: dict[logging.Logger, int]) -> None:
        super().__init__()
        self.levels = levels
        self.addFilter(AddContext())

    def emit(self, record: logging.LogRecord) -> None:
        if _writers(logging.getLogger()):
            return  # the application has configured logging meanwhile, and that gets the record
        named = logging.makeLogRecord(record.__dict__)
        named.msg, named.args = f"{record.name}: {with_context(record)}", ()
        if named.exc_info and not named.exc_text:
            named.exc_text = TextFormatter().formatException(named.exc_info)
        for handler in logging.getLogger("gunicorn.error").handlers:
            if record.levelno >= handler.level:
                handler.handle(record if isinstance(handler.formatter, JSONFormatter) else named)


def _hide_secrets_of(record: logging.LogRecord) -> bool:
    """A filter for gunicorn's access log."""
    record.msg, record.args = on_one_line(hide_secrets(record.getMessage())), ()
    return True


def _hide_secrets_of_error(record: logging.LogRecord) -> bool:
    """A filter for gunicorn's error log. Hides what gunicorn quotes of a malformed request, except its method."""
    message = record.getMessage()
    if message.startswith("Invalid request") and "HTTP method" not in message:
        message, quote, _ = message.partition("'")
        message += quote and "***'"
    record.msg, record.args = hide_secrets(message), ()
    return True


def _writers(logger: logging.Logger) -> list[logging.Handler]:
    """The logger's handlers that write a log. That of the dashboard does not, and says so."""
    return [handler for handler in logger.handlers if not getattr(handler, "is_observer", False)]


def log_to_gunicorn() -> None:
    """Under gunicorn, send wsthreads's log to gunicorn's error log, unless the application has configured logging.

    Scripts, and lines about slow clients, kicks and bans, are logged at gunicorn's level. Other lines of wsthreads are
    logged from the level warning, or all of them if gunicorn's level is debug. Also hides secrets in URLs in gunicorn's
    logs. A later call undoes the set-up if the application has configured logging meanwhile. Does nothing outside
    gunicorn.
    """
    error_log, ours, scripts = map(logging.getLogger, ("gunicorn.error", "wsthreads", "wsthreads.script"))
    slow, kicks = map(logging.getLogger, ("wsthreads.sessions.life.slow", "wsthreads.rooms.directory.kicks"))
    if error_log.handlers:
        logging.getLogger("gunicorn.access").addFilter(_hide_secrets_of)  # adding it again has no effect
        error_log.addFilter(_hide_secrets_of_error)
    handler = next((handler for handler in ours.handlers if isinstance(handler, _ToGunicorn)), None)
    others = {*_writers(logging.getLogger()), *_writers(ours), *_writers(scripts)} - {handler}
    if handler is None and error_log.handlers and not (others or ours.level or scripts.level):
        level = error_log.level
        level_of_ours = level if level <= logging.DEBUG else max(level, logging.WARNING)
        handler = _ToGunicorn({ours: level_of_ours, scripts: level, slow: level, kicks: level})
        ours.addHandler(handler)
        for logger, level in handler.levels.items():
            logger.setLevel(level)
    elif handler is not None and others:
        ours.removeHandler(handler)
        for logger, level in handler.levels.items():
            if logger.level == level:
                logger.setLevel(logging.NOTSET)
