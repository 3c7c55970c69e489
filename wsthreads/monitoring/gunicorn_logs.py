"""Writes the lines of wsthreads to gunicorn's logs, and hides secrets in URLs there.

The application uses the same loggers. So nothing here raises. And every record keeps the type and the shape of its
`args`, because formatters and filters for access logs read ``record.args["U"]``.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from copy import copy
from typing import Any

from wsthreads.monitoring.formats import JSONFormatter, TextFormatter, hide_secrets, on_one_line, with_context
from wsthreads.monitoring.logs import AddContext

__all__ = ["log_to_gunicorn"]


class _ToGunicorn(logging.Handler):
    """Passes records to the handlers of gunicorn's error log. Adds the logger's name, which their format does not show.

    `levels` are the levels that `log_to_gunicorn` has set on the loggers.
    """

    def __init__(self, levels: dict[logging.Logger, int]) -> None:
        super().__init__()
        self.levels = levels
        self.addFilter(AddContext())

    def emit(self, record: logging.LogRecord) -> None:
        if _writers(logging.getLogger()):
            return  # the application has configured logging meanwhile, so its handlers get the record
        try:
            named = logging.makeLogRecord(record.__dict__)
            named.msg, named.args = f"{record.name}: {with_context(record)}", ()
            if named.exc_info and not named.exc_text:
                named.exc_text = TextFormatter().formatException(named.exc_info)
        except Exception:  # a malformed record of the application: all handlers of logging do the same
            self.handleError(record)
            return
        for handler in logging.getLogger("gunicorn.error").handlers:
            if record.levelno >= handler.level:
                handler.handle(record if isinstance(handler.formatter, JSONFormatter) else named)


def _hide_in_access_log(record: logging.LogRecord) -> bool:
    """A filter for gunicorn's access log: hides secrets, and escapes characters that could forge a line."""
    with suppress(Exception):  # raised by the application's own mapping
        args: Any = record.args
        if isinstance(args, dict):
            hidden = {
                name: shown
                for name, value in args.items()
                if isinstance(value, str) and (shown := _on_one_line(_hide(value))) != value
            }
            if hidden:
                record.args = copy(args)
                record.args.update(hidden)
        elif args:
            record.args = tuple(_on_one_line(_hide(value)) if isinstance(value, str) else value for value in args)
        elif isinstance(record.msg, str):
            record.msg = _on_one_line(_hide(record.msg))
    return True


def _hide_in_error_log(record: logging.LogRecord) -> bool:
    """A filter for gunicorn's error log: hides secrets.

    Of a malformed request, it hides the parts that gunicorn quotes, except the method.
    """
    with suppress(Exception):  # raised by a value's `__str__`
        if isinstance(record.args, tuple) and record.args:
            record.args = tuple(map(_hide_in_value, record.args))
        elif not record.args:
            message = str(record.msg)
            shown = message
            if message.startswith("Invalid request") and "HTTP method" not in message:
                shown, quote, _ = message.partition("'")
                shown += quote and "'***'"
            shown = _hide(shown)
            if shown != message:
                record.msg = shown
    return True


def _hide_in_value(value: object) -> object:
    if not isinstance(value, (str, BaseException)):
        return value
    text = str(value)
    shown = _hide(text)
    return value if shown == text else shown


def _hide(text: str) -> str:
    """Like `hide_secrets`, but fast for the many values of an access line that contain no secret."""
    return hide_secrets(text) if "=" in text or "@" in text else text


def _on_one_line(text: str) -> str:
    return text if text.isprintable() else on_one_line(text)


def _writers(logger: logging.Logger) -> list[logging.Handler]:
    """The logger's handlers that write a log. An attribute marks the dashboard's handler, which writes none."""
    return [handler for handler in logger.handlers if not getattr(handler, "is_observer", False)]


def log_to_gunicorn() -> None:
    """Under gunicorn, send wsthreads's log to gunicorn's error log, unless the application has configured logging.

    Scripts, and lines about slow clients, kicks and bans, are logged at gunicorn's level. Other lines of wsthreads are
    logged from the level warning, or all of them if gunicorn's level is debug. Also hides secrets in URLs in gunicorn's
    logs. If the application configures logging later, the next call removes the handler and resets the levels. Does
    nothing outside gunicorn.
    """
    error_log, ours, scripts = map(logging.getLogger, ("gunicorn.error", "wsthreads", "wsthreads.script"))
    slow, kicks = map(logging.getLogger, ("wsthreads.sessions.life.slow", "wsthreads.rooms.directory.kicks"))
    if "gunicorn.glogging" in sys.modules:
        logging.getLogger("gunicorn.access").addFilter(_hide_in_access_log)  # adding it again has no effect
        error_log.addFilter(_hide_in_error_log)
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
