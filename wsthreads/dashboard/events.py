"""Keeps recent events: errors and log output of handlers, warnings, reloads, kicks and bans.

The events come from log records and their attributes (`session`, `endpoint`, `file`, `line`, `column`, `stack`: see
`wsthreads.monitoring.logs`). So the levels of the loggers decide which events there are.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from heapq import merge
from operator import itemgetter
from typing import Any

from wsthreads.monitoring.failures import summary_of
from wsthreads.monitoring.formats import stack_of
from wsthreads.monitoring.logs import AddContext
from wsthreads.protocol.rate_limit import RateLimit
from wsthreads.rooms.directory import KICKS_LOGGER

__all__ = ["KEPT", "Events"]

#: How many events are kept. Half of this number is reserved for errors, warnings and reloads, so that many other events
#: cannot remove these.
KEPT = 200

#: In each half, at most this many events per second are kept, averaged over ten seconds. More would cost too much.
MAX_PER_S = 20

MAX_TEXT_CHARS = 4_000
MAX_DETAIL_CHARS = 16_000

#: At most this many characters of events are in one message to the page. Clients can cause long error texts, and the
#: message must fit into an outbox.
TOLD_CHARS = 200_000

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"), (0, "debug"))


def _nobody() -> None:
    """The default of `Events.on_event`: does nothing."""


class Events(logging.Handler):
    """Keeps the last events as plain data. Any thread. Guarded by the lock that each logging handler has.

    Each event has a number `n`. Events that were not kept have numbers, too. Events of the endpoint `but` are ignored.
    """

    #: For `wsthreads.monitoring.logs`: this handler writes no log.
    is_observer = True

    def __init__(self, but: str) -> None:
        super().__init__()
        #: Called for each event, in the thread that logs. It must not block or log.
        self.on_event: Callable[[], None] = _nobody
        self._but = but
        self.addFilter(AddContext())
        self._logger: logging.Logger | None = None
        self._n = 0
        self._severe: deque[dict[str, Any]] = deque(maxlen=KEPT // 2)
        self._others: deque[dict[str, Any]] = deque(maxlen=KEPT // 2)
        self._severe_allowance, self._allowance = RateLimit(MAX_PER_S), RateLimit(MAX_PER_S)

    def attach(self, logger: logging.Logger) -> None:
        """Begin to read what `logger` and its child loggers log."""
        self._logger = logger
        logger.addHandler(self)

    def attach_again(self) -> None:
        """Add this handler again, if the application has removed it by configuring logging.

        Does nothing after `detach`.

        `logging.config` calls the method `close` of every handler. So `close` does nothing in this class.
        """
        logger = self._logger
        if logger is not None and self not in logger.handlers:
            logger.addHandler(self)

    def detach(self) -> None:
        """Stop reading the log. Events that were kept stay. Idempotent."""
        logger, self._logger = self._logger, None
        if logger is not None:
            logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging for each record, with the lock held."""
        try:
            kind = self._kind_of(record)
            if kind is not None:
                self._n += 1
                severe = record.levelno >= logging.WARNING or kind == "reload"
                if (self._severe_allowance if severe else self._allowance).take():
                    (self._severe if severe else self._others).append(_described(self._n, kind, record))
                self.on_event()
        except BaseException:  # raised by a value in the record, which may be of any class
            with suppress(BaseException):
                self.handleError(record)
        last_resort = logging.lastResort
        if last_resort is not None and record.levelno >= last_resort.level and self._is_alone(record):
            last_resort.handle(record)

    @property
    def newest(self) -> int:
        """The number of the last event. 0 before the first event."""
        return self._n

    def since(self, n: int) -> tuple[list[dict[str, Any]], int, int]:
        """Returns the kept events after number `n`, the number of the last one, and how many were not kept.

        If the events have more than `TOLD_CHARS` characters, returns only the first of them, and the number of the last
        one that is returned.
        """
        self.acquire()
        try:
            newest, severe, others = self._n, list(self._severe), list(self._others)
        finally:
            self.release()
        events: list[dict[str, Any]] = []
        chars = 0
        for event in merge(severe, others, key=itemgetter("n")):
            if event["n"] > n:
                chars += len(event["text"]) + len(event["detail"] or "")
                if chars > TOLD_CHARS and events:
                    newest = events[-1]["n"]
                    break
                events.append(event)
        return events, newest, newest - n - len(events)

    def _kind_of(self, record: logging.LogRecord) -> str | None:
        """Returns the kind of an event. None for a record that is not an event, such as a routine line of wsthreads."""
        if getattr(record, "endpoint", None) == self._but:
            return None
        if record.exc_info:
            return "error"
        name = record.name
        if not name.startswith("wsthreads."):
            return "log"
        if name.startswith("wsthreads.script."):
            return "error" if hasattr(record, "stack") else "console"
        if getattr(record, "kind", None) == "reload":
            return "reload"
        if name == KICKS_LOGGER:
            return "kick"
        return "log" if record.levelno >= logging.WARNING else None

    def _is_alone(self, record: logging.LogRecord) -> bool:
        """Whether no other handler gets the record. Without this handler, logging would print such a record itself."""
        handlers = list(_handlers_of(record.name))
        return handlers[:1] == [self] and all(isinstance(handler, Events) for handler in handlers)


def _handlers_of(name: str) -> Iterable[logging.Handler]:
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _described(n: int, kind: str, record: logging.LogRecord) -> dict[str, Any]:
    """Returns an event for the page, made from a log record."""
    place = record.__dict__
    if not record.name.startswith("wsthreads."):  # in other records, the application decides what the attributes mean
        place = {"file": record.pathname, "line": record.lineno}
    text, detail = record.getMessage(), place.get("stack")
    if detail:
        text = text.removesuffix("\n" + detail)
    elif record.exc_info and record.exc_info[1] is not None:
        text = f"{text}: {summary_of(record.exc_info[1])}"
        detail = stack_of(record.exc_info)
    return {
        "n": n,
        "at": record.created,
        "kind": kind,
        "level": next(name for least, name in _LEVELS if record.levelno >= least),
        "endpoint": _plain(record.__dict__.get("endpoint")),
        "session": _plain(record.__dict__.get("session")),
        "text": text[:MAX_TEXT_CHARS],
        "detail": detail[-MAX_DETAIL_CHARS:] if detail else None,
        "file": _plain(place.get("file")),
        "line": _plain(place.get("line"), int),
        "column": _plain(place.get("column"), int),
    }


def _plain(value: Any, kind: type = str) -> Any:
    """Returns the value of a record's attribute if it has the type `kind`, otherwise None.

    An application or a library may set an attribute with the same name and another type.
    """
    return value if type(value) is kind else None
