"""The loggers of wsthreads: what a filter or a handler of the application's raises does not get out of them.

Logging lets it through to whoever logs. Here that would be the thread of a session, whose client it would cost, or one
that all rely on.
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
    """`logging.getLogger`, for a logger that is ours."""
    logger = logging.getLogger(name)
    if "handle" not in vars(logger):
        logger.handle = partial(_handle, logger.handle)  # type: ignore[method-assign]
    return logger


def log_contained(
    logger: logging.Logger, level: int, message: str, *values: object, extra: dict[str, Any] | None = None
) -> None:
    """`logger.log`, as if the logger were ours: for a line that we write to the log of another library."""
    if logger.isEnabledFor(level):
        record = logger.makeRecord(logger.name, level, __file__, 0, message, values, None, extra=extra)
        _handle(logger.handle, record)


def _handle(handle: Callable[[logging.LogRecord], None], record: logging.LogRecord) -> None:
    try:
        handle(record)
    except BaseException as error:
        if type(error) is KeyboardInterrupt and current_thread() is main_thread():  # somebody's Ctrl-C
            raise
        if logging.raiseExceptions:
            _complain(record, type(error).__name__)


def _complain(record: logging.LogRecord, kind: str) -> None:
    with suppress(BaseException):  # there is nowhere left to say it
        sys.stderr.write(f"{record.levelname} {record.name}: {record.getMessage()!r} (logging it raised {kind})\n")
