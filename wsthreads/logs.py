"""Where the log goes, and what it looks like, in processes that are our own: the command, and gunicorn's workers.

A library leaves that to its application, so nothing of that is called by `WebSocketApp`. And, for logs anywhere:
`printable` and `block`, without which what a client sends could forge lines, or steer the terminal that shows them.
"""

from __future__ import annotations

import logging
import re
from textwrap import indent
from typing import IO, Any

__all__ = ["LEVELS", "block", "log_to", "log_to_gunicorn", "printable"]

LEVELS = ("debug", "info", "warning", "error")

#: What steers a terminal, escaped; tabs and line ends are not among it.
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}


def printable(text: str) -> str:
    """A text of a peer's, on one line, in quotes and with escapes where it has what cannot be printed."""
    return text if text.isprintable() else repr(text)


def block(text: str) -> str:
    """A text that may have several lines; only the first begins at the left. Control characters are escaped."""
    return re.sub(r"\n(?![ \t])", "\n  ", text.translate(_ESCAPED))


class _Formatter(logging.Formatter):
    """Indents tracebacks, whose last lines are an exception's text, and escapes what steers terminals."""

    def formatException(self, ei: Any) -> str:
        return indent(super().formatException(ei).translate(_ESCAPED), "  ")

    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).translate(_ESCAPED)


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
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
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
        named.msg, named.args = f"{record.name}: {record.getMessage()}".translate(_ESCAPED), ()
        if named.exc_info and not named.exc_text:
            named.exc_text = _Formatter().formatException(named.exc_info)
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
