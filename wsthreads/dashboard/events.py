"""What happened lately: errors of handlers, what they write to the console or log, warnings, reloads.

Nothing reports here by itself: it is read from the log records that there are anyway, by their attributes (`session`,
`endpoint`, `file`, `line`, `column`, `stack`, see `wsthreads.monitoring.logs`), at the levels that the log has.
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
from wsthreads.protocol.allowance import Allowance

__all__ = ["KEPT", "Events"]

#: So many are kept: half of them are errors, warnings and reloads, so that no flood of others pushes those out.
KEPT = 200

#: So many a second of either half, on average over ten seconds, are kept at all; more would cost too much.
MAX_PER_S = 20

MAX_TEXT_CHARS = 4_000
MAX_DETAIL_CHARS = 16_000

#: So many characters are told at a time: clients have a hand in what errors say, and it has to fit into an outbox.
TOLD_CHARS = 200_000

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"), (0, "debug"))


def _nobody() -> None:
    """What is told of events where nobody wants to know."""


class Events(logging.Handler):
    """Keeps the last events, as plain data. Any thread; what it keeps is guarded by the handler's own lock.

    `n` of an event counts all of them, those included that were not kept. Those of the endpoint `but` are left out.
    """

    #: For `wsthreads.monitoring.logs`: it is no place that a log goes to.
    is_observer = True

    def __init__(self, but: str) -> None:
        super().__init__()
        #: Called without delay, in whatever thread logs, when there is an event. It must not block, nor log.
        self.on_event: Callable[[], None] = _nobody
        self._but = but
        self.addFilter(AddContext())
        self._logger: logging.Logger | None = None
        self._n = 0
        self._severe: deque[dict[str, Any]] = deque(maxlen=KEPT // 2)
        self._others: deque[dict[str, Any]] = deque(maxlen=KEPT // 2)
        self._severe_allowance, self._allowance = Allowance(MAX_PER_S), Allowance(MAX_PER_S)

    def attach(self, logger: logging.Logger) -> None:
        """Begin to see what `logger` and those below it log."""
        self._logger = logger
        logger.addHandler(self)

    def close(self) -> None:
        """See nothing any more. What is kept stays. Idempotent."""
        logger, self._logger = self._logger, None
        if logger is not None:
            logger.removeHandler(self)
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging, under the lock."""
        try:
            kind = self._kind_of(record)
            if kind is not None:
                self._n += 1
                severe = record.levelno >= logging.WARNING or kind == "reload"
                if (self._severe_allowance if severe else self._allowance).take():
                    (self._severe if severe else self._others).append(_described(self._n, kind, record))
                self.on_event()
        except BaseException:  # of what a record has: its values are somebody's code
            with suppress(BaseException):
                self.handleError(record)
        last_resort = logging.lastResort
        if last_resort is not None and record.levelno >= last_resort.level and self._is_alone(record):
            last_resort.handle(record)

    @property
    def newest(self) -> int:
        """The number of the last event; 0 if there was none."""
        return self._n

    def since(self, n: int) -> tuple[list[dict[str, Any]], int, int]:
        """The events after the `n`-th that are still there, the number of the last, and how many there are not.

        Where they are more than `TOLD_CHARS`, the first of them, and the number of the last of these.
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
        """None for what is no event: what wsthreads tells of its ordinary course."""
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
        return "log" if record.levelno >= logging.WARNING else None

    def _is_alone(self, record: logging.LogRecord) -> bool:
        """Whether logging has nobody else to give the record to. It would print it then, were we not there."""
        handlers = list(_handlers_of(record.name))
        return handlers[:1] == [self] and all(isinstance(handler, Events) for handler in handlers)


def _handlers_of(name: str) -> Iterable[logging.Handler]:
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def _described(n: int, kind: str, record: logging.LogRecord) -> dict[str, Any]:
    """A record as the page gets it."""
    place = record.__dict__
    if not record.name.startswith("wsthreads."):  # the user's own, whose attributes mean something else
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
    """An attribute of a record, or None. The user's own may have anything of that name, as a database's session."""
    return value if type(value) is kind else None
