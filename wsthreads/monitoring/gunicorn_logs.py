"""Writes the lines of wsthreads to gunicorn's logs, and hides secrets in URLs there.

The application uses the same loggers. So the code here raises no exception. And the `args` of every log record keep
their type and shape, because formatters and filters for access logs read ``record.args["U"]``.
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
    """Passes log records to the handlers of gunicorn's error log.

    Adds the name of the logger, which their format lacks.

    `levels` has the level of each logger whose level `log_to_gunicorn` has set.
    """

    def __init__(self, levels: dict[logging.Logger, int]) -> None:
        super().__init__()
        self.levels = levels
        self.addFilter(AddContext())

    def emit(self, record: logging.LogRecord) -> None:
        if _writers(logging.getLogger()):
            return  # the application has configured logging in the meantime, so its handlers get the record
        try:
            named = logging.makeLogRecord(record.__dict__)
            named.msg, named.args = f"{record.name}: {with_context(record)}", ()
            if named.exc_info and not named.exc_text:
                named.exc_text = TextFormatter().formatException(named.exc_info)
        except Exception:  # a malformed record of the application: all handlers of logging call handleError
            self.handleError(record)
            return
        for handler in logging.getLogger("gunicorn.error").handlers:
            if record.levelno >= handler.level:
                handler.handle(record if isinstance(handler.formatter, JSONFormatter) else named)


def _hide_in_access_log(record: logging.LogRecord) -> bool:
    """A filter for gunicorn's access log, which hides secrets, and escapes characters that could begin a false line."""
    with suppress(Exception):  # raised by a mapping of the application's own
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
    """A filter for gunicorn's error log, which hides secrets.

    In a line about a malformed request, it hides what gunicorn quotes from the request, except the method.
    """
    with suppress(Exception):  # raised by the `__str__` of a value
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
    """Like `hide_secrets`, but fast, because an access line has many values without secrets."""
    return hide_secrets(text) if "=" in text or "@" in text else text


def _on_one_line(text: str) -> str:
    return text if text.isprintable() else on_one_line(text)


def _writers(logger: logging.Logger) -> list[logging.Handler]:
    """Returns the handlers of a logger that write a log. The dashboard's handler, which has a mark, writes none."""
    return [handler for handler in logger.handlers if not getattr(handler, "is_observer", False)]


def log_to_gunicorn() -> None:
    """Under gunicorn, send the log of wsthreads to gunicorn's error log, unless the application has configured logging.

    Log lines of scripts, and lines about slow clients, kicks and bans, are logged from gunicorn's level upward. Other
    lines of wsthreads are logged from the level warning upward, or all of them if gunicorn's level is debug. Secrets in
    URLs are hidden in gunicorn's logs. If the application configures logging later, the next call removes the handler
    and restores the levels. Does nothing outside gunicorn.
    """
    error_log, ours, scripts = map(logging.getLogger, ("gunicorn.error", "wsthreads", "wsthreads.script"))
    slow, kicks = map(logging.getLogger, ("wsthreads.sessions.life.slow", "wsthreads.rooms.directory.kicks"))
    if "gunicorn.glogging" in sys.modules:
        # if this filter was added before, this has no effect
        logging.getLogger("gunicorn.access").addFilter(_hide_in_access_log)
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
