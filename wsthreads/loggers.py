"""The loggers of wsthreads. They contain exceptions that the application's logging filters and handlers raise.

By default, `logging` passes such an exception on to the caller. Here that would end a session's connection, or a thread
that all sessions need.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import current_thread, main_thread
from typing import Any

__all__ = ["get_logger", "log_contained"]


def get_logger(name: str) -> logging.Logger:
    """Like `logging.getLogger`, but the logger contains exceptions of filters and handlers."""
    logger = logging.getLogger(name)
    if "handle" not in vars(logger):
        logger.handle = partial(_handle, logger.handle)  # type: ignore[method-assign]
    return logger


def log_contained(
    logger: logging.Logger, level: int, message: str, *values: object, extra: dict[str, Any] | None = None
) -> None:
    """Like `logger.log`, but contains exceptions. For lines that wsthreads writes to another library's log."""
    if logger.isEnabledFor(level):
        record = logger.makeRecord(logger.name, level, __file__, 0, message, values, None, extra=extra)
        _handle(logger.handle, record)


def _handle(handle: Callable[[logging.LogRecord], None], record: logging.LogRecord) -> None:
    try:
        handle(record)
    except BaseException as error:
        if type(error) is KeyboardInterrupt and current_thread() is main_thread():  # the user pressed Ctrl-C
            raise
        if logging.raiseExceptions:
            _complain(record, type(error).__name__)


def _complain(record: logging.LogRecord, kind: str) -> None:
    with suppress(BaseException):  # stderr is the last resort; if it fails, too, nothing can be done
        sys.stderr.write(f"{record.levelname} {record.name}: {record.getMessage()!r} (logging it raised {kind})\n")
