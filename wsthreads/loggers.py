"""The loggers of wsthreads, which never raise an exception, even if an application's logging handler does.

If a filter, a handler, a record factory or a logger class raises an exception, `logging` passes it on to the code that
logs. In wsthreads, this would end a session's connection, or a thread that all sessions need.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import current_thread, main_thread
from typing import Any

__all__ = ["ContainedLogger", "get_logger"]


def get_logger(name: str) -> ContainedLogger:
    """Like `logging.getLogger`, but catches the exceptions of an application's filters, handlers and factories."""
    return ContainedLogger(logging.getLogger(name))


class ContainedLogger:
    """Logs with a logger of `logging`, without changing that logger. Any thread.

    The options `exc_info` and `extra` are those of `logging`. If a log record already has an attribute, for example
    from the application's record factory, `extra` does not replace this attribute.
    """

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def is_enabled_for(self, level: int) -> bool:
        """Whether a record of this level is logged. Returns False if the logger raises an exception."""
        try:
            return self._logger.isEnabledFor(level)
        except BaseException as error:
            _raise_interrupt(error)
            return False

    def debug(self, message: str, *values: object, **options: Any) -> None:
        """Log at the level debug."""
        self._log(logging.DEBUG, message, values, **options)

    def info(self, message: str, *values: object, **options: Any) -> None:
        """Log at the level info."""
        self._log(logging.INFO, message, values, **options)

    def warning(self, message: str, *values: object, **options: Any) -> None:
        """Log at the level warning."""
        self._log(logging.WARNING, message, values, **options)

    def error(self, message: str, *values: object, **options: Any) -> None:
        """Log at the level error."""
        self._log(logging.ERROR, message, values, **options)

    def critical(self, message: str, *values: object, **options: Any) -> None:
        """Log at the level critical."""
        self._log(logging.CRITICAL, message, values, **options)

    def exception(self, message: str, *values: object, **options: Any) -> None:
        """Log at the level error, with the exception that is being handled."""
        self._log(logging.ERROR, message, values, exc_info=True, **options)

    def log(self, level: int, message: str, *values: object, **options: Any) -> None:
        """Log at `level`."""
        self._log(level, message, values, **options)

    def _log(
        self, level: int, message: str, values: tuple[object, ...], *, exc_info: Any = None, extra: Any = None
    ) -> None:
        if not self.is_enabled_for(level):
            return
        if isinstance(exc_info, BaseException):
            exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
        elif exc_info is True:
            exc_info = sys.exc_info()
        frame = sys._getframe(2)  # the frame of the code that has called `info` or a similar method
        file, line, function = frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
        logger = self._logger
        try:
            message, values, exc_info, extra = self._prepared(message, values, exc_info, extra)
            make = partial(logger.makeRecord, logger.name, level, file, line, message, values, exc_info, func=function)
            logger.handle(_with_extra(make, extra))
        except BaseException as error:
            _raise_interrupt(error)
            if logging.raiseExceptions:
                _complain(logger, level, message, values, type(error).__name__)

    def _prepared(
        self, message: str, values: tuple[object, ...], exc_info: Any, extra: dict[str, Any] | None
    ) -> tuple[str, tuple[object, ...], Any, dict[str, Any] | None]:
        """Returns the arguments for a log record. A subclass may change them."""
        return message, values, exc_info, extra


def _with_extra(make: Callable[..., logging.LogRecord], extra: dict[str, Any] | None) -> logging.LogRecord:
    try:
        return make(extra=extra)
    except KeyError:  # the record already has an attribute that is in `extra`
        if not extra:
            raise
        record = make()
        record.__dict__.update({**extra, **record.__dict__})
        return record


def _raise_interrupt(error: BaseException) -> None:
    """Raise a KeyboardInterrupt (Ctrl-C) again, because it is not an error of logging."""
    if type(error) is KeyboardInterrupt and current_thread() is main_thread():
        raise error


def _complain(logger: logging.Logger, level: int, message: str, values: tuple[object, ...], kind: str) -> None:
    with suppress(BaseException):  # stderr is the last possibility; if it fails, too, nothing can be done
        text = message % values if values else message
        sys.stderr.write(f"{logging.getLevelName(level)} {logger.name}: {text!r} (logging it raised {kind})\n")
