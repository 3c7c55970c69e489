"""Where the log goes, and what it looks like, in processes that are our own: the command, and gunicorn's workers.

A library leaves that to its application, so nothing here is called by `WebSocketApp`.
"""

from __future__ import annotations

import logging
import re
from typing import IO

__all__ = ["LEVELS", "log_to", "log_to_gunicorn"]

LEVELS = ("debug", "info", "warning", "error")


class _AccessFormatter(logging.Formatter):
    """Werkzeug's lines have their own time, and colours, which are for terminals only."""

    def __init__(self, colours: bool) -> None:
        super().__init__("%(message)s")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record).rstrip("\n")
        return line if self._colours else re.sub(r"\x1b\[[0-9;]*m", "", line)


def log_to(stream: IO[str], level: str, *, polled_path: str) -> None:
    """Log to `stream` whatever is of `level` or above it; requests for `polled_path` only at the level debug.

    Called once, by the program, not by a library.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(level.upper())
    access_handler = logging.StreamHandler(stream)
    access_handler.setFormatter(_AccessFormatter(stream.isatty()))
    if level != "debug":
        access_handler.addFilter(lambda record: f"GET {polled_path} " not in record.getMessage())
    access = logging.getLogger("werkzeug")
    access.propagate = False
    access.setLevel(level.upper())
    access.addHandler(access_handler)


class _ToGunicorn(logging.Handler):
    """Hands records to the handlers of gunicorn's error log, whose format does not name the logger.

    `levels` are those that the loggers were given along with it.
    """

    def __init__(self, levels: dict[logging.Logger, int]) -> None:
        super().__init__()
        self.levels = levels

    def emit(self, record: logging.LogRecord) -> None:
        if logging.getLogger().handlers:
            return  # logging has been configured meanwhile, and the record goes there
        named = logging.makeLogRecord(record.__dict__)
        named.msg, named.args = f"{record.name}: {record.getMessage()}", ()
        for handler in logging.getLogger("gunicorn.error").handlers:
            if named.levelno >= handler.level:
                handler.handle(named)


def log_to_gunicorn() -> None:
    """Under gunicorn, have our log be part of its error log, unless logging has been configured.

    Scripts log by gunicorn's level, wsthreads itself from the level warning up, or all if gunicorn's is debug.
    Called again, it takes that back where logging has been configured meanwhile. Does nothing elsewhere.
    """
    error_log, ours, scripts = map(logging.getLogger, ("gunicorn.error", "wsthreads", "wsthreads.script"))
    handler = next((handler for handler in ours.handlers if isinstance(handler, _ToGunicorn)), None)
    others = {*logging.getLogger().handlers, *ours.handlers, *scripts.handlers} - {handler}
    if handler is None and error_log.handlers and not (others or ours.level or scripts.level):
        level = error_log.level
        handler = _ToGunicorn({ours: level if level <= logging.DEBUG else max(level, logging.WARNING), scripts: level})
        ours.addHandler(handler)
        for logger, level in handler.levels.items():
            logger.setLevel(level)
    elif handler is not None and others:
        ours.removeHandler(handler)
        for logger, level in handler.levels.items():
            if logger.level == level:
                logger.setLevel(logging.NOTSET)
